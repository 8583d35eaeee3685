//! Operations on many runs: which runs a filter means, and how far an operation is.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use weir_workflow_engine::{BulkId, RunId, Timestamp, WorkflowId, WorkspaceId};

use super::run::{RunRow, has_status, row};
use super::{Store, first_id_at, optional_time, page_limit, time};
use crate::codes;
use crate::database::DatabaseKind;
use crate::entity::{bulk, bulk_item, run};
use crate::error::ReadError;
use crate::fact::RunStatus;
use crate::node::NodeIdentity;
use crate::operation::{BulkItemState, BulkRow, CauseKey};
use crate::page::Page;
use crate::writer::Dialect;

/// Whether an operation is about runs that are over or about open ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectedRuns {
    /// Those that are over with this status, and only the last of each family: what was replayed since is the business
    /// of its replay.
    Ended(RunStatus),
    /// Open ones.
    Open {
        /// With one of these statuses.
        statuses: Vec<RunStatus>,
        /// No later ones than this; `None` = any.
        up_to: Option<RunId>,
    },
}

/// Which runs an operation is about; `None` = any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSelection {
    /// Over or open, and how.
    pub runs: SelectedRuns,
    /// Of this workflow.
    pub workflow: Option<WorkflowId>,
    /// That failed with this code.
    pub error_code: Option<String>,
    /// That failed at this step.
    pub error_step: Option<String>,
    /// That are open dead letters with this cause.
    pub cause: Option<CauseKey>,
    /// That started at this time or later.
    pub since: Option<Timestamp>,
    /// That started before this time.
    pub until: Option<Timestamp>,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkCounts {
    /// Runs whose turn has not come.
    pub pending: u64,
    /// Runs whose replay was started, or that were asked.
    pub started: u64,
    /// Runs that were left out.
    pub skipped: u64,
}

/// One run of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkItemRow {
    /// The run.
    pub run: RunId,
    /// What was shown for it.
    pub confirm: String,
    /// Where it stands.
    pub state: BulkItemState,
    /// Its replay.
    pub started: Option<RunId>,
    /// Why it was left out.
    pub reason: Option<String>,
}

