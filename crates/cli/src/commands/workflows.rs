//! `weir workflows`: the workflows by name, what starts them, and when those that the clock starts go next.

use crate::arguments::WorkflowsArguments;
use crate::client::Client;
use crate::commands::{lists, story};
use crate::output;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::process::ExitCode;

/// How many planned times `--json` tells.
const NEXT_RUNS: u32 = 5;

#[derive(Deserialize)]
struct Data {
    workflows: Vec<Workflow>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Workflow {
    name: String,
    state: String,
    held_runs: u32,
    published: Option<Version>,
    trigger: Option<Trigger>,
    next_runs: Vec<DateTime<Utc>>,
    last_scheduled_for: Option<DateTime<Utc>>,
}

#[derive(Serialize, Deserialize)]
struct Version {
    number: u32,
}

#[derive(Serialize, Deserialize)]
struct Trigger {
    kind: String,
    event: Option<String>,
    connection: Option<String>,
    schedule: Option<Schedule>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Schedule {
    cron: Vec<String>,
    timezone: Option<String>,
    every_seconds: Option<u32>,
    catch_up: String,
}

pub(crate) async fn run(arguments: &WorkflowsArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let query = format!(
        "{{ workflows {{ name state heldRuns published {{ number }} trigger {{ kind event connection schedule {{ cron timezone everySeconds catchUp }} }} \
         nextRuns(first: {NEXT_RUNS}) lastScheduledFor }} }}"
    );
    let workflows = client.query::<Data>(&query, json!({})).await?.workflows;
    if arguments.json {
        lists::print_json(&workflows)?;
        return Ok(ExitCode::SUCCESS);
    }
    if workflows.is_empty() {
        output::remark("no workflows");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = workflows.iter().map(row).collect();
    output::table(
        &["WORKFLOW", "VERSION", "STATE", "STARTED BY", "NEXT", "LAST PLANNED"],
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}

fn row(workflow: &Workflow) -> Vec<String> {
    let version = workflow.published.as_ref().map(|version| version.number.to_string());
    let moment = |at: Option<&DateTime<Utc>>| at.map(|at| story::moment(*at)).unwrap_or_default();
    vec![
        workflow.name.clone(),
        version.unwrap_or_else(|| "draft".to_owned()),
        match workflow.held_runs {
            0 => workflow.state.to_lowercase(),
            held => format!("{}, {held} waiting", workflow.state.to_lowercase()),
        },
        workflow.trigger.as_ref().map(started_by).unwrap_or_default(),
        moment(workflow.next_runs.first()),
        moment(workflow.last_scheduled_for.as_ref()),
    ]
}

fn started_by(trigger: &Trigger) -> String {
    if let Some(schedule) = &trigger.schedule {
        return match schedule.every_seconds {
            Some(seconds) => format!("every {seconds} s"),
            None => format!(
                "{} ({})",
                schedule.cron.join(" | "),
                schedule.timezone.as_deref().unwrap_or_default()
            ),
        };
    }
    match (&trigger.event, &trigger.connection) {
        (Some(event), Some(connection)) => format!("{event} of {connection}"),
        (Some(event), None) => event.clone(),
        (None, _) => trigger.kind.to_lowercase(),
    }
}
