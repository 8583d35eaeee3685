//! `weir runs`: the runs, newest first.

use crate::arguments::RunsArguments;
use crate::client::Client;
use crate::commands::lists::{self, List};
use crate::commands::story::{self, RUN_FIELDS, Run};
use crate::output;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Runs at a time: for one that waits the server reads its journal.
const PAGE: u32 = 50;
/// What stands for a time that does not exist.
const NEVER: &str = "-";

pub(crate) async fn run(arguments: &RunsArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let states: Vec<&str> = arguments.status.iter().map(|state| state.wire()).collect();
    let choice = Choice {
        workflow: arguments.workflow.as_deref(),
        event: arguments.event.as_deref(),
        code: arguments.code.as_deref(),
        since: arguments.since.as_deref(),
    };
    let runs = read(&client, &states, choice, arguments.list.limit).await?;
    if arguments.list.json {
        lists::print_json(&runs)?;
        return Ok(ExitCode::SUCCESS);
    }
    if runs.is_empty() {
        output::remark("no runs");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    output::table(&["RUN", "STATE", "WORKFLOW", "EVENT", "STARTED", "TOOK", "NOTE"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// Which runs; `None` = any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Choice<'a> {
    /// Of the workflow with this name.
    workflow: Option<&'a str>,
    /// Of the event with this id.
    event: Option<&'a str>,
    /// That failed with this code.
    code: Option<&'a str>,
    /// That started at this time or later.
    since: Option<&'a str>,
}

/// Reads runs, newest first; in any of these states, or in all.
pub(crate) async fn read(client: &Client, states: &[&str], choice: Choice<'_>, limit: u32) -> anyhow::Result<Vec<Run>> {
    let wanted: Vec<Value> = if states.is_empty() {
        vec![Value::Null]
    } else {
        states.iter().map(|state| json!(state)).collect()
    };
    let mut runs: Vec<Run> = Vec::new();
    for status in wanted {
        let filter = json!({
            "status": status, "workflow": choice.workflow, "eventId": choice.event, "errorCode": choice.code,
            "since": choice.since,
        });
        let list = List {
            field: "runs",
            argument: ("filter", "RunFilter"),
            value: filter,
            fields: RUN_FIELDS,
            page: PAGE,
        };
        runs.extend(lists::read::<Run>(client, &list, limit).await?);
    }
    // Ids are in the order of time, as text too.
    runs.sort_by(|one, other| other.id.cmp(&one.id));
    runs.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(runs)
}

fn row(run: &Run) -> Vec<String> {
    let began = run.has_begun().then(|| story::moment(run.started_at));
    let took = run
        .finished_at
        .filter(|_| run.has_begun())
        .map(|finished| story::length_ms((finished - run.started_at).num_milliseconds()));
    let note = match (&run.error, run.due_at) {
        (Some(error), _) => {
            let error = match error.place() {
                Some(step) => format!("{} in {step}", error.code),
                None => error.code.clone(),
            };
            let more = [run.replaced(), run.kept()].into_iter().flatten();
            std::iter::once(error).chain(more).collect::<Vec<_>>().join("; ")
        }
        (None, _) if run.waiting_for.is_some() => run.not_begun().unwrap_or_default(),
        (None, due) if !run.is_finished() && !run.waits.is_empty() => {
            let until = due.map(|due| format!(", until {}", story::when(due, run.started_at)));
            story::summary(&run.waits).unwrap_or_default() + &until.unwrap_or_default()
        }
        (None, Some(due)) if !run.is_finished() => format!("goes on at {}", story::when(due, run.started_at)),
        (None, _) => run.not_begun().or_else(|| run.replaced()).unwrap_or_default(),
    };
    vec![
        run.id.clone(),
        run.status.to_lowercase(),
        run.workflow_name(),
        run.event
            .as_ref()
            .map_or_else(String::new, |event| event.external_id.clone()),
        began.unwrap_or_else(|| NEVER.to_owned()),
        took.unwrap_or_else(|| NEVER.to_owned()),
        note,
    ]
}
