use super::*;

const BOOT: Option<[u8; 16]> = Some([7; 16]);
const SMALL: u64 = HEADER_BYTES as u64 + 4 * RECORD_BYTES as u64;

fn at(unix_ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(unix_ms)
}

fn effect(number: u8, first_sent_ms: i64) -> Departure {
    let key: EffectKey = serde_json::from_value(format!("weir_{number:032x}").into()).unwrap();
    Departure::new(&key, at(first_sent_ms))
}

fn open(folder: &Path, now_ms: i64) -> Departures {
    Departures::open_on_boot(folder, Senders::ThisProcessOnly, at(now_ms), BOOT, SMALL).unwrap()
}

fn is_proven(log: &Departures, departure: &Departure) -> bool {
    log.proof(departure) == Proof::NeverLeft
}

#[test]
fn a_restart_on_the_same_boot_knows_what_left() {
    let folder = tempfile::tempdir().unwrap();
    let before = open(folder.path(), 1_000);
    before.departed(&effect(1, 2_000), at(2_001)).unwrap();
    drop(before);
    let after = open(folder.path(), 5_000);
    assert!(!is_proven(&after, &effect(1, 2_000)));
    assert!(is_proven(&after, &effect(2, 2_000)));
    // Added since the index was built.
    after.departed(&effect(2, 2_000), at(5_001)).unwrap();
    assert!(!is_proven(&after, &effect(2, 2_000)));
}

#[test]
fn a_refused_departure_counts_as_not_left_until_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), 1_000);
    let pay = effect(1, 2_000);
    log.departed(&pay, at(2_001)).unwrap();
    log.refused(&pay, at(2_050)).unwrap();
    drop(log);
    let log = open(folder.path(), 3_000);
    assert!(is_proven(&log, &pay));
    log.departed(&pay, at(3_001)).unwrap();
    assert!(!is_proven(&log, &pay));
}

#[test]
fn intents_from_before_the_file_are_not_provable() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), 1_000);
    assert!(!is_proven(&log, &effect(1, 999)));
    assert!(!is_proven(&log, &effect(1, 1_000)));
    assert!(is_proven(&log, &effect(1, 1_001)));
}

#[test]
fn another_boot_or_a_damaged_file_proves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), 1_000));
    let other =
        Departures::open_on_boot(folder.path(), Senders::ThisProcessOnly, at(9_000), Some([8; 16]), SMALL).unwrap();
    assert!(!is_proven(&other, &effect(1, 2_000)));
    drop(other);
    let log = open(folder.path(), 10_000);
    log.departed(&effect(1, 10_001), at(10_001)).unwrap();
    drop(log);
    let mut file = OpenOptions::new()
        .append(true)
        .open(folder.path().join(CURRENT))
        .unwrap();
    file.write_all(b"torn").unwrap();
    let after = open(folder.path(), 11_000);
    assert!(!is_proven(&after, &effect(2, 10_500)));
    drop(after);
    let none = Departures::open_on_boot(folder.path(), Senders::ThisProcessOnly, at(9_000), None, SMALL).unwrap();
    none.departed(&effect(3, 9_001), at(9_002)).unwrap();
    assert!(!is_proven(&none, &effect(4, 9_500)));
}

#[test]
fn rotation_never_turns_a_departure_into_never_left() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), 1_000);
    for number in 1..=30u8 {
        let time = 1_000 + i64::from(number) * 10;
        log.departed(&effect(number, time), at(time + 1)).unwrap();
        for earlier in 1..=number {
            let time = 1_000 + i64::from(earlier) * 10;
            assert!(!is_proven(&log, &effect(earlier, time)), "{earlier} of {number}");
        }
        // What is recent and has no record stays provable, across a generation's end too.
        assert!(is_proven(&log, &effect(200, time + 2)), "{number}");
    }
    drop(log);
    let after = open(folder.path(), 5_000);
    assert!((1..=30u8).all(|n| !is_proven(&after, &effect(n, 1_000 + i64::from(n) * 10))));
    assert!(is_proven(&after, &effect(200, 4_000)));
}

#[test]
fn a_clock_set_back_does_not_shorten_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), 1_000);
    // Sent while the clock was an hour ahead, then corrected; two rotations later its record is gone.
    log.departed(&effect(1, 3_600_000), at(3_600_000)).unwrap();
    for number in 2..=20u8 {
        log.departed(&effect(number, 2_000), at(2_001)).unwrap();
    }
    assert!(!is_proven(&log, &effect(1, 3_600_000)));
}

#[test]
fn a_crash_inside_a_rotation_keeps_the_previous_generation() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), 1_000);
    log.departed(&effect(1, 2_000), at(2_000)).unwrap();
    drop(log);
    fs::rename(folder.path().join(CURRENT), folder.path().join(PREVIOUS)).unwrap();
    let after = open(folder.path(), 3_000);
    assert!(!is_proven(&after, &effect(1, 2_000)));
    assert!(is_proven(&after, &effect(2, 2_000)));
}

#[test]
fn with_several_senders_only_intents_met_here_are_provable() {
    let folder = tempfile::tempdir().unwrap();
    let shared = |now| Departures::open_on_boot(folder.path(), Senders::Several, at(now), BOOT, SMALL).unwrap();
    let before = shared(1_000);
    before.intended(&effect(1, 2_000), at(2_000)).unwrap();
    before.intended(&effect(2, 2_000), at(2_000)).unwrap();
    before.departed(&effect(2, 2_000), at(2_001)).unwrap();
    drop(before);
    let after = shared(3_000);
    assert!(is_proven(&after, &effect(1, 2_000)));
    assert!(!is_proven(&after, &effect(2, 2_000)));
    assert!(!is_proven(&after, &effect(3, 2_000)));
}

#[test]
fn a_second_recorder_is_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), 1_000);
    let second = Departures::open_on_boot(folder.path(), Senders::ThisProcessOnly, at(1), BOOT, SMALL);
    assert_eq!(second.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    drop(first);
    open(folder.path(), 2_000);
}
