//! The simulator as a value: start it, disturb it, let it send, read its ledger, stop it.
//!
//! It listens on loopback only, and sends to loopback only unless told otherwise: a fake provider that
//! reaches real hosts is an accident waiting to happen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::dev::ServerHandle;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::delivery::{Delivery, DeliveryLog, DeliveryOutcome, RetryPolicy};
use crate::fault::Faults;
use crate::ledger::Ledger;
use crate::provider::Provider;
use crate::scenario::{Occurrence, Scenario};
use crate::sender::{SendError, Sender};
use crate::server;
use crate::sign::{Signer, SignerError};
use crate::stream::{StreamHandle, StreamOptions};
use crate::world::{ApiKeys, Behaviour, World};

/// How a simulator is started. `Default` suits tests.
#[derive(Clone, Debug)]
pub struct SimulatorOptions {
    /// Port on 127.0.0.1; 0 takes any free one. Default 0.
    pub port: u16,
    /// Decides ids, amounts and the draws of faults. Default 1.
    pub seed: u32,
    /// Gives every provider a port of its own beside the common one, so that one of them can be closed
    /// for real while the others go on. Default false.
    pub own_ports: bool,
    /// Threads per port. Default 1.
    pub workers: usize,
    /// What callers must show.
    pub api_keys: ApiKeys,
    /// How the providers behave at first.
    pub behaviour: Behaviour,
    /// Hosts beyond loopback that webhooks may be sent to. Default none.
    pub allow_hosts: Vec<String>,
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        Self {
            port: 0,
            seed: 1,
            own_ports: false,
            workers: 1,
            api_keys: ApiKeys::default(),
            behaviour: Behaviour::default(),
            allow_hosts: Vec::new(),
        }
    }
}

