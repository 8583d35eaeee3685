//! The root of everything that can be read.

mod filter;

use filter::{EventFilter, RunFilter};

use super::caller::Caller;
use super::errors::{ApiError, ApiResult};
use super::paging::{Listing, Page};
use super::scalars::Json;
use super::types::approval::{self, Approval};
use super::types::audit::{AuditEntry, AuditFilter};
use super::types::bulk::{self, BulkFilterInput, BulkOperation, BulkReplayPreview};
use super::types::bulk_request::{BulkRequest, BulkRequestPreview, OpenRunFilterInput};
use super::types::bulk_resolve::{BulkResolvePreview, EffectResolution, UnknownEffectFilterInput};
use super::types::connection::Connection;
use super::types::connector::{Connector, ConnectorVersion};
use super::types::dead_letter::{self, DeadLetterCause, DeadLetterCauses, DeadLetterState, cause_key};
use super::types::endpoint::Endpoint;
use super::types::event::{self, Event};
use super::types::lane::HeldLane;
use super::types::node::{self, Node, parse_id};
use super::types::outgoing::OutgoingEvent;
use super::types::refused_request::RefusedRequest;
use super::types::replay_preview::{ReplayOptionsInput, ReplayPreview};
use super::types::run::{self, Run};
use super::types::step::with_particular;
use super::types::token::ApiToken;
use super::types::viewer::{ServerInfo, Viewer, Workspace};
use super::types::workflow::Workflow;
use super::user_error::UserError;
use crate::auth::Permission;
use crate::problem::Code;
use async_graphql::{Context, ID, Object};
use weir_orchestrator::control::ControlError;
use weir_orchestrator::operate::Approval as Asked;
use weir_orchestrator::repair::ReplayOptions;
use weir_storage::{
    Page as StoredPage, RefusedFilter, RunFilter as StoredRunFilter, RunRow, RunStatus as StoredStatus,
};
use weir_workflow_engine::{BulkId, ConnectionId, EndpointId, EventId, OutgoingId, RefusalId, RunId, WorkflowId};

/// Everything that can be read.
pub(crate) struct Query;

/// Everything that can be read. A thing that is not there, or not yours, is null.
#[Object]
impl Query {
    /// Who is asking.
    async fn viewer(&self, ctx: &Context<'_>) -> Viewer {
        let caller = Caller::of(ctx);
        let principal = caller.principal();
        let snapshot = caller.any().snapshot();
        Viewer {
            name: principal.name.clone(),
            token_id: principal.token.map(|id| id.to_string().into()),
            permissions: principal.permissions().to_vec(),
            workspace: Workspace {
                id: principal.workspace.to_string().into(),
                name: snapshot
                    .workspace_name(principal.workspace)
                    .unwrap_or_default()
                    .to_owned(),
            },
        }
    }

