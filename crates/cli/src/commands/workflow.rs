//! `weir workflow`: versions and what differs between them, publish, roll back, throw a draft away; the rest is in `workflow_state`.

use crate::arguments::{ServerArguments, WorkflowCommand};
use crate::client::Client;
use crate::commands::user_errors::{self, UserError};
use crate::commands::{story, workflow_draft, workflow_state};
use crate::failure::Failure;
use crate::output::{self, Style};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Longest value that is printed in a line of a diff, in characters.
const MAX_VALUE_CHARACTERS: usize = 120;

#[derive(Deserialize)]
struct Found<T> {
    workflow: Option<T>,
}

#[derive(Deserialize)]
pub(super) struct Id {
    pub(super) id: String,
}

#[derive(Deserialize)]
struct Diffed {
    diff: Option<Diff>,
}

#[derive(Deserialize)]
struct Diff {
    from: Option<u32>,
    to: u32,
    differences: Vec<Difference>,
    text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    kind: String,
    step: Option<String>,
    pointer: String,
    before_pointer: Option<String>,
    before: Option<Value>,
    after: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    published: Option<Number>,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Number {
    number: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    number: u32,
    state: String,
    created_at: DateTime<Utc>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    workflow: Option<Published>,
    change: Option<Change>,
    user_errors: Vec<UserError>,
}

#[derive(Deserialize)]
struct Published {
    published: Option<Number>,
}

#[derive(Deserialize)]
struct Change {
    action: String,
}

pub(crate) async fn run(command: WorkflowCommand) -> anyhow::Result<ExitCode> {
    match command {
        WorkflowCommand::Versions { server, name } => versions(&server, &name).await,
        WorkflowCommand::Diff {
            server,
            name,
            from,
            to,
            text,
        } => diff(&server, &name, (from, to), text).await,
        WorkflowCommand::Draft { server, files } => workflow_draft::save(&server, &files).await,
        WorkflowCommand::Publish { server, name } => change(&server, &name, "workflowPublish", json!({})).await,
        WorkflowCommand::RollBack { server, name, version } => {
            change(&server, &name, "workflowRollBack", json!({ "version": version })).await
        }
        WorkflowCommand::Pause { server, name, reason } => {
            workflow_state::set(&server, workflow_state::Set::Pause, &name, reason).await
        }
        WorkflowCommand::Resume { server, name } => {
            workflow_state::set(&server, workflow_state::Set::Resume, &name, None).await
        }
        WorkflowCommand::Delete {
            server,
            name,
            cancel_open_runs,
            yes,
        } => workflow_state::delete(&server, &name, cancel_open_runs, yes).await,
        WorkflowCommand::DiscardDraft { server, name } => {
            change(&server, &name, "workflowDiscardDraft", json!({})).await
        }
    }
}

pub(super) async fn find<T: serde::de::DeserializeOwned>(
    client: &Client,
    name: &str,
    fields: &str,
    variables: Value,
) -> anyhow::Result<T> {
    let document =
        format!("query Workflow($name: String!, $from: Int, $to: Int) {{ workflow(name: $name) {{ {fields} }} }}");
    let document = match fields.contains("$from") {
        true => document,
        false => document.replace(", $from: Int, $to: Int", ""),
    };
    let found = client.query::<Found<T>>(&document, variables).await?.workflow;
    found.ok_or_else(|| Failure::new(format!("there is no workflow `{name}`")).into())
}

async fn diff(
    server: &ServerArguments,
    name: &str,
    (from, to): (Option<u32>, Option<u32>),
    text: bool,
) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let fields =
        "diff(from: $from, to: $to) { from to text differences { kind step pointer beforePointer before after } }";
    let variables = json!({ "name": name, "from": from, "to": to });
    let Some(diff) = find::<Diffed>(&client, name, fields, variables).await?.diff else {
        return Err(Failure::new(format!("workflow `{name}` has no such version"))
            .fix(format!("`weir workflow versions {name}` lists them"))
            .into());
    };
    let style = Style::stdout();
    let from = diff
        .from
        .map_or_else(|| "nothing".to_owned(), |from| format!("version {from}"));
    output::line(style.bold(format!("{name}: {from} → version {}", diff.to)));
    if text {
        output::document(diff.text);
        return Ok(ExitCode::SUCCESS);
    }
    if diff.differences.is_empty() {
        output::line("  no difference");
    }
    for difference in &diff.differences {
        output::line(line(difference, style));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(difference: &Difference, style: Style) -> String {
    let step = difference
        .step
        .as_deref()
        .map(|step| format!(" in {step}"))
        .unwrap_or_default();
    let value = |value: &Option<Value>| value.as_ref().map(short).unwrap_or_default();
    let pointer = &difference.pointer;
    match difference.kind.as_str() {
        "ADDED" => format!("  {} {pointer}{step}  {}", style.green("+"), value(&difference.after)),
        "REMOVED" => format!("  {} {pointer}{step}  {}", style.red("-"), value(&difference.before)),
        "MOVED" => {
            let from = difference.before_pointer.as_deref().unwrap_or_default();
            format!("  {} {pointer}{step}  moved from {from}", style.yellow(">"))
        }
        _ => format!(
            "  {} {pointer}{step}  {} → {}",
            style.yellow("~"),
            value(&difference.before),
            value(&difference.after)
        ),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_VALUE_CHARACTERS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(&text)),
        None => text,
    }
}

async fn versions(server: &ServerArguments, name: &str) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let fields = "published { number } versions { number state createdAt }";
    let found = find::<Versions>(&client, name, fields, json!({ "name": name })).await?;
    let live = found.published.map(|version| version.number);
    let row = |version: &Version| {
        let state = match (version.state.as_str(), live == Some(version.number)) {
            ("DRAFT", _) => "draft",
            (_, true) => "live",
            (_, false) => "published",
        };
        vec![
            version.number.to_string(),
            state.to_owned(),
            story::moment(version.created_at),
        ]
    };
    let rows: Vec<Vec<String>> = found.versions.iter().map(row).collect();
    output::table(&["VERSION", "STATE", "MADE"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// Calls a mutation that takes the workflow's id and gives a workflow payload.
async fn change(server: &ServerArguments, name: &str, mutation: &str, more: Value) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let id = find::<Id>(&client, name, "id", json!({ "name": name })).await?.id;
    let kind = format!(
        "{}{}Input",
        mutation.get(..1).unwrap_or_default().to_uppercase(),
        mutation.get(1..).unwrap_or_default()
    );
    let document = format!(
        "mutation Change($input: {kind}!) {{ changed: {mutation}(input: $input) {{ workflow {{ published {{ number }} }} change {{ action }} {} }} }}",
        user_errors::FIELDS
    );
    let mut input = more;
    input["id"] = json!(id);
    #[derive(Deserialize)]
    struct Data {
        changed: Payload,
    }
    let payload = client
        .query::<Data>(&document, json!({ "input": input }))
        .await?
        .changed;
    user_errors::refuse("nothing was changed", &payload.user_errors)?;
    let action = payload
        .change
        .map(|change| change.action.to_lowercase())
        .unwrap_or_default();
    let live = payload.workflow.and_then(|workflow| workflow.published);
    match (action.as_str(), live) {
        ("unchanged", Some(live)) => output::line(format!("{name}: version {} is live already", live.number)),
        (_, Some(live)) => output::line(format!("{name}: version {} is live", live.number)),
        ("delete", None) => output::line(format!("{name}: deleted, it was never published")),
        (_, None) => output::line(format!("{name}: no version is live")),
    }
    Ok(ExitCode::SUCCESS)
}