/// Why a simulator did not start, or a port did not open again.
#[derive(Debug, Error)]
pub enum StartError {
    /// The port is taken, or may not be bound.
    #[error("cannot listen on 127.0.0.1:{port}")]
    Listen {
        /// The port asked for.
        port: u16,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A built-in manifest says nothing that could be signed with.
    #[error("cannot sign webhooks")]
    Signer(#[source] SignerError),
    /// The HTTP client could not be built.
    #[error("cannot build the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// Acknowledged events against effects: what was lost, what was done twice.
///
/// Counts writes that carry the event's id in their body's `event_id`, as the CRM flows do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Events whose webhook was acknowledged.
    pub acknowledged: u64,
    /// Acknowledged events whose effect happened.
    pub completed: u64,
    /// Acknowledged events without effect, at most 1,000 of them, sorted.
    pub missing: Vec<String>,
    /// How many acknowledged events have no effect.
    pub missing_count: u64,
    /// Events whose effect happened more than once, at most 1,000 of them, sorted.
    pub doubled: Vec<String>,
    /// How many events' effects happened more than once.
    pub doubled_count: u64,
}

pub(crate) struct Inner {
    pub(crate) world: World,
    pub(crate) sender: Sender,
    pub(crate) streams: Mutex<BTreeMap<u64, StreamHandle>>,
    ports: Mutex<BTreeMap<Option<Provider>, Port>>,
    workers: usize,
}

/// A port of the simulator; `None` in the map's key is the common one.
struct Port {
    number: u16,
    handle: Option<ServerHandle>,
}

/// A running simulator. Cloning gives another handle of the same one.
#[derive(Clone)]
pub struct Simulator {
    inner: Arc<Inner>,
}

impl Simulator {
    /// Starts the fake providers on 127.0.0.1. Needs a running tokio runtime, which also sends the webhooks.
    ///
    /// # Errors
    /// [`StartError`] when a port cannot be bound, or a built-in manifest cannot be used for signing.
    pub async fn start(options: SimulatorOptions) -> Result<Self, StartError> {
        let world = World::new(options.seed, options.api_keys, &options.behaviour);
        let sender = Sender::new(options.allow_hosts)?;
        let inner = Arc::new(Inner {
            world,
            sender,
            streams: Mutex::new(BTreeMap::new()),
            ports: Mutex::new(BTreeMap::new()),
            workers: options.workers.max(1),
        });
        open(&inner, None, options.port)?;
        if options.own_ports {
            for provider in Provider::ALL {
                open(&inner, Some(provider), 0)?;
            }
        }
        Ok(Self { inner })
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn world(&self) -> &World {
        &self.inner.world
    }

    /// Address of all fake providers together, without a slash at the end; also that of `/_sim`.
    pub fn base_url(&self) -> String {
        self.url_of(None).unwrap_or_default()
    }

    /// Address of one fake provider: its own port if it has one, else the common one.
    pub fn base_url_of(&self, provider: Provider) -> String {
        self.url_of(Some(provider)).unwrap_or_else(|| self.base_url())
    }

    fn url_of(&self, provider: Option<Provider>) -> Option<String> {
        let ports = self.inner.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports
            .get(&provider)
            .map(|port| format!("http://127.0.0.1:{}", port.number))
    }

    /// Opens or really closes the port of a provider that has its own (see [`SimulatorOptions::own_ports`]):
    /// while closed, connections are refused by the machine. False when the provider has no port of its own.
    ///
    /// # Errors
    /// [`StartError::Listen`] when the port was taken meanwhile.
    pub async fn set_listening(&self, provider: Provider, listening: bool) -> Result<bool, StartError> {
        let (number, handle) = {
            let mut ports = self.inner.ports.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(port) = ports.get_mut(&Some(provider)) else {
                return Ok(false);
            };
            if listening == port.handle.is_some() {
                return Ok(true);
            }
            (port.number, port.handle.take())
        };
        match handle {
            Some(handle) => handle.stop(false).await,
            None => open(&self.inner, Some(provider), number)?,
        }
        Ok(true)
    }

    /// The fault rules.
    pub fn faults(&self) -> &Faults {
        &self.inner.world.faults
    }

    /// What happened at the fake providers.
    pub fn ledger(&self) -> &Ledger {
        &self.inner.world.ledger
    }

    /// What was sent.
    pub fn deliveries(&self) -> &DeliveryLog {
        &self.inner.world.deliveries
    }

    /// How the providers behave now.
    pub fn behaviour(&self) -> Behaviour {
        self.inner.world.behaviour()
    }

    /// Changes how the providers behave.
    pub fn set_behaviour(&self, behaviour: &Behaviour) {
        self.inner.world.set_behaviour(behaviour);
    }

    /// The keys that callers must show.
    pub fn api_keys(&self) -> &ApiKeys {
        &self.inner.world.api_keys
    }

    /// An object of a fake provider, for example `("stripe/customers", "cus_1")`.
    pub fn object(&self, collection: &str, id: &str) -> Option<Value> {
        self.inner
            .world
            .store
            .get(collection, id)
            .map(|object| Value::clone(&object))
    }

    /// All objects of a collection, oldest first.
    pub fn objects(&self, collection: &str) -> Vec<Value> {
        self.inner
            .world
            .store
            .list(collection)
            .iter()
            .map(|object| Value::clone(object))
            .collect()
    }

    /// Sets an object of a fake provider.
    pub fn put_object(&self, collection: &str, id: &str, object: Value) {
        self.inner.world.store.put(collection, id, object);
    }

    /// Removes an object; false when there was none.
    pub fn remove_object(&self, collection: &str, id: &str) -> bool {
        self.inner.world.store.remove(collection, id)
    }

    /// Forgets state, faults, ledger, stored answers and deliveries. Ports, keys and streams stay.
    pub fn reset(&self) {
        self.inner.world.reset();
    }

    /// Lets an occurrence happen in the fake provider's state and gives its webhook, unsent.
    pub fn happen(&self, scenario: Scenario, number: u64) -> Occurrence {
        scenario.happen(&self.inner.world, number)
    }

    /// Lets an occurrence happen and makes its delivery to `url`, signed with `secrets`.
    pub fn delivery(&self, scenario: Scenario, number: u64, url: &str, secrets: &[&str]) -> Delivery {
        let occurrence = self.happen(scenario, number);
        Delivery {
            connector: occurrence.connector.to_owned(),
            url: url.to_owned(),
            signed_url: None,
            secrets: secrets.iter().map(|secret| (*secret).to_owned()).collect(),
            id: occurrence.id,
            kind: occurrence.kind,
            headers: occurrence.headers,
            body: occurrence.body,
            forge: None,
            retry: None::<RetryPolicy>,
        }
    }

    /// Teaches the sender to sign for a connector that is not built in, or otherwise than its manifest says.
    pub fn set_signer(&self, connector: &str, signer: Signer) {
        self.inner.sender.set_signer(connector, signer);
    }

    /// Signs and sends a webhook, retries it as its provider does, and says what became of it.
    ///
    /// Not cancel-safe: a dropped future may have delivered without being recorded.
    ///
    /// # Errors
    /// [`SendError`] when it cannot be signed or the destination is not allowed; a failed delivery is an
    /// outcome, not an error.
    pub async fn send(&self, delivery: &Delivery) -> Result<DeliveryOutcome, SendError> {
        self.inner.sender.send(&self.inner.world, delivery).await
    }

    /// Sends occurrences of a scenario at a steady rate until it is done or stopped.
    ///
    /// # Errors
    /// [`SendError`] when the scenario cannot be signed or the destination is not allowed.
    pub fn stream(&self, options: StreamOptions) -> Result<StreamHandle, SendError> {
        crate::stream::start(&self.inner, options)
    }

    /// Acknowledged events against effects.
    pub fn balance(&self) -> Balance {
        let mut balance = Balance::default();
        let mut missing = BTreeSet::new();
        for id in self.inner.world.deliveries.acknowledged_ids() {
            balance.acknowledged += 1;
            match self.inner.world.ledger.effects_of(&format!("event:{id}")) {
                0 => {
                    missing.insert(id);
                }
                _ => balance.completed += 1,
            }
        }
        balance.missing_count = missing.len() as u64;
        balance.missing = missing.into_iter().take(1000).collect();
        let doubled = self.inner.world.ledger.doubled("event:");
        balance.doubled_count = doubled.len() as u64;
        balance.doubled = doubled
            .iter()
            .take(1000)
            .filter_map(|doubled| doubled.identity.strip_prefix("event:").map(str::to_owned))
            .collect();
        balance
    }

    /// Ends all streams and closes all ports; connections in progress are cut.
    pub async fn stop(&self) {
        let streams = std::mem::take(&mut *self.inner.streams.lock().unwrap_or_else(PoisonError::into_inner));
        for stream in streams.into_values() {
            stream.stop();
        }
        let ports = std::mem::take(&mut *self.inner.ports.lock().unwrap_or_else(PoisonError::into_inner));
        for port in ports.into_values() {
            if let Some(handle) = port.handle {
                handle.stop(false).await;
            }
        }
    }
}

fn open(inner: &Arc<Inner>, provider: Option<Provider>, port: u16) -> Result<(), StartError> {
    let refused = |source| StartError::Listen { port, source };
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(refused)?;
    let number = listener.local_addr().map_err(refused)?.port();
    let handle = server::serve(inner, listener, inner.workers).map_err(refused)?;
    let mut ports = inner.ports.lock().unwrap_or_else(PoisonError::into_inner);
    ports.insert(
        provider,
        Port {
            number,
            handle: Some(handle),
        },
    );
    Ok(())
}
