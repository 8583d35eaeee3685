//! Requests that were turned away at the door.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::scalars::DateTime;
use super::body::Body;
use super::endpoint::Endpoint;
use super::header::{self, Header};
use async_graphql::{Context, ID, Object};
use weir_storage::RefusedRow;

/// A request that was turned away.
#[derive(Debug)]
pub(crate) struct RefusedRequest(pub(crate) RefusedRow);

/// A webhook request that was turned away, kept for a day so that a person can see why. Needs `PAYLOAD_READ`.
#[Object]
impl RefusedRequest {
    /// Its id.
    async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// The endpoint it was sent to. Null: it was deleted.
    async fn endpoint(&self, ctx: &Context<'_>) -> ApiResult<Option<Endpoint>> {
        let (snapshot, workspace) = Caller::of(ctx).config()?;
        Ok(self.0.endpoint.and_then(|id| Endpoint::by_id(&snapshot, workspace, id)))
    }

    /// When it came.
    async fn received_at(&self) -> DateTime {
        DateTime(self.0.received_at)
    }

    /// Stable name of the reason, such as `bad_signature`.
    async fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The reason in words.
    async fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Address of the sender.
    async fn client_ip(&self) -> Option<&str> {
        self.0.client_ip.as_deref()
    }

    /// Its headers, secret values redacted.
    async fn headers(&self) -> Vec<Header> {
        header::from_json(&self.0.headers)
    }

    /// The beginning of its body.
    async fn body(&self) -> Body {
        Body {
            bytes: self.0.body.clone(),
            size_bytes: self.0.body_bytes,
        }
    }
}
