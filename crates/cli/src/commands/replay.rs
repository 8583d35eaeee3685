//! `weir run retry` and `weir run replay`: show what repeating a run would do, ask, and repeat it.

use crate::arguments::{ReplayArguments, ServerArguments};
use crate::client::Client;
use crate::commands::step_names;
use crate::commands::user_errors::{self, UserError};
use crate::failure::{EXIT_FAILURE, Failure};
use crate::output::{self, Style};
use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::Path;
use std::process::ExitCode;

const CALL: &str = "{ step stepName connectorName operation class changed undone sends onReads }";

/// Where a run is begun when nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Default {
    /// At the step that failed.
    FailedStep,
    /// At the start.
    Start,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreviewData {
    replay_preview: Option<Preview>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preview {
    confirm: String,
    from_name: Option<String>,
    version_number: u32,
    kept_names: Vec<String>,
    replaced_by: Option<ReplacedBy>,
    reads: Vec<Call>,
    answered: Vec<Call>,
    new: Vec<Call>,
    unknown: Vec<Call>,
    note: Option<String>,
    in_part: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplacedBy {
    run_id: String,
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    step_name: String,
    connector_name: String,
    operation: String,
    class: Option<String>,
    changed: bool,
    undone: bool,
    sends: bool,
    on_reads: bool,
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

impl Preview {
    /// The step that it would stop at without having sent anything.
    fn stuck_at(&self) -> Option<&str> {
        let sends = self.new.iter().chain(&self.unknown).any(|call| call.sends);
        let mut unknown = self.unknown.iter();
        let stops = unknown.find(|call| !call.sends).filter(|_| !sends)?;
        Some(&stops.step_name)
    }
}

pub(crate) async fn run(
    server: &ServerArguments,
    arguments: &ReplayArguments,
    default: Default,
) -> anyhow::Result<ExitCode> {
    let id = arguments.id.as_str();
    let client = Client::find(server)?;
    let from = match arguments.from.clone() {
        Some(step) => Some(step_names::path_of(&client, id, step).await?),
        None => None,
    };
    let options = options(arguments, from, default)?;
    let query = format!(
        "query Preview($id: ID!, $options: ReplayOptionsInput) {{ replayPreview(runId: $id, options: $options) {{ \
         confirm fromName versionNumber keptNames note inPart replacedBy {{ runId status }} reads {CALL} answered {CALL} new {CALL} unknown {CALL} }} }}"
    );
    let found = client
        .query::<PreviewData>(&query, json!({ "id": id, "options": options }))
        .await?
        .replay_preview;
    let Some(preview) = found else {
        return Err(Failure::new(format!("there is no run {id}"))
            .fix("`weir runs` lists them")
            .into());
    };
    print(id, &preview);
    if let (Some(by), false) = (&preview.replaced_by, arguments.again) {
        let status = by.status.to_lowercase();
        let fix = match by.status.as_str() {
            "FAILED" | "CANCELED" => format!("replay {} instead, or give --again", by.run_id),
            _ => "give --again to repeat it all the same".to_owned(),
        };
        let failure = Failure::usage(format!("{} repeated this run already and is {status}", by.run_id));
        return Err(failure.fix(fix).into());
    }
    if let Some(step) = preview.stuck_at() {
        let failure = Failure::new(format!(
            "not replayed: nobody knows whether `{step}` took place, and the replay would stop there without sending anything"
        ));
        return Err(failure
            .fix(format!("first say what became of it: weir run resolve {id} {step}"))
            .into());
    }
    if !arguments.yes && !confirmed("Replay it?")? {
        output::remark("not replayed");
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    let query = format!(
        "mutation Replay($input: RunReplayInput!) {{ runReplay(input: $input) {{ runId {} }} }}",
        user_errors::FIELDS
    );
    let variables =
        json!({ "input": { "runId": id, "confirm": preview.confirm, "options": options, "again": arguments.again } });
    let Payload { run_id, user_errors } = client.query::<ReplayData>(&query, variables).await?.run_replay;
    user_errors::refuse("the run was not replayed", &user_errors)?;
    let Some(run_id) = run_id else {
        return Err(Failure::new("the server replayed the run and does not show it").into());
    };
    output::changed(&run_id, &format!("repeats {id}"), &format!("weir run show {run_id}"));
    Ok(ExitCode::SUCCESS)
}

fn print(id: &str, preview: &Preview) {
    let style = Style::stdout();
    let least = if preview.in_part { "at least " } else { "" };
    let resent = preview.unknown.iter().filter(|call| call.sends).count();
    output::line(style.bold(format!(
        "This replay: {}, {} answered from the record, {least}{} sent",
        output::count(preview.reads.len(), "read"),
        output::count(preview.answered.len(), "effect"),
        preview.new.len() + resent
    )));
    let begins = match &preview.from_name {
        Some(step) => format!("at step {step}"),
        None => "at the start".to_owned(),
    };
    output::line(format!("  begins {begins}, on version {}", preview.version_number));
    if let Some(by) = &preview.replaced_by {
        let status = by.status.to_lowercase();
        output::line(style.yellow(format!("  note: {} repeated this run already: {status}", by.run_id)));
    }
    for step in &preview.kept_names {
        output::line(format!("  {}  {step}", style.dim("kept    ")));
    }
    let list = |label: String, calls: &[&Call], otherwise: &str| {
        for call in calls {
            let changed = match (call.undone, call.changed) {
                (true, _) => "  (it was undone)",
                (false, true) => "  (the request differs from last time)",
                (false, false) => otherwise,
            };
            let changed = match call.sends {
                false if call.on_reads => "  (as long as what is read again answers as before)",
                _ => changed,
            };
            let class = call.class.as_ref();
            let class = class
                .map(|class| format!("  {}", class.to_lowercase()))
                .unwrap_or_default();
            output::line(format!(
                "  {label}  {}  {}.{}{class}{changed}",
                call.step_name, call.connector_name, call.operation
            ));
        }
    };
    list(style.dim("read    "), &every(&preview.reads), "");
    list(style.green("answered"), &every(&preview.answered), "");
    list(style.yellow("sent    "), &every(&preview.new), "");
    let (again, stops): (Vec<&Call>, Vec<&Call>) = preview.unknown.iter().partition(|call| call.sends);
    list(
        style.yellow("sent    "),
        &again,
        "  (it may have taken place: sent again in the way of its class)",
    );
    list(style.red("unknown "), &stops, "");
    if let Some(call) = stops.first() {
        output::line(format!(
            "  note: it would end with effect_unknown; first say what became of it: weir run resolve {id} {}",
            call.step_name
        ));
    }
    if let Some(note) = &preview.note {
        output::line(format!("  note: {note}"));
    }
}

fn every(calls: &[Call]) -> Vec<&Call> {
    calls.iter().collect()
}

/// What the arguments ask for, as GraphQL takes it.
fn options(arguments: &ReplayArguments, from: Option<String>, default: Default) -> anyhow::Result<Value> {
    let (from, step) = match (from, default) {
        (Some(step), _) => ("STEP", Some(step)),
        (None, Default::FailedStep) => ("FAILED_STEP", None),
        (None, Default::Start) => ("START", None),
    };
    let body = arguments.body.as_deref().map(read_body).transpose()?;
    let version = if arguments.live { "LIVE" } else { "PINNED" };
    Ok(json!({ "from": from, "step": step, "version": version, "body": body }))
}

fn read_body(path: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("could not read standard input")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    }
    let body = serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("{} is not JSON: {error}", path.display())))?;
    Ok(body)
}

/// Asks the person at the terminal, such as "Replay it?".
pub(crate) fn confirmed(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("there is nobody to ask: {question}"))
            .fix("give --yes to say so")
            .into());
    }
    output::remark(format!("{question} [y/N]"));
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("could not read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
