//! The `Node` interface: anything with an id, found by it.

use super::super::caller::Caller;
use super::super::errors::{ApiError, ApiResult};
use super::connection::Connection;
use super::endpoint::Endpoint;
use super::event::{self, Event};
use super::run::{self, Run};
use super::token::ApiToken;
use super::workflow::{Workflow, WorkflowVersion, load_version};
use crate::auth::Permission;
use crate::problem::Code;
use async_graphql::{Context, ID, Interface};
use std::str::FromStr;
use weir_workflow_engine::{ConnectionId, EndpointId, EventId, IdError, RunId, TokenId, VersionId, WorkflowId};

/// Anything with an id.
#[derive(Interface)]
#[expect(clippy::large_enum_variant, reason = "one is made per request and moved once")]
#[graphql(field(name = "id", ty = "ID", desc = "Its id; the prefix names the kind of thing."))]
pub(crate) enum Node {
    /// A connection.
    Connection(Connection),
    /// An endpoint.
    Endpoint(Endpoint),
    /// A workflow.
    Workflow(Workflow),
    /// A version of a workflow.
    WorkflowVersion(WorkflowVersion),
    /// An event.
    Event(Event),
    /// A run.
    Run(Run),
    /// An API token.
    ApiToken(ApiToken),
}

/// Reads an id of one kind.
pub(crate) fn parse_id<T: FromStr<Err = IdError>>(id: &ID) -> ApiResult<T> {
    id.as_str()
        .parse()
        .map_err(|error: IdError| ApiError::new(Code::InvalidId, error.to_string()))
}

/// Finds a thing by its id; the prefix says where to look.
pub(crate) async fn load(ctx: &Context<'_>, id: &ID) -> ApiResult<Option<Node>> {
    let caller = Caller::of(ctx);
    let prefix = id
        .as_str()
        .split_once('_')
        .map(|(prefix, _)| prefix.to_ascii_lowercase())
        .unwrap_or_default();
    Ok(match prefix.as_str() {
        "conn" => {
            let (snapshot, workspace) = caller.config()?;
            Connection::by_id(&snapshot, workspace, parse_id::<ConnectionId>(id)?).map(Node::from)
        }
        "ep" => {
            let (snapshot, workspace) = caller.config()?;
            Endpoint::by_id(&snapshot, workspace, parse_id::<EndpointId>(id)?).map(Node::from)
        }
        "wf" => {
            let (snapshot, workspace) = caller.config()?;
            Workflow::by_id(&snapshot, workspace, parse_id::<WorkflowId>(id)?).map(Node::from)
        }
        "wfv" => load_version(ctx, Some(parse_id::<VersionId>(id)?), Permission::ConfigRead)
            .await?
            .map(Node::from),
        "evt" => event::load(ctx, parse_id::<EventId>(id)?).await?.map(Node::from),
        "run" => run::load(ctx, parse_id::<RunId>(id)?).await?.map(Node::from),
        "tok" => {
            let id = parse_id::<TokenId>(id)?;
            let workspace = caller.may(Permission::TokenAdmin)?;
            let found = caller
                .any()
                .snapshot()
                .tokens(workspace)
                .find(|row| row.id == id)
                .cloned();
            found.map(|row| Node::from(ApiToken(row)))
        }
        _ => {
            return Err(ApiError::new(
                Code::InvalidId,
                format!(
                    "no kind of thing has ids like {:?}",
                    id.as_str().chars().take(64).collect::<String>()
                ),
            ));
        }
    })
}
