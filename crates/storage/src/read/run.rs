//! Runs as the lists show them.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select};
use weir_workflow_engine::{EventId, RunId, Timestamp, VersionId, WorkflowId, WorkspaceId};

use super::event::run_ids;
use super::{SCAN_ROWS, Store, first_id_at, optional_time, page_limit, time};
use crate::codes;
use crate::entity::{event, run};
use crate::error::ReadError;
use crate::fact::RunStatus;
use crate::page::Page;

/// Counting stops here.
const COUNT_LIMIT: u64 = 10_000;
/// Replays of one event that are listed.
const FAMILY_LIMIT: u64 = 1000;

/// A run's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// The first run of its family.
    pub root_id: RunId,
    /// The run that it repeats.
    pub replay_of: Option<RunId>,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The event it works on.
    pub event_id: EventId,
    /// Its workflow.
    pub workflow_id: WorkflowId,
    /// The version it is pinned to.
    pub version_id: VersionId,
    /// Slot of the node that has it, or had it last.
    pub owner: u16,
    /// Where it stands.
    pub status: RunStatus,
    /// When it started.
    pub started_at: Timestamp,
    /// When it wants to be woken.
    pub due_at: Option<Timestamp>,
    /// When it finished.
    pub finished_at: Option<Timestamp>,
    /// Why it failed.
    pub error_code: Option<String>,
    /// The step that failed.
    pub error_step: Option<String>,
}

/// Which runs a page shows; `None` = any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// With this status.
    pub status: Option<RunStatus>,
    /// Of this workflow.
    pub workflow: Option<WorkflowId>,
    /// Whether only failed runs with effects of unknown result are shown.
    pub unknown: bool,
    /// That failed with this code.
    pub error_code: Option<String>,
    /// That started at this time or later.
    pub since: Option<Timestamp>,
    /// That started before this time.
    pub until: Option<Timestamp>,
}

/// A number that was counted up to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// What was counted.
    pub value: u64,
    /// Whether there are more.
    pub at_least: bool,
}

/// How many runs want attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunCounts {
    /// Under way.
    pub running: Count,
    /// Asleep.
    pub waiting: Count,
    /// Failed: the dead letters.
    pub failed: Count,
}

/// Written out instead of bound, so that the databases see that a partial index fits.
pub(super) fn has_status(status: RunStatus) -> Expr {
    let text = match status {
        RunStatus::Queued => "status = -2 AND status < 2",
        RunStatus::Paused => "status = -1 AND status < 2",
        RunStatus::Running => "status = 0 AND status < 2",
        RunStatus::Waiting => "status = 1 AND status < 2",
        RunStatus::Succeeded => "status = 2",
        RunStatus::Failed => "status = 3",
        RunStatus::Canceled => "status = 4",
        RunStatus::Merged => "status = 5",
    };
    Expr::cust(text)
}

