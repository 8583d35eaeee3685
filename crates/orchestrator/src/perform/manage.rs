//! Calls that look after an account's own things at the provider, such as its webhooks: outside of runs, and so without
//! a journal. They pass the same budget, egress guard and lease as the calls of runs.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use weir_connector_sdk::{Answer, AnswerBody, CallContext};
use weir_workflow_engine::{CallFailure, CallOutcome};

use super::failure::refused;
use super::outside::{count_outside, known_operation};
use super::session::{Session, Watch, of_answer};
use super::{Performer, Purpose};
use crate::clock::Stopwatch;
use crate::connection::Connection;

impl Performer {
    /// Makes one call and gives its output; null when the answer is no JSON. A connection that may not send now is a
    /// failure here: whoever asks comes again.
    pub(crate) async fn manage(
        &self,
        connection: &Arc<Connection>,
        operation: &str,
        args: &Value,
        timeout: Duration,
    ) -> Result<Value, CallFailure> {
        let watch = Stopwatch::start();
        let result = self.manage_one(connection, operation, args, timeout).await;
        count_outside(connection, operation, &result, watch.elapsed());
        result
    }

    async fn manage_one(
        &self,
        connection: &Arc<Connection>,
        operation: &str,
        args: &Value,
        timeout: Duration,
    ) -> Result<Value, CallFailure> {
        let operation = known_operation(connection, operation)?;
        let ctx = CallContext {
            config: &connection.config,
            args,
            idempotency_key: None,
            page: None,
        };
        let purpose = Purpose::default();
        let mut session = Session::new(self, connection, &purpose, Instant::now() + timeout);
        let asked = match session.ask(operation, &ctx, Watch::Memory).await {
            Ok(response) => match operation.response(&ctx, &response) {
                Answer::Done {
                    output: AnswerBody::Value(value),
                    next: _,
                } => Ok(value),
                Answer::Done {
                    output: AnswerBody::Whole,
                    next: _,
                } => Ok(serde_json::from_slice(&response.body).unwrap_or(Value::Null)),
                failed @ Answer::Failed { .. } => Err(of_answer(failed).expect("the answer is a failure")),
            },
            Err(failure) => Err(failure),
        };
        asked.map_err(|failure| match session.settle(CallOutcome::Failed(failure.clone())) {
            CallOutcome::Failed(settled) => settled,
            CallOutcome::Held(hold) => refused("held", hold.reason),
            CallOutcome::Done { .. } => failure,
        })
    }
}