    /// This server and whether it can do its work.
    async fn server_info(&self, ctx: &Context<'_>) -> ServerInfo {
        let readiness = Caller::of(ctx).any().readiness();
        ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: readiness.ready,
            reasons: readiness.reasons,
        }
    }

    /// Anything with an id. Needs the permission of the thing.
    async fn node(&self, ctx: &Context<'_>, #[graphql(desc = "Id of the thing.")] id: ID) -> ApiResult<Option<Node>> {
        node::load(ctx, &id).await
    }

    /// All connectors, by name: those of this server, and the newest version of those that the workspace published.
    /// Needs `CONFIG_READ`.
    async fn connectors(&self, ctx: &Context<'_>) -> ApiResult<Vec<Connector>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        let connectors = snapshot.connectors(workspace);
        Ok(connectors.iter().cloned().map(Connector).collect())
    }

    /// The versions of connectors that the workspace published, by name and version. Needs `CONFIG_READ`.
    async fn connector_versions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Those of this connector alone.")] name: Option<String>,
    ) -> ApiResult<Vec<ConnectorVersion>> {
        let (orchestrator, workspace) = Caller::of(ctx).orchestrator(Permission::ConfigRead)?;
        let all = orchestrator.connector_versions(workspace).into_iter();
        let wanted = all.filter(|version| name.as_ref().is_none_or(|name| version.name == *name));
        Ok(wanted.map(ConnectorVersion::from).collect())
    }

    /// A connector. Needs `CONFIG_READ`.
    async fn connector(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its name; of a published one the newest version, or `name@version`.")] name: String,
    ) -> ApiResult<Option<Connector>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        let connectors = snapshot.connectors(workspace);
        Ok(connectors.get(&name).cloned().map(Connector))
    }

    /// All connections, by name. Needs `CONFIG_READ`.
    async fn connections(&self, ctx: &Context<'_>) -> ApiResult<Vec<Connection>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        Ok(Connection::all(&snapshot, workspace))
    }

    /// A connection, by id or by name. Needs `CONFIG_READ`.
    async fn connection(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id. Give this or `name`.")] id: Option<ID>,
        #[graphql(desc = "Its name. Give this or `id`.")] name: Option<String>,
    ) -> ApiResult<Option<Connection>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        Ok(match which(id, name)? {
            Which::Id(id) => Connection::by_id(&snapshot, workspace, parse_id::<ConnectionId>(&id)?),
            Which::Name(name) => Connection::by_name(&snapshot, workspace, &name),
        })
    }

    /// All endpoints, by name. Needs `CONFIG_READ`.
    async fn endpoints(&self, ctx: &Context<'_>) -> ApiResult<Vec<Endpoint>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        Ok(Endpoint::all(&snapshot, workspace))
    }

    /// An endpoint, by id or by name. Needs `CONFIG_READ`.
    async fn endpoint(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id. Give this or `name`.")] id: Option<ID>,
        #[graphql(desc = "Its name. Give this or `id`.")] name: Option<String>,
    ) -> ApiResult<Option<Endpoint>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        Ok(match which(id, name)? {
            Which::Id(id) => Endpoint::by_id(&snapshot, workspace, parse_id::<EndpointId>(&id)?),
            Which::Name(name) => Endpoint::by_name(&snapshot, workspace, &name),
        })
    }

    /// All workflows, by name. Needs `CONFIG_READ`.
    async fn workflows(&self, ctx: &Context<'_>) -> ApiResult<Vec<Workflow>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        Ok(Workflow::all(&snapshot, workspace))
    }

    /// A workflow, by id or by name. Needs `CONFIG_READ`.
    async fn workflow(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id. Give this or `name`.")] id: Option<ID>,
        #[graphql(desc = "Its name. Give this or `id`.")] name: Option<String>,
    ) -> ApiResult<Option<Workflow>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        Ok(match which(id, name)? {
            Which::Id(id) => Workflow::by_id(&snapshot, workspace, parse_id::<WorkflowId>(&id)?),
            Which::Name(name) => Workflow::by_name(&snapshot, workspace, &name),
        })
    }

    /// The whole configuration as the documents that `applyDocuments` takes, without secrets. Needs `CONFIG_READ`.
    async fn documents(&self, ctx: &Context<'_>) -> ApiResult<Vec<Json>> {
        let caller = Caller::of(ctx);
        let workspace = caller.may(Permission::ConfigRead)?;
        Ok(caller.any().export(workspace).into_iter().map(Json).collect())
    }

    /// Events, newest first. Needs `RUN_READ`.
    async fn events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many, 1 to 100; 25 when left out.")] first: Option<i32>,
        #[graphql(desc = "`pageInfo.endCursor` of the page before, with the same filter.")] after: Option<String>,
        #[graphql(desc = "Which events; all conditions must hold.")] filter: Option<EventFilter>,
    ) -> ApiResult<Page<Event>> {
        let filter = filter.unwrap_or_default().parse()?;
        let listing = Listing::new("events", &format!("{filter:?}"));
        let (limit, before) = (
            Listing::limit(first)?,
            listing.after(after.as_deref())?.map(EventId::from_raw),
        );
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let rows = store
            .event_page(workspace, &filter, before, limit)
            .await
            .map_err(|error| ApiError::internal("reading events", &error))?;
        Ok(listing.page(rows, EventId::as_raw, Event::listed))
    }

    /// An event. Needs `RUN_READ`.
    async fn event(&self, ctx: &Context<'_>, #[graphql(desc = "Its id.")] id: ID) -> ApiResult<Option<Event>> {
        event::load(ctx, parse_id(&id)?).await
    }

    /// Runs, newest first. Needs `RUN_READ`.
    async fn runs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many, 1 to 100; 25 when left out.")] first: Option<i32>,
        #[graphql(desc = "`pageInfo.endCursor` of the page before, with the same filter.")] after: Option<String>,
        #[graphql(desc = "Which runs; all conditions must hold.")] filter: Option<RunFilter>,
    ) -> ApiResult<Page<Run>> {
        let caller = Caller::of(ctx);
        let filter = filter.unwrap_or_default();
        let listing = Listing::new("runs", &format!("{filter:?}"));
        let (limit, before) = (
            Listing::limit(first)?,
            listing.after(after.as_deref())?.map(RunId::from_raw),
        );
        let event = filter.event_id.as_ref().map(parse_id::<EventId>).transpose()?;
        let (store, workspace) = caller.read(Permission::RunRead)?;
        let named = match &filter.workflow {
            None => None,
            Some(name) => {
                let alive = caller.any().snapshot();
                let alive = alive.workflow(workspace, name).map(|workflow| workflow.row.id);
                match alive {
                    Some(id) => Some(id),
                    None => store
                        .workflow_once_named(workspace, name)
                        .await
                        .map_err(|error| ApiError::internal("looking for a workflow", &error))?,
                }
            }
        };
        let stored = filter.parse(named)?;
        let rows = match (stored, event) {
            (None, _) => Ok(StoredPage {
                rows: Vec::new(),
                next: None,
            }),
            (Some(filter), None) => store.run_page(workspace, &filter, before, limit).await,
            // An event has few runs: they are read together and chosen here.
            (Some(filter), Some(event)) => store
                .event_runs(workspace, event)
                .await
                .map(|rows| choose(rows, &filter, before, limit)),
        };
        let rows = rows.map_err(|error| ApiError::internal("reading runs", &error))?;
        Ok(listing.page(rows, RunId::as_raw, Run::from_row))
    }

    /// A run. Needs `RUN_READ`.
    async fn run(&self, ctx: &Context<'_>, #[graphql(desc = "Its id.")] id: ID) -> ApiResult<Option<Run>> {
        run::load(ctx, parse_id(&id)?).await
    }

    /// Decisions that people are asked for, those of the newest runs first. Needs `RUN_READ`, or `RUN_APPROVE`.
    async fn approvals(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many, 1 to 100; 25 when left out. All of one run come together.")] first: Option<i32>,
        #[graphql(desc = "`pageInfo.endCursor` of the page before.")] after: Option<String>,
    ) -> ApiResult<Page<Approval>> {
        let listing = Listing::new("approvals", "");
        let (limit, before) = (
            Listing::limit(first)?,
            listing.after(after.as_deref())?.map(RunId::from_raw),
        );
        let (store, workspace) = {
            let caller = Caller::of(ctx);
            caller.read(caller.any_of(&approval::TO_SEE)?)?
        };
        let rows = store
            .approval_page(workspace, before, limit)
            .await
            .map_err(|error| ApiError::internal("reading approvals", &error))?;
        Ok(listing.page(rows, RunId::as_raw, |row| Approval(Asked::from_row(row))))
    }

    /// Lanes that a failed run keeps, those with the newest runs first. Needs `RUN_READ`.
    async fn held_lanes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many, 1 to 100; 25 when left out.")] first: Option<i32>,
        #[graphql(desc = "`pageInfo.endCursor` of the page before.")] after: Option<String>,
    ) -> ApiResult<Page<HeldLane>> {
        let listing = Listing::new("held lanes", "");
        let (limit, before) = (
            Listing::limit(first)?,
            listing.after(after.as_deref())?.map(RunId::from_raw),
        );
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let rows = store
            .held_lanes(workspace, None, before, limit)
            .await
            .map_err(|error| ApiError::internal("reading held lanes", &error))?;
        Ok(listing.page(rows, RunId::as_raw, HeldLane))
    }

    /// Outgoing events, newest first. Needs `RUN_READ`.
    async fn outgoing_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many, 1 to 100; 25 when left out.")] first: Option<i32>,
        #[graphql(desc = "`pageInfo.endCursor` of the page before.")] after: Option<String>,
    ) -> ApiResult<Page<OutgoingEvent>> {
        let listing = Listing::new("outgoing", "");
        let (limit, before) = (
            Listing::limit(first)?,
            listing.after(after.as_deref())?.map(OutgoingId::from_raw),
        );
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let rows = store
            .outgoing_page(workspace, before, limit)
            .await
            .map_err(|error| ApiError::internal("reading outgoing events", &error))?;
        Ok(listing.page(rows, OutgoingId::as_raw, OutgoingEvent))
    }

    /// The audit trail, newest first: who changed what, and when. Needs `AUDIT_READ`.
    async fn audit(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many, 1 to 100; 25 when left out.")] first: Option<i32>,
        #[graphql(desc = "`pageInfo.endCursor` of the page before, with the same filter.")] after: Option<String>,
        #[graphql(desc = "Which entries; all conditions must hold.")] filter: Option<AuditFilter>,
    ) -> ApiResult<Page<AuditEntry>> {
        let listing = Listing::new("audit", &format!("{filter:?}"));
        let filter = filter.unwrap_or_default().parse(ctx)?;
        let (limit, before) = (Listing::limit(first)?, listing.after(after.as_deref())?);
        let (store, workspace) = Caller::of(ctx).read(Permission::AuditRead)?;
        let rows = store
            .audit_page(workspace, &filter, before, limit)
            .await
            .map_err(|error| ApiError::internal("reading the audit trail", &error))?;
        Ok(listing.page(rows, |id| id, AuditEntry))
    }

    /// Webhook requests that were turned away, newest first. They are kept for a day. Needs `PAYLOAD_READ`.
    async fn refused_requests(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only those sent to this endpoint.")] endpoint_id: Option<ID>,
        #[graphql(desc = "Only those refused for this reason, such as `bad_signature`.")] reason: Option<String>,
        #[graphql(desc = "How many, 1 to 100; 25 when left out.")] first: Option<i32>,
        #[graphql(desc = "`pageInfo.endCursor` of the page before, with the same endpoint and reason.")] after: Option<
            String,
        >,
    ) -> ApiResult<Page<RefusedRequest>> {
        let endpoint = endpoint_id.as_ref().map(parse_id::<EndpointId>).transpose()?;
        let listing = Listing::new("refused", &format!("{endpoint:?} {reason:?}"));
        let (limit, before) = (
            Listing::limit(first)?,
            listing.after(after.as_deref())?.map(RefusalId::from_raw),
        );
        let (store, workspace) = Caller::of(ctx).read(Permission::PayloadRead)?;
        let rows = store
            .refused_page(workspace, &RefusedFilter { endpoint, reason }, before, limit)
            .await
            .map_err(|error| ApiError::internal("reading refused requests", &error))?;
        Ok(listing.page(rows, RefusalId::as_raw, RefusedRequest))
    }

    /// What a replay of a run would do. Nothing is sent. Null: there is no such run. Needs `RUN_OPERATE`.
    async fn replay_preview(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The run to replay.")] run_id: ID,
        #[graphql(desc = "Where it begins, on which version, with which event.")] options: Option<ReplayOptionsInput>,
    ) -> ApiResult<Option<ReplayPreview>> {
        let run: RunId = parse_id(&run_id)?;
        let (orchestrator, workspace) = Caller::of(ctx).orchestrator(Permission::RunOperate)?;
        let options = parse_options(options)?;
        match orchestrator.replay_preview(workspace, run, &options).await {
            Ok(prepared) => Ok(Some(ReplayPreview::shown(prepared, ctx))),
            Err(ControlError::NotFound) => Ok(None),
            Err(ControlError::NotReplayable { why, quoted }) => {
                let why = with_particular(ctx, why, quoted);
                Err(ApiError::new(
                    Code::BadRequest,
                    format!("the run cannot be replayed: {why}"),
                ))
            }
            Err(error @ ControlError::Invalid(_)) => Err(ApiError::new(
                Code::BadRequest,
                format!("the edited event does not fit: {error}"),
            )),
            Err(other) => Err(ApiError::internal("previewing a replay", &other)),
        }
    }

    /// What replaying every run that fits the filter would do, in sum. Nothing is sent. Needs `RUN_OPERATE`.
    async fn bulk_replay_preview(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which runs.")] filter: BulkFilterInput,
        #[graphql(desc = "Where each begins and on which version.")] options: Option<ReplayOptionsInput>,
    ) -> ApiResult<BulkReplayPreview> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let options = parse_options(options)?;
        let filter = filter.parse().map_err(|wrong| ApiError::new(Code::BadRequest, wrong))?;
        let preview = orchestrator.bulk_preview(workspace, &filter, &options).await;
        preview
            .map(Into::into)
            .map_err(no_preview("previewing replays", caller, filter.workflow.as_deref()))
    }

    /// Which open runs fit the filter and what they are at, in sum. Nothing is asked of them. Needs `RUN_OPERATE`.
    async fn bulk_request_preview(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which open runs.")] filter: OpenRunFilterInput,
        #[graphql(desc = "What would be asked.")] request: BulkRequest,
    ) -> ApiResult<BulkRequestPreview> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let filter = filter.parse().map_err(|wrong| ApiError::new(Code::BadRequest, wrong))?;
        let preview = orchestrator
            .bulk_request_preview(workspace, &filter, request.into())
            .await;
        preview.map(Into::into).map_err(no_preview(
            "previewing a request to runs",
            caller,
            filter.workflow.as_deref(),
        ))
    }

    /// Which effects of unknown fate fit the filter, in sum. Nothing is said about them. Needs `RUN_OPERATE`.
    async fn bulk_resolve_preview(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which effects.")] filter: UnknownEffectFilterInput,
        #[graphql(desc = "What would be said.")] resolution: EffectResolution,
    ) -> ApiResult<BulkResolvePreview> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::RunOperate)?;
        let filter = filter.parse().map_err(|wrong| ApiError::new(Code::BadRequest, wrong))?;
        let preview = orchestrator
            .bulk_resolve_preview(workspace, &filter, resolution.into())
            .await;
        preview
            .map(Into::into)
            .map_err(no_preview("previewing decisions", caller, filter.workflow.as_deref()))
    }

    /// Operations on many runs, newest first. Needs `RUN_READ`.
    async fn bulk_operations(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many, 1 to 100; 25 when left out.")] first: Option<i32>,
        #[graphql(desc = "`pageInfo.endCursor` of the page before.")] after: Option<String>,
    ) -> ApiResult<Page<BulkOperation>> {
        let listing = Listing::new("bulk", "");
        let (limit, before) = (
            Listing::limit(first)?,
            listing.after(after.as_deref())?.map(BulkId::from_raw),
        );
        let (store, workspace) = Caller::of(ctx).read(Permission::RunRead)?;
        let rows = store
            .bulk_page(workspace, before, limit)
            .await
            .map_err(|error| ApiError::internal("reading operations on runs", &error))?;
        Ok(listing.page(rows, BulkId::as_raw, BulkOperation::from_row))
    }

    /// An operation on many runs. Needs `RUN_READ`.
    async fn bulk_operation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id.")] id: ID,
    ) -> ApiResult<Option<BulkOperation>> {
        bulk::load(ctx, parse_id(&id)?).await
    }

    /// Why runs failed that nobody has taken care of: dead letters by their causes, the last failed first. Needs
    /// `RUN_READ`.
    async fn dead_letter_causes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only those of the workflow with this name.")] workflow: Option<String>,
        #[graphql(desc = "Only those that stand here; OPEN when left out.")] state: Option<DeadLetterState>,
    ) -> ApiResult<DeadLetterCauses> {
        let caller = Caller::of(ctx);
        let (store, workspace) = caller.read(Permission::RunRead)?;
        let workflow = match workflow {
            None => None,
            Some(name) => match caller.any().snapshot().workflow(workspace, &name) {
                Some(workflow) => Some(workflow.row.id),
                None => {
                    let (nodes, more) = (Vec::new(), false);
                    return Ok(DeadLetterCauses { nodes, more });
                }
            },
        };
        let (mut rows, more) = store
            .cause_list(workspace, workflow)
            .await
            .map_err(|error| ApiError::internal("reading dead letters", &error))?;
        let state = state.unwrap_or(DeadLetterState::Open);
        rows.retain(|row| DeadLetterState::from(row.state) == state);
        rows.sort_by_key(|row| std::cmp::Reverse((row.last_at, row.sample)));
        Ok(DeadLetterCauses {
            nodes: rows.into_iter().map(DeadLetterCause).collect(),
            more,
        })
    }

    /// Dead letters with one cause. Null: there are none. Needs `RUN_READ`.
    async fn dead_letter_cause(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id.")] id: ID,
    ) -> ApiResult<Option<DeadLetterCause>> {
        match cause_key(&id) {
            Some(key) => dead_letter::load(ctx, key).await,
            None => Err(ApiError::new(Code::InvalidId, "this is not the id of a cause")),
        }
    }

    /// All API tokens, by name. The tokens themselves are never shown. Needs `TOKEN_ADMIN`.
    async fn tokens(&self, ctx: &Context<'_>) -> ApiResult<Vec<ApiToken>> {
        let caller = Caller::of(ctx);
        let workspace = caller.may(Permission::TokenAdmin)?;
        let mut rows: Vec<_> = caller.any().snapshot().tokens(workspace).cloned().collect();
        rows.sort_by(|one, other| (&one.name, one.id).cmp(&(&other.name, other.id)));
        Ok(rows.into_iter().map(ApiToken).collect())
    }
}

