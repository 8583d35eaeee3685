//! What the API says about runs, and how a run's story is told in a terminal. The demo tells its lines from the same values.

use crate::output::Style;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write as _;

/// Fields of a run in a list.
pub(crate) const RUN_FIELDS: &str = "id status waitingFor { reason ahead heldBy { id } } mergedInto { id } startedAt finishedAt dueAt error { code step } workflowName \
    event { id externalId type connectorName source receivedAt }";
/// Fields of a run's story, without bodies.
pub(crate) const STORY_FIELDS: &str = "id status waitingFor { reason ahead heldBy { id } } mergedInto { id } merged(first: 100) { id eventId externalId type receivedAt } mergedCount startedAt finishedAt dueAt error { code step message } rootId replayOf { id } \
    workflowName versionNumber \
    event { id externalId type connectorName source receivedAt time account reference { type id } endpointName } \
    stepCount steps { path kind label status startedAt finishedAt note effect { key class state decision { verdict looked by at note } } \
      attempts { number at durationMs outcome error nextAt exchanges { method url status durationMs error } } }";
/// The same with what was sent, answered and put out.
pub(crate) const STORY_FIELDS_WITH_BODIES: &str = "id status waitingFor { reason ahead key heldBy { id } } mergedInto { id } merged(first: 100) { id eventId externalId type receivedAt } mergedCount startedAt finishedAt dueAt error { code step message } rootId replayOf { id } \
    workflowName versionNumber \
    event { id externalId type connectorName source receivedAt time account reference { type id } endpointName body { text size } } \
    stepCount steps { path kind label status startedAt finishedAt note output effect { key class state decision { verdict looked by at note } } \
      attempts { number at durationMs outcome error nextAt \
        exchanges { method url status durationMs error requestBody responseBody } } }";

/// Bodies longer than this are cut when printed.
const BODY_CHARS_MAX: usize = 4_000;

/// A run, in a list or with its story.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
    pub(crate) due_at: Option<DateTime<Utc>>,
    pub(crate) error: Option<RunError>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replay_of: Option<RunName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) waiting_for: Option<WaitingFor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) merged_into: Option<RunName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) merged: Vec<MergedRun>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) merged_count: usize,
    pub(crate) workflow_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version_number: Option<u32>,
    pub(crate) event: Option<Event>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) steps: Vec<Step>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) step_count: Option<usize>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What a run waits for before it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WaitingFor {
    pub(crate) reason: String,
    pub(crate) ahead: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    pub(crate) held_by: Option<RunName>,
}

impl WaitingFor {
    /// In a few words.
    pub(crate) fn tell(&self) -> String {
        let mut text = format!("waits for its {}", self.reason.to_lowercase());
        if let Some(key) = &self.key {
            text.push_str(&format!(" {key:?}"));
        }
        match (&self.held_by, self.ahead) {
            (Some(run), _) => text.push_str(&format!(", held by {}", run.id)),
            (None, 0) => {}
            (None, ahead) => text.push_str(&format!(", {ahead} ahead")),
        }
        text
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunError {
    pub(crate) code: String,
    pub(crate) step: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunName {
    pub(crate) id: String,
}

/// A run that another one stands for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MergedRun {
    pub(crate) id: String,
    pub(crate) event_id: String,
    pub(crate) external_id: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) received_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) external_id: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) connector_name: String,
    pub(crate) source: String,
    pub(crate) received_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<Body>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reference {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) id: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) text: Option<String>,
    pub(crate) size: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    pub(crate) path: String,
    pub(crate) kind: Option<String>,
    pub(crate) label: String,
    pub(crate) status: Option<String>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
    pub(crate) note: Option<String>,
    pub(crate) effect: Option<Effect>,
    pub(crate) attempts: Vec<Attempt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Effect {
    pub(crate) key: String,
    pub(crate) class: String,
    pub(crate) state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decision: Option<Decision>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Decision {
    pub(crate) verdict: String,
    pub(crate) looked: bool,
    pub(crate) by: String,
    pub(crate) at: DateTime<Utc>,
    pub(crate) note: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attempt {
    pub(crate) number: u32,
    pub(crate) at: DateTime<Utc>,
    pub(crate) duration_ms: u32,
    pub(crate) outcome: String,
    pub(crate) error: Option<String>,
    pub(crate) next_at: Option<DateTime<Utc>>,
    pub(crate) exchanges: Vec<Exchange>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exchange {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) status: Option<u16>,
    pub(crate) duration_ms: u32,
    pub(crate) error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) response_body: Option<String>,
}

impl Run {
    /// Name of its workflow.
    pub(crate) fn workflow_name(&self) -> &str {
        self.workflow_name.as_deref().unwrap_or("(deleted)")
    }

    /// Whether it will not change any more.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.status.as_str(), "SUCCEEDED" | "FAILED" | "CANCELED" | "MERGED")
    }

    /// Why it has not begun, and perhaps never will.
    pub(crate) fn not_begun(&self) -> Option<String> {
        let merged = self
            .merged_into
            .as_ref()
            .map(|run| format!("{} stands for its event", run.id));
        merged.or_else(|| self.waiting_for.as_ref().map(WaitingFor::tell))
    }

    /// The step that waits, with its last try.
    pub(crate) fn waiting(&self) -> Option<(&Step, &Attempt)> {
        self.steps
            .iter()
            .filter_map(|step| Some((step, step.attempts.last()?)))
            .rfind(|(_, attempt)| attempt.next_at.is_some())
    }
}

