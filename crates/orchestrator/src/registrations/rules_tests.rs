use super::*;
use weir_workflow_engine::{EndpointId, WorkspaceId};

const URL: &str = "https://weir.test/hooks/ep_1";
const EVERY: Duration = Duration::from_secs(3600);
const MARGIN: Duration = Duration::from_secs(600);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(seconds * 1_000)
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn wanted() -> Wanted {
    Wanted {
        connection: ConnectionId::from_raw(7),
        place: "{}".to_owned(),
        url: URL.to_owned(),
        events: set(&["made", "paid"]),
        every: EVERY,
        margin: MARGIN,
        changes: Changes {
            url: true,
            events: true,
        },
    }
}

/// As it is right after it was made, at 100 s.
fn row() -> RegistrationRow {
    RegistrationRow {
        endpoint: EndpointId::from_raw(1),
        workspace: WorkspaceId::from_raw(1),
        connection: ConnectionId::from_raw(7),
        place: "{}".to_owned(),
        provider_id: Some("h1".to_owned()),
        url: Some(URL.to_owned()),
        events: vec!["made".to_owned(), "paid".to_owned()],
        secrets: None,
        secrets_until: None,
        expires_at: None,
        created_at: Some(at(100)),
        renewed_at: Some(at(100)),
        checked_at: Some(at(100)),
        drift: None,
        error: None,
        failures: 0,
        retry_at: at(0),
        generation: 3,
    }
}

fn unmade() -> RegistrationRow {
    RegistrationRow {
        provider_id: None,
        created_at: None,
        renewed_at: None,
        checked_at: None,
        ..row()
    }
}

fn hook(id: &str) -> Hook {
    Hook {
        id: id.to_owned(),
        url: Some(URL.to_owned()),
        events: Some(set(&["made", "paid"])),
        expires_unix_ms: None,
        works: true,
    }
}

fn registered() -> Wish {
    Wish::Registered(wanted())
}

#[test]
fn the_next_step_follows_from_what_the_provider_has() {
    let check = |wish: &Wish, row: &RegistrationRow, seen: &[Hook], step: Step| {
        assert_eq!(next_step(at(200), wish, row, seen), step, "{seen:?}");
    };
    let here = registered();
    let gone = Wish::Absent(None);
    let delete = |id: &str| Step::Delete(id.to_owned());
    check(&here, &row(), &[hook("h1")], Step::Keep);
    check(&here, &row(), &[], Step::Create);
    // A crash between the call and the save: nobody knows the secret of what it left behind.
    check(&here, &unmade(), &[hook("h9")], delete("h9"));
    check(&here, &unmade(), &[], Step::Create);
    check(&here, &row(), &[hook("h1"), hook("h9")], delete("h9"));
    check(&here, &row(), &[hook("h9")], delete("h9"));
    let elsewhere = Hook {
        url: Some("https://other.test/hooks/ep_1".to_owned()),
        ..hook("h9")
    };
    check(&here, &row(), &[hook("h1"), elsewhere.clone()], Step::Keep);
    check(&here, &unmade(), std::slice::from_ref(&elsewhere), Step::Create);
    let disabled = Hook {
        works: false,
        ..hook("h1")
    };
    check(&here, &row(), &[disabled], delete("h1"));
    let moved = Hook {
        url: elsewhere.url,
        ..hook("h1")
    };
    check(
        &here,
        &row(),
        std::slice::from_ref(&moved),
        Step::Update("h1".to_owned()),
    );
    let fixed = Wish::Registered(Wanted {
        changes: Changes::default(),
        ..wanted()
    });
    check(&fixed, &row(), &[moved], delete("h1"));
    let fewer = Hook {
        events: Some(set(&["made"])),
        ..hook("h1")
    };
    check(
        &here,
        &row(),
        std::slice::from_ref(&fewer),
        Step::Update("h1".to_owned()),
    );
    check(&fixed, &row(), &[fewer], delete("h1"));
    // A provider that does not say what it sends is believed to send what it was told.
    let silent = Hook {
        events: None,
        ..hook("h1")
    };
    check(&here, &row(), std::slice::from_ref(&silent), Step::Keep);
    let told_less = RegistrationRow {
        events: vec!["made".to_owned()],
        ..row()
    };
    check(&here, &told_less, &[silent], Step::Update("h1".to_owned()));
    check(&gone, &row(), &[hook("h1")], delete("h1"));
    check(&gone, &row(), &[hook("h9"), hook("h1")], delete("h9"));
    check(&gone, &unmade(), &[hook("h9")], delete("h9"));
    check(&gone, &row(), &[], Step::Forget);
    check(&Wish::Unclear("no address".to_owned()), &row(), &[], Step::Keep);
}

