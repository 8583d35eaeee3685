//! The caller inside resolvers: every read and write goes through here, so none can forget to ask for the permission.
//!
//! A resolver gets the workspace only together with a permission, and the store only while the request's budget of reads
//! lasts. That budget is what keeps nested queries from turning into thousands of statements.

use super::errors::{ApiError, ApiResult};
use crate::auth::{Permission, Principal};
use crate::problem::Code;
use async_graphql::Context;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::OnceCell;
use weir_orchestrator::Orchestrator;
use weir_orchestrator::configure::Actor;
use weir_orchestrator::snapshot::Snapshot;
use weir_storage::{RefusedCount, Store};
use weir_workflow_engine::{Timestamp, WorkspaceId};

/// Most reads of the database in one request: a page of 100 with a few relations each.
///
/// Limit: reads of the database in one request | `COST_EXCEEDED` | `pages_stop_at_their_bound`
pub(crate) const MAX_READS: u32 = 500;
/// Refused requests are counted over the last day.
const REFUSED_SPAN_MS: i64 = 24 * 3_600_000;

/// Who asks, for the time of one request.
pub(crate) struct Caller {
    orchestrator: Orchestrator,
    principal: Principal,
    reads: AtomicU32,
    refused_counts: OnceCell<Vec<RefusedCount>>,
}

impl Caller {
    /// A caller with a full budget.
    pub(crate) fn new(orchestrator: Orchestrator, principal: Principal) -> Self {
        Caller {
            orchestrator,
            principal,
            reads: AtomicU32::new(0),
            refused_counts: OnceCell::new(),
        }
    }

    /// The caller of a request.
    pub(crate) fn of<'a>(ctx: &Context<'a>) -> &'a Caller {
        ctx.data_unchecked::<Caller>()
    }

    /// Who it is.
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Who it is, for the audit trail.
    pub(crate) fn actor(&self) -> Actor {
        Actor {
            name: self.principal.name.clone(),
            token: self.principal.token,
        }
    }

    /// The caller's workspace, if it has the permission.
    pub(crate) fn may(&self, permission: Permission) -> ApiResult<WorkspaceId> {
        if self.principal.may(permission) {
            Ok(self.principal.workspace)
        } else {
            Err(ApiError::new(
                Code::Forbidden,
                format!("this needs the permission {}", permission.as_str()),
            ))
        }
    }

    /// The first of these permissions that the caller has.
    pub(crate) fn any_of(&self, permissions: &[Permission]) -> ApiResult<Permission> {
        let had = permissions
            .iter()
            .find(|permission| self.principal.may(**permission))
            .copied();
        had.ok_or_else(|| {
            let names: Vec<_> = permissions.iter().map(|permission| permission.as_str()).collect();
            ApiError::new(
                Code::Forbidden,
                format!("this needs the permission {}", names.join(" or ")),
            )
        })
    }

    /// The configuration in memory.
    pub(crate) fn config(&self) -> ApiResult<(Arc<Snapshot>, WorkspaceId)> {
        let workspace = self.may(Permission::ConfigRead)?;
        Ok((self.orchestrator.snapshot(), workspace))
    }

    /// The database, for one read.
    pub(crate) fn read(&self, permission: Permission) -> ApiResult<(&Store, WorkspaceId)> {
        let workspace = self.may(permission)?;
        self.spend(1)?;
        Ok((self.orchestrator.store(), workspace))
    }

    /// The database, for a number about what the caller has been shown already.
    pub(crate) fn counting(&self) -> ApiResult<(&Store, WorkspaceId)> {
        self.spend(1)?;
        Ok((self.orchestrator.store(), self.principal.workspace))
    }

    /// The orchestrator, for one call of it.
    pub(crate) fn orchestrator(&self, permission: Permission) -> ApiResult<(&Orchestrator, WorkspaceId)> {
        let workspace = self.may(permission)?;
        self.spend(4)?;
        Ok((&self.orchestrator, workspace))
    }

    /// Why no workflow called `name` can be used, and which one may be meant: for those who may see their names.
    pub(crate) fn no_workflow(&self, name: &str) -> (String, Option<String>) {
        let (snapshot, workspace) = (self.orchestrator.snapshot(), self.principal.workspace);
        if snapshot.workflow(workspace, name).is_some() {
            return (format!("workflow `{name}` is a draft: publish it first"), None);
        }
        let seeing = [Permission::ConfigRead, Permission::RunRead, Permission::RunOperate];
        let near = self
            .any_of(&seeing)
            .ok()
            .and_then(|_| snapshot.near_workflow(workspace, name));
        (format!("there is no workflow `{name}`"), near)
    }

    /// For what needs no permission.
    pub(crate) fn any(&self) -> &Orchestrator {
        &self.orchestrator
    }

    /// How many requests were refused in the last 24 hours, by endpoint, hour and reason: read once for all endpoints.
    pub(crate) async fn refused_counts(&self) -> ApiResult<&[RefusedCount]> {
        let (store, workspace) = (self.orchestrator.store(), self.may(Permission::RunRead)?);
        let counts = self.refused_counts.get_or_try_init(|| async {
            self.spend(1)?;
            let now = self.orchestrator.now().as_unix_ms();
            let since = Timestamp::from_unix_ms(now - REFUSED_SPAN_MS);
            store
                .refused_counts(workspace, since)
                .await
                .map_err(|error| ApiError::internal("counting refused requests", &error))
        });
        Ok(counts.await?)
    }

    fn spend(&self, reads: u32) -> ApiResult<()> {
        if self.reads.fetch_add(reads, Ordering::Relaxed) >= MAX_READS {
            return Err(ApiError::new(
                Code::CostExceeded,
                format!("one request may read {MAX_READS} times; ask for smaller pages or fewer relations"),
            ));
        }
        Ok(())
    }
}
