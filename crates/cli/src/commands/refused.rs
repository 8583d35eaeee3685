//! `weir refused`: webhook requests that were turned away, and why.

use crate::arguments::RefusedArguments;
use crate::client::Client;
use crate::commands::lists::{self, List};
use crate::commands::story;
use crate::failure::Failure;
use crate::output;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::process::ExitCode;

const FIELDS: &str = "id receivedAt reason detail clientIp endpoint { name }";

/// A request that was turned away.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refused {
    pub(crate) id: String,
    pub(crate) received_at: DateTime<Utc>,
    pub(crate) reason: String,
    pub(crate) detail: String,
    pub(crate) client_ip: Option<String>,
    pub(crate) endpoint: Option<Named>,
}

/// What an endpoint is called.
#[derive(Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
}

pub(crate) async fn run(arguments: &RefusedArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let refused = read(&client, arguments.endpoint.as_deref(), arguments.list.limit).await?;
    if arguments.list.json {
        lists::print_json(&refused)?;
        return Ok(ExitCode::SUCCESS);
    }
    if refused.is_empty() {
        output::remark("nothing was refused");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = refused.iter().map(row).collect();
    output::table(&["REQUEST", "ENDPOINT", "FROM", "AT", "REASON", "DETAIL"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// Reads refused requests, newest first; of one endpoint, or of all.
pub(crate) async fn read(client: &Client, endpoint: Option<&str>, limit: u32) -> anyhow::Result<Vec<Refused>> {
    let endpoint_id = match endpoint {
        None => Value::Null,
        Some(name) => {
            let mut data: Value = client
                .query(
                    "query Endpoint($name: String) { endpoint(name: $name) { id } }",
                    json!({ "name": name }),
                )
                .await?;
            match data["endpoint"]["id"].take() {
                Value::Null => {
                    return Err(Failure::new(format!("there is no endpoint {name}"))
                        .fix("`weir export` shows the configuration")
                        .into());
                }
                id => id,
            }
        }
    };
    let list = List {
        field: "refusedRequests",
        argument: ("endpointId", "ID"),
        value: endpoint_id,
        fields: FIELDS,
        page: lists::PAGE_MAX,
    };
    lists::read(client, &list, limit).await
}

fn row(refused: &Refused) -> Vec<String> {
    vec![
        refused.id.clone(),
        refused
            .endpoint
            .as_ref()
            .map_or_else(|| "(deleted)".to_owned(), |endpoint| endpoint.name.clone()),
        refused.client_ip.clone().unwrap_or_default(),
        story::moment(refused.received_at),
        refused.reason.clone(),
        refused.detail.clone(),
    ]
}
