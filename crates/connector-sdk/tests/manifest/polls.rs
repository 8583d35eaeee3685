//! Lists that a manifest has read instead of being told by webhooks.

use weir_connector_sdk::Connector;

use super::{places, problems};

/// A small manifest without webhooks.
const POLLS: &str = "\
connector: lists
version: 1.0.0
hosts: [\"https://lists.test\"]
auth: { none: {} }
operations:
  items.list: { get: /items, query: { since: \"{{ since }}\" }, input: { since: optional }, items: /data }
polls:
  items: { call: items.list, with: { since: \"{{ since }}\" }, identify: { id: /id, type: \"lit:item\", time: /at } }
";

#[test]
fn a_manifest_may_have_lists_instead_of_webhooks() {
    assert_eq!(problems(POLLS), []);
    let connector = Connector::parse(POLLS, &|_| None).unwrap();
    assert!(connector.webhook().is_none());
    assert_eq!(connector.polls().collect::<Vec<_>>(), ["items"]);
    let poll = connector.poll("items").unwrap();
    let recover = poll.recover().unwrap();
    assert_eq!((recover.level.as_str(), recover.every_s), ("B", 300));
    assert!(poll.lists_events() && poll.lists_times() && poll.verifier().is_none());
    let item = serde_json::json!({ "id": 7, "at": "2026-11-27T10:00:00Z" });
    let found = poll.identify_unit(&item).unwrap();
    assert_eq!((found.id.as_str(), found.kind.as_str()), ("7", "item"));
}

#[test]
fn words_of_polls_are_checked() {
    for (from, to, pointer, code) in [
        (
            "call: items.list",
            "call: items.lost",
            "/polls/items/call",
            "unknown_operation",
        ),
        (
            "with: { since:",
            "with: { sinze:",
            "/polls/items/call",
            "unknown_argument",
        ),
        ("call: items.list, ", "", "/polls/items", "missing_key"),
        (", time: /at", "", "/polls/items/identify", "missing_key"),
        ("id: /id, ", "", "/polls/items", "no_key"),
        (
            "call: items.list",
            "level: C, call: items.list",
            "/polls/items/level",
            "bad_value",
        ),
        (
            "call: items.list",
            "every: 1s, call: items.list",
            "/polls/items/every",
            "out_of_bounds",
        ),
        (
            "call: items.list",
            "failures: {}, call: items.list",
            "/polls/items/failures",
            "unknown_key",
        ),
        ("  items: {", "  All Items: {", "/polls/All Items", "bad_name"),
    ] {
        let (head, polls) = POLLS.split_once("polls:\n").unwrap();
        let changed = polls.replacen(from, to, 1);
        assert_ne!(changed, polls);
        let found = problems(&format!("{head}polls:\n{changed}"));
        assert_eq!(places(&found), [(pointer, code)], "{to}");
    }
}
