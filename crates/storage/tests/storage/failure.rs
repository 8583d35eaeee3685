//! The database fails: what is said about each fact is true, and the writer comes back by itself.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use weir_storage::{AcceptOutcome, Database, DatabaseOptions, Fact, FactOutcome, OpenError, WriteError, WriterHealth};

use crate::proxy::Proxy;
use crate::support::{Bed, Node, WORKSPACE, at, noise};

const NEW: FactOutcome = FactOutcome::Accepted(AcceptOutcome::New);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_replaced() {
    Bed::postgres().await.run(lost_connection).await;
}

async fn lost_connection(bed: &Bed) {
    let node = bed.node("a").await;
    assert_eq!(node.write(Fact::Accept(bed.accepted("1"))).await, Ok(NEW));
    end_sessions(bed).await;
    // The look at other days failed before anything was written.
    assert_eq!(
        node.write(Fact::Accept(bed.accepted("2"))).await,
        Err(WriteError::Unavailable)
    );
    assert!(
        matches!(node.writer.health(), WriterHealth::Failing { .. }),
        "{:?}",
        node.writer.health()
    );
    assert_eq!(node.write(Fact::Accept(bed.accepted("2"))).await, Ok(NEW));
    assert_eq!(node.writer.health(), WriterHealth::Healthy);
    end_sessions(bed).await;
    // Here the first statement is the one that commits: it may have been under way when the connection broke.
    let anchored = || Fact::Accept(bed.accepted_at("3", at(0), Some(at(0))));
    assert_eq!(node.write(anchored()).await, Err(WriteError::Unknown));
    assert_eq!(node.write(anchored()).await, Ok(NEW));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_in_the_wire_never_lands_after_the_writer_is_back() {
    Bed::postgres().await.run(commit_in_the_wire).await;
}

async fn commit_in_the_wire(bed: &Bed) {
    let proxy = Proxy::before(&bed.url).await;
    let (store, seed) = Database::open(&proxy.url, DatabaseOptions::default()).await.unwrap();
    let node = bed.start(store, seed, "a").await;
    let anchored = |key: &str| Fact::Accept(bed.accepted_at(key, at(0), Some(at(0))));
    assert_eq!(node.write(anchored("1")).await, Ok(NEW));
    proxy.cut();
    assert_eq!(node.write(anchored("2")).await, Err(WriteError::Unknown));
    // Whoever looks now must see the last word, so the old session has to be over by then.
    assert_eq!(node.write(anchored("3")).await, Ok(NEW));
    let events = "SELECT count(*) FROM event";
    assert_eq!(bed.number(events).await, 2);
    proxy.deliver().await;
    until_alone(bed).await;
    assert_eq!(bed.number(events).await, 2, "the look was not the last word");
    assert_eq!(node.write(anchored("2")).await, Ok(NEW));
}

/// Until the server has one writer's session only.
async fn until_alone(bed: &Bed) {
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'weir writer%' AND datname = current_database()";
    let waiting = async {
        while bed.number(sessions).await != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .expect("the old session ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_server_is_told_at_once_and_waited_for() {
    Bed::postgres().await.run(absent_server).await;
}

async fn absent_server(bed: &Bed) {
    let node = bed.node("a").await;
    let name = bed.url.rsplit_once('/').unwrap().1.to_owned();
    let allow = |yes: bool| format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {yes}");
    let mut admin = PgConnection::connect(&bed.url.replace(&name, "postgres"))
        .await
        .unwrap();
    admin.execute(AssertSqlSafe(allow(false))).await.unwrap();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    admin.execute(AssertSqlSafe(end)).await.unwrap();

    for n in 0..5 {
        let answer = node.write(Fact::Accept(bed.accepted(&n.to_string()))).await;
        assert_eq!(answer, Err(WriteError::Unavailable), "nothing was sent");
    }
    match node.writer.health() {
        WriterHealth::Failing { reason, .. } => {
            assert!(reason.contains("not currently accepting connections"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    admin.execute(AssertSqlSafe(allow(true))).await.unwrap();
    until_written(bed, &node).await;
    assert_eq!(node.writer.health(), WriterHealth::Healthy);
}

/// Tries again as a provider would, until it is written.
async fn until_written(bed: &Bed, node: &Node) {
    let trying = async {
        while node.write(Fact::Accept(bed.accepted("again"))).await != Ok(NEW) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), trying)
        .await
        .expect("the writer connects again by itself");
}

async fn end_sessions(bed: &Bed) {
    bed.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'weir writer%' AND datname = current_database()")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_that_was_answered() {
    Bed::sqlite().run(full_disk).await;
}

async fn full_disk(bed: &Bed) {
    let options = DatabaseOptions {
        max_bytes: Some(2 << 20),
        ..DatabaseOptions::default()
    };
    let (store, seed) = Database::open(&bed.url, options).await.unwrap();
    let node = bed.start(store, seed, "a").await;
    let mut written = Vec::new();
    let failed = loop {
        let mut accepted = bed.accepted(&format!("key {}", written.len()));
        accepted.event.body = noise(20_000).into();
        let id = accepted.event.id;
        match node.write(Fact::Accept(accepted)).await {
            Ok(_) => written.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!(
        failed,
        WriteError::Unavailable,
        "the statement failed before the commit"
    );
    assert!(written.len() > 20, "{}", written.len());
    assert!(matches!(node.writer.health(), WriterHealth::Failing { reason, .. } if reason.contains("full")));
    for id in &written {
        assert!(node.store.event_load(WORKSPACE, *id).await.unwrap().is_some());
    }
    node.stop().await;

    let node = bed.node("a").await;
    assert_eq!(
        bed.number("SELECT count(*) FROM event").await,
        i64::try_from(written.len()).unwrap()
    );
    assert_eq!(node.write(Fact::Accept(bed.accepted("room again"))).await, Ok(NEW));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_turned_away() {
    Bed::sqlite().run(second_process).await;
}

async fn second_process(bed: &Bed) {
    let node = bed.node("a").await;
    let error = Database::open(&bed.url, DatabaseOptions::default()).await.unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    let message = error.to_string();
    assert!(
        message.contains("weir.db.lock") && message.contains("another weir process"),
        "{message}"
    );
    node.stop().await;
    bed.node("a").await;
}

#[tokio::test]
async fn addresses_that_are_not_understood_say_so_without_the_password() {
    for (url, expected) in [
        ("mysql://user:secret@host/db", "mysql://…@host/db"),
        ("sqlite://:memory:", "needs the path of a file"),
        ("weir.db", "must begin with sqlite:// or postgres://"),
    ] {
        let error = Database::open(url, DatabaseOptions::default())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_are_synchronous_and_bounded_whatever_the_server_says() {
    Bed::postgres().await.run(synchronous).await;
}

async fn synchronous(bed: &Bed) {
    drop(bed.open().await);
    let (_, database) = bed.url.rsplit_once('/').unwrap();
    bed.execute(&format!("ALTER DATABASE {database} SET synchronous_commit = off"))
        .await;
    bed.execute(
        "CREATE TABLE seen (setting text, lock_limit text, idle_limit text); \
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO seen VALUES (current_setting('synchronous_commit'), current_setting('lock_timeout'), \
         current_setting('idle_in_transaction_session_timeout')); RETURN NEW; END $$; \
         CREATE TRIGGER see AFTER INSERT ON event FOR EACH ROW EXECUTE FUNCTION see()",
    )
    .await;
    let node = bed.node("a").await;
    assert_eq!(node.write(Fact::Accept(bed.accepted("1"))).await, Ok(NEW));
    end_sessions(bed).await;
    // Also after the connection was lost.
    until_written(bed, &node).await;
    assert_eq!(bed.number("SELECT count(*) FROM seen WHERE setting = 'on'").await, 2);
    // A writer that stands still keeps no other one waiting for its locks.
    let bounded = "SELECT count(*) FROM seen WHERE lock_limit = '2s' AND idle_limit = '2s'";
    assert_eq!(bed.number(bounded).await, 2);
    assert_eq!(bed.number("SELECT count(*) FROM seen").await, 2);
}

/// A copy of the server that was promoted has the same rows, but perhaps not the newest: nobody goes on by memory there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_fences_who_registered_before_it() {
    Bed::postgres().await.run(failover).await;
}

async fn failover(bed: &Bed) {
    let node = bed.node("a").await;
    assert_eq!(node.write(Fact::Accept(bed.accepted("1"))).await, Ok(NEW));
    // The same server again: nothing happens.
    end_sessions(bed).await;
    until_written(bed, &node).await;
    let (_, database) = bed.url.rsplit_once('/').unwrap();
    bed.execute(&format!(
        "CREATE SCHEMA other; CREATE FUNCTION other.pg_control_system(OUT system_identifier bigint) LANGUAGE sql AS 'SELECT 7'; \
         ALTER DATABASE {database} SET search_path = other, public, pg_catalog"
    ))
    .await;
    end_sessions(bed).await;
    let refused = loop {
        match node.writer.submit(Fact::Accept(bed.accepted("2"))) {
            Ok(pending) => match pending.await {
                Err(WriteError::Unavailable | WriteError::Unknown) => {}
                other => break other,
            },
            Err(_full) => {}
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(refused, Err(WriteError::Fenced));
    assert_eq!(bed.number("SELECT count(*) FROM event WHERE dedupe_key = '2'").await, 0);
    // Who registers anew goes on.
    let (store, mut seed) = bed.open().await;
    let again = seed.rejoin(&node.identity).await.unwrap();
    assert!(again.is_some());
    drop(store);
}
