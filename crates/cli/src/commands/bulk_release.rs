//! `weir bulk release`: lets go of many lanes that failed runs keep, shown in sum first.

use crate::arguments::BulkReleaseArguments;
use crate::client::Client;
use crate::commands::user_errors::{self, UserError};
use crate::commands::{lists, replay};
use crate::failure::EXIT_FAILURE;
use crate::output::{self, Style};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Lanes that are looked at in one go.
const LIMIT: u32 = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lane {
    run_id: String,
    waiting: u64,
    run: Option<Run>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    workflow_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    lane_release: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    user_errors: Vec<UserError>,
}

/// Shows which lanes it is about, asks, and lets go of one after the other.
pub(crate) async fn run(arguments: &BulkReleaseArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let held: Vec<Lane> = lists::read_all(&client, "heldLanes", "runId waiting run { workflowName }", LIMIT).await?;
    let name = |lane: &Lane| {
        lane.run
            .as_ref()
            .and_then(|run| run.workflow_name.clone())
            .unwrap_or_default()
    };
    let held: Vec<Lane> = held
        .into_iter()
        .filter(|lane| arguments.workflow.as_ref().is_none_or(|wanted| *wanted == name(lane)))
        .collect();
    let mut by_workflow: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for lane in &held {
        let sum = by_workflow.entry(name(lane)).or_default();
        *sum = (sum.0 + 1, sum.1 + lane.waiting);
    }
    let waiting: u64 = held.iter().map(|lane| lane.waiting).sum();
    let told = format!(
        "{}, {waiting} runs wait behind them",
        output::count(held.len(), "held lane")
    );
    output::line(Style::stdout().bold(&told));
    for (workflow, (lanes, waiting)) in &by_workflow {
        output::line(format!(
            "  {workflow}  {}, {waiting} waiting",
            output::count(*lanes, "lane")
        ));
    }
    if held.is_empty() {
        output::remark("no held lane fits");
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    if !arguments.yes && !replay::confirmed("Let them go? The failed runs stay failed.")? {
        output::remark("nothing was let go");
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    let query = format!(
        "mutation Release($input: LaneReleaseInput!) {{ laneRelease(input: $input) {{ {} }} }}",
        user_errors::FIELDS
    );
    let mut released = 0_usize;
    for lane in &held {
        let input = json!({ "input": { "runId": lane.run_id } });
        let payload = client.query::<Data>(&query, input).await?.lane_release;
        match payload.user_errors.as_slice() {
            [] => released += 1,
            // Somebody else dealt with it meanwhile.
            [error] if error.code == "NOT_FOUND" => {}
            errors => user_errors::refuse(&format!("{} was not let go", lane.run_id), errors)?,
        }
    }
    output::line(format!("{} of {} let go", released, output::count(held.len(), "lane")));
    Ok(ExitCode::SUCCESS)
}
