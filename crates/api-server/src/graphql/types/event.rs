//! Events: received facts.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::super::scalars::{DateTime, Json, Long};
use super::body::Body;
use super::connection::Connection;
use super::endpoint::Endpoint;
use super::header::{self, Header};
use super::run::Run;
use crate::auth::Permission;
use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use std::sync::Arc;
use tokio::sync::OnceCell;
use weir_storage::{EventSummary, StoredEvent};
use weir_workflow_engine::{EventId, EventSource as Source};

/// One received or recovered fact. Lists carry what a list shows; the rest is read when asked for.
#[derive(Debug)]
pub(crate) struct Event {
    summary: EventSummary,
    full: OnceCell<Option<Arc<StoredEvent>>>,
}

impl Event {
    /// From a list.
    pub(crate) fn listed(summary: EventSummary) -> Self {
        Event {
            summary,
            full: OnceCell::new(),
        }
    }

    fn loaded(stored: StoredEvent) -> Self {
        let row = &stored.row;
        let summary = EventSummary {
            id: row.id,
            endpoint: row.endpoint,
            connection: row.connection,
            source: row.source,
            received_at: row.received_at,
            occurred_at: row.occurred_at,
            connector: row.connector.clone(),
            kind: row.kind.clone(),
            external_id: row.external_id.clone(),
            account: row.account.clone(),
            ref_kind: row.ref_kind.clone(),
            ref_id: row.ref_id.clone(),
            runs: stored.runs.clone(),
            body_bytes: row.body.len() as u64,
        };
        Event {
            summary,
            full: OnceCell::new_with(Some(Some(Arc::new(stored)))),
        }
    }

    /// The whole event, read at most once. `None`: it is no longer kept.
    async fn full(&self, ctx: &Context<'_>, permission: Permission) -> ApiResult<Option<&StoredEvent>> {
        let caller = Caller::of(ctx);
        caller.may(permission)?;
        let full = self.full.get_or_try_init(|| async {
            let (store, workspace) = caller.read(Permission::RunRead)?;
            let stored = store.event_load(workspace, self.summary.id).await;
            stored
                .map(|stored| stored.map(Arc::new))
                .map_err(|error| ApiError::internal("reading an event", &error))
        });
        Ok(full.await?.as_deref())
    }
}

/// One received or recovered fact; it never changes. Needs `RUN_READ`; its contents need `PAYLOAD_READ`.
#[Object]
impl Event {
    /// Its id.
    pub(crate) async fn id(&self) -> ID {
        self.summary.id.to_string().into()
    }

    /// The provider's id of it.
    async fn external_id(&self) -> &str {
        &self.summary.external_id
    }

    /// The provider's type of it.
    #[graphql(name = "type")]
    async fn kind(&self) -> &str {
        &self.summary.kind
    }

    /// Name of the connector that understood it.
    async fn connector_name(&self) -> &str {
        &self.summary.connector
    }

    /// How it came in.
    async fn source(&self) -> EventSource {
        EventSource::from(self.summary.source)
    }

    /// When it happened, by the provider's clock.
    async fn time(&self) -> Option<DateTime> {
        self.summary.occurred_at.map(DateTime)
    }

    /// When it was received.
    async fn received_at(&self) -> DateTime {
        DateTime(self.summary.received_at)
    }

    /// The account at the provider that it belongs to.
    async fn account(&self) -> Option<&str> {
        self.summary.account.as_deref()
    }

    /// The object it is about.
    async fn reference(&self) -> Option<Reference> {
        Some(Reference {
            kind: self.summary.ref_kind.clone()?,
            id: self.summary.ref_id.clone()?,
        })
    }