/// A moment as people read it: date and time, UTC, milliseconds.
pub(crate) fn moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.3fZ").to_string()
}

/// Only the time of the day.
pub(crate) fn clock(at: DateTime<Utc>) -> String {
    at.format("%H:%M:%S%.3f").to_string()
}

/// A moment beside another one: the date is left out when it is the same.
pub(crate) fn when(at: DateTime<Utc>, beside: DateTime<Utc>) -> String {
    match at.date_naive() == beside.date_naive() {
        true => clock(at),
        false => moment(at),
    }
}

/// A length of time as people read it.
pub(crate) fn length_ms(ms: i64) -> String {
    match ms {
        ..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// Writing to a string cannot fail, so the result says nothing.
macro_rules! put {
    ($text:expr, $($format:tt)*) => {{ let _infallible = writeln!($text, $($format)*); }};
}

/// Tells the whole story.
pub(crate) fn tell(run: &Run, style: Style) -> String {
    let mut text = String::new();
    head(&mut text, run, style);
    for step in &run.steps {
        tell_step(&mut text, run, step, style);
    }
    let hidden = run.step_count.unwrap_or_default().saturating_sub(run.steps.len());
    if hidden > 0 {
        put!(
            text,
            "  … and {hidden} more steps; GraphQL shows them with `steps(skip: …)`"
        );
    }
    // Every line is complete; the last line break is the printer's.
    text.truncate(text.trim_end().len());
    text
}

fn head(text: &mut String, run: &Run, style: Style) {
    let version = run
        .version_number
        .map(|number| format!(" (version {number})"))
        .unwrap_or_default();
    put!(
        text,
        "{}  {}  {}{version}",
        style.bold(&run.id),
        style.state(&run.status.to_lowercase()),
        run.workflow_name()
    );
    if let Some(event) = &run.event {
        let door = match &event.endpoint_name {
            Some(endpoint) => format!("at endpoint {endpoint}"),
            None => format!("by {}", event.source.to_lowercase()),
        };
        put!(
            text,
            "  event    {}.{}  {}",
            event.connector_name,
            event.kind,
            event.external_id
        );
        put!(
            text,
            "           {} received {} {door}",
            event.id,
            moment(event.received_at)
        );
        if let Some(reference) = &event.reference {
            let account = event
                .account
                .as_ref()
                .map(|account| format!(", account {account}"))
                .unwrap_or_default();
            put!(text, "           about {} {}{account}", reference.kind, reference.id);
        }
        if let Some(body) = event.body.as_ref().and_then(|body| body.text.as_deref()) {
            put_body(text, "           ", body, style);
        }
    }
    for (place, merged) in run.merged.iter().enumerate() {
        let (kind, id) = (&merged.kind, &merged.external_id);
        put!(
            text,
            "  {}{kind}  {id}",
            if place == 0 { "also for " } else { "         " }
        );
        put!(
            text,
            "           {} received {}, {}",
            merged.event_id,
            moment(merged.received_at),
            merged.id
        );
    }
    let hidden = run.merged_count.saturating_sub(run.merged.len());
    if hidden > 0 {
        put!(
            text,
            "           … and {hidden} more events; GraphQL shows them with `merged(skip: …)`"
        );
    }
    match run.finished_at {
        Some(finished) => put!(
            text,
            "  started  {}, finished after {}",
            moment(run.started_at),
            length_ms((finished - run.started_at).num_milliseconds())
        ),
        None => put!(text, "  started  {}", moment(run.started_at)),
    }
    if let Some(replayed) = &run.replay_of {
        put!(text, "  replay   of {}", replayed.id);
    }
    if let Some(error) = &run.error {
        let step = error
            .step
            .as_ref()
            .map(|step| format!(" in step {step}"))
            .unwrap_or_default();
        put!(text, "  error    {}{step}", style.red(&error.code));
        for line in error.message.iter().flat_map(|message| message.lines()) {
            put!(text, "           {line}");
        }
    }
    if let Some(why) = run.not_begun() {
        put!(text, "  {why}");
    }
    if let Some(due) = run.due_at.filter(|_| !run.is_finished()) {
        let waiting = run
            .waiting()
            .map(|(step, _)| format!(" for step {}", step.path))
            .unwrap_or_default();
        put!(text, "  waits    until {}{waiting}", moment(due));
    }
    put!(text, "");
}

fn tell_step(text: &mut String, run: &Run, step: &Step, style: Style) {
    let status = step.status.as_deref().unwrap_or("?").to_lowercase();
    let kind = step.kind.as_deref().unwrap_or("?").to_lowercase();
    let took = match (step.started_at, step.finished_at) {
        (Some(started), Some(finished)) => {
            format!("  {}", length_ms((finished - started).num_milliseconds()))
        }
        (Some(_), None) | (None, _) => String::new(),
    };
    let mark = match status.as_str() {
        "succeeded" | "answered" => style.green("✓"),
        "failed" | "unknown" => style.red("✗"),
        "pending" | "skipped" | "canceled" => style.dim("·"),
        _ => style.yellow("…"),
    };
    put!(
        text,
        "{mark} {}  {kind}  {}  {}{}",
        style.bold(&step.path),
        step.label,
        style.state(&status),
        style.dim(took)
    );
    if let Some(note) = &step.note {
        put!(text, "    {note}");
    }
    if let Some(effect) = &step.effect {
        let state = effect.state.to_lowercase();
        put!(
            text,
            "    effect {}  {}  key {}",
            style.state(&state),
            effect.class.to_lowercase(),
            style.dim(&effect.key)
        );
        if let Some(decision) = &effect.decision {
            let verdict = decision.verdict.to_lowercase().replace('_', " ");
            let how = if decision.looked { ", found at the provider" } else { "" };
            let note = decision
                .note
                .as_ref()
                .map(|note| format!(": {note}"))
                .unwrap_or_default();
            let at = moment(decision.at);
            put!(text, "    decided {verdict} by {} at {at}{how}{note}", decision.by);
        }
    }
    for attempt in &step.attempts {
        tell_attempt(text, attempt, run, style);
    }
    // An output that is the answer as it came has just been shown.
    let answered = step
        .attempts
        .last()
        .and_then(|attempt| attempt.exchanges.last())
        .and_then(|last| last.response_body.as_deref());
    let answered: Option<Value> = answered.and_then(|body| serde_json::from_str(body).ok());
    if let Some(output) = step
        .output
        .as_ref()
        .filter(|output| !output.is_null() && answered.as_ref() != Some(*output))
    {
        put!(text, "    output");
        put_body(text, "      ", &output.to_string(), style);
    }
}

fn tell_attempt(text: &mut String, attempt: &Attempt, run: &Run, style: Style) {
    let error = attempt
        .error
        .as_ref()
        .map(|error| format!(": {error}"))
        .unwrap_or_default();
    let next = match attempt.next_at {
        Some(next) if !run.is_finished() => format!(", tries again at {}", clock(next)),
        Some(_) | None => String::new(),
    };
    put!(
        text,
        "    {} try {}  {}{error}{next}",
        clock(attempt.at),
        attempt.number,
        attempt.outcome
    );
    for exchange in &attempt.exchanges {
        let answer = match (exchange.status, &exchange.error) {
            (Some(status), _) => status.to_string(),
            (None, Some(error)) => style.red(error),
            (None, None) => "no answer".to_owned(),
        };
        put!(
            text,
            "      {} {}  {answer}  {} ms",
            exchange.method,
            exchange.url,
            exchange.duration_ms
        );
        for (label, body) in [("sent", &exchange.request_body), ("answered", &exchange.response_body)] {
            if let Some(body) = body.as_deref().filter(|body| !body.is_empty()) {
                put!(text, "        {label}");
                put_body(text, "          ", body, style);
            }
        }
    }
}

/// Prints a body indented, JSON in a readable form, cut when long.
fn put_body(text: &mut String, indent: &str, body: &str, style: Style) {
    let readable = serde_json::from_str::<Value>(body)
        .ok()
        .and_then(|value| serde_json::to_string_pretty(&value).ok());
    let body = readable.as_deref().unwrap_or(body);
    let cut: String = body.chars().take(BODY_CHARS_MAX).collect();
    for line in cut.lines() {
        put!(text, "{indent}{}", style.dim(line));
    }
    if cut.len() < body.len() {
        put!(text, "{indent}{}", style.dim(format!("… {} bytes in all", body.len())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_waiting_run_says_what_waits_for_what() {
        let run: Run = serde_json::from_value(json!({
            "id": "run_0000000000001", "status": "WAITING", "startedAt": "2026-11-23T10:00:00.000Z", "finishedAt": null,
            "dueAt": "2026-11-23T10:00:07.500Z", "error": null, "rootId": "run_0000000000001", "replayOf": null,
            "workflowName": "payment-to-crm", "versionNumber": 2,
            "event": { "id": "evt_0000000000001", "externalId": "evt_stripe_1", "type": "payment_intent.succeeded", "connectorName": "stripe",
                "source": "ENDPOINT", "receivedAt": "2026-11-23T10:00:00.000Z", "time": null, "account": "acct_1",
                "reference": { "type": "payment_intent", "id": "pi_1" }, "endpointName": "stripe" },
            "steps": [
                { "path": "hydrate.customer", "kind": "READ", "label": "stripe.customers.get", "status": "SUCCEEDED",
                  "startedAt": "2026-11-23T10:00:00.010Z", "finishedAt": "2026-11-23T10:00:00.135Z", "note": null, "effect": null,
                  "attempts": [{ "number": 1, "at": "2026-11-23T10:00:00.010Z", "durationMs": 124, "outcome": "sent", "error": null, "nextAt": null,
                    "exchanges": [{ "method": "GET", "url": "http://127.0.0.1:9/v1/customers/cus_1", "status": 200, "durationMs": 124, "error": null }] }] },
                { "path": "create", "kind": "CALL", "label": "hubspot.contacts.create", "status": "WAITING",
                  "startedAt": "2026-11-23T10:00:00.140Z", "finishedAt": null, "note": null,
                  "effect": { "key": "weir_00ff", "class": "FIND_BY", "state": "INTENDED" },
                  "attempts": [{ "number": 3, "at": "2026-11-23T10:00:05.000Z", "durationMs": 1, "outcome": "retry", "error": "connection refused",
                    "nextAt": "2026-11-23T10:00:07.500Z",
                    "exchanges": [{ "method": "POST", "url": "http://127.0.0.1:9/crm/v3/objects/contacts", "status": null, "durationMs": 1, "error": "connection refused" }] }] },
                { "path": "tell", "kind": "CALL", "label": "slack.chat.post_message", "status": "PENDING", "startedAt": null, "finishedAt": null,
                  "note": null, "effect": null, "attempts": [] }
            ]
        }))
        .unwrap();
        insta::assert_snapshot!(tell(&run, Style::plain()), @r"
        run_0000000000001  waiting  payment-to-crm (version 2)
          event    stripe.payment_intent.succeeded  evt_stripe_1
                   evt_0000000000001 received 2026-11-23 10:00:00.000Z at endpoint stripe
                   about payment_intent pi_1, account acct_1
          started  2026-11-23 10:00:00.000Z
          waits    until 2026-11-23 10:00:07.500Z for step create

        ✓ hydrate.customer  read  stripe.customers.get  succeeded  125 ms
            10:00:00.010 try 1  sent
              GET http://127.0.0.1:9/v1/customers/cus_1  200  124 ms
        … create  call  hubspot.contacts.create  waiting
            effect intended  find_by  key weir_00ff
            10:00:05.000 try 3  retry: connection refused, tries again at 10:00:07.500
              POST http://127.0.0.1:9/crm/v3/objects/contacts  connection refused  1 ms
        · tell  call  slack.chat.post_message  pending
        ");
    }

    #[test]
    fn a_run_that_stands_for_many_events_says_how_many_are_not_shown() {
        let merged = json!({ "id": "run_0000000000001", "eventId": "evt_0000000000001", "externalId": "o1", "type": "shop.order.paid",
            "receivedAt": "2026-11-23T09:59:59.000Z" });
        let tell = |count: usize| {
            let run: Run = serde_json::from_value(json!({
                "id": "run_0000000000009", "status": "WAITING", "startedAt": "2026-11-23T10:00:00.000Z", "finishedAt": null,
                "dueAt": null, "error": null, "workflowName": "notes", "event": null, "merged": [merged.clone()], "mergedCount": count
            }))
            .unwrap();
            tell(&run, Style::plain())
        };
        insta::assert_snapshot!(tell(251), @r"
        run_0000000000009  waiting  notes
          also for shop.order.paid  o1
                   evt_0000000000001 received 2026-11-23 09:59:59.000Z, run_0000000000001
                   … and 250 more events; GraphQL shows them with `merged(skip: …)`
          started  2026-11-23 10:00:00.000Z
        ");
        assert!(!tell(1).contains("more events"));
    }
}