#[test]
fn what_ends_is_renewed_before_and_not_without_end() {
    let with_end = |renewed: i64, ends: i64| RegistrationRow {
        renewed_at: Some(at(renewed)),
        expires_at: Some(at(ends)),
        ..row()
    };
    let ends = |seconds: i64| Hook {
        expires_unix_ms: Some(seconds * 1_000),
        ..hook("h1")
    };
    let step = |now: i64, row: &RegistrationRow, ends_at: i64| next_step(at(now), &registered(), row, &[ends(ends_at)]);
    let renew = Step::Renew("h1".to_owned());
    assert_eq!(step(2_999, &with_end(100, 3_600), 3_600), Step::Keep);
    assert_eq!(step(3_000, &with_end(100, 3_600), 3_600), renew);
    assert_eq!(
        due(at(200), &registered(), Some(&with_end(100, 3_600))),
        Some(at(3_000))
    );
    // The provider lets it live for less than the margin: half of what is left, then.
    assert_eq!(step(149, &with_end(100, 200), 200), Step::Keep);
    assert_eq!(step(150, &with_end(100, 200), 200), renew);
    assert_eq!(due(at(110), &registered(), Some(&with_end(100, 200))), Some(at(150)));
}

#[test]
fn it_is_looked_at_when_something_may_be_otherwise() {
    let check = |wish: &Wish, row: Option<&RegistrationRow>, wanted: Option<Timestamp>| {
        assert_eq!(due(at(200), wish, row), wanted, "{wish:?} {row:?}");
    };
    let now = Some(at(200));
    let unclear = Wish::Unclear("no address".to_owned());
    check(&registered(), None, now);
    check(&Wish::Absent(None), None, None);
    check(&unclear, None, None);
    check(&unclear, Some(&row()), None);
    check(&registered(), Some(&row()), Some(at(100 + 3_600)));
    check(&registered(), Some(&unmade()), now);
    check(&Wish::Absent(None), Some(&row()), now);
    for change in [
        |wanted: &mut Wanted| wanted.url.push('x'),
        |wanted: &mut Wanted| wanted.place = "{\"repo\":\"a\"}".to_owned(),
        |wanted: &mut Wanted| wanted.connection = ConnectionId::from_raw(8),
        |wanted: &mut Wanted| {
            wanted.events.insert("gone".to_owned());
        },
    ] {
        let mut other = wanted();
        change(&mut other);
        check(&Wish::Registered(other), Some(&row()), now);
    }
    let failing = RegistrationRow {
        failures: 2,
        retry_at: at(900),
        ..row()
    };
    check(&registered(), Some(&failing), Some(at(900)));
    check(&Wish::Absent(None), Some(&failing), Some(at(900)));
    let only_secrets = RegistrationRow {
        url: None,
        secrets_until: Some(at(5_000)),
        ..unmade()
    };
    check(&Wish::Absent(None), Some(&only_secrets), Some(at(5_000)));
    let old_secret = RegistrationRow {
        secrets_until: Some(at(300)),
        ..row()
    };
    check(&registered(), Some(&old_secret), Some(at(300)));
}

#[test]
fn drift_is_what_nobody_of_us_did() {
    let check = |row: &RegistrationRow, seen: &[Hook], wanted: Option<&str>| assert_eq!(drift(row, seen), wanted);
    check(&row(), &[hook("h1")], None);
    check(&unmade(), &[], None);
    check(&row(), &[hook("h9")], Some("the provider no longer had it"));
    let changed = |change: fn(&mut Hook)| {
        let mut other = hook("h1");
        change(&mut other);
        other
    };
    check(
        &row(),
        &[changed(|hook| hook.works = false)],
        Some("the provider had disabled it"),
    );
    check(
        &row(),
        &[changed(|hook| hook.url = None)],
        Some("it sent to another address"),
    );
    check(
        &row(),
        &[changed(|hook| hook.events = Some(BTreeSet::new()))],
        Some("it sent other events"),
    );
    check(&row(), &[changed(|hook| hook.events = None)], None);
}

#[test]
fn failures_are_tried_again_with_growing_bounded_pauses() {
    let pause = |failures| retry_at(at(0), failures).as_unix_ms() / 1_000;
    assert_eq!([1, 2, 3, 4].map(pause), [5, 10, 20, 40]);
    assert_eq!([7, 40, u32::MAX].map(pause), [300, 300, 300]);
}

