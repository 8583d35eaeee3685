//! From an input to a decision.
//!
//! A decision is made on a copy of the run that takes in each entry as it is decided, by the same fold that will take
//! it in for good. So what is decided is what the journal will say, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use super::state::{OpenCall, Phase, RunState};
use super::walk::Walk;
use super::{Decision, EngineError, Environment, Input, Mail};
use crate::command::CallId;
use crate::document::Document;
use crate::event::EventSource;
use crate::journal::{Abandoned, EffectEnd, Ending, Entry, FailureTaken, Finished, TimedOut};
use crate::plan::Plan;
use crate::time::Timestamp;

/// What a run does next.
///
/// Changes nothing: fold [`Decision::entries`] into `run` before the next call. A finished run decides nothing.
///
/// # Errors
/// [`EngineError::Foreign`] when the journal of the run does not belong to the plan.
pub fn decide(
    plan: &Plan,
    run: &RunState,
    environment: &dyn Environment,
    input: Input<'_>,
    now: Timestamp,
) -> Result<Decision, EngineError> {
    if run.finished.is_some() {
        return Ok(Decision {
            entries: Vec::new(),
            commands: Vec::new(),
            status: run.status(),
            due: None,
            more: false,
        });
    }
    let mut walk = Walk::new(&plan.program, run.clone(), environment, now);
    match input {
        Input::Started | Input::Due => {}
        Input::Recovered => walk.recover(),
        Input::Outcome { call, result } => walk.outcome(call, result),
        Input::Mail(mail) => walk.mail(&mail),
    }
    // A run that stands still does not run out of time.
    let deadline = plan.timeout().filter(|_| walk.run.paused.is_none());
    let allowed = |limit: Duration| limit.saturating_add(walk.run.paused_for);
    let deadline = deadline.map(|limit| (limit, run.head().started_at.plus(allowed(limit))));
    if let Some((limit, deadline)) = deadline
        && now >= deadline
        && walk.run.ending.is_none()
        && walk.run.failed.is_none()
    {
        walk.push(Entry::TimedOut(TimedOut { limit }));
    }
    walk.run_over();
    walk.advance();
    while walk.run.ending.is_some() && walk.wind_down() {
        // What is to be done about a failure begins.
        walk.advance();
    }
    if let Some(what) = walk.run.foreign.take() {
        let head = run.head();
        return Err(EngineError::Foreign {
            run: head.id,
            what,
            version: head.version_number,
        });
    }
    let status = walk.run.status();
    let due = match status.is_final() {
        true => None,
        false => {
            let deadline = deadline
                .filter(|_| walk.run.ending.is_none() && walk.run.failed.is_none())
                .map(|(_, deadline)| deadline);
            walk.run.next_due().into_iter().chain(deadline).min()
        }
    };
    Ok(Decision {
        entries: walk.entries,
        commands: walk.commands,
        more: walk.cut && !status.is_final(),
        status,
        due,
    })
}

/// What mail does to a run that waits for its turn: it can be ended and held, and nothing of it begins. Its time limit has
/// not begun either.
///
/// Changes nothing, like [`decide`].
#[must_use]
pub fn attend(plan: &Plan, run: &RunState, environment: &dyn Environment, mail: &Mail<'_>, now: Timestamp) -> Decision {
    let mut walk = Walk::new(&plan.program, run.clone(), environment, now);
    let concerns = matches!(mail, Mail::Cancel { .. } | Mail::Pause { .. } | Mail::Resume { .. });
    if concerns && walk.run.finished.is_none() {
        walk.mail(mail);
        if let Some(ending) = walk.run.ending.clone() {
            walk.finish(ending);
        }
    }
    Decision {
        status: walk.run.status(),
        entries: walk.entries,
        commands: Vec::new(),
        due: None,
        more: false,
    }
}

impl Walk<'_> {
    /// Ends the run, as soon as no effect is on its way: its outcome must not be lost. True when the steps of
    /// `on_failure` come first.
    fn wind_down(&mut self) -> bool {
        // What was only begun in this decision is not sent any more; what is on its way again is waited for.
        let fresh = std::mem::take(&mut self.fresh);
        self.commands
            .retain(|command| command.durable_first() && !fresh.contains(&command.call()));
        let in_flight = |(id, call): (&CallId, &OpenCall)| {
            call.intent.is_some() && call.phase == Phase::Flight && !fresh.contains(id)
        };
        let waits = self.run.calls.iter().any(in_flight);
        let given_up: Vec<Abandoned> = self
            .run
            .calls
            .iter()
            .filter(|(id, call)| !in_flight((id, call)))
            .map(|(id, call)| Abandoned {
                call: *id,
                of: call.of.clone(),
                effect: call.intent.as_ref().map(|_| match call.maybe_sent {
                    true => EffectEnd::Unknown,
                    false => EffectEnd::Failed,
                }),
            })
            .collect();
        for abandoned in given_up {
            self.push(Entry::Abandoned(abandoned));
        }
        if waits {
            return false;
        }
        // Whatever ends the steps of `on_failure`, the run ends as it failed.
        let ending = self.run.failed.clone().or_else(|| self.run.ending.clone());
        let Some(mut ending) = ending else {
            return false;
        };
        let is_unknown = matches!(&ending, Ending::Failed { code, .. } if &**code == super::fold::EFFECT_UNKNOWN);
        if let (Some(step), false) = (&self.run.unknown, is_unknown) {
            let message = match &ending {
                Ending::Failed { message, .. } => {
                    format!("nobody knows whether the effect took place; also: {message}")
                }
                Ending::Succeeded | Ending::Canceled => "nobody knows whether the effect took place".to_owned(),
            };
            ending = Ending::Failed {
                code: Arc::from(super::fold::EFFECT_UNKNOWN),
                message: Arc::from(message),
                step: Some(Arc::clone(step)),
            };
        }
        let is_failed = matches!(ending, Ending::Failed { .. });
        if is_failed && self.run.failed.is_none() && !self.program.on_failure.is_empty() {
            self.push(Entry::FailureTaken(FailureTaken { ending }));
            return true;
        }
        self.finish(ending);
        false
    }

    /// The run is over. What it gave is told to the run that waits for it.
    pub(super) fn finish(&mut self, ending: Ending) {
        let output = match (self.run.event.source, &ending) {
            (EventSource::Workflow, Ending::Succeeded) => Some(self.run.output().unwrap_or_else(Document::null)),
            _ => None,
        };
        let at = self.now;
        self.push(Entry::Finished(Finished { ending, at, output }));
    }
}
