//! The exchanges of one call: built, authorised, sent, redirected, recorded.
//!
//! Credentials go to the origin that the connector named and nowhere else. Redirects are followed for reads by GET or HEAD
//! only, to declared hosts only, never from https to http; every hop passes the egress guard again.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Method};
use reqwest::Url;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{Instrument, Span, field, info_span};
use weir_connector_sdk::redact;
use weir_connector_sdk::{Answer, CallContext, Executed, HttpRequest, HttpResponse, Learn, Operation};
use weir_workflow_engine::{CallFailure, CallOutcome, Exchange, Hold, ResponseBody, Retry, Sent};

use super::failure::{self, refused};
use super::target::same_origin;
use super::{Performer, Purpose, conditional, record};
use crate::budget::{self, Caller, Failure, MAX_PAGE_WAIT, MAX_WAIT, Permit, Request};
use crate::clock::Stopwatch;
use crate::connection::Connection;
use crate::credentials::{self, AccessToken, NotAuthorised, TokenRequests};
use crate::departures::Departure;
use crate::grants::AfterRefusal;
use crate::http_client::{Gate, Outgoing, Recording, Tracking};
use crate::lease::Lease;

/// Redirects followed for one read by GET or HEAD.
///
/// Limit: redirects of a read | the call fails, `too_many_redirects` | `reads_follow_redirects_with_their_credential_on_the_same_origin_and_not_for_ever` | `weir_calls_total`
pub const MAX_REDIRECTS: u32 = 3;

/// Text of answers kept over all exchanges of one call, bytes: a long list is in the output already.
///
/// Limit: bodies of all answers to one call that a run's record shows | the last one is cut, further ones are not kept; what a step gives is kept whole | `the_bodies_of_all_pages_are_kept_up_to_a_bound`
const MAX_KEPT_BYTES_PER_CALL: usize = 64 * 1024;

/// How closely the departure of a request is watched.
#[derive(Debug, Clone, Copy)]
pub(super) enum Watch {
    /// A read.
    No,
    /// An effect that may be repeated.
    Memory,
    /// An effect that may not: its departure is recorded.
    File(Departure),
}

