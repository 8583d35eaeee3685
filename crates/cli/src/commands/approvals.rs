//! `weir approvals`: the decisions that people are asked for.

use crate::arguments::ApprovalsArguments;
use crate::client::Client;
use crate::commands::{lists, story};
use crate::output;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Largest page that the server gives.
const PAGE_MAX: u32 = 100;
const FIELDS: &str = "runId step title detail by askedAt dueAt run { workflowName }";

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Approval {
    run_id: String,
    step: String,
    title: String,
    detail: Value,
    by: Vec<String>,
    asked_at: DateTime<Utc>,
    due_at: Option<DateTime<Utc>>,
    run: Option<Run>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    workflow_name: Option<String>,
}

pub(crate) async fn run(arguments: &ApprovalsArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let asked = read(&client, arguments.list.limit).await?;
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

async fn read(client: &Client, limit: u32) -> anyhow::Result<Vec<Approval>> {
    let query = format!(
        "query List($first: Int, $after: String) {{ approvals(first: $first, after: $after) \
         {{ nodes {{ {FIELDS} }} pageInfo {{ hasNextPage endCursor }} }} }}"
    );
    let mut found: Vec<Approval> = Vec::new();
    let mut after = Value::Null;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    loop {
        let variables = json!({ "first": limit.min(PAGE_MAX), "after": after });
        let mut data: Value = client.query(&query, variables).await?;
        let mut page = data["approvals"].take();
        found.extend(serde_json::from_value::<Vec<Approval>>(page["nodes"].take())?);
        if found.len() >= wanted || page["pageInfo"]["hasNextPage"] != json!(true) {
            found.truncate(wanted);
            return Ok(found);
        }
        after = page["pageInfo"]["endCursor"].take();
    }
}

fn row(asked: &Approval) -> Vec<String> {
    let workflow = asked.run.as_ref().and_then(|run| run.workflow_name.clone());
    vec![
        asked.run_id.clone(),
        asked.step.clone(),
        workflow.unwrap_or_default(),
        story::moment(asked.asked_at),
        asked.due_at.map(story::moment).unwrap_or_default(),
        asked.by.join(", "),
        asked.title.clone(),
    ]
}
