//! A replay that takes place on paper: the run itself, decided by the same rules, with the answers of the recorded run.
//! So its preview cannot say anything that the replay would not do. It sends nothing and writes nothing.

mod dependence;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use self::dependence::Dependence;
use crate::command::{CallCommand, Command, SendMode};
use crate::document::Document;
use crate::effect::EffectKey;
use crate::event::Event;
use crate::id::RunId;
use crate::journal::{AttemptOutcome, Awaited, Awaits, Entry, Target};
use crate::ledger::{EffectRecord, EffectState, Ledger};
use crate::plan::{OWN, Plan};
use crate::preview::{PreviewEffect, PreviewRead, ReplayPreview};
use crate::result::{CallFailure, CallOutcome, CallResult, Origin, Retry, Sent};
use crate::run::{Decision, Environment, Input, Mail, RunHead, RunState, Status, decide, started_run};
use crate::time::Timestamp;

/// What a replay knows of the run that it repeats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past<'a> {
    /// The journal of that run.
    pub recorded: &'a [Entry],
    /// What is taken over of it, so that the replay begins behind it.
    pub kept: &'a [Entry],
    /// What was done by the run that this one takes the place of under other keys. Nothing is answered from it.
    pub replaced: Option<&'a Ledger>,
}

/// A run that a rehearsed one would start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunStart {
    /// Path of the step.
    pub step: Arc<str>,
    /// `{workflow, input}`.
    pub args: Document,
    /// The key of the effect.
    pub key: EffectKey,
    /// Whether the start may have been carried out already: nobody knows.
    pub may_be_there: bool,
    /// The run that the recorded one had started at this step.
    pub before: Option<RunId>,
}

/// A run that is decided and not carried out.
///
/// Calls are taken to answer as recorded; what depends on an answer that was never recorded is left out with a note.
/// Nobody waits for a sleep. What steps wait for from outside is [told](Rehearsal::hear) by the caller, who can look
/// what has come; what it does not tell is open.
#[derive(Debug)]
pub struct Rehearsal<'a> {
    plan: &'a Plan,
    run: RunState,
    ledger: &'a Ledger,
    answers: BTreeMap<Target, CallOutcome>,
    pending: VecDeque<Command>,
    preview: ReplayPreview,
    starts: Vec<RunStart>,
    /// What tells whether a step was done before.
    done: &'a Ledger,
    now: Timestamp,
}

