//! Calls that change nothing: one request, or all pages of a list.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use weir_connector_sdk::{Answer, AnswerBody, CallContext, HttpResponse, Operation, Page};
use weir_workflow_engine::{CallFailure, CallOutcome, CallResult, Document, Origin, Retry, Sent};

use super::session::{Session, Watch, of_answer};
use super::{Performer, Purpose};
use crate::connection::Connection;

/// Bytes of answers that one read may collect over all its pages. The output lives in memory and in the journal.
///
/// Limit: all pages of one read | the read fails, `response_too_large` | `pages_are_not_gathered_without_bound` | `weir_calls_total`
pub const MAX_READ_BYTES: usize = 16 * 1024 * 1024;

/// A read of all pages may take this many times the timeout of one page.
pub const PAGED_READ_TIMEOUTS: u32 = 10;

/// What a read is asked for.
pub(super) struct Wanted<'a> {
    pub(super) args: &'a Document,
    /// Where the arguments stand in the workflow, as a JSON pointer.
    pub(super) args_at: &'a str,
    /// Read page after page until this many items are there.
    pub(super) all_max: Option<u32>,
    /// For one page.
    pub(super) timeout: Duration,
}

/// Performs a read.
pub(super) async fn perform(
    performer: &Performer,
    connection: &Connection,
    operation: &Operation,
    wanted: &Wanted<'_>,
    purpose: &Purpose,
) -> CallResult {
    let started = Instant::now();
    let deadline = started + wanted.timeout;
    let mut session = Session::new(performer, connection, purpose, deadline).with_args_at(wanted.args_at);
    let collected = match wanted.all_max {
        None => single(&mut session, connection, operation, wanted).await,
        Some(max) => {
            let last = started + wanted.timeout * PAGED_READ_TIMEOUTS;
            pages(
                &mut session,
                connection,
                operation,
                wanted,
                usize::try_from(max).unwrap_or(usize::MAX),
                last,
            )
            .await
        }
    };
    let outcome = match collected {
        Ok(output) => CallOutcome::Done { output },
        Err(failure) => CallOutcome::Failed(failure),
    };
    CallResult {
        outcome: session.settle(outcome),
        exchanges: session.into_exchanges(),
        origin: Origin::Sent,
    }
}

async fn single(
    session: &mut Session<'_>,
    connection: &Connection,
    operation: &Operation,
    wanted: &Wanted<'_>,
) -> Result<Document, CallFailure> {
    let ctx = context(connection, wanted, None);
    let response = session.ask(operation, &ctx, Watch::No).await?;
    let answer = operation.response(&ctx, &response);
    finish(session, answer, &response)
}

/// Turns an answer into the output, and keeps the body where it belongs: as output or as text, never twice.
fn finish(session: &mut Session<'_>, answer: Answer, response: &HttpResponse) -> Result<Document, CallFailure> {
    match answer {
        Answer::Done {
            output: AnswerBody::Whole,
            next: _,
        } => match Document::parse(&response.body) {
            Ok(document) => {
                session.keep_as_output();
                Ok(document)
            }
            Err(error) => {
                session.keep_text(response);
                Err(unreadable(
                    response.status,
                    format!("the answer is not acceptable JSON: {error}"),
                ))
            }
        },
        Answer::Done {
            output: AnswerBody::Value(value),
            next: _,
        } => {
            session.keep_text(response);
            Ok(Document::from_value(value))
        }
        failed @ Answer::Failed { .. } => {
            session.keep_text(response);
            Err(of_answer(failed).expect("the answer is a failure"))
        }
    }
}

async fn pages(
    session: &mut Session<'_>,
    connection: &Connection,
    operation: &Operation,
    wanted: &Wanted<'_>,
    max: usize,
    last: Instant,
) -> Result<Document, CallFailure> {
    let mut items: Vec<Value> = Vec::new();
    let mut bytes = 0;
    let mut page: Option<Page> = None;
    loop {
        session.deadline = (Instant::now() + wanted.timeout).min(last + session.waited);
        let ctx = context(connection, wanted, page.as_ref());
        let response = session.ask(operation, &ctx, Watch::No).await?;
        bytes += response.body.len();
        if bytes > MAX_READ_BYTES {
            return Err(too_large(response.status));
        }
        let next = match operation.response(&ctx, &response) {
            Answer::Done {
                output: AnswerBody::Value(Value::Array(list)),
                next,
            } => {
                session.keep_text(&response);
                items.extend(list);
                next
            }
            // An operation without `items` has one answer, whatever the read asks for.
            answer => return finish(session, answer, &response),
        };
        if items.len() >= max {
            items.truncate(max);
            break;
        }
        match next {
            Some(next) => page = Some(next),
            None => break,
        }
    }
    Ok(Document::from_value(Value::Array(items)))
}

fn context<'a>(connection: &'a Connection, wanted: &'a Wanted<'_>, page: Option<&'a Page>) -> CallContext<'a> {
    CallContext {
        config: &connection.config,
        args: wanted.args.value(),
        idempotency_key: None,
        page,
    }
}

fn unreadable(status: u16, message: String) -> CallFailure {
    CallFailure {
        code: "unreadable".to_owned(),
        message,
        http_status: Some(status),
        sent: Sent::Maybe,
        retry: Retry::Permanent,
    }
}

fn too_large(status: u16) -> CallFailure {
    CallFailure {
        code: "response_too_large".to_owned(),
        message: format!("the pages of the list are larger than {MAX_READ_BYTES} bytes together"),
        http_status: Some(status),
        sent: Sent::Maybe,
        retry: Retry::Permanent,
    }
}
