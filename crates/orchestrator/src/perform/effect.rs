//! Calls that change something outside: whether they may be sent at all, and what a missing answer means.
//!
//! An effect is sent only when one of these holds: it is the first time; repeating it is harmless; a look shows that it
//! was not done and no earlier request can still take effect; the departures file proves that nothing left. In every
//! other case the answer is `unproven` and a person decides.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use weir_connector_sdk::{Answer, AnswerBody, CallContext, Effect, HttpResponse, Operation, Page};
use weir_workflow_engine::{
    CallCommand, CallFailure, CallOutcome, CallResult, Command, Document, EffectClass, EffectCommand, Origin, SendMode,
    Sent,
};

use super::failure::{refused, unproven};
use super::gate::{Sees, unseen};
use super::session::{Session, Watch, of_answer};
use super::{Performer, Purpose};
use crate::connection::Connection;
use crate::departures::{Departure, Proof};

/// How an effect looks for itself.
struct Look {
    operation: String,
    with: Value,
    found: String,
    sees: Sees,
}

/// What has to happen before the effect may be sent.
enum Gate {
    Open,
    /// The effect is there already; this is what was found.
    Found(Document),
    Closed(CallFailure),
}

/// Performs an effect.
pub(super) async fn perform(
    performer: &Performer,
    connection: &Connection,
    operation: &Operation,
    (command, effect): (&CallCommand, &EffectCommand),
    purpose: &Purpose,
) -> CallResult {
    let deadline = Instant::now() + command.timeout;
    let mut session = Session::new(performer, connection, purpose, deadline).with_args_at(&command.args_at);
    let departure = Departure::new(&effect.key, effect.first_sent_at);
    let gate = match effect.mode {
        SendMode::First | SendMode::Resend => Gate::Open,
        SendMode::IfNeverSent => match proof(performer, &departure) {
            Proof::NeverLeft => Gate::Open,
            Proof::Unproven(reason) => Gate::Closed(unproven(reason)),
        },
        SendMode::LookFirst | SendMode::LookOnly => {
            gate_by_look(
                performer,
                connection,
                operation,
                (command, effect),
                &departure,
                &mut session,
            )
            .await
        }
    };
    let (outcome, origin) = match gate {
        Gate::Found(output) => (CallOutcome::Done { output }, Origin::Found),
        Gate::Closed(failure) => (CallOutcome::Failed(failure), Origin::Sent),
        Gate::Open => {
            let watch = watch(command.class, departure);
            let outcome = send(&mut session, connection, operation, (command, effect), watch).await;
            note_refusal(performer, watch, &outcome);
            (outcome, Origin::Sent)
        }
    };
    CallResult {
        outcome: session.settle(outcome),
        exchanges: session.into_exchanges(),
        origin,
    }
}

/// Notes the intents among `commands` that a crash would leave open. To be called before they are committed.
pub(super) fn intend(performer: &Performer, commands: &[Command]) {
    let Some(log) = &performer.departures else { return };
    for command in commands {
        let Command::Call(call) = command else { continue };
        let Some(effect) = call.effect.as_ref().filter(|effect| effect.mode == SendMode::First) else {
            continue;
        };
        if let Watch::File(departure) = watch(call.class, Departure::new(&effect.key, effect.first_sent_at))
            && let Err(error) = log.intended(&departure, performer.clock.now())
        {
            // Only the proof after a crash is lost: the call itself goes on.
            tracing::warn!(error = %error, "cannot record an intent in the data folder");
        }
    }
}

/// A request that provably did nothing makes the effect provable again for the attempt after it.
fn note_refusal(performer: &Performer, watch: Watch, outcome: &CallOutcome) {
    let (Watch::File(departure), Some(log)) = (watch, &performer.departures) else {
        return;
    };
    if let CallOutcome::Failed(failure) = outcome
        && failure.sent == Sent::Never
        && let Err(error) = log.refused(&departure, performer.clock.now())
    {
        tracing::warn!(error = %error, "cannot record a refusal in the data folder");
    }
}

fn proof(performer: &Performer, departure: &Departure) -> Proof {
    match &performer.departures {
        Some(log) => log.proof(departure),
        None => Proof::Unproven("departures are not recorded on this node"),
    }
}

fn watch(class: EffectClass, departure: Departure) -> Watch {
    match class {
        EffectClass::Blind | EffectClass::FindBy { .. } => Watch::File(departure),
        EffectClass::Keyed { .. } | EffectClass::Repeatable | EffectClass::Read => Watch::Memory,
    }
}

async fn send(
    session: &mut Session<'_>,
    connection: &Connection,
    operation: &Operation,
    (command, effect): (&CallCommand, &EffectCommand),
    watch: Watch,
) -> CallOutcome {
    let key = effect.key.to_string();
    let ctx = CallContext {
        config: &connection.config,
        args: command.args.value(),
        idempotency_key: Some(&key),
        page: None,
    };
    // A node that cannot reach its database may get its lease back in time; what happens then is in no hurry.
    let lease = session.lease();
    drop(tokio::time::timeout_at(session.deadline, lease.held()).await);
    let response = match session.ask(operation, &ctx, watch).await {
        Ok(response) => response,
        Err(failure) => return CallOutcome::Failed(failure),
    };
    match operation.response(&ctx, &response) {
        Answer::Done { output, next: _ } => CallOutcome::Done {
            output: output_of(session, output, &response),
        },
        failed @ Answer::Failed { .. } => {
            session.keep_text(&response);
            CallOutcome::Failed(of_answer(failed).expect("the answer is a failure"))
        }
    }
}