impl<'a> Rehearsal<'a> {
    /// A run of `plan` on `event`, given the ledger of its family and the run replayed, as far as it goes without
    /// anything from outside.
    pub fn begin(
        (plan, head, event): (&'a Plan, &RunHead, &Arc<Event>),
        ledger: &'a Ledger,
        past: Past<'a>,
        environment: &dyn Environment,
        now: Timestamp,
    ) -> Self {
        let mut run = RunState::new(head.clone(), Arc::clone(event), plan).with_ledger(ledger.clone());
        past.kept.iter().for_each(|entry| run.fold(entry));
        let mut rehearsal = Self {
            plan,
            run,
            ledger,
            answers: answers(past.recorded),
            pending: VecDeque::new(),
            preview: ReplayPreview::default(),
            starts: Vec::new(),
            done: past.replaced.unwrap_or(ledger),
            now,
        };
        past.recorded
            .iter()
            .for_each(|entry| rehearsal.preview.names.note(entry));
        rehearsal.take_in(Input::Started, environment);
        rehearsal
    }

    /// What steps wait for now that may have come already. People are asked anew.
    pub fn waits(&self) -> Vec<Awaited> {
        let open = self.run.open_waits().map(|wait| wait.awaited);
        open.filter(|awaited| !matches!(awaited.what, Awaits::Approval { .. }))
            .cloned()
            .collect()
    }

    /// Whether this step still waits.
    pub fn is_waiting(&self, step: &str) -> bool {
        self.run.open_waits().any(|wait| &**wait.step == step)
    }

    /// Goes on with something that has come from outside.
    pub fn hear(&mut self, mail: Mail<'_>, environment: &dyn Environment) {
        self.take_in(Input::Mail(mail), environment);
    }

    /// The runs that it would start.
    pub fn starts(&self) -> &[RunStart] {
        &self.starts
    }

    /// What the run would do, as far as it is known. What the runs do that it [starts](Self::starts) is not in it.
    pub fn finish(mut self) -> ReplayPreview {
        let waits = self.run.open_waits().next().map(|wait| Arc::clone(wait.step));
        match (self.run.status(), waits) {
            (Status::Failed { code, message, step }, _) if code != "effect_unknown" => {
                let place = step.map(|step| format!(" at `{step}`")).unwrap_or_default();
                self.preview.fails = true;
                self.preview.note(format!("the run would fail{place}: {message}"));
            }
            (Status::Waiting | Status::Running, Some(step)) => {
                let note = format!("the run would wait at `{step}` before it goes on");
                self.preview.shown_in_part(note);
            }
            (Status::Waiting | Status::Paused, _) => {
                self.preview
                    .shown_in_part("the run would wait before it goes on".to_owned());
            }
            (Status::Failed { .. } | Status::Running | Status::Succeeded | Status::Canceled, _) => {}
        }
        self.note_reads();
        self.preview
    }

    /// Tells which effects hang on reads that are made again.
    fn note_reads(&mut self) {
        let preview = &mut self.preview;
        let reads = preview.reads.iter().map(|read| read.step.as_str());
        let dependence = Dependence::of(self.plan.definition(), reads);
        let effects = preview.answered.iter_mut().chain(&mut preview.new);
        for effect in effects.chain(&mut preview.unknown) {
            effect.on_reads = dependence.reaches(&effect.step);
        }
        let answered = preview.answered.iter().filter(|effect| effect.on_reads);
        let steps: Vec<String> = answered.map(|effect| preview.names.name(&effect.step)).collect();
        if let Some(first) = steps.first() {
            let others = match steps.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let note = format!(
                "`{first}`{others}: answered from the record as long as what is read again answers as before; another \
                 request is sent"
            );
            preview.shown_in_part(note);
        }
    }

    fn take_in(&mut self, input: Input<'_>, environment: &dyn Environment) {
        self.step(input, environment);
        loop {
            while let Some(command) = self.pending.pop_front() {
                let Some(result) = self.answer(&command) else {
                    continue;
                };
                let call = command.call();
                self.step(Input::Outcome { call, result: &result }, environment);
            }
            if self.run.open_waits().next().is_some() {
                return;
            }
            // Nobody waits for a sleep in a rehearsal.
            let Some(wakes) = self.run.first_wake() else {
                return;
            };
            self.now = self.now.max(wakes);
            self.step(Input::Due, environment);
        }
    }

    fn step(&mut self, input: Input<'_>, environment: &dyn Environment) {
        let mut input = input;
        loop {
            let decision = match decide(self.plan, &self.run, environment, input, self.now) {
                Ok(decision) => decision,
                Err(error) => {
                    self.preview.note(error.to_string());
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

    fn changed(&self, step: &str, key: &EffectKey) -> bool {
        self.done
            .iter()
            .any(|(other, record)| other != key && &*record.step == step && !record.is_to_be_done())
    }

    fn undone(&self, step: &str) -> bool {
        let mut effects = self.done.iter();
        effects.any(|(_, record)| &*record.step == step && record.state == EffectState::Undone)
    }

    /// The run that the recorded run had started at a step.
    fn started_before(&self, step: &Arc<str>) -> Option<RunId> {
        match self.answers.get(&Target::Step(Arc::clone(step)))? {
            CallOutcome::Done { output } => started_run(output),
            CallOutcome::Failed(_) | CallOutcome::Held(_) => None,
        }
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
            on_reads: false,
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
                        on_reads: false,
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
                        on_reads: false,
                    };
                    if &*intent.connector == OWN && &*intent.operation == "run" {
                        self.starts.push(RunStart {
                            step: Arc::clone(&intent.step),
                            args: intent.args.clone(),
                            key: intent.key,
                            may_be_there: !is_new,
                            before: self.started_before(&intent.step),
                        });
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
                        on_reads: false,
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
                if self.plan.definition().steps.last().is_none_or(|last| last.id != name) {
                    self.preview.shown_in_part(format!(
                        "what follows `{name}` is not shown: no answer of it was recorded"
                    ));
                }
                None
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
