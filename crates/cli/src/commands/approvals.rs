//! `weir approvals`: the decisions that people are asked for.

use crate::arguments::ApprovalsArguments;
use crate::client::Client;
use crate::commands::{lists, story};
use crate::output;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::process::ExitCode;

const FIELDS: &str = "runId step stepName title detail by askedAt dueAt workflowName";

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Approval {
    run_id: String,
    step: String,
    step_name: String,
    title: Option<String>,
    detail: Option<Value>,
    by: Vec<String>,
    asked_at: DateTime<Utc>,
    due_at: Option<DateTime<Utc>>,
    workflow_name: Option<String>,
}

pub(crate) async fn run(arguments: &ApprovalsArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let asked: Vec<Approval> = lists::read_all(&client, "approvals", FIELDS, arguments.list.limit).await?;
    if arguments.list.json {
        lists::print_json(&asked)?;
        return Ok(ExitCode::SUCCESS);
    }
    if asked.is_empty() {
        output::remark("nothing to decide");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = asked.iter().map(row).collect();
    output::table(&["RUN", "STEP", "WORKFLOW", "ASKED", "UNTIL", "BY", "QUESTION"], &rows);
    Ok(ExitCode::SUCCESS)
}

fn row(asked: &Approval) -> Vec<String> {
    vec![
        asked.run_id.clone(),
        asked.step_name.clone(),
        asked.workflow_name.clone().unwrap_or_default(),
        story::moment(asked.asked_at),
        asked.due_at.map(story::moment).unwrap_or_default(),
        match asked.by.as_slice() {
            [] => "anybody".to_owned(),
            by => by.join(", "),
        },
        asked.title.clone().unwrap_or_else(|| "(hidden)".to_owned()),
    ]
}
