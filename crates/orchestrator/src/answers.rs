//! Answers to whoever sent an event: handed to the waiting caller, or fetched later at an address of their own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use weir_storage::{RowIdentity, RunRow, RunStatus};
use weir_workflow_engine::{
    ANSWER_STATUSES, Entry, EventId, JournalError, OWN, RESERVED_HEADERS, RunId, UNFIT_STATUS, WorkspaceId, decode,
};

use crate::control::ControlError;
use crate::driver::{ActiveRun, Refused};
use crate::ingest::Reply;
use crate::service::{Core, Orchestrator};

/// How many callers wait for an answer at once; the others get the address where it is going to be.
///
/// Limit: senders that wait for a `respond` at once | 202 with the address of the answer | `callers_beyond_the_bound_do_not_wait`
const MAX_WAITING_CALLERS: usize = 1000;
/// How soon a caller may ask again for an answer that is not there yet.
const ASK_AGAIN_S: u32 = 1;

/// Time between two looks for an answer, or an end without one, on disk.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// What a `respond` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// From the arguments of the step, and what of them cannot be sent: a status that is none is sent as 500, a header
    /// that no answer can carry is left out.
    pub(crate) fn of(args: &Value) -> (Self, Vec<String>) {
        let mut unfit = Vec::new();
        let status = match args.get("status") {
            Some(Value::String(text)) => text.parse().ok(),
            Some(number) => number.as_u64(),
            None => Some(200),
        };
        let status = status.and_then(|status| u16::try_from(status).ok());
        let status = status
            .filter(|status| ANSWER_STATUSES.contains(status))
            .unwrap_or_else(|| {
                unfit.push("status".to_owned());
                UNFIT_STATUS
            });
        let mut headers: Vec<(String, String)> = Vec::new();
        for (name, value) in args.get("headers").and_then(Value::as_object).into_iter().flatten() {
            let name = name.to_ascii_lowercase();
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let fits =
                http::HeaderName::from_bytes(name.as_bytes()).is_ok() && http::HeaderValue::from_str(&value).is_ok();
            if fits && !RESERVED_HEADERS.contains(&name.as_str()) {
                headers.push((name, value));
            } else {
                unfit.push(name);
            }
        }
        let (kind, body) = match args.get("body") {
            None | Some(Value::Null) => (None, Vec::new()),
            Some(Value::String(text)) => (Some("text/plain; charset=utf-8"), text.clone().into_bytes()),
            Some(other) => (Some("application/json"), other.to_string().into_bytes()),
        };
        if let Some(kind) = kind
            && !headers.iter().any(|(name, _)| name == "content-type")
        {
            headers.push(("content-type".to_owned(), kind.to_owned()));
        }
        // Whatever a workflow answers, it is no page of this server.
        headers.push(("content-security-policy".to_owned(), "sandbox".to_owned()));
        headers.push(("x-content-type-options".to_owned(), "nosniff".to_owned()));
        let answer = Self { status, headers, body };
        (answer, unfit)
    }

    fn into_reply(self) -> Reply {
        Reply {
            status: self.status,
            headers: self.headers,
            body: self.body,
        }
    }
}

/// The callers that wait for the answer of a run.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    waiting: Mutex<HashMap<RunId, oneshot::Sender<Answer>>>,
}

impl Callers {
    /// Hands an answer over; false when nobody waits (any more).
    pub(crate) fn answer(&self, run: RunId, answer: Answer) -> bool {
        let caller = self.lock().remove(&run);
        caller.is_some_and(|caller| caller.send(answer).is_ok())
    }

