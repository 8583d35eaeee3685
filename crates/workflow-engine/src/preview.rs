//! What a replay would do, told before it is started.
//!
//! The preview is the run itself, decided by the same rules, with the answers of the recorded run: so it cannot say
//! anything that the replay would not do. It sends nothing and writes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::command::{CallCommand, Command, SendMode};
use crate::effect::EffectKey;
use crate::event::Event;
use crate::journal::{AttemptOutcome, Awaits, Entry, Target};
use crate::ledger::{EffectRecord, EffectState, Ledger};
use crate::plan::{OWN, Plan};
use crate::result::{CallFailure, CallOutcome, CallResult, Origin, Retry, Sent};
use crate::run::{Decision, Environment, Input, RunHead, RunState, Status, decide};
use crate::story::StepNames;
use crate::time::Timestamp;

/// What a replay would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayPreview {
    /// Calls that change nothing outside and would be made again.
    pub reads: Vec<PreviewRead>,
    /// Effects that took place; their recorded results would be used and nothing would be sent.
    pub answered: Vec<PreviewEffect>,
    /// Effects that would be sent.
    pub new: Vec<PreviewEffect>,
    /// Effects of which nobody knows: sent again where that is harmless, otherwise the end of the run.
    pub unknown: Vec<PreviewEffect>,
    /// Why the preview ends before the workflow does, if it does, or what else it cannot show.
    pub note: Option<String>,
    /// Whether more may be done than is shown: after a call without a recorded answer, after a wait, in runs that it
    /// starts.
    pub in_part: bool,
    /// How people call the steps whose paths stand here.
    pub names: StepNames,
}

/// A read of a preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewRead {
    /// Path of the step, `hydrate.<read>` for a hydration read.
    pub step: String,
    /// Name of the connector.
    pub connector: String,
    /// Name of the operation.
    pub operation: String,
}

/// An effect of a preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewEffect {
    /// Path of the step.
    pub step: String,
    /// Name of the connector.
    pub connector: String,
    /// Name of the operation.
    pub operation: String,
    /// `keyed`, `find_by`, `repeatable` or `blind`; empty when that is not recorded.
    pub class: &'static str,
    /// Its idempotency key.
    pub key: EffectKey,
    /// Whether the same step took place before with another request.
    pub changed: bool,
    /// Whether the step took place before and was undone.
    pub undone: bool,
    /// Whether something would be sent.
    pub sends: bool,
}

/// What a replay knows of the run that it repeats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past<'a> {
    /// The journal of that run.
    pub recorded: &'a [Entry],
    /// What is taken over of it, so that the replay begins behind it.
    pub kept: &'a [Entry],
}

/// What a run of `plan` on `event` would do, given the ledger of its family and the run replayed.
///
/// Calls are taken to answer as recorded; what depends on an answer that was never recorded is left out with a note.
pub fn preview(
    plan: &Plan,
    head: &RunHead,
    event: &Arc<Event>,
    ledger: &Ledger,
    past: Past<'_>,
    environment: &dyn Environment,
    now: Timestamp,
) -> ReplayPreview {
    let mut run = RunState::new(head.clone(), Arc::clone(event), plan).with_ledger(ledger.clone());
    past.kept.iter().for_each(|entry| run.fold(entry));
    let mut rehearsal = Rehearsal {
        plan,
        run,
        ledger,
        answers: answers(past.recorded),
        recorded: past.recorded,
        pending: VecDeque::new(),
        preview: ReplayPreview::default(),
    };
    let mut now = now;
    past.recorded
        .iter()
        .for_each(|entry| rehearsal.preview.names.note(entry));
    rehearsal.step(Input::Started, environment, now);
    loop {
        while let Some(command) = rehearsal.pending.pop_front() {
            let Some(result) = rehearsal.answer(&command) else {
                continue;
            };
            rehearsal.step(
                Input::Outcome {
                    call: command.call(),
                    result: &result,
                },
                environment,
                now,
            );
        }
        // What steps waited for is there again.
        let arrived = rehearsal.arrived();
        if !arrived.is_empty() {
            arrived.iter().for_each(|entry| rehearsal.run.fold(entry));
            rehearsal.step(Input::Due, environment, now);
            continue;
        }
        if rehearsal.run.open_waits().next().is_some() {
            break;
        }
        // Nobody waits for a sleep in a rehearsal.
        let Some(wakes) = rehearsal.run.first_wake() else {
            break;
        };
        now = now.max(wakes);
        rehearsal.step(Input::Due, environment, now);
    }
    rehearsal.finish()
}

