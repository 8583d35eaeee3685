//! Outgoing events as they are listed.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use weir_workflow_engine::{OutgoingId, RunId, WorkspaceId};

use super::{Store, page_limit, time};
use crate::blob;
use crate::entity::outgoing;
use crate::error::ReadError;
use crate::outgoing::OutgoingRow;
use crate::page::Page;

impl Store {
    /// A page of outgoing events, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn outgoing_page(
        &self,
        workspace: WorkspaceId,
        before: Option<OutgoingId>,
        limit: u32,
    ) -> Result<Page<OutgoingRow, OutgoingId>, ReadError> {
        let limit = page_limit(limit);
        let rows = outgoing::Entity::find()
            .filter(outgoing::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(outgoing::Column::Id.lt(before.map_or(i64::MAX, OutgoingId::as_raw)))
            .order_by_desc(outgoing::Column::Id)
            .limit(limit)
            .all(&self.db)
            .await?;
        let rows: Vec<OutgoingRow> = rows.into_iter().map(row).collect::<Result<_, _>>()?;
        let full = u64::try_from(rows.len()).unwrap_or(u64::MAX) >= limit;
        let next = rows.last().filter(|_| full).map(|row| row.id);
        Ok(Page { rows, next })
    }
}

fn row(model: outgoing::Model) -> Result<OutgoingRow, ReadError> {
    let id = OutgoingId::from_raw(model.id);
    Ok(OutgoingRow {
        id,
        kind: model.kind,
        order_key: model.order_key,
        run: RunId::from_raw(model.run_id),
        step: model.step,
        created_at: time(model.created_at),
        body: blob::decode(model.codec, model.body, || format!("outgoing event {id}"))?,
    })
}
