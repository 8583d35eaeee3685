//! `weir export`: the configuration as documents that `weir apply` takes. Secrets never leave the server.

use crate::arguments::ServerArguments;
use crate::client::Client;
use crate::output;
use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Deserialize)]
struct Data {
    documents: Vec<Value>,
    workflows: Vec<Workflow>,
}

#[derive(Deserialize)]
struct Workflow {
    name: String,
    state: String,
}

/// What stands above the document of a paused workflow: that is no part of it, and `weir apply` leaves it as it is.
const PAUSED: &str =
    "# This workflow is paused. Applying the document does not change that; on another server it starts active.";

pub(crate) async fn run(server: &ServerArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let data: Data = client
        .query("{ documents workflows { name state } }", json!({}))
        .await?;
    let texts: Vec<String> = data
        .documents
        .iter()
        .map(|document| {
            let text = serde_saphyr::to_string(document).context("could not write a document as YAML")?;
            Ok(match is_paused(document, &data.workflows) {
                true => format!("{PAUSED}\n{text}"),
                false => text,
            })
        })
        .collect::<anyhow::Result<_>>()?;
    output::document(
        texts
            .iter()
            .map(|text| text.trim_end())
            .collect::<Vec<_>>()
            .join("\n---\n"),
    );
    Ok(ExitCode::SUCCESS)
}

fn is_paused(document: &Value, workflows: &[Workflow]) -> bool {
    document["kind"] == json!("Workflow")
        && workflows
            .iter()
            .any(|workflow| document["name"] == json!(workflow.name) && workflow.state == "PAUSED")
}
