//! One page of a provider's list, for sweeps: its items, and the answer around them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use weir_connector_sdk::{Answer, AnswerBody, BuildError, CallContext, HttpResponse, Operation, Page};
use weir_workflow_engine::{CallFailure, CallOutcome};

use super::failure::refused;
use super::outside::{count_outside, known_operation};
use super::session::{Session, Watch, of_answer};
use super::{Performer, Purpose};
use crate::budget::Class;
use crate::clock::Stopwatch;
use crate::connection::Connection;

/// A page.
#[derive(Debug)]
pub(crate) struct ListPage {
    /// Its items, in the order of the list.
    pub(crate) items: Vec<Value>,
    /// The next page by the operation's own paging.
    pub(crate) next: Option<Page>,
    /// The whole answer; null when it is no JSON.
    pub(crate) body: Value,
}

impl Performer {
    /// Reads one page of a list. Its size is bounded by that of an answer.
    pub(crate) async fn list_page(
        &self,
        connection: &Arc<Connection>,
        operation: &str,
        args: Result<Value, BuildError>,
        page: Option<&Page>,
        (class, timeout): (Class, Duration),
    ) -> Result<ListPage, CallFailure> {
        let watch = Stopwatch::start();
        let result = self
            .read_page(connection, operation, args, page, (class, timeout))
            .await;
        count_outside(connection, operation, &result, watch.elapsed());
        result
    }

    async fn read_page(
        &self,
        connection: &Arc<Connection>,
        operation: &str,
        args: Result<Value, BuildError>,
        page: Option<&Page>,
        (class, timeout): (Class, Duration),
    ) -> Result<ListPage, CallFailure> {
        let operation = known_operation(connection, operation)?;
        let args = args.map_err(|error| {
            refused(
                "invalid",
                format!("{} at /webhook/recover{}", error.message, error.pointer),
            )
        })?;
        let ctx = CallContext {
            config: &connection.config,
            args: &args,
            idempotency_key: None,
            page,
        };
        let purpose = Purpose {
            class,
            ..Purpose::default()
        };
        let mut session = Session::new(self, connection, &purpose, Instant::now() + timeout);
        let read = match session.ask(operation, &ctx, Watch::No).await {
            Ok(response) => list_of(operation, &ctx, &response),
            Err(failure) => Err(failure),
        };
        // What the provider says about its limits holds for every call of the connection.
        read.map_err(|failure| match session.settle(CallOutcome::Failed(failure.clone())) {
            CallOutcome::Failed(settled) => settled,
            CallOutcome::Done { .. } | CallOutcome::Held(_) => failure,
        })
    }
}

fn list_of(operation: &Operation, ctx: &CallContext<'_>, response: &HttpResponse) -> Result<ListPage, CallFailure> {
    let body = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    match operation.response(ctx, response) {
        Answer::Done {
            output: AnswerBody::Value(Value::Array(items)),
            next,
        } => Ok(ListPage { items, next, body }),
        Answer::Done { .. } => Err(refused(
            "no_list",
            format!(
                "operation {} gives no list: say with `items` where it stands",
                operation.name()
            ),
        )),
        failed @ Answer::Failed { .. } => Err(of_answer(failed).expect("the answer is a failure")),
    }
}
