//! Backfills: how far they are, and which of them wait for a node.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use weir_workflow_engine::{BackfillId, EndpointId, WorkspaceId};

use super::{Store, optional_time, time};
use crate::backfill::{BackfillRow, MAX_BACKFILLS_KEPT};
use crate::codes;
use crate::database::DatabaseKind;
use crate::entity::backfill;
use crate::error::ReadError;
use crate::node::NodeIdentity;
use crate::writer::Dialect;

/// Backfills that a node is told of at a time.
const READY_LIMIT: u64 = 64;

impl Store {
    /// A backfill.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn backfill_load(
        &self,
        workspace: WorkspaceId,
        id: BackfillId,
    ) -> Result<Option<BackfillRow>, ReadError> {
        let found =
            backfill::Entity::find_by_id(id.as_raw()).filter(backfill::Column::WorkspaceId.eq(workspace.as_raw()));
        found.one(&self.db).await?.map(row).transpose()
    }

    /// The backfills of an endpoint that are kept, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn backfills_of(
        &self,
        workspace: WorkspaceId,
        endpoint: EndpointId,
    ) -> Result<Vec<BackfillRow>, ReadError> {
        let rows = backfill::Entity::find()
            .filter(backfill::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(backfill::Column::EndpointId.eq(endpoint.as_raw()))
            .order_by_desc(backfill::Column::Id)
            .limit(u64::from(MAX_BACKFILLS_KEPT));
        rows.all(&self.db).await?.into_iter().map(row).collect()
    }

    /// Backfills under way that this node may take up: those that nobody reads or whose node is gone, when their time
    /// has come. Those that it reads already are among them. Over all tenants, oldest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn backfills_ready(&self, node: &NodeIdentity) -> Result<Vec<BackfillRow>, ReadError> {
        let dialect = match self.kind {
            DatabaseKind::Sqlite => Dialect::Sqlite,
            DatabaseKind::Postgres => Dialect::Postgres,
        };
        let (now, over) = (dialect.now_ms(), dialect.lease_over("lease_until"));
        let ready = format!(
            "retry_at <= {now} AND (owner IN (0, {}) OR owner NOT IN \
             (SELECT incarnation FROM node WHERE incarnation <> 0 AND NOT {over}))",
            node.incarnation
        );
        let rows = backfill::Entity::find()
            .filter(Expr::cust("status = 0"))
            .filter(Expr::cust(ready))
            .order_by_asc(backfill::Column::Id)
            .limit(READY_LIMIT);
        rows.all(&self.db).await?.into_iter().map(row).collect()
    }
}

fn row(model: backfill::Model) -> Result<BackfillRow, ReadError> {
    let id = BackfillId::from_raw(model.id);
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(BackfillRow {
        id,
        workspace: WorkspaceId::from_raw(model.workspace_id),
        endpoint: EndpointId::from_raw(model.endpoint_id),
        status: codes::backfill_status(model.status, || format!("backfill {id}"))?,
        actor: model.actor,
        since: time(model.since),
        until: time(model.until),
        place: model.place,
        reached: optional_time(model.reached),
        pages: u32::try_from(model.pages).unwrap_or(0),
        listed: count(model.listed),
        recovered: count(model.recovered),
        duplicates: count(model.duplicates),
        passed_over: count(model.passed_over),
        failures: u32::try_from(model.failures).unwrap_or(0),
        error: model.error,
        created_at: time(model.created_at),
        retry_at: time(model.retry_at),
        finished_at: optional_time(model.finished_at),
    })
}
