//! What every worker thread shares: the orchestrator, the schema, the tokens and the counters. Nothing here changes.

use crate::auth::{self, AdminToken, Principal};
use crate::graphql::ApiSchema;
use crate::measure::Answers;
use crate::problem::{Code, Problem};
use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;
use std::sync::Arc;
use tokio::runtime::Handle;
use weir_orchestrator::{Orchestrator, Role};

/// Shared by all workers.
pub(crate) struct Shared {
    /// The door to everything else.
    pub(crate) orchestrator: Orchestrator,
    /// The GraphQL schema.
    pub(crate) schema: ApiSchema,
    /// The bootstrap token.
    pub(crate) admin_token: AdminToken,
    /// Text of `/metrics`.
    pub(crate) render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Counts answers.
    pub(crate) answers: Answers,
    /// The runtime that outlives the worker threads. Work that may open database connections runs there: a connection
    /// made on a worker's own runtime would die with the worker.
    pub(crate) runtime: Handle,
}

impl Shared {
    /// Refuses what other servers do.
    pub(crate) fn plays(&self, role: Role) -> Result<(), Problem> {
        let roles = self.orchestrator.roles();
        if roles.has(role) {
            return Ok(());
        }
        let detail = format!(
            "this server has the roles {roles}; this path is served by those with the role {}",
            role.name()
        );
        Err(Problem::new(Code::RoleElsewhere, detail))
    }

    /// Whose token the request carries. `None`: nobody's.
    pub(crate) fn principal(&self, request: &HttpRequest) -> Option<Principal> {
        let header = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let snapshot = self.orchestrator.snapshot();
        auth::identify(
            auth::bearer(header),
            &self.admin_token,
            self.orchestrator.default_workspace(),
            self.orchestrator.now(),
            |hash| snapshot.token(hash).cloned(),
        )
    }
}
