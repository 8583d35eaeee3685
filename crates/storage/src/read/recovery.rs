//! What a node reads for itself: its open runs at start and after a takeover, and its timers. Over all tenants.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use weir_workflow_engine::{RunId, Timestamp};

use super::run::{RunRow, row};
use super::{LIST_VALUES, Store, StoredEvent};
use crate::entity::run;
use crate::error::ReadError;
use crate::node::NodeIdentity;

/// A run with all that is needed to go on with it.
#[derive(Clone, Debug)]
pub struct StoredRun {
    /// Its row.
    pub run: RunRow,
    /// Its event.
    pub event: StoredEvent,
    /// Its journal in order: number and encoded entries.
    pub journal: Vec<(i32, Vec<u8>)>,
}

impl Store {
    /// Runs of this node that are under way, in the order of their ids, after the given one. (Those that sleep are
    /// found when they are due.) Page by page until a page is short.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_open_ids(
        &self,
        node: &NodeIdentity,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<RunId>, ReadError> {
        let open = run::Entity::find()
            .filter(run::Column::Owner.eq(i32::from(node.slot)))
            .filter(Expr::cust("status < 2"))
            .filter(Expr::cust("status = 0"))
            .filter(run::Column::Id.gt(after.map_or(0, RunId::as_raw)))
            .order_by_asc(run::Column::Id)
            .limit(u64::from(limit));
        let ids = open
            .select_only()
            .column(run::Column::Id)
            .into_tuple::<i64>()
            .all(&self.db)
            .await?;
        Ok(ids.into_iter().map(RunId::from_raw).collect())
    }

    /// Runs of this node that want to be woken until a time, the longest overdue first, each with its time.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_due_ids(
        &self,
        node: &NodeIdentity,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<(RunId, Timestamp)>, ReadError> {
        let due = run::Entity::find()
            .filter(run::Column::Owner.eq(i32::from(node.slot)))
            .filter(run::Column::DueAt.lte(until.as_unix_ms()))
            .order_by_asc(run::Column::DueAt)
            .limit(u64::from(limit));
        let ids = due
            .select_only()
            .column(run::Column::Id)
            .column(run::Column::DueAt)
            .into_tuple::<(i64, i64)>();
        Ok(ids
            .all(&self.db)
            .await?
            .into_iter()
            .map(|(id, at)| (RunId::from_raw(id), Timestamp::from_unix_ms(at)))
            .collect())
    }

    /// Runs with event and journal, in a few statements, in the order of their ids. What is not there is left out.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_recover(&self, ids: &[RunId]) -> Result<Vec<StoredRun>, ReadError> {
        let mut recovered = Vec::with_capacity(ids.len());
        for ids in ids.chunks(LIST_VALUES) {
            let raw: Vec<i64> = ids.iter().map(|id| id.as_raw()).collect();
            let models = run::Entity::find()
                .filter(run::Column::Id.is_in(raw.clone()))
                .order_by_asc(run::Column::Id)
                .all(&self.db)
                .await?;
            let mut event_ids: Vec<i64> = models.iter().map(|model| model.event_id).collect();
            event_ids.sort_unstable();
            event_ids.dedup();
            let events = self.events_by_id(&event_ids).await?;
            let mut journals = self.journals(&raw).await?;
            for model in models {
                let run = row(model)?;
                let Some(event) = events.get(&run.event_id.as_raw()) else {
                    return Err(ReadError::Corrupt {
                        row: format!("run {}", run.id),
                        reason: format!("its event {} is missing", run.event_id),
                    });
                };
                let journal = journals.remove(&run.id.as_raw()).unwrap_or_default();
                recovered.push(StoredRun {
                    run,
                    event: event.clone(),
                    journal,
                });
            }
        }
        Ok(recovered)
    }
}
