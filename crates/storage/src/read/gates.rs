//! What runs wait for, and lanes that wait for a person.

use std::collections::BTreeMap;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Statement, Value};
use weir_workflow_engine::{EventId, GateKey, GateKind, MAX_BATCH, RunId, Timestamp, WorkflowId, WorkspaceId};

use super::run::has_status;
use super::{Store, page_limit, time};
use crate::entity::{event, gate, merged, run, turn};
use crate::error::ReadError;
use crate::fact::RunStatus;
use crate::gates::gate_kind;
use crate::page::Page;

/// Counting those ahead stops here.
const AHEAD_LIMIT: u64 = 1000;

/// A run that another one took the place of, and its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedRow {
    /// The run.
    pub run: RunId,
    /// Its event.
    pub event: EventId,
    /// Name of the event's connector.
    pub connector: String,
    /// Its type without the connector.
    pub kind: String,
    /// The provider's id of it.
    pub external_id: String,
    /// When it was accepted.
    pub received_at: Timestamp,
}

/// What a run waits for before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingFor {
    /// The kind of gate.
    pub kind: GateKind,
    /// The author's key; empty when the gate is the same for the whole workflow.
    pub key: String,
    /// When the run was accepted.
    pub since: Timestamp,
    /// Runs that wait there and go first, counted up to 1,000.
    pub ahead: u64,
    /// Runs that have passed and are not over.
    pub inside: u32,
    /// The failed run that keeps the lane until a person has dealt with it.
    pub held_by: Option<RunId>,
}

/// A lane that a failed run keeps until a person has dealt with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLane {
    /// The failed run.
    pub run: RunId,
    /// Its workflow.
    pub workflow: WorkflowId,
    /// The author's key.
    pub key: String,
    /// Since when.
    pub since: Timestamp,
    /// How many runs wait.
    pub waiting: u32,
}

/// Runs that wait until their workflow is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRuns {
    /// The one that was accepted first.
    pub first: RunId,
    /// How many.
    pub count: u32,
}

