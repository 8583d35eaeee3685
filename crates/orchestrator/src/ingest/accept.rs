//! From an authentic request to facts: events with the runs they start, one fact each.

use super::{Delivery, IngestCode, IngestProblem, Reply};
use crate::answers::{self, Caller};
use crate::driver::{ActiveRun, First, Refused};
use crate::route::{self, Match};
use crate::runner::{self, storable};
use crate::service::{Core, Orchestrator};
use crate::snapshot::{Endpoint, Snapshot};
use crate::sweeps::Came;
use crate::turns;
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tracing::Span;
use weir_connector_sdk::{Identified, IdentifyError, InboundRequest};
use weir_storage::{
    AcceptOutcome, Accepted, Dedupe, EventRow, Fact, FactOutcome, NewRun, Pending, RunOwner, WaitKey, WriteError,
};
use weir_workflow_engine::Document;
use weir_workflow_engine::Timestamp;
use weir_workflow_engine::{ConnectionId, EndpointId, EventId, IdGenerator, RunId, WorkspaceId};
use weir_workflow_engine::{Event, EventRef, EventSource};
use weir_workflow_engine::{RunHead, RunState};

impl Orchestrator {
    /// Identifies, routes and persists a request whose signature is right.
    pub(super) async fn take(
        &self,
        endpoint: &Arc<Endpoint>,
        delivery: &Delivery<'_>,
        request: &InboundRequest<'_>,
        body: &Bytes,
        now: Timestamp,
        progress: &mut Progress,
    ) -> Result<Taken, IngestProblem> {
        let connector = endpoint.connector();
        let Some(webhook) = connector.webhook() else {
            return Err(IngestProblem::new(
                IngestCode::BodyInvalid,
                format!("the connector `{}` takes no webhooks", connector.name()),
            ));
        };
        let invalid = |detail: String| {
            let client = request.client_ip.unwrap_or(delivery.peer);
            self.note_refusal(endpoint, delivery, client, "body_invalid", &detail, body);
            IngestProblem::new(IngestCode::BodyInvalid, detail)
        };
        let misfit = |error: IdentifyError| {
            invalid(format!(
                "the body is not what connector `{}` describes: {error}",
                connector.name()
            ))
        };
        let json = webhook.json_body(request).map_err(misfit)?;
        // The event's body is the JSON in the request; for a form that is not the request's body.
        let raw = match json {
            Cow::Borrowed(bytes) if bytes.len() == body.len() => body.clone(),
            other => Bytes::copy_from_slice(&other),
        };
        let document = Document::parse(&raw).map_err(|error| invalid(format!("the body cannot be read: {error}")))?;
        let client = request.client_ip.unwrap_or(delivery.peer);
        match webhook.handshake(request, document.value(), &endpoint.standing(now)) {
            Err(refusal) => return Err(self.refused(endpoint, delivery, client, &refusal, body)),
            Ok(Some(answer)) => {
                let reply = self
                    .finish_handshake(endpoint, delivery, client, answer, progress)
                    .await?;
                return Ok(Taken::Done(reply));
            }
            Ok(None) => {}
        }
        let units = webhook.identify(request, document.value()).map_err(misfit)?;
        let headers = event_headers(connector.header_allow(), &delivery.headers);
        let sent = delivery
            .headers
            .iter()
            .find(|(name, _)| name == "traceparent")
            .map(|(_, value)| value.clone());
        let traceparent = crate::trace::traceparent(&Span::current()).or(sent);
        self.runs().hold_intake().await;
        let mut pending = Vec::with_capacity(units.len());
        for (number, unit) in units.into_iter().enumerate() {
            if progress.left.as_ref().is_some_and(|left| !left.contains(&number)) {
                continue;
            }
            if unit.ignored {
                metrics::counter!("weir_webhooks_ignored_total").increment(1);
                continue;
            }
            // Endpoint names outlive their ids: an endpoint made anew under its old name still knows what it has seen.
            let door = Door {
                workspace: endpoint.workspace(),
                connector: connector.name(),
                connection: endpoint.connection(),
                endpoint: Some((endpoint.id(), endpoint.name())),
                source: EventSource::Endpoint,
            };
            let dedupe = Dedupe {
                scope: format!("endpoint/{}", endpoint.name()),
                key: storable(&unit.dedupe_key),
                anchored_at: unit.time_unix_ms.map(Timestamp::from_unix_ms),
            };
            let place = unit
                .sequence
                .map(|number| (unit.account.clone().unwrap_or_default(), number));
            let arrival = Arrival {
                door,
                unit,
                document: &document,
                raw: &raw,
                headers: &headers,
                traceparent: traceparent.clone(),
                now,
            };
            let submitted = self.submit(arrival, dedupe)?;
            pending.push((number, place, submitted));
        }
        let at = (endpoint.workspace(), endpoint.id());
        let mut outdated: Option<(i64, BTreeSet<usize>)> = None;
        for (number, place, submitted) in pending {
            let Submitted {
                event, fact, caller, ..
            } = submitted;
            let written = fact.await;
            let caller = match (caller, &written) {
                (Some(caller), Ok(FactOutcome::Accepted(AcceptOutcome::New))) if progress.answering.is_none() => {
                    progress.answering = Some(caller);
                    true
                }
                (Some(caller), _) => {
                    caller.give_up(&self.core);
                    true
                }
                (None, _) => false,
            };
            if let (Some((account, number)), Ok(_)) = (&place, &written) {
                self.core.sweeps.saw(endpoint.id(), account, *number, now);
            }
            match written {
                Ok(FactOutcome::Accepted(AcceptOutcome::New)) => {
                    progress.receipt.add(event, false);
                    self.core.ledger.count(at, Came::Received, now);
                    metrics::counter!("weir_events_accepted_total").increment(1)
                }
                Ok(FactOutcome::Accepted(AcceptOutcome::Duplicate { of })) => {
                    if caller {
                        progress.again.get_or_insert(of);
                    }
                    progress.receipt.add(of, true);
                    self.core.ledger.count(at, Came::Again, now);
                    metrics::counter!("weir_events_duplicate_total").increment(1)
                }
                Ok(other) => {
                    tracing::error!("the writer answered an event with {other:?}");
                    return Err(not_kept("the event could not be stored"));
                }
                Err(WriteError::Refused(constraint)) => {
                    // The database's own words are for the log, not for strangers.
                    tracing::warn!(endpoint.name = %endpoint.name(), "an event cannot be stored: {constraint}");
                    return Err(invalid("the event holds a value that cannot be stored".to_owned()));
                }
                Err(WriteError::Fenced) => {
                    self.core.lose_place();
                    return Err(IngestProblem::busy(
                        IngestCode::ShuttingDown,
                        "the server is stopping",
                        2,
                    ));
                }
                Err(WriteError::Outdated { revision }) => {
                    let (newest, left) = outdated.get_or_insert_default();
                    *newest = revision.max(*newest);
                    left.insert(number);
                }
                Err(WriteError::Unknown) => {
                    // On disk or not: the provider sends it again, and the dedupe row knows. Runs that were committed
                    // unseen are found by the scan that this asks for.
                    self.core.rescan.notify_one();
                    return Err(not_kept("the result of the commit is unknown"));
                }
                Err(WriteError::Stale | WriteError::Unavailable) => {
                    return Err(not_kept("the database cannot write now"));
                }
            }
        }
        if let Some((revision, left)) = outdated {
            progress.left = Some(left);
            return Ok(Taken::Outdated { revision });
        }
        // The one exception to "nobody upstream waits": a workflow answers, and only what is on disk.
        if let Some(caller) = progress.answering.take() {
            progress.waited = true;
            return Ok(Taken::Done(caller.reply(&self.core).await));
        }
        if let Some(event) = progress.again {
            progress.waited = true;
            match answers::again(&self.core, endpoint.workspace(), event).await {
                Ok(Some(reply)) => return Ok(Taken::Done(reply)),
                Ok(None) => {}
                Err(error) => tracing::warn!("the answer to a repeated request cannot be read: {error}"),
            }
        }
        Ok(Taken::Done(match webhook.ack() {
            Some(ack) => Reply {
                status: ack.status,
                headers: ack.headers.clone(),
                body: ack.body.clone(),
            },
            None => progress.receipt.reply(),
        }))
    }

