//! The two example manifests, proved by their case files.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests load the files beside a manifest, as a host does"
)]

use weir_connector_sdk::{Connector, testing};

fn load(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("{}/tests/data/manifests/{name}", env!("CARGO_MANIFEST_DIR"))).ok()
}

#[track_caller]
fn check(name: &str, cases: usize) {
    let connector = Connector::parse(&load(&format!("{name}.yaml")).unwrap(), &load)
        .unwrap_or_else(|problems| panic!("{problems:#?}"));
    let outcomes = testing::run_cases(&connector, &load(&format!("cases/{name}.yaml")).unwrap(), &load)
        .unwrap_or_else(|problems| panic!("{problems:#?}"));
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(outcomes.len(), cases);
}

#[test]
fn acme_pay_does_what_its_cases_say() {
    check("acme-pay", 18);
}

#[test]
fn http_does_what_its_cases_say() {
    check("http", 16);
}

#[test]
fn formats_do_what_their_cases_say() {
    check("formats", 34);
}

#[test]
fn a_wrong_case_fails() {
    let connector = Connector::parse(&load("acme-pay.yaml").unwrap(), &load).unwrap();
    let file = "secret: s\ncases:\n  - name: wrong\n    call: account.get\n    request: { url: https://wrong.test/ }\n";
    let outcomes = testing::run_cases(&connector, file, &load).unwrap();
    assert_eq!(outcomes[0].line, Some(3));
    assert!(
        outcomes[0].failure.as_ref().unwrap().starts_with("url: expected"),
        "{outcomes:?}"
    );
    let problems = testing::run_cases(&connector, "cases:\n  - { name: x, cal: account.get }\n", &load).unwrap_err();
    assert_eq!(
        (
            problems[0].pointer.as_str(),
            problems[0].line,
            problems[0].suggestion.as_deref()
        ),
        ("/cases/0/cal", Some(2), Some("did you mean `call`?"))
    );
}