    /// The endpoint it came in by. Null: it came another way, or the endpoint was deleted. Needs `CONFIG_READ`.
    async fn endpoint(&self, ctx: &Context<'_>) -> ApiResult<Option<Endpoint>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        Ok(self
            .summary
            .endpoint
            .and_then(|id| Endpoint::by_id(&snapshot, workspace, id)))
    }

    /// Name of the endpoint it came in by.
    async fn endpoint_name(&self, ctx: &Context<'_>) -> ApiResult<Option<String>> {
        let caller = Caller::of(ctx);
        let workspace = caller.may(Permission::RunRead)?;
        let snapshot = caller.any().snapshot();
        let endpoint = self.summary.endpoint;
        let endpoint = endpoint.and_then(|id| Endpoint::by_id(&snapshot, workspace, id));
        Ok(endpoint.map(|endpoint| endpoint.0.name().to_owned()))
    }

    /// The connection it belongs to. Null: to none, or the connection was deleted. Needs `CONFIG_READ`.
    async fn connection(&self, ctx: &Context<'_>) -> ApiResult<Option<Connection>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        Ok(self
            .summary
            .connection
            .and_then(|id| Connection::by_id(&snapshot, workspace, id)))
    }

    /// The request headers that the connector keeps. Needs `PAYLOAD_READ`.
    async fn headers(&self, ctx: &Context<'_>) -> ApiResult<Option<Vec<Header>>> {
        let full = self.full(ctx, Permission::PayloadRead).await?;
        Ok(full.map(|event| header::from_json(&event.row.headers)))
    }

    /// What was received, byte for byte. Needs `PAYLOAD_READ`.
    async fn body(&self, ctx: &Context<'_>) -> ApiResult<Option<Body>> {
        let full = self.full(ctx, Permission::PayloadRead).await?;
        Ok(full.map(|event| Body {
            size_bytes: event.row.body.len() as u64,
            bytes: event.row.body.clone(),
        }))
    }

    /// Size of what was received, bytes.
    async fn body_bytes(&self) -> Long {
        Long(self.summary.body_bytes)
    }

    /// The event's data: what expressions see as `event.data`. Needs `PAYLOAD_READ`.
    async fn data(&self, ctx: &Context<'_>) -> ApiResult<Option<Json>> {
        let Some(event) = self.full(ctx, Permission::PayloadRead).await? else {
            return Ok(None);
        };
        let body: Option<serde_json::Value> = serde_json::from_slice(&event.row.body).ok();
        Ok(body
            .and_then(|body| body.pointer(&event.row.data_pointer).cloned())
            .map(Json))
    }

    /// The instant that a schedule planned it for.
    async fn scheduled_for(&self, ctx: &Context<'_>) -> ApiResult<Option<DateTime>> {
        Ok(self
            .full(ctx, Permission::RunRead)
            .await?
            .and_then(|event| event.row.scheduled_for)
            .map(DateTime))
    }

    /// The W3C trace context it arrived with.
    async fn traceparent(&self, ctx: &Context<'_>) -> ApiResult<Option<&str>> {
        Ok(self
            .full(ctx, Permission::RunRead)
            .await?
            .and_then(|event| event.row.traceparent.as_deref()))
    }

    /// Its runs, replays included, oldest first.
    async fn runs(&self, ctx: &Context<'_>) -> ApiResult<Option<Vec<Run>>> {
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let rows = store
            .event_runs(workspace, self.summary.id)
            .await
            .map_err(|error| ApiError::internal("reading an event's runs", &error))?;
        Ok(Some(rows.into_iter().map(Run::from_row).collect()))
    }
}

/// Reads one event.
pub(crate) async fn load(ctx: &Context<'_>, id: EventId) -> ApiResult<Option<Event>> {
    let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
    let row = store
        .event_load(workspace, id)
        .await
        .map_err(|error| ApiError::internal("reading an event", &error))?;
    Ok(row.map(Event::loaded))
}

/// What an event is about.
#[derive(Debug, SimpleObject)]
pub(crate) struct Reference {
    /// Kind of object, such as `invoice`.
    #[graphql(name = "type")]
    kind: String,
    /// Its id at the provider.
    id: String,
}

/// How an event came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum EventSource {
    /// A webhook request to an endpoint.
    Endpoint,
    /// A reconciliation pass over the provider's list API.
    Sweep,
    /// A pass over a chosen past range of the provider's list API.
    Backfill,
    /// A polling trigger.
    Poll,
    /// A schedule.
    Schedule,
    /// A person started it.
    Manual,
    /// A program started it.
    Api,
    /// A step of another run.
    Workflow,
}

impl From<Source> for EventSource {
    fn from(source: Source) -> Self {
        match source {
            Source::Endpoint => EventSource::Endpoint,
            Source::Sweep => EventSource::Sweep,
            Source::Backfill => EventSource::Backfill,
            Source::Poll => EventSource::Poll,
            Source::Schedule => EventSource::Schedule,
            Source::Manual => EventSource::Manual,
            Source::Api => EventSource::Api,
            Source::Workflow => EventSource::Workflow,
        }
    }
}