struct Rehearsal<'a> {
    plan: &'a Plan,
    run: RunState,
    ledger: &'a Ledger,
    answers: BTreeMap<Target, CallOutcome>,
    recorded: &'a [Entry],
    pending: VecDeque<Command>,
    preview: ReplayPreview,
}

/// How each call of a recorded run came out in the end.
fn answers(recorded: &[Entry]) -> BTreeMap<Target, CallOutcome> {
    let mut answers = BTreeMap::new();
    for entry in recorded {
        match entry {
            Entry::Attempt(attempt) => {
                let outcome = match &attempt.outcome {
                    AttemptOutcome::Done { output, .. } => CallOutcome::Done { output: output.clone() },
                    AttemptOutcome::Gone { failure } => {
                        // Answered as gone for good, so that the rehearsal does not wait for the object to appear.
                        CallOutcome::Failed(CallFailure {
                            http_status: Some(410),
                            ..failure.clone()
                        })
                    }
                    AttemptOutcome::Failed {
                        failure,
                        continued: true,
                        ..
                    } => CallOutcome::Failed(CallFailure {
                        retry: Retry::Permanent,
                        sent: Sent::Never,
                        ..failure.clone()
                    }),
                    AttemptOutcome::Failed { .. } | AttemptOutcome::Retry { .. } => continue,
                };
                answers.insert(attempt.of.clone(), outcome);
            }
            Entry::Answered(answered) => {
                let of = Target::Step(Arc::clone(&answered.step));
                answers.insert(
                    of,
                    CallOutcome::Done {
                        output: answered.output.clone(),
                    },
                );
            }
            _ => {}
        }
    }
    answers
}

