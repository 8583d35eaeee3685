use super::*;

const ONE: EndpointId = EndpointId::from_raw(1);
const TWO: EndpointId = EndpointId::from_raw(2);
const EVERY: Duration = Duration::from_secs(300);
const LEAVES: Duration = Duration::from_secs(60);
const ASKED: Duration = Duration::from_secs(30);

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
            leaves: LEAVES,
            failures_every: Some(ASKED),
        },
        Swept {
            endpoint: TWO,
            every: None,
            leaves: LEAVES,
            failures_every: Some(ASKED),
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

/// A planner whose first sweep is over since second 1.
fn swept_once() -> Planner {
    let mut planner = planner(None);
    let due = planner.take(at(0)).unwrap();
    planner.ended(&due, at(0), SweepOutcome::Complete, at(1));
    planner
}

fn heard(second: i64) -> Heard {
    Heard {
        count: 1,
        first: at(second),
        last: at(second),
    }
}

/// Why the endpoint is to be swept now, if it is.
fn cause(planner: &mut Planner, now: Timestamp) -> Option<SweepCause> {
    planner.look_for_suspicions(now);
    let due = planner.take(now)?;
    planner.ended(&due, now, SweepOutcome::Complete, now);
    Some(due.cause)
}

#[test]
fn a_silence_of_five_usual_intervals_is_swept_once_and_then_ever_later() {
    let mut planner = swept_once();
    for second in 0..20 {
        planner.heard(ONE, heard(second));
        planner.heard(TWO, heard(second));
    }
    assert_eq!(cause(&mut planner, at(33)), None);
    assert_eq!(cause(&mut planner, at(34)), Some(SweepCause::Silence));
    assert_eq!(SweepCause::Silence.as_str(), "silence");
    // The next would be after 30 s, but no suspicion leads to a sweep so soon again.
    assert_eq!(cause(&mut planner, at(333)), None);
    assert_eq!(
        cause(&mut planner, at(334)),
        Some(SweepCause::Schedule),
        "as planned since the last"
    );
    assert_eq!(cause(&mut planner, at(335)), None, "it saw the same");
    for second in 336..400 {
        planner.heard(ONE, heard(second));
        assert_eq!(cause(&mut planner, at(second)), None);
    }
}

#[test]
fn a_number_that_is_left_out_is_swept_for_and_not_again_when_the_list_has_it_not() {
    let mut planner = swept_once();
    for (second, number) in [(10, 1), (11, 2), (12, 4), (13, 5)] {
        planner.saw(ONE, "acct", number, at(second));
        planner.saw(TWO, "acct", number, at(second));
    }
    assert_eq!(cause(&mut planner, at(21)), None);
    assert_eq!(cause(&mut planner, at(22)), Some(SweepCause::Sequence));
    assert_eq!(SweepCause::Sequence.as_str(), "sequence");
    assert_eq!(cause(&mut planner, at(321)), None, "the hole is not to be had");
    // Found in the list, or come late: nothing to suspect.
    planner.saw(ONE, "acct", 7, at(325));
    planner.saw(ONE, "acct", 6, at(326));
    assert_eq!(cause(&mut planner, at(327)), Some(SweepCause::Schedule));
    assert_eq!(cause(&mut planner, at(500)), None);
}

#[test]
fn a_failed_delivery_is_asked_for_since_the_last_sweep_and_swept() {
    let mut planner = planner(None);
    assert_eq!(planner.take_question(at(1_000)), None, "the first sweep comes first");
    let due = planner.take(at(0)).unwrap();
    assert_eq!(planner.take_question(at(40)), None, "it runs");
    planner.ended(&due, at(0), SweepOutcome::Complete, at(1));
    assert_eq!(planner.take_question(at(29)), None);
    assert_eq!(planner.take_question(at(30)), Some((ONE, at(0))));
    assert_eq!(planner.take_question(at(90)), None, "one question at a time");
    planner.answered(ONE, Some(false), at(31));
    assert_eq!(cause(&mut planner, at(31)), None);
    assert_eq!(planner.take_question(at(61)), Some((ONE, at(0))));
    planner.answered(ONE, Some(true), at(62));
    assert_eq!(cause(&mut planner, at(62)), Some(SweepCause::FailedDelivery));
    assert_eq!(SweepCause::FailedDelivery.as_str(), "failed_delivery");
    // What was swept is not asked for again, and not before it could lead to another sweep.
    assert_eq!(planner.take_question(at(361)), None);
    assert_eq!(planner.take_question(at(362)), Some((ONE, at(62))));
    // A planned sweep leaves the youngest to their webhooks: failures among them are asked for.
    planner.answered(ONE, Some(false), at(362));
    assert_eq!(cause(&mut planner, at(362)), Some(SweepCause::Schedule));
    assert_eq!(planner.take_question(at(400)), Some((ONE, at(302))));
}

#[test]
fn a_provider_that_does_not_answer_is_asked_less_often() {
    let mut planner = swept_once();
    let mut now = at(30);
    for (times, pause_s) in [(1, 30), (2, 30), (3, 40), (4, 80)] {
        assert!(planner.take_question(now).is_some(), "{times}");
        assert_eq!(planner.answered(ONE, None, now), times);
        assert_eq!(planner.take_question(now.plus(Duration::from_secs(pause_s - 1))), None);
        now = now.plus(Duration::from_secs(pause_s));
    }
    assert!(planner.take_question(now).is_some());
    assert_eq!(planner.answered(ONE, Some(false), now), 0);
}

#[test]
fn one_suspicion_at_a_time_whichever_it_is() {
    let mut planner = swept_once();
    planner.saw(ONE, "acct", 1, at(2));
    planner.saw(ONE, "acct", 3, at(3));
    assert_eq!(cause(&mut planner, at(20)), Some(SweepCause::Sequence));
    assert!(!(0..9).any(|_| planner.refused(ONE, at(21))));
    for second in 30..50 {
        planner.heard(ONE, heard(second));
    }
    planner.saw(ONE, "acct", 5, at(50));
    assert_eq!(cause(&mut planner, at(319)), None);
    assert_eq!(cause(&mut planner, at(320)), Some(SweepCause::Schedule));
}
