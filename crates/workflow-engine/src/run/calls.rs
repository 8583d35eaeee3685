//! The calls of a run: begun, taken back, tried again, recovered.
//!
//! Before an effect leaves, its intent is an entry of the same decision, and the command says that it must be on disk
//! first. What is sent again is sent under the same key with the same body, or not at all.

use std::sync::Arc;
use std::time::Duration;

use super::fold::EFFECT_UNKNOWN;
use super::retry::{self, Next};
use super::scope::{FreshNames, ReadNames};
use super::state::{OpenCall, Owner, Phase, Place};
use super::walk::{Fault, Walk};
use crate::command::{CallCommand, CallId, Command, EffectCommand, ReadCommand, SendMode};
use crate::definition::{DEFAULT_CALL_TIMEOUT, RetryPolicy};
use crate::document::Document;
use crate::effect::{EffectClass, EffectKey, KeyParts, RequestDigest};
use crate::journal::{
    Answered, Attempt, AttemptOutcome, Entry, Exchanges, Held, Intent, Issued, Postponed, Target, UnknownEffect,
};
use crate::ledger::{Doubt, EffectRecord, EffectState};
use crate::plan::{By, CallTask, Task};
use crate::problem::child;
use crate::result::{CallFailure, CallOutcome, CallResult, Exchange, ResponseBody, Retry, Sent};

/// How often an effect may be proven not done and begun anew; a person replays, so this is never reached.
const MAX_GENERATIONS: u32 = 10_000;

/// For how long Weir itself knows what it did under a key: as long as it remembers events at least.
const OWN_WINDOW: Duration = Duration::from_secs(90 * 86_400);

const WINDOW_OVER: &str = "it may have been sent, and the provider has forgotten its key by now";
const NO_WAY_TO_KNOW: &str = "it may have been sent by an earlier run, and the provider offers no way to find out";

/// Why an effect that took place may not stand any more, and what a person has to say first.
fn in_doubt(path: &str, doubt: &Doubt) -> String {
    let (step, run) = (&doubt.step, doubt.run);
    match **step == *path {
        true => format!(
            "it took place, and undoing it was left half way: look whether it stands and say so \
             (weir run resolve {run} {step})"
        ),
        false => format!(
            "it took place, and `{step}`, which undoes it, may have taken place too: say what became of that \
             (weir run resolve {run} {step})"
        ),
    }
}

