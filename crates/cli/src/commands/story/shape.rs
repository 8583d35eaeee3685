//! What the API says about runs: the fields that are asked for, and the values that come.

use super::waits::OpenWait;
use crate::commands::audit::Entry;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Fields of a run in a list.
pub(crate) const RUN_FIELDS: &str = "id status held keptLane { waiting } waitingFor { reason ahead heldBy { id } } waits { step stepName reason eventType key question by runId since until } mergedInto { id } startedAt finishedAt dueAt error { code step stepName } workflowName workflowDeleted replacedBy { id status } \
    event { id externalId type connectorName source receivedAt }";
/// Fields of a run's story, without bodies.
pub(crate) const STORY_FIELDS: &str = "id status held keptLane { waiting } waitingFor { reason ahead heldBy { id } } waits { step stepName reason eventType key question by runId since until } mergedInto { id } merged(first: 100) { id eventId externalId type receivedAt } mergedCount startedAt finishedAt dueAt error { code step stepName message } rootId replayOf { id } \
    workflowName workflowDeleted versionNumber replacedBy { id status } history { at actorName action detail } \
    event { id externalId type connectorName source receivedAt time account reference { type id } endpointName } \
    stepCount steps { path name kind label status startedAt finishedAt note effect { key class state decision { verdict looked by at note } } \
      attempts { number at durationMs outcome error nextAt exchanges { method url status durationMs error } } }";
/// The same with what was sent, answered and put out.
pub(crate) const STORY_FIELDS_WITH_BODIES: &str = "id status held keptLane { waiting } waitingFor { reason ahead key heldBy { id } } waits { step stepName reason eventType key question by runId since until } mergedInto { id } merged(first: 100) { id eventId externalId type receivedAt } mergedCount startedAt finishedAt dueAt error { code step stepName message } rootId replayOf { id } \
    workflowName workflowDeleted versionNumber replacedBy { id status } history { at actorName action detail } \
    event { id externalId type connectorName source receivedAt time account reference { type id } endpointName body { text size } } \
    stepCount steps { path name kind label status startedAt finishedAt note output effect { key class state decision { verdict looked by at note } } \
      attempts { number at durationMs outcome error nextAt \
        exchanges { method url status durationMs error requestBody responseBody } } }";

/// A run, in a list or with its story.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) held: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kept_lane: Option<KeptLane>,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
    pub(crate) due_at: Option<DateTime<Utc>>,
    pub(crate) error: Option<RunError>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replay_of: Option<RunName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) waiting_for: Option<WaitingFor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) waits: Vec<OpenWait>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) merged_into: Option<RunName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) merged: Vec<MergedRun>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) merged_count: usize,
    pub(crate) workflow_name: Option<String>,
    #[serde(default)]
    pub(crate) workflow_deleted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaced_by: Option<Replacement>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version_number: Option<u32>,
    pub(crate) event: Option<Event>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<Step>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) step_count: Option<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) history: Vec<Entry>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A lane that a failed run keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeptLane {
    waiting: u64,
}

/// What a run waits for before it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WaitingFor {
    pub(crate) reason: String,
    pub(crate) ahead: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    pub(crate) held_by: Option<RunName>,
}

