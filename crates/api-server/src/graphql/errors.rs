//! Errors of resolvers, and the code that every error in an answer carries.
//!
//! A resolver error always has a code from the catalogue. The library's own errors have none; they get one by the stage at
//! which the request failed. An internal cause is logged once, under a request id, and never shown.

use crate::problem::{Code, Problem, docs_path};
use async_graphql::extensions::{
    Extension, ExtensionContext, ExtensionFactory, NextExecute, NextParseQuery, NextResolve, NextValidation,
    ResolveInfo,
};
use async_graphql::parser::types::ExecutableDocument;
use async_graphql::{Response, ServerError, ServerResult, ValidationResult, Value, Variables, async_trait};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use weir_storage::ReadError;

/// What resolvers return.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

/// A field could not be served.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    problem: Problem,
    request_id: Option<String>,
}

impl ApiError {
    /// An error of this kind; `message` is shown.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        ApiError {
            problem: Problem::new(code, message),
            request_id: None,
        }
    }

    /// Something broke on our side while doing `task`. The cause goes to the log only.
    pub(crate) fn internal(task: &str, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut chain = cause.to_string();
        let mut source = cause.source();
        while let Some(cause) = source {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            source = cause.source();
        }
        if is_away(cause) {
            tracing::warn!("{task} failed: {chain}");
            let message = format!("{task} failed: the database does not answer now; try again");
            return Self::new(Code::DatabaseUnavailable, message);
        }
        Self::internal_text(task, &chain)
    }

    /// As [`ApiError::internal`], for a cause that is only a text.
    pub(crate) fn internal_text(task: &str, cause: &str) -> Self {
        let request_id = format!("{:016x}", rand::random::<u64>());
        tracing::error!(request.id = %request_id, "request {request_id}: {task} failed: {cause}");
        ApiError {
            problem: Problem::new(Code::Internal, format!("{task} failed")),
            request_id: Some(request_id),
        }
    }
}

/// Whether something failed only because the database is away.
fn is_away(cause: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(cause);
    while let Some(cause) = next {
        if matches!(cause.downcast_ref::<ReadError>(), Some(ReadError::Unavailable(_))) {
            return true;
        }
        next = cause.source();
    }
    false
}

impl From<ApiError> for async_graphql::Error {
    fn from(error: ApiError) -> Self {
        let mut shown = async_graphql::Error::new(error.problem.detail);
        let mut extensions = extensions_of(error.problem.code);
        if let Some(id) = error.request_id {
            extensions.set("requestId", id);
        }
        shown.extensions = Some(extensions);
        shown
    }
}

fn extensions_of(code: Code) -> async_graphql::ErrorExtensionValues {
    let mut extensions = async_graphql::ErrorExtensionValues::default();
    extensions.set("code", code.as_str());
    extensions.set("docs", docs_path(code));
    extensions
}

/// An error of a whole request.
pub(crate) fn server_error(problem: &Problem) -> ServerError {
    let mut error = ServerError::new(problem.detail.clone(), None);
    error.extensions = Some(extensions_of(problem.code));
    error
}

/// How far a request came, and the errors that ended at a nullable field. Shared between the handler and [`StageWatch`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Stage(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    stage: AtomicU8,
    caught: Mutex<Vec<ServerError>>,
}

const PARSING: u8 = 0;
const VALIDATING: u8 = 1;
const CHOOSING: u8 = 2;
const EXECUTING: u8 = 3;

impl Stage {
    fn reach(&self, stage: u8) {
        self.0.stage.store(stage, Ordering::Relaxed);
    }

    fn catch(&self, error: ServerError) {
        self.0.caught.lock().unwrap_or_else(PoisonError::into_inner).push(error);
    }

    /// Whether a resolver may have run.
    pub(crate) fn executed(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) == EXECUTING
    }

    /// The code of errors that carry none. While executing, only arguments fail without a code of ours.
    fn code(&self) -> Code {
        match self.0.stage.load(Ordering::Relaxed) {
            PARSING => Code::ParseFailed,
            VALIDATING => Code::ValidationFailed,
            CHOOSING => Code::BadRequest,
            _ => Code::BadVariables,
        }
    }

    /// Adds the errors that ended at a nullable field, and gives every error a code.
    pub(crate) fn complete(&self, errors: &mut Vec<ServerError>) {
        errors.append(&mut self.0.caught.lock().unwrap_or_else(PoisonError::into_inner));
        for error in errors {
            let coded = error
                .extensions
                .as_ref()
                .is_some_and(|extensions| extensions.get("code").is_some());
            if !coded {
                error.extensions = Some(extensions_of(self.code()));
            }
        }
    }
}

/// Notes the stage of each request, and catches errors where the schema allows null.
pub(crate) struct StageWatch;

impl ExtensionFactory for StageWatch {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(StageWatch)
    }
}

fn reach(ctx: &ExtensionContext<'_>, stage: u8) {
    if let Some(own) = ctx.data_opt::<Stage>() {
        own.reach(stage);
    }
}

#[async_trait::async_trait]
impl Extension for StageWatch {
    async fn parse_query(
        &self,
        ctx: &ExtensionContext<'_>,
        query: &str,
        variables: &Variables,
        next: NextParseQuery<'_>,
    ) -> ServerResult<ExecutableDocument> {
        let document = next.run(ctx, query, variables).await?;
        reach(ctx, VALIDATING);
        Ok(document)
    }

    async fn validation(
        &self,
        ctx: &ExtensionContext<'_>,
        next: NextValidation<'_>,
    ) -> Result<ValidationResult, Vec<ServerError>> {
        let result = next.run(ctx).await?;
        reach(ctx, CHOOSING);
        Ok(result)
    }

    /// The library lets an error of a nullable field's own resolver take the parent along; the specification wants null
    /// at that field, and the rest of the page to stay.
    async fn resolve(
        &self,
        ctx: &ExtensionContext<'_>,
        info: ResolveInfo<'_>,
        next: NextResolve<'_>,
    ) -> ServerResult<Option<Value>> {
        let nullable = !info.return_type.ends_with('!');
        match (next.run(ctx, info).await, ctx.data_opt::<Stage>()) {
            (Err(error), Some(stage)) if nullable => {
                stage.catch(error);
                Ok(None)
            }
            (outcome, _) => outcome,
        }
    }

    async fn execute(
        &self,
        ctx: &ExtensionContext<'_>,
        operation_name: Option<&str>,
        next: NextExecute<'_>,
    ) -> Response {
        reach(ctx, EXECUTING);
        next.run(ctx, operation_name).await
    }
}
