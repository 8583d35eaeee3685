//! `weir connector list|delete`: the versions of connectors that the workspace published into a running server.

use crate::arguments::ServerArguments;
use crate::client::Client;
use crate::commands::user_errors::{self, UserError};
use crate::commands::{lists, story};
use crate::failure::Failure;
use crate::output;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::process::ExitCode;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Published {
    connector_versions: Vec<Version>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    name: String,
    version: String,
    published_at: DateTime<Utc>,
    used_by: Vec<String>,
}

pub(crate) async fn list(server: &ServerArguments, name: Option<&str>, as_json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let query = "query Versions($name: String) { connectorVersions(name: $name) { name version publishedAt usedBy } }";
    let found: Published = client.query(query, json!({ "name": name })).await?;
    let versions = found.connector_versions;
    if as_json {
        lists::print_json(&versions)?;
    } else if versions.is_empty() {
        output::remark("no connector is published; `weir apply -f FILE|DIR` publishes manifests");
    } else {
        let row = |version: &Version| {
            vec![
                version.name.clone(),
                version.version.clone(),
                story::moment(version.published_at),
                version.used_by.join(", "),
            ]
        };
        let rows: Vec<Vec<String>> = versions.iter().map(row).collect();
        output::table(&["CONNECTOR", "VERSION", "PUBLISHED", "USED BY"], &rows);
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gone {
    connector_version_delete: Deleted,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deleted {
    deleted: bool,
    user_errors: Vec<UserError>,
}

pub(crate) async fn delete(server: &ServerArguments, reference: &str) -> anyhow::Result<ExitCode> {
    let Some((name, version)) = reference.split_once('@') else {
        return Err(Failure::usage(format!("`{reference}` names no version"))
            .fix(format!("write {reference}@VERSION; `weir connector list` shows them"))
            .into());
    };
    let client = Client::find(server)?;
    let mutation = format!(
        "mutation Delete($input: ConnectorVersionDeleteInput!) {{ connectorVersionDelete(input: $input) {{ deleted {} }} }}",
        user_errors::FIELDS
    );
    let input = json!({ "input": { "name": name, "version": version } });
    let gone: Gone = client.query(&mutation, input).await?;
    let Deleted { deleted, user_errors } = gone.connector_version_delete;
    user_errors::refuse("the version was not deleted", &user_errors)?;
    if !deleted {
        return Err(Failure::new("the server did not delete the version and does not say why").into());
    }
    output::remark(format!("{reference} is deleted"));
    Ok(ExitCode::SUCCESS)
}
