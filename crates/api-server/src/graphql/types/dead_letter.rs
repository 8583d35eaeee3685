//! Dead letters by their causes.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::paging::{Listing, Page};
use super::super::scalars::{DateTime, Long};
use super::run::{self, Run};
use super::step::told;
use super::workflow::WorkflowVersion;
use crate::auth::Permission;
use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use weir_storage::{CauseKey, CauseRow, CauseState};
use weir_workflow_engine::{RunId, WorkflowId, decode, status_at_fault};

/// What the ids of causes begin with.
const PREFIX: &str = "cause_";

/// The cause that an id names.
pub(crate) fn cause_key(id: &ID) -> Option<CauseKey> {
    let (workflow, cause) = id.strip_prefix(PREFIX)?.split_once('_')?;
    let cause = u64::from_str_radix(cause, 16).ok().filter(|_| cause.len() == 16)?;
    let workflow: WorkflowId = format!("{}{workflow}", WorkflowId::PREFIX).parse().ok()?;
    Some(CauseKey {
        workflow,
        cause: i64::from_be_bytes(cause.to_be_bytes()),
    })
}

fn cause_id(key: CauseKey) -> ID {
    let workflow = key.workflow.to_string();
    let workflow = workflow.strip_prefix(WorkflowId::PREFIX).unwrap_or(&workflow);
    format!(
        "{PREFIX}{workflow}_{:016x}",
        u64::from_be_bytes(key.cause.to_be_bytes())
    )
    .into()
}

/// Reads one cause.
pub(crate) async fn load(ctx: &Context<'_>, key: CauseKey) -> ApiResult<Option<DeadLetterCause>> {
    let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
    let found = store.cause_load(workspace, key).await;
    let found = found.map_err(|error| ApiError::internal("reading dead letters", &error))?;
    Ok(found.map(DeadLetterCause))
}

/// Dead letters that failed for one reason: of one workflow, at one step, under one code, with one message.
#[derive(Debug)]
pub(crate) struct DeadLetterCause(pub(crate) CauseRow);

/// Dead letters that failed for one reason: of one workflow, at one step, under one code, with one message. A run that
/// is retried is none any more; its retry is, if it fails.
#[Object]
impl DeadLetterCause {
    /// Its id, for `deadLetterMark` and the filter of `bulkReplay`.
    async fn id(&self) -> ID {
        cause_id(self.0.key)
    }

    /// Where it stands.
    async fn state(&self) -> DeadLetterState {
        self.0.state.into()
    }

    /// Name of the workflow, also of one that was deleted.
    async fn workflow_name(&self, ctx: &Context<'_>) -> ApiResult<Option<String>> {
        let caller = Caller::of(ctx);
        let workspace = caller.principal().workspace;
        let snapshot = caller.any().snapshot();
        if let Some(workflow) = snapshot.workflow_by_id(workspace, self.0.key.workflow) {
            return Ok(Some(workflow.row.name.clone()));
        }
        let (store, workspace) = caller.read(Permission::RunRead)?;
        let versions = store.version_page(workspace, self.0.key.workflow, None, 1).await;
        let versions = versions.map_err(|error| ApiError::internal("reading a workflow version", &error))?;
        let last = versions.rows.into_iter().next().map(WorkflowVersion::from);
        Ok(last.and_then(|version| version.workflow_name()))
    }

    /// Path of the step at fault, without the keys of items. Null: the run as a whole.
    async fn step(&self) -> Option<&str> {
        self.0.step.as_deref()
    }

    /// Code of the failure.
    async fn code(&self) -> &str {
        &self.0.code
    }

    /// HTTP status of the answer that made the last of them fail. Null: no answer came, or no call was at fault.
    async fn http_status(&self, ctx: &Context<'_>) -> ApiResult<Option<u16>> {
        let Some(step) = self.0.step.as_deref() else {
            return Ok(None);
        };
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let rows = store.journal_load(workspace, self.0.sample).await;
        let rows = rows.map_err(|error| ApiError::internal("reading dead letters", &error))?;
        // What cannot be read tells no status; the run itself says why.
        let read = rows.iter().filter_map(|(_, body)| decode(body).ok());
        let entries: Vec<_> = read.flat_map(|(_, entries)| entries).collect();
        Ok(status_at_fault(&entries, step))
    }

