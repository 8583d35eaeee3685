//! Starting a workflow without a webhook: by hand, by a program, or by a step of another run.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use weir_connector_sdk::{Connector, Identified, InboundRequest, Registration, Webhook};
use weir_storage::{Accepted, Dedupe, EventRow};
use weir_workflow_engine::{Document, Event, EventId, EventSource, Problem, RunId, Timestamp, Trigger, WorkspaceId};

use crate::control::ControlError;
use crate::driver::ActiveRun;
use crate::ingest::accept::{Arrival, Door, accept_fact, start_runs};
use crate::route::Match;
use crate::schedules;
use crate::service::Core;
use crate::snapshot::{Snapshot, Version, Workflow};

/// A start of a workflow, with its input as its event's body.
pub(crate) struct Start<'a> {
    pub(crate) workspace: WorkspaceId,
    pub(crate) workflow: &'a Arc<Workflow>,
    pub(crate) version: &'a Arc<Version>,
    pub(crate) input: Value,
    pub(crate) source: EventSource,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) dedupe: Dedupe,
    pub(crate) traceparent: Option<String>,
    /// The event that stands for the start, if it is new.
    pub(crate) uid: EventId,
    pub(crate) now: Timestamp,
}

/// A start that nothing was written about.
struct Made {
    event: Arc<Event>,
    row: EventRow,
    dedupe: Dedupe,
    run: ActiveRun,
}

impl Start<'_> {
    /// The fact that starts it, and the run, if it is new.
    pub(crate) fn prepare(self, core: &Arc<Core>, snapshot: &Snapshot) -> Result<(Accepted, RunId), ControlError> {
        let workspace = self.workspace;
        let Made {
            event,
            row,
            dedupe,
            run,
        } = self.made(core, snapshot)?;
        let id = run.state.head().id;
        let keys = snapshot.wait_keys(workspace, &event);
        Ok((accept_fact(core, snapshot, row, dedupe, keys, vec![run]), id))
    }

    /// The run that it would be; nothing is to be written about it.
    pub(crate) fn rehearsed(self, core: &Core, snapshot: &Snapshot) -> Result<ActiveRun, ControlError> {
        self.made(core, snapshot).map(|made| made.run)
    }

    fn made(self, core: &Core, snapshot: &Snapshot) -> Result<Made, ControlError> {
        let Start {
            workspace,
            workflow,
            version,
            input,
            source,
            headers,
            dedupe,
            traceparent,
            uid,
            now,
        } = self;
        let mut document = Document::from_value(input);
        let mut raw = Bytes::copy_from_slice(document.raw().as_bytes());
        let (connector, connection, unit) = match version.plan.trigger() {
            trigger @ Trigger::Manual { .. } => {
                trigger.check_input(document.value()).map_err(ControlError::Invalid)?;
                ("manual", None, plain_unit(&workflow.row.name, uid))
            }
            Trigger::Schedule(schedule) => {
                document = schedules::by_hand(core, workflow, schedule, document.value(), now)?;
                raw = Bytes::copy_from_slice(document.raw().as_bytes());
                (schedules::CONNECTOR, None, plain_unit(&workflow.row.name, uid))
            }
            Trigger::Event { event, connection, .. } => {
                let (connector, kind) = event.split_once('.').unwrap_or((event, ""));
                let named = connection
                    .as_deref()
                    .and_then(|name| snapshot.connection(workspace, name));
                let known = named.map(|connection| &connection.connector);
                let known = known.or_else(|| snapshot.connectors(workspace).get(connector));
                let unit = identify(known, kind, &document)?;
                (connector, connection.as_deref(), unit)
            }
        };
        let connection = connection
            .and_then(|name| snapshot.connection_row(workspace, name))
            .map(|(connection, row)| (row.id, connection.name.as_str()));
        let door = Door {
            workspace,
            connector,
            connection,
            endpoint: None,
            source,
        };
        let (event, row) = Arrival {
            door,
            unit,
            document: &document,
            raw: &raw,
            headers: &headers,
            traceparent: traceparent.clone(),
            now,
        }
        .event(uid);
        let event = Arc::new(event);
        let found = Match {
            workflow: Arc::clone(workflow),
            version: Arc::clone(version),
            failure: None,
        };
        let traceparent = traceparent.as_deref();
        let started = start_runs(
            (&core.ids, snapshot),
            &event,
            &dedupe,
            vec![found],
            workspace,
            traceparent,
            now,
        );
        let run = started.into_iter().next();
        let run = run.ok_or_else(|| ControlError::Unavailable("nothing was started".to_owned()))?;
        Ok(Made {
            event,
            row,
            dedupe,
            run,
        })
    }
}

/// A started workflow with an event trigger gets its input read as the provider would have sent it, so that the object
/// it is about is known to the follow-up reads.
fn identify(connector: Option<&Arc<Connector>>, kind: &str, document: &Document) -> Result<Identified, ControlError> {
    let invalid = |message: String| {
        ControlError::Invalid(vec![Problem {
            pointer: String::new(),
            code: "not_an_event",
            message,
            suggestion: None,
        }])
    };
    let connector = connector.ok_or(ControlError::NotFound)?;
    let registration = Registration::new();
    let request = InboundRequest {
        method: "POST",
        url: "",
        headers: &[],
        body: document.raw().as_bytes(),
        registration: &registration,
        client_ip: None,
    };
    // Of several lists, the one whose items are of this type.
    let is_of_kind = |way: &&Webhook| {
        let units = way.identify(&request, document.value());
        units.is_ok_and(|units| units.iter().any(|unit| unit.kind == kind))
    };
    let polls = || connector.polls().filter_map(|name| connector.poll(name));
    let webhook = connector
        .webhook()
        .or_else(|| polls().find(is_of_kind))
        .or_else(|| polls().next())
        .ok_or(ControlError::NotFound)?;
    let units = webhook.identify(&request, document.value()).map_err(|error| {
        invalid(format!(
            "the input is not an event of connector `{}`: {error}",
            connector.name()
        ))
    })?;
    let unit = units
        .into_iter()
        .next()
        .ok_or_else(|| invalid("the input holds no event".to_owned()))?;
    if unit.kind == kind {
        Ok(unit)
    } else {
        Err(invalid(format!(
            "the workflow takes `{kind}` events, and the input is a `{}` event",
            unit.kind
        )))
    }
}

fn plain_unit(kind: &str, uid: EventId) -> Identified {
    Identified {
        unit_pointer: String::new(),
        id: uid.to_string(),
        id_from_provider: false,
        kind: kind.to_owned(),
        time_unix_ms: None,
        account: None,
        reference: None,
        data_pointer: String::new(),
        dedupe_key: uid.to_string(),
        by_arrival: false,
        sequence: None,
        order_key: None,
        ignored: false,
    }
}
