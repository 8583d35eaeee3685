//! Whether the webhook of an endpoint can be registered as it says.

use super::super::document::{EndpointDocument, Reader, nearest};
use crate::registrations::NO_PUBLIC_URL;
use crate::service::Core;
use serde_json::Value;
use weir_connector_sdk::{Connector, RegisterSecret, Webhook};

/// Checks `register` of an endpoint. True: the secret of its webhooks comes with the registration.
pub(super) fn check(
    core: &Core,
    connector: &Connector,
    webhook: &Webhook,
    document: &EndpointDocument,
    reader: &mut Reader<'_>,
) -> bool {
    let Some(rule) = &document.intake.register else {
        return false;
    };
    let name = connector.name();
    let Some(register) = webhook.register() else {
        reader.problem(
            "/register",
            "not_registrable",
            format!("connector `{name}` does not say how its webhooks are registered"),
            Some("leave `register` out, and enter the endpoint's URL at the provider".to_owned()),
        );
        return false;
    };
    if document.connection.is_none() {
        reader.problem(
            "/register",
            "missing",
            "the provider is told with the access of a connection, and the endpoint has none",
            Some("add `connection: NAME`".to_owned()),
        );
    }
    if document.verify.is_some() {
        reader.problem(
            "/register",
            "mismatch",
            "a webhook that is registered by Weir is verified as its connector says",
            Some("leave `verify` out".to_owned()),
        );
    }
    if !core.settings.public_url_is_set {
        reader.problem(
            "/register",
            "no_public_url",
            NO_PUBLIC_URL,
            Some("for example WEIR_PUBLIC_URL=https://hooks.example.com".to_owned()),
        );
    }
    for problem in register.check_with(&Value::Object(rule.with.clone())) {
        let place = match problem.pointer.as_str() {
            "" if rule.with.is_empty() => "/register".to_owned(),
            pointer => format!("/register/with{pointer}"),
        };
        reader.problem(&place, problem.code, problem.message, problem.suggestion);
    }
    for (index, kind) in rule.events.iter().flatten().enumerate() {
        if kind != "*" && connector.event_type(kind).is_none() {
            let meant = nearest(kind, connector.events().map(|(name, _)| name));
            reader.problem(
                &format!("/register/events/{index}"),
                "unknown_event",
                format!("connector `{name}` has no event type `{kind}`"),
                meant,
            );
        }
    }
    match register.secret {
        RegisterSecret::Ours | RegisterSecret::Returned => true,
        RegisterSecret::App => false,
    }
}
