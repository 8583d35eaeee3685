//! What is said about words of bodies and answers that do not fit.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use weir_connector_sdk::Connector;

/// The problems of one operation, as `pointer code: message (suggestion)`; pointers from the operation on.
fn problems(operation: &str) -> Vec<String> {
    let manifest = format!(
        "connector: b\nversion: 1.0.0\nhosts: [\"https://b.test\"]\nauth: {{ none: {{}} }}\noperations:\n  x: {operation}\n"
    );
    let load = |file: &str| (file == "q.graphql").then(|| "{ a }".to_owned());
    let Err(problems) = Connector::parse(&manifest, &load) else {
        return Vec::new();
    };
    let told = problems.iter().map(|problem| {
        assert_eq!(problem.line, Some(6), "{problem}");
        let place = problem.pointer.strip_prefix("/operations/x").unwrap();
        let suggestion = problem
            .suggestion
            .as_ref()
            .map(|text| format!(" ({text})"))
            .unwrap_or_default();
        format!("{place} {}: {}{suggestion}", problem.code, problem.message)
    });
    told.collect()
}

#[track_caller]
fn check(operation: &str, wanted: &str) {
    assert_eq!(problems(operation), [wanted], "{operation}");
}

#[test]
fn words_of_bodies_are_checked() {
    check(
        "{ post: /x, body: { a: b }, encode: xnl, effect: blind }", // misspelt on purpose
        "/encode bad_value: `xnl` is not known here (did you mean `xml`?)",
    );
    check(
        "{ post: /x, body: json, encode: xml, effect: blind }",
        "/encode conflict: `body: json` and `body: form` already say how to encode",
    );
    check(
        "{ post: /x, body: ping, effect: blind }",
        "/body bad_value: `body` is `json`, `form`, a template, or one expression; fixed text needs `encode: text`",
    );
    assert_eq!(
        problems("{ post: /x, body: ping, encode: text, effect: blind }"),
        [""; 0]
    );
    check(
        "{ post: /x, body: \"{{ b }}\", encode: binary, effect: { keyed: { field: /key, window: 1h } } }",
        "/effect conflict: the key has no place: this body has no fields",
    );
    check(
        "{ post: /x, body: \"{{ b }}\", encode: text, items: /d, effect: read, page: { cursor: { next: /n, into: body.after } } }",
        "/page conflict: the page has no place: this body has no fields",
    );
    check(
        "{ post: /x, body: { a: b }, graphql: \"{ a }\", effect: read }",
        "/graphql conflict: an operation has one of `body`, `graphql` and `soap`",
    );
}

#[test]
fn words_of_graphql_are_checked() {
    assert_eq!(
        problems("{ post: /x, graphql: { file: q.graphql }, effect: read }"),
        [""; 0]
    );
    check(
        "{ get: /x, graphql: \"{ a }\" }",
        "/graphql conflict: `graphql` is sent by POST (post: /path)",
    );
    check(
        "{ post: /x, graphql: { file: r.graphql }, effect: read }",
        "/graphql/file missing_file: the file `r.graphql` is not there",
    );
    check(
        "{ post: /x, graphql: { file: ../q.graphql }, effect: read }",
        "/graphql/file bad_value: `../q.graphql` is not a file beside the manifest",
    );
    check(
        "{ post: /x, graphql: { query: \"{ a }\", file: q.graphql }, effect: read }",
        "/graphql missing_key: state one of `query` (its text) and `file` (beside the manifest)",
    );
    check(
        "{ post: /x, graphql: { query: \"{ a }\", variable: {} }, effect: read }", // misspelt on purpose
        "/graphql/variable unknown_key: `variable` is not a key here (did you mean `variables`?)",
    );
    check(
        "{ post: /x, graphql: { query: \"{ a }\", variables: all }, effect: read }",
        "/graphql/variables bad_type: `variables` is a mapping",
    );
    check(
        "{ post: /x, graphql: \"{ a }\", encode: form, effect: read }",
        "/encode conflict: `graphql` already says how to encode",
    );
    check(
        "{ post: /x, graphql: \"{ a }\", answer: text, effect: read }",
        "/answer conflict: `graphql` and `soap` already say how answers are read",
    );
    check(
        "{ post: /x, graphql: \"{ a }\" }",
        " missing_key: `effect` is missing: nothing tells whether the call may be repeated (read, repeatable, blind, { keyed: … } or { find_by: … }; `blind` if nothing is known)",
    );
}

#[test]
fn words_of_soap_are_checked() {
    assert_eq!(
        problems("{ post: /x, soap: { version: 1.1, body: { a: b } }, effect: read }"),
        [""; 0]
    );
    check(
        "{ post: /x, soap: { action: a }, effect: read }",
        "/soap missing_key: `body` is missing",
    );
    check(
        "{ post: /x, soap: { version: 1.3, body: { a: b } }, effect: read }",
        "/soap/version bad_value: `1.3` is not known here (did you mean `1.1`?)",
    );
    check(
        "{ post: /x, soap: { action: 'a\"b', body: { a: b } }, effect: read }",
        "/soap/action bad_value: an action is ASCII text without quotes",
    );
    check(
        "{ post: /x, soap: { body: text }, effect: read }",
        "/soap/body bad_type: `body` is a mapping of elements",
    );
    check(
        "{ post: /x, soap: { body: { a: b }, lists: A }, effect: read }",
        "/soap/lists bad_type: `lists` must be a list of texts",
    );
}

#[test]
fn words_of_answers_are_checked() {
    check(
        "{ post: /x, etag: true, effect: read }",
        "/etag conflict: only a GET can be conditional",
    );
    check(
        "{ get: /x, answer: binaries }", // misspelt on purpose
        "/answer bad_value: `binaries` is not known here (did you mean `binary`?)",
    );
    check(
        "{ get: /x, answer: { xml: { list: [A] } } }", // misspelt on purpose
        "/answer/xml/list unknown_key: `list` is not a key here (did you mean `lists`?)",
    );
    check(
        "{ get: /x, errors: [{ when: { pointer: /e, contains: a, empty: true }, code: c }] }",
        "/errors/0/when bad_value: state one of `equals`, `in: […]`, `present`, `contains` or `empty`",
    );
    check(
        "{ get: /x, errors: [{ when: { status: 429 }, code: c, retry_after: { from: x } }] }",
        "/errors/0/retry_after/from bad_pointer: `x` is neither a JSON Pointer nor a header (/pointer or header:NAME)",
    );
    check(
        "{ get: /x, errors: [{ when: { status: 429 }, code: c, retry_after: { from: /x, unit: epoch } }] }",
        "/errors/0/retry_after/unit bad_value: `epoch` is not known here (did you mean `epoch_s`?)",
    );
    check(
        "{ get: /x, errors: [{ when: { contains: a }, code: c }] }",
        "/errors/0/when missing_key: `equals`, `in`, `present`, `contains` and `empty` need a `pointer` or a `header`",
    );
    check(
        "{ get: /x, errors: [{ when: { pointer: /e, contains: \"\" }, code: c }] }",
        "/errors/0/when/contains bad_value: every text contains this one",
    );
}
