//! The promise behind every 2xx, seen from below: the system calls of the server, in their order.
//!
//! No answer leaves before an `fdatasync` (or `fsync`) has returned that was begun after the event's row was written.

use crate::support::{Server, payment_event};
use std::collections::HashMap;

const SECRET: &str = "whsec_durability";
const EVENTS: usize = 20;

const DOCUMENTS: &str = "
kind: Connection
name: stripe
connector: stripe
config: { base_url: 'http://127.0.0.1:9' }
credential: { bearer: { token: sk_test_e2e } }
---
kind: Endpoint
name: stripe
connection: stripe
secrets: [whsec_durability]
";

/// One line of the trace that matters here.
#[derive(Debug, PartialEq)]
enum Call {
    /// A write that holds the event with this number.
    Wrote(usize),
    /// A sync, from the line where it began.
    Synced { begun: usize },
    /// An answer with a 2xx status leaves.
    Answered,
}

fn marker(number: usize) -> String {
    format!("evt_durable_{number:04}_")
}

/// Reads `strace -f` output: calls may be cut in two by calls of other threads.
fn parse(trace: &str) -> Vec<(usize, Call)> {
    let mut calls = Vec::new();
    let mut begun: HashMap<&str, usize> = HashMap::new();
    for (line_number, line) in trace.lines().enumerate() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        let unfinished = call.contains("<unfinished ...>");
        if call.starts_with("fdatasync(") || call.starts_with("fsync(") {
            if unfinished {
                begun.insert(thread, line_number);
            } else if call.ends_with("= 0") {
                calls.push((line_number, Call::Synced { begun: line_number }));
            }
        } else if call.starts_with("<... fdatasync resumed>") || call.starts_with("<... fsync resumed>") {
            if let Some(begun) = begun.remove(thread).filter(|_| call.ends_with("= 0")) {
                calls.push((line_number, Call::Synced { begun }));
            }
        } else if call.contains("\"HTTP/1.1 20") {
            calls.push((line_number, Call::Answered));
        } else if call.starts_with("pwrite64(") {
            calls.extend(
                (0..EVENTS)
                    .filter(|number| call.contains(&marker(*number)))
                    .map(|number| (line_number, Call::Wrote(number))),
            );
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn no_2xx_leaves_before_its_row_is_on_disk() {
    let trace_folder = tempfile::tempdir().unwrap();
    let trace = trace_folder.path().join("trace");
    let trace_path = trace.to_str().unwrap();
    let works = std::process::Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .status();
    assert!(
        works.is_ok_and(|status| status.success()),
        "this test needs strace (Debian package `strace`) and a machine that lets a process be traced"
    );
    let calls = "trace=fdatasync,fsync,pwrite64,write,writev,sendto,sendmsg";
    let wrapper = ["strace", "-f", "-e", calls, "-s", "20000", "-o", trace_path];
    let mut server = Server::start_under(&wrapper, &[("WEIR_EGRESS_ALLOW", "127.0.0.0/8")]).await;
    server.apply(DOCUMENTS);
    for number in 0..EVENTS {
        let answer = server
            .stripe_hook("stripe", SECRET, &payment_event(&marker(number), "pi_1"))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    server.kill();

    let text = std::fs::read_to_string(&trace).unwrap();
    let calls = parse(&text);
    let mut proven = 0;
    for number in 0..EVENTS {
        let (written, _) = calls
            .iter()
            .find(|(_, call)| *call == Call::Wrote(number))
            .unwrap_or_else(|| panic!("event {number} was never written"));
        let synced = calls
            .iter()
            .find(|(_, call)| matches!(call, Call::Synced { begun } if begun > written))
            .map(|(line, _)| *line);
        let synced = synced.unwrap_or_else(|| panic!("event {number} was never synced"));
        // Requests went one after the other: the first answer after the write is the one to this event.
        let (answered, _) = calls
            .iter()
            .find(|(line, call)| *call == Call::Answered && line > written)
            .unwrap();
        assert!(
            synced < *answered,
            "event {number} was answered in line {answered} and on disk only in line {synced}"
        );
        proven += 1;
    }
    assert_eq!(proven, EVENTS);
}
