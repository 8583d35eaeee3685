//! What must hold for every run, written once: tests, simulations and audits use the same functions.
//!
//! These functions look at journals and decisions only; they never decide anything themselves.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{CallId, Command, SendMode};
use crate::effect::EffectKey;
use crate::journal::{AttemptOutcome, Entry};
use crate::run::{Decision, RunState, Status};

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule, in a few words.
    pub rule: &'static str,
    /// What breaks it.
    pub detail: String,
}

fn broken(rule: &'static str, detail: impl Into<String>) -> Violation {
    Violation {
        rule,
        detail: detail.into(),
    }
}

/// What the journal of one run breaks; empty when it is sound.
pub fn journal(entries: &[Entry]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut open: BTreeSet<CallId> = BTreeSet::new();
    let mut effects: BTreeMap<CallId, EffectKey> = BTreeMap::new();
    let mut keys: BTreeSet<EffectKey> = BTreeSet::new();
    let mut confirmed: BTreeSet<EffectKey> = BTreeSet::new();
    let mut finished = false;
    for entry in entries {
        if finished && !matches!(entry, Entry::Decided(_)) {
            found.push(broken("nothing follows the end of a run", format!("{entry:?}")));
        }
        match entry {
            Entry::Issued(issued) => {
                open.insert(issued.call);
                if issued.mode == Some(SendMode::First) {
                    found.push(broken(
                        "an effect is sent for the first time by its intent",
                        issued.call.to_string(),
                    ));
                }
                if issued.mode.is_some() != effects.contains_key(&issued.call) {
                    found.push(broken(
                        "only effects that were intended are sent again",
                        issued.call.to_string(),
                    ));
                }
            }
            Entry::Intended(intent) => {
                open.insert(intent.call);
                effects.insert(intent.call, intent.key);
                if !keys.insert(intent.key) {
                    found.push(broken("a key is intended once per run", intent.key.to_string()));
                }
            }
            Entry::Attempt(attempt) => {
                if !open.contains(&attempt.call) {
                    found.push(broken("only open calls come back", attempt.call.to_string()));
                }
                if let (AttemptOutcome::Done { .. }, Some(key)) = (&attempt.outcome, effects.get(&attempt.call))
                    && !confirmed.insert(*key)
                {
                    found.push(broken("an effect is confirmed once", key.to_string()));
                }
                if !matches!(attempt.outcome, AttemptOutcome::Retry { .. }) {
                    open.remove(&attempt.call);
                }
            }
            Entry::Abandoned(abandoned) => {
                open.remove(&abandoned.call);
            }
            Entry::Unknown(unknown) => {
                if let Some(call) = unknown.call {
                    open.remove(&call);
                }
            }
            Entry::Finished(_) => {
                finished = true;
                for call in open.iter().filter(|call| effects.contains_key(call)) {
                    found.push(broken("no effect is open when a run ends", call.to_string()));
                }
            }
            Entry::Held(held) => {
                if !open.contains(&held.call) {
                    found.push(broken("only open calls are held", held.call.to_string()));
                }
            }
            Entry::Postponed(_)
            | Entry::Answered(_)
            | Entry::ReadSkipped(_)
            | Entry::Skipped(_)
            | Entry::Branch(_)
            | Entry::Set(_)
            | Entry::Items(_)
            | Entry::Slept(_)
            | Entry::Woke(_)
            | Entry::Forked(_)
            | Entry::Limited(_)
            | Entry::RanOver(_)
            | Entry::Caught(_)
            | Entry::FailureTaken(_)
            | Entry::Stopped(_)
            | Entry::Awaited(_)
            | Entry::Arrived(_)
            | Entry::PassedOver(_)
            | Entry::Compensating(_)
            | Entry::Compensated(_)
            | Entry::Paused(_)
            | Entry::Resumed(_)
            | Entry::Hurried(_)
            | Entry::StepFailed(_)
            | Entry::CancelAsked(_)
            | Entry::TimedOut(_)
            | Entry::Outgrown(_)
            | Entry::Decided(_) => {}
        }
    }
    found
}

/// What a decision on `run` breaks; empty when it is sound.
pub fn decision(run: &RunState, decision: &Decision) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut after = run.clone();
    decision.entries.iter().for_each(|entry| after.fold(entry));
    if after.status() != decision.status {
        let detail = format!("{:?} instead of {:?}", decision.status, after.status());
        found.push(broken("the status is that of the run after the entries", detail));
    }
    if decision.status.is_final() && !decision.commands.is_empty() {
        found.push(broken(
            "a run that ended wants nothing done",
            format!("{} commands", decision.commands.len()),
        ));
    }
    if decision.status == Status::Waiting && decision.due.is_none() {
        found.push(broken("who waits knows until when", ""));
    }
    let marks = |call: CallId| {
        decision.entries.iter().find_map(|entry| match entry {
            Entry::Issued(issued) if issued.call == call => Some(issued.mode),
            Entry::Intended(intent) if intent.call == call => Some(Some(intent.mode)),
            _ => None,
        })
    };
    let mut calls = BTreeSet::new();
    for command in &decision.commands {
        let call = command.call();
        if !calls.insert(call) {
            found.push(broken("a call is handed out once per decision", call.to_string()));
        }
        let mode = match command {
            Command::Call(command) => command.effect.as_ref().map(|effect| effect.mode),
            Command::Read(_) => None,
        };
        if marks(call) != Some(mode) {
            found.push(broken(
                "what is handed out is in the entries",
                format!("{call} as {mode:?}"),
            ));
        }
    }
    found
}
