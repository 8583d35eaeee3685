//! Dead letters: runs that failed and that nobody has taken care of, by their causes.
//!
//! Causes are found by jumping through the index from one to the next, and counted up to a limit: a million runs that
//! failed for one reason cost as much as ten thousand.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select};
use weir_workflow_engine::{RunId, Timestamp, WorkflowId, WorkspaceId};

use super::run::{Count, RunRow, row};
use super::{Store, page_limit, time};
use crate::entity::{dead_letter, dead_letter_mark, run};
use crate::error::ReadError;
use crate::operation::{CauseKey, CauseState};
use crate::page::Page;

/// Counting stops here.
const COUNT_LIMIT: u64 = 10_000;
/// Causes that are listed at once.
///
/// Limit: causes of dead letters in one list | the rest is listed when these are dealt with; the list says that there are more | `counts_stop_at_their_limit`
pub const MAX_CAUSES: usize = 200;

/// The dead letters with one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CauseRow {
    /// What tells it from the others.
    pub key: CauseKey,
    /// Where it stands.
    pub state: CauseState,
    /// How many runs.
    pub count: Count,
    /// Code of the failure.
    pub code: String,
    /// Path of the step, without the keys of items.
    pub step: Option<String>,
    /// The message, without ids and numbers.
    pub message: String,
    /// When the first of the runs failed.
    pub first_at: Timestamp,
    /// When the last of the runs failed.
    pub last_at: Timestamp,
    /// The last of the runs.
    pub sample: RunId,
    /// What a person noted about it.
    pub mark: Option<CauseMark>,
}

/// What a person noted about a cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CauseMark {
    /// What was said.
    pub state: CauseState,
    /// The last run that it is about, for what is resolved.
    pub up_to: RunId,
    /// Why.
    pub note: String,
    /// Who, as in the audit trail.
    pub actor: String,
    /// When.
    pub at: Timestamp,
}

