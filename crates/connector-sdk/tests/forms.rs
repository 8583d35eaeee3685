//! Nested form bodies can be read back, whatever names and values hold.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(clippy::string_slice, reason = "the decoder of this test reads ASCII")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use weir_connector_sdk::{CallContext, Connector};

const MANIFEST: &str = "\
connector: forms
version: 1.0.0
hosts: [\"https://forms.test\"]
auth: { none: {} }
operations:
  send: { post: /send, body: form, effect: blind }
";

/// Reads `a[b][0]=x` back into a tree; structure is what stands in plain brackets.
fn decode(form: &str) -> Value {
    let mut root = Value::Object(Map::new());
    for pair in form.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        let (first, rest) = name.split_once('[').unwrap_or((name, ""));
        let mut steps = vec![unescape(first)];
        steps.extend(
            rest.split_terminator(']')
                .map(|step| unescape(step.trim_start_matches('['))),
        );
        let mut target = &mut root;
        for step in steps {
            if target.is_null() {
                *target = Value::Object(Map::new());
            }
            target = target.as_object_mut().unwrap().entry(step).or_insert(Value::Null);
        }
        *target = Value::String(unescape(value));
    }
    root
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::new();
    let mut index = 0;
    while index < bytes.len() {
        if bytes[index] == b'%' {
            decoded.push(u8::from_str_radix(&text[index + 1..index + 3], 16).unwrap());
            index += 3;
        } else {
            decoded.push(bytes[index]);
            index += 1;
        }
    }
    String::from_utf8(decoded).unwrap()
}

/// The tree as a form shows it: scalars as text, lists as objects with indexes, nothing where nothing was sent.
fn as_form_shows(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Bool(_) | Value::Number(_) => Some(Value::String(value.to_string())),
        Value::String(_) => Some(value.clone()),
        Value::Array(items) => {
            let map: Map<String, Value> = items
                .iter()
                .enumerate()
                .filter_map(|(index, item)| Some((index.to_string(), as_form_shows(item)?)))
                .collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        Value::Object(map) => {
            let map: Map<String, Value> = map
                .iter()
                .filter_map(|(name, item)| Some((name.clone(), as_form_shows(item)?)))
                .collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
    }
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z\\[\\]=&% é]{1,6}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn forms_can_be_read_back(args in prop::collection::btree_map("[a-z\\[\\]=&% é]{1,6}", tree(), 0..5)) {
        let args = Value::Object(args.into_iter().filter(|(name, _)| !["config", "args"].contains(&name.as_str())).collect());
        let connector = Connector::parse(MANIFEST, &|_| None).unwrap();
        let ctx = CallContext { config: &Value::Null, args: &args, idempotency_key: None, page: None };
        let request = connector.operation("send").unwrap().request(&ctx).unwrap();
        let body = String::from_utf8(request.body.unwrap()).unwrap();
        prop_assert!(body.is_ascii());
        prop_assert_eq!(decode(&body), as_form_shows(&args).unwrap_or(json!({})));
    }

    /// An argument never leaves its path segment, and what was sent can be read back from the URL.
    #[test]
    fn path_values_stay_in_their_segment(id in ".{0,20}") {
        let manifest = "connector: p\nversion: 1.0.0\nhosts: [\"https://p.test/v1\"]\nauth: { none: {} }\noperations: { get: { get: \"/a/{{ id }}/b\" } }\n";
        let connector = Connector::parse(manifest, &|_| None).unwrap();
        let args = json!({ "id": id });
        let ctx = CallContext { config: &Value::Null, args: &args, idempotency_key: None, page: None };
        match connector.operation("get").unwrap().request(&ctx) {
            Ok(request) => {
                let url = url::Url::parse(&request.url).unwrap();
                let segments: Vec<&str> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments.len(), 4, "{}", request.url);
                prop_assert_eq!(unescape(segments[2]), id);
                prop_assert_eq!((url.host_str(), url.query(), url.fragment()), (Some("p.test"), None, None));
            }
            Err(error) => prop_assert!(["", ".", ".."].contains(&id.as_str()), "{}", error),
        }
    }
}
