//! How lists end, by every word that can end them, and how those are stopped that never would.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use serde_json::{Value, json};
use weir_connector_sdk::{Answer, AnswerBody, CallContext, Connector, HttpResponse};

/// A connector with one operation `list` that is paged so.
fn paged(page: &str) -> Result<Connector, Vec<String>> {
    let manifest = format!(
        "connector: pages\nversion: 1.0.0\nhosts: [\"https://pages.test\"]\nauth: {{ none: {{}} }}\noperations:\n  list: {{ post: /x, body: {{ q: a }}, items: /data, effect: read, page: {page} }}\n"
    );
    Connector::parse(&manifest, &|_| None).map_err(|problems| {
        let told = problems
            .iter()
            .map(|problem| format!("{} {}", problem.pointer, problem.code));
        told.collect()
    })
}

/// Reads the list of `page` until it ends; `answer` gives headers and body of each page by its number.
/// Every request in short, and how it ended: `end`, or the code of the failure.
fn walk(
    page: &str,
    mut answer: impl FnMut(usize) -> (Vec<(&'static str, String)>, Value),
) -> (Vec<String>, usize, String) {
    let connector = paged(page).unwrap_or_else(|problems| panic!("{problems:?}"));
    let operation = connector.operation("list").unwrap();
    let (mut sent, mut count, mut page) = (Vec::new(), 0, None);
    for number in 0.. {
        let ctx = CallContext {
            config: &Value::Null,
            args: &Value::Null,
            idempotency_key: None,
            page: page.as_ref(),
        };
        let request = operation.request(&ctx).unwrap();
        let place = request.url.strip_prefix("https://pages.test").unwrap().to_owned();
        let cursor = request.header("X-Cursor").unwrap_or_default();
        sent.push(format!(
            "{place} {cursor} {}",
            String::from_utf8(request.body.clone().unwrap()).unwrap()
        ));
        let (headers, body) = answer(number);
        let response = HttpResponse {
            status: 200,
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            body: body.to_string().into_bytes(),
        };
        match operation.response(&ctx, &response) {
            Answer::Done {
                output: AnswerBody::Value(Value::Array(items)),
                next,
            } => {
                count += items.len();
                match next {
                    Some(next) => page = Some(next),
                    None => return (sent, count, "end".to_owned()),
                }
            }
            Answer::Failed { code, .. } => return (sent, count, code),
            other => panic!("{other:?}"),
        }
    }
    unreachable!()
}

/// Pages of two items each.
fn twos(extra: impl Fn(usize) -> Value) -> impl FnMut(usize) -> (Vec<(&'static str, String)>, Value) {
    move |number| {
        let mut body = json!({ "data": [number, number] });
        body.as_object_mut()
            .unwrap()
            .extend(extra(number).as_object().unwrap().clone());
        (Vec::new(), body)
    }
}

#[test]
fn what_the_answer_says_ends_a_list() {
    let check = |page: &str, extra: fn(usize) -> Value, pages: usize| {
        let (sent, items, end) = walk(page, twos(extra));
        assert_eq!((sent.len(), items, end.as_str()), (pages, pages * 2, "end"), "{page}");
    };
    check(
        "{ page: { into: query.page, pages: /pages } }",
        |_| json!({ "pages": 3 }),
        3,
    );
    check(
        "{ page: { into: query.page, total: /total } }",
        |_| json!({ "total": "5" }),
        3,
    );
    check(
        "{ offset: { into: query.from, total: /total } }",
        |_| json!({ "total": 4 }),
        2,
    );
    check(
        "{ cursor: { next: /next, into: query.after, total: /total } }",
        |n| json!({ "next": n, "total": 6 }),
        3,
    );
    check(
        "{ offset: { into: query.from, more: /more } }",
        |n| json!({ "more": n < 1 }),
        2,
    );
    // The word in text, as some providers write it.
    check(
        "{ offset: { into: query.from, more: /more } }",
        |n| json!({ "more": if n < 1 { "true" } else { "false" } }),
        2,
    );
    check(
        "{ since_id: { from: \"\", into: query.after, total: /total } }",
        |_| json!({ "total": 4 }),
        2,
    );
}

#[test]
fn headers_tell_what_follows() {
    let page = "{ cursor: { next: \"header:X-Next\", into: header.X-Cursor } }";
    let (sent, _, end) = walk(page, |number| {
        let header = if number < 2 {
            format!("c{number}")
        } else {
            String::new()
        };
        (vec![("x-next", header)], json!({ "data": [1] }))
    });
    assert_eq!(
        sent,
        ["/x  {\"q\":\"a\"}", "/x c0 {\"q\":\"a\"}", "/x c1 {\"q\":\"a\"}"]
    );
    assert_eq!(end, "end");
    let (sent, items, _) = walk(
        "{ page: { into: query.page, total: \"header:X-Total-Count\" } }",
        |_| (vec![("X-Total-Count", "3".to_owned())], json!({ "data": [1, 2] })),
    );
    assert_eq!((sent.len(), items), (2, 4));
}

#[test]
fn numbers_stay_numbers_in_bodies_and_the_first_request_may_say_its_own() {
    let (sent, ..) = walk(
        "{ offset: { into: body.from, first: true, size: { into: body.size, value: 2 } } }",
        |number| {
            (
                Vec::new(),
                json!({ "data": if number == 0 { vec![1, 2] } else { vec![] } }),
            )
        },
    );
    assert_eq!(
        sent,
        [
            "/x  {\"q\":\"a\",\"size\":2,\"from\":0}",
            "/x  {\"q\":\"a\",\"size\":2,\"from\":2}"
        ]
    );
    let (sent, ..) = walk("{ page: { into: query.page, start: 0, first: true } }", |number| {
        (
            Vec::new(),
            json!({ "data": if number == 0 { vec![1] } else { vec![] } }),
        )
    });
    assert_eq!(sent, ["/x?page=0  {\"q\":\"a\"}", "/x?page=1  {\"q\":\"a\"}"]);
}

#[test]
fn a_short_page_ends_a_list_only_when_nothing_else_tells() {
    let short = |number: usize| vec![0; [2, 1, 2, 0][number]];
    let size = "size: { into: query.limit, value: 2 }";
    let (sent, items, _) = walk(&format!("{{ offset: {{ into: query.from, {size} }} }}"), |n| {
        (Vec::new(), json!({ "data": short(n) }))
    });
    assert_eq!((sent.len(), items), (2, 3));
    let (sent, items, _) = walk(
        &format!("{{ offset: {{ into: query.from, {size}, more: /more }} }}"),
        |n| (Vec::new(), json!({ "data": short(n), "more": n < 2 })),
    );
    assert_eq!((sent.len(), items), (3, 5));
}

/// A circle of any length is noticed, after each of its pages was fetched three times at most.
#[test]
fn cursors_in_a_circle_are_noticed() {
    for length in 1..40 {
        for before in [0, 1, 5] {
            let (sent, _, end) = walk("{ cursor: { next: /next, into: query.after } }", |number| {
                let at = if number < before {
                    number
                } else {
                    before + (number - before) % length
                };
                (Vec::new(), json!({ "data": [1], "next": format!("c{at}") }))
            });
            assert_eq!(end, "paging_loop", "circle of {length} after {before}");
            assert!(
                sent.len() <= 3 * (before + length) + 2,
                "{} requests for {length}",
                sent.len()
            );
        }
    }
}

#[test]
fn a_list_without_end_stops_at_its_pages() {
    // DEFAULT_MAX_PAGES
    let (sent, _, end) = walk("{ page: { into: query.page } }", twos(|_| json!({})));
    assert_eq!((sent.len(), end.as_str()), (1_000, "page_limit"));
    let (sent, _, end) = walk("{ page: { into: query.page, max_pages: 7 } }", twos(|_| json!({})));
    assert_eq!((sent.len(), end.as_str()), (7, "page_limit"));
}

#[test]
fn paging_words_are_checked() {
    let check = |page: &str, problem: &str| {
        let found = paged(page).err().unwrap_or_default();
        assert_eq!(found, [problem], "{page}");
    };
    let at = |rest: &str| format!("/operations/list/page{rest}");
    check(
        "{ offset: { into: query.from, max_pages: 0 } }",
        &at("/offset/max_pages out_of_bounds"),
    );
    assert!(paged("{ offset: { into: query.from, max_pages: 10_000 } }").is_ok());
    check(
        "{ offset: { into: query.from, max_pages: 10_001 } }",
        &at("/offset/max_pages out_of_bounds"),
    );
    check(
        "{ offset: { into: query.from, totl: /t } }",
        &at("/offset/totl unknown_key"),
    ); // misspelt on purpose
    check(
        "{ cursor: { next: next, into: query.a } }",
        &at("/cursor/next bad_pointer"),
    );
    check(
        "{ cursor: { next: \"header:a b\", into: query.a } }",
        &at("/cursor/next bad_pointer"),
    );
    check("{ link: { pages: /p } }", &at("/link/pages unknown_key"));
    check(
        "{ offset: { into: query.from, first: maybe } }",
        &at("/offset/first bad_type"),
    );
}

#[test]
fn what_changes_something_has_no_pages() {
    let manifest = "connector: p\nversion: 1.0.0\nhosts: [\"https://p.test\"]\nauth: { none: {} }\noperations:\n  a: { post: /x, items: /data, effect: blind, page: { link: {} } }\n";
    let problems = Connector::parse(manifest, &|_| None).unwrap_err();
    assert_eq!(
        (problems[0].pointer.as_str(), problems[0].code),
        ("/operations/a/effect", "conflict")
    );
}
