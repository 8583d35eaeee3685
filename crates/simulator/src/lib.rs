//! Fake providers that play both directions, with faults.
//!
//! The simulator serves the APIs that Weir calls (Stripe, HubSpot, Slack, GitHub, a generic CRM, feeds of changes) and sends
//! the webhooks that Weir receives, signed from the connectors' own manifests. It can lose, double, delay,
//! refuse and break both, and keeps a ledger of what really happened, so that a doubled or lost effect is
//! seen from outside. It serves the demo, the tests and the crash proofs, inside their process or as one of
//! its own (`weir-simulator serve`), and it must never reach a host that it was not told about.

mod api;
mod clock;
mod control;
mod delivery;
mod fault;
mod idempotency;
mod ledger;
mod loss;
mod payment;
mod provider;
mod scenario;
mod sender;
mod server;
mod sign;
mod simulator;
mod store;
mod stream;
mod world;

pub use delivery::{
    DELIVERIES_MAX, Delivery, DeliveryAttempt, DeliveryLog, DeliveryOutcome, DeliverySummary, EVENT_IDS_MAX, Forge,
    RetryPolicy,
};
pub use fault::{Direction, Fault, FaultError, FaultRule, FaultStatus, Faults};
pub use idempotency::KEY_WINDOW_MS;
pub use ledger::{
    Doubled, EffectEntry, EffectOutcome, EffectRecord, LEDGER_ENTRIES_MAX, LEDGER_IDENTITIES_MAX, Ledger,
    LedgerSummary, RouteCounts,
};
pub use loss::{Answered, Change, Fate, LossAttempt, LossError, LossOptions, LossPlan, LossRun, LossTally, LossTarget};
pub use payment::{CUSTOMERS, Customer, Payment};
pub use provider::Provider;
pub use scenario::{Deal, HUBSPOT_PORTAL, Occurrence, Scenario};
pub use sender::SendError;
pub use sign::{Signature, Signer, SignerError, Unsigned};
pub use simulator::{Balance, Simulator, SimulatorOptions, StartError};
pub use store::{COLLECTION_OBJECTS_MAX, Store};
pub use stream::{IN_FLIGHT_MAX, StreamHandle, StreamOptions, StreamStatus};
pub use world::{ApiKeys, Behaviour};
