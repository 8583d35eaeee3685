//! `weir endpoint backfill` and its like: a chosen past range, shown first, watched while it goes on, paused, ended.

use crate::arguments::{BackfillArguments, ServerArguments};
use crate::client::Client;
use crate::commands::replay;
use crate::commands::story;
use crate::commands::user_errors::{self, UserError};
use crate::failure::{EXIT_FAILURE, Failure};
use crate::output::{self, Style};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// How often the progress is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const FIELDS: &str = "id status since until reached percent pages listed recovered duplicates passedOver failures error \
    nextTryAt createdBy createdAt finishedAt";

/// What is asked of the backfill of an endpoint.
#[derive(Clone, Copy)]
pub(crate) enum BackfillAsk {
    Pause,
    Resume,
    Stop,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    id: String,
    #[serde(default)]
    backfill_check: Option<Check>,
    #[serde(default)]
    backfills: Vec<Backfill>,
}

#[derive(Deserialize)]
struct Check {
    plan: Option<Plan>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    reaches_back_to: DateTime<Utc>,
    bound: String,
    newest_first: bool,
    end_told: bool,
    workflows: Vec<Taker>,
    confirm: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Taker {
    workflow_name: String,
    event: String,
    paused: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Backfill {
    id: String,
    status: String,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
    reached: Option<DateTime<Utc>>,
    percent: u32,
    pages: u32,
    listed: u64,
    recovered: u64,
    duplicates: u64,
    passed_over: u64,
    failures: u32,
    error: Option<String>,
    next_try_at: Option<DateTime<Utc>>,
    created_by: String,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    backfill_id: Option<String>,
    user_errors: Vec<UserError>,
}

/// Shows what it would do, asks, begins, and follows it to the end.
pub(crate) async fn start(arguments: &BackfillArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let name = &arguments.endpoint;
    let fields = "id backfillCheck(since: $since, until: $until) { refusal plan { since until reachesBackTo bound newestFirst \
        endTold workflows { workflowName event paused } confirm } }";
    let query = format!(
        "query Check($name: String, $since: DateTime!, $until: DateTime) {{ endpoint(name: $name) {{ {fields} }} }}"
    );
    let variables = json!({ "name": name, "since": arguments.since, "until": arguments.until });
    let found = endpoint(&client, name, &query, variables).await?;
    let check = found
        .backfill_check
        .ok_or_else(|| Failure::new("the server does not say what the backfill would do"))?;
    let Some(plan) = check.plan else {
        let why = check.refusal.unwrap_or_default();
        return Err(Failure::new(format!("{name} cannot be backfilled: {why}")).into());
    };
    print(name, &plan);
    if arguments.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.yes && !replay::confirmed("Backfill it?")? {
        output::remark("not begun");
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    let input = json!({ "id": found.id, "since": plan.since, "until": plan.until, "confirm": plan.confirm });
    let began = mutate(&client, ("endpointBackfillStart", "EndpointBackfillStartInput"), input).await?;
    user_errors::refuse("not begun", &began.user_errors)?;
    let Some(id) = began.backfill_id else {
        return Err(Failure::new("the server began a backfill and does not show it").into());
    };
    output::line(&id);
    if arguments.detach {
        return Ok(ExitCode::SUCCESS);
    }
    follow(&client, name, &id).await
}

fn print(name: &str, plan: &Plan) {
    let order = if plan.newest_first {
        "newest first"
    } else {
        "oldest first"
    };
    let (since, until) = (story::moment(plan.since), story::moment(plan.until));
    output::line(Style::stdout().bold(format!("{name}: events from {since} to {until}, {order}")));
    let bound = match plan.bound.as_str() {
        "PROVIDER" => "the provider lists no older events",
        _ => "of older events nobody remembers whether they were received",
    };
    let reach = story::moment(plan.reaches_back_to);
    output::line(format!("  may begin at {reach} at the earliest: {bound}"));
    if !plan.end_told && plan.newest_first {
        output::line("  the provider is not told of the end of the range: newer items are read first, and left alone");
    }
    output::line("  how many events there are shows when the list is read; what arrived already starts nothing");
    if plan.workflows.is_empty() {
        output::line("  no workflow would take them: they would only be stored");
    }
    for taker in &plan.workflows {
        let paused = if taker.paused { "  (paused: its runs wait)" } else { "" };
        output::line(format!("  workflow {}  {}{paused}", taker.workflow_name, taker.event));
    }
}

/// Prints the progress whenever it changes, until the backfill is over or stands still.
async fn follow(client: &Client, name: &str, id: &str) -> anyhow::Result<ExitCode> {
    let mut last = String::new();
    loop {
        let all = load(client, name).await?.backfills;
        let Some(one) = all.iter().find(|one| one.id == id) else {
            return Err(Failure::new(format!("{id} is not there any more")).into());
        };
        let line = progress(one);
        if line != last {
            output::line(&line);
            last = line;
        }
        match one.status.as_str() {
            "RUNNING" => tokio::time::sleep(LOOK_EVERY).await,
            "FAILED" => return Ok(ExitCode::from(EXIT_FAILURE)),
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn progress(one: &Backfill) -> String {
    let mut text = format!(
        "{}: {} %, {} page(s), {} listed, {} recovered, {} known",
        one.status.to_lowercase(),
        one.percent,
        one.pages,
        one.listed,
        one.recovered,
        one.duplicates
    );
    if one.passed_over > 0 {
        text.push_str(&format!(", {} passed over", one.passed_over));
    }
    if let Some(error) = &one.error {
        text.push_str("; ");
        text.push_str(error);
    }
    if let Some(at) = one.next_try_at {
        text.push_str(&format!("; tried again {}", story::moment(at)));
    }
    text
}

/// Lists the backfills of an endpoint.
pub(crate) async fn list(server: &ServerArguments, name: &str, json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let backfills = load(&client, name).await?.backfills;
    if json {
        super::lists::print_json(&backfills)?;
        return Ok(ExitCode::SUCCESS);
    }
    if backfills.is_empty() {
        output::remark(format!("no backfills of {name}"));
        return Ok(ExitCode::SUCCESS);
    }
    for one in &backfills {
        output::line(format!(
            "{}  {} to {}, began {} by {}",
            one.id,
            story::moment(one.since),
            story::moment(one.until),
            story::moment(one.created_at),
            one.created_by
        ));
        let reached = one
            .reached
            .map_or_else(String::new, |at| format!("; came to {}", story::moment(at)));
        output::line(format!("  {}{reached}", progress(one)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Pauses, resumes or ends the backfill of an endpoint that is not over.
pub(crate) async fn ask(ask: BackfillAsk, server: &ServerArguments, name: &str) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let all = load(&client, name).await?.backfills;
    let open = all
        .iter()
        .find(|one| ["RUNNING", "PAUSED"].contains(&one.status.as_str()));
    let Some(open) = open else {
        return Err(Failure::new(format!("{name} has no backfill that is not over"))
            .fix("`weir endpoint backfills NAME` lists them")
            .into());
    };
    let (mutation, refused) = match ask {
        BackfillAsk::Pause => ("endpointBackfillPause", "not paused"),
        BackfillAsk::Resume => ("endpointBackfillResume", "not resumed"),
        BackfillAsk::Stop => ("endpointBackfillStop", "not ended"),
    };
    let done = mutate(&client, (mutation, "BackfillInput"), json!({ "id": open.id })).await?;
    user_errors::refuse(refused, &done.user_errors)?;
    let after = load(&client, name).await?.backfills;
    if let Some(one) = after.iter().find(|one| one.id == open.id) {
        output::line(progress(one));
    }
    Ok(ExitCode::SUCCESS)
}

async fn mutate(client: &Client, (mutation, input): (&str, &str), value: Value) -> anyhow::Result<Payload> {
    let query = format!(
        "mutation Backfill($input: {input}!) {{ {mutation}(input: $input) {{ backfillId {} }} }}",
        user_errors::FIELDS
    );
    let mut data: Value = client.query(&query, json!({ "input": value })).await?;
    Ok(serde_json::from_value(data[mutation].take())?)
}

async fn load(client: &Client, name: &str) -> anyhow::Result<Endpoint> {
    let query = format!("query Backfills($name: String) {{ endpoint(name: $name) {{ id backfills {{ {FIELDS} }} }} }}");
    endpoint(client, name, &query, json!({ "name": name })).await
}

async fn endpoint(client: &Client, name: &str, query: &str, variables: Value) -> anyhow::Result<Endpoint> {
    let mut data: Value = client.query(query, variables).await?;
    match data["endpoint"].take() {
        Value::Null => Err(Failure::new(format!("there is no endpoint {name}"))
            .fix("`weir export` shows the configuration")
            .into()),
        found => Ok(serde_json::from_value(found)?),
    }
}
