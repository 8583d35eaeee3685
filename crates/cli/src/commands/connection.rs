//! `weir connection show`: its access, what a connection may send, what is left of it, who waits, whether its provider answers.

use crate::arguments::ServerArguments;
use crate::client::Client;
use crate::commands::grant::Grant;
use crate::commands::story;
use crate::output;
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::ExitCode;

const QUERY: &str = "query Connection($name: String!) { connection(name: $name) { name connectorName health \
    grant { account label error scopes connectedAt refreshedAt expiresAt } budget { \
    limits { shape name limit remaining windowSeconds resetsAt } concurrency open reservePercent \
    queues { class waiting } sleeping perSecond closedUntil pace learnedFrom calls { sent throttled held } \
    workflows { workflowName calls { sent throttled held } } breakers { host step workflowName state failures until } node } } }";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    name: String,
    connector_name: String,
    health: Option<String>,
    grant: Option<Grant>,
    budget: Option<Budget>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Budget {
    limits: Vec<Limit>,
    concurrency: u32,
    open: u32,
    reserve_percent: u32,
    queues: Vec<Queue>,
    sleeping: u32,
    per_second: f64,
    closed_until: Option<DateTime<Utc>>,
    pace: f64,
    learned_from: String,
    calls: Calls,
    workflows: Vec<WorkflowCalls>,
    breakers: Vec<Breaker>,
    node: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Limit {
    shape: String,
    name: Option<String>,
    limit: Option<f64>,
    remaining: f64,
    window_seconds: Option<f64>,
    resets_at: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Queue {
    class: String,
    waiting: Value,
}

#[derive(Deserialize)]
struct Calls {
    sent: Value,
    throttled: Value,
    held: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkflowCalls {
    workflow_name: Option<String>,
    calls: Calls,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Breaker {
    host: Option<String>,
    step: Option<String>,
    workflow_name: Option<String>,
    state: String,
    failures: u32,
    until: Option<DateTime<Utc>>,
}

pub(crate) async fn run(server: &ServerArguments, name: &str, as_json: bool) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let mut data: Value = client.query(QUERY, json!({ "name": name })).await?;
    let found = data["connection"].take();
    anyhow::ensure!(
        !found.is_null(),
        "there is no connection `{name}`; `weir connection list` lists them"
    );
    if as_json {
        output::document(serde_json::to_string_pretty(&found)?);
        return Ok(ExitCode::SUCCESS);
    }
    let connection: Connection =
        serde_json::from_value(found).context("the server's answer about the connection has an unexpected shape")?;
    show(&connection);
    Ok(ExitCode::SUCCESS)
}

fn show(connection: &Connection) {
    let health = connection.health.as_deref().unwrap_or("unusable").to_lowercase();
    output::line(format!("{} ({}): {health}", connection.name, connection.connector_name));
    for line in connection.grant.iter().flat_map(Grant::lines) {
        output::line(line);
    }
    let Some(budget) = &connection.budget else {
        output::line("its connector is gone, so nothing can be sent");
        return;
    };
    for line in lines(budget) {
        output::line(line);
    }
    if !budget.workflows.is_empty() {
        let rows: Vec<Vec<String>> = budget.workflows.iter().map(row).collect();
        output::line("");
        output::table(&["WORKFLOW", "SENT", "THROTTLED", "HELD"], &rows);
    }
}

fn row(workflow: &WorkflowCalls) -> Vec<String> {
    let Calls { sent, throttled, held } = &workflow.calls;
    vec![
        workflow.workflow_name.clone().unwrap_or_else(|| "(deleted)".to_owned()),
        number(sent),
        number(throttled),
        number(held),
    ]
}

/// Large counts come as texts.
fn number(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn lines(budget: &Budget) -> Vec<String> {
    let mut lines = Vec::new();
    for limit in &budget.limits {
        let mut line = limit.shape.to_lowercase();
        if let Some(name) = &limit.name {
            line.push_str(&format!(" {name}"));
        }
        line.push_str(&format!(": {} left", limit.remaining.floor()));
        if let Some(whole) = limit.limit {
            line.push_str(&format!(" of {whole}"));
        }
        if let Some(seconds) = limit.window_seconds {
            line.push_str(&format!(" in {seconds} s"));
        }
        if let Some(at) = limit.resets_at {
            line.push_str(&format!(", whole again {}", story::moment(at)));
        }
        lines.push(line);
    }
    if budget.limits.is_empty() {
        lines.push("no allowance is stated or known".to_owned());
    }
    lines.push(format!(
        "open: {} of {}; {} requests in the last second; {}% kept for live events; known from: {}",
        budget.open,
        budget.concurrency,
        budget.per_second,
        budget.reserve_percent,
        budget.learned_from.to_lowercase()
    ));
    if budget.pace < 1.0 {
        let percent = (budget.pace * 100.0).round();
        lines.push(format!("slowed down to {percent}% because the provider complained"));
    }
    if let Some(at) = budget.closed_until {
        lines.push(format!("closed until {}: the provider asked for it", story::moment(at)));
    }
    let queues: Vec<String> = budget
        .queues
        .iter()
        .map(|queue| format!("{} {}", number(&queue.waiting), queue.class))
        .collect();
    lines.push(format!("waiting: {}; asleep: {}", queues.join(", "), budget.sleeping));
    let Calls { sent, throttled, held } = &budget.calls;
    lines.push(format!(
        "since {} started: {} sent, {} throttled by the provider, {} held back",
        budget.node,
        number(sent),
        number(throttled),
        number(held)
    ));
    for breaker in &budget.breakers {
        let host = breaker.host.as_deref().unwrap_or("provider");
        let step = match (breaker.step.as_deref(), breaker.workflow_name.as_deref()) {
            (None, _) => String::new(),
            (Some(""), None) => ", calls by hand and sweeps".to_owned(),
            (Some(step), None) => format!(", step {step}"),
            (Some(step), Some(workflow)) => format!(", step {step} of {workflow}"),
        };
        let mut line = format!(
            "breaker of {host}{step}: {}, {} failures",
            breaker.state.to_lowercase(),
            breaker.failures
        );
        if let Some(until) = breaker.until {
            line.push_str(&format!(", until {}", story::moment(until)));
        }
        lines.push(line);
    }
    lines
}