    /// Routes an event and hands it to the writer.
    pub(crate) fn submit(&self, arrival: Arrival<'_>, mut dedupe: Dedupe) -> Result<Submitted, IngestProblem> {
        let snapshot = self.snapshot();
        let id = self.core.new_event_id(arrival.now);
        if arrival.unit.by_arrival {
            dedupe.key = format!("{}.{id}", dedupe.key);
        }
        let (accepted_event, row) = arrival.event(id);
        let workspace = row.workspace;
        let matches = route::matches(&snapshot, workspace, &accepted_event, arrival.now);
        let event = Arc::new(accepted_event);
        let started = start_runs(
            (&self.core.ids, &snapshot),
            &event,
            &dedupe,
            matches,
            workspace,
            row.traceparent.as_deref(),
            arrival.now,
        );
        let keys = snapshot.wait_keys(workspace, &event);
        let caller = Caller::of(&self.core, &started);
        let runs = started.iter().map(|run| run.state.head().id).collect();
        let fact = accept_fact(&self.core, &snapshot, row, dedupe, keys, started);
        let pending = match self.writer().submit(Fact::Accept(fact)) {
            Ok(pending) => pending,
            Err(full) => {
                if let Some(caller) = caller {
                    caller.give_up(&self.core);
                }
                metrics::counter!("weir_webhooks_refused_total", "reason" => "queue_full").increment(1);
                return Err(IngestProblem::busy(IngestCode::QueueFull, full.to_string(), 1));
            }
        };
        Ok(Submitted {
            event: id,
            fact: pending,
            caller,
            runs,
        })
    }
}