impl Store {
    /// The runs that a selection means, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_select(
        &self,
        workspace: WorkspaceId,
        selection: &RunSelection,
        limit: u32,
    ) -> Result<Vec<RunRow>, ReadError> {
        let mut runs = run::Entity::find()
            .filter(run::Column::WorkspaceId.eq(workspace.as_raw()))
            .order_by_asc(run::Column::Id)
            .limit(u64::from(limit));
        match &selection.runs {
            SelectedRuns::Ended(status) => {
                runs = runs.filter(has_status(*status)).filter(Expr::cust(
                    "NOT EXISTS (SELECT 1 FROM run AS later WHERE later.root_id = run.root_id AND later.replay_of IS NOT NULL AND later.id > run.id)",
                ));
            }
            SelectedRuns::Open { statuses, up_to } => {
                let any = statuses
                    .iter()
                    .fold(Condition::any(), |any, status| any.add(has_status(*status)));
                runs = runs.filter(any).filter(Expr::cust("status < 2"));
                if let Some(last) = up_to {
                    runs = runs.filter(run::Column::Id.lte(last.as_raw()));
                }
            }
        }
        if let Some(workflow) = selection.workflow {
            runs = runs.filter(run::Column::WorkflowId.eq(workflow.as_raw()));
        }
        if let Some(code) = &selection.error_code {
            runs = runs.filter(run::Column::ErrorCode.eq(code.as_str()));
        }
        if let Some(step) = &selection.error_step {
            runs = runs.filter(run::Column::ErrorStep.eq(step.as_str()));
        }
        if let Some(key) = selection.cause {
            runs = runs.filter(Expr::cust(format!(
                "run.id IN (SELECT run_id FROM dead_letter WHERE workspace_id = {} AND workflow_id = {} AND cause = {} AND state = 0)",
                workspace.as_raw(),
                key.workflow.as_raw(),
                key.cause
            )));
        }
        if let Some(since) = selection.since {
            runs = runs.filter(run::Column::Id.gte(first_id_at(since)));
        }
        if let Some(until) = selection.until {
            runs = runs.filter(run::Column::Id.lt(first_id_at(until)));
        }
        runs.all(&self.db).await?.into_iter().map(row).collect()
    }

    /// An operation.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn bulk_load(&self, workspace: WorkspaceId, id: BulkId) -> Result<Option<BulkRow>, ReadError> {
        let found = bulk::Entity::find_by_id(id.as_raw()).filter(bulk::Column::WorkspaceId.eq(workspace.as_raw()));
        found.one(&self.db).await?.map(bulk_row).transpose()
    }

    /// A page of operations, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn bulk_page(
        &self,
        workspace: WorkspaceId,
        before: Option<BulkId>,
        limit: u32,
    ) -> Result<Page<BulkRow, BulkId>, ReadError> {
        let limit = page_limit(limit);
        let rows = bulk::Entity::find()
            .filter(bulk::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(bulk::Column::Id.lt(before.map_or(i64::MAX, BulkId::as_raw)))
            .order_by_desc(bulk::Column::Id)
            .limit(limit)
            .all(&self.db)
            .await?;
        let full = u64::try_from(rows.len()).unwrap_or(u64::MAX) >= limit;
        let rows: Vec<BulkRow> = rows.into_iter().map(bulk_row).collect::<Result<_, _>>()?;
        let next = rows.last().filter(|_| full).map(|row| row.id);
        Ok(Page { rows, next })
    }

    /// How many runs of an operation stand where.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn bulk_counts(&self, id: BulkId) -> Result<BulkCounts, ReadError> {
        let states = bulk_item::Entity::find()
            .filter(bulk_item::Column::BulkId.eq(id.as_raw()))
            .select_only()
            .column(bulk_item::Column::State)
            .into_tuple::<i16>()
            .all(&self.db)
            .await?;
        let mut counts = BulkCounts::default();
        for state in states {
            match codes::bulk_item_state(state, || format!("bulk {id}"))? {
                BulkItemState::Pending => counts.pending += 1,
                BulkItemState::Started => counts.started += 1,
                BulkItemState::Skipped => counts.skipped += 1,
            }
        }
        Ok(counts)
    }

    /// Runs of an operation in the order of their ids, after the given one; with `state` only those.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn bulk_items(
        &self,
        id: BulkId,
        state: Option<BulkItemState>,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<BulkItemRow>, ReadError> {
        let mut items = bulk_item::Entity::find()
            .filter(bulk_item::Column::BulkId.eq(id.as_raw()))
            .filter(bulk_item::Column::RunId.gt(after.map_or(0, RunId::as_raw)))
            .order_by_asc(bulk_item::Column::RunId)
            .limit(page_limit(limit));
        if let Some(state) = state {
            // Written out instead of bound, so that the partial index is seen to fit.
            items = items.filter(Expr::cust(format!("state = {}", codes::bulk_item_state_code(state))));
        }
        let item = |model: bulk_item::Model| {
            Ok(BulkItemRow {
                run: RunId::from_raw(model.run_id),
                confirm: model.confirm,
                state: codes::bulk_item_state(model.state, || format!("bulk {id}"))?,
                started: model.started_run.map(RunId::from_raw),
                reason: model.reason,
            })
        };
        items.all(&self.db).await?.into_iter().map(item).collect()
    }

    /// Operations that are not through and that this node has to go on with: its own, and those of nodes that are
    /// gone. Over all tenants, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn bulk_open(&self, node: &NodeIdentity) -> Result<Vec<BulkRow>, ReadError> {
        let over = match self.kind {
            DatabaseKind::Sqlite => Dialect::Sqlite,
            DatabaseKind::Postgres => Dialect::Postgres,
        }
        .lease_over("lease_until");
        let orphaned = format!(
            "(owner = {} OR owner NOT IN (SELECT slot FROM node WHERE incarnation <> 0 AND NOT {over}))",
            node.slot
        );
        let open = bulk::Entity::find()
            .filter(Expr::cust("status = 0"))
            .filter(Expr::cust(orphaned))
            .order_by_asc(bulk::Column::Id);
        open.all(&self.db).await?.into_iter().map(bulk_row).collect()
    }
}

fn bulk_row(model: bulk::Model) -> Result<BulkRow, ReadError> {
    let id = BulkId::from_raw(model.id);
    Ok(BulkRow {
        id,
        workspace: WorkspaceId::from_raw(model.workspace_id),
        status: codes::bulk_status(model.status, || format!("bulk {id}"))?,
        actor: model.actor,
        filter: model.filter,
        options: model.options,
        total: u32::try_from(model.total).unwrap_or_default(),
        created_at: time(model.created_at),
        finished_at: optional_time(model.finished_at),
    })
}