impl Store {
    /// The causes of open dead letters, in the order of their keys, and whether there are more than
    /// [`MAX_CAUSES`]. With `workflow` only its own.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn cause_list(
        &self,
        workspace: WorkspaceId,
        workflow: Option<WorkflowId>,
    ) -> Result<(Vec<CauseRow>, bool), ReadError> {
        let mut causes = Vec::new();
        let mut after: Option<(i64, i64)> = None;
        loop {
            let mut next = open(workspace)
                .order_by_asc(dead_letter::Column::WorkflowId)
                .order_by_asc(dead_letter::Column::Cause)
                .limit(1);
            if let Some(workflow) = workflow {
                next = next.filter(dead_letter::Column::WorkflowId.eq(workflow.as_raw()));
            }
            if let Some((workflow, cause)) = after {
                // Written out: a comparison of rows is one jump in the index.
                next = next.filter(Expr::cust(format!("(workflow_id, cause) > ({workflow}, {cause})")));
            }
            let found = next
                .select_only()
                .column(dead_letter::Column::WorkflowId)
                .column(dead_letter::Column::Cause)
                .into_tuple::<(i64, i64)>()
                .one(&self.db)
                .await?;
            let Some((workflow, cause)) = found else {
                return Ok((causes, false));
            };
            if causes.len() >= MAX_CAUSES {
                return Ok((causes, true));
            }
            after = Some((workflow, cause));
            let key = CauseKey {
                workflow: WorkflowId::from_raw(workflow),
                cause,
            };
            causes.extend(self.cause_load(workspace, key).await?);
        }
    }

    /// The open dead letters with one cause. `None`: there are none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn cause_load(&self, workspace: WorkspaceId, key: CauseKey) -> Result<Option<CauseRow>, ReadError> {
        let mark = self.mark(workspace, key).await?;
        let all = of_cause(workspace, key);
        let last = all
            .clone()
            .order_by_desc(dead_letter::Column::RunId)
            .one(&self.db)
            .await?;
        let Some(last) = last else { return Ok(None) };
        // What was resolved is over; runs that failed since then make it open again.
        let floor = mark.as_ref().filter(|mark| mark.state == CauseState::Resolved);
        let floor = floor.map_or(0, |mark| mark.up_to.as_raw());
        let state = match mark.as_ref().map(|mark| mark.state) {
            Some(CauseState::Ignored) => CauseState::Ignored,
            Some(CauseState::Resolved) if last.run_id <= floor => CauseState::Resolved,
            Some(CauseState::Resolved | CauseState::Open) | None => CauseState::Open,
        };
        let floor = match state {
            CauseState::Open => floor,
            CauseState::Resolved | CauseState::Ignored => 0,
        };
        let counted = all.filter(dead_letter::Column::RunId.gt(floor));
        let first = counted.order_by_asc(dead_letter::Column::RunId).one(&self.db).await?;
        // The run that began last need not be the one that failed last.
        let first_at = first.map_or(last.failed_at, |first| first.failed_at);
        // Counted by the database: ten thousand entries of the index cost it a millisecond, and us the rows.
        let text = format!(
            "SELECT count(*) AS found FROM (SELECT 1 FROM dead_letter WHERE workspace_id = {} AND workflow_id = {} \
             AND cause = {} AND state = 0 AND run_id > {floor} LIMIT {}) AS counted",
            workspace.as_raw(),
            key.workflow.as_raw(),
            key.cause,
            COUNT_LIMIT + 1
        );
        let counted = self.query(&text).await?;
        let found: i64 = counted.map_or(Ok(0), |row| row.try_get("", "found"))?;
        let found = u64::try_from(found).unwrap_or(0);
        Ok(Some(CauseRow {
            key,
            state,
            count: Count {
                value: found.min(COUNT_LIMIT),
                at_least: found > COUNT_LIMIT,
            },
            code: last.code,
            step: last.step,
            message: last.message,
            first_at: time(first_at.min(last.failed_at)),
            last_at: time(first_at.max(last.failed_at)),
            sample: RunId::from_raw(last.run_id),
            mark,
        }))
    }

    async fn mark(&self, workspace: WorkspaceId, key: CauseKey) -> Result<Option<CauseMark>, ReadError> {
        let id = (workspace.as_raw(), key.workflow.as_raw(), key.cause);
        let Some(model) = dead_letter_mark::Entity::find_by_id(id).one(&self.db).await? else {
            return Ok(None);
        };
        let name = || format!("dead_letter_mark {}/{}", key.workflow, key.cause);
        Ok(Some(CauseMark {
            state: crate::codes::cause_state(model.state, name)?,
            up_to: RunId::from_raw(model.up_to),
            note: model.note,
            actor: model.actor,
            at: time(model.at),
        }))
    }

    /// A page of the dead letters with one cause, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn cause_runs(
        &self,
        workspace: WorkspaceId,
        key: CauseKey,
        before: Option<RunId>,
        limit: u32,
    ) -> Result<Page<RunRow, RunId>, ReadError> {
        let limit = page_limit(limit);
        let ids = of_cause(workspace, key)
            .filter(dead_letter::Column::RunId.lt(before.map_or(i64::MAX, RunId::as_raw)))
            .order_by_desc(dead_letter::Column::RunId)
            .limit(limit)
            .select_only()
            .column(dead_letter::Column::RunId)
            .into_tuple::<i64>()
            .all(&self.db)
            .await?;
        let full = u64::try_from(ids.len()).unwrap_or(u64::MAX) >= limit;
        let next = ids.last().filter(|_| full).map(|id| RunId::from_raw(*id));
        let runs = run::Entity::find()
            .filter(run::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(run::Column::Id.is_in(ids))
            .order_by_desc(run::Column::Id)
            .all(&self.db)
            .await?;
        Ok(Page {
            rows: runs.into_iter().map(row).collect::<Result<_, _>>()?,
            next,
        })
    }
}

/// The open ones. The state is written out instead of bound, so that the partial index is seen to fit.
fn open(workspace: WorkspaceId) -> Select<dead_letter::Entity> {
    dead_letter::Entity::find()
        .filter(dead_letter::Column::WorkspaceId.eq(workspace.as_raw()))
        .filter(Expr::cust("state = 0"))
}

fn of_cause(workspace: WorkspaceId, key: CauseKey) -> Select<dead_letter::Entity> {
    open(workspace)
        .filter(dead_letter::Column::WorkflowId.eq(key.workflow.as_raw()))
        .filter(dead_letter::Column::Cause.eq(key.cause))
}