/// An event that the writer has got.
pub(crate) struct Submitted {
    pub(crate) event: EventId,
    /// What becomes of it.
    pub(crate) fact: Pending,
    /// Whoever waits for the answer of a workflow.
    pub(crate) caller: Option<Caller>,
    /// The runs that it starts if it is new.
    pub(crate) runs: Vec<RunId>,
}

/// What stands of a request, also when its events have to be routed anew.
#[derive(Default)]
pub(super) struct Progress {
    /// The answer waited for the provider, for a workflow or for a change of the configuration: how long it took tells
    /// nothing about the load.
    pub(super) waited: bool,
    /// Numbers of the events that are still to be taken; `None`: all of them.
    left: Option<BTreeSet<usize>>,
    /// The workflow that answers the request.
    answering: Option<Caller>,
    /// The event that came before, and whose workflow answered it.
    again: Option<EventId>,
    /// What was taken so far.
    receipt: Receipt,
}

/// What the sender is told of an accepted request when its connector does not care.
#[derive(Default)]
struct Receipt {
    /// The first event, and whether it came before.
    first: Option<(EventId, bool)>,
    events: usize,
    duplicates: usize,
}

impl Receipt {
    fn add(&mut self, event: EventId, is_duplicate: bool) {
        self.first.get_or_insert((event, is_duplicate));
        self.events += 1;
        self.duplicates += usize::from(is_duplicate);
    }

    /// A batch is told in numbers: it may hold thousands.
    fn reply(&self) -> Reply {
        let body = match self.first {
            // Nothing in it was of interest.
            None => {
                return Reply {
                    status: 200,
                    headers: Vec::new(),
                    body: Vec::new(),
                };
            }
            Some((event, is_duplicate)) if self.events == 1 => {
                format!("{{\"event\":\"{event}\",\"duplicate\":{is_duplicate}}}")
            }
            Some(_) => format!("{{\"events\":{},\"duplicates\":{}}}", self.events, self.duplicates),
        };
        Reply {
            status: 200,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.into_bytes(),
        }
    }
}

/// What became of an attempt to take a request.
pub(super) enum Taken {
    /// Its events are on disk.
    Done(Reply),
    /// Some were routed by a configuration that is no longer in force, and are not on disk.
    Outdated {
        /// The revision in force.
        revision: i64,
    },
}

