//! Webhooks that a manifest has made at the provider.

use weir_connector_sdk::{Connector, RegisterAsk};

use super::{VALID, places, problems};

/// What `register` needs at least.
const REGISTER: &str = "secret: ours, create: { call: items.create, with: { to: \"{{ url }}\", key: \"{{ secret }}\" } }, \
    list: { call: items.list }, delete: { call: items.get, with: { id: \"{{ id }}\" } }, hook: { id: /id, url: /to }";

fn registering(register: &str) -> String {
    let to = format!("recover: {{ level: A, call: items.list, reach: 30d }}\n  register: {{ {register} }}");
    VALID.replacen("recover: { level: A, call: items.list, reach: 30d }", &to, 1)
}

#[test]
fn words_of_register_are_checked() {
    assert_eq!(problems(&registering(REGISTER)), []);
    let place = "/webhook/register";
    for (from, to, pointer, code) in [
        ("secret: ours", "secret: our", "/secret", "bad_value"),
        ("secret: ours, ", "", "", "missing_key"),
        ("secret: ours", "secret: ours, renews: {}", "/renews", "unknown_key"),
        (
            "list: { call: items.list }",
            "list: { call: items.lst }",
            "/list/call",
            "unknown_operation",
        ),
        (
            "list: { call: items.list }",
            "list: { call: me.get }",
            "/list/call",
            "bad_value",
        ),
        ("list: { call: items.list }, ", "", "", "missing_key"),
        (
            "with: { id: \"{{ id }}\" }",
            "with: {}",
            "/delete/call",
            "missing_argument",
        ),
        ("{{ id }}", "{{ ids }}", "/delete/with", "unknown_name"),
        // What is made has no id yet.
        ("{{ url }}", "{{ url }}{{ id }}", "/create/with", "unknown_name"),
        ("to: \"{{ url }}\", ", "", "/create", "missing_argument"),
        (", key: \"{{ secret }}\"", "", "/create", "missing_argument"),
        ("hook: { id: /id, ", "hook: { id: id, ", "/hook/id", "bad_pointer"),
        (", url: /to", "", "/hook", "missing_key"),
        ("url: /to", "url: /to, secret: /s", "/hook/secret", "bad_value"),
        (
            "url: /to",
            "url: /to, works: { at: /state, is: on }",
            "/hook/works/is",
            "bad_type",
        ),
        ("secret: ours", "secret: ours, every: 1s", "/every", "out_of_bounds"),
        ("secret: ours", "secret: ours, lifetime: 1h", "", "bad_value"),
        ("secret: ours", "secret: ours, margin: 1h", "/margin", "bad_value"),
        (
            "secret: ours",
            "secret: ours, input: { url: required }",
            "/input/url",
            "reserved_name",
        ),
        (
            "secret: ours",
            "secret: ours, event_names: { before: \"\" }",
            "/event_names/before",
            "bad_value",
        ),
    ] {
        assert!(REGISTER.contains(from), "{from}");
        let found = problems(&registering(&REGISTER.replacen(from, to, 1)));
        let place = format!("{place}{pointer}");
        assert_eq!(places(&found), [(place.as_str(), code)], "{to}: {found:#?}");
        assert!(found[0].line.is_some(), "{found:#?}");
    }
    let near = problems(&registering(&REGISTER.replacen("secret: ours", "secret: our", 1)));
    assert_eq!(near[0].suggestion.as_deref(), Some("did you mean `ours`?"));
    let returned = REGISTER
        .replacen("secret: ours", "secret: returned", 1)
        .replacen(", key: \"{{ secret }}\"", "", 1);
    let found = problems(&registering(&returned));
    assert_eq!(places(&found)[0], ("/webhook/register/hook", "missing_key"));
    let renewed =
        format!("{REGISTER}, lifetime: 1h, margin: 1h, renew: {{ call: items.get, with: {{ id: \"{{{{ id }}}}\" }} }}");
    let found = problems(&registering(&renewed));
    assert_eq!(places(&found)[0], ("/webhook/register/margin", "out_of_bounds"));
}

