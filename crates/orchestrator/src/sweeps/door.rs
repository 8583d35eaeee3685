//! The door by which items of a provider's list come in: that of its webhooks, with the same dedupe.

use super::ledger::Came;
use crate::ingest::accept::{Arrival, Door};
use crate::service::{Core, Orchestrator};
use crate::snapshot::Endpoint;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_connector_sdk::{Identified, Webhook};
use weir_storage::{AcceptOutcome, Dedupe, FactOutcome, WriteError};
use weir_workflow_engine::{Document, EventSource, RunId, Timestamp};

/// How often events are routed anew because the configuration changes.
const ROUTING_TRIES: u32 = 5;

/// Why a list is not read to its end now.
#[derive(Debug)]
pub(super) enum Stop {
    /// The provider or the database did not do its part; it is tried again.
    Failed(String),
    /// There is too much to do here; it is gone on with soon.
    Partial(String),
    /// Somebody else has it, or a person wants it to stand still.
    Overtaken,
    /// The process stops, or the configuration is another one: whoever comes first goes on at once.
    Interrupted,
}

/// Takes in items of the list of one endpoint, and counts what became of them.
pub(super) struct ListDoor<'a> {
    core: &'a Arc<Core>,
    endpoint: Arc<Endpoint>,
    source: EventSource,
    /// New events since this was last taken.
    pub(super) recovered: u64,
    /// Events that were here already.
    pub(super) duplicates: u64,
    /// Events that the database does not take.
    pub(super) refused: u64,
    /// Runs of new events.
    pub(super) runs: Vec<RunId>,
}

impl<'a> ListDoor<'a> {
    pub(super) fn new(core: &'a Arc<Core>, endpoint: &Arc<Endpoint>, source: EventSource) -> Self {
        ListDoor {
            core,
            endpoint: Arc::clone(endpoint),
            source,
            recovered: 0,
            duplicates: 0,
            refused: 0,
            runs: Vec::new(),
        }
    }

    /// Stores events, all of them or with a reason why not. What was stored stays and is counted.
    pub(super) async fn store(&mut self, webhook: &Webhook, mut left: Vec<&(Identified, Value)>) -> Result<(), Stop> {
        let orchestrator = Orchestrator {
            core: Arc::clone(self.core),
        };
        for _ in 0..ROUTING_TRIES {
            if self.core.runs.backlog_is_full() || self.core.queued.is_full() {
                return Err(Stop::Partial(
                    "too many accepted runs wait for their turn; it is gone on with".to_owned(),
                ));
            }
            self.core.runs.hold_intake().await;
            let now = self.core.clock.now();
            let mut pending = Vec::with_capacity(left.len());
            for item in left {
                let (fact, runs) = self.submit(&orchestrator, webhook, item, now)?;
                pending.push((item, fact, runs));
            }
            let mut again = Vec::new();
            let mut newest = None;
            for (item, fact, runs) in pending {
                let came = match fact.await {
                    Ok(FactOutcome::Accepted(AcceptOutcome::New)) => match self.source {
                        EventSource::Backfill => Came::Backfilled,
                        EventSource::Poll => Came::Polled,
                        _ => Came::Recovered,
                    },
                    Ok(FactOutcome::Accepted(AcceptOutcome::Duplicate { .. })) => Came::Known,
                    Err(WriteError::Outdated { revision }) => {
                        newest = newest.max(Some(revision));
                        again.push(item);
                        continue;
                    }
                    Err(WriteError::Refused(constraint)) => {
                        tracing::warn!(endpoint.name = %self.endpoint.name(), "a recovered event cannot be stored: {constraint}");
                        self.refused += 1;
                        continue;
                    }
                    Err(WriteError::Fenced) => {
                        self.core.lose_place();
                        return Err(Stop::Interrupted);
                    }
                    Err(WriteError::Unknown) => {
                        self.core.rescan.notify_one();
                        return Err(Stop::Failed("database: the result of a commit is unknown".to_owned()));
                    }
                    Ok(_) | Err(WriteError::Stale | WriteError::Unavailable) => {
                        return Err(Stop::Failed("database: events cannot be stored now".to_owned()));
                    }
                };
                match came {
                    Came::Recovered | Came::Backfilled | Came::Polled => {
                        self.recovered += 1;
                        self.runs.extend(runs);
                        if came != Came::Polled {
                            metrics::counter!("weir_events_recovered_total").increment(1);
                        }
                        metrics::counter!("weir_events_accepted_total").increment(1);
                    }
                    Came::Known | Came::Again | Came::Received => self.duplicates += 1,
                }
                let endpoint = (self.endpoint.workspace(), self.endpoint.id());
                self.core.ledger.count(endpoint, came, now);
                if let Some(number) = item.0.sequence {
                    let account = item.0.account.as_deref().unwrap_or_default();
                    self.core.sweeps.saw(self.endpoint.id(), account, number, now);
                }
            }
            let Some(revision) = newest else {
                return Ok(());
            };
            if orchestrator.at_least(revision).await.is_none() {
                break;
            }
            left = again;
        }
        Err(Stop::Failed("configuration: it keeps changing".to_owned()))
    }

    fn submit(
        &self,
        orchestrator: &Orchestrator,
        webhook: &Webhook,
        (unit, item): &(Identified, Value),
        now: Timestamp,
    ) -> Result<(weir_storage::Pending, Vec<RunId>), Stop> {
        let document = Document::from_value(item.clone());
        let raw = Bytes::copy_from_slice(document.raw().as_bytes());
        let headers = BTreeMap::new();
        let dedupe = Dedupe {
            scope: format!("endpoint/{}", self.endpoint.name()),
            key: crate::runner::storable(&unit.dedupe_key),
            // The time that another description gives may differ from that in the webhook.
            anchored_at: unit
                .time_unix_ms
                .filter(|_| webhook.lists_events())
                .map(Timestamp::from_unix_ms),
        };
        let arrival = Arrival {
            door: Door {
                workspace: self.endpoint.workspace(),
                connector: self.endpoint.connector().name(),
                connection: self.endpoint.connection(),
                endpoint: Some((self.endpoint.id(), self.endpoint.name())),
                source: self.source,
            },
            unit: unit.clone(),
            document: &document,
            raw: &raw,
            headers: &headers,
            traceparent: None,
            now,
        };
        match orchestrator.submit(arrival, dedupe) {
            Ok(submitted) => {
                // Nobody waits for the answer of a workflow here.
                if let Some(caller) = submitted.caller {
                    caller.give_up(self.core);
                }
                Ok((submitted.fact, submitted.runs))
            }
            Err(_full) => Err(Stop::Partial(
                "the writer's queue is full; it is gone on with".to_owned(),
            )),
        }
    }
}
