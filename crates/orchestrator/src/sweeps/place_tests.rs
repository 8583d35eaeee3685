use super::*;
use weir_connector_sdk::Connector;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000_000_000 + seconds * 1_000)
}

/// The connector with these words of `recover`.
fn connector(recover: &str) -> Connector {
    let yaml = format!(
        "
connector: lists
version: 1.0.0
hosts: [\"https://lists.test\"]
auth: {{ none: {{}} }}
operations:
  events.list: {{ get: /events, query: {{ since: \"{{{{ since }}}}\", at: \"{{{{ at }}}}\" }}, input: {{ since: optional, at: optional }}, items: /data }}
webhook:
  verify: {{ token: {{ at: \"header:x-token\" }} }}
  identify: {{ id: /id, type: /type, time: /time }}
  recover: {{ level: A, call: events.list, with: {{ since: \"{{{{ since_s }}}}\", at: \"{{{{ cursor }}}}\" }}, {recover} }}
"
    );
    Connector::parse(&yaml, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn recover(connector: &Connector) -> &Recover {
    connector.webhook().unwrap().recover().unwrap()
}

fn page(items: &[(&str, i64)], more: Option<bool>) -> Seen {
    let items: Vec<SeenItem> = items
        .iter()
        .map(|(id, seconds)| SeenItem {
            id: (*id).to_owned(),
            time: Some(at(*seconds)),
            position: id.parse().ok(),
        })
        .collect();
    Seen {
        count: items.len(),
        items,
        more,
        ..Seen::default()
    }
}

fn begin(kept: Kept, now: i64) -> Place {
    Place::new(kept, at(0), at(-1_000), at(now))
}

fn with_cursor(cursor: &str) -> Kept {
    Kept {
        cursor: Some(cursor.to_owned()),
        ..Kept::default()
    }
}

#[test]
fn an_id_goes_up_page_by_page_and_stops_before_what_may_still_move() {
    let connector = connector("cursor: id, order: newest_first, more: /more, settle: 60s");
    let recover = recover(&connector);
    let mut place = begin(with_cursor("e1"), 1_000);
    assert_eq!(place.question(recover).cursor.as_deref(), Some("e1"));
    let next = place.advance(recover, &page(&[("e3", 300), ("e2", 200)], Some(true)));
    assert_eq!((next, place.kept().cursor.as_deref()), (Next::More, Some("e3")));
    assert_eq!(place.question(recover).cursor.as_deref(), Some("e3"));
    // e5 is 10 s old: one that is older may still appear before it.
    let next = place.advance(recover, &page(&[("e5", 990), ("e4", 400)], Some(true)));
    assert_eq!((next, place.kept().cursor.as_deref()), (Next::More, Some("e4")));
    // The walk goes on to see everything, the kept cursor does not.
    assert_eq!(place.question(recover).cursor.as_deref(), Some("e5"));
    let next = place.advance(recover, &page(&[("e6", 500)], Some(false)));
    assert_eq!(next, Next::End { covered_until: at(940) });
    assert_eq!(place.kept().cursor.as_deref(), Some("e4"));
}

#[test]
fn without_an_id_the_list_is_walked_back_and_a_cut_walk_goes_on() {
    let connector = connector("cursor: id, order: newest_first, settle: 60s");
    let recover = recover(&connector);
    let mut place = begin(Kept::default(), 1_000);
    assert_eq!((place.question(recover).cursor, place.is_continued()), (None, false));
    let following = Page {
        number: 1,
        items_before: 2,
        token: "e2".to_owned(),
        mark: None,
    };
    let mut first = page(&[("e4", 990), ("e3", 300), ("e2", 200)], None);
    first.next = Some(following.clone());
    assert_eq!(place.advance(recover, &first), Next::More);
    assert_eq!(place.kept().cursor, None, "older ones are not read yet");
    // A crash or the end of a pass: what is kept survives as text.
    let kept = serde_json::from_str(&serde_json::to_string(place.kept()).unwrap()).unwrap();
    let mut place = begin(kept, 2_000);
    assert_eq!(place.question(recover).page, Some(following));
    let next = place.advance(recover, &page(&[("e1", 100)], None));
    // What came after the walk began is not known, and what was unsettled then may have been out of order.
    assert_eq!(next, Next::End { covered_until: at(940) });
    assert_eq!(place.kept().cursor.as_deref(), Some("e3"));
    assert_eq!(place.kept().walk, None);
}

#[test]
fn a_time_goes_back_by_overlap_and_settle_and_never_beyond_the_reach() {
    let connector = connector("cursor: time, overlap: 30s, settle: 60s");
    let recover = recover(&connector);
    let mut place = begin(Kept::default(), 1_000);
    assert_eq!(place.question(recover).since, at(-90));
    let next = place.advance(recover, &page(&[("a", 500), ("b", 5_000)], None));
    assert_eq!(next, Next::End { covered_until: at(940) });
    let kept = place.kept().clone();
    assert_eq!(kept.since, Some(at(500)), "an item of the future moves nothing");
    assert_eq!(begin(kept.clone(), 1_300).question(recover).since, at(410));
    let mut late = Place::new(kept, at(940), at(900), at(9_000));
    assert_eq!(late.question(recover).since, at(900));
}

#[test]
fn counts_and_positions_stop_at_unsettled_items() {
    let offsets = connector("cursor: offset, settle: 60s");
    let recover_offset = recover(&offsets);
    let mut place = begin(with_cursor("10"), 1_000);
    let next = place.advance(recover_offset, &page(&[("a", 1), ("b", 2), ("c", 990)], None));
    assert_eq!((next, place.kept().cursor.as_deref()), (Next::More, Some("12")));
    assert_eq!(place.question(recover_offset).cursor.as_deref(), Some("13"));
    let next = place.advance(recover_offset, &page(&[], None));
    assert_eq!(next, Next::End { covered_until: at(940) });
    let journal = connector("cursor: journal, position: /n, settle: 60s");
    let recover_journal = recover(&journal);
    let mut place = begin(Kept::default(), 1_000);
    assert_eq!(place.question(recover_journal).cursor, None);
    let next = place.advance(recover_journal, &page(&[("7", 1), ("9", 2), ("10", 999)], None));
    assert_eq!((next, place.kept().cursor.as_deref()), (Next::More, Some("9")));
    assert_eq!(place.question(recover_journal).cursor.as_deref(), Some("10"));
}

#[test]
fn tokens_and_delta_links_are_the_providers_word() {
    let tokens = connector("cursor: token, next: /next, more: /more");
    let recover_token = recover(&tokens);
    let mut place = begin(Kept::default(), 1_000);
    let mut seen = page(&[("a", 1)], Some(true));
    seen.token = Some("t1".to_owned());
    assert_eq!(place.advance(recover_token, &seen), Next::More);
    assert_eq!(place.question(recover_token).cursor.as_deref(), Some("t1"));
    let links = connector("cursor: delta, next: /delta");
    let recover_delta = recover(&links);
    let mut place = begin(Kept::default(), 1_000);
    assert_eq!(place.question(recover_delta).page, None);
    assert!(matches!(
        place.advance(recover_delta, &page(&[], None)),
        Next::Broken(_)
    ));
    let mut seen = page(&[("a", 1)], None);
    seen.token = Some("https://lists.test/delta?x=1".to_owned());
    assert!(matches!(place.advance(recover_delta, &seen), Next::End { .. }));
    let mut again = begin(place.kept().clone(), 2_000);
    let page = again.question(recover_delta).page.unwrap();
    assert_eq!(page.token, "https://lists.test/delta?x=1");
    assert!(again.is_continued());
    again.forget();
    assert_eq!(again.question(recover_delta).page, None);
}

#[test]
fn a_list_that_goes_in_a_circle_ends_with_an_error() {
    let connector = connector("cursor: id");
    let recover = recover(&connector);
    let mut place = begin(with_cursor("e0"), 1_000);
    assert_eq!(place.advance(recover, &page(&[("e1", 1)], None)), Next::More);
    assert_eq!(place.advance(recover, &page(&[("e2", 2)], None)), Next::More);
    let Next::Broken(why) = place.advance(recover, &page(&[("e1", 1)], None)) else {
        panic!("the list begins anew");
    };
    assert!(why.contains("circle"), "{why}");
}

#[test]
fn no_sweep_looks_back_beyond_what_is_remembered() {
    let day = 24 * 3600;
    assert_eq!(floor(0, at(0)), at(-38 * day));
    assert_eq!(floor(90 * 24 * 3600, at(0)), at(-38 * day));
    assert_eq!(floor(30 * 24 * 3600, at(0)), at(-30 * day));
    // A key that is received now is looked for as long as the oldest event that a sweep may put through the door.
    assert!(u64::from(weir_storage::DEDUPE_DAYS) * 24 * 3600 > REMEMBERED.as_secs());
}
