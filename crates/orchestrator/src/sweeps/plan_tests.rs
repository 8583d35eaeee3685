use super::*;

const ONE: EndpointId = EndpointId::from_raw(1);
const TWO: EndpointId = EndpointId::from_raw(2);
const EVERY: Duration = Duration::from_secs(300);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000_000 + seconds * 1_000)
}

fn row(finished_at: Timestamp) -> SweepRow {
    SweepRow {
        endpoint: ONE,
        running: false,
        cursor: None,
        covered_until: None,
        lost: None,
        cause: "schedule".to_owned(),
        started_at: finished_at,
        finished_at: Some(finished_at),
        outcome: Some("complete".to_owned()),
        error: None,
        pages: 1,
        recovered: 0,
        duplicates: 0,
        failures: 0,
    }
}

fn planner(stored: Option<SweepRow>) -> Planner {
    let mut planner = Planner::default();
    let swept = [
        Swept {
            endpoint: ONE,
            every: Some(EVERY),
        },
        Swept {
            endpoint: TWO,
            every: None,
        },
    ];
    let stored = stored.into_iter().map(|row| (row.endpoint, row)).collect();
    planner.take_over(&swept, &stored, at(0));
    planner
}

#[test]
fn a_start_sweeps_and_long_downtime_has_its_own_label() {
    assert_eq!(planner(None).take(at(0)).unwrap().cause, SweepCause::Start);
    assert_eq!(
        planner(Some(row(at(-400)))).take(at(0)).unwrap().cause,
        SweepCause::Start
    );
    let due = planner(Some(row(at(-700)))).take(at(0)).unwrap();
    assert_eq!((due.cause, due.after), (SweepCause::Downtime, Some(at(-700))));
}

#[test]
fn a_sweep_follows_the_last_by_the_endpoints_time_and_never_runs_twice_at_once() {
    let mut planner = planner(None);
    let due = planner.take(at(0)).unwrap();
    assert_eq!(
        planner.take(at(10_000)),
        None,
        "it runs, and the other is swept on demand alone"
    );
    planner.ended(&due, at(0), SweepOutcome::Complete, at(20));
    assert_eq!(planner.rest(at(20)), Some(EVERY));
    let next = planner.take(at(320)).unwrap();
    assert_eq!((next.cause, next.after), (SweepCause::Schedule, Some(at(0))));
}

#[test]
fn failures_back_off_and_what_was_cut_goes_on_at_once() {
    let mut planner = planner(None);
    let (mut now, mut pauses) = (at(0), Vec::new());
    for _ in 0..9 {
        let due = planner.take(now).unwrap();
        planner.ended(&due, now, SweepOutcome::Failed, now);
        let rest = planner.rest(now).unwrap();
        pauses.push(rest.as_secs());
        now = now.plus(rest);
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 900, 900]);
    let due = planner.take(now).unwrap();
    assert_eq!((due.cause, due.failures), (SweepCause::Start, 9));
    planner.ended(&due, now, SweepOutcome::Partial, now);
    assert_eq!(planner.rest(now), Some(GO_ON));
    assert_eq!(planner.take(now.plus(GO_ON)).unwrap().failures, 0);
}

#[test]
fn what_is_asked_for_during_a_sweep_comes_after_it() {
    let mut planner = planner(None);
    assert!(planner.demand(TWO, SweepCause::Demand, at(1)));
    assert!(!planner.demand(EndpointId::from_raw(3), SweepCause::Demand, at(1)));
    let due = planner.take(at(0)).unwrap();
    assert_eq!(due.endpoint, ONE);
    planner.demand(ONE, SweepCause::Demand, at(2));
    planner.ended(&due, at(0), SweepOutcome::Complete, at(3));
    assert_eq!(planner.take(at(3)).unwrap().endpoint, TWO);
    assert_eq!(planner.take(at(3)).unwrap().cause, SweepCause::Demand);
}

#[test]
fn another_nodes_sweep_counts_as_ours_and_a_dead_one_is_tried_again_soon() {
    let mut planner = planner(None);
    let due = planner.take(at(0)).unwrap();
    planner.overtaken(&due, Some(&row(at(1))), at(2));
    assert_eq!(planner.rest(at(2)), Some(EVERY));
    let due = planner.take(at(302)).unwrap();
    assert_eq!((due.cause, due.after), (SweepCause::Schedule, Some(at(1))));
    let running = SweepRow {
        running: true,
        finished_at: None,
        outcome: None,
        ..row(at(300))
    };
    planner.overtaken(&due, Some(&running), at(302));
    assert_eq!(planner.rest(at(302)), Some(BACK_OFF.0));
    // Who asked for one wants one that began after that.
    let due = planner.take(at(312)).unwrap();
    planner.demand(ONE, SweepCause::Demand, at(313));
    planner.overtaken(&due, Some(&row(at(312))), at(313));
    let due = planner.take(at(313)).unwrap();
    planner.overtaken(&due, Some(&row(at(313))), at(314));
    assert_eq!(planner.take(at(315)).unwrap().cause, SweepCause::Demand);
}

#[test]
fn a_burst_of_wrong_proofs_pulls_a_sweep_forward_and_a_flood_of_them_does_not_command() {
    let (burst, _) = REFUSED_BURST;
    let refuse = |planner: &mut Planner, from: i64, step: i64| {
        (0..i64::from(burst)).any(|number| planner.refused(ONE, at(from + number * step)))
    };
    let mut planner = planner(None);
    let due = planner.take(at(0)).unwrap();
    planner.ended(&due, at(0), SweepOutcome::Complete, at(1));
    assert!(!refuse(&mut planner, 2, 30), "one now and then is no burst");
    assert!(refuse(&mut planner, 200, 1));
    let due = planner.take(at(204)).unwrap();
    assert_eq!((due.cause, due.after), (SweepCause::Refusals, Some(at(0))));
    planner.ended(&due, at(204), SweepOutcome::Complete, at(205));
    assert_eq!(planner.rest(at(205)), Some(EVERY), "then as planned");
    assert!(!refuse(&mut planner, 206, 1), "not again at once");
    assert!(refuse(&mut planner, 510, 0));
    // A sweep that failed waits for its time, and an endpoint that is never swept stays so.
    let due = planner.take(at(510)).unwrap();
    planner.ended(&due, at(510), SweepOutcome::Failed, at(510));
    assert!(!refuse(&mut planner, 1_000, 0));
    assert!(!(0..9).any(|_| planner.refused(TWO, at(1_000))));
}