fn parse_options(options: Option<ReplayOptionsInput>) -> ApiResult<ReplayOptions> {
    options.unwrap_or_default().parse().map_err(|errors| {
        let texts: Vec<&str> = errors.iter().map(UserError::text).collect();
        ApiError::new(Code::BadRequest, texts.join("; "))
    })
}

/// A page of runs that were read together, oldest first.
fn choose(
    mut rows: Vec<RunRow>,
    filter: &StoredRunFilter,
    before: Option<RunId>,
    limit: u32,
) -> StoredPage<RunRow, RunId> {
    rows.retain(|row| {
        before.is_none_or(|before| row.id < before)
            && filter.status.is_none_or(|status| row.status == status)
            && filter.workflow.is_none_or(|workflow| row.workflow_id == workflow)
            && filter.since.is_none_or(|since| row.started_at >= since)
            && filter.until.is_none_or(|until| row.started_at < until)
            && filter
                .error_code
                .as_deref()
                .is_none_or(|code| row.status == StoredStatus::Failed && row.error_code.as_deref() == Some(code))
            && (!filter.unknown
                || (row.status == StoredStatus::Failed && row.error_code.as_deref() == Some("effect_unknown")))
    });
    rows.reverse();
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|row| row.id);
    StoredPage { rows, next }
}

enum Which {
    Id(ID),
    Name(String),
}

fn which(id: Option<ID>, name: Option<String>) -> ApiResult<Which> {
    match (id, name) {
        (Some(id), None) => Ok(Which::Id(id)),
        (None, Some(name)) => Ok(Which::Name(name)),
        _ => Err(ApiError::new(Code::BadRequest, "give either id or name")),
    }
}

/// Why a filter of runs has no preview; `workflow` is what it names.
fn no_preview<'a>(
    doing: &'static str,
    caller: &'a Caller,
    workflow: Option<&'a str>,
) -> impl FnOnce(ControlError) -> ApiError + 'a {
    move |error| match error {
        ControlError::NotFound => {
            let (message, near) = caller.no_workflow(workflow.unwrap_or_default());
            let message = near.map_or_else(|| message.clone(), |near| format!("{message} ({near})"));
            ApiError::new(Code::BadRequest, format!("filter: {message}"))
        }
        other => ApiError::internal(doing, &other),
    }
}
