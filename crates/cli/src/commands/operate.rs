//! `weir run cancel|pause|resume|wake|release`, `weir approve`, `weir reject`: asks something of an open run.

use crate::arguments::ServerArguments;
use crate::client::Client;
use crate::commands::user_errors::{self, UserError};
use crate::failure::Failure;
use crate::output;
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::ExitCode;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Cancel,
    Pause,
    Resume,
    Wake,
    Release,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    run_id: Option<String>,
    user_errors: Vec<UserError>,
}

pub(crate) async fn run(
    server: &ServerArguments,
    ask: Ask,
    id: &str,
    reason: Option<String>,
) -> anyhow::Result<ExitCode> {
    let (mutation, input, failed) = match ask {
        Ask::Cancel => ("runCancel", "RunCancelInput", "the run was not canceled"),
        Ask::Pause => ("runPause", "RunPauseInput", "the run was not paused"),
        Ask::Resume => ("runResume", "RunResumeInput", "the run was not resumed"),
        Ask::Wake => ("runWake", "RunWakeInput", "nothing was woken"),
        Ask::Release => ("laneRelease", "LaneReleaseInput", "the lane was not released"),
    };
    let mut arguments = json!({ "runId": id });
    if let (Some(reason), Value::Object(arguments)) = (reason, &mut arguments) {
        arguments.insert("reason".to_owned(), Value::from(reason));
    }
    send(server, (mutation, input), arguments, failed).await
}

pub(crate) async fn decide(
    server: &ServerArguments,
    (id, step): (&str, &str),
    approve: bool,
    note: Option<String>,
) -> anyhow::Result<ExitCode> {
    let arguments = json!({ "runId": id, "step": step, "approve": approve, "note": note });
    let mutation = ("approvalDecide", "ApprovalDecideInput");
    send(server, mutation, arguments, "nothing was decided").await
}

async fn send(
    server: &ServerArguments,
    (mutation, input): (&str, &str),
    arguments: Value,
    failed: &str,
) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let query = format!(
        "mutation Ask($input: {input}!) {{ {mutation}(input: $input) {{ runId {} }} }}",
        user_errors::FIELDS
    );
    let mut data: Value = client.query(&query, json!({ "input": arguments })).await?;
    let Payload { run_id, user_errors } = serde_json::from_value(data[mutation].take())?;
    user_errors::refuse(failed, &user_errors)?;
    let Some(run_id) = run_id else {
        return Err(Failure::new("the server took the request and does not name the run").into());
    };
    output::line(run_id);
    Ok(ExitCode::SUCCESS)
}
