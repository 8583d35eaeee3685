//! `weir connection list`, `authorize`, `disconnect`: which connections can be used, and access that people give.

use crate::arguments::ServerArguments;
use crate::client::Client;
use crate::commands::story;
use crate::commands::user_errors::{FIELDS, UserError, refuse};
use crate::output;
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::ExitCode;

const LIST: &str = "{ connections { name connectorName health grant { account label error } } }";
const FIND: &str = "query Find($name: String!) { connection(name: $name) { id } }";
const AUTHORIZE: &str = "connectionAuthorize(input: $input) { authorizeUrl redirectUri expiresAt";
const DISCONNECT: &str = "connectionDisconnect(input: $input) { revocation detail";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    name: String,
    connector_name: String,
    health: Option<String>,
    grant: Option<Grant>,
}

/// The access that a person gave.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Grant {
    account: Option<String>,
    label: Option<String>,
    error: Option<String>,
    #[serde(default)]
    scopes: Option<String>,
    #[serde(default)]
    connected_at: Option<DateTime<Utc>>,
    #[serde(default)]
    refreshed_at: Option<DateTime<Utc>>,
    #[serde(default)]
    expires_at: Option<DateTime<Utc>>,
}

impl Grant {
    fn account(&self) -> Option<String> {
        match (&self.label, &self.account) {
            (Some(label), Some(account)) => Some(format!("{label} ({account})")),
            (one, other) => one.clone().or_else(|| other.clone()),
        }
    }

    /// What there is to say about it, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(account) = self.account() {
            lines.push(format!("account: {account}"));
        }
        if let Some(scopes) = &self.scopes {
            lines.push(format!("scopes: {scopes}"));
        }
        let times: Vec<String> = [
            ("connected", self.connected_at),
            ("renewed", self.refreshed_at),
            ("token ends", self.expires_at),
        ]
        .into_iter()
        .filter_map(|(what, at)| Some(format!("{what} {}", story::moment(at?))))
        .collect();
        if !times.is_empty() {
            lines.push(times.join(", "));
        }
        if let Some(error) = &self.error {
            lines.push(error.clone());
        }
        lines
    }
}

/// Lists the connections.
pub(crate) async fn list(server: &ServerArguments, as_json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let mut data: Value = client.query(LIST, json!({})).await?;
    let found = data["connections"].take();
    if as_json {
        for connection in found.as_array().into_iter().flatten() {
            output::document(connection.to_string());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let connections: Vec<Listed> =
        serde_json::from_value(found).context("the server's answer about connections has an unexpected shape")?;
    let row = |connection: &Listed| {
        let grant = connection.grant.as_ref();
        vec![
            connection.name.clone(),
            connection.connector_name.clone(),
            connection.health.as_deref().unwrap_or("unusable").to_lowercase(),
            grant.and_then(Grant::account).unwrap_or_default(),
            grant.and_then(|grant| grant.error.clone()).unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = connections.iter().map(row).collect();
    output::table(&["NAME", "CONNECTOR", "HEALTH", "ACCOUNT", "NOTE"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// Prints where a person lets a connection in.
pub(crate) async fn authorize(
    server: &ServerArguments,
    name: &str,
    another_account: bool,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let input = json!({ "input": { "id": id_of(&client, name).await?, "anotherAccount": another_account } });
    let document = format!("mutation Authorize($input: ConnectionAuthorizeInput!) {{ {AUTHORIZE} {FIELDS} }} }}");
    let mut data: Value = client.query(&document, input).await?;
    let payload = accepted("the connection cannot be let in", data["connectionAuthorize"].take())?;
    if as_json {
        let shown = json!({
            "authorizeUrl": payload["authorizeUrl"], "redirectUri": payload["redirectUri"], "expiresAt": payload["expiresAt"],
        });
        output::document(serde_json::to_string_pretty(&shown)?);
        return Ok(ExitCode::SUCCESS);
    }
    let text = |key: &str| payload[key].as_str().unwrap_or_default().to_owned();
    output::line(format!(
        "Open this address in a browser, once, before {}:",
        text("expiresAt")
    ));
    output::line("");
    output::line(text("authorizeUrl"));
    output::line("");
    output::line(format!(
        "The app at the provider has to know {} as a redirect URL. `weir connection show {name}` says what became of it.",
        text("redirectUri")
    ));
    Ok(ExitCode::SUCCESS)
}

/// Gives access back.
pub(crate) async fn disconnect(server: &ServerArguments, name: &str) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let input = json!({ "input": { "id": id_of(&client, name).await? } });
    let document = format!("mutation Disconnect($input: ConnectionDisconnectInput!) {{ {DISCONNECT} {FIELDS} }} }}");
    let mut data: Value = client.query(&document, input).await?;
    let payload = accepted("nothing was disconnected", data["connectionDisconnect"].take())?;
    output::line(match payload["revocation"].as_str() {
        Some("REVOKED") => format!("{name} is disconnected, and the provider took its access back"),
        Some("FAILED") => format!(
            "{name} is disconnected, but the provider did not take its access back ({}): end it in the account's settings there",
            payload["detail"].as_str().unwrap_or("no reason given")
        ),
        _ => format!(
            "{name} is disconnected; its connector cannot give access back, so end it in the account's settings at the provider"
        ),
    });
    Ok(ExitCode::SUCCESS)
}

/// The payload, unless it says that the input was wrong.
fn accepted(what: &str, mut payload: Value) -> anyhow::Result<Value> {
    let errors: Vec<UserError> =
        serde_json::from_value(payload["userErrors"].take()).context("the server's answer has an unexpected shape")?;
    refuse(what, &errors)?;
    Ok(payload)
}

async fn id_of(client: &Client, name: &str) -> anyhow::Result<String> {
    let data: Value = client.query(FIND, json!({ "name": name })).await?;
    let id = data["connection"]["id"].as_str().map(str::to_owned);
    id.with_context(|| format!("there is no connection `{name}`; `weir connection list` lists them"))
}
