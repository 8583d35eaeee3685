//! `weir coverage` and `weir endpoint sweep`: what arrived, what was recovered, and whether anything may be missing.

use crate::arguments::{CoverageArguments, ServerArguments};
use crate::client::Client;
use crate::commands::story;
use crate::commands::user_errors::{self, UserError};
use crate::failure::Failure;
use crate::output;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

const QUERY: &str = "query Coverage($name: String, $hours: Int!) { endpoint(name: $name) { id coverage(hours: $hours) { \
    level promise sweepEveryS coveredUntil oldestGap { from until } received recovered backfilled duplicates \
    hours { hour received recovered backfilled duplicates } \
    lastSweep { cause startedAt finishedAt outcome error pages recovered duplicates failures } } } }";
/// Pause between two looks whether a sweep is over.
const LOOK: Duration = Duration::from_millis(200);
/// How long a sweep is waited for; it goes on without anybody waiting.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Deserialize)]
struct Endpoint {
    id: String,
    coverage: Coverage,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Coverage {
    level: String,
    promise: String,
    sweep_every_s: Option<u64>,
    covered_until: Option<DateTime<Utc>>,
    oldest_gap: Option<Gap>,
    received: u64,
    recovered: u64,
    backfilled: u64,
    duplicates: u64,
    hours: Vec<Hour>,
    last_sweep: Option<Sweep>,
}

#[derive(Deserialize, Serialize)]
struct Gap {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
}

#[derive(Deserialize, Serialize)]
struct Hour {
    hour: DateTime<Utc>,
    received: u64,
    recovered: u64,
    backfilled: u64,
    duplicates: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sweep {
    cause: String,
    started_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    outcome: Option<String>,
    error: Option<String>,
    pages: u32,
    recovered: u64,
    duplicates: u64,
    failures: u32,
}

pub(crate) async fn run(arguments: &CoverageArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let coverage = read(&client, &arguments.endpoint, arguments.hours).await?.coverage;
    if arguments.json {
        output::document(serde_json::to_string(&coverage)?);
        return Ok(ExitCode::SUCCESS);
    }
    output::line(format!("level {}: {}", coverage.level, coverage.promise));
    match (coverage.sweep_every_s, coverage.covered_until) {
        (Some(every), Some(until)) => output::line(format!(
            "swept every {every} s; complete up to {}",
            story::moment(until)
        )),
        (Some(every), None) => output::line(format!("swept every {every} s; not swept yet")),
        (None, _) => output::line("not swept by itself".to_owned()),
    }
    if let Some(gap) = &coverage.oldest_gap {
        output::line(format!(
            "GAP: from {} to {} the provider could not be asked any more; events may be lost",
            story::moment(gap.from),
            story::moment(gap.until)
        ));
    }
    output::line(format!(
        "received {}, recovered {}, backfilled {}, duplicates {} in {} h",
        coverage.received, coverage.recovered, coverage.backfilled, coverage.duplicates, arguments.hours
    ));
    if let Some(sweep) = &coverage.last_sweep {
        output::line(told(sweep));
    }
    if !coverage.hours.is_empty() {
        let rows: Vec<Vec<String>> = coverage.hours.iter().map(row).collect();
        output::table(&["HOUR", "RECEIVED", "RECOVERED", "BACKFILLED", "DUPLICATES"], &rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks for a sweep and waits for its end.
pub(crate) async fn sweep(server: &ServerArguments, name: &str) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let before = read(&client, name, 1).await?;
    let document = format!(
        "mutation Sweep($input: EndpointSweepInput!) {{ endpointSweep(input: $input) {{ {} }} }}",
        user_errors::FIELDS
    );
    let mut data: Value = client.query(&document, json!({ "input": { "id": before.id } })).await?;
    let errors: Vec<UserError> = serde_json::from_value(data["endpointSweep"]["userErrors"].take())?;
    user_errors::refuse("not swept", &errors)?;
    let started = before.coverage.last_sweep.map(|sweep| sweep.started_at);
    let waiting = async {
        loop {
            let last = read(&client, name, 1).await?.coverage.last_sweep;
            if let Some(sweep) = last.filter(|sweep| Some(sweep.started_at) > started && sweep.outcome.is_some()) {
                return anyhow::Ok(sweep);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let Ok(sweep) = tokio::time::timeout(PATIENCE, waiting).await else {
        return Err(Failure::new(format!(
            "the sweep of {name} is not over after {} s",
            PATIENCE.as_secs()
        ))
        .fix(format!("it goes on; see `weir coverage {name}`"))
        .into());
    };
    let sweep = sweep?;
    output::line(told(&sweep));
    Ok(match sweep.outcome.as_deref() {
        Some("failed") => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

async fn read(client: &Client, name: &str, hours: u32) -> anyhow::Result<Endpoint> {
    let mut data: Value = client.query(QUERY, json!({ "name": name, "hours": hours })).await?;
    match data["endpoint"].take() {
        Value::Null => Err(Failure::new(format!("there is no endpoint {name}"))
            .fix("`weir export` shows the configuration")
            .into()),
        found => Ok(serde_json::from_value(found)?),
    }
}

fn told(sweep: &Sweep) -> String {
    let mut text = format!(
        "sweep ({}) of {}: {}, {} page(s), {} recovered, {} known",
        sweep.cause,
        story::moment(sweep.started_at),
        sweep.outcome.as_deref().unwrap_or("under way"),
        sweep.pages,
        sweep.recovered,
        sweep.duplicates
    );
    if let Some(error) = &sweep.error {
        text.push_str("; ");
        text.push_str(error);
    }
    text
}

fn row(hour: &Hour) -> Vec<String> {
    vec![
        story::moment(hour.hour),
        hour.received.to_string(),
        hour.recovered.to_string(),
        hour.backfilled.to_string(),
        hour.duplicates.to_string(),
    ]
}
