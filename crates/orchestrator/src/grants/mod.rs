//! Grants: access that a person gave at a provider, kept alive with refresh tokens (RFC 6749 §6).
//!
//! A refresh token that rotates is good for one use, so one refresh happens at a time: in this process by a lock per
//! connection, over all nodes by a claim on the grant's row. New tokens are stored before anybody uses them. What the
//! provider's answer means is decided in `rules`; here it is asked, stored and handed out.
//!
//! A call that cannot be authorised now is put off, not failed. Tokens are in memory and, sealed, in the database; no
//! message, log line or error quotes one.

mod account;
mod callback;
mod connect;
mod disconnect;
mod refresh;
mod rules;
mod state;
mod tokens;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;
use weir_connector_sdk::{AuthScheme, Connector, Credential, OAuth2CodeScheme};
use weir_storage::{Fact, GrantNote, GrantState, GrantStep, NodeIdentity, SecretBox, Store, WriteError, Writer};
use weir_workflow_engine::{ConnectionId, HeldBy, Hold, Timestamp, WorkspaceId};

pub use callback::{Authorization, Callback, ConnectError, Connected};
pub use connect::MAX_AUTHORIZATION;
pub use disconnect::{Disconnected, Revoked};

pub(crate) use account::with_instance;
pub(crate) use rules::patience;

use crate::clock::Clock;
use crate::connection::Connection;
use crate::credentials::AccessToken;
use crate::http_client::HttpClient;
use rules::{RefusedToken, Unauthorized, unauthorized};

/// Refreshes by what came of them.
const REFRESHES: &str = "weir_grant_refreshes_total";
/// Connections that wait for a person.
const NEEDING: &str = "weir_connections_needing_reauth";

/// Those who ask within this time of a look share what it found.
const SHARED_LOOK: Duration = Duration::from_secs(1);
/// A call whose own time is over while the token is being renewed comes again after it.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// What keeping grants alive needs.
#[derive(Clone)]
pub struct GrantsSeed {
    /// Reads.
    pub store: Store,
    /// Writes.
    pub writer: Writer,
    /// Opens and seals tokens.
    pub secrets: SecretBox,
    /// Who this process is among the nodes.
    pub node: NodeIdentity,
    /// Refreshes run here: they end with the process, not with the call that began them.
    pub tasks: TaskTracker,
    /// Where connections of the database live.
    pub runtime: tokio::runtime::Handle,
}

impl std::fmt::Debug for GrantsSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrantsSeed")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// The grants of a process.
pub(crate) struct Grants {
    seed: GrantsSeed,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    slots: Mutex<HashMap<ConnectionId, Arc<Slot>>>,
}

/// What this process knows of one grant.
#[derive(Default)]
struct Slot {
    current: ArcSwapOption<AccessToken>,
    /// Held by whoever looks after the grant.
    settling: Arc<tokio::sync::Mutex<Last>>,
    refused: Mutex<RefusedTokens>,
}

/// What the last look found, when it was no token.
#[derive(Default)]
struct Last {
    held: Option<(Timestamp, Hold)>,
}

/// Tokens that the API did not take.
#[derive(Default)]
struct RefusedTokens {
    /// Not to be used any more, up to and including this generation.
    up_to: i64,
    /// Fresh ones in a row.
    fresh: u32,
    /// The generation that was counted last, and what its calls were told.
    counted: Option<(i64, Hold)>,
    /// When a person let us in: all is forgotten with another time.
    connected_at: Option<Timestamp>,
}

/// A token's place in the life of its grant.
#[derive(Debug)]
pub(crate) struct Granted {
    generation: i64,
    received_at: Timestamp,
    connected_at: Option<Timestamp>,
    /// The API took it.
    worked: AtomicBool,
}

/// What to do with a call that got a 401.
#[derive(Debug)]
pub(crate) enum AfterRefusal {
    /// Try once more: there is, or will be, another token.
    Again,
    /// Nothing: the answer stands.
    Stands,
    /// Put it off.
    Held(Hold),
}

/// What is needed to look after one grant, without the connection object.
#[derive(Clone)]
struct Job {
    workspace: WorkspaceId,
    id: ConnectionId,
    name: String,
    connector: Arc<Connector>,
    config: Value,
    credential: Credential,
}

impl Job {
    fn of(connection: &Connection) -> Self {
        Job {
            workspace: connection.workspace,
            id: connection.id,
            name: connection.name.clone(),
            connector: Arc::clone(&connection.connector),
            config: connection.config.clone(),
            credential: connection.credential.clone().unwrap_or(Credential::None),
        }
    }

    fn scheme(&self) -> Option<&OAuth2CodeScheme> {
        scheme_of(&self.connector)
    }

    fn settings(&self) -> (&Value, &Value) {
        (&self.config, self.connector.config_defaults())
    }
}

