//! `weir event start`: starts a workflow with an event that is stored already.

use crate::arguments::{EventCommand, ServerArguments};
use crate::client::Client;
use crate::commands::user_errors::{self, UserError};
use crate::failure::Failure;
use crate::output;
use serde::Deserialize;
use serde_json::json;
use std::process::ExitCode;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    event_start: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    run_id: Option<String>,
    user_errors: Vec<UserError>,
}

pub(crate) async fn run(command: EventCommand) -> anyhow::Result<ExitCode> {
    match command {
        EventCommand::Start { server, id, workflow } => start(&server, &id, &workflow).await,
    }
}

async fn start(server: &ServerArguments, id: &str, workflow: &str) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let query = format!(
        "mutation Start($input: EventStartInput!) {{ eventStart(input: $input) {{ runId {} }} }}",
        user_errors::FIELDS
    );
    let variables = json!({ "input": { "eventId": id, "workflow": workflow } });
    let Payload { run_id, user_errors } = client.query::<Data>(&query, variables).await?.event_start;
    user_errors::refuse("the workflow was not started", &user_errors)?;
    let Some(run_id) = run_id else {
        return Err(Failure::new("the server started a run and does not show it").into());
    };
    output::line(run_id);
    Ok(ExitCode::SUCCESS)
}
