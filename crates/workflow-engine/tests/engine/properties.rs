//! Properties over random runs: the journal is the run, and a lost process changes nothing that matters.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use weir_workflow_engine::{
    CallResult, Command, EffectClass, EffectKey, EffectState, Entry, Ledger, RunState, SendMode, Sent, Status,
    invariants,
};

use crate::support::{Driver, HYDRATED, KEYED, Shop, done, failed, failure, plan_in};

/// What the world does with the calls of a run, one after the other.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    /// No byte left.
    Unreachable,
    /// Nobody knows; the provider acted.
    LostAnswer,
    /// Refused before execution.
    Refused,
    /// The process is lost before the command is performed.
    CrashBefore,
    /// The process is lost after the provider acted.
    CrashAfter,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Done),
        2 => Just(Fate::Unreachable),
        2 => Just(Fate::LostAnswer),
        1 => Just(Fate::Refused),
        2 => Just(Fate::CrashBefore),
        2 => Just(Fate::CrashAfter),
    ]
}

fn class() -> impl Strategy<Value = EffectClass> {
    prop_oneof![
        Just(KEYED),
        Just(EffectClass::Repeatable),
        Just(EffectClass::Blind),
        Just(EffectClass::FindBy {
            consistent: true,
            settle: std::time::Duration::ZERO
        }),
        Just(EffectClass::FindBy {
            consistent: false,
            settle: std::time::Duration::from_secs(10)
        }),
    ]
}

/// The provider: it knows what was really done.
#[derive(Default)]
struct Provider {
    /// How often each effect was carried out, a repetition under a known key or of absolute values not counted.
    done: BTreeMap<EffectKey, u32>,
    /// How often each effect was sent as if for the first time.
    first: BTreeMap<EffectKey, u32>,
}

impl Provider {
    fn cannot_prove(&self, command: &Command) -> bool {
        let Command::Call(call) = command else {
            return false;
        };
        call.effect.as_ref().is_some_and(|effect| {
            effect.mode == SendMode::IfNeverSent && self.done.get(&effect.key).is_some_and(|count| *count > 0)
        })
    }

    /// Carries a command out as the class promises; false when it was only looked for and not found.
    fn perform(&mut self, command: &Command) -> bool {
        let Command::Call(call) = command else {
            return true;
        };
        let Some(effect) = &call.effect else {
            return true;
        };
        let count = self.done.entry(effect.key).or_default();
        match (call.class, effect.mode) {
            (_, SendMode::LookOnly) => return *count > 0,
            (EffectClass::Keyed { .. } | EffectClass::Repeatable, _) | (_, SendMode::LookFirst) => *count = 1,
            (_, SendMode::IfNeverSent) if *count > 0 => return false,
            (_, SendMode::First | SendMode::Resend | SendMode::IfNeverSent) => *count += 1,
        }
        true
    }
}

fn run(class: EffectClass, fates: &[Fate], lines: &[&str]) -> (Driver, Provider) {
    run_in(HYDRATED, class, fates, lines)
}

fn run_in(workflow: &str, class: EffectClass, fates: &[Fate], lines: &[&str]) -> (Driver, Provider) {
    let plan = plan_in(&Shop::default(), workflow).unwrap();
    let mut driver = Driver::new(plan, class, json!({ "lines": lines }));
    let mut provider = Provider::default();
    let mut fates = fates.iter().copied().chain(std::iter::repeat(Fate::Done));
    driver.start();
    // Crash fates are bounded by the list, so this ends.
    let mut inputs = 0;
    while !driver.last.status.is_final() {
        inputs += 1;
        assert!(inputs < 2000, "it never ends: {:?}", driver.last);
        if driver.commands.is_empty() {
            driver.due();
            continue;
        }
        let command = driver.commands[0].clone();
        if let Command::Call(call) = &command
            && let Some(effect) = call.effect.as_ref().filter(|effect| effect.mode == SendMode::First)
        {
            *provider.first.entry(effect.key).or_default() += 1;
        }
        let unproven = failed(failure("unproven", None, Sent::Maybe, false));
        let answer: CallResult = match fates.next().unwrap() {
            // Only what was proven never to have been sent may be tried in this mode, whatever the network does.
            _ if provider.cannot_prove(&command) => unproven,
            Fate::Done if provider.perform(&command) => done(json!({ "amount": 5, "id": "x" })),
            Fate::Done => unproven,
            Fate::Unreachable => failed(failure("connect", None, Sent::Never, true)),
            Fate::Refused => failed(failure("invalid", Some(400), Sent::Never, false)),
            Fate::LostAnswer if provider.perform(&command) => failed(failure("timeout", None, Sent::Maybe, true)),
            Fate::LostAnswer => unproven,
            Fate::CrashBefore => {
                driver.crash();
                continue;
            }
            Fate::CrashAfter => {
                provider.perform(&command);
                driver.crash();
                continue;
            }
        };
        let call = driver.next_command().call();
        driver.answer(call, &answer);
    }
    (driver, provider)
}

