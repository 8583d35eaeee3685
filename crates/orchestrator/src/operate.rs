//! What people ask of open runs: end them, hold them, let them go on, decide for them.
//!
//! Each request is a piece of mail for the run: on disk when it is answered, and taken in by whichever node owns the
//! run, now or after a crash.

use serde_json::Value;
use weir_storage::{ApprovalRow, AuditEntry, Fact, FactOutcome, ReadError, Request, RequestOutcome, RunStatus};
use weir_workflow_engine::{Entry, RunId, StoryStep, WorkspaceId, decode};

use crate::configure::Actor;
use crate::control::ControlError;
use crate::mail::Asked;
use crate::service::Orchestrator;

/// The longest reason or note in bytes: it stands in the journal.
///
/// Limit: reason or note of a request or decision | refused, `INVALID` | `inputs_stop_at_their_bounds`
pub const MAX_NOTE_BYTES: usize = 4096;

/// Why a request was not left with a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No such run in this workspace.
    #[error("there is no such run")]
    NotFound,
    /// The run has ended.
    #[error("the run has ended: {}", .status.as_str())]
    NotOpen {
        /// How.
        status: RunStatus,
    },
    /// Nobody holds the run, so there is nothing to let go on.
    #[error("the run is not paused: it is {}", .status.as_str())]
    NotPaused {
        /// Where it stands.
        status: RunStatus,
    },
    /// The step does not ask for a decision (any more).
    #[error(
        "the step does not ask for a decision: there is no such step, somebody decided already, or it waits no longer"
    )]
    NotAsked,
    /// Nothing waits for its next try.
    #[error("nothing in it waits for its next try: {why}")]
    NothingWaits {
        /// What it is at instead.
        why: String,
    },
    /// The decision is for others.
    #[error("only {} may decide this", by.join(", "))]
    NotYours {
        /// Who.
        by: Vec<String>,
    },
    /// A reason or note is too long.
    #[error("the text has {bytes} bytes, at most {limit} are kept")]
    NoteTooLong {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The database cannot be read or written now; try again later.
    #[error("{0}")]
    Unavailable(String),
}

impl From<ReadError> for AskError {
    fn from(error: ReadError) -> Self {
        AskError::Unavailable(error.to_string())
    }
}

/// A decision that a person is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Its row.
    pub row: ApprovalRow,
    /// What belongs to the question.
    pub detail: Value,
    /// Who may decide; anybody who may decide at all when it is empty.
    pub by: Vec<String>,
}

impl Approval {
    /// From its row.
    pub fn from_row(row: ApprovalRow) -> Self {
        let mut parts: Value = serde_json::from_str(&row.detail).unwrap_or_default();
        let by = parts.get("by").and_then(Value::as_array);
        let by = by
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let detail = parts.get_mut("detail").map(Value::take).unwrap_or_default();
        Self { row, detail, by }
    }
}

impl Orchestrator {
    /// Asks an open run to end: nothing new is begun, effects that are on their way are waited for.
    ///
    /// # Errors
    /// [`AskError::NotFound`], or [`AskError::NotOpen`] when it has ended.
    pub async fn run_cancel(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        run: RunId,
        reason: &str,
    ) -> Result<(), AskError> {
        let asked = Asked::Cancel {
            by: actor.label(),
            reason: note(reason)?,
        };
        self.ask(workspace, actor, run, "run.cancel", asked, None).await
    }

    /// Has an open run stand still: nothing new is begun, and its time limits stand still with it.
    ///
    /// # Errors
    /// As [`Orchestrator::run_cancel`].
    pub async fn run_pause(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        run: RunId,
        reason: &str,
    ) -> Result<(), AskError> {
        let asked = Asked::Pause {
            by: actor.label(),
            reason: note(reason)?,
        };
        self.ask(workspace, actor, run, "run.pause", asked, None).await
    }