impl WaitingFor {
    /// In a few words.
    pub(crate) fn tell(&self) -> String {
        if self.reason == "PAUSE" {
            let ahead = match self.ahead {
                0 => String::new(),
                ahead => format!(", {ahead} ahead"),
            };
            return format!("its workflow is paused{ahead}");
        }
        if self.reason == "WORKER" {
            return "waits for a worker: no server with the role `worker` is up".to_owned();
        }
        let mut text = format!("waits for its {}", self.reason.to_lowercase());
        if let Some(key) = &self.key {
            text.push_str(&format!(" {key:?}"));
        }
        match (&self.held_by, self.ahead) {
            (Some(run), _) => text.push_str(&format!(", held by {}", run.id)),
            (None, 0) => {}
            (None, ahead) => text.push_str(&format!(", {ahead} ahead")),
        }
        text
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunError {
    pub(crate) code: String,
    pub(crate) step: Option<String>,
    #[serde(default, rename = "stepName", skip_serializing_if = "Option::is_none")]
    pub(crate) step_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunName {
    pub(crate) id: String,
}

/// A run that repeats another one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Replacement {
    pub(crate) id: String,
    pub(crate) status: String,
}

/// A run that another one stands for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MergedRun {
    pub(crate) id: String,
    pub(crate) event_id: String,
    pub(crate) external_id: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) received_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) external_id: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) connector_name: String,
    pub(crate) source: String,
    pub(crate) received_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<Body>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reference {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) id: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) text: Option<String>,
    pub(crate) size: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    pub(crate) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) label: String,
    pub(crate) status: Option<String>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
    pub(crate) note: Option<String>,
    pub(crate) effect: Option<Effect>,
    pub(crate) attempts: Vec<Attempt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Effect {
    pub(crate) key: String,
    pub(crate) class: String,
    pub(crate) state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decision: Option<Decision>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Decision {
    pub(crate) verdict: String,
    pub(crate) looked: bool,
    pub(crate) by: String,
    pub(crate) at: DateTime<Utc>,
    pub(crate) note: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attempt {
    pub(crate) number: u32,
    pub(crate) at: DateTime<Utc>,
    pub(crate) duration_ms: u32,
    pub(crate) outcome: String,
    pub(crate) error: Option<String>,
    pub(crate) next_at: Option<DateTime<Utc>>,
    pub(crate) exchanges: Vec<Exchange>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exchange {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) status: Option<u16>,
    pub(crate) duration_ms: u32,
    pub(crate) error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) response_body: Option<String>,
}

impl RunError {
    /// The step that failed, as people read it.
    pub(crate) fn place(&self) -> Option<&str> {
        self.step_name.as_deref().or(self.step.as_deref())
    }
}

impl Step {
    /// Its path as people read it.
    pub(crate) fn told(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.path)
    }
}

impl Run {
    /// Name of its workflow.
    pub(crate) fn workflow_name(&self) -> String {
        let name = self.workflow_name.as_deref().unwrap_or("?");
        match self.workflow_deleted {
            true => format!("{name} (deleted)"),
            false => name.to_owned(),
        }
    }

    /// That nothing else of its lane begins because of it.
    pub(crate) fn kept(&self) -> Option<String> {
        let waiting = self.kept_lane.as_ref()?.waiting;
        let run = &self.id;
        Some(format!(
            "keeps its lane, {waiting} waiting behind it (weir run release {run})"
        ))
    }

    /// That another run has taken care of it since, or tried.
    pub(crate) fn replaced(&self) -> Option<String> {
        let by = self.replaced_by.as_ref()?;
        Some(format!("replayed by {}: {}", by.id, by.status.to_lowercase()))
    }

    /// Whether it will not change any more.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.status.as_str(), "SUCCEEDED" | "FAILED" | "CANCELED" | "MERGED")
    }

    /// Whether anything of it was ever begun, as far as its state tells.
    pub(crate) fn has_begun(&self) -> bool {
        let refused = |error: &RunError| {
            matches!(
                error.code.as_str(),
                "where_failed" | "flow_control_failed" | "lane_full"
            )
        };
        !matches!(self.status.as_str(), "QUEUED" | "MERGED") && !self.error.as_ref().is_some_and(refused)
    }

    /// Why it has not begun, and perhaps never will.
    pub(crate) fn not_begun(&self) -> Option<String> {
        let merged = self
            .merged_into
            .as_ref()
            .map(|run| format!("{} stands for its event", run.id));
        let waits = self.waiting_for.as_ref().map(WaitingFor::tell);
        let held = (self.held && self.status == "QUEUED").then(|| "paused until somebody resumes it".to_owned());
        merged.or_else(|| match (waits, held) {
            (Some(waits), Some(held)) => Some(format!("{waits}; {held}")),
            (waits, held) => waits.or(held),
        })
    }

    /// The step that waits, with its last try.
    pub(crate) fn waiting(&self) -> Option<(&Step, &Attempt)> {
        self.steps
            .iter()
            .filter_map(|step| Some((step, step.attempts.last()?)))
            .rfind(|(_, attempt)| attempt.next_at.is_some())
    }
}
