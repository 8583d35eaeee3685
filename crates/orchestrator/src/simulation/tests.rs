//! Many seeds with everything right, and enough seeds with one rule broken.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use weir_storage::SyncStore;

use super::outage;
use super::replays::Replays;
use super::rules::Broken;
use super::world::{Broke, Lawful, Lived, live};

/// Worlds of one run of the tests. `WEIR_SIMULATION_SEEDS` asks for more.
const SEEDS: u64 = 1_000;
/// Worlds in which a broken rule must be noticed.
const SEEDS_UNTIL_NOTICED: u64 = 1000;

struct Bed {
    _folder: tempfile::TempDir,
    store: SyncStore,
}

impl Bed {
    fn new() -> Self {
        // Memory when the system has it: nothing of this is to be kept.
        let memory = PathBuf::from("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        }
        .unwrap();
        let store = SyncStore::open(&folder.path().join("simulation.db")).unwrap();
        Self { _folder: folder, store }
    }

    fn live(&mut self, seed: u64, broken: Broken, traced: bool) -> (Lawful<Lived>, String) {
        let lived = catch_unwind(AssertUnwindSafe(|| live(&mut self.store, seed, broken, traced)));
        lived.unwrap_or_else(|panic| {
            let why = panic.downcast_ref::<String>().cloned();
            let why = why.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let broke = Broke(format!("nothing panics: {}", why.unwrap_or_default()));
            *self = Self::new();
            (Err(broke), String::new())
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// The seeds of one of several threads that share the work.
fn share(part: u64, parts: u64) {
    let mut bed = Bed::new();
    let first = setting("WEIR_SIMULATION_FIRST").unwrap_or(1);
    let seeds = setting("WEIR_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let (mut runs, mut happenings, mut processes, mut worlds) = (0, 0, 0, 0_u32);
    let (mut waited, mut merged, mut let_go, mut busiest) = (0, 0, 0, 0);
    let (mut replays, mut answered) = (Replays::default(), 0);
    // By rule: in how many worlds it is broken, and the first of these.
    let mut found: BTreeMap<String, (u32, u64, String)> = BTreeMap::new();
    for seed in (first..first + seeds).filter(|seed| seed % parts == part) {
        worlds += 1;
        match bed.live(seed, Broken::Nothing, false).0 {
            Ok(lived) => {
                runs += lived.runs;
                happenings += u64::from(lived.happenings);
                processes += lived.processes;
                waited += lived.waited;
                merged += lived.merged;
                let_go += lived.let_go;
                answered += lived.answered;
                replays.from_step += lived.replays.from_step;
                replays.edited += lived.replays.edited;
                replays.on_newer_version += lived.replays.on_newer_version;
                busiest = busiest.max(lived.happenings);
            }
            Err(Broke(detail)) => {
                let rule = detail.split(':').next().unwrap_or_default().to_owned();
                found.entry(rule).or_insert((0, seed, detail)).0 += 1;
            }
        }
    }
    println!("{worlds} worlds, {runs} runs, {processes} processes, {happenings} happenings, {busiest} in the busiest");
    println!("{waited} runs waited before they began, {merged} were merged, {let_go} lanes were let go on");
    println!("{answered} senders were answered; of the replays: {replays:?}");
    let told: Vec<String> = found
        .values()
        .map(|(count, seed, detail)| {
            format!("{count} worlds, the first is seed {seed}: {detail}\n  with a trace: make simulate SEED={seed}")
        })
        .collect();
    assert!(told.is_empty(), "laws are broken\n{}", told.join("\n"));
}

#[test]
fn every_law_holds_in_even_worlds() {
    share(0, 2);
}

#[test]
fn every_law_holds_in_odd_worlds() {
    share(1, 2);
}

/// `WEIR_SIMULATION_SEED` plays one world again and shows all that happens in it.
#[test]
fn one_world_can_be_played_again() {
    let seed = setting("WEIR_SIMULATION_SEED");
    let mut bed = Bed::new();
    let (lived, trace) = bed.live(seed.unwrap_or(1), Broken::Nothing, true);
    if seed.is_some() {
        println!("{trace}");
        println!("{lived:?}");
    }
    assert!(!trace.is_empty());
    lived.unwrap();
    let mut other = Bed::new();
    other.live(2, Broken::Nothing, false).0.unwrap();
    assert_eq!(
        other.live(seed.unwrap_or(1), Broken::Nothing, true).1,
        trace,
        "a seed is one world"
    );
}

/// `WEIR_SIMULATION_EVENTS_PER_SECOND` asks for more.
#[test]
fn nothing_is_lost_while_the_provider_is_away_for_an_hour() {
    let mut bed = Bed::new();
    let rate = setting("WEIR_SIMULATION_EVENTS_PER_SECOND").unwrap_or(1);
    // Those in progress try all the time: that takes most of the time when few events come.
    let at_a_time = if rate == 1 { 16 } else { 64 };
    let lived = outage::live(&mut bed.store, 1, u32::try_from(rate).unwrap(), at_a_time).unwrap();
    println!("{lived:?}");
    assert!(
        lived.waiting_at_its_return > lived.events / 2,
        "most had to wait: {lived:?}"
    );
    assert!(lived.processes > 5, "{lived:?}");
    // That there are never more is a law; that there are as many shows that it was the budget that held them back.
    assert!(lived.busiest_second > outage::PER_SECOND / 2, "{lived:?}");
    // A run tries once a minute, a process stands still for up to 90 s; then more than 50 a second are done.
    let longest = Duration::from_secs(60 + 90 + u64::try_from(lived.events).unwrap() / 50);
    assert!(lived.drained_in < longest, "{lived:?}");
}

#[test]
fn each_broken_rule_is_noticed() {
    let mut bed = Bed::new();
    let mut unnoticed = Vec::new();
    for broken in Broken::ALL {
        let noticed = (1..=SEEDS_UNTIL_NOTICED)
            .find_map(|seed| bed.live(seed, broken, false).0.err().map(|Broke(rule)| (seed, rule)));
        match noticed {
            Some((seed, rule)) => println!("{broken:?} is noticed in world {seed}: {rule}"),
            None => unnoticed.push(broken),
        }
    }
    assert_eq!(unnoticed, [], "the laws do not notice these");
}
