//! Where sweeps stand, and the coverage ledger.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use weir_workflow_engine::{EndpointId, Timestamp, WorkspaceId};

use super::{Store, optional_time, time};
use crate::entity::{coverage, sweep};
use crate::error::ReadError;
use crate::sweep::{CoverageRow, SweepRow};

/// Most hours in one answer: as long as they are kept.
const HOURS_KEPT: u64 = 90 * 24;

impl Store {
    /// Where the sweeps of all endpoints stand; for the node itself.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn sweeps_load(&self) -> Result<Vec<SweepRow>, ReadError> {
        let rows = sweep::Entity::find().all(&self.db).await?;
        Ok(rows.into_iter().map(row).collect())
    }

    /// Where the sweeps of an endpoint stand. `None`: it was never swept.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn sweep_load(
        &self,
        workspace: WorkspaceId,
        endpoint: EndpointId,
    ) -> Result<Option<SweepRow>, ReadError> {
        let found = sweep::Entity::find_by_id(endpoint.as_raw())
            .filter(sweep::Column::WorkspaceId.eq(workspace.as_raw()))
            .one(&self.db)
            .await?;
        Ok(found.map(row))
    }

    /// What arrived at an endpoint by hour since the hour of a time, the newest hour first. Hours in which nothing came
    /// are left out.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn coverage(
        &self,
        workspace: WorkspaceId,
        endpoint: EndpointId,
        since: Timestamp,
    ) -> Result<Vec<CoverageRow>, ReadError> {
        let hour = since.as_unix_ms().div_euclid(3_600_000);
        let rows = coverage::Entity::find()
            .filter(coverage::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(coverage::Column::EndpointId.eq(endpoint.as_raw()))
            .filter(coverage::Column::Hour.gte(hour))
            .order_by_desc(coverage::Column::Hour)
            .limit(HOURS_KEPT)
            .all(&self.db)
            .await?;
        let row = |model: coverage::Model| CoverageRow {
            hour: time(i64::from(model.hour) * 3_600_000),
            received: count(model.received),
            recovered: count(model.recovered),
            backfilled: count(model.backfilled),
            duplicates: count(model.duplicates),
        };
        Ok(rows.into_iter().map(row).collect())
    }
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn row(model: sweep::Model) -> SweepRow {
    SweepRow {
        endpoint: EndpointId::from_raw(model.endpoint_id),
        running: model.owner != 0,
        cursor: model.cursor,
        covered_until: optional_time(model.covered_until),
        lost: optional_time(model.lost_from).zip(optional_time(model.lost_until)),
        cause: model.cause,
        started_at: time(model.started_at),
        finished_at: optional_time(model.finished_at),
        outcome: model.outcome,
        error: model.error,
        pages: u32::try_from(model.pages).unwrap_or(0),
        recovered: count(model.recovered),
        duplicates: count(model.duplicates),
        failures: u32::try_from(model.failures).unwrap_or(0),
    }
}