#[test]
fn where_it_stands_is_told() {
    let check = |wish: &Wish, row: Option<&RegistrationRow>, wanted: Option<(RegistrationState, Option<&str>)>| {
        let wanted = wanted.map(|(state, error)| (state, error.map(str::to_owned)));
        assert_eq!(state(wish, row), wanted, "{wish:?} {row:?}");
    };
    let failing = RegistrationRow {
        failures: 1,
        error: Some("`hooks.list`: timeout".to_owned()),
        ..row()
    };
    check(&registered(), None, Some((RegistrationState::Pending, None)));
    check(&registered(), Some(&unmade()), Some((RegistrationState::Pending, None)));
    check(&registered(), Some(&row()), Some((RegistrationState::Active, None)));
    check(
        &registered(),
        Some(&failing),
        Some((RegistrationState::Failing, Some("`hooks.list`: timeout"))),
    );
    check(&Wish::Absent(None), None, None);
    check(
        &Wish::Absent(None),
        Some(&row()),
        Some((RegistrationState::Removing, None)),
    );
    check(
        &Wish::Absent(Some("nobody listens")),
        None,
        Some((RegistrationState::Idle, Some("nobody listens"))),
    );
    check(
        &Wish::Unclear("no address".to_owned()),
        Some(&row()),
        Some((RegistrationState::Failing, Some("no address"))),
    );
}

/// A provider that does what it is told, and a loop of steps over it from every beginning: it ends, with one webhook that
/// is as it should be, or with none.
#[test]
fn the_steps_lead_to_what_is_wanted_from_everywhere() {
    let urls = [URL, "https://old.test/hooks/ep_1"];
    let hooks: Vec<Option<Hook>> = urls
        .iter()
        .flat_map(|url| [set(&["made"]), set(&["made", "paid"])].map(|events| (*url, events)))
        .flat_map(|(url, events)| {
            [true, false].map(|works| {
                Some(Hook {
                    id: String::new(),
                    url: Some(url.to_owned()),
                    events: Some(events.clone()),
                    expires_unix_ms: None,
                    works,
                })
            })
        })
        .chain([None])
        .collect();
    let wishes = [
        registered(),
        Wish::Registered(Wanted {
            changes: Changes::default(),
            ..wanted()
        }),
        Wish::Absent(None),
    ];
    let mut tried = 0;
    for wish in &wishes {
        let is_here = matches!(wish, Wish::Registered(_));
        for (known, stray) in hooks
            .iter()
            .flat_map(|known| hooks.iter().map(move |stray| (known, stray)))
        {
            for stored_url in urls {
                for is_stored in [true, false] {
                    let mut row = RegistrationRow {
                        url: Some(stored_url.to_owned()),
                        provider_id: is_stored.then(|| "h1".to_owned()),
                        ..row()
                    };
                    let named = |hook: &Option<Hook>, id: &str| {
                        hook.clone().map(|hook| Hook {
                            id: id.to_owned(),
                            ..hook
                        })
                    };
                    let mut seen: Vec<Hook> = named(known, "h1").into_iter().chain(named(stray, "h2")).collect();
                    seen.retain(|hook| {
                        Some(&hook.id) == row.provider_id.as_ref()
                            || hook
                                .url
                                .as_deref()
                                .is_some_and(|url| url == stored_url || is_here && url == URL)
                    });
                    walk(wish, &mut row, &mut seen);
                    match wish {
                        Wish::Registered(_) => assert_eq!(
                            seen,
                            [Hook {
                                id: seen[0].id.clone(),
                                ..hook("")
                            }]
                        ),
                        Wish::Absent(_) | Wish::Unclear(_) => assert!(seen.is_empty()),
                    }
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 900, "{tried}");
}

fn walk(wish: &Wish, row: &mut RegistrationRow, seen: &mut Vec<Hook>) {
    for number in 0..10 {
        match next_step(at(200), wish, row, seen) {
            Step::Keep | Step::Forget => return,
            Step::Create => {
                let made = hook(&format!("made-{number}"));
                row.provider_id = Some(made.id.clone());
                row.url = Some(URL.to_owned());
                seen.push(made);
            }
            Step::Update(id) => {
                row.url = Some(URL.to_owned());
                for known in seen.iter_mut().filter(|hook| hook.id == id) {
                    *known = hook(&id);
                }
            }
            Step::Renew(_) => panic!("nothing here ends"),
            Step::Delete(id) => {
                seen.retain(|hook| hook.id != id);
                if row.provider_id.as_ref() == Some(&id) {
                    row.provider_id = None;
                }
            }
        }
    }
    panic!("it goes on for ever: {row:?} {seen:?}");
}