impl Rehearsal<'_> {
    fn step(&mut self, input: Input<'_>, environment: &dyn Environment, now: Timestamp) {
        let mut input = input;
        loop {
            let decision = match decide(self.plan, &self.run, environment, input, now) {
                Ok(decision) => decision,
                Err(error) => {
                    self.note(error.to_string());
                    return;
                }
            };
            self.take(&decision);
            decision.entries.iter().for_each(|entry| self.run.fold(entry));
            self.pending.extend(decision.commands);
            if !decision.more {
                return;
            }
            input = Input::Due;
        }
    }

    /// What the steps that wait now got in the recorded run. People are asked again.
    fn arrived(&self) -> Vec<Entry> {
        let waits = |step: &str| {
            let mut open = self.run.open_waits();
            open.any(|wait| &**wait.step == step && !matches!(wait.awaited.what, Awaits::Approval { .. }))
        };
        let came = |entry: &&Entry| matches!(entry, Entry::Arrived(arrived) if waits(&arrived.step));
        self.recorded.iter().filter(came).cloned().collect()
    }

    fn note(&mut self, note: String) {
        self.preview.note.get_or_insert(note);
    }

    fn changed(&self, step: &str, key: &EffectKey) -> bool {
        self.ledger
            .iter()
            .any(|(other, record)| other != key && &*record.step == step && !record.is_to_be_done())
    }

    fn undone(&self, step: &str) -> bool {
        let mut effects = self.ledger.iter();
        effects.any(|(_, record)| &*record.step == step && record.state == EffectState::Undone)
    }

    /// What undoes an effect and of which nobody knows.
    fn undoes(&self, record: &EffectRecord) -> Option<PreviewEffect> {
        let doubt = record.doubt.as_ref().filter(|doubt| doubt.step != record.step)?;
        let mut effects = self.ledger.iter();
        let (key, record) = effects.find(|(_, record)| record.step == doubt.step && record.is_open())?;
        Some(PreviewEffect {
            step: record.step.to_string(),
            connector: record.connector.to_string(),
            operation: record.operation.to_string(),
            class: record.class.as_str(),
            key: *key,
            changed: false,
            undone: false,
            sends: false,
        })
    }

    fn take(&mut self, decision: &Decision) {
        for entry in &decision.entries {
            self.preview.names.note(entry);
            match entry {
                Entry::Answered(answered) => {
                    let record = self.ledger.get(&answered.key);
                    self.preview.answered.push(PreviewEffect {
                        step: answered.step.to_string(),
                        connector: record.map(|record| record.connector.to_string()).unwrap_or_default(),
                        operation: record.map(|record| record.operation.to_string()).unwrap_or_default(),
                        class: answered.class.as_str(),
                        key: answered.key,
                        changed: false,
                        undone: false,
                        sends: false,
                    });
                }
                Entry::Intended(intent) => {
                    let is_new = intent.mode == SendMode::First;
                    let effect = PreviewEffect {
                        step: intent.step.to_string(),
                        connector: intent.connector.to_string(),
                        operation: intent.operation.to_string(),
                        class: intent.class.as_str(),
                        key: intent.key,
                        changed: self.changed(&intent.step, &intent.key),
                        undone: self.undone(&intent.step),
                        sends: true,
                    };
                    if is_new && &*intent.connector == OWN && &*intent.operation == "run" {
                        self.preview.in_part = true;
                        self.note(format!("what the run that `{}` starts does is not shown", intent.step));
                    }
                    if is_new {
                        self.preview.new.push(effect)
                    } else {
                        self.preview.unknown.push(effect)
                    }
                }
                Entry::Unknown(unknown) => {
                    let record = self.ledger.get(&unknown.key);
                    if let Some(undoes) = record.and_then(|record| self.undoes(record)) {
                        self.preview.unknown.push(undoes);
                    }
                    self.preview.unknown.push(PreviewEffect {
                        step: unknown.step.to_string(),
                        connector: record.map(|record| record.connector.to_string()).unwrap_or_default(),
                        operation: record.map(|record| record.operation.to_string()).unwrap_or_default(),
                        class: record.map(|record| record.class.as_str()).unwrap_or_default(),
                        key: unknown.key,
                        changed: false,
                        undone: false,
                        sends: false,
                    });
                }
                _ => {}
            }
        }
        for command in &decision.commands {
            let (step, connector, operation) = match command {
                Command::Read(read) => (format!("hydrate.{}", read.name), &read.connector, &read.operation),
                Command::Call(CallCommand {
                    step,
                    connector,
                    operation,
                    effect: None,
                    ..
                }) => (step.clone(), connector, operation),
                Command::Call(_) => continue,
            };
            let read = PreviewRead {
                step,
                connector: connector.clone(),
                operation: operation.clone(),
            };
            self.preview.reads.push(read);
        }
    }

    fn answer(&mut self, command: &Command) -> Option<CallResult> {
        let (of, name) = match command {
            Command::Read(read) => (
                Target::Read(Arc::from(read.name.as_str())),
                format!("hydrate.{}", read.name),
            ),
            Command::Call(call) => (Target::Step(Arc::from(call.step.as_str())), call.step.clone()),
        };
        match self.answers.get(&of) {
            Some(outcome) => Some(CallResult {
                outcome: outcome.clone(),
                exchanges: Vec::new(),
                origin: Origin::Sent,
            }),
            None => {
                // Nothing follows the last step.
                let last = self.plan.definition().steps.last();
                self.preview.in_part |= last.is_none_or(|last| last.id != name);
                self.note(format!(
                    "what follows `{name}` is not shown: no answer of it was recorded"
                ));
                None
            }
        }
    }

    fn finish(mut self) -> ReplayPreview {
        match self.run.status() {
            Status::Failed { code, message, step } if code != "effect_unknown" => {
                let place = step.map(|step| format!(" at `{step}`")).unwrap_or_default();
                self.note(format!("the run would fail{place}: {message}"));
            }
            Status::Waiting | Status::Paused => {
                self.preview.in_part = true;
                self.note("the run would wait before it goes on".to_owned());
            }
            Status::Failed { .. } | Status::Running | Status::Succeeded | Status::Canceled => {}
        }
        self.preview
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    #[test]
    fn the_last_answer_of_a_call_counts() {
        let done = |number: u32, output: &str| {
            Entry::Attempt(crate::journal::Attempt {
                call: crate::command::CallId(number),
                of: Target::Step(Arc::from("pay")),
                attempt: 1,
                at: Timestamp::from_unix_ms(0),
                outcome: AttemptOutcome::Done {
                    output: Document::from_value(serde_json::json!(output)),
                    origin: Origin::Sent,
                },
                exchanges: Arc::from([]),
            })
        };
        let answers = answers(&[done(0, "first"), done(1, "second")]);
        let expected = CallOutcome::Done {
            output: Document::from_value(serde_json::json!("second")),
        };
        assert_eq!(answers.get(&Target::Step(Arc::from("pay"))), Some(&expected));
    }
}