    /// Lets a run go on that stands still, or is about to.
    ///
    /// # Errors
    /// [`AskError::NotPaused`] when nobody holds it, otherwise as [`Orchestrator::run_cancel`].
    pub async fn run_resume(&self, workspace: WorkspaceId, actor: &Actor, run: RunId) -> Result<(), AskError> {
        let row = self.core.store.run_load(workspace, run).await?;
        let status = row.ok_or(AskError::NotFound)?.status;
        if status.is_open() && status != RunStatus::Paused && !self.is_held(workspace, run).await? {
            return Err(AskError::NotPaused { status });
        }
        let asked = Asked::Resume { by: actor.label() };
        self.ask(workspace, actor, run, "run.resume", asked, None).await
    }

    /// Has the calls of a run that wait for their next tries make them now, or as early as they may: a look for an effect
    /// that may be under way waits until that is sure to be over. A `sleep` goes on.
    ///
    /// # Errors
    /// [`AskError::NothingWaits`]; otherwise as [`Orchestrator::run_cancel`].
    pub async fn run_wake(&self, workspace: WorkspaceId, actor: &Actor, run: RunId) -> Result<(), AskError> {
        let unavailable = |error: ControlError| AskError::Unavailable(error.to_string());
        let story = self.run_story(workspace, run).await.map_err(unavailable)?;
        let story = story.ok_or(AskError::NotFound)?;
        let status = story.run.status;
        if !status.is_open() {
            return Err(AskError::NotOpen { status });
        }
        let waits = |step: &StoryStep| {
            step.status == "waiting" && step.attempts.last().is_some_and(|last| last.next_at.is_some())
        };
        if !story.steps.iter().any(waits) {
            let sleeps = story
                .steps
                .iter()
                .any(|step| step.kind == "sleep" && step.status == "waiting");
            let held = story
                .steps
                .iter()
                .find_map(|step| Some((&step.name, step.hold.as_ref()?, step.note.as_deref()?)));
            let why = match status {
                RunStatus::Queued => "it waits for its turn to begin".to_owned(),
                _ if let Some((step, hold, reason)) = held => format!(
                    "`{step}` waits until its connection may send, and is offered again by itself at {}: {reason}",
                    hold.until
                ),
                RunStatus::Waiting if sleeps => "it sleeps, and a `sleep` is a promise of the workflow".to_owned(),
                _ => format!("it is {}", status.as_str()),
            };
            return Err(AskError::NothingWaits { why });
        }
        let asked = Asked::Hurry { by: actor.label() };
        self.ask(workspace, actor, run, "run.wake", asked, None).await
    }

    /// Decides for or against what an `approve` asks. The first decision counts.
    ///
    /// # Errors
    /// [`AskError::NotAsked`] when the step does not ask (any more), [`AskError::NotYours`] when others are to
    /// decide.
    pub async fn decide(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        (run, step): (RunId, &str),
        approved: bool,
        text: &str,
    ) -> Result<(), AskError> {
        let found = self.core.store.approval_load(workspace, run, step).await?;
        let asked = match found.map(Approval::from_row) {
            Some(asked) => asked,
            None => self.asked_by_name(workspace, run, step).await?,
        };
        let step = asked.row.step.clone();
        if !asked.by.is_empty() && !asked.by.contains(&actor.name) {
            return Err(AskError::NotYours { by: asked.by });
        }
        let decision = Asked::Decision {
            step: step.clone(),
            approved,
            by: actor.name.clone(),
            note: note(text)?,
        };
        let action = if approved {
            "approval.approve"
        } else {
            "approval.reject"
        };
        self.ask(workspace, actor, run, action, decision, Some(step)).await
    }

