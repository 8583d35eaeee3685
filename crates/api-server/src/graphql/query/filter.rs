//! Which events and runs a list shows.

use super::super::errors::{ApiError, ApiResult};
use super::super::scalars::DateTime;
use super::super::types::node::parse_id;
use super::super::types::run::RunStatus;
use crate::problem::Code;
use async_graphql::{ID, InputObject};
use weir_storage::{EventFilter as StoredEventFilter, RunFilter as StoredRunFilter};
use weir_workflow_engine::WorkflowId;

/// Which events. All conditions must hold; what is left out does not matter.
#[derive(Debug, Default, InputObject)]
pub(crate) struct EventFilter {
    /// Exactly this type at the provider.
    #[graphql(name = "type")]
    kind: Option<String>,
    /// Of this connector.
    connector: Option<String>,
    /// That came in by this endpoint.
    endpoint_id: Option<ID>,
    /// About the object with this id at the provider.
    reference_id: Option<String>,
    /// With this id at the provider.
    external_id: Option<String>,
    /// Received at this time or later.
    since: Option<DateTime>,
    /// Received before this time.
    until: Option<DateTime>,
}

impl EventFilter {
    pub(super) fn parse(self) -> ApiResult<StoredEventFilter> {
        Ok(StoredEventFilter {
            kind: self.kind,
            connector: self.connector,
            endpoint: self.endpoint_id.as_ref().map(parse_id).transpose()?,
            ref_id: self.reference_id,
            external_id: self.external_id,
            since: self.since.map(|time| time.0),
            until: self.until.map(|time| time.0),
        })
    }
}

/// Which runs. All conditions must hold; what is left out does not matter.
#[derive(Debug, Default, InputObject)]
pub(crate) struct RunFilter {
    /// With this status.
    status: Option<RunStatus>,
    /// Of the workflow with this id.
    workflow_id: Option<ID>,
    /// Of the workflow with this name; when there is none, of the deleted one that had it last.
    pub(super) workflow: Option<String>,
    /// Of this event.
    pub(super) event_id: Option<ID>,
    /// True: only those that ended with `effect_unknown`, because nobody knows whether an effect took place. Also when a
    /// person has said by now what became of it.
    unknown_effects: Option<bool>,
    /// That failed with this code, such as `http_503`.
    error_code: Option<String>,
    /// Started at this time or later.
    since: Option<DateTime>,
    /// Started before this time.
    until: Option<DateTime>,
}

impl RunFilter {
    /// `named`: the workflow of the name in it. `None`: no run can match, since there is no such workflow.
    pub(super) fn parse(self, named: Option<WorkflowId>) -> ApiResult<Option<StoredRunFilter>> {
        let by_id: Option<WorkflowId> = self.workflow_id.as_ref().map(parse_id).transpose()?;
        let by_name = match (&self.workflow, named) {
            (None, _) => None,
            (Some(_), Some(id)) => Some(id),
            (Some(_), None) => return Ok(None),
        };
        if by_id.is_some() && by_name.is_some() {
            return Err(ApiError::new(Code::BadRequest, "give either workflowId or workflow"));
        }
        Ok(Some(StoredRunFilter {
            status: self.status.map(Into::into),
            workflow: by_id.or(by_name),
            unknown: self.unknown_effects.unwrap_or(false),
            error_code: self.error_code,
            since: self.since.map(|time| time.0),
            until: self.until.map(|time| time.0),
        }))
    }
}
