//! A master key that is missing or another one: the server says which, where it belongs, and makes none up.

use crate::support::{Database, MASTER_KEY, Server, stderr};

const CONNECTION: &str = "
kind: Connection
name: crm
connector: http
config: { base_url: 'http://127.0.0.1:9' }
credential: { bearer: { token: secret } }
";
/// Another 32 bytes.
const OTHER_KEY: &str = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU=";

/// What `weir serve` complains about; it must not start.
fn refusal(server: &Server) -> String {
    let output = server.beside(&["serve"]);
    assert!(!output.status.success());
    stderr(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_key_file_is_named_and_never_made_again() {
    let mut server = Server::start().await;
    server.apply(CONNECTION);
    assert_eq!(server.stop().await, Some(0));
    let path = server.data().join("master.key");
    let key = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let said = refusal(&server);
    for part in [
        "master.key is missing",
        "sealed",
        "fix: put the file back",
        "WEIR_MASTER_KEY",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!path.exists(), "a key was made up");

    std::fs::write(&path, format!("{OTHER_KEY}\n")).unwrap();
    let said = refusal(&server);
    for part in [
        "does not fit",
        "sealed with master key",
        "this process has",
        "master.key",
    ] {
        assert!(said.contains(part), "{said}");
    }
    std::fs::write(&path, "not a key\n").unwrap();
    let said = refusal(&server);
    assert!(
        said.contains("does not hold 32 bytes") && said.contains("fix:"),
        "{said}"
    );

    std::fs::write(&path, key).unwrap();
    server.start_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_postgres_the_setting_is_named() {
    let database = Database::create("master_key").await;
    let mut server = Server::not_started(&[], &[("WEIR_DATABASE_URL", &database.url)]);
    let said = refusal(&server);
    assert!(
        said.contains("WEIR_MASTER_KEY is not set") && said.contains("openssl rand"),
        "{said}"
    );
    server.set("WEIR_MASTER_KEY", Some(MASTER_KEY));
    server.start_again().await;
    server.apply(CONNECTION);
    assert_eq!(server.stop().await, Some(0));

    server.set("WEIR_MASTER_KEY", None);
    let said = refusal(&server);
    assert!(
        said.contains("WEIR_MASTER_KEY is not set") && said.contains("sealed with"),
        "{said}"
    );
    assert!(!said.contains("openssl"), "a new key would open nothing: {said}");
    server.set("WEIR_MASTER_KEY", Some(OTHER_KEY));
    let said = refusal(&server);
    for part in [
        "does not fit",
        "sealed with master key",
        "this process has",
        "set WEIR_MASTER_KEY",
    ] {
        assert!(said.contains(part), "{said}");
    }
    server.set("WEIR_MASTER_KEY", Some(MASTER_KEY));
    server.start_again().await;
    server.kill();
    database.drop().await;
}
