//! `weir events`: the events received, newest first.

use crate::arguments::EventsArguments;
use crate::client::Client;
use crate::commands::lists::{self, List};
use crate::commands::story;
use crate::output;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::process::ExitCode;

const FIELDS: &str = "id externalId type connectorName source receivedAt runs { id status workflowName }";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    id: String,
    external_id: String,
    #[serde(rename = "type")]
    kind: String,
    connector_name: String,
    source: String,
    received_at: DateTime<Utc>,
    runs: Vec<EventRun>,
}

/// Whether a connector has this name, as far as the caller may know.
async fn is_connector(client: &Client, name: &str) -> bool {
    let query = "query Connector($name: String!) { connector(name: $name) { name } }";
    let found = client.query::<Value>(query, json!({ "name": name })).await;
    found.is_ok_and(|found| found["connector"].is_object())
}

#[derive(Serialize, Deserialize)]
struct EventRun {
    id: String,
    status: String,
    workflow_name: Option<String>,
}

pub(crate) async fn run(arguments: &EventsArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let mut filter = json!({});
    if let Some(kind) = &arguments.kind {
        filter["type"] = Value::from(kind.as_str());
        // The list tells types with their connector in front, and so may whoever copies one from it.
        if let Some((connector, rest)) = kind.split_once('.')
            && is_connector(&client, connector).await
        {
            filter["type"] = Value::from(rest);
            filter["connector"] = Value::from(connector);
        }
    }
    let list = List {
        field: "events",
        argument: ("filter", "EventFilter"),
        value: filter,
        fields: FIELDS,
        page: lists::PAGE_MAX,
    };
    let events: Vec<Event> = lists::read(&client, &list, arguments.list.limit).await?;
    if arguments.list.json {
        lists::print_json(&events)?;
        return Ok(ExitCode::SUCCESS);
    }
    if events.is_empty() {
        output::remark("no events");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = events.iter().map(row).collect();
    output::table(&["EVENT", "TYPE", "PROVIDER'S ID", "BY", "RECEIVED", "RUNS"], &rows);
    Ok(ExitCode::SUCCESS)
}

fn row(event: &Event) -> Vec<String> {
    let runs: Vec<String> = event
        .runs
        .iter()
        .map(|run| format!("{} {}", run.id, run.status.to_lowercase()))
        .collect();
    vec![
        event.id.clone(),
        format!("{}.{}", event.connector_name, event.kind),
        event.external_id.clone(),
        event.source.to_lowercase(),
        story::moment(event.received_at),
        if runs.is_empty() {
            "none".to_owned()
        } else {
            runs.join(", ")
        },
    ]
}
