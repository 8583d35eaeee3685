use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000_000 + seconds * 1_000)
}

fn one(second: i64) -> Heard {
    several(1, second, second)
}

fn several(count: u64, first: i64, last: i64) -> Heard {
    Heard {
        count,
        first: at(first),
        last: at(last),
    }
}

/// One webhook each so many seconds; gives the silence and when the last came.
fn every(seconds: i64) -> (Silence, i64) {
    let mut silence = Silence::default();
    for number in 0..20 {
        silence.heard(one(number * seconds));
    }
    (silence, 19 * seconds)
}

#[test]
fn five_usual_intervals_are_too_long_and_a_few_seconds_never() {
    let (silence, last) = every(60);
    assert!(!silence.is_suspicious(at(last + 299)));
    assert!(silence.is_suspicious(at(last + 300)));
    let (silence, last) = every(1);
    assert!(!silence.is_suspicious(at(last + 14)));
    assert!(silence.is_suspicious(at(last + 15)));
}

#[test]
fn who_was_hardly_heard_has_no_usual_interval() {
    let mut silence = Silence::default();
    for number in 0..9 {
        silence.heard(one(number));
    }
    assert!(!silence.is_suspicious(at(100_000)));
    silence.heard(one(9));
    assert!(silence.is_suspicious(at(100_000)));
}

#[test]
fn many_webhooks_at_once_count_as_many_and_the_usual_interval_follows_them() {
    let mut silence = Silence::default();
    silence.heard(one(0));
    silence.heard(several(100, 60, 6_000));
    assert_eq!(silence.usual, Some(Duration::from_secs(60)));
    silence.heard(several(8, 6_020, 6_000 + 8 * 20));
    assert_eq!(silence.usual, Some(Duration::from_secs(40)));
    // All that there ever was may have come at once.
    let mut silence = Silence::default();
    silence.heard(several(11, 0, 100));
    assert_eq!(silence.usual, Some(Duration::from_secs(10)));
    assert!(silence.is_suspicious(at(150)));
}

#[test]
fn a_silence_that_was_looked_into_takes_twice_as_long_until_somebody_is_heard() {
    let (mut silence, last) = every(60);
    silence.looked_into();
    assert!(!silence.is_suspicious(at(last + 599)));
    assert!(silence.is_suspicious(at(last + 600)));
    silence.looked_into();
    assert!(!silence.is_suspicious(at(last + 1_199)));
    silence.heard(one(last + 1_200));
    let usual = silence.usual.unwrap();
    assert!(silence.is_suspicious(at(last + 1_200).plus(usual * 5)));
}

/// Numbers in this order, one a second; gives when it is suspicious, if it ever is.
fn seen(numbers: &[u64]) -> (Holes, bool) {
    let mut holes = Holes::default();
    for (second, number) in (0..).zip(numbers) {
        holes.saw("acct", *number, at(second));
    }
    let is_suspicious = holes.is_suspicious(at(1_000));
    (holes, is_suspicious)
}

#[test]
fn a_number_that_is_left_out_is_suspicious_and_one_that_comes_late_or_again_is_not() {
    for (numbers, expected) in [
        (&[7, 8, 9][..], false),
        (&[7, 9], true),
        (&[7, 9, 8], false),
        (&[7, 10, 8], true),
        (&[7, 10, 8, 9, 11], false),
        (&[7, 8, 8, 7, 3, 9], false),
        // The provider has begun anew.
        (&[5_000, 1, 2, 3], false),
        (&[5_000, 1, 3], true),
    ] {
        assert_eq!(seen(numbers).1, expected, "{numbers:?}");
    }
    let (holes, _) = seen(&[7, 9]);
    // The 9 came at second 1.
    assert!(!holes.is_suspicious(at(10)));
    assert!(holes.is_suspicious(at(11)));
}

#[test]
fn accounts_have_sequences_of_their_own() {
    let mut holes = Holes::default();
    holes.saw("one", 1, at(0));
    holes.saw("two", 500, at(0));
    holes.saw("one", 2, at(1));
    assert!(!holes.is_suspicious(at(100)));
    holes.saw("two", 502, at(1));
    assert!(holes.is_suspicious(at(100)));
}

#[test]
fn a_sweep_that_found_nothing_ends_the_suspicion() {
    let (mut holes, _) = seen(&[7, 9, 10]);
    holes.swept(at(0));
    assert!(holes.is_suspicious(at(100)), "it began before the hole was seen");
    holes.swept(at(50));
    assert!(!holes.is_suspicious(at(100)));
    holes.saw("acct", 11, at(101));
    assert!(!holes.is_suspicious(at(200)));
    holes.saw("acct", 13, at(201));
    assert!(holes.is_suspicious(at(300)));
}

#[test]
fn sequences_of_many_accounts_are_bounded() {
    let mut holes = Holes::default();
    for number in 0..MAX_SEQUENCES + 10 {
        holes.saw(&format!("acct{number:06}"), 1, at(0));
    }
    assert_eq!(holes.lines.len(), MAX_SEQUENCES);
    holes.saw("acct000000", 3, at(0));
    assert!(holes.is_suspicious(at(10)));
}

#[test]
fn a_hole_that_is_never_closed_is_bounded() {
    let mut holes = Holes::default();
    holes.saw("acct", 1, at(0));
    let top = MAX_NUMBERS_AHEAD as u64 + 50;
    for number in 3..=top {
        holes.saw("acct", number, at(0));
    }
    assert_eq!(holes.lines["acct"].ahead.len(), MAX_NUMBERS_AHEAD);
    // Whether the rest came is not known any more, so it stays suspicious until it is swept.
    holes.saw("acct", 2, at(1));
    assert!(holes.is_suspicious(at(11)));
    holes.swept(at(11));
    holes.saw("acct", top + 1, at(12));
    assert!(!holes.is_suspicious(at(100)));
}
