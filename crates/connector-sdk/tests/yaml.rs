//! YAML is bounded, strict, and knows its lines.

use serde_json::json;
use weir_connector_sdk::parse_yaml;

#[test]
fn documents_keep_order_types_and_lines() {
    let documents = parse_yaml(
        "---\nb: 1\na:\n  - x\n  - { k: yes, n: null, f: 1.5, big: 9007199254740993 }\n---\n---\non: [true]\n",
    )
    .unwrap();
    assert_eq!(documents.len(), 2);
    assert_eq!(
        documents[0].value.to_string(),
        r#"{"b":1,"a":["x",{"k":"yes","n":null,"f":1.5,"big":9007199254740993}]}"#
    );
    assert_eq!(documents[1].value, json!({ "on": [true] }));
    let line = |pointer| documents[0].line_of(pointer);
    assert_eq!(
        (line(""), line("/b"), line("/a"), line("/a/1/k"), line("/a/1/k/nothing")),
        (Some(2), Some(2), Some(3), Some(5), Some(5))
    );
    assert_eq!(documents[1].line_of("/on"), Some(8));
    assert_eq!(
        parse_yaml("{ a/b: { c~d: 1 } }").unwrap()[0].line_of("/a~1b/c~0d"),
        Some(1)
    );
}

#[test]
fn what_json_cannot_say_or_is_too_much_is_refused() {
    let check = |text: &str, line: usize| {
        let error = parse_yaml(text).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(!error.message.contains('\n'), "{error}");
    };
    check("a: 1\nb: 2\na: 3\n", 3);
    check("a: .inf\n", 1);
    check("a: [1\n", 1);
    check(&"[".repeat(200), 1);
    check(&format!("a: {}", "x".repeat(5 * 1024 * 1024)), 0);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        bomb.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            vec![format!("*a{}", level - 1); 10].join(", ")
        ));
    }
    assert!(parse_yaml(&bomb).is_err());
}

#[test]
fn a_key_that_stands_twice_is_told_in_the_words_of_the_author() {
    let error = parse_yaml("kind: Workflow\nname: a\nkind: Endpoint\n").unwrap_err();
    assert_eq!((error.line, error.message.as_str()), (3, "duplicate mapping key: kind"));
}
