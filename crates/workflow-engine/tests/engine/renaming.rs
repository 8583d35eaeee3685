//! What `item`, `index` and the names given with `as` stand for in loops in loops.

use serde_json::{Value, json};
use weir_workflow_engine::{Definition, Plan, check};

use crate::support::{Driver, KEYED, Shop, plan, problems, yaml};

fn two_loops(outer: &str, inner: &str, key: &str, set: &str) -> String {
    format!(
        "  - id: e\n    for_each: \"{{{{ event.data.ls }}}}\"\n{outer}    do:\n      - id: inner\n        for_each: [1]\n{inner}{key}        do: [{{ id: x, set: {set} }}]"
    )
    .replace("for_each: [1]", "for_each: \"{{ event.data.subs }}\"")
}

/// What the last step set, for the last of two items with two items each.
fn seen(plan: Plan) -> Value {
    let mut driver = Driver::new(plan, KEYED, json!({ "ls": ["a", "b"], "subs": [1, 2] }));
    driver.start();
    assert_eq!(driver.code(), "succeeded");
    driver.last_set()
}

#[test]
fn a_name_given_with_as_leaves_item_to_the_loop_around() {
    let set = "{ item: \"{{ item }}\", sub: \"{{ sub | default(none) }}\", line: \"{{ line | default(none) }}\", index: \"{{ index }}\" }";
    let (line, sub) = ("    as: line\n", "        as: sub\n");
    let set_inner = set.replace(", line: \"{{ line | default(none) }}\"", "");
    let set_outer = set.replace(", sub: \"{{ sub | default(none) }}\"", "");
    assert_eq!(
        seen(plan(&two_loops("", sub, "", &set_inner))),
        json!({ "item": "b", "sub": 2, "index": 1 })
    );
    assert_eq!(
        seen(plan(&two_loops(line, "", "", &set_outer))),
        json!({ "item": 2, "line": "b", "index": 1 })
    );
    // `as: item` is what a loop without `as` says.
    assert_eq!(
        seen(plan(&two_loops(line, "        as: item\n", "", &set_outer))),
        json!({ "item": 2, "line": "b", "index": 1 })
    );
    // The key is that of the inner items, and sees the outer one, too.
    let key = "        key: \"{{ sub ~ item }}\"\n";
    let mut driver = Driver::new(
        plan(&two_loops("", sub, key, "{ a: 1 }")),
        KEYED,
        json!({ "ls": ["a"], "subs": [1, 2] }),
    );
    driver.start();
    let told = weir_workflow_engine::story(Some(&driver.plan), &driver.rows, None);
    let path = &told.last().unwrap().path;
    assert!(path.ends_with(".inner[2a].x"), "{path}");
}

#[test]
fn item_where_every_loop_renames_is_refused() {
    let steps = two_loops("    as: line\n", "        as: sub\n", "", "{ a: \"{{ item }}\" }");
    assert_eq!(
        problems(&format!("steps:\n{steps}")),
        ["/steps/0/do/0/do/0/set/a: `item` is called `sub` here: the `for_each` says `as: sub` (did you mean `sub`?)"]
    );
    let outside = problems("steps: [{ id: a, set: { a: \"{{ item }}\" } }]");
    assert_eq!(outside, ["/steps/0/set/a: `item` exists only inside a `for_each`"]);
}

#[test]
fn versions_from_before_keep_their_meaning() {
    let set = "{ item: \"{{ item }}\" }";
    for (outer, now) in [("", Some(json!({ "item": "b" }))), ("    as: line\n", None)] {
        let text = format!(
            "name: w\non: {{ event: stripe.payment_intent.succeeded, hydrate: never }}\nsteps:\n{}",
            two_loops(outer, "        as: sub\n", "", set)
        );
        let definition = Definition::parse(&yaml(&text)).unwrap();
        let published = check(&definition, &Shop::default()).ok();
        let today = published
            .as_ref()
            .map(|frozen| seen(Plan::compile(&definition, frozen).unwrap()));
        assert_eq!(today, now);
        // What was stored when a loop gave its items both names.
        let stored = json!({ "connector": "stripe", "event_type": "payment_intent.succeeded", "connection": null,
            "hydrate": "never", "reads": [], "calls": {} });
        let before = serde_json::from_value(stored).unwrap();
        assert_eq!(seen(Plan::compile(&definition, &before).unwrap()), json!({ "item": 2 }));
    }
}
