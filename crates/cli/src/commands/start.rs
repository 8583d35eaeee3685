//! `weir run start`: starts a run of a workflow with a manual trigger.

use crate::arguments::ServerArguments;
use crate::client::Client;
use crate::commands::user_errors::{self, UserError};
use crate::failure::Failure;
use crate::output;
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    run_start: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    run_id: Option<String>,
    replayed: bool,
    user_errors: Vec<UserError>,
}

pub(crate) async fn run(
    server: &ServerArguments,
    workflow: &str,
    input: &str,
    key: Option<String>,
) -> anyhow::Result<ExitCode> {
    let input: Value = serde_json::from_str(input).map_err(|error| {
        Failure::usage(format!("--input is not JSON: {error}")).fix("for example --input '{\"payment\": \"pi_1\"}'")
    })?;
    let client = Client::find(server)?;
    let query = format!(
        "mutation Start($input: RunStartInput!) {{ runStart(input: $input) {{ runId replayed {} }} }}",
        user_errors::FIELDS
    );
    let variables = json!({ "input": { "workflow": workflow, "input": input, "idempotencyKey": key } });
    let Payload {
        run_id,
        replayed,
        user_errors,
    } = client.query::<Data>(&query, variables).await?.run_start;
    user_errors::refuse("the run was not started", &user_errors)?;
    let Some(run_id) = run_id else {
        return Err(Failure::new("the server started a run and does not show it").into());
    };
    let what = match replayed {
        true => "this key was used before: nothing new was started".to_owned(),
        false => format!("{workflow} started"),
    };
    output::changed(&run_id, &what, &format!("weir run show {run_id}"));
    Ok(ExitCode::SUCCESS)
}
