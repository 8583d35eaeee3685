//! Paging kinds, carriers of keys, looks, and error rules that the example manifests do not use.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use serde_json::{Value, json};
use weir_connector_sdk::{
    Answer, AnswerBody, CallContext, Connector, Effect, Executed, HttpResponse, KeyCarrier, Operation, Page,
};

const MANIFEST: &str = r#"
connector: kinds
version: 1.0.0
hosts: ["https://kinds.test/api"]
auth: { none: {} }
success_when: { pointer: /ok, equals: true }
error_message: /error
errors:
  - { when: { pointer: /error, in: [ratelimited, busy] }, code: rate_limited, retryable: true, executed: no, retry_after: /wait }
operations:
  numbered: { get: /n, items: /data, page: { page: { into: query.page, size: { into: query.per_page, value: 2 } } } }
  offset:   { get: /o, items: /data, page: { offset: { into: query.offset, size: { into: query.limit, value: 2 } } } }
  link:     { get: /l, items: "", page: { link: {} }, success_when: { status: 200 } }
  next_url: { get: /u, items: /data, page: { next_url: { from: /next } } }
  search:
    post: /s
    body: { filter: "{{ filter }}", text: "{{ text }}" }
    input: { filter: required, text: optional }
    items: /data
    page: { cursor: { next: /next, into: body.paging.after, max_pages: 3 } }
    effect: read
  pay:
    post: /pay
    body: json
    effect: { keyed: { field: /meta/key, window: 1h } }
  make:
    post: /make
    body: json
    input: { name: required, "*": optional }
    effect: { find_by: { call: search, with: { filter: "name={{ name }}" }, found: /0/id, settle: 5s } }
  batch:
    post: /batch
    body: json
    effect: blind
    errors:
      - { when: { status: 207, pointer: /results/*/error/code, in: [limit] }, code: partly_limited, retryable: false, executed: maybe }
      - { when: { pointer: /results/*/ok, equals: false }, code: partly_failed }
      - { when: { pointer: /refused, present: true }, code: refused }
      - { when: { pointer: /rows/*/done, equals: false }, code: none_done, executed: no }
  wait:
    get: /w
    errors:
      - { when: { status: 420 }, code: calm, retryable: true, retry_after: { from: "header:X-Reset", unit: epoch_s } }
      - { when: { status: 421 }, code: calm, retryable: true, retry_after: { from: /reset, unit: epoch_ms } }
      - { when: { status: 422 }, code: calm, retryable: true, retry_after: { from: /wait, unit: ms } }
      - { when: { status: 423 }, code: calm, retryable: true, retry_after: "header:X-Wait" }
  remove: { delete: "/x/{{ id }}", effect: repeatable, errors: [{ when: { status: [404, 410] }, ok: true }] }
  shout: { post: /shout, body: { text: "{{ (text | upper) ~ '!' }}", n: "{{ count + 1 }}" }, input: { text: required, count: required }, effect: blind }
"#;

fn connector() -> Connector {
    Connector::parse(MANIFEST, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn ctx<'a>(args: &'a Value, page: Option<&'a Page>) -> CallContext<'a> {
    CallContext {
        config: &Value::Null,
        args,
        idempotency_key: Some("weir_k"),
        page,
    }
}

fn response(status: u16, headers: &[(&str, &str)], body: &Value) -> HttpResponse {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    HttpResponse {
        status,
        headers,
        body: body.to_string().into_bytes(),
    }
}

/// The items and URLs of a whole list, page by page.
fn read_all(
    operation: &Operation,
    args: &Value,
    mut answer: impl FnMut(usize) -> HttpResponse,
) -> (Vec<Value>, Vec<String>, Option<String>) {
    let (mut items, mut sent, mut page) = (Vec::new(), Vec::new(), None);
    for number in 0.. {
        let ctx = ctx(args, page.as_ref());
        let request = operation.request(&ctx).unwrap();
        sent.push(format!(
            "{}{}",
            request.url,
            request
                .body
                .map_or_else(String::new, |body| format!(" {}", String::from_utf8(body).unwrap()))
        ));
        match operation.response(&ctx, &answer(number)) {
            Answer::Done {
                output: AnswerBody::Value(Value::Array(found)),
                next,
            } => {
                items.extend(found);
                match next {
                    Some(next) => page = Some(next),
                    None => return (items, sent, None),
                }
            }
            Answer::Failed { code, .. } => return (items, sent, Some(code)),
            other => panic!("{other:?}"),
        }
    }
    unreachable!()
}

#[test]
fn every_kind_of_paging_ends() {
    let connector = connector();
    let data = |items: Value| json!({ "ok": true, "data": items });
    let operation = |name: &str| connector.operation(name).unwrap();
    let pages = [json!([1, 2]), json!([3, 4]), json!([5])];

    let (items, sent, _) = read_all(operation("numbered"), &json!({}), |number| {
        response(200, &[], &data(pages[number].clone()))
    });
    assert_eq!(items, [1, 2, 3, 4, 5]);
    assert_eq!(
        sent,
        [
            "https://kinds.test/api/n?per_page=2",
            "https://kinds.test/api/n?per_page=2&page=2",
            "https://kinds.test/api/n?per_page=2&page=3"
        ]
    );

    let (_, sent, _) = read_all(operation("offset"), &json!({}), |number| {
        response(200, &[], &data(pages[number].clone()))
    });
    assert_eq!(
        sent[1..],
        [
            "https://kinds.test/api/o?limit=2&offset=2",
            "https://kinds.test/api/o?limit=2&offset=4"
        ]
    );

    let links = [
        "<https://kinds.test/api/l?p=0>; rel=\"prev\", </api/l?p=2,3>; rel=\"next last\"",
        "<https://kinds.test/api/l?p=1>; rel=\"prev\"",
    ];
    let (_, sent, _) = read_all(operation("link"), &json!({}), |number| {
        response(200, &[("Link", links[number])], &json!([number]))
    });
    assert_eq!(sent, ["https://kinds.test/api/l", "https://kinds.test/api/l?p=2,3"]);

    let (_, sent, failure) = read_all(operation("next_url"), &json!({}), |number| {
        response(
            200,
            &[],
            &json!({ "ok": true, "data": [1], "next": if number == 0 { "?c=2" } else { "https://evil.test/u" } }),
        )
    });
    assert_eq!(
        (sent.len(), sent[1].as_str(), failure.as_deref()),
        (2, "https://kinds.test/api/u?c=2", Some("paging_refused"))
    );

    let (_, sent, failure) = read_all(operation("search"), &json!({ "filter": "f" }), |number| {
        response(200, &[], &json!({ "ok": true, "data": [1], "next": number }))
    });
    assert_eq!(
        sent[1],
        r#"https://kinds.test/api/s {"filter":"f","paging":{"after":"0"}}"#
    );
    assert_eq!((sent.len(), failure.as_deref()), (3, Some("page_limit")));
}

#[test]
fn keys_travel_in_bodies_and_looks_have_arguments() {
    let connector = connector();
    let pay = connector.operation("pay").unwrap();
    let args = json!({ "amount": 5, "meta": { "note": "x" } });
    let request = pay.request(&ctx(&args, None)).unwrap();
    assert_eq!(
        request.body.unwrap(),
        br#"{"amount":5,"meta":{"note":"x","key":"weir_k"}}"#
    );
    assert_eq!(
        pay.effect(&Value::Null, &args),
        Effect::Keyed {
            carrier: KeyCarrier::BodyField("/meta/key".to_owned()),
            window_s: 3_600
        }
    );

    let make = connector.operation("make").unwrap();
    let effect = make.effect(&Value::Null, &json!({ "name": "n" }));
    assert_eq!(
        effect,
        Effect::FindBy {
            operation: "search".to_owned(),
            with: json!({ "filter": "name=n" }),
            found: "/0/id".to_owned(),
            consistent: false,
            settle_s: 5
        }
    );
    // A class that cannot be worked out promises nothing.
    assert_eq!(make.effect(&Value::Null, &json!({})), Effect::Blind);
}

#[test]
fn answers_mean_what_the_rules_say() {
    let connector = connector();
    let check = |name: &str, args: Value, response: HttpResponse, wanted: &str| {
        let answer = match connector
            .operation(name)
            .unwrap()
            .response(&ctx(&args, None), &response)
        {
            Answer::Done { output, .. } => format!("done {output:?}"),
            Answer::Failed {
                code,
                message,
                retryable,
                retry_after_ms,
                executed,
                ..
            } => format!("{code} {message} {retryable} {retry_after_ms:?} {executed:?}"),
        };
        assert_eq!(answer, wanted);
    };
    let pay = || json!({ "amount": 1 });
    check(
        "pay",
        pay(),
        response(200, &[], &json!({ "ok": false, "error": "ratelimited", "wait": 1.5 })),
        "rate_limited ratelimited true Some(1500) No",
    );
    check(
        "pay",
        pay(),
        response(200, &[], &json!({ "ok": false, "error": "channel_not_found" })),
        "not_successful channel_not_found false None No",
    );
    check("pay", pay(), response(200, &[], &json!({ "ok": true })), "done Whole");
    check(
        "pay",
        pay(),
        response(500, &[], &json!({})),
        "http_500 the server answered 500 true None Maybe",
    );
    check(
        "pay",
        pay(),
        response(425, &[("retry-after", "-3")], &json!({})),
        "http_425 the server answered 425 true None No",
    );
    check(
        "pay",
        pay(),
        response(422, &[], &json!({})),
        "invalid the server answered 422 false None No",
    );
    check(
        "pay",
        pay(),
        response(303, &[], &json!({})),
        "http_303 the server answered 303 false None Maybe",
    );
    check(
        "remove",
        json!({ "id": 1 }),
        response(404, &[], &json!({})),
        "done Whole",
    );
    check(
        "numbered",
        json!({}),
        response(200, &[], &json!({ "ok": true })),
        "unreadable the answer has no list at `/data` false None Maybe",
    );
}

#[test]
fn expressions_compute_keep_types_and_name_what_is_missing() {
    let connector = connector();
    let shout = connector.operation("shout").unwrap();
    let request = shout
        .request(&ctx(&json!({ "text": "hi", "count": 9_007_199_254_740_993_i64 }), None))
        .unwrap();
    assert_eq!(request.body.unwrap(), br#"{"text":"HI!","n":9007199254740994}"#);
    let error = shout.request(&ctx(&json!({ "text": "hi" }), None)).unwrap_err();
    assert_eq!(
        (error.pointer.as_str(), error.message.as_str()),
        ("/count", "argument `count` is missing")
    );
    let error = shout
        .request(&ctx(&json!({ "text": "hi", "cuont": 1 }), None))
        .unwrap_err();
    assert_eq!(
        error.message,
        "`cuont` is not an argument of shout (did you mean `count`?)"
    );

    let load = |query: &str| {
        let text = format!(
            "connector: e\nversion: 1.0.0\nhosts: [\"https://e.test\"]\nauth: {{ none: {{}} }}\noperations: {{ x: {{ get: /x, query: {{ q: \"{{{{ {query} }}}}\" }} }} }}\n"
        );
        Connector::parse(&text, &|_| None)
    };
    let grows = load(&format!("n{}", " | replace('x', 'xxxxxxxxxxxxxxxxxxxx')".repeat(12))).unwrap();
    let error = grows
        .operation("x")
        .unwrap()
        .request(&ctx(&json!({ "n": "x" }), None))
        .unwrap_err();
    assert!(error.message.contains("fuel"), "{error}");
    let repeats = load("([n] * 1000000) | join").unwrap_err();
    assert!(repeats[0].to_string().contains("multiplies"), "{}", repeats[0]);
    assert!(load("n | default('2 * 3')").is_ok());
}

#[test]
fn waits_are_stated_in_many_ways() {
    let connector = connector();
    let wait = connector.operation("wait").unwrap();
    let check = |status: u16, headers: &[(&str, &str)], body: Value, wanted: Option<u64>| {
        let args = json!({});
        let Answer::Failed { retry_after_ms, .. } = wait.response(&ctx(&args, None), &response(status, headers, &body))
        else {
            panic!("a failure")
        };
        assert_eq!(retry_after_ms, wanted, "{status} {headers:?} {body}");
    };
    let date = ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"); // 1767225600
    check(420, &[date, ("x-reset", "1767225660")], json!({}), Some(60_000));
    // Over already, without a clock to compare with, or no number at all.
    check(420, &[date, ("x-reset", "1767225000")], json!({}), Some(0));
    check(420, &[("x-reset", "1767225660")], json!({}), None);
    check(420, &[date, ("x-reset", "soon")], json!({}), None);
    check(420, &[date, ("retry-after", "7")], json!({}), Some(7_000));
    check(421, &[date], json!({ "reset": 1_767_225_602_500_u64 }), Some(2_500));
    check(422, &[], json!({ "wait": "1500" }), Some(1_500));
    check(423, &[("x-wait", "2.5")], json!({}), Some(2_500));
    // A year at most, whatever is claimed.
    check(423, &[("x-wait", "1e300")], json!({}), Some(366 * 86_400_000));
}

#[test]
fn one_item_of_a_batch_is_enough_for_a_rule() {
    let connector = connector();
    let batch = connector.operation("batch").unwrap();
    let check = |status: u16, results: Value, wanted: Option<&str>| {
        let args = json!({});
        let body = json!({ "ok": true, "results": results });
        let code = match batch.response(&ctx(&args, None), &response(status, &[], &body)) {
            Answer::Failed { code, .. } => Some(code),
            Answer::Done { .. } => None,
        };
        assert_eq!(code.as_deref(), wanted, "{body}");
    };
    let limited = json!({ "error": { "code": "limit" } });
    check(207, json!([{ "id": 1 }, limited]), Some("partly_limited"));
    check(200, json!([{ "id": 1 }, limited]), None);
    check(200, json!([{ "ok": true }, { "ok": false }]), Some("partly_failed"));
    check(207, json!([{ "ok": true }, { "id": 1 }]), None);
    check(207, json!([]), None);
    check(207, json!({ "*": { "ok": false } }), Some("partly_failed"));
    check(207, json!("none"), None);
}

/// What a provider wraps around its answers is not the workflow's business.
#[test]
fn a_part_of_an_answer_is_the_output() {
    let manifest = MANIFEST.replace(
        "operations:\n",
        "operations:\n  unwrapped: { get: /r, result: /data/one }\n  made: { post: /r, result: /data/one, effect: blind }\n",
    );
    let connector = Connector::parse(&manifest, &|_| None).unwrap();
    let answer = |name: &str, status: u16, body: &Value| {
        let operation = connector.operation(name).unwrap();
        operation.response(&ctx(&Value::Null, None), &response(status, &[], body))
    };
    let done = |value: Value| Answer::Done {
        output: AnswerBody::Value(value),
        next: None,
    };
    let wrapped = json!({ "ok": true, "data": { "one": { "id": 7 } } });
    assert_eq!(answer("unwrapped", 200, &wrapped), done(json!({ "id": 7 })));
    assert_eq!(answer("made", 201, &wrapped), done(json!({ "id": 7 })));
    // The status says that it was done; what it made is not known.
    let other = json!({ "ok": true, "data": null });
    assert_eq!(answer("made", 201, &other), done(Value::Null));
    match answer("unwrapped", 200, &other) {
        Answer::Failed { code, message, .. } => {
            assert_eq!(
                (code.as_str(), message.as_str()),
                ("unreadable", "the answer has nothing at `/data/one`")
            );
        }
        other => panic!("{other:?}"),
    }
    for (wrong, expected) in [
        ("result: \"\"", "`` does not point to a part of the answer"),
        (
            "result: /a, items: /b",
            "state `items` for a list or `result` for anything else, not both",
        ),
        ("result: /a, answer: text", "text and bytes have no parts"),
    ] {
        let problems = Connector::parse(
            &manifest.replace("result: /data/one }", &format!("{wrong} }}")),
            &|_| None,
        );
        assert_eq!(problems.unwrap_err()[0].message, expected);
    }
}

#[test]
fn what_failed_in_part_was_done_in_part() {
    let connector = connector();
    let batch = connector.operation("batch").unwrap();
    let check = |status: u16, body: Value, wanted: (&str, Executed)| {
        let args = json!({});
        match batch.response(&ctx(&args, None), &response(status, &[], &body)) {
            Answer::Failed { code, executed, .. } => assert_eq!((code.as_str(), executed), wanted, "{body}"),
            Answer::Done { .. } => panic!("{body} is a failure"),
        }
    };
    let partly = json!({ "ok": true, "results": [{ "ok": true }, { "ok": false }] });
    check(200, partly.clone(), ("partly_failed", Executed::Maybe));
    check(207, partly.clone(), ("partly_failed", Executed::Maybe));
    check(400, partly, ("partly_failed", Executed::No));
    check(200, json!({ "refused": "all" }), ("refused", Executed::No));
    check(200, json!({ "rows": [{ "done": false }] }), ("none_done", Executed::No));
}

#[test]
fn an_argument_that_does_not_fit_is_shown() {
    let text = "connector: e\nversion: 1.0.0\nhosts: [\"https://e.test\"]\nauth: { none: {} }\noperations: { x: { get: /x, query: { n: \"{{ n }}\", how: \"{{ how }}\" }, input: { n: { type: integer }, how: { enum: [fast, slow] } } } }\n";
    let connector = Connector::parse(text, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let long = "x".repeat(200);
    for (args, place, told) in [
        (
            json!({ "n": "five" }),
            "/n",
            "`n` must be of type integer, found text: \"five\"".to_owned(),
        ),
        (
            json!({ "n": null }),
            "/n",
            "`n` must be of type integer, found null".to_owned(),
        ),
        (
            json!({ "n": [long] }),
            "/n",
            format!("`n` must be of type integer, found a list: [\"{}…", "x".repeat(78)),
        ),
        (
            json!({ "how": "FETCH" }),
            "/how",
            "`how` has a value that is not allowed: \"FETCH\" (one of: fast, slow)".to_owned(),
        ),
        (
            json!({ "how": null }),
            "/how",
            "`how` has a value that is not allowed: null (one of: fast, slow)".to_owned(),
        ),
    ] {
        let error = connector
            .operation("x")
            .unwrap()
            .request(&ctx(&args, None))
            .unwrap_err();
        assert_eq!((error.pointer.as_str(), error.message), (place, told), "{args}");
    }
}