/// The fact of an event with its runs, which start as soon as it is committed. Routed by `snapshot`.
pub(crate) fn accept_fact(
    core: &Arc<Core>,
    snapshot: &Snapshot,
    event: EventRow,
    dedupe: Dedupe,
    keys: Vec<WaitKey>,
    started: Vec<ActiveRun>,
) -> Accepted {
    let owner = core.new_run_owner();
    let runs = started.iter().map(|run| new_run(run, owner)).collect();
    let core = Arc::clone(core);
    let after_commit = Box::new(move |outcome: &AcceptOutcome, held: &BTreeSet<RunId>| {
        core.queued.note(held.len());
        if *outcome == AcceptOutcome::New && owner == RunOwner::ThisNode {
            for run in started.into_iter().filter(|run| !held.contains(&run.state.head().id)) {
                runner::launch(&core, run);
            }
        }
    });
    Accepted {
        event,
        dedupe,
        runs,
        keys,
        fires: None,
        routed_by: Some(snapshot.revision()),
        audit: None,
        after_commit: Some(after_commit),
    }
}

/// The allow-listed headers; a header that came several times keeps its values, joined as HTTP allows.
fn event_headers(allowed: &[String], headers: &[(String, String)]) -> BTreeMap<String, String> {
    let mut kept: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| allowed.contains(name)) {
        match kept.get_mut(name) {
            Some(known) => {
                known.push_str(", ");
                known.push_str(value);
            }
            None => {
                kept.insert(name.clone(), value.clone());
            }
        }
    }
    kept
}

pub(super) fn not_kept(detail: &str) -> IngestProblem {
    metrics::counter!("weir_webhooks_refused_total", "reason" => "database_unavailable").increment(1);
    IngestProblem::busy(IngestCode::DatabaseUnavailable, detail, 5)
}

/// The runs of a new event, each with its memory, not started yet.
pub(crate) fn start_runs(
    (ids, snapshot): (&IdGenerator, &Snapshot),
    event: &Arc<Event>,
    dedupe: &Dedupe,
    matches: Vec<Match>,
    workspace: WorkspaceId,
    traceparent: Option<&str>,
    now: Timestamp,
) -> Vec<ActiveRun> {
    matches
        .into_iter()
        .map(|found| {
            let id = RunId::from_raw(ids.next_raw(now));
            let head = RunHead {
                id,
                root_id: id,
                replay_of: None,
                workspace,
                workflow: found.workflow.row.id,
                workflow_name: found.workflow.row.name.clone(),
                version: found.version.id,
                version_number: found.version.number,
                dedupe_scope: dedupe.scope.clone(),
                dedupe_key: dedupe.key.clone(),
                started_at: now,
            };
            let turn = match &found.failure {
                Some(error) => Err(Refused::by_filter(error)),
                None => turns::of(snapshot, workspace, &found.version, event, now)
                    .map(|turn| turns::held(turn, &found.workflow.row, event)),
            };
            let (turn, refused) = match turn {
                Ok(turn) => (turn, None),
                Err(refused) => (None, Some(refused)),
            };
            ActiveRun {
                turn,
                state: RunState::new(head, Arc::clone(event), &found.version.plan),
                version: found.version,
                next_seq: 0,
                first: First::Started,
                asleep: false,
                mail: Vec::new(),
                refused,
                traceparent: traceparent.map(ToOwned::to_owned),
            }
        })
        .collect()
}

/// The row of a run at its start.
pub(crate) fn new_run(run: &ActiveRun, owner: RunOwner) -> NewRun {
    let (state, head) = (&run.state, run.state.head());
    NewRun {
        id: head.id,
        root_id: head.root_id,
        replay_of: head.replay_of,
        workspace: head.workspace,
        event_id: state.event().uid,
        workflow_id: head.workflow,
        version_id: head.version,
        started_at: head.started_at,
        turn: run.turn.clone().filter(|turn| !turn.gates.is_empty()),
        owner,
    }
}

