//! The promise behind every 2xx, seen from below: the system calls of the server, in their order.
//!
//! No answer leaves before an `fdatasync` (or `fsync`) has returned that was begun after the event's row was written.

use crate::support::{API, Server, http, payment_event};
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

/// No event holds a marker: it is put together by the step that answers.
const ANSWERING: &str = "
kind: Workflow
name: answering
on: { event: generic.question }
steps:
  - { id: say, respond: { status: 201, body: 'evt_durable_{{ event.data.number }}_', within: 20s } }
";

/// One line of the trace that matters here; files by the number they were opened under.
#[derive(Debug, PartialEq)]
enum Call<'a> {
    /// A write that holds the event with this number.
    Wrote { number: usize, file: &'a str },
    /// A sync, from the line where it began.
    Synced { begun: usize, file: &'a str },
    /// An answer with a 2xx status leaves.
    Answered,
}

fn marker(number: usize) -> String {
    format!("evt_durable_{number:04}_")
}

/// The first argument of a call.
fn file_of(call: &str) -> &str {
    let arguments = call.split_once('(').map_or("", |(_, arguments)| arguments);
    arguments.split([',', ')', ' ']).next().unwrap_or_default()
}

/// Reads `strace -f` output: calls may be cut in two by calls of other threads.
fn parse(trace: &str) -> Vec<(usize, Call<'_>)> {
    let mut calls = Vec::new();
    let mut begun: HashMap<&str, (usize, &str)> = HashMap::new();
    for (line_number, line) in trace.lines().enumerate() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if call.starts_with("fdatasync(") || call.starts_with("fsync(") {
            if call.contains("<unfinished ...>") {
                begun.insert(thread, (line_number, file_of(call)));
            } else if call.ends_with("= 0") {
                calls.push((
                    line_number,
                    Call::Synced {
                        begun: line_number,
                        file: file_of(call),
                    },
                ));
            }
        } else if call.starts_with("<... fdatasync resumed>") || call.starts_with("<... fsync resumed>") {
            if let Some((begun, file)) = begun.remove(thread).filter(|_| call.ends_with("= 0")) {
                calls.push((line_number, Call::Synced { begun, file }));
            }
        } else if call.contains("\"HTTP/1.1 20") {
            calls.push((line_number, Call::Answered));
        } else if call.starts_with("pwrite64(") {
            let numbers = (0..EVENTS).filter(|number| call.contains(&marker(*number)));
            calls.extend(numbers.map(|number| {
                (
                    line_number,
                    Call::Wrote {
                        number,
                        file: file_of(call),
                    },
                )
            }));
        }
    }
    calls
}

/// A server whose system calls are written to a file of this folder.
async fn traced(folder: &std::path::Path) -> (Server, std::path::PathBuf) {
    let trace = folder.join("trace");
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
    let server = Server::start_under(&wrapper, &[("WEIR_EGRESS_ALLOW", "127.0.0.0/8")]).await;
    (server, trace)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_2xx_leaves_before_its_row_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, trace) = traced(folder.path()).await;
    server.apply(DOCUMENTS);
    for number in 0..EVENTS {
        let answer = server
            .stripe_hook("stripe", SECRET, &payment_event(&marker(number), "pi_1"))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    server.kill();

    let text = std::fs::read_to_string(&trace).unwrap();
    assert_eq!(broken_promises(&text), Vec::<String>::new());
}

/// The answer is made by a step: what is written before it is the journal in which the step decided it.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_a_workflow_leaves_before_its_journal_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, trace) = traced(folder.path()).await;
    server.apply(&[API, ANSWERING].concat());
    let client = http();
    for number in 0..EVENTS {
        let answer = client
            .post(format!("{}/hooks/main/api", server.url))
            .header("x-api-token", "t")
            .body(format!(
                r#"{{"type":"question","id":"q{number}","number":"{number:04}"}}"#
            ))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
        assert_eq!(answer.text().await.unwrap(), marker(number), "made by the step");
    }
    server.kill();

    let text = std::fs::read_to_string(&trace).unwrap();
    assert_eq!(broken_promises(&text), Vec::<String>::new());
}

/// What the trace says against the promise, one line for each event that was answered too early.
fn broken_promises(trace: &str) -> Vec<String> {
    let calls = parse(trace);
    let mut broken = Vec::new();
    for number in 0..EVENTS {
        let written = calls.iter().find_map(|(line, call)| match call {
            Call::Wrote { number: found, file } if *found == number => Some((*line, *file)),
            Call::Wrote { .. } | Call::Synced { .. } | Call::Answered => None,
        });
        let Some((written, written_file)) = written else {
            broken.push(format!("event {number} was never written"));
            continue;
        };
        let synced = calls.iter().find(
            |(_, call)| matches!(call, Call::Synced { begun, file } if *begun > written && *file == written_file),
        );
        // Requests went one after the other: the first answer after the write is the one to this event.
        let answered = calls
            .iter()
            .find(|(line, call)| *call == Call::Answered && *line > written);
        match (synced, answered) {
            (Some((synced, _)), Some((answered, _))) if synced < answered => {}
            other => broken.push(format!(
                "event {number} was written in line {written}; sync and answer: {other:?}"
            )),
        }
    }
    broken
}

#[test]
fn an_answer_before_the_sync_would_be_noticed() {
    let good = |number: usize| {
        format!(
            "7 pwrite64(9, \"{}\", 8192, 0) = 8192\n7 fdatasync(9 <unfinished ...>\n8 write(3, \"log\", 3) = 3\n\
             7 <... fdatasync resumed>) = 0\n8 sendto(5, \"HTTP/1.1 200 OK\", 15, 0, NULL, 0) = 15\n",
            marker(number)
        )
    };
    let trace: String = (0..EVENTS).map(good).collect();
    assert_eq!(broken_promises(&trace), Vec::<String>::new());
    let early = trace.replacen("7 <... fdatasync resumed>) = 0\n8 sendto(5", "8 sendto(5", 1);
    assert_eq!(broken_promises(&early).len(), 1, "{early}");
    // A sync that began before the write proves nothing about it.
    let write = format!("7 pwrite64(9, \"{}\", 8192, 0) = 8192\n", marker(0));
    let begun = trace
        .replacen(&write, "", 1)
        .replacen("<unfinished ...>\n", &format!("<unfinished ...>\n{write}"), 1);
    assert_eq!(broken_promises(&begun).len(), 1, "{begun}");
}
