//! A person says what became of an effect that nobody knew about.
//!
//! The decision is a journal row behind the end of the run, not a row of a table beside it: the ledger is folded from
//! the journals of the family and from nothing else, so every later replay, takeover and preview takes the decision
//! in without another read, and it is kept and deleted together with what it is about. Nothing is sent by deciding.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use weir_storage::{Operation, RunCommit, RunRow};
use weir_workflow_engine::{
    CallCommand, CallId, CallOutcome, DEFAULT_CALL_TIMEOUT, Decided, Document, EffectClass, EffectCommand, EffectKey,
    EffectRecord, Entry, Intent, RunId, SendMode, Timestamp, Verdict, WorkspaceId, encode, story,
};

use super::{Family, Refused, audit, write};
use crate::configure::Actor;
use crate::control::ControlError;
use crate::perform::{Purpose, UNPROVEN};
use crate::service::Orchestrator;

/// Longest note of a person, in characters: a few sentences.
///
/// Limit: note about an effect or a cause, in characters | refused, `INVALID` | `what_a_person_says_has_bounds`
pub const MAX_NOTE_CHARACTERS: usize = 1000;
/// Largest output that a person may state, in bytes of JSON. It is in every replay's memory.
///
/// Limit: output that a person states for an effect | refused, `INVALID` | `what_a_person_says_has_bounds`
pub const MAX_STATED_OUTPUT_BYTES: usize = 256 << 10;
/// How often a decision is offered again when the journal has moved on in between.
const TRIES: u32 = 3;

/// What a person says about an effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// It took place.
    Happened {
        /// What steps after it see as its output; null when left out.
        output: Option<Value>,
    },
    /// It did not take place.
    NotHappened,
    /// The provider is to be asked. What is found counts as having taken place; finding nothing decides nothing.
    Look,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The key of the effect.
    pub key: EffectKey,
    /// What is known now; `None` when the look found nothing.
    pub decided: Option<Decided>,
    /// What was found, in a sentence.
    pub message: String,
}

/// Which effect something is said about.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    /// The run whose journal takes it.
    pub(super) run: RunId,
    /// Path of the step.
    pub(super) step: &'a str,
    /// The effect. `None`: that of the step, or what an earlier run left open there.
    pub(super) key: Option<EffectKey>,
}

impl Orchestrator {
    /// Notes what became of the effect of a step of a run that is over. It is on disk when this returns; the next
    /// replay of the family goes by it.
    ///
    /// # Errors
    /// [`ControlError::NotFound`]: no such run. [`ControlError::NotResolvable`]: the step has no effect or its fate is
    /// known or hangs on another step, the run is not over, or the operation cannot be looked for.
    pub async fn effect_resolve(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        run: RunId,
        step: &str,
        said: (Resolution, String),
    ) -> Result<Resolved, ControlError> {
        let key = None;
        self.resolve_one(workspace, actor, Of { run, step, key }, said, &Purpose::default())
            .await
    }

