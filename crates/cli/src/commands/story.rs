//! How a run's story is told in a terminal. The demo tells its lines from the same values.

mod shape;
mod waits;

pub(crate) use shape::*;
pub(crate) use waits::summary;

use crate::output::Style;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::fmt::Write as _;

/// Bodies longer than this are cut when printed.
const BODY_CHARS_MAX: usize = 4_000;

/// What more steps than these wait for is told with the steps alone.
const WAITS_SHOWN: usize = 10;

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
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        3_600_000..86_400_000 => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{} d {} h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
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
    // Who waits for a turn, or was refused one, has not started.
    let began = if run.has_begun() { "started" } else { "arrived" };
    match run.finished_at {
        Some(finished) => put!(
            text,
            "  {began}  {}, finished after {}",
            moment(run.started_at),
            length_ms((finished - run.started_at).num_milliseconds())
        ),
        None => put!(text, "  {began}  {}", moment(run.started_at)),
    }
    if let Some(replayed) = &run.replay_of {
        put!(text, "  replay   of {}", replayed.id);
    }
    if let Some(kept) = run.kept() {
        put!(text, "  {kept}");
    }
    if let Some(replaced) = run.replaced() {
        put!(text, "  {replaced}");
    }
    for (place, entry) in run.history.iter().enumerate() {
        let remark = entry.remark();
        let remark = if remark.is_empty() {
            remark
        } else {
            format!(": {remark}")
        };
        put!(
            text,
            "  {} {} by {} at {}{remark}",
            if place == 0 { "asked   " } else { "        " },
            entry.action,
            entry.actor_name,
            when(entry.at, run.started_at)
        );
    }
    if let Some(error) = &run.error {
        let step = error.place().map(|step| format!(" in step {step}")).unwrap_or_default();
        put!(text, "  error    {}{step}", style.red(&error.code));
        for line in error.message.iter().flat_map(|message| message.lines()) {
            put!(text, "           {line}");
        }
    }
    if let Some(why) = run.not_begun() {
        put!(text, "  {why}");
    }
    for wait in run.waits.iter().take(WAITS_SHOWN) {
        put!(
            text,
            "  waits    for {} since {}, until {} (step {})",
            wait.what(),
            when(wait.since, run.started_at),
            when(wait.until, run.started_at),
            wait.step_name
        );
        if let Some(question) = &wait.question {
            put!(text, "           {question}");
        }
        if wait.reason == "DECISION" {
            put!(
                text,
                "           `weir approve {id} {step}` or `weir reject {id} {step}` decides",
                id = run.id,
                step = wait.step_name
            );
        }
    }
    let hidden = run.waits.len().saturating_sub(WAITS_SHOWN);
    if hidden > 0 {
        put!(text, "           … and {hidden} more, told with their steps");
    }
    let told = run.waits.iter().any(|wait| Some(wait.until) == run.due_at);
    if let Some(due) = run.due_at.filter(|_| !run.is_finished() && !told) {
        let waiting = run
            .waiting()
            .map(|(step, _)| format!(" for step {}", step.told()))
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
        style.bold(step.told()),
        step.label,
        style.state(&status),
        style.dim(took)
    );
    for line in step.note.iter().flat_map(|note| note.lines()) {
        put!(text, "    {line}");
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
