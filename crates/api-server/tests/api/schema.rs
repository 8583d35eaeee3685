//! The schema as it is committed, and what every part of it must have.

use crate::support::TestServer;
use serde_json::{Value, json};

const INTROSPECTION: &str = include_str!("introspection.graphql");

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the one switch of this test; no setting of the server"
)]
fn committed_schema_is_the_real_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql");
    let real = weir_api_server::schema_sdl();
    if std::env::var_os("WEIR_UPDATE_SCHEMA").is_some() {
        std::fs::write(path, &real).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(
        committed == real,
        "schema.graphql is not what the code says; run this test with WEIR_UPDATE_SCHEMA=1 and look at the difference"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_part_of_the_schema_is_described() {
    let server = TestServer::start().await;
    // The query that `GraphiQL` and other tools send: it must stay inside the limits.
    let data = server.query(INTROSPECTION, json!({})).await;
    let mut missing = Vec::new();
    let mut look = |name: String, described: &Value| {
        if described["description"]
            .as_str()
            .is_none_or(|text| text.trim().is_empty())
        {
            missing.push(name);
        }
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for kind in list(&data["__schema"]["types"]) {
        let name = kind["name"].as_str().unwrap().to_owned();
        // `ID` is the language's own and comes without a description from the library.
        if name.starts_with("__") || name == "ID" {
            continue;
        }
        look(name.clone(), &kind);
        for field in list(&kind["fields"])
            .iter()
            .chain(&list(&kind["inputFields"]))
            .chain(&list(&kind["enumValues"]))
        {
            let path = format!("{name}.{}", field["name"].as_str().unwrap());
            look(path.clone(), field);
            for argument in list(&field["args"]) {
                look(format!("{path}({})", argument["name"].as_str().unwrap()), &argument);
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new(), "without a description");
    let mutations = list(&data["__schema"]["types"])
        .into_iter()
        .find(|kind| kind["name"] == "Mutation")
        .unwrap();
    for mutation in list(&mutations["fields"]) {
        let arguments: Vec<_> = list(&mutation["args"])
            .iter()
            .map(|argument| argument["name"].clone())
            .collect();
        assert_eq!(arguments, [json!("input")], "{} takes one input", mutation["name"]);
        assert!(
            mutation["type"]["ofType"]["name"]
                .as_str()
                .unwrap()
                .ends_with("Payload"),
            "{}",
            mutation["name"]
        );
    }
    server.stop().await;
}

/// Whoever gets a code finds it in the documentation.
#[test]
fn every_code_is_documented() {
    let page = |name: &str| {
        let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let errors = page("errors.md");
    for code in weir_api_server::Code::ALL {
        let entry = code.entry();
        let row = format!(
            "| `{}` | {} | {} | {} |",
            entry.code, entry.status, entry.title, entry.fix
        );
        assert!(errors.contains(&row), "docs/errors.md lacks: {row}");
    }
    let schema = weir_api_server::schema_sdl();
    let codes = schema
        .split_once("enum UserErrorCode {")
        .unwrap()
        .1
        .split_once("\n}")
        .unwrap()
        .0;
    let graphql = page("graphql.md");
    let names = codes.lines().map(str::trim);
    let names: Vec<&str> = names
        .filter(|line| !line.is_empty() && line.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_'))
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        assert!(graphql.contains(&format!("`{name}`")), "docs/graphql.md lacks {name}");
    }
}