/// The provider says that it was done, so it was: an answer that cannot be read as JSON becomes text.
fn output_of(session: &mut Session<'_>, output: AnswerBody, response: &HttpResponse) -> Document {
    match output {
        AnswerBody::Whole => match Document::parse(&response.body) {
            Ok(document) => {
                session.keep_as_output();
                document
            }
            Err(_) => {
                session.keep_text(response);
                Document::from_value(Value::String(String::from_utf8_lossy(&response.body).into_owned()))
            }
        },
        AnswerBody::Value(value) => {
            session.keep_text(response);
            Document::from_value(value)
        }
    }
}

async fn gate_by_look(
    performer: &Performer,
    connection: &Connection,
    operation: &Operation,
    (command, effect): (&CallCommand, &EffectCommand),
    departure: &Departure,
    session: &mut Session<'_>,
) -> Gate {
    let look = match operation.effect(&connection.config, command.args.value()) {
        Effect::FindBy {
            operation,
            with,
            found,
            consistent,
            settle_s,
        } => Look {
            operation,
            with,
            found,
            sees: Sees {
                consistent,
                settle: Duration::from_secs(settle_s),
            },
        },
        // The manifest changed under an open intent: it can no longer be looked for.
        Effect::Read | Effect::Keyed { .. } | Effect::Repeatable | Effect::Blind => {
            return Gate::Closed(unproven("the connector no longer says how to look for it"));
        }
    };
    match find(session, connection, &look).await {
        Ok(Some(hit)) => return Gate::Found(hit),
        Ok(None) => {}
        Err(failure) => {
            return Gate::Closed(CallFailure {
                message: format!("looking whether it was done: {}", failure.message),
                // Whatever the look did, an earlier request may have been carried out.
                sent: Sent::Maybe,
                ..failure
            });
        }
    }
    let now = performer.clock.now();
    let proven = || proof(performer, departure) == Proof::NeverLeft;
    match unseen(effect, look.sees, command.timeout, proven, now) {
        Ok(()) => Gate::Open,
        Err(failure) => Gate::Closed(failure),
    }
}

/// Most pages that a look goes through.
///
/// Limit: pages of a look for an effect | it stays unknown, `unproven` | `a_look_goes_through_the_pages_up_to_a_bound` | `weir_calls_total`
const MAX_LOOK_PAGES: usize = 20;

/// Looks for the effect on all pages: what was found, or `None` when it is provably not among what the provider shows.
async fn find(
    session: &mut Session<'_>,
    connection: &Connection,
    look: &Look,
) -> Result<Option<Document>, CallFailure> {
    let Some(operation) = connection.connector.operation(&look.operation) else {
        return Err(refused(
            "unknown_operation",
            format!("the connector has no operation {}", look.operation),
        ));
    };
    let mut page: Option<Page> = None;
    for _ in 0..MAX_LOOK_PAGES {
        let (found, next) = look_at(session, connection, operation, look, page.as_ref()).await?;
        if let Some(hit) = found.filter(|hit| !hit.is_null()) {
            return Ok(Some(Document::from_value(hit)));
        }
        match (next, &page) {
            (Some(next), _) => page = Some(next),
            (None, None) => return Ok(None),
            // What is deleted meanwhile moves others from a page not yet read to one that was: a hit counts, its
            // absence does not.
            (None, Some(_)) => {
                return Err(unproven(
                    "it was looked for on all pages of the answer, which may have changed meanwhile",
                ));
            }
        }
    }
    Err(unproven(
        "it was looked for and is not on the first pages of the answer",
    ))
}

/// Looks at one page: what is at the place of a hit, and the page after it.
async fn look_at(
    session: &mut Session<'_>,
    connection: &Connection,
    operation: &Operation,
    look: &Look,
    page: Option<&Page>,
) -> Result<(Option<Value>, Option<Page>), CallFailure> {
    let ctx = CallContext {
        config: &connection.config,
        args: &look.with,
        idempotency_key: None,
        page,
    };
    let response = session.ask(operation, &ctx, Watch::No).await?;
    let answer = operation.response(&ctx, &response);
    session.keep_text(&response);
    match answer {
        Answer::Done {
            output: AnswerBody::Whole,
            next,
        } => match Document::parse(&response.body) {
            Ok(document) => Ok((document.pointer(&look.found), next)),
            Err(error) => Err(refused(
                "unreadable",
                format!("the answer is not acceptable JSON: {error}"),
            )),
        },
        Answer::Done {
            output: AnswerBody::Value(value),
            next,
        } => Ok((value.pointer(&look.found).cloned(), next)),
        // Asking for one object by our reference: not there is the answer, not a failure.
        Answer::Failed {
            http_status: Some(404 | 410),
            ref code,
            ..
        } if code == "not_found" => Ok((None, None)),
        failed @ Answer::Failed { .. } => Err(of_answer(failed).expect("the answer is a failure")),
    }
}
