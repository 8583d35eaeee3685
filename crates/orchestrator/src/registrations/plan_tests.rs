use super::*;
use crate::registrations::rules::{Changes, Wanted};
use weir_workflow_engine::ConnectionId;

const ID: EndpointId = EndpointId::from_raw(1);
const WORKSPACE: WorkspaceId = WorkspaceId::from_raw(1);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(seconds * 1_000)
}

fn wish() -> Wish {
    Wish::Registered(Wanted {
        connection: ConnectionId::from_raw(7),
        place: "{}".to_owned(),
        url: "https://weir.test/hooks/ep_1".to_owned(),
        events: ["made".to_owned()].into(),
        every: Duration::from_secs(3600),
        margin: Duration::ZERO,
        changes: Changes::default(),
    })
}

fn row(generation: i64) -> RegistrationRow {
    RegistrationRow {
        endpoint: ID,
        workspace: WORKSPACE,
        connection: ConnectionId::from_raw(7),
        place: "{}".to_owned(),
        provider_id: Some("h1".to_owned()),
        url: Some("https://weir.test/hooks/ep_1".to_owned()),
        events: vec!["made".to_owned()],
        secrets: None,
        secrets_until: None,
        expires_at: None,
        created_at: Some(at(0)),
        renewed_at: Some(at(0)),
        checked_at: Some(at(0)),
        drift: None,
        error: None,
        failures: 0,
        retry_at: at(0),
        generation,
    }
}

fn planner(rows: Vec<RegistrationRow>) -> Planner {
    let mut planner = Planner::default();
    planner.take_over([((WORKSPACE, ID), wish())].into_iter(), rows.into_iter(), at(10));
    planner
}

#[test]
fn a_new_one_is_worked_at_once_by_one_task() {
    let mut planner = planner(Vec::new());
    let work = planner.take(at(10)).expect("it is due");
    assert!(work.row.is_none());
    assert!(planner.take(at(10)).is_none(), "it is being worked at");
    planner.ended(ID, Some(row(4)), at(12));
    assert!(planner.take(at(12)).is_none());
    assert_eq!(planner.rest(at(12)), Some(Duration::from_secs(3588)));
    assert_eq!(planner.take(at(3600)).and_then(|work| work.row), Some(row(4)));
}

#[test]
fn another_nodes_work_is_taken_note_of_and_not_disturbed() {
    let mut planner = planner(Vec::new());
    drop(planner.take(at(10)));
    // The other node is still making it.
    let making = RegistrationRow {
        provider_id: None,
        ..row(2)
    };
    planner.overtaken(ID, Some(making), at(10));
    assert!(planner.take(at(12)).is_none());
    assert!(planner.take(at(13)).is_some());
    planner.overtaken(ID, Some(row(4)), at(13));
    assert!(planner.take(at(3599)).is_none());
}

#[test]
fn an_older_reading_of_the_configuration_does_not_undo_a_write() {
    let mut planner = planner(vec![row(4)]);
    let take_over = |planner: &mut Planner, rows: Vec<RegistrationRow>| {
        planner.take_over([((WORKSPACE, ID), wish())].into_iter(), rows.into_iter(), at(20));
    };
    let older = RegistrationRow {
        provider_id: None,
        ..row(3)
    };
    take_over(&mut planner, vec![older]);
    assert!(planner.take(at(20)).is_none());
    take_over(&mut planner, Vec::new());
    assert!(planner.take(at(20)).is_none());
}

#[test]
fn what_is_left_of_an_endpoint_is_taken_away() {
    let mut planner = planner(vec![row(4)]);
    planner.take_over(std::iter::empty(), [row(4)].into_iter(), at(20));
    let work = planner.take(at(20)).expect("it is due");
    assert_eq!(work.wish, Wish::Absent(None));
    planner.ended(ID, None, at(21));
    assert_eq!(planner.rest(at(21)), None);
    assert!(planner.take(at(9_999)).is_none());
}

#[test]
fn failures_are_counted_and_come_again_in_their_time() {
    let mut planner = planner(vec![row(4)]);
    drop(planner.take(at(3600)));
    let failing = RegistrationRow {
        failures: 1,
        retry_at: at(3605),
        ..row(6)
    };
    planner.ended(ID, Some(failing.clone()), at(3600));
    assert_eq!(planner.failing(), 1);
    assert!(planner.take(at(3604)).is_none());
    assert!(planner.take(at(3605)).is_some());
    planner.postponed(ID, at(3605));
    assert!(planner.take(at(3607)).is_none());
    assert!(planner.take(at(3608)).is_some());
    // A changed configuration may be what was missing; not more often than a failure is tried anyhow.
    let long = RegistrationRow {
        failures: 9,
        retry_at: at(3908),
        ..row(8)
    };
    planner.ended(ID, Some(long.clone()), at(3608));
    let take_over = |planner: &mut Planner, row: &RegistrationRow, now: i64| {
        planner.take_over(
            [((WORKSPACE, ID), wish())].into_iter(),
            [row.clone()].into_iter(),
            at(now),
        );
    };
    take_over(&mut planner, &long, 3610);
    assert!(planner.take(at(3612)).is_none());
    assert!(planner.take(at(3613)).is_some());
    let disconnected = RegistrationRow {
        error: Some(DISCONNECTED.to_owned()),
        ..long
    };
    planner.ended(ID, Some(disconnected.clone()), at(3613));
    take_over(&mut planner, &disconnected, 3700);
    assert!(planner.take(at(3907)).is_none());
    assert!(planner.take(at(3908)).is_some());
}
