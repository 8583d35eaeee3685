//! What the configuration says about the registration of an endpoint. Reads memory only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weir_connector_sdk::Register;

use super::rules::{Changes, Wanted, Wish};
use crate::configure::RegisterRule;
use crate::settings::Settings;
use crate::snapshot::{Endpoint, Snapshot};

/// What there is to be told when no address is known.
pub(crate) const NO_PUBLIC_URL: &str =
    "the server does not know under which address providers reach it: start it with WEIR_PUBLIC_URL";

/// What is wanted for an endpoint; `None` stands for one that is gone.
pub(super) fn wish(snapshot: &Snapshot, settings: &Settings, endpoint: Option<&Endpoint>) -> Wish {
    let Some(endpoint) = endpoint else {
        return Wish::Absent(None);
    };
    let Some(rule) = endpoint.registers() else {
        return Wish::Absent(None);
    };
    if !settings.public_url_is_set {
        return Wish::Unclear(NO_PUBLIC_URL.to_owned());
    }
    let connector = endpoint.connector();
    let Some(register) = connector.webhook().and_then(|webhook| webhook.register()) else {
        return Wish::Unclear(format!(
            "connector `{}` no longer says how its webhooks are registered",
            connector.name()
        ));
    };
    let Some((connection, name)) = endpoint.connection() else {
        return Wish::Unclear("the connection of the endpoint is not there".to_owned());
    };
    let listened = match &rule.events {
        Some(events) => events.iter().cloned().collect(),
        None => listened(snapshot, endpoint, name),
    };
    let declared = connector.events().map(|(name, _)| name);
    let events = register.event_names(listened.iter().map(String::as_str), declared);
    if events.is_empty() {
        return Wish::Absent(Some(
            "no published workflow takes an event of the connection that could be registered",
        ));
    }
    Wish::Registered(Wanted {
        connection,
        place: place(register, rule),
        url: format!("{}/hooks/{}", settings.public_url, endpoint.id()),
        events,
        every: Duration::from_secs(register.every_s),
        margin: Duration::from_secs(register.margin_s),
        changes: Changes {
            url: register.update.as_ref().is_some_and(|update| update.uses("url")),
            events: register.update.as_ref().is_some_and(|update| update.uses("events")),
        },
    })
}

/// What the endpoint says, in a form that is the same for the same.
fn place(register: &Register, rule: &RegisterRule) -> String {
    let said: BTreeMap<_, _> = register.with_defaults(&rule.with).into_iter().collect();
    serde_json::to_string(&said).unwrap_or_default()
}

/// The event types that published workflows, and steps that wait, take of a connection.
fn listened(snapshot: &Snapshot, endpoint: &Endpoint, connection: &str) -> BTreeSet<String> {
    let (workspace, connector) = (endpoint.workspace(), endpoint.connector().name());
    let mut types = snapshot.awaited(workspace, connector);
    types.extend(snapshot.triggering(workspace, connector, connection));
    types
}