#[test]
fn a_registration_says_what_is_sent_and_what_an_answer_means() {
    let words = "secret: returned, input: { repo: required, team: { type: string } }, \
        event_names: { before: \".\", all: \"*\" }, lifetime: 1h, every: 10m, \
        create: { call: items.create, with: { to: \"{{ url }}\", what: \"{{ events | join(',') }}\", until: \"{{ expires }}\", repo: \"{{ repo }}\", team: \"{{ team }}\" } }, \
        list: { call: items.list }, update: { call: items.create, with: { id: \"{{ id }}\", to: \"{{ url }}\" } }, \
        renew: { call: items.get, with: { id: \"{{ id }}\" } }, delete: { call: items.get, with: { id: \"{{ id }}\" } }, \
        hook: { id: /id, url: /to, events: /what, expires: /until, secret: /key, works: { at: /state, is: [on] } }";
    let connector = Connector::parse(&registering(words), &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let register = connector.webhook().unwrap().register().unwrap();
    assert_eq!(
        (register.every_s, register.lifetime_s, register.margin_s),
        (600, Some(3_600), 1_200)
    );
    let with = serde_json::json!({ "repo": "shop" });
    let ask = RegisterAsk {
        url: "https://weir.test/hooks/ep_1",
        events: &["made".to_owned(), "paid".to_owned()],
        secret: None,
        id: None,
        expires_unix_ms: Some(1_767_225_600_000),
        with: with.as_object().unwrap(),
    };
    assert_eq!(
        register.create.args(&ask).unwrap(),
        serde_json::json!({ "to": "https://weir.test/hooks/ep_1", "what": "made,paid", "until": "2026-01-01T00:00:00.000Z", "repo": "shop" })
    );
    let update = register.update.as_ref().unwrap();
    assert!(update.uses("url") && !update.uses("events"));
    assert_eq!(register.check_with(&serde_json::json!({ "repoo": 1 })).len(), 2);
    assert_eq!(register.check_with(&with), []);
    let names = |types: &[&str]| {
        let named = register.event_names(types.iter().copied(), ["item.made", "*"]);
        named.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(names(&["item.made", "item.paid", "push"]), ["item", "push"]);
    assert_eq!(names(&["item.made", "*"]), ["*"]);
    let answer = serde_json::json!({ "id": 7, "to": "https://weir.test", "what": "made, paid", "until": "2026-01-01T00:00:00Z", "key": "s1", "state": "on" });
    let hook = register.hook(&answer).unwrap();
    assert_eq!(
        (hook.id.as_str(), hook.url.as_deref()),
        ("7", Some("https://weir.test"))
    );
    assert_eq!(hook.events.unwrap().into_iter().collect::<Vec<_>>(), ["made", "paid"]);
    assert_eq!((hook.expires_unix_ms, hook.works), (Some(1_767_225_600_000), true));
    assert!(register.returned_secret(&answer).is_some());
    assert!(
        !register
            .hook(&serde_json::json!({ "id": "h", "state": "off" }))
            .unwrap()
            .works
    );
    assert_eq!(register.hook(&serde_json::json!({ "to": "x" })), None);
    assert!(register.returned_secret(&serde_json::json!({ "key": "" })).is_none());
}

#[test]
fn every_type_is_every_declared_one_where_the_provider_has_no_word_for_all() {
    let words = REGISTER.replacen(
        "secret: ours",
        "secret: ours, event_names: { only: [item.made, item.paid] }",
        1,
    );
    let connector =
        Connector::parse(&registering(&words), &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let register = connector.webhook().unwrap().register().unwrap();
    let declared = connector.events().map(|(name, _)| name);
    let names = register.event_names(["*"], declared);
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["item.made"]);
    assert!(register.event_names(["item.gone"], []).is_empty());
}