/// Handlers in handlers, loops and pauses between them.
const HANDLED: &str = r#"
name: bench
on: { event: stripe.payment_intent.succeeded, hydrate: always }
steps:
  - id: outer
    try:
      - id: each
        for_each: "{{ event.data.lines }}"
        concurrency: 3
        timeout: EACH
        do:
          - id: inner
            timeout: INNER
            try:
              - { id: pay, call: http.request, connection: crm, with: { method: POST, line: "{{ item }}" } }
              - { id: pause, sleep: 10s }
            catch:
              - { id: refund, when: "{{ item != 'skip' }}", call: stripe.refunds.create, with: { line: "{{ item }}" } }
            finally:
              - { id: log, call: http.request, connection: crm, with: { method: PUT, line: "{{ item }}" }, on_error: [{ id: lost, set: { why: "{{ error.code }}" } }] }
      - id: route
        switch: "{{ hydrated.payment_intent.amount }}"
        cases:
          5: [{ id: five, call: http.request, connection: crm, with: { method: PATCH } }]
      - id: fan
        timeout: 3s
        parallel:
          left: [{ id: port, call: http.request, connection: crm, with: { method: POST, side: left } }, { id: rest, sleep: 5s }]
          right: [{ id: starboard, call: http.request, connection: crm, with: { method: POST, side: right } }]
        join: JOIN
      - id: some
        for_each: "{{ event.data.lines }}"
        on_error: collect
        timeout: 6s
        concurrency: 2
        do: [{ id: send, call: http.request, connection: crm, with: { method: POST, to: "{{ item }}" } }]
    catch:
      - { id: undo, call: http.request, connection: crm, with: { method: DELETE, at: "{{ error.step }}" } }
on_failure:
  - { id: report, call: http.request, connection: crm, with: { method: PUT, code: "{{ error.code }}" } }
"#;

