//! `weir dead-letters`: why runs failed, and what people noted about it.

use crate::arguments::{DeadLettersCommand, ServerArguments};
use crate::client::Client;
use crate::commands::story;
use crate::commands::user_errors::{self, UserError};
use crate::failure::Failure;
use crate::output;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::process::ExitCode;

const FIELDS: &str =
    "id state workflowName step code httpStatus message count countIsLeast firstAt lastAt mark { state note by at }";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cause {
    id: String,
    state: String,
    workflow_name: Option<String>,
    step: Option<String>,
    code: String,
    http_status: Option<u16>,
    message: Option<String>,
    count: u64,
    count_is_least: bool,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
    mark: Option<Mark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sample: Option<Sample>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    runs: Option<Runs>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    state: String,
    note: Option<String>,
    by: String,
    at: DateTime<Utc>,
}

/// The last of the runs, with what its own message said.
#[derive(Debug, Serialize, Deserialize)]
struct Sample {
    id: String,
    error: Option<Told>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Told {
    message: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Runs {
    nodes: Vec<Run>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    id: String,
    finished_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListData {
    dead_letter_causes: Causes,
}

#[derive(Deserialize)]
struct Causes {
    nodes: Vec<Cause>,
    more: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OneData {
    dead_letter_cause: Option<Cause>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MarkData {
    dead_letter_mark: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    user_errors: Vec<UserError>,
}

pub(crate) async fn run(command: DeadLettersCommand) -> anyhow::Result<ExitCode> {
    match command {
        DeadLettersCommand::List {
            server,
            workflow,
            state,
            json,
        } => list(&server, workflow.as_deref(), state.wire(), json).await,
        DeadLettersCommand::Show { server, id, json } => show(&server, &id, json).await,
        DeadLettersCommand::Mark { server, id, mark, note } => {
            let client = Client::find(&server)?;
            let query = format!(
                "mutation Mark($input: DeadLetterMarkInput!) {{ deadLetterMark(input: $input) {{ {} }} }}",
                user_errors::FIELDS
            );
            let input = json!({ "input": { "causeId": id, "mark": mark.wire(), "note": note } });
            let payload = client.query::<MarkData>(&query, input).await?.dead_letter_mark;
            user_errors::refuse("nothing was noted", &payload.user_errors)?;
            output::line(format!("{id}: {}", mark.wire().to_lowercase()));
            output::remark(format!(
                "its dead letters are marked; `weir dead-letters show {id}` shows them"
            ));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(server: &ServerArguments, workflow: Option<&str>, state: &str, json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let query = format!(
        "query Causes($workflow: String, $state: DeadLetterState) {{ \
         deadLetterCauses(workflow: $workflow, state: $state) {{ more nodes {{ {FIELDS} }} }} }}"
    );
    let variables: Value = json!({ "workflow": workflow, "state": state });
    let causes = client.query::<ListData>(&query, variables).await?.dead_letter_causes;
    if json {
        super::lists::print_json(&causes.nodes)?;
        return Ok(ExitCode::SUCCESS);
    }
    if causes.nodes.is_empty() {
        output::remark("no dead letters");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = causes.nodes.iter().map(row).collect();
    output::table(
        &["CAUSE", "RUNS", "WORKFLOW", "STEP", "CODE", "HTTP", "LAST", "MESSAGE"],
        &rows,
    );
    if causes.more {
        output::remark("there are more causes; choose a workflow with --workflow");
    }
    Ok(ExitCode::SUCCESS)
}

fn row(cause: &Cause) -> Vec<String> {
    vec![
        cause.id.clone(),
        count(cause),
        cause.workflow_name.clone().unwrap_or_else(|| "(deleted)".to_owned()),
        cause.step.clone().unwrap_or_default(),
        cause.code.clone(),
        cause
            .http_status
            .map_or_else(|| "-".to_owned(), |status| status.to_string()),
        story::moment(cause.last_at),
        cause.message.clone().unwrap_or_default(),
    ]
}

fn count(cause: &Cause) -> String {
    let more = if cause.count_is_least { "+" } else { "" };
    format!("{}{more}", cause.count)
}

async fn show(server: &ServerArguments, id: &str, json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let query = format!(
        "query Cause($id: ID!) {{ deadLetterCause(id: $id) {{ {FIELDS} \
         sample {{ id error {{ message }} }} runs(first: 20) {{ nodes {{ id finishedAt }} }} }} }}"
    );
    let found = client
        .query::<OneData>(&query, json!({ "id": id }))
        .await?
        .dead_letter_cause;
    let Some(cause) = found else {
        return Err(Failure::new(format!("there are no dead letters with the cause {id}"))
            .fix("`weir dead-letters list` lists the causes")
            .into());
    };
    if json {
        output::document(serde_json::to_string_pretty(&cause)?);
        return Ok(ExitCode::SUCCESS);
    }
    let step = cause
        .step
        .as_deref()
        .map(|step| format!(" in step {step}"))
        .unwrap_or_default();
    let status = cause
        .http_status
        .map(|status| format!(" (HTTP {status})"))
        .unwrap_or_default();
    let workflow = cause.workflow_name.as_deref().unwrap_or("(deleted)");
    output::line(format!(
        "{}  {} of {workflow}: {}{status}{step}",
        cause.id,
        match count(&cause).as_str() {
            "1" => "1 run".to_owned(),
            number => format!("{number} runs"),
        },
        cause.code
    ));
    if let Some(message) = &cause.message {
        output::line(format!("  {message}"));
    }
    if let Some(sample) = &cause.sample
        && let Some(message) = sample.error.as_ref().and_then(|error| error.message.as_ref())
        && cause.message.as_ref() != Some(message)
    {
        output::line(format!("  the last of them, {}: {message}", sample.id));
    }
    output::line(format!(
        "  {}, from {} to {}",
        cause.state.to_lowercase(),
        story::moment(cause.first_at),
        story::moment(cause.last_at)
    ));
    if let Some(mark) = &cause.mark {
        let note = mark.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        output::line(format!(
            "  {} by {} at {}{note}",
            mark.state.to_lowercase(),
            mark.by,
            story::moment(mark.at)
        ));
    }
    for run in cause.runs.iter().flat_map(|runs| &runs.nodes) {
        let at = run.finished_at.map(story::moment).unwrap_or_default();
        output::line(format!("  {}  {at}", run.id));
    }
    output::line(format!("  `weir bulk replay --cause {}` retries them all", cause.id));
    Ok(ExitCode::SUCCESS)
}