impl Walk<'_> {
    fn task(&self, place: &Place) -> Option<&CallTask> {
        self.program.nodes.get(place.node)?.task.call()
    }

    /// How long one try of a call may take.
    pub(super) fn timeout(&self, open: &OpenCall) -> Duration {
        match &open.owner {
            Owner::Step(place) => self.task(place).map_or(DEFAULT_CALL_TIMEOUT, |task| task.timeout),
            Owner::Read(_) => DEFAULT_CALL_TIMEOUT,
        }
    }

    /// Begins the call of a step, or answers it from the ledger. `again`: the number of the call that goes on, when
    /// a call that had no effect so far turns out to have one.
    pub(super) fn start_call(&mut self, place: &Place, path: &Arc<str>, task: &CallTask, again: Option<CallId>) {
        let of = Target::Step(Arc::clone(path));
        let connection = task
            .connection
            .clone()
            .or_else(|| self.run.event.connection.as_deref().map(Arc::from));
        let Some(connection) = connection else {
            let message = "the event has no connection, and the step names none".to_owned();
            return self.fail(
                of,
                Fault {
                    code: "no_connection",
                    message,
                },
            );
        };
        let args = match task.with.render(&self.scope(place)) {
            Ok(args) => args,
            Err(error) => return self.fail(of, error.into()),
        };
        let class = match task.by {
            By::Connector => self
                .environment
                .effect_class(&connection, &task.operation, args.value()),
            By::Run(_) | By::Emit | By::Respond => EffectClass::Keyed { window: OWN_WINDOW },
        };
        let call = again.unwrap_or_else(|| self.run.fresh_call());
        if class == EffectClass::Read {
            let attempt = again
                .and_then(|call| self.run.calls.get(&call))
                .map_or(1, OpenCall::next_attempt);
            self.fresh.insert(call);
            self.push(Entry::Issued(Issued {
                call,
                of,
                attempt,
                at: self.now,
                mode: None,
            }));
            self.commands.push(Command::Call(CallCommand {
                call,
                step: path.to_string(),
                attempt,
                connection: connection.to_string(),
                connector: task.connector.to_string(),
                operation: task.operation.to_string(),
                args,
                args_at: self.args_at(place),
                all_max: task.all_max,
                timeout: task.timeout,
                class,
                effect: None,
            }));
            return;
        }
        let digest = RequestDigest::of(&connection, &task.connector, &task.operation, args.value());
        let (generation, key) = self.effect_key(path, digest);
        let mut intent = Intent {
            call,
            step: Arc::clone(path),
            key,
            digest,
            generation,
            class,
            connection,
            connector: Arc::clone(&task.connector),
            operation: Arc::clone(&task.operation),
            args,
            first_sent_at: self.now,
            mode: SendMode::First,
        };
        let ledger = Arc::clone(&self.run.ledger);
        match ledger.get(&key) {
            None => {}
            Some(EffectRecord {
                state: EffectState::Confirmed,
                output,
                run,
                ..
            }) => {
                let output = output.clone().unwrap_or_else(Document::null);
                let step = Arc::clone(path);
                self.push(Entry::Answered(Answered {
                    step,
                    key,
                    digest,
                    class,
                    output,
                    run: *run,
                }));
                return self.wait_if_begun(place);
            }
            Some(record) if let Some(doubt) = &record.doubt => {
                // Neither what was recorded of it nor its key says whether it still stands.
                let reason = in_doubt(path, doubt);
                return self.unknown(None, path, key, &reason);
            }
            Some(record) => {
                intent.first_sent_at = record.first_sent_at;
                intent.mode = match class {
                    EffectClass::Keyed { .. } | EffectClass::Repeatable | EffectClass::Read => SendMode::Resend,
                    EffectClass::FindBy { consistent: true, .. } => SendMode::LookFirst,
                    EffectClass::FindBy { consistent: false, .. } => SendMode::LookOnly,
                    EffectClass::Blind => return self.unknown(None, path, key, NO_WAY_TO_KNOW),
                };
                if intent.mode == SendMode::Resend && !retry::may_resend(class, intent.first_sent_at, self.now) {
                    return self.unknown(None, path, key, WINDOW_OVER);
                }
            }
        }
        let settled = match class {
            EffectClass::FindBy {
                consistent: false,
                settle,
            } => intent.first_sent_at.plus(task.timeout).plus(settle),
            _ => self.now,
        };
        let timeout = task.timeout;
        let mode = intent.mode;
        self.fresh.insert(call);
        self.push(Entry::Intended(intent));
        if mode == SendMode::LookOnly && settled > self.now {
            return self.postpone(
                call,
                settled.since(self.now),
                mode,
                "until the provider's search is sure to see it",
            );
        }
        self.send(call, timeout);
    }

    /// The key of an effect: raised past every generation that is proven not to have been carried out, or was undone.
    fn effect_key(&self, path: &str, digest: RequestDigest) -> (u32, EffectKey) {
        let head = self.run.head();
        let key = |generation| {
            EffectKey::derive(&KeyParts {
                workspace: head.workspace.as_raw(),
                workflow: head.workflow.as_raw(),
                dedupe_scope: &head.dedupe_scope,
                dedupe_key: &head.dedupe_key,
                step: path,
                generation,
                digest,
            })
        };
        let is_free = |key: &EffectKey| self.run.ledger.get(key).is_some_and(EffectRecord::is_to_be_done);
        let mut generation = 0;
        let mut found = key(generation);
        while is_free(&found) && generation < MAX_GENERATIONS {
            generation += 1;
            found = key(generation);
        }
        (generation, found)
    }

    pub(super) fn unknown(&mut self, call: Option<CallId>, step: &Arc<str>, key: EffectKey, reason: &str) {
        let step = Arc::clone(step);
        self.push(Entry::Unknown(UnknownEffect {
            call,
            step,
            key,
            reason: Arc::from(reason),
        }));
    }

    fn postpone(&mut self, call: CallId, pause: Duration, mode: SendMode, reason: &str) {
        let until = self.now.plus(pause);
        self.push(Entry::Postponed(Postponed {
            call,
            until,
            mode,
            reason: Arc::from(reason),
        }));
    }

    /// Where the arguments of a call stand in the workflow.
    fn args_at(&self, place: &Place) -> String {
        let node = self.program.nodes.get(place.node);
        node.map_or_else(String::new, |node| child(&node.pointer, "with"))
    }

    /// The command for an effect whose intent was decided and that counts as handed out.
    fn send(&mut self, call: CallId, timeout: Duration) {
        let Some(open) = self.run.calls.get(&call) else {
            return;
        };
        let (Some(intent), Some(mode)) = (&open.intent, open.mode) else {
            return;
        };
        let args_at = match &open.owner {
            Owner::Step(place) => self.args_at(place),
            Owner::Read(_) => String::new(),
        };
        self.commands.push(Command::Call(CallCommand {
            call,
            step: intent.step.to_string(),
            attempt: open.attempt,
            connection: intent.connection.to_string(),
            connector: intent.connector.to_string(),
            operation: intent.operation.to_string(),
            args: intent.args.clone(),
            args_at,
            all_max: None,
            timeout,
            class: intent.class,
            effect: Some(EffectCommand {
                key: intent.key,
                first_sent_at: open.first_sent_at,
                mode,
            }),
        }));
    }

    /// Begins a hydration read.
    pub(super) fn start_read(&mut self, position: usize, name: Arc<str>) {
        self.read(self.run.fresh_call(), 1, position, name);
    }

    fn read(&mut self, call: CallId, attempt: u32, position: usize, name: Arc<str>) {
        let of = Target::Read(Arc::clone(&name));
        let Some(read) = self.program.reads.get(position) else {
            return;
        };
        let connection = self
            .run
            .event
            .connection
            .clone()
            .or_else(|| self.program.connection.clone());
        let Some(connection) = connection else {
            let message = "the event has no connection to read with".to_owned();
            return self.fail(
                of,
                Fault {
                    code: "no_connection",
                    message,
                },
            );
        };
        let args = match read.with.render(&ReadNames { run: &self.run }) {
            Ok(args) => args,
            Err(error) => return self.fail(of, error.into()),
        };
        self.fresh.insert(call);
        self.push(Entry::Issued(Issued {
            call,
            of,
            attempt,
            at: self.now,
            mode: None,
        }));
        self.commands.push(Command::Read(ReadCommand {
            call,
            name: name.to_string(),
            attempt,
            connection,
            connector: self.program.connector.clone(),
            operation: read.operation().to_owned(),
            args,
            all_max: read.info.all_max,
            timeout: read.timeout(),
        }));
    }

    /// Takes in the outcome of a call.
    pub(super) fn outcome(&mut self, call: CallId, result: &CallResult) {
        let Some(open) = self.run.calls.get(&call).filter(|open| open.phase == Phase::Flight) else {
            return;
        };
        let open = open.clone();
        let (held_too_long, unfit);
        let mut exchanges: Exchanges = Arc::from(result.exchanges.as_slice());
        let outcome = match &result.outcome {
            CallOutcome::Held(hold) => {
                // A block that was left begins nothing new.
                let left = self.is_settling(&open) && !open.maybe_sent;
                if !left && open.holds < retry::MAX_HOLDS {
                    return self.push(Entry::Held(Held {
                        call,
                        mode: open.mode_when_held(),
                        of: open.of,
                        by: hold.by,
                        until: hold.until,
                        reason: Arc::from(hold.reason.as_str()),
                        exchanges: Arc::from(result.exchanges.as_slice()),
                    }));
                }
                held_too_long = CallOutcome::Failed(hold.clone().into_failure(self.now));
                &held_too_long
            }
            CallOutcome::Done { output } => match self.unfit(&open, output) {
                Some(failure) => {
                    exchanges = without_output(&exchanges);
                    unfit = CallOutcome::Failed(failure);
                    &unfit
                }
                None => &result.outcome,
            },
            failed @ CallOutcome::Failed(_) => failed,
        };
        let outcome = match outcome {
            CallOutcome::Held(_) => return,
            CallOutcome::Done { output } => AttemptOutcome::Done {
                output: output.clone(),
                origin: result.origin,
            },
            CallOutcome::Failed(failure) => {
                let (policy, timeout) = match &open.owner {
                    Owner::Read(_) => (RetryPolicy::default(), DEFAULT_CALL_TIMEOUT),
                    Owner::Step(place) => self.task(place).map_or_else(
                        || (RetryPolicy::default(), DEFAULT_CALL_TIMEOUT),
                        |task| (task.retry, task.timeout),
                    ),
                };
                // A block that was left begins nothing new, but follows up what may have taken place.
                let left = self.is_settling(&open) && failure.sent == Sent::Never && !open.maybe_sent;
                let closing = self.run.ending.is_some() || left;
                let situation = retry::Situation {
                    run: self.run.head().id,
                    call,
                    timeout,
                    closing,
                    now: self.now,
                };
                let failure = failure.clone();
                match retry::next(&open, &failure, &policy, &situation) {
                    Next::Retry { at, mode } => AttemptOutcome::Retry {
                        failure,
                        next_at: at,
                        mode,
                    },
                    Next::Gone => AttemptOutcome::Gone { failure },
                    Next::Fail { code, effect } => {
                        let code: Arc<str> = Arc::from(code.unwrap_or(&failure.code));
                        let continued = &*code != EFFECT_UNKNOWN && self.run.goes_on(&open.of, &code);
                        AttemptOutcome::Failed {
                            failure,
                            code,
                            effect,
                            continued,
                        }
                    }
                }
            }
        };
        self.push(Entry::Attempt(Attempt {
            call,
            of: open.of,
            attempt: open.attempt,
            at: self.now,
            outcome,
            exchanges,
        }));
        if let Owner::Step(place) = &open.owner {
            self.wait_if_begun(place);
        }
    }

    /// Why the answer of a hydration read cannot be used: its `fresh` says that it is older than the event.
    fn unfit(&self, open: &OpenCall, answer: &Document) -> Option<CallFailure> {
        let Owner::Read(position) = &open.owner else {
            return None;
        };
        let read = self.program.reads.get(*position)?;
        let fresh = read.fresh.as_ref()?;
        let scope = FreshNames {
            run: &self.run,
            name: read.name(),
            answer,
        };
        let (code, message, retry) = match fresh.truth(&scope) {
            Ok(true) => return None,
            Ok(false) => {
                let message = format!("the answer is older than the event: `{}` is not true", fresh.source());
                (retry::STALE.to_owned(), message, Retry::Retryable { after: None })
            }
            Err(error) => {
                let fault = Fault::from(error);
                (fault.code.to_owned(), fault.message, Retry::Permanent)
            }
        };
        Some(CallFailure {
            code,
            message,
            http_status: None,
            sent: Sent::Maybe,
            retry,
        })
    }

    /// Hands out again what waited until now.
    pub(super) fn issue_due(&mut self) {
        let now = self.now;
        let is_due = |open: &OpenCall| matches!(open.phase, Phase::Wait { until, .. } if until <= now);
        let due: Vec<CallId> = self
            .run
            .calls
            .iter()
            .filter(|(_, open)| is_due(open) && (open.maybe_sent || !self.is_settling(open)))
            .map(|(call, _)| *call)
            .collect();
        for call in due {
            let Some(open) = self.run.calls.get(&call).cloned() else {
                continue;
            };
            let mode = match open.phase {
                Phase::Wait { mode, .. } => mode,
                Phase::Flight => open.mode,
            };
            self.issue(call, &open, open.next_attempt(), mode);
        }
    }

    fn issue(&mut self, call: CallId, open: &OpenCall, attempt: u32, mode: Option<SendMode>) {
        let place = match &open.owner {
            Owner::Read(position) => {
                if let Target::Read(name) = &open.of {
                    self.read(call, attempt, *position, Arc::clone(name));
                }
                return;
            }
            Owner::Step(place) => place,
        };
        let program = self.program;
        let Some(Task::Call(task)) = program.nodes.get(place.node).map(|node| &node.task) else {
            return;
        };
        let Some(intent) = &open.intent else {
            if let Target::Step(path) = &open.of {
                self.start_call(place, path, task, Some(call));
            }
            return;
        };
        let is_resend = mode == Some(SendMode::Resend) && (open.maybe_sent || open.phase == Phase::Flight);
        if is_resend && !retry::may_resend(intent.class, open.first_sent_at, self.now) {
            return self.unknown(Some(call), &intent.step, intent.key, WINDOW_OVER);
        }
        self.push(Entry::Issued(Issued {
            call,
            of: open.of.clone(),
            attempt,
            at: self.now,
            mode,
        }));
        self.send(call, task.timeout);
    }

    /// Takes up again what a lost process had handed out.
    pub(super) fn recover(&mut self) {
        let lost: Vec<(CallId, OpenCall)> = self
            .run
            .calls
            .iter()
            .filter(|(_, open)| open.phase == Phase::Flight)
            .map(|(call, open)| (*call, open.clone()))
            .collect();
        for (call, open) in lost {
            let closing = self.run.ending.is_some();
            let left = self.is_settling(&open);
            let Some(intent) = &open.intent else {
                if !closing && !left {
                    self.issue(call, &open, open.attempt, None);
                }
                continue;
            };
            let timeout = self.timeout(&open);
            // Bytes of the lost process left before now, and the provider may work on them for as long as a try takes.
            let reason = "until a request of the lost process is sure to be over";
            match intent.class {
                EffectClass::Keyed { .. } | EffectClass::Repeatable | EffectClass::Read => {
                    self.issue(call, &open, open.attempt, Some(SendMode::Resend));
                }
                EffectClass::FindBy { consistent: true, .. } => {
                    self.postpone(call, timeout, SendMode::LookFirst, reason);
                }
                EffectClass::FindBy {
                    consistent: false,
                    settle,
                } => {
                    self.postpone(call, timeout.saturating_add(settle), SendMode::LookOnly, reason);
                }
                EffectClass::Blind if closing => {
                    self.unknown(
                        Some(call),
                        &intent.step,
                        intent.key,
                        "it was on its way when the process was lost",
                    );
                }
                EffectClass::Blind => self.issue(call, &open, open.attempt, Some(SendMode::IfNeverSent)),
            }
        }
    }
}

impl OpenCall {
    /// The number of the next try: one more than the last, unless that never came about.
    pub(super) fn next_attempt(&self) -> u32 {
        match self.phase {
            Phase::Wait { .. } => self.attempt + 1,
            Phase::Flight => self.attempt,
        }
    }
}

/// Exchanges of a try without an output: a body that would be kept there is kept nowhere.
fn without_output(exchanges: &[Exchange]) -> Exchanges {
    let mut exchanges = exchanges.to_vec();
    for exchange in &mut exchanges {
        if exchange.response_body == ResponseBody::Output {
            exchange.response_body = ResponseBody::None;
        }
    }
    Arc::from(exchanges)
}
