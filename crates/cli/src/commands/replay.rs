//! `weir run replay`: shows what repeating a run would do, asks, and repeats it.

use crate::arguments::ServerArguments;
use crate::client::Client;
use crate::commands::user_errors::{self, UserError};
use crate::failure::{EXIT_FAILURE, Failure};
use crate::output::{self, Style};
use anyhow::Context as _;
use serde::Deserialize;
use serde_json::json;
use std::io::{BufRead as _, IsTerminal as _};
use std::process::ExitCode;

const CALL: &str = "{ step connectorName operation changed sends }";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreviewData {
    replay_preview: Option<Preview>,
}

#[derive(Deserialize)]
struct Preview {
    confirm: String,
    reads: Vec<Call>,
    answered: Vec<Call>,
    new: Vec<Call>,
    unknown: Vec<Call>,
    note: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    step: String,
    connector_name: String,
    operation: String,
    changed: bool,
    sends: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplayData {
    run_replay: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    run_id: Option<String>,
    user_errors: Vec<UserError>,
}

pub(crate) async fn run(server: &ServerArguments, id: &str, yes: bool) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let query = format!(
        "query Preview($id: ID!) {{ replayPreview(runId: $id) {{ confirm note reads {CALL} answered {CALL} new {CALL} unknown {CALL} }} }}"
    );
    let found = client
        .query::<PreviewData>(&query, json!({ "id": id }))
        .await?
        .replay_preview;
    let Some(preview) = found else {
        return Err(Failure::new(format!("there is no run {id}"))
            .fix("`weir runs` lists them")
            .into());
    };
    print(&preview);
    if !yes && !confirmed()? {
        output::remark("not replayed");
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    let query = format!(
        "mutation Replay($input: RunReplayInput!) {{ runReplay(input: $input) {{ runId {} }} }}",
        user_errors::FIELDS
    );
    let variables = json!({ "input": { "runId": id, "confirm": preview.confirm } });
    let Payload { run_id, user_errors } = client.query::<ReplayData>(&query, variables).await?.run_replay;
    user_errors::refuse("the run was not replayed", &user_errors)?;
    let Some(run_id) = run_id else {
        return Err(Failure::new("the server replayed the run and does not show it").into());
    };
    output::line(run_id);
    Ok(ExitCode::SUCCESS)
}

fn print(preview: &Preview) {
    let style = Style::stdout();
    let resent = preview.unknown.iter().filter(|call| call.sends).count();
    output::line(style.bold(format!(
        "This replay: {} reads, {} effects answered from the record, {} sent",
        preview.reads.len(),
        preview.answered.len(),
        preview.new.len() + resent
    )));
    let list = |label: String, calls: &[Call]| {
        for call in calls {
            let changed = if call.changed {
                "  (the request differs from last time)"
            } else {
                ""
            };
            output::line(format!(
                "  {label}  {}  {}.{}{changed}",
                call.step, call.connector_name, call.operation
            ));
        }
    };
    list(style.dim("read    "), &preview.reads);
    list(style.green("answered"), &preview.answered);
    list(style.yellow("sent    "), &preview.new);
    list(style.red("unknown "), &preview.unknown);
    if let Some(note) = &preview.note {
        output::line(format!("  note: {note}"));
    }
}

fn confirmed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("there is nobody to ask")
            .fix("look at the preview above, then give --yes")
            .into());
    }
    output::remark("Replay it? [y/N]");
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("could not read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
