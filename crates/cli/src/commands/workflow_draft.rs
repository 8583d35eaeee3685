//! `weir workflow draft`: keeps workflows as drafts, to be looked at and published later.

use crate::arguments::ServerArguments;
use crate::client::Client;
use crate::commands::apply::describe;
use crate::commands::documents::{self, Document};
use crate::commands::user_errors::{self, UserError};
use crate::failure::Failure;
use crate::output;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Deserialize)]
struct Found {
    workflow: Option<Existing>,
}

#[derive(Deserialize)]
struct Existing {
    id: String,
    revision: i64,
}

#[derive(Deserialize)]
struct Data {
    saved: Saved,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Saved {
    workflow: Option<Workflow>,
    user_errors: Vec<UserError>,
}

#[derive(Deserialize)]
struct Workflow {
    name: String,
    draft: Option<Draft>,
}

#[derive(Deserialize)]
struct Draft {
    number: u32,
}

/// Saves the workflows in `files`, one after the other; nothing is saved when a document is no workflow.
pub(crate) async fn save(server: &ServerArguments, files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let documents = documents::read(files)?;
    let mut named = Vec::new();
    for document in &documents {
        named.push((name(document)?, document));
    }
    let client = Client::find(server)?;
    for (name, document) in named {
        let saved = save_one(&client, name, document).await?;
        let number = saved.draft.map(|draft| draft.number).unwrap_or_default();
        let name = saved.name;
        output::line(format!("{name}: draft saved as version {number}"));
        output::remark(format!(
            "`weir workflow diff {name}` shows what it would change, `weir workflow publish {name}` makes it live"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn name(document: &Document) -> anyhow::Result<&str> {
    let place = |pointer: &str| document.place(pointer);
    if document.value["kind"] != "Workflow" {
        return Err(
            Failure::usage(format!("{}: only workflows have drafts", place("/kind")))
                .fix("`weir apply` takes the other kinds")
                .into(),
        );
    }
    let name = document.value["name"].as_str();
    name.ok_or_else(|| Failure::usage(format!("{}: the workflow has no `name`", place(""))).into())
}

async fn save_one(client: &Client, name: &str, document: &Document) -> anyhow::Result<Workflow> {
    let query = "query Existing($name: String!) { workflow(name: $name) { id revision } }";
    let existing = client.query::<Found>(query, json!({ "name": name })).await?.workflow;
    let mut input = json!({ "definition": document.value });
    let (mutation, kind) = match existing {
        None => ("workflowCreate", "WorkflowCreateInput"),
        Some(Existing { id, revision }) => {
            input["id"] = Value::from(id);
            input["expectedRevision"] = Value::from(revision);
            ("workflowUpdate", "WorkflowUpdateInput")
        }
    };
    let query = format!(
        "mutation Save($input: {kind}!) {{ saved: {mutation}(input: $input) {{ workflow {{ name draft {{ number }} }} {} }} }}",
        user_errors::FIELDS
    );
    let saved = client.query::<Data>(&query, json!({ "input": input })).await?.saved;
    if !saved.user_errors.is_empty() {
        let lines = saved.user_errors.iter().map(|error| describe(error, Some(document)));
        let lines: Vec<String> = lines.collect();
        return Err(Failure::new(format!("the draft of {name} was not saved:\n{}", lines.join("\n"))).into());
    }
    saved
        .workflow
        .ok_or_else(|| Failure::new("the server did not save the draft and does not say why").into())
}
