//! One look at a registration: claim it, ask the provider what there is, take the steps that `rules` says, store each.
//!
//! The address is stored before a webhook is made, and its id and secret right after. A crash in between leaves one that
//! is found by its address and deleted, for its secret is known to nobody.

mod steps;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use weir_storage::{
    Fact, RegistrationClaim, RegistrationDrop, RegistrationRow, RegistrationSave, RegistrationStep, WriteError,
};
use weir_workflow_engine::{EndpointId, Timestamp, WorkspaceId};

use super::rules::{self, DISCONNECTED, Step, Wanted, Wish};
use super::secrets::Secrets;
use crate::ingest::EndpointRef;
use crate::service::{Core, Orchestrator};
use crate::snapshot::{Endpoint, Snapshot};
use steps::Provider;

pub use steps::MAX_HOOK_PAGES;

/// How long a node keeps a registration to itself without writing: longer than a call with its wait for the budget.
const LEASE: Duration = Duration::from_secs(180);
/// Steps of one look: a provider that does not take what it is told is not told for ever.
const MAX_STEPS: u32 = 20;
/// Tries to store what a provider has just made, and the pause between them: it would have to be made anew.
const SAVE_TRIES: (u32, Duration) = (10, Duration::from_millis(500));

/// How long a webhook is not made anew whose connection is being disconnected: after that its calls wait for a person.
const DISCONNECTING: Duration = Duration::from_secs(60);
/// Failures in a row after which a webhook is left behind at a place that the endpoint has left, or whose connector no
/// longer says how one is deleted.
const MOVE_TRIES: u32 = 5;

/// What became of a look.
pub(super) enum Passed {
    /// The row as it is stored now; `None`: it is gone.
    Stored(Option<RegistrationRow>),
    /// Another node has it, or has changed it since; this is the row as it is stored.
    Overtaken(Option<RegistrationRow>),
    /// It could not begin, or its end could not be stored.
    Postponed,
}

/// Why a look does not go on.
enum Stop {
    /// What people are told; it is tried again.
    Failed(String),
    /// Another node writes the row.
    Overtaken,
    /// This node stops.
    Interrupted,
}

struct Look<'a> {
    core: &'a Arc<Core>,
    snapshot: Arc<Snapshot>,
    endpoint: Option<Arc<Endpoint>>,
    row: RegistrationRow,
    secrets: Secrets,
    /// Other secrets count now, and the nodes have not been told yet.
    is_news: bool,
    /// The provider had something else than we had left there.
    has_drifted: bool,
}

/// Looks after a registration. `row`: as it is known.
pub(super) async fn look(
    core: &Arc<Core>,
    (workspace, id): (WorkspaceId, EndpointId),
    row: Option<RegistrationRow>,
    wish: &Wish,
) -> Passed {
    let snapshot = core.snapshot.load_full();
    let endpoint = snapshot
        .endpoint(&EndpointRef::Id(id))
        .filter(|endpoint| endpoint.workspace() == workspace)
        .cloned();
    let mut row = match (row, wish) {
        (row, Wish::Unclear(_)) | (row @ None, Wish::Absent(_)) => return Passed::Stored(row),
        (Some(row), Wish::Registered(_) | Wish::Absent(_)) => row,
        (None, Wish::Registered(wanted)) => new_row(workspace, id, wanted),
    };
    let claim = RegistrationStep::Claim(RegistrationClaim {
        row: row.clone(),
        lease: LEASE,
    });
    match write(core, claim).await {
        Ok(()) => row.generation += 1,
        Err(WriteError::Stale | WriteError::Unknown) => return overtaken(core, workspace, id).await,
        Err(_) => return Passed::Postponed,
    }
    let secrets = match Secrets::open(&row, &core.secrets) {
        Ok(secrets) => secrets,
        Err(error) => {
            tracing::error!("{error}");
            return Passed::Postponed;
        }
    };
    let mut look = Look {
        core,
        snapshot,
        endpoint,
        row,
        secrets,
        is_news: false,
        has_drifted: false,
    };
    let done = look.fulfil(wish).await;
    look.end(done, wish).await
}

fn new_row(workspace: WorkspaceId, id: EndpointId, wanted: &Wanted) -> RegistrationRow {
    RegistrationRow {
        endpoint: id,
        workspace,
        connection: wanted.connection,
        place: wanted.place.clone(),
        provider_id: None,
        url: None,
        events: Vec::new(),
        secrets: None,
        secrets_until: None,
        expires_at: None,
        created_at: None,
        renewed_at: None,
        checked_at: None,
        drift: None,
        error: None,
        failures: 0,
        retry_at: Timestamp::from_unix_ms(0),
        generation: 0,
    }
}

