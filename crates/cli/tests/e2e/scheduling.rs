//! How the system schedules a server.

use crate::support::Server;
use std::collections::BTreeSet;

/// Niceness and scheduling policy of all threads of a process, as `proc_pid_stat(5)` numbers them.
fn of_threads(process: u32) -> BTreeSet<(i32, i32)> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of = |path: std::path::PathBuf| {
        let stat = std::fs::read_to_string(path.join("stat")).ok()?;
        // The name of the thread, in parentheses, is the second field.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        Some((fields[19 - 3].parse().unwrap(), fields[41 - 3].parse().unwrap()))
    };
    threads.filter_map(|thread| of(thread.unwrap().path())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_a_batch_unless_who_starts_it_chose_otherwise() {
    const ORDINARY: i32 = 0;
    const BATCH: i32 = 3;
    for (wrapper, expected) in [(&[][..], (0, BATCH)), (&["nice", "-n", "5"][..], (5, ORDINARY))] {
        let mut server = Server::start_under(wrapper, &[]).await;
        assert_eq!(
            of_threads(server.process_id()),
            BTreeSet::from([expected]),
            "{wrapper:?}"
        );
        server.stop().await;
    }
}
