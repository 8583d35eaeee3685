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
}

pub(crate) async fn run(server: &ServerArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let data: Data = client.query("{ documents }", json!({})).await?;
    let texts: Vec<String> = data
        .documents
        .iter()
        .map(|document| serde_saphyr::to_string(document).context("could not write a document as YAML"))
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