    /// The question that a run asks in the step that people call `name` ([`weir_workflow_engine::StepNames`]).
    async fn asked_by_name(&self, workspace: WorkspaceId, run: RunId, name: &str) -> Result<Approval, AskError> {
        let row = self.core.store.run_load(workspace, run).await?;
        row.ok_or(AskError::NotFound)?;
        if !name.contains('[') {
            return Err(AskError::NotAsked);
        }
        let names = self.step_names(workspace, run).await;
        let names = names.map_err(|error| AskError::Unavailable(error.to_string()))?;
        // All questions of one run stand on one page.
        let above = RunId::from_raw(run.as_raw().saturating_add(1));
        let page = self.core.store.approval_page(workspace, Some(above), 1).await?;
        let asked = page
            .rows
            .into_iter()
            .find(|asked| asked.run == run && names.name(&asked.step) == name);
        asked.map(Approval::from_row).ok_or(AskError::NotAsked)
    }

    /// Whether somebody asked this open run to stand still, and nobody since to go on. Its row tells that only when it
    /// stands: calls under way come back first, and one that waits for its turn keeps its state.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn is_held(&self, workspace: WorkspaceId, run: RunId) -> Result<bool, ReadError> {
        // The mail first: what is taken in between is in the journal then.
        let inbox = self.core.store.mail_of(&[run]).await?;
        let asked = inbox.get(&run).into_iter().flatten();
        let asked = asked.filter_map(|mail| serde_json::from_str(mail.body.as_deref()?).ok());
        let mut asked = asked.filter_map(|asked: Asked| match asked {
            Asked::Pause { .. } => Some(true),
            Asked::Resume { .. } => Some(false),
            Asked::Cancel { .. } | Asked::Decision { .. } | Asked::Hurry { .. } => None,
        });
        if let Some(held) = asked.next_back() {
            return Ok(held);
        }
        let mut held = false;
        for (_, body) in self.core.store.journal_load(workspace, run).await? {
            let Ok((_, entries)) = decode(&body) else {
                // Nobody knows, and to let it go on does no harm.
                return Ok(true);
            };
            for entry in entries {
                match entry {
                    Entry::Paused(_) => held = true,
                    Entry::Resumed(_) => held = false,
                    _ => {}
                }
            }
        }
        Ok(held)
    }

    async fn ask(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        run: RunId,
        action: &str,
        asked: Asked,
        answers: Option<String>,
    ) -> Result<(), AskError> {
        let now = self.clock().now();
        let body = asked.to_body();
        let request = Request {
            id: self.core.new_id(now),
            workspace,
            run,
            body: body.clone(),
            at: now,
            answers,
            audit: Some(AuditEntry {
                id: self.core.new_id(now),
                workspace,
                at: now,
                actor: actor.label(),
                action: action.to_owned(),
                subject: run.to_string(),
                client_ip: None,
                request_id: None,
                detail: body,
            }),
        };
        let pending = self
            .writer()
            .submit(Fact::Request(request))
            .map_err(|full| AskError::Unavailable(full.to_string()))?;
        match pending.await {
            Ok(FactOutcome::Request(RequestOutcome::Delivered)) => {
                tracing::info!(actor = %actor.name, run.id = %run, action, "{action} of {run} asked by {}", actor.name);
                Ok(())
            }
            Ok(FactOutcome::Request(RequestOutcome::NotAsked)) => Err(AskError::NotAsked),
            Ok(FactOutcome::Request(RequestOutcome::NotOpen)) => {
                match self.core.store.run_load(workspace, run).await? {
                    Some(row) => Err(AskError::NotOpen { status: row.status }),
                    None => Err(AskError::NotFound),
                }
            }
            Ok(other) => Err(AskError::Unavailable(format!("the writer answered with {other:?}"))),
            Err(error) => Err(AskError::Unavailable(error.to_string())),
        }
    }
}

fn note(text: &str) -> Result<String, AskError> {
    if text.len() > MAX_NOTE_BYTES {
        return Err(AskError::NoteTooLong {
            bytes: text.len(),
            limit: MAX_NOTE_BYTES,
        });
    }
    Ok(crate::runner::storable(text))
}
