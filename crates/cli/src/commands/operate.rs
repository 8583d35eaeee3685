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
    let (mutation, input, failed, done) = match ask {
        Ask::Cancel => (
            "runCancel",
            "RunCancelInput",
            "the run was not canceled",
            "asked to end: it begins nothing new and waits for effects that are on their way",
        ),
        Ask::Pause => (
            "runPause",
            "RunPauseInput",
            "the run was not paused",
            "asked to stand still: it begins nothing new until `weir run resume`",
        ),
        Ask::Resume => (
            "runResume",
            "RunResumeInput",
            "the run was not resumed",
            "asked to go on",
        ),
        Ask::Wake => (
            "runWake",
            "RunWakeInput",
            "nothing was woken",
            "asked to make its next try now",
        ),
        Ask::Release => (
            "laneRelease",
            "LaneReleaseInput",
            "the lane was not released",
            "its lane goes on; the run stays as it is",
        ),
    };
    let mut arguments = json!({ "runId": id });
    if let (Some(reason), Value::Object(arguments)) = (reason, &mut arguments) {
        arguments.insert("reason".to_owned(), Value::from(reason));
    }
    send(&Client::find(server)?, (mutation, input), arguments, (failed, done)).await
}

pub(crate) async fn decide(
    server: &ServerArguments,
    (id, step): (&str, &str),
    approve: bool,
    note: Option<String>,
) -> anyhow::Result<ExitCode> {
    let arguments = json!({ "runId": id, "step": step, "approve": approve, "note": note });
    let mutation = ("approvalDecide", "ApprovalDecideInput");
    let done = match approve {
        true => format!("decided for {step}: the run goes on"),
        false => format!("decided against {step}: the step fails with `rejected`"),
    };
    send(
        &Client::find(server)?,
        mutation,
        arguments,
        ("nothing was decided", &done),
    )
    .await
}

async fn send(
    client: &Client,
    (mutation, input): (&str, &str),
    arguments: Value,
    (failed, done): (&str, &str),
) -> anyhow::Result<ExitCode> {
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
    output::changed(&run_id, done, &format!("weir run show {run_id}"));
    Ok(ExitCode::SUCCESS)
}