/// The way by which an event comes in.
pub(crate) struct Door<'a> {
    pub(crate) workspace: WorkspaceId,
    pub(crate) connector: &'a str,
    pub(crate) connection: Option<(ConnectionId, &'a str)>,
    pub(crate) endpoint: Option<(EndpointId, &'a str)>,
    pub(crate) source: EventSource,
}

/// One unit of a request on its way to become an event.
pub(crate) struct Arrival<'a> {
    pub(crate) door: Door<'a>,
    pub(crate) unit: Identified,
    pub(crate) document: &'a Document,
    /// The bytes of the whole request.
    pub(crate) raw: &'a Bytes,
    pub(crate) headers: &'a BTreeMap<String, String>,
    pub(crate) traceparent: Option<String>,
    pub(crate) now: Timestamp,
}

impl Arrival<'_> {
    /// The event as runs see it, and its row.
    pub(crate) fn event(&self, uid: EventId) -> (Event, EventRow) {
        let Arrival {
            door,
            unit,
            document,
            raw,
            headers,
            traceparent,
            now,
        } = self;
        let (body, bytes) = if unit.unit_pointer.is_empty() {
            ((*document).clone(), (*raw).clone())
        } else {
            let part = document.part(&unit.unit_pointer).unwrap_or_else(Document::null);
            let bytes = Bytes::copy_from_slice(part.raw().as_bytes());
            (part, bytes)
        };
        let data = if unit.data_pointer.is_empty() {
            body.clone()
        } else {
            body.part(&unit.data_pointer).unwrap_or_else(|| body.clone())
        };
        let reference = unit.reference.as_ref().map(|(kind, id, version)| EventRef {
            kind: storable(kind),
            id: storable(id),
            version: version.as_deref().map(storable),
        });
        let event = Event {
            id: storable(&unit.id),
            uid,
            kind: storable(&unit.kind),
            time: unit.time_unix_ms.map(Timestamp::from_unix_ms),
            received_at: *now,
            source: door.source,
            account: unit.account.as_deref().map(storable),
            reference,
            headers: (*headers).clone(),
            body,
            data,
            connector: door.connector.to_owned(),
            connection: door.connection.map(|(_, name)| name.to_owned()),
            endpoint: door.endpoint.map(|(_, name)| name.to_owned()),
            scheduled_for: None,
            batch: None,
        };
        let row = EventRow {
            id: uid,
            workspace: door.workspace,
            endpoint: door.endpoint.map(|(id, _)| id),
            connector: event.connector.clone(),
            connection: door.connection.map(|(id, _)| id),
            source: event.source,
            external_id: event.id.clone(),
            kind: event.kind.clone(),
            account: event.account.clone(),
            ref_kind: event.reference.as_ref().map(|reference| reference.kind.clone()),
            ref_id: event.reference.as_ref().map(|reference| reference.id.clone()),
            ref_version: event.reference.as_ref().and_then(|reference| reference.version.clone()),
            occurred_at: event.time,
            received_at: *now,
            headers: serde_json::to_string(headers).unwrap_or_else(|_| "{}".to_owned()),
            body: bytes,
            data_pointer: unit.data_pointer.clone(),
            scheduled_for: None,
            traceparent: traceparent.clone(),
        };
        (event, row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_names_one_event_and_counts_several() {
        let check = |events: &[(i64, bool)], expected: &str| {
            let mut receipt = Receipt::default();
            for (id, is_duplicate) in events {
                receipt.add(EventId::from_raw(*id), *is_duplicate);
            }
            let reply = receipt.reply();
            assert_eq!(reply.status, 200);
            assert_eq!(String::from_utf8(reply.body).unwrap(), expected);
        };
        let id = EventId::from_raw(1);
        check(&[], "");
        check(&[(1, false)], &format!("{{\"event\":\"{id}\",\"duplicate\":false}}"));
        check(&[(1, true)], &format!("{{\"event\":\"{id}\",\"duplicate\":true}}"));
        check(&[(1, true), (2, false), (3, false)], "{\"events\":3,\"duplicates\":1}");
    }
}