    /// Has a caller wait for the answer of a run; `None` when too many do.
    fn wait(&self, run: RunId) -> Option<oneshot::Receiver<Answer>> {
        let mut waiting = self.lock();
        if waiting.len() >= MAX_WAITING_CALLERS {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        waiting.insert(run, sender);
        Some(receiver)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first of the runs that an event starts which answers whoever sent it, and how long that one is kept waiting.
pub(crate) fn answering(started: &[ActiveRun]) -> Option<(&ActiveRun, Duration)> {
    let mut driven = started.iter().filter(|run| run.refused.is_none());
    driven.find_map(|run| Some((run, run.version.plan.responds_within()?)))
}

/// The answer that a journal tells of: that of the first `respond` whose intent is in it.
///
/// # Errors
/// A row cannot be read.
pub(crate) fn given(journal: &[(i32, Vec<u8>)]) -> Result<Option<Answer>, JournalError> {
    for (_, body) in journal {
        let (_, entries) = decode(body)?;
        let answer = entries.iter().find_map(|entry| match entry {
            Entry::Intended(intent) if &*intent.connector == OWN && &*intent.operation == "respond" => {
                Some(Answer::of(intent.args.value()).0)
            }
            _ => None,
        });
        if answer.is_some() {
            return Ok(answer);
        }
    }
    Ok(None)
}

/// A caller that is going to be answered by a run.
pub(crate) struct Caller {
    run: RunId,
    workspace: WorkspaceId,
    within: Duration,
    receiver: Option<oneshot::Receiver<Answer>>,
}

impl Caller {
    /// Of the first of these runs that answers, if any does.
    pub(crate) fn of(core: &Core, started: &[ActiveRun]) -> Option<Self> {
        let (run, within) = answering(started)?;
        let head = run.state.head();
        // Nobody knows when a paused workflow is resumed.
        let is_held = run.turn.as_ref().is_some_and(|turn| turn.is_held());
        Some(Self {
            run: head.id,
            workspace: head.workspace,
            within,
            receiver: if is_held { None } else { core.callers.wait(head.id) },
        })
    }

    /// The answer, or where it is going to be.
    pub(crate) async fn reply(self, core: &Core) -> Reply {
        let (run, workspace) = (self.run, self.workspace);
        if let Some(receiver) = self.receiver {
            let answered = async {
                tokio::select! {
                    Ok(answer) = receiver => Some(answer),
                    answer = recorded_soon(core, workspace, run) => answer,
                }
            };
            let answered = tokio::time::timeout(self.within, answered).await;
            core.callers.lock().remove(&run);
            if let Ok(Some(answer)) = answered {
                return answer.into_reply();
            }
        }
        later(core, workspace, run)
    }

    /// The event was not stored, or by another request: nobody is going to answer this one.
    pub(crate) fn give_up(self, core: &Core) {
        core.callers.lock().remove(&self.run);
    }
}

/// The answer of a run that this node does not drive (any more), once it is on disk; `None` when it ended without one.
async fn recorded_soon(core: &Core, workspace: WorkspaceId, run: RunId) -> Option<Answer> {
    loop {
        tokio::time::sleep(LOOK_PAUSE).await;
        if core.runs.is_active(run) {
            continue;
        }
        let Ok(Some(row)) = core.store.run_load(workspace, run).await else {
            continue;
        };
        match recorded(core, &row).await {
            Ok(Answered::Yes(answer)) => return Some(answer),
            Ok(Answered::Never { .. }) => return None,
            Ok(Answered::NotYet) | Err(_) => {}
        }
    }
}

fn later(core: &Core, workspace: WorkspaceId, run: RunId) -> Reply {
    let sealed = core
        .secrets
        .seal(&RowIdentity::answer(run), workspace.to_string().as_bytes());
    let url = format!("{}/answers/{run}.{}", core.settings.public_url, hex::encode(sealed));
    let body = json!({ "status": "accepted", "run": run.to_string(), "answer_url": url });
    Reply {
        status: 202,
        headers: vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("location".to_owned(), url),
            ("retry-after".to_owned(), ASK_AGAIN_S.to_string()),
        ],
        body: body.to_string().into_bytes(),
    }
}

/// What became of the answer of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It was given.
    Yes(Answer),
    /// The run is under way.
    NotYet,
    /// The run is over and gave none.
    Never {
        /// How it ended.
        status: &'static str,
    },
}

impl Orchestrator {
    /// The answer of the run that this token names. Tokens are handed to callers whose answer came late.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] for a token that is none of ours, or whose run is no longer stored.
    pub async fn answer(&self, token: &str) -> Result<Answered, ControlError> {
        let core = &self.core;
        let (run, sealed) = token.split_once('.').ok_or(ControlError::NotFound)?;
        let run: RunId = run.parse().map_err(|_malformed| ControlError::NotFound)?;
        let sealed = hex::decode(sealed).map_err(|_malformed| ControlError::NotFound)?;
        let opened = core.secrets.open(&RowIdentity::answer(run), &sealed);
        let workspace = opened.map_err(|_forged| ControlError::NotFound)?;
        let workspace = std::str::from_utf8(secrecy::ExposeSecret::expose_secret(&workspace)).ok();
        let workspace = workspace
            .and_then(|text| text.parse().ok())
            .ok_or(ControlError::NotFound)?;
        let row = core
            .store
            .run_load(workspace, run)
            .await?
            .ok_or(ControlError::NotFound)?;
        recorded(core, &row).await
    }
}

/// What the runs of an event that came before say: the answer to who sent it again.
pub(crate) async fn again(core: &Core, workspace: WorkspaceId, event: EventId) -> Result<Option<Reply>, ControlError> {
    let snapshot = core.snapshot.load_full();
    for run in core.store.event_runs(workspace, event).await? {
        // Nobody waited for those that never began.
        if run.replay_of.is_some() || Refused::is_at_the_door(run.error_code.as_deref()) {
            continue;
        }
        let version = snapshot
            .version(&core.store, workspace, run.workflow_id, run.version_id)
            .await?;
        if version.plan.responds_within().is_none() {
            continue;
        }
        return Ok(Some(match recorded(core, &run).await? {
            Answered::Yes(answer) => answer.into_reply(),
            Answered::NotYet | Answered::Never { .. } => later(core, workspace, run.id),
        }));
    }
    Ok(None)
}

async fn recorded(core: &Core, run: &RunRow) -> Result<Answered, ControlError> {
    let journal = core.store.journal_load(run.workspace, run.id).await?;
    if let Some(answer) = given(&journal).map_err(|error| ControlError::Unavailable(error.to_string()))? {
        return Ok(Answered::Yes(answer));
    }
    Ok(match run.status {
        RunStatus::Queued | RunStatus::Paused | RunStatus::Running | RunStatus::Waiting => Answered::NotYet,
        RunStatus::Succeeded => Answered::Never { status: "succeeded" },
        RunStatus::Failed => Answered::Never { status: "failed" },
        RunStatus::Canceled => Answered::Never { status: "canceled" },
        RunStatus::Merged => Answered::Never { status: "merged" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_beyond_the_bound_do_not_wait() {
        let callers = Callers::default();
        let run = |number: usize| RunId::from_raw(i64::try_from(number).unwrap());
        let waiting: Vec<_> = (0..MAX_WAITING_CALLERS)
            .map(|number| callers.wait(run(number)))
            .collect();
        assert!(waiting.iter().all(Option::is_some));
        assert!(callers.wait(run(MAX_WAITING_CALLERS)).is_none());
        callers.lock().remove(&run(7));
        assert!(
            callers.wait(run(MAX_WAITING_CALLERS)).is_some(),
            "one place is free again"
        );
    }
}
