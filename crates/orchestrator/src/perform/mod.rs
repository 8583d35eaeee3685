//! Calls out: from a command of the engine to requests on the wire, and from their answers to a result.
//!
//! [`Performer`] never fails: whatever goes wrong is a [`CallFailure`] that says what
//! the engine may conclude. It does not retry (the engine decides that), with one exception: a 401 under a token that we
//! fetched ourselves is answered once with a fresh token. It holds no lock across a call.

mod conditional;
mod effect;
pub(crate) mod failure;
pub(crate) mod gate;
mod list;
mod manage;
mod meter;
mod outside;
mod read;
mod record;
mod session;
mod target;

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use thiserror::Error;
use weir_workflow_engine::{
    CallCommand, CallFailure, CallOutcome, CallResult, Command, Origin, ReadCommand, SendMode, Timestamp, WorkflowId,
};

use crate::budget::{Budgets, Class};
use crate::clock::{Clock, Stopwatch};
use crate::coalesce::{Coalescer, ReadKey, Served};
use crate::connection::Connection;
use crate::departures::{Departures, Senders};
use crate::egress::EgressPolicy;
use crate::grants::{Grants, GrantsSeed};
use crate::http_client::{HttpClient, HttpClientError};
use crate::lease::Lease;

pub(crate) use failure::UNPROVEN;
pub(crate) use list::ListPage;
pub(crate) use meter::Meters;
pub(crate) use record::header_pairs;
pub(crate) use target::Targets;

pub use read::{MAX_READ_BYTES, PAGED_READ_TIMEOUTS};
pub use record::MAX_KEPT_BODY_BYTES;
pub use session::MAX_REDIRECTS;

/// What a [`Performer`] needs to know.
pub struct PerformerOptions {
    /// Stamps exchanges, token lifetimes and departures. The same clock must stamp events as accepted.
    pub clock: Arc<dyn Clock>,
    /// Which addresses may be called.
    pub egress: EgressPolicy,
    /// Folder for the departures file; it must exist. `None`: after a crash an effect without a key is always unproven.
    pub departures: Option<PathBuf>,
    /// Who else sends effects of the same store. [`Senders::ThisProcessOnly`] only with a store that locks others out.
    pub senders: Senders,
    /// Whether effects may leave.
    pub lease: Arc<Lease>,
    /// What keeps access alive that people granted; without it connections that need it cannot be used.
    pub grants: Option<GrantsSeed>,
    /// `User-Agent` of every request.
    pub user_agent: String,
}

