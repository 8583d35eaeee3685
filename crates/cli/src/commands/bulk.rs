//! `weir bulk`: many runs at once, shown in sum first, watched while it goes on, stopped when need be.

use crate::arguments::{BulkReplayArguments, ListArguments, ServerArguments};
use crate::client::Client;
use crate::commands::replay;
use crate::commands::story;
use crate::commands::user_errors::{self, UserError};
use crate::failure::{EXIT_FAILURE, Failure};
use crate::output::{self, Style};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// How often the progress is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Left-out runs that are named; the preview counts them all.
const LEFT_OUT_NAMED: usize = 10;

const FIELDS: &str = "id action status total pending started skipped createdBy createdAt finishedAt filter";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bulk {
    id: String,
    action: String,
    status: String,
    total: u32,
    pending: u64,
    started: u64,
    skipped: u64,
    created_by: String,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    filter: Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    items: Vec<Item>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    run_id: String,
    state: String,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreviewData {
    bulk_replay_preview: Preview,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preview {
    runs: u32,
    more: bool,
    left_out_count: u32,
    left_out: Vec<LeftOut>,
    effects: Vec<Effects>,
    summary: String,
    confirm: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeftOut {
    run_id: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Effects {
    connector_name: String,
    operation: String,
    class: Option<String>,
    answered: u64,
    sent: u64,
    changed: u64,
    resent: u64,
    blocked: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplayData {
    bulk_replay: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    bulk_id: Option<String>,
    user_errors: Vec<UserError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StopData {
    bulk_stop: StopPayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StopPayload {
    user_errors: Vec<UserError>,
}

/// Shows what it would do, asks, begins, and follows it to the end.
pub(crate) async fn replay(server: &ServerArguments, arguments: &BulkReplayArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let filter = json!({
        "status": arguments.status.wire(), "workflow": arguments.range.workflow, "errorCode": arguments.code,
        "errorStep": arguments.step, "causeId": arguments.cause, "since": arguments.range.since, "until": arguments.range.until,
    });
    let from = match (arguments.from_start, &arguments.from) {
        (true, _) => Some("START"),
        (false, Some(_)) => Some("STEP"),
        (false, None) => None,
    };
    let version = if arguments.live { "LIVE" } else { "PINNED" };
    let options = json!({ "from": from, "step": arguments.from, "version": version });
    let query = "query Preview($filter: BulkFilterInput!, $options: ReplayOptionsInput) { \
        bulkReplayPreview(filter: $filter, options: $options) { runs more leftOutCount leftOut { runId reason } \
        effects { connectorName operation class answered sent changed resent blocked } summary confirm } }";
    let shown = client
        .query::<PreviewData>(query, json!({ "filter": filter, "options": options }))
        .await?
        .bulk_replay_preview;
    print(&shown);
    if shown.runs == 0 {
        output::remark("nothing to replay");
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    if !arguments.going.yes && !replay::confirmed("Replay them?")? {
        output::remark("not replayed");
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    let query = format!(
        "mutation Replay($input: BulkReplayInput!) {{ bulkReplay(input: $input) {{ bulkId {} }} }}",
        user_errors::FIELDS
    );
    let input = json!({ "input": { "filter": filter, "options": options, "confirm": shown.confirm } });
    let payload = client.query::<ReplayData>(&query, input).await?.bulk_replay;
    user_errors::refuse("nothing was replayed", &payload.user_errors)?;
    begun(&client, payload.bulk_id, arguments.going.detach).await
}

fn print(shown: &Preview) {
    let style = Style::stdout();
    output::line(style.bold(&shown.summary));
    for effects in &shown.effects {
        let class = effects.class.as_deref().unwrap_or("?").to_lowercase();
        let changed = match effects.changed {
            0 => String::new(),
            changed => format!(", {changed} with another request than last time"),
        };
        let resent = match effects.resent {
            0 => String::new(),
            resent => style.yellow(format!(", {resent} that may have taken place")),
        };
        let blocked = match effects.blocked {
            0 => String::new(),
            blocked => style.red(format!(", {blocked} of unknown fate")),
        };
        output::line(format!(
            "  {}.{}  {class}  {} answered, {} sent{changed}{resent}{blocked}",
            effects.connector_name, effects.operation, effects.answered, effects.sent
        ));
    }
    print_left_out(&shown.left_out, shown.left_out_count, shown.more);
}

/// Which of the runs that fit are left out, and whether there are more than one operation takes.
pub(super) fn print_left_out(left_out: &[LeftOut], count: u32, more: bool) {
    for left_out in left_out.iter().take(LEFT_OUT_NAMED) {
        output::line(format!("  left out  {}  {}", left_out.run_id, left_out.reason));
    }
    let hidden = usize::try_from(count).unwrap_or(usize::MAX);
    if hidden > LEFT_OUT_NAMED {
        output::line(format!("  … and {} more left out", hidden - LEFT_OUT_NAMED));
    }
    if more {
        output::line("  more runs fit than one operation takes; the oldest come first, repeat it for the others");
    }
}

/// Names the operation that the server began, and follows it to its end unless `detach`.
pub(super) async fn begun(client: &Client, id: Option<String>, detach: bool) -> anyhow::Result<ExitCode> {
    let Some(id) = id else {
        return Err(Failure::new("the server began an operation and does not show it").into());
    };
    output::line(&id);
    match detach {
        true => Ok(ExitCode::SUCCESS),
        false => follow(client, &id).await,
    }
}

/// Prints the progress whenever it changes, until the operation is over.
async fn follow(client: &Client, id: &str) -> anyhow::Result<ExitCode> {
    let mut last = String::new();
    loop {
        let bulk = load(client, id, "").await?;
        let line = progress(&bulk);
        if line != last {
            output::line(&line);
            last = line;
        }
        if bulk.status != "RUNNING" {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn progress(bulk: &Bulk) -> String {
    let done = match bulk.action.as_str() {
        "REPLAY" => "started",
        "RESOLVE" => "resolved",
        _ => "asked",
    };
    format!(
        "{}: {} of {} {done}, {} left out, {} to come",
        bulk.status.to_lowercase(),
        bulk.started,
        bulk.total,
        bulk.skipped,
        bulk.pending
    )
}

async fn load(client: &Client, id: &str, more: &str) -> anyhow::Result<Bulk> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        bulk_operation: Option<Bulk>,
    }
    let query = format!("query Bulk($id: ID!) {{ bulkOperation(id: $id) {{ {FIELDS} {more} }} }}");
    let found = client.query::<Data>(&query, json!({ "id": id })).await?.bulk_operation;
    found.ok_or_else(|| {
        Failure::new(format!("there is no operation {id}"))
            .fix("`weir bulk list` lists them")
            .into()
    })
}

/// Shows one operation, or follows it to its end.
pub(crate) async fn show(server: &ServerArguments, id: &str, wait: bool, json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    if wait {
        return follow(&client, id).await;
    }
    let skipped = "items(state: SKIPPED, first: 100) { runId state reason }";
    let bulk = load(&client, id, skipped).await?;
    if json {
        output::document(serde_json::to_string_pretty(&bulk)?);
        return Ok(ExitCode::SUCCESS);
    }
    output::line(progress(&bulk));
    output::line(format!(
        "  {} that began {} by {}",
        bulk.action.to_lowercase(),
        story::moment(bulk.created_at),
        bulk.created_by
    ));
    output::line(format!("  filter {}", bulk.filter));
    for item in &bulk.items {
        let reason = item.reason.as_deref().unwrap_or_default();
        output::line(format!("  left out  {}  {reason}", item.run_id));
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists operations, newest first.
pub(crate) async fn list(server: &ServerArguments, arguments: &ListArguments) -> anyhow::Result<ExitCode> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        bulk_operations: Nodes,
    }
    #[derive(Deserialize)]
    struct Nodes {
        nodes: Vec<Bulk>,
    }
    let client = Client::find(server)?;
    let query = format!("query Bulks($first: Int) {{ bulkOperations(first: $first) {{ nodes {{ {FIELDS} }} }} }}");
    let first = arguments.limit.min(100);
    let bulks = client
        .query::<Data>(&query, json!({ "first": first }))
        .await?
        .bulk_operations
        .nodes;
    if arguments.json {
        super::lists::print_json(&bulks)?;
        return Ok(ExitCode::SUCCESS);
    }
    if bulks.is_empty() {
        output::remark("no operations on many runs");
        return Ok(ExitCode::SUCCESS);
    }
    let row = |bulk: &Bulk| {
        vec![
            bulk.id.clone(),
            bulk.action.to_lowercase(),
            bulk.status.to_lowercase(),
            bulk.total.to_string(),
            bulk.started.to_string(),
            bulk.skipped.to_string(),
            story::moment(bulk.created_at),
            bulk.created_by.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = bulks.iter().map(row).collect();
    output::table(
        &[
            "OPERATION",
            "ACTION",
            "STATE",
            "RUNS",
            "DONE",
            "LEFT OUT",
            "BEGAN",
            "BY",
        ],
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}

/// Stops an operation.
pub(crate) async fn stop(server: &ServerArguments, id: &str) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let query = format!(
        "mutation Stop($input: BulkStopInput!) {{ bulkStop(input: $input) {{ {} }} }}",
        user_errors::FIELDS
    );
    let payload = client
        .query::<StopData>(&query, json!({ "input": { "id": id } }))
        .await?
        .bulk_stop;
    user_errors::refuse("the operation was not stopped", &payload.user_errors)?;
    output::line(progress(&load(&client, id, "").await?));
    Ok(ExitCode::SUCCESS)
}