/// One call's way through its exchanges.
pub(super) struct Session<'a> {
    performer: &'a Performer,
    connection: &'a Connection,
    purpose: &'a Purpose,
    /// Where the arguments stand in the workflow, as a JSON pointer.
    args_at: &'a str,
    /// No exchange goes on beyond it. Waiting for the budget moves it.
    pub(super) deadline: Instant,
    /// How long requests waited for the budget.
    pub(super) waited: Duration,
    /// The connection may not send now: the call is to come again.
    held: Option<Hold>,
    exchanges: Vec<Exchange>,
    kept_bytes: usize,
    /// The latest answer had no body of its own: what it stands for was kept from an earlier one.
    is_unchanged: bool,
    /// The request at hand is to be signed right before it leaves.
    needs_signature: bool,
    /// Secrets on the request at hand that its answer must not show, beside those in well-known places.
    exposed: Vec<String>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        performer: &'a Performer,
        connection: &'a Connection,
        purpose: &'a Purpose,
        deadline: Instant,
    ) -> Self {
        Session {
            performer,
            connection,
            purpose,
            args_at: "",
            deadline,
            waited: Duration::ZERO,
            held: None,
            exchanges: Vec::new(),
            kept_bytes: 0,
            is_unchanged: false,
            needs_signature: false,
            exposed: Vec::new(),
        }
    }

    /// The same for arguments that stand at this place of a workflow.
    pub(super) fn with_args_at(self, args_at: &'a str) -> Self {
        Session { args_at, ..self }
    }

    /// Sends the request that `operation` makes of `ctx` and returns the final answer, whatever its status.
    pub(super) async fn ask(
        &mut self,
        operation: &Operation,
        ctx: &CallContext<'_>,
        watch: Watch,
    ) -> Result<HttpResponse, CallFailure> {
        let mut renewed = false;
        loop {
            let mut request = operation.request(ctx).map_err(|error| match error.pointer.as_str() {
                "" => refused("invalid", error.message),
                place => refused("invalid", format!("{} at {}{place}", error.message, self.args_at)),
            })?;
            let mut url = self.target(&request.url)?;
            let may_keep = operation.etag() && matches!(watch, Watch::No);
            let question = may_keep
                .then(|| self.performer.answers.ask(self.connection, &mut request))
                .flatten();
            let token = self.authorise(&mut request, &mut url).await?;
            let exchanges = self.exchanges.len();
            let mut response = self.send(request, url, operation, watch).await?;
            self.is_unchanged = false;
            // What a redirect led to is the answer of another address.
            if let Some(question) = question.filter(|_| self.exchanges.len() == exchanges + 1) {
                (response, self.is_unchanged) = self.performer.answers.answer(question, response);
                self.note_kept(&response);
            }
            match token {
                Some(token) if is_refused(operation, &token, &response) => {
                    let grants = self.performer.grants.as_ref();
                    match credentials::refused(self.connection, &token, renewed, grants).await {
                        AfterRefusal::Again => {
                            renewed = true;
                            self.keep_text(&response);
                        }
                        AfterRefusal::Stands => return Ok(response),
                        AfterRefusal::Held(hold) => {
                            self.keep_text(&response);
                            return Err(self.hold(hold));
                        }
                    }
                }
                Some(token) => {
                    if let Some(grants) = &self.performer.grants {
                        grants.worked(self.connection, &token);
                    }
                    return Ok(response);
                }
                None => return Ok(response),
            }
        }
    }

    /// The call is to come again.
    fn hold(&mut self, hold: Hold) -> CallFailure {
        let failure = refused(hold.by.code(), hold.reason.clone());
        self.held = Some(hold);
        failure
    }

    /// Puts the credential on a request that goes where it may travel.
    async fn authorise(
        &mut self,
        request: &mut HttpRequest,
        url: &mut Url,
    ) -> Result<Option<Arc<AccessToken>>, CallFailure> {
        self.without_credential();
        if !self.connection.targets.is_declared(url) {
            return Ok(None);
        }
        let via = TokenRequests {
            http: &self.performer.http,
            clock: &self.performer.clock,
            grants: self.performer.grants.as_ref(),
            deadline: self.deadline,
        };
        let url_bytes = request.url.len();
        let authorised = match credentials::authorise(self.connection, request, &via).await {
            Ok(authorised) => authorised,
            Err(NotAuthorised::Failed(error)) => return Err(failure::of_credential(&error)),
            Err(NotAuthorised::Held(hold)) => {
                self.performer.budgets.gate(self.connection).count_held(hold.by);
                return Err(self.hold(hold));
            }
        };
        if request.url.len() != url_bytes || !authorised.exposed.is_empty() {
            // A key in the query, perhaps in place of another one.
            *url = self.target(&request.url)?;
        }
        self.needs_signature = authorised.needs_signature;
        self.exposed = authorised.exposed;
        Ok(authorised.token)
    }

    /// The request at hand carries no credential.
    fn without_credential(&mut self) {
        self.needs_signature = false;
        self.exposed.clear();
    }

    /// Signs a request that waits for nothing any more: the moment is part of it.
    fn sign(&mut self, request: &mut HttpRequest, url: &mut Url) -> Result<(), CallFailure> {
        if !self.needs_signature {
            return Ok(());
        }
        let signature = credentials::sign(self.connection, request, self.performer.clock.as_ref());
        self.exposed
            .push(signature.map_err(|error| failure::of_credential(&error))?);
        *url = self.target(&request.url)?;
        Ok(())
    }

    /// Sends one request and follows its redirects.
    async fn send(
        &mut self,
        mut request: HttpRequest,
        mut url: Url,
        operation: &Operation,
        watch: Watch,
    ) -> Result<HttpResponse, CallFailure> {
        let mut first: Option<Url> = None;
        for hop in 0.. {
            let response = self.exchange(&mut request, url.clone(), operation, watch).await?;
            let follows = matches!(watch, Watch::No)
                && matches!(request.method.as_str(), "GET" | "HEAD")
                && matches!(response.status, 301 | 302 | 303 | 307 | 308);
            let Some(location) = response.header(LOCATION.as_str()).filter(|_| follows) else {
                return Ok(response);
            };
            if hop == MAX_REDIRECTS {
                break;
            }
            let mut next = url
                .join(location)
                .map_err(|_error| refused("bad_redirect", "the server redirects to something that is not a URL"))?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(refused("bad_redirect", "the server redirects from https to http"));
            }
            if let Err(error) = self.connection.targets.check_url(&next) {
                return Err(refused(error.code(), format!("redirect refused: {error}")));
            }
            request = self.redirected(&request, &next);
            if same_origin(first.get_or_insert(url), &next) {
                self.authorise(&mut request, &mut next).await?;
            } else {
                self.without_credential();
            }
            url = next;
        }
        Err(refused(
            "too_many_redirects",
            format!("more than {MAX_REDIRECTS} redirects"),
        ))
    }

    /// The request that a redirect asks for, without credentials.
    fn redirected(&self, request: &HttpRequest, next: &Url) -> HttpRequest {
        let secrets = self.connection.connector.secret_names();
        HttpRequest {
            method: request.method.clone(),
            url: next.to_string(),
            headers: request
                .headers
                .iter()
                .filter(|(name, _)| !redact::is_secret_header(name, secrets) && !conditional::is_condition(name))
                .cloned()
                .collect(),
            body: None,
        }
    }

    fn target(&self, url: &str) -> Result<Url, CallFailure> {
        self.connection
            .targets
            .check(url)
            .map_err(|error| refused(error.code(), error.to_string()))
    }

    async fn exchange(
        &mut self,
        request: &mut HttpRequest,
        mut url: Url,
        operation: &Operation,
        watch: Watch,
    ) -> Result<HttpResponse, CallFailure> {
        let gate = self.performer.budgets.gate(self.connection);
        let host = self.host(&url);
        let caller = Caller {
            host: &host,
            workflow: self.purpose.workflow,
            step: &self.purpose.step,
            operation: operation.name(),
            tries: self.purpose.tries,
        };
        let permit = self.pass(gate, operation, caller).await?;
        self.sign(request, &mut url)?;
        let secrets = self.connection.connector.secret_names();
        let mut kept = record::begin(request, secrets, self.performer.clock.now());
        let mut credentials = record::credentials_in(request, secrets);
        credentials.extend(record::long_enough(&self.exposed));
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|_error| refused("invalid", "the method is not an HTTP method"))?;
        let span = info_span!(
            "exchange",
            otel.kind = "client",
            connector = self.connection.connector.name(),
            operation = operation.name(),
            connection = self.connection.name,
            http.status = field::Empty,
            duration_ms = field::Empty,
        );
        let outgoing = Outgoing {
            method,
            url,
            headers: self.headers(request, &span)?,
            body: request.body.take(),
            tracking: self.tracking(watch),
        };
        let stopwatch = Stopwatch::start();
        let sent = self.performer.http.send(outgoing, self.deadline);
        let received = sent.instrument(span.clone()).await;
        drop(permit);
        kept.duration_ms = stopwatch.elapsed_ms();
        span.record("duration_ms", kept.duration_ms);
        match received {
            Ok(received) => {
                span.record("http.status", received.status);
                let response_bytes = received.body.len() as u64;
                let (headers, body) =
                    record::without(&credentials, record::header_pairs(&received.headers), received.body);
                kept.status = Some(received.status);
                kept.response_headers = record::kept_headers(&headers, secrets);
                kept.response_bytes = response_bytes;
                self.exchanges.push(kept);
                let response = HttpResponse {
                    status: received.status,
                    headers,
                    body,
                };
                self.learn(gate, operation, &response);
                match response.status {
                    status @ 500.. => gate.failed(&caller, Failure::Answered(status)),
                    429 => {}
                    _ => gate.answered(&caller),
                }
                Ok(response)
            }
            Err(error) => {
                let failure = failure::of_send(&error);
                if let Some(outage) = failure::outage(&error) {
                    gate.failed(&caller, outage);
                }
                trace_failure(&span, &failure);
                kept.status = error.status;
                kept.error = Some(failure.message.clone());
                self.exchanges.push(kept);
                Err(failure)
            }
        }
    }

    /// Waits until the connection may send. Nothing has left, and the call's own time has not begun.
    async fn pass<'g>(
        &mut self,
        gate: &'g budget::Gate,
        operation: &Operation,
        caller: Caller<'_>,
    ) -> Result<Permit<'g>, CallFailure> {
        let asked_at = Instant::now();
        let request = Request {
            class: self.purpose.class,
            cost: operation.cost(),
            caller,
            // What was read so far would be lost.
            patience: if self.exchanges.is_empty() {
                MAX_WAIT
            } else {
                MAX_PAGE_WAIT
            },
        };
        let passed = gate.pass(&request).await;
        let waited = asked_at.elapsed();
        self.waited += waited;
        self.deadline += waited;
        passed.map_err(|hold| self.hold(hold))
    }

    /// The host that a breaker is kept for: connectors of any host call several.
    fn host(&self, url: &Url) -> String {
        match self.connection.targets.is_any() {
            true => url.authority().to_owned(),
            false => String::new(),
        }
    }

    fn learn(&self, gate: &budget::Gate, operation: &Operation, response: &HttpResponse) {
        let rules = self
            .connection
            .connector
            .budget()
            .map_or(&[][..], |budget| &budget.learn);
        if rules.is_empty() {
            return;
        }
        let body: Option<Value> = rules
            .iter()
            .any(Learn::reads_body)
            .then(|| serde_json::from_slice(&response.body).ok())
            .flatten();
        let now_ms = self.performer.clock.now().as_unix_ms();
        let told = rules.iter().flat_map(|rule| rule.read(response, body.as_ref(), now_ms));
        gate.learn(operation.name(), &told.collect::<Vec<_>>());
    }

    /// What came of the call, as the engine is to know it: it comes again when the connection may not send now, and at
    /// a time of its own when the provider said that it was too much.
    pub(super) fn settle(&mut self, mut outcome: CallOutcome) -> CallOutcome {
        if let Some(hold) = self.held.take() {
            return CallOutcome::Held(hold);
        }
        if let CallOutcome::Failed(failure) = &mut outcome
            && let Retry::Retryable { after } = failure.retry
        {
            let gate = self.performer.budgets.gate(self.connection);
            if failure.is_throttled() {
                let after = gate.throttled(self.purpose.workflow, self.purpose.class, after);
                failure.retry = Retry::Retryable { after: Some(after) };
            } else if let (Some(503), Some(after)) = (failure.http_status, after) {
                gate.pause(after);
            }
        }
        outcome
    }

    fn headers(&self, request: &HttpRequest, span: &Span) -> Result<HeaderMap, CallFailure> {
        let mut headers = HeaderMap::with_capacity(request.headers.len() + 1);
        for (name, value) in &request.headers {
            let (Ok(header), Ok(value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_bytes(value.as_bytes()),
            ) else {
                // The value may be a credential: only the name is told.
                return Err(refused("invalid", format!("header {name} cannot be sent")));
            };
            headers.append(header, value);
        }
        // Without an exporter there is no span of ours; then the sender's trace is passed on as it came.
        let traceparent = crate::trace::traceparent(span).or_else(|| self.purpose.traceparent.clone());
        if let Some(traceparent) = traceparent
            && let Ok(value) = HeaderValue::from_str(&traceparent)
        {
            headers.entry("traceparent").or_insert(value);
        }
        Ok(headers)
    }

    fn tracking(&self, watch: Watch) -> Tracking {
        let recording = match (watch, &self.performer.departures) {
            (Watch::No, _) => return Tracking::Off,
            (Watch::Memory, _) | (Watch::File(_), None) => None,
            (Watch::File(departure), Some(log)) => Some(Recording {
                log: log.clone(),
                departure,
                clock: self.performer.clock.clone(),
            }),
        };
        Tracking::Effect(Gate {
            lease: self.lease(),
            recording,
        })
    }

    /// Whether effects may leave.
    pub(super) fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.performer.lease)
    }

    /// Keeps the text of the latest answer with its exchange.
    pub(super) fn keep_text(&mut self, response: &HttpResponse) {
        let room = MAX_KEPT_BYTES_PER_CALL.saturating_sub(self.kept_bytes);
        if self.is_unchanged || response.body.is_empty() || room == 0 {
            return;
        }
        let text = record::body_text_within(&response.body, room);
        self.kept_bytes += text.len();
        self.set_body(ResponseBody::Text(text));
    }

    /// Says that the body of the latest answer is the output of the call.
    pub(super) fn keep_as_output(&mut self) {
        if !self.is_unchanged {
            self.set_body(ResponseBody::Output);
        }
    }

    /// Notes with the latest exchange what its 304 stands for.
    fn note_kept(&mut self, response: &HttpResponse) {
        let secrets = self.connection.connector.secret_names();
        if let Some(latest) = self.exchanges.last_mut().filter(|_| self.is_unchanged) {
            latest.kept_headers = Some(record::kept_headers(&response.headers, secrets));
        }
    }

    fn set_body(&mut self, body: ResponseBody) {
        if let Some(latest) = self.exchanges.last_mut() {
            latest.response_body = body;
        }
    }

    /// Everything that was exchanged.
    pub(super) fn into_exchanges(self) -> Vec<Exchange> {
        self.exchanges
    }
}

/// Whether an answer says that a token is not, or no longer, taken.
fn is_refused(operation: &Operation, token: &AccessToken, response: &HttpResponse) -> bool {
    // Access that people grant is looked after by what its API answers alone.
    response.status == 401 || (token.granted().is_none() && operation.says_access_is_over(response))
}

fn trace_failure(span: &Span, failure: &CallFailure) {
    span.in_scope(|| tracing::debug!(code = failure.code, "exchange failed"));
}

/// What the engine may conclude from an answer that the connector calls a failure.
pub(super) fn of_answer(answer: Answer) -> Option<CallFailure> {
    match answer {
        Answer::Done { .. } => None,
        Answer::Failed {
            code,
            message,
            http_status,
            retryable,
            retry_after_ms,
            executed,
        } => Some(CallFailure {
            code,
            message,
            http_status,
            sent: match executed {
                Executed::No => Sent::Never,
                Executed::Maybe => Sent::Maybe,
            },
            retry: if retryable {
                Retry::Retryable {
                    after: retry_after_ms.map(Duration::from_millis),
                }
            } else {
                Retry::Permanent
            },
        }),
    }
}