/// The performer could not be set up.
#[derive(Debug, Error)]
pub enum PerformerError {
    /// The HTTP client.
    #[error(transparent)]
    Http(#[from] HttpClientError),
    /// The departures file. Starting without it would make the next process believe that nothing was sent.
    #[error("cannot open the record of departures in {folder}")]
    Departures {
        /// The folder that was tried.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// What a call is made for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purpose {
    /// The trace that it belongs to; sent on as the `traceparent` header (W3C Trace Context).
    pub traceparent: Option<String>,
    /// How urgent it is.
    pub class: Class,
    /// The workflow whose call it is; `None` for calls that people make.
    pub workflow: Option<WorkflowId>,
    /// The step or hydration read whose call it is; empty for calls that people make.
    pub step: String,
    /// How often the call was tried before.
    pub tries: u32,
}

impl Purpose {
    /// The same for one call of a run.
    fn of_call(&self, step: &str, attempt: u32) -> Purpose {
        Purpose {
            step: step.to_owned(),
            tries: attempt.saturating_sub(1),
            ..self.clone()
        }
    }
}

/// Performs the engine's commands. One per process.
pub struct Performer {
    http: HttpClient,
    clock: Arc<dyn Clock>,
    departures: Option<Arc<Departures>>,
    lease: Arc<Lease>,
    /// Access that people granted.
    pub(crate) grants: Option<Arc<Grants>>,
    reads: Coalescer<CallOutcome>,
    answers: conditional::KeptAnswers,
    budgets: Budgets,
}

impl Performer {
    /// The guarded client, for calls that belong to no run.
    pub(crate) fn http(&self) -> &HttpClient {
        &self.http
    }

    /// The budgets of all connections.
    pub(crate) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Opens the departures file and builds the client.
    ///
    /// # Errors
    /// [`PerformerError`]; the process must not perform effects then.
    pub fn new(options: PerformerOptions) -> Result<Self, PerformerError> {
        let departures = match options.departures {
            None => None,
            Some(folder) => match Departures::open(&folder, options.senders, options.clock.now()) {
                Ok(departures) => Some(Arc::new(departures)),
                Err(source) => return Err(PerformerError::Departures { folder, source }),
            },
        };
        meter::describe();
        let http = HttpClient::new(options.egress, &options.user_agent)?;
        let grants = options
            .grants
            .map(|seed| Arc::new(Grants::new(seed, http.clone(), options.clock.clone())));
        Ok(Performer {
            http,
            grants,
            reads: Coalescer::new(options.clock.clone()),
            answers: conditional::KeptAnswers::default(),
            budgets: Budgets::new(options.clock.clone()),
            clock: options.clock,
            lease: options.lease,
            departures,
        })
    }

    /// Notes the effects among `commands` that are about to be committed, so that a crash right after the commit can be
    /// told from a request that left. Costs nothing for keyed and repeatable effects.
    pub fn intend(&self, commands: &[Command]) {
        effect::intend(self, commands);
    }

    /// Performs the call of a step.
    ///
    /// Dropping the future leaves the outcome of an effect unknown, exactly as a crash does.
    pub async fn call(&self, connection: &Arc<Connection>, command: &CallCommand, purpose: &Purpose) -> CallResult {
        let Some(operation) = connection.connector.operation(&command.operation) else {
            return match &command.effect {
                // Whether an earlier attempt left was the question, and it stays open.
                Some(effect) if effect.mode == SendMode::IfNeverSent => {
                    let reason = "the connector no longer has the operation";
                    failure::failed(failure::unproven(reason), Vec::new())
                }
                Some(_) | None => unknown_operation(connection, &command.operation),
            };
        };
        let purpose = &purpose.of_call(&command.step, command.attempt);
        let watch = Stopwatch::start();
        let result = match &command.effect {
            Some(effect) => effect::perform(self, connection, operation, (command, effect), purpose).await,
            None => {
                let wanted = read::Wanted {
                    args: &command.args,
                    args_at: &command.args_at,
                    all_max: command.all_max,
                    timeout: command.timeout,
                };
                read::perform(self, connection, operation, &wanted, purpose).await
            }
        };
        connection.meters.of(operation.name()).count(&result, watch.elapsed());
        result
    }

    /// Performs a hydration read, shared with equal reads whose request is sent after `accepted_at`
    /// (the moment the event was accepted, by the clock of the options).
    ///
    /// A shared result has [`Origin::Coalesced`] and no exchanges: they are with the run that sent the request.
    /// Cancel-safe: dropping the future hands the request to another waiting read.
    pub async fn read(
        &self,
        connection: &Arc<Connection>,
        command: &ReadCommand,
        accepted_at: Timestamp,
        purpose: &Purpose,
    ) -> CallResult {
        let Some(operation) = connection.connector.operation(&command.operation) else {
            return unknown_operation(connection, &command.operation);
        };
        let purpose = &purpose.of_call(&command.name, command.attempt);
        let watch = Stopwatch::start();
        let key = ReadKey {
            connection: connection.identity.clone(),
            operation: command.operation.clone(),
            args: command.args.clone(),
            all_max: command.all_max,
            class: purpose.class,
        };
        let wanted = read::Wanted {
            args: &command.args,
            args_at: "",
            all_max: command.all_max,
            timeout: command.timeout,
        };
        let send =
            || -> BoxFuture<'_, CallResult> { Box::pin(read::perform(self, connection, operation, &wanted, purpose)) };
        let share = |result: &CallResult| result.outcome.clone();
        let result = match self.reads.read(key, accepted_at, send, share).await {
            Served::Led(result) => result,
            Served::Followed(outcome) => CallResult {
                outcome,
                exchanges: Vec::new(),
                origin: Origin::Coalesced,
            },
        };
        connection.meters.of(operation.name()).count(&result, watch.elapsed());
        result
    }
}

fn unknown_operation(connection: &Connection, operation: &str) -> CallResult {
    failure::failed(no_operation(connection, operation), Vec::new())
}

fn no_operation(connection: &Connection, operation: &str) -> CallFailure {
    let message = format!("connector {} has no operation {operation}", connection.connector.name());
    failure::refused("unknown_operation", message)
}