    /// The same about a known effect of the step, or with another urgency.
    pub(super) async fn resolve_one(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        of: Of<'_>,
        (resolution, note): (Resolution, String),
        purpose: &Purpose,
    ) -> Result<Resolved, ControlError> {
        let Of { run, step, .. } = of;
        let (verdict, looked) = match resolution {
            Resolution::Happened { output } => {
                let output = output.map_or_else(Document::null, Document::from_value);
                (Verdict::Happened { output }, false)
            }
            Resolution::NotHappened => (Verdict::NotHappened, false),
            Resolution::Look => {
                let (family, key) = self.open_effect(workspace, of).await?;
                let intent = family.intent(key).ok_or(ControlError::NotFound)?;
                let first_sent_at = family
                    .ledger()
                    .get(&key)
                    .map_or(intent.first_sent_at, |record| record.first_sent_at);
                let row = &family.member(run).ok_or(ControlError::NotFound)?.row;
                match self.look(workspace, row, (intent, first_sent_at), purpose).await? {
                    Found::This(output) => (Verdict::Happened { output }, true),
                    Found::Nothing(message) => {
                        let decided = None;
                        return Ok(Resolved { key, decided, message });
                    }
                }
            }
        };
        // A replay that is being started must not be decided by what is about to change.
        let _one_at_a_time = self.core.replaying.lock().await;
        for _ in 0..TRIES {
            let (family, key) = self.open_effect(workspace, of).await?;
            let message = match (&verdict, looked) {
                (Verdict::Happened { .. }, true) => "the provider has it: it took place",
                (Verdict::Happened { .. }, false) if family.undoes(step) => {
                    "it counts as done; what was undone is done anew by the next retry"
                }
                (Verdict::Happened { .. }, false) => "it counts as done and is not sent again",
                (Verdict::NotHappened, _) if family.undoes(step) => {
                    "it counts as not done; it is sent when a run undoes the same again"
                }
                (Verdict::NotHappened, _) => "it counts as not done; the next retry sends it",
            };
            let decided = Decided {
                step: Arc::from(step),
                key,
                verdict: verdict.clone(),
                looked,
                by: Arc::from(actor.label()),
                note: Arc::from(note.as_str()),
                at: self.clock().now(),
            };
            match self.write_decision(workspace, actor, run, &family, decided).await {
                Ok(decided) => {
                    return Ok(Resolved {
                        key,
                        decided: Some(decided),
                        message: message.to_owned(),
                    });
                }
                Err(Refused::Stale) => {}
                Err(Refused::Other(error)) => return Err(error),
            }
        }
        Err(ControlError::Unavailable(format!(
            "others decide about {run} at the same time"
        )))
    }

    /// The family of a run, and the key of the effect of a step of it that a person may decide about.
    async fn open_effect(
        &self,
        workspace: WorkspaceId,
        Of { run, step, key }: Of<'_>,
    ) -> Result<(Family, EffectKey), ControlError> {
        let row = self.core.store.run_load(workspace, run).await?;
        let row = row.ok_or(ControlError::NotFound)?;
        let family = Family::load(&self.core, workspace, row.root_id).await?;
        let not_resolvable = |why: String| Err(ControlError::NotResolvable { why });
        if let Some(open) = family.open() {
            return not_resolvable(format!("{open} is not over yet"));
        }
        let member = family.member(run).ok_or(ControlError::NotFound)?;
        let told = || {
            let told = story(None, &[(0, row.started_at, member.entries.clone())], None);
            let told = told.into_iter().find(|told| told.path == step);
            Some(told?.effect?.key)
        };
        let ledger = family.ledger();
        // What an earlier run left open keeps this one from going on.
        let left = || {
            let mut open = ledger.iter().filter(|(_, record)| record.is_open());
            open.find(|(_, record)| &*record.step == step).map(|(key, _)| *key)
        };
        let key = key.or_else(told).or_else(left);
        let Some(key) = key else {
            return not_resolvable(format!("step `{step}` of {run} has no effect"));
        };
        match ledger.get(&key) {
            Some(record) if record.is_open() => Ok((family, key)),
            Some(EffectRecord { doubt: Some(doubt), .. }) => not_resolvable(format!(
                "it took place; what may have undone it is open: weir run resolve {} {}",
                doubt.run, doubt.step
            )),
            Some(record) => not_resolvable(format!("its fate is known: it is {}", record.state.as_str())),
            None => not_resolvable("it was never intended".to_owned()),
        }
    }

