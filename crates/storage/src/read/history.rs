//! What retention looks at: the oldest events and how the runs on them stand. Over all tenants.

use std::collections::HashMap;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use weir_workflow_engine::{EventId, RunId, Timestamp};

use super::event::run_ids;
use super::{LIST_VALUES, Store, first_id_at, optional_time, time};
use crate::codes;
use crate::entity::{event, run};
use crate::error::ReadError;
use crate::fact::{History, RunStatus};

/// An old event, and how the runs on it stand, replays included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldEvent {
    /// What to drop.
    pub history: History,
    /// When it came.
    pub received_at: Timestamp,
    /// Status and end of each run.
    pub runs: Vec<(RunStatus, Option<Timestamp>)>,
}

impl Store {
    /// Events after the given one that came before a time, the oldest first, at most `limit` (and at most 500).
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn old_events(
        &self,
        after: Option<EventId>,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<OldEvent>, ReadError> {
        let events = event::Entity::find()
            .filter(event::Column::Id.gt(after.map_or(0, EventId::as_raw)))
            .filter(event::Column::Id.lt(first_id_at(before)))
            // Copies for replays go with their originals.
            .filter(Expr::cust("(run_ids IS NULL OR length(run_ids) > 0)"))
            .order_by_asc(event::Column::Id)
            .limit(u64::from(limit).min(LIST_VALUES as u64));
        let events: Vec<(i64, i64, Option<Vec<u8>>)> = events
            .select_only()
            .columns([event::Column::Id, event::Column::ReceivedAt, event::Column::RunIds])
            .into_tuple()
            .all(&self.db)
            .await?;
        let old = |(id, received_at, packed): (i64, i64, Option<Vec<u8>>)| OldEvent {
            history: History {
                event: EventId::from_raw(id),
                runs: run_ids(packed.as_deref()),
            },
            received_at: time(received_at),
            runs: Vec::new(),
        };
        let mut events: Vec<OldEvent> = events.into_iter().map(old).collect();
        // A replay with an edited event has a copy of it: it belongs to the event of the first run.
        let mut places: HashMap<i64, usize> = HashMap::new();
        for (place, old) in events.iter().enumerate() {
            places.extend(old.history.runs.iter().map(|run| (run.as_raw(), place)));
        }
        let roots: Vec<i64> = events
            .iter()
            .flat_map(|old| &old.history.runs)
            .map(|run: &RunId| run.as_raw())
            .collect();
        for roots in roots.chunks(LIST_VALUES) {
            let replays = Condition::all()
                .add(run::Column::RootId.is_in(roots.iter().copied()))
                .add(run::Column::ReplayOf.is_not_null());
            for chosen in [
                Condition::all().add(run::Column::Id.is_in(roots.iter().copied())),
                replays,
            ] {
                let runs: Vec<(i64, i64, i16, Option<i64>)> = run::Entity::find()
                    .filter(chosen)
                    .select_only()
                    .columns([
                        run::Column::Id,
                        run::Column::RootId,
                        run::Column::Status,
                        run::Column::FinishedAt,
                    ])
                    .into_tuple()
                    .all(&self.db)
                    .await?;
                for (id, root, status, finished_at) in runs {
                    let status = codes::run_status(status, || format!("run {}", RunId::from_raw(id)))?;
                    let place = places.get(&root).copied();
                    if let Some(old) = place.and_then(|place| events.get_mut(place)) {
                        old.runs.push((status, optional_time(finished_at)));
                    }
                }
            }
        }
        Ok(events)
    }

    /// When the oldest event came.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn oldest_event(&self) -> Result<Option<Timestamp>, ReadError> {
        let oldest = event::Entity::find().order_by_asc(event::Column::Id).limit(1);
        let oldest = oldest.select_only().column(event::Column::ReceivedAt);
        Ok(oldest.into_tuple::<i64>().one(&self.db).await?.map(time))
    }
}
