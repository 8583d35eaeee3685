//! `weir workflow pause|resume|delete`: the workflow as a whole, whatever its versions say.

use crate::arguments::ServerArguments;
use crate::client::Client;
use crate::commands::replay::confirmed;
use crate::commands::user_errors::{self, UserError};
use crate::commands::workflow::{Id, find};
use crate::failure::{EXIT_FAILURE, Failure};
use crate::output;
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::ExitCode;

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    Pause,
    Resume,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    changed: bool,
    held_runs: u32,
    user_errors: Vec<UserError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deleted {
    deleted_id: Option<String>,
    operation_ids: Vec<String>,
    user_errors: Vec<UserError>,
}

pub(crate) async fn set(
    server: &ServerArguments,
    set: Set,
    name: &str,
    reason: Option<String>,
) -> anyhow::Result<ExitCode> {
    let (mutation, kind, failed) = match set {
        Set::Pause => ("workflowPause", "WorkflowPauseInput", "the workflow was not paused"),
        Set::Resume => ("workflowResume", "WorkflowResumeInput", "the workflow was not resumed"),
    };
    let mut input = json!({ "workflow": name });
    if let Some(reason) = reason {
        input["reason"] = Value::from(reason);
    }
    let client = Client::find(server)?;
    let query = format!(
        "mutation Set($input: {kind}!) {{ {mutation}(input: $input) {{ changed heldRuns {} }} }}",
        user_errors::FIELDS
    );
    let mut data: Value = client.query(&query, json!({ "input": input })).await?;
    let Changed {
        changed,
        held_runs,
        user_errors,
    } = serde_json::from_value(data[mutation].take())?;
    user_errors::refuse(failed, &user_errors)?;
    let held = output::count(usize::try_from(held_runs).unwrap_or(usize::MAX), "run");
    output::line(match (set, changed) {
        (Set::Pause, true) => format!("{name}: paused; what arrives is kept, and its runs wait"),
        (Set::Pause, false) => format!("{name}: it is paused already, {held} waiting"),
        (Set::Resume, true) => format!("{name}: resumed, {held} waiting to begin"),
        (Set::Resume, false) => format!("{name}: it is not paused"),
    });
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn delete(
    server: &ServerArguments,
    name: &str,
    cancel_open_runs: bool,
    yes: bool,
) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let id = find::<Id>(&client, name, "id", json!({ "name": name })).await?.id;
    let more = if cancel_open_runs { " and end its open runs" } else { "" };
    if !yes && !confirmed(&format!("Delete the workflow {name}{more}?"))? {
        output::remark("not deleted");
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    let query = format!(
        "mutation Delete($input: WorkflowDeleteInput!) {{ workflowDelete(input: $input) {{ deletedId operationIds {} }} }}",
        user_errors::FIELDS
    );
    let input = json!({ "id": id, "cancelOpenRuns": cancel_open_runs });
    let mut data: Value = client.query(&query, json!({ "input": input })).await?;
    let Deleted {
        deleted_id,
        operation_ids,
        user_errors,
    } = serde_json::from_value(data["workflowDelete"].take())?;
    if !cancel_open_runs && user_errors.iter().any(UserError::is_about_open_runs) {
        let texts: Vec<String> = user_errors.iter().map(UserError::text).collect();
        return Err(
            Failure::new(format!("the workflow was not deleted: {}", texts.join("\n")))
                .fix("wait for them, or give --cancel-open-runs")
                .into(),
        );
    }
    user_errors::refuse("the workflow was not deleted", &user_errors)?;
    if deleted_id.is_none() {
        return Err(Failure::new("the server did not delete the workflow and does not say why").into());
    }
    output::line(format!("{name}: deleted"));
    for operation in operation_ids {
        output::line(format!("its open runs are asked to end: {operation}"));
    }
    Ok(ExitCode::SUCCESS)
}
