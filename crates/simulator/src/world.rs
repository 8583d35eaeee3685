//! Everything a simulator holds: settings, state, faults, ledger, stored answers, sent deliveries.
//!
//! One value behind an `Arc`, shared by the servers and the sender. It has no lock of its own; each part
//! guards itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::delivery::DeliveryLog;
use crate::fault::Faults;
use crate::idempotency::IdempotencyKeys;
use crate::ledger::Ledger;
use crate::provider::feed::Feeds;
use crate::store::Store;

/// The keys that callers must show. They open nothing but the simulator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiKeys {
    /// Stripe: bearer token, or user name of Basic.
    pub stripe: String,
    /// HubSpot: bearer token.
    pub hubspot: String,
    /// Slack: bearer token.
    pub slack: String,
    /// GitHub: bearer token.
    pub github: String,
    /// Generic CRM: bearer token; `None` lets everybody in.
    pub crm: Option<String>,
}

impl Default for ApiKeys {
    fn default() -> Self {
        Self {
            stripe: "sk_test_simulator".to_owned(),
            hubspot: "pat-simulator".to_owned(),
            slack: "xoxb-simulator".to_owned(),
            github: "github-simulator".to_owned(),
            crm: None,
        }
    }
}

/// How the fake providers behave; changeable at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// Stripe honours `Idempotency-Key`. Default true.
    pub stripe_keys: bool,
    /// The generic CRM honours `Idempotency-Key`. Default true.
    pub crm_keys: bool,
    /// HubSpot's search sees an object only this many milliseconds after its creation. Default 0.
    pub hubspot_search_lag_ms: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            stripe_keys: true,
            crm_keys: true,
            hubspot_search_lag_ms: 0,
        }
    }
}

pub(crate) struct World {
    pub(crate) seed: u32,
    pub(crate) api_keys: ApiKeys,
    pub(crate) store: Store,
    pub(crate) feeds: Feeds,
    pub(crate) faults: Faults,
    pub(crate) ledger: Ledger,
    pub(crate) keys: IdempotencyKeys,
    pub(crate) deliveries: DeliveryLog,
    stripe_keys: AtomicBool,
    crm_keys: AtomicBool,
    hubspot_search_lag_ms: AtomicU64,
    next_id: AtomicU64,
}

impl World {
    pub(crate) fn new(seed: u32, api_keys: ApiKeys, behaviour: &Behaviour) -> Self {
        let world = Self {
            seed,
            api_keys,
            store: Store::default(),
            feeds: Feeds::default(),
            faults: Faults::new(u64::from(seed)),
            ledger: Ledger::default(),
            keys: IdempotencyKeys::default(),
            deliveries: DeliveryLog::default(),
            stripe_keys: AtomicBool::new(true),
            crm_keys: AtomicBool::new(true),
            hubspot_search_lag_ms: AtomicU64::new(0),
            next_id: AtomicU64::new(1),
        };
        world.set_behaviour(behaviour);
        world
    }

    pub(crate) fn behaviour(&self) -> Behaviour {
        Behaviour {
            stripe_keys: self.stripe_keys.load(Ordering::Relaxed),
            crm_keys: self.crm_keys.load(Ordering::Relaxed),
            hubspot_search_lag_ms: self.hubspot_search_lag_ms.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn set_behaviour(&self, behaviour: &Behaviour) {
        self.stripe_keys.store(behaviour.stripe_keys, Ordering::Relaxed);
        self.crm_keys.store(behaviour.crm_keys, Ordering::Relaxed);
        self.hubspot_search_lag_ms
            .store(behaviour.hubspot_search_lag_ms, Ordering::Relaxed);
    }

    /// A number that no object of this world has yet.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A fresh id in Stripe's manner.
    pub(crate) fn fresh_id(&self, prefix: &str) -> String {
        format!("{prefix}_new{:08x}{:08}", self.seed, self.next_number())
    }

    /// Forgets state, faults, ledger, stored answers and deliveries; settings stay.
    pub(crate) fn reset(&self) {
        self.store.clear();
        self.feeds.clear();
        self.faults.clear();
        self.ledger.clear();
        self.keys.clear();
        self.deliveries.clear();
    }
}