fn folded(driver: &Driver) -> RunState {
    let mut run = RunState::new(driver.run.head().clone(), driver.event.clone(), &driver.plan);
    driver.entries().iter().for_each(|entry| run.fold(entry));
    run
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: no effect is done twice, none is sent twice as if for the first time, and none is both
    /// unconfirmed and reported as a success.
    #[test]
    fn no_effect_is_doubled_and_none_is_lost(class in class(), fates in prop::collection::vec(fate(), 0..24)) {
        let (driver, provider) = run(class, &fates, &["a", "skip", "b"]);
        prop_assert_eq!(invariants::journal(&driver.entries()), []);
        for (key, count) in &provider.done {
            prop_assert!(*count <= 1, "{} was done {} times", key, count);
        }
        for (key, count) in &provider.first {
            prop_assert_eq!(*count, 1, "{} was sent first {} times", key, count);
        }
        if driver.last.status == Status::Succeeded {
            let confirmed = driver.entries().iter().filter(|entry| matches!(entry, Entry::Intended(_))).count();
            prop_assert_eq!(confirmed, 3);
            prop_assert_eq!(provider.done.values().sum::<u32>(), 3);
        }
        // Done but not confirmed: the run says so.
        if !matches!(driver.last.status, Status::Succeeded) && class == EffectClass::Blind {
            let confirmed = driver.entries().iter().filter(|entry| matches!(entry, Entry::Attempt(attempt)
                if matches!(attempt.of, weir_workflow_engine::Target::Step(_))
                && matches!(attempt.outcome, weir_workflow_engine::AttemptOutcome::Done { .. }))).count();
            let done = usize::try_from(provider.done.values().sum::<u32>()).unwrap();
            prop_assert!(done == confirmed || driver.code() == "effect_unknown", "{} {} {}", done, confirmed, driver.code());
        }
    }

    /// The same among handlers: whatever is caught, no effect is done twice, and what nobody knows about is said.
    #[test]
    fn handlers_double_and_lose_nothing(
        class in class(),
        fates in prop::collection::vec(fate(), 0..40),
        join in prop_oneof![Just("all"), Just("any"), Just("first")],
        inner in prop_oneof![Just("5s"), Just("12s"), Just("1d")],
        each in prop_oneof![Just("8s"), Just("30s"), Just("90d")],
    ) {
        let workflow = HANDLED.replace("JOIN", join).replace("INNER", inner).replace("EACH", each);
        let (driver, provider) = run_in(&workflow, class, &fates, &["a", "skip", "b", "c"]);
        prop_assert_eq!(invariants::journal(&driver.entries()), []);
        prop_assert_eq!(&folded(&driver), &driver.run);
        for (key, count) in &provider.done {
            prop_assert!(*count <= 1, "{} was done {} times", key, count);
        }
        for (key, count) in &provider.first {
            prop_assert_eq!(*count, 1, "{} was sent first {} times", key, count);
        }
        // What took place is never taken for something that did not.
        let entries = driver.entries();
        let ledger = Ledger::fold([(driver.run.head().id, entries.as_slice())]);
        for (key, _) in provider.done.iter().filter(|(_, count)| **count > 0) {
            let state = ledger.get(key).map(|record| record.state);
            let is_said = driver.code() == "effect_unknown" || !class.asks_a_person();
            prop_assert!(
                state == Some(EffectState::Confirmed) || (state == Some(EffectState::Unknown) && is_said),
                "{} is {:?}, the run {}", key, state, driver.code()
            );
        }
    }

    /// The fold over the journal is the run, and cutting it anywhere and going on reaches the same end.
    #[test]
    fn a_run_goes_on_from_any_prefix_of_its_journal(
        class in class(),
        fates in prop::collection::vec(prop_oneof![Just(Fate::Done), Just(Fate::Unreachable)], 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let (driver, _) = run(class, &fates, &["a", "b"]);
        let entries = driver.entries();
        let mut folded = RunState::new(driver.run.head().clone(), driver.event.clone(), &driver.plan);
        entries.iter().for_each(|entry| folded.fold(entry));
        prop_assert_eq!(&folded, &driver.run);

        let cut = cut.index(entries.len());
        let mut known = std::collections::BTreeSet::new();
        let mut again = Driver::new(plan_in(&Shop::default(), HYDRATED).unwrap(), class, json!({ "lines": ["a", "b"] }));
        again.now = driver.now;
        for entry in &entries[..cut] {
            again.run.fold(entry);
            if let Entry::Intended(intent) = entry {
                known.insert(intent.key);
            }
        }
        again.rows.push((0, driver.now, entries[..cut].to_vec()));
        again.input(weir_workflow_engine::Input::Recovered);
        let mut sent_first = std::collections::BTreeSet::new();
        while !again.last.status.is_final() {
            if again.commands.is_empty() {
                again.due();
                continue;
            }
            let command = again.next_command();
            if let Command::Call(call) = &command && let Some(effect) = &call.effect && effect.mode == SendMode::First {
                prop_assert!(!known.contains(&effect.key), "{} was sent first again", effect.key);
                prop_assert!(sent_first.insert(effect.key));
            }
            // Everything lost is found: looks find, proofs succeed.
            again.answer(command.call(), &done(json!({ "amount": 5, "id": "x" })));
        }
        prop_assert_eq!(again.last.status.clone(), driver.last.status.clone());
        prop_assert_eq!(invariants::journal(&again.entries()), []);
    }
}