impl Store {
    /// How many runs wait at gates, over all tenants: of interest to the server alone.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn queued_runs(&self) -> Result<u64, ReadError> {
        let text = "SELECT CAST(COALESCE(SUM(waiting), 0) AS BIGINT) AS found FROM gate WHERE waiting > 0";
        let counted = self.query(text).await?;
        let found: i64 = counted.map_or(Ok(0), |row| row.try_get("", "found"))?;
        Ok(u64::try_from(found).unwrap_or(0))
    }

    /// Which of these runs wait for their turn, over all tenants: of interest to the server alone.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn queued_among(&self, runs: &[RunId]) -> Result<Vec<RunId>, ReadError> {
        let found = run::Entity::find()
            .select_only()
            .column(run::Column::Id)
            .filter(run::Column::Id.is_in(runs.iter().map(|run| run.as_raw())))
            .filter(has_status(RunStatus::Queued))
            .into_tuple::<i64>()
            .all(&self.db)
            .await?;
        Ok(found.into_iter().map(RunId::from_raw).collect())
    }

    /// The runs that wait until a workflow is resumed; `None` when there are none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn held_runs(&self, workspace: WorkspaceId, workflow: WorkflowId) -> Result<Option<HeldRuns>, ReadError> {
        let id = GateKey::new(workflow, GateKind::Pause, "").bytes().to_vec();
        let found = gate::Entity::find_by_id(id.clone()).filter(gate::Column::WorkspaceId.eq(workspace.as_raw()));
        let Some(found) = found.one(&self.db).await? else {
            return Ok(None);
        };
        let first = turn::Entity::find()
            .select_only()
            .column(turn::Column::RunId)
            .filter(turn::Column::GateId.eq(id))
            .filter(Expr::cust("gate_id IS NOT NULL"))
            .order_by_asc(turn::Column::Place)
            .order_by_asc(turn::Column::RunId)
            .limit(1)
            .into_tuple::<i64>()
            .one(&self.db)
            .await?;
        Ok(first.map(|first| HeldRuns {
            first: RunId::from_raw(first),
            count: u32::try_from(found.waiting).unwrap_or_default(),
        }))
    }

    /// What a run waits for before it starts; `None` when it does not.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_waiting_for(&self, workspace: WorkspaceId, run: RunId) -> Result<Option<WaitingFor>, ReadError> {
        let standing = turn::Entity::find_by_id(run.as_raw()).filter(turn::Column::WorkspaceId.eq(workspace.as_raw()));
        let Some(standing) = standing.one(&self.db).await? else {
            return Ok(None);
        };
        let Some(id) = standing.gate_id else { return Ok(None) };
        let Some(gate) = gate::Entity::find_by_id(id.clone()).one(&self.db).await? else {
            return Ok(None);
        };
        let ahead = turn::Entity::find()
            .select_only()
            .column(turn::Column::RunId)
            .filter(turn::Column::GateId.eq(id))
            .filter(Expr::cust("gate_id IS NOT NULL"))
            .filter(turn::Column::Place.lt(standing.place))
            .limit(AHEAD_LIMIT)
            .into_tuple::<i64>()
            .all(&self.db)
            .await?;
        let kind = gate_kind(i64::from(gate.kind)).ok_or_else(|| ReadError::Corrupt {
            row: format!("the gate of {run}"),
            reason: format!("kind {} is not known", gate.kind),
        })?;
        Ok(Some(WaitingFor {
            kind,
            key: gate.name,
            since: time(standing.position / 1000),
            ahead: u64::try_from(ahead.len()).unwrap_or(AHEAD_LIMIT),
            inside: u32::try_from(gate.inside).unwrap_or_default(),
            held_by: gate.holder.map(RunId::from_raw),
        }))
    }

    /// The run that took the place of this one. Over all tenants: the caller has seen the run.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_merged_into(&self, run: RunId) -> Result<Option<RunId>, ReadError> {
        let found = merged::Entity::find_by_id(run.as_raw()).one(&self.db).await?;
        Ok(found.map(|row| RunId::from_raw(row.into_id)))
    }

    /// The runs that a run stands for, in the order of acceptance: the first ones after `skip`. Those that it took the
    /// place of, those that these had taken the place of before, and so on. What is no longer kept is left out.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_merged_here(
        &self,
        workspace: WorkspaceId,
        run: RunId,
        skip: u64,
        limit: u32,
    ) -> Result<Vec<MergedRow>, ReadError> {
        let select = "SELECT run_id FROM here ORDER BY place, run_id LIMIT $2 OFFSET $3";
        let skip = i64::try_from(skip).unwrap_or(i64::MAX);
        let values = [run.as_raw().into(), i64::from(limit).into(), skip.into()];
        let members: Vec<i64> = self
            .db
            .query_all_raw(self.merged_statement(select, values))
            .await?
            .iter()
            .map(|row| row.try_get("", "run_id"))
            .collect::<Result<_, _>>()?;
        let events: BTreeMap<i64, i64> = run::Entity::find()
            .select_only()
            .column(run::Column::Id)
            .column(run::Column::EventId)
            .filter(run::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(run::Column::Id.is_in(members.clone()))
            .into_tuple()
            .all(&self.db)
            .await?
            .into_iter()
            .collect();
        let told: Vec<(i64, String, String, String, i64)> = event::Entity::find()
            .select_only()
            .columns([
                event::Column::Id,
                event::Column::Connector,
                event::Column::Kind,
                event::Column::ExternalId,
                event::Column::ReceivedAt,
            ])
            .filter(event::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(event::Column::Id.is_in(events.values().copied()))
            .into_tuple()
            .all(&self.db)
            .await?;
        let told: BTreeMap<i64, _> = told.into_iter().map(|row| (row.0, row)).collect();
        let rows = members.into_iter().filter_map(|run| {
            let (id, connector, kind, external_id, received_at) = told.get(events.get(&run)?)?.clone();
            Some(MergedRow {
                run: RunId::from_raw(run),
                event: EventId::from_raw(id),
                connector,
                kind,
                external_id,
                received_at: time(received_at),
            })
        });
        Ok(rows.collect())
    }

    /// How many runs a run stands for: see [`Store::run_merged_here`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_merged_count(&self, run: RunId) -> Result<u64, ReadError> {
        let statement = self.merged_statement("SELECT COUNT(*) AS runs FROM here", [run.as_raw().into()]);
        let row = self.db.query_one_raw(statement).await?;
        let runs: i64 = row.map_or(Ok(0), |row| row.try_get("", "runs"))?;
        Ok(u64::try_from(runs).unwrap_or_default())
    }

    /// A statement on `here`: all that the run `$1` stands for. Every run is merged into at most one other, so that
    /// none comes twice.
    fn merged_statement<const N: usize>(&self, select: &str, values: [Value; N]) -> Statement {
        let text = format!(
            "WITH RECURSIVE here (run_id, place) AS ( \
               SELECT run_id, place FROM merged WHERE into_id = $1 \
               UNION ALL \
               SELECT merged.run_id, merged.place FROM merged JOIN here ON merged.into_id = here.run_id \
             ) {select}"
        );
        Statement::from_sql_and_values(self.db.get_database_backend(), text, values)
    }

    /// The events that a run stands for, its own first, the others in the order of acceptance.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_batch_events(&self, workspace: WorkspaceId, run: RunId) -> Result<Vec<EventId>, ReadError> {
        let members = merged::Entity::find()
            .select_only()
            .column(merged::Column::RunId)
            .filter(merged::Column::IntoId.eq(run.as_raw()))
            .order_by_asc(merged::Column::Place)
            .limit(u64::from(MAX_BATCH))
            .into_tuple::<i64>()
            .all(&self.db)
            .await?;
        let mut runs = vec![run.as_raw()];
        runs.extend(members);
        let rows = run::Entity::find()
            .select_only()
            .column(run::Column::Id)
            .column(run::Column::EventId)
            .filter(run::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(run::Column::Id.is_in(runs.clone()))
            .into_tuple::<(i64, i64)>()
            .all(&self.db)
            .await?;
        let events: BTreeMap<i64, i64> = rows.into_iter().collect();
        let found = runs.iter().filter_map(|run| events.get(run).copied());
        Ok(found.map(EventId::from_raw).collect())
    }

    /// A page of lanes that wait for a person, those with the newest runs first; with `run` only the one it keeps.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn held_lanes(
        &self,
        workspace: WorkspaceId,
        run: Option<RunId>,
        before: Option<RunId>,
        limit: u32,
    ) -> Result<Page<HeldLane, RunId>, ReadError> {
        let limit = page_limit(limit);
        let mut held = gate::Entity::find()
            .filter(gate::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(Expr::cust("holder IS NOT NULL AND kind = 0"))
            .filter(gate::Column::Holder.lt(before.map_or(i64::MAX, RunId::as_raw)))
            .order_by_desc(gate::Column::Holder)
            .limit(limit);
        if let Some(run) = run {
            held = held.filter(gate::Column::Holder.eq(run.as_raw()));
        }
        let rows: Vec<HeldLane> = held
            .all(&self.db)
            .await?
            .into_iter()
            .map(|row| HeldLane {
                run: RunId::from_raw(row.holder.unwrap_or_default()),
                workflow: WorkflowId::from_raw(row.workflow_id),
                key: row.name,
                since: time(row.since.unwrap_or_default()),
                waiting: u32::try_from(row.waiting).unwrap_or_default(),
            })
            .collect();
        let full = u64::try_from(rows.len()).unwrap_or(u64::MAX) >= limit;
        let next = rows.last().filter(|_| full).map(|row| row.run);
        Ok(Page { rows, next })
    }
}