impl Look<'_> {
    fn now(&self) -> Timestamp {
        self.core.clock.now()
    }

    fn name(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => endpoint.name().to_owned(),
            None => self.row.endpoint.to_string(),
        }
    }

    async fn fulfil(&mut self, wish: &Wish) -> Result<(), Stop> {
        self.is_news |= self.secrets.prune(self.now());
        if let Wish::Registered(wanted) = wish
            && rules::is_elsewhere(&self.row, wanted)
        {
            match self.reach(&Wish::Absent(None)).await {
                Err(Stop::Failed(error)) if self.row.failures >= MOVE_TRIES => {
                    let id = self.row.provider_id.as_deref().unwrap_or("unknown");
                    tracing::error!(endpoint.name = %self.name(), "the webhook {id} that endpoint `{}` had before cannot be deleted at its provider and is left behind; delete it there: {error}", self.name());
                }
                left => left?,
            }
            self.leave();
            self.row.connection = wanted.connection;
            self.row.place.clone_from(&wanted.place);
        }
        self.reach(wish).await
    }

    /// Nothing is at the provider any more.
    fn leave(&mut self) {
        self.secrets.retire(self.now());
        let row = &mut self.row;
        (row.provider_id, row.url) = (None, None);
        (row.expires_at, row.created_at) = (None, None);
        (row.renewed_at, row.checked_at) = (None, None);
        row.events.clear();
    }

    /// Takes steps until all is as it is wished.
    async fn reach(&mut self, wish: &Wish) -> Result<(), Stop> {
        let is_absent = matches!(wish, Wish::Absent(_));
        if is_absent && !rules::may_be_there(&self.row) {
            return Ok(());
        }
        let snapshot = Arc::clone(&self.snapshot);
        let mut connections = snapshot.connections(self.row.workspace);
        let connection = connections.find(|(connection, _)| connection.id == self.row.connection);
        let connection = connection.map(|(connection, _)| connection);
        let register = connection
            .and_then(|connection| connection.connector.webhook())
            .and_then(|webhook| webhook.register());
        let (Some(connection), Some(register)) = (connection, register) else {
            let is_left = is_absent && connection.is_some() && self.row.failures >= MOVE_TRIES;
            let may_come_back = connection.is_some() || snapshot.has_unusable_connection(self.row.connection);
            if may_come_back && !is_left {
                return Err(Stop::Failed(
                    "the connector does not say how its webhooks are registered, or is not there".to_owned(),
                ));
            }
            if is_absent {
                let id = self.row.provider_id.as_deref().unwrap_or("unknown");
                tracing::warn!(
                    "the webhook {id} of endpoint `{}` cannot be deleted at its provider, for its connection is gone or cannot do it: delete it there",
                    self.name()
                );
                return Ok(());
            }
            return Err(Stop::Failed("the connection of the endpoint is not there".to_owned()));
        };
        let with: Map<String, Value> = serde_json::from_str(&self.row.place).unwrap_or_default();
        let at = Provider {
            connection,
            register,
            with: &with,
        };
        let mut seen = self.list(at, wish).await?;
        if let Some(what) = rules::drift(&self.row, &seen).filter(|_| !is_absent) {
            tracing::warn!(endpoint.name = %self.name(), "the webhook of endpoint `{}` was changed at its provider: {what}; it is put right", self.name());
            metrics::counter!("weir_registration_drifts_total").increment(1);
            self.row.drift = Some((self.now(), what.to_owned()));
            self.has_drifted = true;
        }
        for _ in 0..MAX_STEPS {
            if self.core.stopping.is_cancelled() {
                return Err(Stop::Interrupted);
            }
            let now = self.now();
            match (rules::next_step(now, wish, &self.row, &seen), wish) {
                (Step::Delete(id), _) => self.delete(at, &id, &mut seen).await?,
                (Step::Create, Wish::Registered(wanted)) => self.create(at, wanted, &mut seen).await?,
                (Step::Update(id), Wish::Registered(wanted)) => self.update(at, wanted, &id, &mut seen).await?,
                (Step::Renew(id), Wish::Registered(wanted)) => self.renew(at, wanted, &id, &mut seen).await?,
                (Step::Keep, _) => {
                    self.row.checked_at = Some(now);
                    let known = seen.iter().find(|hook| Some(&hook.id) == self.row.provider_id.as_ref());
                    if let Some(expires) = known.and_then(|hook| hook.expires_unix_ms) {
                        self.row.expires_at = Some(Timestamp::from_unix_ms(expires));
                    }
                    return Ok(());
                }
                (Step::Forget, _) | (_, Wish::Absent(_) | Wish::Unclear(_)) => return Ok(()),
            }
        }
        Err(Stop::Failed(
            "the provider has its webhooks otherwise than it is told again and again".to_owned(),
        ))
    }

    fn tell(&self, what: &'static str, id: &str) {
        metrics::counter!("weir_registration_steps_total", "step" => what).increment(1);
        tracing::info!(endpoint.name = %self.name(), "the webhook {id} of endpoint `{}` was {what} at its provider", self.name());
    }

    async fn save(&mut self, keep: Option<Duration>) -> Result<(), Stop> {
        self.secrets.seal_into(&mut self.row, &self.core.secrets);
        let step = RegistrationStep::Save(RegistrationSave {
            row: self.row.clone(),
            keep,
            announce: self.is_news,
        });
        match write(self.core, step).await {
            Ok(()) => {}
            Err(WriteError::Stale | WriteError::Unknown) => return Err(Stop::Overtaken),
            Err(WriteError::Fenced) => {
                self.core.lose_place();
                return Err(Stop::Interrupted);
            }
            Err(error) => return Err(Stop::Failed(format!("database: {error}"))),
        }
        self.row.generation += 1;
        if std::mem::take(&mut self.is_news) {
            reload(self.core).await;
        }
        Ok(())
    }

    /// Stores what cannot be asked for again.
    async fn save_surely(&mut self) -> Result<(), Stop> {
        let (tries, pause) = SAVE_TRIES;
        for _ in 1..tries {
            match self.save(Some(LEASE)).await {
                Err(Stop::Failed(_)) => tokio::time::sleep(pause).await,
                done => return done,
            }
        }
        self.save(Some(LEASE)).await
    }

    async fn end(mut self, done: Result<(), Stop>, wish: &Wish) -> Passed {
        let (workspace, id) = (self.row.workspace, self.row.endpoint);
        match done {
            Ok(()) => {
                self.row.failures = 0;
                self.row.error = None;
                if let Wish::Absent(why) = wish {
                    self.leave();
                    if *why == Some(DISCONNECTED) {
                        self.row.failures = 1;
                        self.row.retry_at = self.now().plus(DISCONNECTING);
                        self.row.error = Some(DISCONNECTED.to_owned());
                    } else if self.endpoint.is_none() || self.secrets.is_empty() {
                        return self.forget().await;
                    }
                }
            }
            Err(Stop::Failed(error)) => {
                self.row.failures = self.row.failures.saturating_add(1);
                self.row.retry_at = rules::retry_at(self.now(), self.row.failures);
                if self.row.failures == 1 {
                    tracing::warn!(endpoint.name = %self.name(), "the webhook of endpoint `{}` cannot be looked after at its provider, trying again: {error}", self.name());
                }
                metrics::counter!("weir_registration_steps_total", "step" => "failed").increment(1);
                self.row.error = Some(error);
            }
            Err(Stop::Overtaken) => return overtaken(self.core, workspace, id).await,
            Err(Stop::Interrupted) => return Passed::Postponed,
        }
        match self.save(None).await {
            Ok(()) => {
                // What was not sent meanwhile is looked for, now that there is somebody to send.
                if self.has_drifted && self.row.failures == 0 {
                    self.core.sweeps.registered_anew(id, self.now());
                }
                Passed::Stored(Some(self.row))
            }
            Err(Stop::Overtaken) => overtaken(self.core, workspace, id).await,
            Err(Stop::Failed(_) | Stop::Interrupted) => Passed::Postponed,
        }
    }

    async fn forget(self) -> Passed {
        let (workspace, id) = (self.row.workspace, self.row.endpoint);
        let dropped = RegistrationStep::Drop(RegistrationDrop {
            endpoint: id,
            workspace,
            generation: self.row.generation,
        });
        match write(self.core, dropped).await {
            Ok(()) => {
                reload(self.core).await;
                Passed::Stored(None)
            }
            Err(WriteError::Stale | WriteError::Unknown) => overtaken(self.core, workspace, id).await,
            Err(_) => Passed::Postponed,
        }
    }
}

async fn overtaken(core: &Arc<Core>, workspace: WorkspaceId, id: EndpointId) -> Passed {
    let row = core.store.registration_load(workspace, id).await;
    row.map_or(Passed::Postponed, Passed::Overtaken)
}

async fn reload(core: &Arc<Core>) {
    let orchestrator = Orchestrator { core: Arc::clone(core) };
    if let Err(error) = orchestrator.reload().await {
        tracing::warn!(
            "other secrets of a webhook are stored, and count as soon as the configuration can be read: {error}"
        );
    }
}

async fn write(core: &Core, step: RegistrationStep) -> Result<(), WriteError> {
    match core.writer.submit(Fact::Registration(step)) {
        Ok(pending) => pending.await.map(drop),
        Err(_full) => Err(WriteError::Unavailable),
    }
}