/// The connector's way to be granted access.
pub(crate) fn scheme_of(connector: &Connector) -> Option<&OAuth2CodeScheme> {
    connector.auth().iter().find_map(|scheme| match scheme {
        AuthScheme::OAuth2AuthorizationCode(scheme) => Some(scheme.as_ref()),
        AuthScheme::None
        | AuthScheme::Bearer
        | AuthScheme::ApiKey(_)
        | AuthScheme::Basic
        | AuthScheme::OAuth2ClientCredentials(_)
        | AuthScheme::ServiceAccountJwt(_)
        | AuthScheme::Keys(_)
        | AuthScheme::Session(_)
        | AuthScheme::Signed(_) => None,
    })
}

impl Connection {
    /// Whether it is used with access that a person gives.
    #[must_use]
    pub fn is_granted(&self) -> bool {
        matches!(self.credential, Some(Credential::OAuth2 { .. })) && scheme_of(&self.connector).is_some()
    }
}

/// Connections that wait until a person lets them in, and those whose logins are refused.
static WAITING: (AtomicI64, AtomicI64) = (AtomicI64::new(0), AtomicI64::new(0));

/// Shows how many connections wait until a person lets them in.
pub(crate) fn show_needing(count: usize) {
    WAITING
        .0
        .store(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed);
    show_waiting();
}

/// Shows that more or fewer connections have logins that are refused.
pub(crate) fn show_refused(more: i64) {
    WAITING.1.fetch_add(more, Ordering::Relaxed);
    show_waiting();
}

fn show_waiting() {
    let count = WAITING
        .0
        .load(Ordering::Relaxed)
        .saturating_add(WAITING.1.load(Ordering::Relaxed));
    gauge!(NEEDING).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
}

impl Grants {
    pub(crate) fn new(seed: GrantsSeed, http: HttpClient, clock: Arc<dyn Clock>) -> Self {
        describe_counter!(
            REFRESHES,
            "Refreshes of access that people granted, by what came of them"
        );
        describe_gauge!(NEEDING, "Connections that wait until a person lets them in again");
        Grants {
            seed,
            http,
            clock,
            slots: Mutex::default(),
        }
    }

    /// The access token of a connection, renewed when it has to be.
    ///
    /// Cancel-safe: a refresh goes on without its caller.
    ///
    /// # Errors
    /// [`Hold`]: the connection cannot be used now, and the call is to come again.
    pub(crate) async fn token(
        self: &Arc<Self>,
        connection: &Connection,
        deadline: Instant,
    ) -> Result<Arc<AccessToken>, Hold> {
        let slot = self.slot(connection.id);
        if let Some(token) = slot.fresh(self.clock.now()) {
            return Ok(token);
        }
        let under_way = || Hold {
            until: self.clock.now().plus(COME_AGAIN),
            by: HeldBy::Token,
            reason: format!("the token of `{}` is being renewed, which takes long", connection.name),
        };
        let Ok(place) = timeout_at(deadline, Arc::clone(&slot.settling).lock_owned()).await else {
            return Err(under_way());
        };
        let now = self.clock.now();
        if let Some(token) = slot.fresh(now) {
            return Ok(token);
        }
        if let Some((at, hold)) = &place.held
            && now.since(*at) < SHARED_LOOK
        {
            return Err(hold.clone());
        }
        let settling = Arc::clone(self).settle(Job::of(connection), Arc::clone(&slot), place);
        let task = self.seed.tasks.spawn_on(settling, &self.seed.runtime);
        match timeout_at(deadline, task).await {
            Ok(Ok(settled)) => settled,
            Ok(Err(_panicked)) => Err(self.come_again(&connection.name, "looking after its token failed")),
            Err(_elapsed) => Err(under_way()),
        }
    }

    /// The API took a token.
    pub(crate) fn worked(self: &Arc<Self>, connection: &Connection, token: &AccessToken) {
        let Some(granted) = token.granted() else { return };
        if granted.worked.swap(true, Ordering::Relaxed) {
            return;
        }
        let slot = self.slot(connection.id);
        let was_refused = std::mem::take(&mut slot.refused().fresh) > 0;
        if was_refused {
            let note = self.note(
                connection,
                granted.generation,
                GrantState::Healthy,
                None,
                (0, Timestamp::from_unix_ms(0)),
            );
            let this = Arc::clone(self);
            let write = async move {
                if let Err(error) = this.write(GrantStep::Note(note)).await {
                    tracing::debug!("that a connection works again could not be stored: {error}");
                }
            };
            self.seed.tasks.spawn_on(write, &self.seed.runtime);
        }
    }

