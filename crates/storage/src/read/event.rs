//! Events: one with its body, pages of summaries without.

use std::collections::HashMap;

use bytes::Bytes;
use sea_orm::{ColumnTrait, DerivePartialModel, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use weir_workflow_engine::{ConnectionId, EndpointId, EventId, EventSource, RunId, Timestamp, WorkspaceId};

use super::{LIST_VALUES, SCAN_ROWS, Store, first_id_at, optional_time, page_limit, time};
use crate::entity::{event, payload};
use crate::error::ReadError;
use crate::fact::{Dedupe, EventRow};
use crate::page::Page;
use crate::{blob, codes};

/// A stored event in full.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// All that was accepted.
    pub row: EventRow,
    /// What it was deduplicated by (`anchored_at` is not stored): part of the keys of its runs' effects.
    pub dedupe: Dedupe,
    /// The runs it started when it came, and those that were started on it later; replays are not among them.
    pub runs: Vec<RunId>,
    /// Whether it is a copy that a person edited for a replay.
    pub is_copy: bool,
}

/// What a list shows of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSummary {
    /// Our id.
    pub id: EventId,
    /// The endpoint it came in by.
    pub endpoint: Option<EndpointId>,
    /// The connection it belongs to.
    pub connection: Option<ConnectionId>,
    /// How it came in.
    pub source: EventSource,
    /// When.
    pub received_at: Timestamp,
    /// When it happened, says the provider.
    pub occurred_at: Option<Timestamp>,
    /// Name of the connector.
    pub connector: String,
    /// The provider's event type.
    pub kind: String,
    /// The provider's id.
    pub external_id: String,
    /// The provider's account.
    pub account: Option<String>,
    /// Type of the object it is about.
    pub ref_kind: Option<String>,
    /// Id of the object it is about.
    pub ref_id: Option<String>,
    /// The runs it started when it came.
    pub runs: Vec<RunId>,
    /// Size of the body as it came.
    pub body_bytes: u64,
}

/// Which events a page shows; `None` = any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this type.
    pub kind: Option<String>,
    /// Of this connector.
    pub connector: Option<String>,
    /// That came in by this endpoint.
    pub endpoint: Option<EndpointId>,
    /// About the object with this id.
    pub ref_id: Option<String>,
    /// With this id at the provider.
    pub external_id: Option<String>,
    /// That came at this time or later.
    pub since: Option<Timestamp>,
    /// That came before this time.
    pub until: Option<Timestamp>,
}

#[derive(DerivePartialModel)]
#[sea_orm(entity = "event::Entity")]
struct SummaryRow {
    id: i64,
    endpoint_id: Option<i64>,
    connection_id: Option<i64>,
    source: i16,
    received_at: i64,
    occurred_at: Option<i64>,
    connector: String,
    kind: String,
    external_id: String,
    account: Option<String>,
    ref_kind: Option<String>,
    ref_id: Option<String>,
    run_ids: Option<Vec<u8>>,
    body_bytes: i32,
}

