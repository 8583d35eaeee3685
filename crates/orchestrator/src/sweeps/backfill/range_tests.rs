use super::*;
use crate::sweeps::place::SeenItem;
use weir_connector_sdk::Connector;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000_000_000 + seconds * 1_000)
}

/// The connector with these words of `recover`.
fn connector(identify: &str, recover: &str) -> Connector {
    let yaml = format!(
        "
connector: lists
version: 1.0.0
hosts: [\"https://lists.test\"]
auth: {{ none: {{}} }}
operations:
  events.list: {{ get: /events, query: {{ since: \"{{{{ since }}}}\", until: \"{{{{ until }}}}\", at: \"{{{{ at }}}}\" }}, input: {{ since: optional, until: optional, at: optional }}, items: /data }}
webhook:
  verify: {{ token: {{ at: \"header:x-token\" }} }}
  identify: {{ id: /id, type: /type, {identify} }}
  recover: {{ level: A, call: events.list, {recover} }}
"
    );
    Connector::parse(&yaml, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

const BOTH: &str = "with: { since: \"{{ since_s }}\", until: \"{{ until_s }}\" }";
const SINCE: &str = "with: { since: \"{{ since_s }}\", at: \"{{ cursor }}\" }";

fn lists(recover: &str) -> Connector {
    connector("time: /time", recover)
}

fn recover(connector: &Connector) -> &Recover {
    connector.webhook().unwrap().recover().unwrap()
}

fn whole() -> Range {
    Range {
        since: at(1_000),
        until: at(2_000),
    }
}

fn page(items: &[(&str, i64)], more: Option<bool>) -> Seen {
    let items: Vec<SeenItem> = items
        .iter()
        .map(|(id, seconds)| SeenItem {
            id: (*id).to_owned(),
            time: Some(at(*seconds)),
            position: None,
        })
        .collect();
    Seen {
        count: items.len(),
        items,
        more,
        ..Seen::default()
    }
}

fn following(token: &str) -> Page {
    Page {
        number: 1,
        items_before: 2,
        token: token.to_owned(),
        mark: None,
    }
}

#[test]
fn a_range_holds_its_beginning_and_not_its_end() {
    let range = whole();
    assert!(range.holds(at(1_000)) && range.holds(at(1_999)));
    assert!(!range.holds(at(999)) && !range.holds(at(2_000)));
    let percent = |order, reached| range.percent(order, Some(at(reached)));
    assert_eq!(percent(ListOrder::NewestFirst, 1_750), 25);
    assert_eq!(percent(ListOrder::OldestFirst, 1_750), 75);
    assert_eq!(percent(ListOrder::OldestFirst, 9_999), 100);
    assert_eq!(range.percent(ListOrder::NewestFirst, None), 0);
}

#[test]
fn lists_without_times_have_no_ranges() {
    let check = |connector: &Connector, expected: Result<(), NoRange>| {
        let webhook = connector.webhook().unwrap();
        assert_eq!(has_ranges(webhook, webhook.recover().unwrap()), expected);
    };
    check(&lists(&format!("{SINCE}, cursor: id, order: newest_first")), Ok(()));
    check(&lists(&format!("{BOTH}, cursor: time")), Ok(()));
    check(&lists(&format!("{SINCE}, cursor: token, next: /next")), Ok(()));
    check(&lists("with: { at: \"{{ cursor }}\" }, cursor: offset"), Ok(()));
    let untimed = "with: { at: \"{{ cursor }}\" }, cursor: token, next: /next";
    check(&lists(untimed), Err(NoRange::TokenWithoutTime));
    check(
        &lists(&format!("{BOTH}, cursor: delta, next: /next")),
        Err(NoRange::Delta),
    );
    let journal = format!("{SINCE}, cursor: journal, position: /n");
    check(&lists(&journal), Err(NoRange::Journal));
    let silent = connector("data: /data", &format!("{BOTH}, cursor: time"));
    check(&silent, Err(NoRange::NoTimes));
}

#[test]
fn the_newest_first_are_walked_back_from_the_end_of_the_range() {
    let connector = lists(&format!(
        "{BOTH}, cursor: id, order: newest_first, overlap: 30s, more: /more"
    ));
    let recover = recover(&connector);
    let mut walk = Walk::new(whole());
    let first = walk.question(recover);
    assert_eq!((first.since, first.until, first.page), (at(970), at(2_030), None));
    let mut seen = page(&[("e9", 2_010), ("e8", 1_800)], Some(true));
    seen.next = Some(following("e8"));
    assert_eq!(walk.advance(recover, whole(), &seen), Next::More);
    assert_eq!(walk.reached(), Some(at(1_800)));
    // A pause or another node: where it stood survives as text.
    let mut walk: Walk = serde_json::from_str(&serde_json::to_string(&walk).unwrap()).unwrap();
    assert_eq!(walk.question(recover).page, Some(following("e8")));
    let mut seen = page(&[("e2", 1_001), ("e1", 990)], Some(true));
    seen.next = Some(following("e1"));
    assert_eq!(walk.advance(recover, whole(), &seen), Next::More, "within the overlap");
    assert_eq!(walk.reached(), Some(at(1_000)));
    // The provider goes on beyond the beginning of the range: that is the end.
    let mut seen = page(&[("d2", 960), ("d1", 900)], Some(true));
    seen.next = Some(following("d1"));
    assert_eq!(walk.advance(recover, whole(), &seen), Next::End);
}

#[test]
fn a_list_without_paging_is_asked_again_from_where_it_came_to() {
    let oldest = lists(&format!("{BOTH}, cursor: time"));
    let mut walk = Walk::new(whole());
    let told = recover(&oldest);
    assert_eq!(
        walk.advance(told, whole(), &page(&[("a", 1_100), ("b", 1_300)], None)),
        Next::More
    );
    assert_eq!(walk.question(told).since, at(1_300));
    assert_eq!(walk.advance(told, whole(), &page(&[("b", 1_300)], None)), Next::End);
    let newest = lists(&format!("{BOTH}, cursor: time, order: newest_first, more: /more"));
    let told = recover(&newest);
    let mut walk = Walk::new(whole());
    assert_eq!(
        walk.advance(told, whole(), &page(&[("b", 1_900), ("a", 1_500)], Some(true))),
        Next::More
    );
    assert_eq!(walk.question(told).until, at(1_501));
    assert_eq!(
        walk.advance(told, whole(), &page(&[("a", 1_500)], Some(false))),
        Next::End
    );
    // It says that there is more, and nothing leads there.
    let untold = lists("with: { since: \"{{ since_s }}\" }, cursor: time, order: newest_first, more: /more");
    let mut walk = Walk::new(whole());
    let next = walk.advance(recover(&untold), whole(), &page(&[("a", 1_500)], Some(true)));
    assert!(matches!(next, Next::Broken(_)), "{next:?}");
}

#[test]
fn ids_tokens_and_offsets_go_up_until_the_range_is_over() {
    let ids = lists(&format!("{SINCE}, cursor: id"));
    let mut walk = Walk::new(whole());
    let told = recover(&ids);
    assert_eq!(walk.question(told).cursor, None);
    assert_eq!(
        walk.advance(told, whole(), &page(&[("a", 1_100), ("b", 1_300)], None)),
        Next::More
    );
    assert_eq!(walk.question(told).cursor.as_deref(), Some("b"));
    assert_eq!(
        walk.advance(told, whole(), &page(&[("y", 2_001), ("z", 2_002)], None)),
        Next::End
    );

    let tokens = lists(&format!("{SINCE}, cursor: token, next: /next, settle: 60s"));
    let mut walk = Walk::new(whole());
    let told = recover(&tokens);
    let mut seen = page(&[("a", 1_100)], None);
    seen.token = Some("t1".to_owned());
    assert_eq!(walk.advance(told, whole(), &seen), Next::More);
    assert_eq!(walk.question(told).cursor.as_deref(), Some("t1"));
    assert_eq!(walk.advance(told, whole(), &seen), Next::End, "the token stands still");

    let offsets = lists("with: { at: \"{{ cursor }}\" }, cursor: offset, more: /more");
    let mut walk = Walk::new(whole());
    let told = recover(&offsets);
    assert_eq!(
        walk.advance(told, whole(), &page(&[("a", 10), ("b", 20)], Some(true))),
        Next::More
    );
    assert_eq!(
        (walk.question(told).cursor.as_deref(), walk.reached()),
        (Some("2"), Some(at(1_000)))
    );
    assert_eq!(
        walk.advance(told, whole(), &page(&[("c", 1_500)], Some(false))),
        Next::End
    );
}

#[test]
fn a_list_that_does_not_move_on_is_broken() {
    let offsets = lists(&format!("{SINCE}, cursor: id, more: /more"));
    let told = recover(&offsets);
    let mut walk = Walk::new(whole());
    let same = page(&[("a", 1_100)], Some(true));
    assert_eq!(walk.advance(told, whole(), &same), Next::More);
    assert!(matches!(walk.advance(told, whole(), &same), Next::Broken(_)));
    let mut walk = Walk::new(whole());
    let mut nameless = page(&[], Some(true));
    nameless.count = 3;
    assert!(matches!(walk.advance(told, whole(), &nameless), Next::Broken(_)));
}

#[test]
fn a_place_that_the_provider_forgot_is_given_up_once() {
    let connector = lists(&format!("{BOTH}, cursor: id, order: newest_first"));
    let recover = recover(&connector);
    let mut walk = Walk::new(whole());
    assert!(!walk.forget(whole()), "there is nothing to forget");
    let mut seen = page(&[("e8", 1_800)], None);
    seen.next = Some(following("e8"));
    assert_eq!(walk.advance(recover, whole(), &seen), Next::More);
    assert!(walk.forget(whole()));
    assert_eq!((walk.question(recover).page, walk.reached()), (None, Some(at(1_800))));
    assert!(!walk.forget(whole()));
    // Once a page came, it may happen again.
    assert_eq!(walk.advance(recover, whole(), &seen), Next::More);
    assert!(walk.forget(whole()));
}

#[test]
fn a_list_without_an_end_ends_a_backfill() {
    let connector = lists(&format!("{SINCE}, cursor: id"));
    let recover = recover(&connector);
    let mut walk = Walk::new(whole());
    let mut pages = 0;
    let next = loop {
        pages += 1;
        let id = format!("e{pages}");
        match walk.advance(recover, whole(), &page(&[(&id, 1_100)], None)) {
            Next::More => {}
            other => break other,
        }
    };
    assert_eq!((next, pages), (Next::TooLong, MAX_BACKFILL_PAGES));
}