    /// Writes a decision behind the end of the run.
    async fn write_decision(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        run: RunId,
        family: &Family,
        decided: Decided,
    ) -> Result<Decided, Refused> {
        let ledger = family.ledger();
        let (Some(record), Some(member)) = (ledger.get(&decided.key), family.member(run)) else {
            return Err(Refused::Other(ControlError::NotFound));
        };
        if let Some(known) = record.decided.as_ref().filter(|known| known.verdict == decided.verdict) {
            // Said twice is said once.
            return Ok(known.clone());
        }
        let (step, verdict) = (&*decided.step, decided.verdict.as_str());
        let detail = json!({
            "step": step, "key": decided.key, "verdict": verdict, "looked": decided.looked, "note": &*decided.note,
            "operation": format!("{}.{}", record.connector, record.operation),
        });
        let entry = audit(
            &self.core,
            workspace,
            actor,
            decided.at,
            ("effect.resolve", run.to_string(), detail),
        );
        let operation = Operation {
            family: Some(family.expected()),
            journal: vec![RunCommit {
                run,
                seq: member.next_seq,
                journal: encode(&[Entry::Decided(decided.clone())], decided.at),
                update: None,
                mail: None,
                leaves: None,
            }],
            audit: vec![entry],
            ..Operation::default()
        };
        write(&self.core, operation).await?;
        tracing::info!(
            actor = %actor.name, run.id = %run, step, verdict,
            "effect of `{step}` in {run} decided by {}: {verdict}", actor.name
        );
        Ok(decided)
    }

    /// Asks the provider whether an effect took place. Sends nothing that changes anything.
    async fn look(
        &self,
        workspace: WorkspaceId,
        row: &RunRow,
        (intent, first_sent_at): (&Intent, Timestamp),
        purpose: &Purpose,
    ) -> Result<Found, ControlError> {
        let not_resolvable = |why: String| ControlError::NotResolvable { why };
        let EffectClass::FindBy { consistent, settle } = intent.class else {
            return Err(not_resolvable(format!(
                "{}.{} cannot be looked for (its class is {}); look at the provider yourself and say what you saw",
                intent.connector,
                intent.operation,
                intent.class.as_str()
            )));
        };
        let snapshot = self.snapshot();
        let version = snapshot
            .version(&self.core.store, workspace, row.workflow_id, row.version_id)
            .await?;
        let pins = &version.plan.resolution().pins;
        let connection = snapshot.connection_of(workspace, &intent.connection, pins);
        let connection = connection
            .ok_or_else(|| not_resolvable(format!("there is no connection named `{}` any more", intent.connection)))?;
        let command = CallCommand {
            call: CallId(0),
            step: intent.step.to_string(),
            attempt: 1,
            connection: intent.connection.to_string(),
            connector: intent.connector.to_string(),
            operation: intent.operation.to_string(),
            args: intent.args.clone(),
            args_at: String::new(),
            all_max: None,
            timeout: DEFAULT_CALL_TIMEOUT,
            class: intent.class,
            effect: Some(EffectCommand {
                key: intent.key,
                first_sent_at,
                mode: SendMode::LookOnly,
            }),
        };
        let result = self.core.performer.call(&connection, &command, purpose).await;
        let settle = if consistent { Duration::ZERO } else { settle };
        let settled_at = first_sent_at.plus(DEFAULT_CALL_TIMEOUT).plus(settle);
        match result.outcome {
            CallOutcome::Done { output } => Ok(Found::This(output)),
            CallOutcome::Failed(failure) if failure.code == UNPROVEN => {
                Ok(Found::Nothing(if self.clock().now() < settled_at {
                    format!("{}; look again after {settled_at}", failure.message)
                } else if consistent {
                    "it was looked for and not found, and this provider's search shows everything at once: it most \
                 probably did not take place"
                        .to_owned()
                } else {
                    failure.message
                }))
            }
            CallOutcome::Held(hold) => Err(not_resolvable(format!(
                "the provider cannot be asked now: {}",
                hold.reason
            ))),
            CallOutcome::Failed(failure) => Err(not_resolvable(format!(
                "the provider could not be asked: {}: {}",
                failure.code, failure.message
            ))),
        }
    }
}

/// What a look found.
enum Found {
    This(Document),
    /// With what that means.
    Nothing(String),
}