impl Store {
    /// One event with its body.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn event_load(&self, workspace: WorkspaceId, id: EventId) -> Result<Option<StoredEvent>, ReadError> {
        let found = event::Entity::find_by_id(id.as_raw()).filter(event::Column::WorkspaceId.eq(workspace.as_raw()));
        let Some(model) = found.one(&self.db).await? else {
            return Ok(None);
        };
        let mut events = self.event_bodies(vec![model]).await?;
        Ok(events.pop())
    }

    /// A page of events, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn event_page(
        &self,
        workspace: WorkspaceId,
        filter: &EventFilter,
        before: Option<EventId>,
        limit: u32,
    ) -> Result<Page<EventSummary, EventId>, ReadError> {
        let limit = page_limit(limit);
        let mut below = before.map_or(i64::MAX, EventId::as_raw);
        if let Some(until) = filter.until {
            below = below.min(first_id_at(until));
        }
        let mut within = event::Entity::find()
            .filter(event::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(event::Column::Id.lt(below))
            .order_by_desc(event::Column::Id);
        if let Some(since) = filter.since {
            within = within.filter(event::Column::Id.gte(first_id_at(since)));
        }
        let mut matching = within.clone();
        let mut chosen = false;
        let mut only = |column: event::Column, value: Option<sea_orm::Value>| {
            if let Some(value) = value {
                matching = matching.clone().filter(column.eq(value));
                chosen = true;
            }
        };
        only(event::Column::Kind, filter.kind.clone().map(Into::into));
        only(event::Column::Connector, filter.connector.clone().map(Into::into));
        only(event::Column::EndpointId, filter.endpoint.map(|id| id.as_raw().into()));
        only(event::Column::RefId, filter.ref_id.clone().map(Into::into));
        only(event::Column::ExternalId, filter.external_id.clone().map(Into::into));
        let mut floor = None;
        if chosen {
            let last = within
                .select_only()
                .column(event::Column::Id)
                .offset(SCAN_ROWS - 1)
                .limit(1);
            floor = last.into_tuple::<i64>().one(&self.db).await?;
        }
        if let Some(floor) = floor {
            matching = matching.filter(event::Column::Id.gte(floor));
        }
        let rows = matching
            .limit(limit)
            .into_partial_model::<SummaryRow>()
            .all(&self.db)
            .await?;
        let full = u64::try_from(rows.len()).unwrap_or(u64::MAX) >= limit;
        let next = if full { rows.last().map(|row| row.id) } else { floor };
        let rows = rows.into_iter().map(summary).collect::<Result<_, _>>()?;
        Ok(Page {
            rows,
            next: next.map(EventId::from_raw),
        })
    }

    /// Events by id over all tenants, for the node itself. Those that are gone are left out.
    pub(super) async fn events_by_id(&self, ids: &[i64]) -> Result<HashMap<i64, StoredEvent>, ReadError> {
        let mut events = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(LIST_VALUES) {
            let models = event::Entity::find()
                .filter(event::Column::Id.is_in(ids.iter().copied()))
                .all(&self.db)
                .await?;
            for event in self.event_bodies(models).await? {
                events.insert(event.row.id.as_raw(), event);
            }
        }
        Ok(events)
    }

    async fn event_bodies(&self, models: Vec<event::Model>) -> Result<Vec<StoredEvent>, ReadError> {
        let apart: Vec<i64> = models
            .iter()
            .filter(|model| model.body_codec == blob::APART)
            .map(|model| model.id)
            .collect();
        let mut payloads: HashMap<i64, payload::Model> = HashMap::new();
        if !apart.is_empty() {
            let found = payload::Entity::find()
                .filter(payload::Column::OwnerId.is_in(apart))
                .filter(payload::Column::Seq.eq(0));
            payloads.extend(
                found
                    .all(&self.db)
                    .await?
                    .into_iter()
                    .map(|payload| (payload.owner_id, payload)),
            );
        }
        models
            .into_iter()
            .map(|model| {
                let body = payloads.remove(&model.id);
                stored(model, body)
            })
            .collect()
    }
}

pub(crate) fn stored(model: event::Model, apart: Option<payload::Model>) -> Result<StoredEvent, ReadError> {
    let id = EventId::from_raw(model.id);
    let name = || format!("event {id}");
    let (codec, body) = match (apart, model.body) {
        (Some(payload), _) => (payload.codec, payload.body),
        (None, Some(body)) => (model.body_codec, body),
        (None, None) => {
            return Err(ReadError::Corrupt {
                row: name(),
                reason: "its body is missing".to_owned(),
            });
        }
    };
    let row = EventRow {
        id,
        workspace: WorkspaceId::from_raw(model.workspace_id),
        endpoint: model.endpoint_id.map(EndpointId::from_raw),
        connector: model.connector,
        connection: model.connection_id.map(ConnectionId::from_raw),
        source: codes::event_source(model.source, name)?,
        external_id: model.external_id,
        kind: model.kind,
        account: model.account,
        ref_kind: model.ref_kind,
        ref_id: model.ref_id,
        ref_version: model.ref_version,
        occurred_at: optional_time(model.occurred_at),
        received_at: time(model.received_at),
        headers: model.headers,
        body: Bytes::from(blob::decode(codec, body, name)?),
        data_pointer: model.data_pointer,
        scheduled_for: optional_time(model.scheduled_for),
        traceparent: model.traceparent,
    };
    let key = model.dedupe_key.unwrap_or_else(|| row.external_id.clone());
    let dedupe = Dedupe {
        scope: model.dedupe_scope,
        key,
        anchored_at: None,
    };
    Ok(StoredEvent {
        dedupe,
        is_copy: model.run_ids.as_ref().is_some_and(Vec::is_empty),
        runs: run_ids(model.run_ids.as_deref()),
        row,
    })
}

fn summary(row: SummaryRow) -> Result<EventSummary, ReadError> {
    let id = EventId::from_raw(row.id);
    Ok(EventSummary {
        id,
        endpoint: row.endpoint_id.map(EndpointId::from_raw),
        connection: row.connection_id.map(ConnectionId::from_raw),
        source: codes::event_source(row.source, || format!("event {id}"))?,
        received_at: time(row.received_at),
        occurred_at: optional_time(row.occurred_at),
        connector: row.connector,
        kind: row.kind,
        external_id: row.external_id,
        account: row.account,
        ref_kind: row.ref_kind,
        ref_id: row.ref_id,
        runs: run_ids(row.run_ids.as_deref()),
        body_bytes: u64::try_from(row.body_bytes).unwrap_or(0),
    })
}

pub(super) fn run_ids(packed: Option<&[u8]>) -> Vec<RunId> {
    let (ids, _) = packed.unwrap_or_default().as_chunks::<8>();
    ids.iter().map(|id| RunId::from_raw(i64::from_be_bytes(*id))).collect()
}
