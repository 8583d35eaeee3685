//! `weir endpoint show`: an endpoint, and its webhook at the provider.

use crate::arguments::ServerArguments;
use crate::client::Client;
use crate::commands::story;
use crate::failure::Failure;
use crate::output::{self, Style};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::process::ExitCode;

const QUERY: &str = "query Endpoint($name: String) { endpoint(name: $name) { id name url namedUrl receives secretCount \
    verification { source } connector { name } connection { name } \
    registration { state providerId url events expiresAt createdAt checkedAt drift driftedAt error retryAt } } }";

#[derive(Deserialize)]
struct Data {
    endpoint: Option<Endpoint>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    id: String,
    name: String,
    url: String,
    named_url: Option<String>,
    receives: bool,
    secret_count: u32,
    verification: Verification,
    connector: Named,
    connection: Option<Named>,
    registration: Option<Registration>,
}

#[derive(Deserialize, Serialize)]
struct Named {
    name: String,
}

#[derive(Deserialize, Serialize)]
struct Verification {
    source: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    state: String,
    provider_id: Option<String>,
    url: Option<String>,
    events: Vec<String>,
    expires_at: Option<DateTime<Utc>>,
    created_at: Option<DateTime<Utc>>,
    checked_at: Option<DateTime<Utc>>,
    drift: Option<String>,
    drifted_at: Option<DateTime<Utc>>,
    error: Option<String>,
    retry_at: Option<DateTime<Utc>>,
}

/// Shows an endpoint.
pub(crate) async fn show(server: &ServerArguments, name: &str, json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let data: Data = client.query(QUERY, json!({ "name": name })).await?;
    let endpoint = data.endpoint.ok_or_else(|| {
        Failure::new(format!("there is no endpoint `{name}`")).fix("`weir export` shows what there is")
    })?;
    if json {
        output::document(serde_json::to_string(&endpoint)?);
        return Ok(ExitCode::SUCCESS);
    }
    tell(&endpoint);
    Ok(ExitCode::SUCCESS)
}

fn tell(endpoint: &Endpoint) {
    let connection = endpoint.connection.as_ref();
    let by = connection.map_or_else(String::new, |connection| format!(", connection {}", connection.name));
    output::line(format!("{} ({}){by}", endpoint.name, endpoint.connector.name));
    if endpoint.receives {
        output::line(format!("url: {}", endpoint.url));
        if let Some(url) = &endpoint.named_url {
            output::line(format!("     {url}"));
        }
        output::line(format!(
            "verified as its {} says, with {}",
            endpoint.verification.source.to_lowercase(),
            output::count(usize::try_from(endpoint.secret_count).unwrap_or(usize::MAX), "secret")
        ));
    } else {
        output::line("takes no webhooks");
    }
    match &endpoint.registration {
        Some(registration) => told(registration).iter().for_each(output::line),
        None if endpoint.receives => output::line("its webhook is made at the provider by a person"),
        None => {}
    }
}

fn told(registration: &Registration) -> Vec<String> {
    let mut lines = vec![format!(
        "at the provider: {}{}",
        Style::stdout().state(&registration.state.to_lowercase()),
        registration
            .provider_id
            .as_ref()
            .map_or_else(String::new, |id| format!(" ({id})"))
    )];
    if let Some(url) = &registration.url {
        lines.push(format!("  sends to {url}"));
    }
    if !registration.events.is_empty() {
        lines.push(format!("  sends {}", registration.events.join(", ")));
    }
    for (what, at) in [
        ("made", registration.created_at),
        ("looked at", registration.checked_at),
        ("ends", registration.expires_at),
    ] {
        if let Some(at) = at {
            lines.push(format!("  {what} {}", story::moment(at)));
        }
    }
    if let (Some(drift), Some(at)) = (&registration.drift, registration.drifted_at) {
        lines.push(format!("  put right {}: {drift}", story::moment(at)));
    }
    if let Some(error) = &registration.error {
        lines.push(format!("  {error}"));
    }
    if let Some(at) = registration.retry_at {
        lines.push(format!("  tried again {}", story::moment(at)));
    }
    lines
}