    /// Its message, without ids, numbers and quoted values. Null without `PAYLOAD_READ`: what a provider answered and what
    /// a `stop` says stands in it.
    async fn message(&self, ctx: &Context<'_>) -> Option<String> {
        told(ctx, &self.0.message)
    }

    /// How many runs; counted up to 10,000.
    async fn count(&self) -> Long {
        Long(self.0.count.value)
    }

    /// Whether there are more than `count`.
    async fn count_is_least(&self) -> bool {
        self.0.count.at_least
    }

    /// When the first of them failed.
    async fn first_at(&self) -> DateTime {
        DateTime(self.0.first_at)
    }

    /// When the last of them failed.
    async fn last_at(&self) -> DateTime {
        DateTime(self.0.last_at)
    }

    /// The last of them. Null: it is no longer kept.
    async fn sample(&self, ctx: &Context<'_>) -> ApiResult<Option<Run>> {
        run::load(ctx, self.0.sample).await
    }

    /// What a person noted about it.
    async fn mark(&self) -> Option<DeadLetterNote> {
        let mark = self.0.mark.as_ref()?;
        Some(DeadLetterNote {
            state: mark.state.into(),
            note: Some(mark.note.clone()).filter(|note| !note.is_empty()),
            by: mark.actor.clone(),
            at: DateTime(mark.at),
        })
    }

    /// The runs, newest first.
    async fn runs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many, 1 to 100; 25 when left out.")] first: Option<i32>,
        #[graphql(desc = "`pageInfo.endCursor` of the page before.")] after: Option<String>,
    ) -> ApiResult<Page<Run>> {
        let listing = Listing::new("cause", &format!("{:?}", self.0.key));
        let (limit, before) = (
            Listing::limit(first)?,
            listing.after(after.as_deref())?.map(RunId::from_raw),
        );
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let rows = store.cause_runs(workspace, self.0.key, before, limit).await;
        let rows = rows.map_err(|error| ApiError::internal("reading dead letters", &error))?;
        Ok(listing.page(rows, RunId::as_raw, Run::from_row))
    }
}

/// What a person noted about dead letters.
#[derive(Debug, SimpleObject)]
pub(crate) struct DeadLetterNote {
    /// What was noted.
    state: DeadLetterState,
    /// Why.
    note: Option<String>,
    /// Who: `token:` and the token's id, or the name of the bootstrap token.
    by: String,
    /// When.
    at: DateTime,
}

/// Where dead letters with one cause stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum DeadLetterState {
    /// They want a person.
    Open,
    /// Taken care of; none has failed for this cause since.
    Resolved,
    /// Nobody has to take care of them.
    Ignored,
}

impl From<CauseState> for DeadLetterState {
    fn from(state: CauseState) -> Self {
        match state {
            CauseState::Open => DeadLetterState::Open,
            CauseState::Resolved => DeadLetterState::Resolved,
            CauseState::Ignored => DeadLetterState::Ignored,
        }
    }
}

/// The causes of dead letters.
#[derive(Debug, SimpleObject)]
pub(crate) struct DeadLetterCauses {
    /// The causes, the last failed first; at most 200.
    pub(crate) nodes: Vec<DeadLetterCause>,
    /// Whether there are more causes than one answer holds.
    pub(crate) more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_causes_are_read_back() {
        for cause in [0, 1, -1, i64::MIN, i64::MAX] {
            let key = CauseKey {
                workflow: WorkflowId::from_raw(77),
                cause,
            };
            assert_eq!(cause_key(&cause_id(key)), Some(key));
        }
        for wrong in ["", "cause_", "cause_x_y", "run_0000000000001", "cause_0000000000001_1"] {
            assert_eq!(cause_key(&wrong.into()), None, "{wrong}");
        }
    }
}