impl Store {
    /// One run.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_load(&self, workspace: WorkspaceId, id: RunId) -> Result<Option<RunRow>, ReadError> {
        let found = run::Entity::find_by_id(id.as_raw()).filter(run::Column::WorkspaceId.eq(workspace.as_raw()));
        found.one(&self.db).await?.map(row).transpose()
    }

    /// A page of runs, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_page(
        &self,
        workspace: WorkspaceId,
        filter: &RunFilter,
        before: Option<RunId>,
        limit: u32,
    ) -> Result<Page<RunRow, RunId>, ReadError> {
        let limit = page_limit(limit);
        let mut below = before.map_or(i64::MAX, RunId::as_raw);
        if let Some(until) = filter.until {
            below = below.min(first_id_at(until));
        }
        let mut within = run::Entity::find()
            .filter(run::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(run::Column::Id.lt(below))
            .order_by_desc(run::Column::Id);
        if let Some(since) = filter.since {
            within = within.filter(run::Column::Id.gte(first_id_at(since)));
        }
        if let Some(workflow) = filter.workflow {
            within = within.filter(run::Column::WorkflowId.eq(workflow.as_raw()));
        }
        let mut chosen = false;
        let mut matching = within.clone();
        if let Some(status) = filter.status {
            matching = matching.filter(has_status(status));
            // Few runs fail or are open, and they have their indexes; the others are most of the table.
            chosen = !matches!(status, RunStatus::Succeeded);
        }
        if filter.unknown {
            matching = matching
                .filter(has_status(RunStatus::Failed))
                .filter(run::Column::ErrorCode.eq("effect_unknown"));
            chosen = true;
        }
        if let Some(code) = &filter.error_code {
            matching = matching
                .filter(has_status(RunStatus::Failed))
                .filter(run::Column::ErrorCode.eq(code.as_str()));
            chosen = true;
        }
        let mut floor = None;
        if chosen {
            floor = within
                .select_only()
                .column(run::Column::Id)
                .offset(SCAN_ROWS - 1)
                .limit(1)
                .into_tuple::<i64>()
                .one(&self.db)
                .await?;
        }
        if let Some(floor) = floor {
            matching = matching.filter(run::Column::Id.gte(floor));
        }
        let rows = matching.limit(limit).all(&self.db).await?;
        let full = u64::try_from(rows.len()).unwrap_or(u64::MAX) >= limit;
        let next = if full { rows.last().map(|row| row.id) } else { floor };
        Ok(Page {
            rows: rows.into_iter().map(row).collect::<Result<_, _>>()?,
            next: next.map(RunId::from_raw),
        })
    }

    /// All runs of an event, replays included, oldest first (at most 1,000 replays).
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn event_runs(&self, workspace: WorkspaceId, id: EventId) -> Result<Vec<RunRow>, ReadError> {
        let packed = event::Entity::find_by_id(id.as_raw())
            .filter(event::Column::WorkspaceId.eq(workspace.as_raw()))
            .select_only()
            .column(event::Column::RunIds);
        let Some(packed) = packed.into_tuple::<Option<Vec<u8>>>().one(&self.db).await? else {
            return Ok(Vec::new());
        };
        let roots = run_ids(packed.as_deref());
        self.families(workspace, &roots).await
    }

    /// A family: its first run and all replays, oldest first (at most 1,000 replays).
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_family(&self, workspace: WorkspaceId, root: RunId) -> Result<Vec<RunRow>, ReadError> {
        self.families(workspace, &[root]).await
    }

    /// The newest run of a family that came after one of its runs; `None` when it is the last.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_replaced_by(&self, workspace: WorkspaceId, run: &RunRow) -> Result<Option<RunRow>, ReadError> {
        let found = run::Entity::find()
            .filter(run::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(run::Column::RootId.eq(run.root_id.as_raw()))
            .filter(run::Column::ReplayOf.is_not_null())
            .filter(run::Column::Id.gt(run.id.as_raw()))
            .order_by_desc(run::Column::Id)
            .limit(1)
            .one(&self.db)
            .await?;
        found.map(row).transpose()
    }

    /// The runs with these ids and all replays of them, oldest first.
    pub(super) async fn families(&self, workspace: WorkspaceId, roots: &[RunId]) -> Result<Vec<RunRow>, ReadError> {
        let roots: Vec<i64> = roots.iter().map(|id| id.as_raw()).collect();
        if roots.is_empty() {
            return Ok(Vec::new());
        }
        let tenant = run::Column::WorkspaceId.eq(workspace.as_raw());
        let mut runs = run::Entity::find()
            .filter(tenant.clone())
            .filter(run::Column::Id.is_in(roots.clone()))
            .all(&self.db)
            .await?;
        let replays = Condition::all()
            .add(tenant)
            .add(run::Column::RootId.is_in(roots))
            .add(run::Column::ReplayOf.is_not_null());
        runs.extend(
            run::Entity::find()
                .filter(replays)
                .order_by_asc(run::Column::Id)
                .limit(FAMILY_LIMIT)
                .all(&self.db)
                .await?,
        );
        runs.sort_unstable_by_key(|run| run.id);
        runs.dedup_by_key(|run| run.id);
        runs.into_iter().map(row).collect()
    }

    /// How many runs are open and how many failed, each counted up to 10,000.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_counts(&self, workspace: WorkspaceId) -> Result<RunCounts, ReadError> {
        let counted = |status| {
            let runs = run::Entity::find()
                .filter(run::Column::WorkspaceId.eq(workspace.as_raw()))
                .filter(has_status(status));
            self.count(runs)
        };
        Ok(RunCounts {
            running: counted(RunStatus::Running).await?,
            waiting: counted(RunStatus::Waiting).await?,
            failed: counted(RunStatus::Failed).await?,
        })
    }

    async fn count(&self, runs: Select<run::Entity>) -> Result<Count, ReadError> {
        let ids = runs
            .select_only()
            .column(run::Column::Id)
            .limit(COUNT_LIMIT + 1)
            .into_tuple::<i64>()
            .all(&self.db)
            .await?;
        let found = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        Ok(Count {
            value: found.min(COUNT_LIMIT),
            at_least: found > COUNT_LIMIT,
        })
    }
}

pub(crate) fn row(model: run::Model) -> Result<RunRow, ReadError> {
    let id = RunId::from_raw(model.id);
    Ok(RunRow {
        id,
        root_id: RunId::from_raw(model.root_id),
        replay_of: model.replay_of.map(RunId::from_raw),
        workspace: WorkspaceId::from_raw(model.workspace_id),
        event_id: EventId::from_raw(model.event_id),
        workflow_id: WorkflowId::from_raw(model.workflow_id),
        version_id: VersionId::from_raw(model.version_id),
        owner: u16::try_from(model.owner).unwrap_or_default(),
        status: codes::run_status(model.status, || format!("run {id}"))?,
        started_at: time(model.started_at),
        due_at: optional_time(model.due_at),
        finished_at: optional_time(model.finished_at),
        error_code: model.error_code,
        error_step: model.error_step,
    })
}