    /// The API did not take a token: what its call is to do. `renewed`: the token was got for this call after an older one
    /// was refused.
    pub(crate) async fn refused(&self, connection: &Connection, token: &AccessToken, renewed: bool) -> AfterRefusal {
        let Some(granted) = token.granted() else {
            return AfterRefusal::Stands;
        };
        let slot = self.slot(connection.id);
        let generation = granted.generation;
        let is_newer = |current: &Arc<AccessToken>| {
            let newer = |other: &Granted| other.generation > generation;
            current.granted().is_some_and(newer)
        };
        if !renewed && slot.current.load().as_ref().is_some_and(is_newer) {
            return AfterRefusal::Again;
        }
        let now = self.clock.now();
        let (hold, note) = {
            let mut refused = slot.refused();
            if refused.connected_at != granted.connected_at {
                *refused = RefusedTokens {
                    connected_at: granted.connected_at,
                    ..RefusedTokens::default()
                };
            }
            if let Some((counted, hold)) = &refused.counted
                && *counted == generation
            {
                return AfterRefusal::Held(hold.clone());
            }
            let judged = unauthorized(&RefusedToken {
                age: now.since(granted.received_at),
                renewed,
                worked: granted.worked.load(Ordering::Relaxed),
                refused_before: refused.fresh,
            });
            let (state, pause) = match judged {
                Unauthorized::NotAllowed => return AfterRefusal::Stands,
                Unauthorized::Renew => {
                    refused.up_to = refused.up_to.max(generation);
                    slot.drop_up_to(generation);
                    return match renewed {
                        true => AfterRefusal::Stands,
                        false => AfterRefusal::Again,
                    };
                }
                Unauthorized::Hold { state, pause } => (state, pause),
            };
            refused.up_to = refused.up_to.max(generation);
            refused.fresh = refused.fresh.saturating_add(1);
            slot.drop_up_to(generation);
            let needs = state == GrantState::NeedsReauth;
            let reason = refusal_text(&connection.name, refused.fresh, needs);
            let hold = Hold {
                until: now.plus(if needs { COME_AGAIN } else { pause }),
                by: if needs { HeldBy::Reauth } else { HeldBy::Token },
                reason: reason.clone(),
            };
            refused.counted = Some((generation, hold.clone()));
            let note = self.note(
                connection,
                generation,
                state,
                Some(reason),
                (refused.fresh, now.plus(pause)),
            );
            (hold, note)
        };
        tracing::warn!(connection.name = %connection.name, "{}", hold.reason);
        match self.write(GrantStep::Note(note)).await {
            Ok(()) | Err(WriteError::Stale) => {}
            Err(error) => tracing::debug!("that tokens are refused could not be stored: {error}"),
        }
        AfterRefusal::Held(hold)
    }

    /// What was read of the grants counts no more: the configuration changed.
    pub(crate) fn forget(&self) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.values() {
            slot.current.store(None);
        }
    }

    fn note(
        &self,
        connection: &Connection,
        generation: i64,
        state: GrantState,
        error: Option<String>,
        (failures, retry_at): (u32, Timestamp),
    ) -> GrantNote {
        GrantNote {
            connection: connection.id,
            workspace: connection.workspace,
            generation,
            state,
            error,
            failures,
            retry_at,
            refreshing: None,
            at: self.clock.now(),
        }
    }

    async fn write(&self, step: GrantStep) -> Result<(), WriteError> {
        match self.seed.writer.submit(Fact::Grant(step)) {
            Ok(pending) => pending.await.map(drop),
            Err(_full) => Err(WriteError::Unavailable),
        }
    }

    fn come_again(&self, name: &str, why: &str) -> Hold {
        Hold {
            until: self.clock.now().plus(COME_AGAIN),
            by: HeldBy::Token,
            reason: format!("the token of `{name}` cannot be had now: {why}"),
        }
    }

    fn count(&self, job: &Job, outcome: &'static str) {
        counter!(REFRESHES, "connector" => job.connector.name().to_owned(), "outcome" => outcome).increment(1);
    }

    fn slot(&self, id: ConnectionId) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(id).or_default())
    }
}

impl Slot {
    fn fresh(&self, now: Timestamp) -> Option<Arc<AccessToken>> {
        self.current.load_full().filter(|token| token.is_fresh(now))
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, RefusedTokens> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_up_to(&self, generation: i64) {
        let current = self.current.load();
        let is_old = |token: &Arc<AccessToken>| {
            let old = |granted: &Granted| granted.generation <= generation;
            token.granted().is_some_and(old)
        };
        if current.as_ref().is_some_and(is_old) {
            self.current.compare_and_swap(&current, None);
        }
    }
}

fn refusal_text(name: &str, count: u32, needs: bool) -> String {
    match needs {
        true => format!(
            "the provider's API refused {count} fresh tokens in a row (401): the account has lost its rights; connect again \
             with `weir connection authorize {name}`; what waits goes on by itself"
        ),
        false => format!(
            "the provider's API refused a fresh token of `{name}` (401), {count} in a row; another one is tried soon"
        ),
    }
}
