//! How events come in at an endpoint, and whether that can be done.

use super::super::document::{EndpointDocument, Reader};
use super::super::sweep::SweepRule;
use weir_connector_sdk::{Connector, Level, Webhook};

/// How events come in at an endpoint of a connector: by its webhooks, or from the list that the endpoint names.
pub(super) fn way_in<'c>(connector: &'c Connector, poll: Option<&str>, reader: &mut Reader<'_>) -> Option<&'c Webhook> {
    let name = connector.name();
    let polls: Vec<&str> = connector.polls().collect();
    let choice = match polls.as_slice() {
        [] => None,
        names => Some(format!("its `polls`: {}", names.join(", "))),
    };
    let found = match poll {
        Some(poll) => connector.poll(poll),
        None => connector.webhook(),
    };
    if found.is_none() {
        match poll {
            Some(poll) => reader.problem(
                "/poll",
                "unknown_poll",
                format!("connector `{name}` has no poll `{poll}`"),
                choice.or_else(|| Some("leave it out".to_owned())),
            ),
            None => reader.problem(
                "/connector",
                "no_webhooks",
                format!("connector `{name}` takes no webhooks"),
                choice.map(|names| format!("name with `poll` the list to read, of {names}")),
            ),
        }
    }
    found
}

/// Whether what the endpoint says about sweeps can be done.
pub(super) fn check_intake(
    connector: &Connector,
    webhook: &Webhook,
    document: &EndpointDocument,
    reader: &mut Reader<'_>,
) {
    let wants = document.intake.sweeps_only || matches!(document.intake.sweep, SweepRule::Every(..));
    let place = if document.intake.poll.is_some() {
        "/poll"
    } else if document.intake.sweeps_only {
        "/receive"
    } else {
        "/sweep"
    };
    if !wants {
        return;
    }
    let level = webhook.recover().map_or(Level::PushOnly, |recover| recover.level);
    if level == Level::PushOnly {
        reader.problem(
            place,
            "not_recoverable",
            format!(
                "connector `{}` has level C: its provider lists no events, so they come by webhook alone",
                connector.name()
            ),
            Some("leave it out".to_owned()),
        );
    } else if document.connection.is_none() {
        reader.problem(
            place,
            "missing",
            "a sweep asks the provider, and for that the endpoint needs a `connection`",
            Some("add `connection: NAME`".to_owned()),
        );
    }
}
