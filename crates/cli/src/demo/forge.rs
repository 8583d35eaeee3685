//! `weir demo forge`: an impostor sends a webhook; what the server says, counts and keeps is shown.

use crate::commands::refused;
use crate::demo::crm;
use crate::demo::folder::DemoFolder;
use crate::demo::simulator::Providers;
use crate::demo::welcome;
use crate::failure::{EXIT_FAILURE, Failure};
use crate::output::{self, Style};
use serde::Deserialize;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// How long the refusal may take to appear; it is written beside the answer, not before it.
const APPEAR_LIMIT: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Deserialize)]
struct Outcome {
    attempts: Vec<Attempt>,
}

#[derive(Deserialize)]
struct Attempt {
    status: Option<u16>,
    error: Option<String>,
    answer: String,
}

pub(crate) async fn run(folder: &DemoFolder) -> anyhow::Result<ExitCode> {
    let providers = Providers::find_running(folder).await?;
    let client = crm::client(folder)?;
    let style = Style::stdout();
    let before = refused::read(&client, Some("stripe"), 1)
        .await?
        .pop()
        .map(|refused| refused.id);
    let delivery = json!({
        "scenario": "payment",
        "number": folder.identity()?.next_number(),
        "url": format!("{}/hooks/main/stripe", client.url()),
        "secrets": [folder.secret("stripe-webhook-secret")?],
        "forge": "wrong_secret",
    });
    output::line("Sending a payment webhook, signed by somebody who does not know the secret:");
    let outcome: Outcome = providers.call(reqwest::Method::POST, "send", &delivery).await?;
    let Some(attempt) = outcome.attempts.last() else {
        return Err(Failure::new("nothing was sent").into());
    };
    let Some(status) = attempt.status else {
        let error = attempt.error.as_deref().unwrap_or("no answer");
        return Err(Failure::new(format!("the server did not answer: {error}"))
            .fix("is `weir demo` still running?")
            .into());
    };
    output::line(format!(
        "  answer   {}",
        if status == 401 {
            style.green(status)
        } else {
            style.red(status)
        }
    ));
    output::line(format!("           {}", attempt.answer.trim()));
    if status != 401 {
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    let mut waited = Duration::ZERO;
    let kept = loop {
        let newest = refused::read(&client, Some("stripe"), 1).await?.pop();
        if let Some(newest) = newest.filter(|newest| before.as_ref() != Some(&newest.id)) {
            break newest;
        }
        if waited >= APPEAR_LIMIT {
            return Err(Failure::new("the refusal does not appear among the refused requests").into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
        waited += LOOK_EVERY;
    };
    let detail = kept
        .detail
        .strip_prefix(&kept.reason)
        .unwrap_or(&kept.detail)
        .trim_start_matches([':', ' ']);
    output::line(format!("  reason   {}: {detail}", style.bold(&kept.reason)));
    output::line(format!("  kept     {} for a day, so that somebody can look", kept.id));
    output::line("No event, no run, nothing in the CRM.");
    output::line(format!("  {}   lists what was refused", welcome::command("refused")));
    Ok(ExitCode::SUCCESS)
}
