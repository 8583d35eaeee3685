//! `weir lanes`: the lanes that a failed run keeps until somebody has dealt with it.

use crate::arguments::ApprovalsArguments;
use crate::client::Client;
use crate::commands::{lists, story};
use crate::output;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::process::ExitCode;

const FIELDS: &str = "runId since waiting run { workflowName error { code step } }";
/// The same with what a token without `PAYLOAD_READ` may not see.
const FIELDS_WITH_KEY: &str = "key runId since waiting run { workflowName error { code step } }";

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lane {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    run_id: String,
    since: DateTime<Utc>,
    waiting: u32,
    run: Option<Run>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    workflow_name: Option<String>,
    error: Option<story::RunError>,
}

pub(crate) async fn run(arguments: &ApprovalsArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let limit = arguments.list.limit;
    let held: Vec<Lane> = match lists::read_all(&client, "heldLanes", FIELDS_WITH_KEY, limit).await {
        Ok(held) => held,
        Err(_) => lists::read_all(&client, "heldLanes", FIELDS, limit).await?,
    };
    if arguments.list.json {
        lists::print_json(&held)?;
        return Ok(ExitCode::SUCCESS);
    }
    if held.is_empty() {
        output::remark("no lane is held");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = held.iter().map(row).collect();
    output::table(&["LANE", "HELD BY", "WORKFLOW", "SINCE", "WAITING", "BECAUSE"], &rows);
    Ok(ExitCode::SUCCESS)
}

fn row(lane: &Lane) -> Vec<String> {
    let run = lane.run.as_ref();
    let error = run.and_then(|run| run.error.as_ref());
    vec![
        lane.key.clone().unwrap_or_else(|| "(hidden)".to_owned()),
        lane.run_id.clone(),
        run.and_then(|run| run.workflow_name.clone()).unwrap_or_default(),
        story::moment(lane.since),
        lane.waiting.to_string(),
        error.map(|error| error.code.clone()).unwrap_or_default(),
    ]
}
