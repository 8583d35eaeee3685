//! `weir demo ledger`: what the simulated providers really saw, compared with what they were promised.
//!
//! The providers keep their own books. A promise is a webhook that the server acknowledged; it is kept when the last effect
//! of its flow happened: the message about a payment, the finalised invoice of a deal. What Weir still works on, or asks a
//! person about, is told apart from what is lost.

use crate::client::Client;
use crate::commands::runs;
use crate::commands::story::Run;
use crate::data_folder;
use crate::demo::crm;
use crate::demo::folder::DemoFolder;
use crate::demo::simulator::Providers;
use crate::failure::{EXIT_FAILURE, Failure};
use crate::output::{self, Style};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::ExitCode;

/// Deliveries that are looked at; the providers keep no more.
const DELIVERIES_MAX: usize = 50_000;
/// Runs that are looked at for each state.
const RUNS_MAX: u32 = 1_000;

/// The books, added up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Books {
    /// Genuine webhooks that the server acknowledged.
    pub(crate) acknowledged: u64,
    /// Forged ones that it refused.
    pub(crate) forged_refused: u64,
    /// Forged ones that it took; there must be none.
    pub(crate) forged_accepted: u64,
    /// Acknowledged payments whose message was sent.
    pub(crate) payments_told: u64,
    /// Acknowledged deals whose invoice was finalised.
    pub(crate) deals_invoiced: u64,
    /// Acknowledged events whose flow has not come to its end yet, by the server's account.
    pub(crate) under_way: u64,
    /// Runs that failed and want a person: they say why, and can be replayed.
    pub(crate) asking: u64,
    /// Acknowledged events that neither came to their end nor are accounted for.
    pub(crate) lost: u64,
    /// State changes at the providers.
    pub(crate) effects: u64,
    /// Deeds that were done more than once.
    pub(crate) doubled: Vec<String>,
    /// Repeated requests that the providers recognised by their key, and answered without doing anything.
    pub(crate) recognised_repeats: u64,
    /// Whether the server could be asked.
    pub(crate) server_answered: bool,
}

#[derive(Deserialize)]
struct Deliveries {
    summary: DeliverySummary,
    recent: Vec<Delivery>,
}

#[derive(Deserialize)]
struct DeliverySummary {
    acknowledged: u64,
    forged_refused: u64,
    forged_accepted: u64,
}

#[derive(Deserialize)]
struct Delivery {
    id: String,
    kind: String,
    acknowledged: bool,
    forged: Option<Value>,
}

pub(crate) async fn run(folder: &DemoFolder, json: bool) -> anyhow::Result<ExitCode> {
    let books = match Providers::find(folder).await? {
        Some(providers) => add_up(&providers, &crm::client(folder)?).await?,
        None => kept(folder)?,
    };
    if json {
        output::document(serde_json::to_string_pretty(&books)?);
    } else {
        print(&books);
    }
    let well = books.lost == 0 && books.doubled.is_empty() && books.forged_accepted == 0;
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILURE)
    })
}

/// Keeps the state of the books for after the providers have stopped.
pub(crate) async fn keep(folder: &DemoFolder, providers: &Providers, client: &Client) -> anyhow::Result<()> {
    let books = add_up(providers, client).await?;
    data_folder::write_whole(&folder.books(), &serde_json::to_string_pretty(&books)?)
}

fn kept(folder: &DemoFolder) -> anyhow::Result<Books> {
    let path = folder.books();
    let Some(text) = data_folder::read_if_present(&path)? else {
        return Err(Failure::new("there are no books yet")
            .fix("start the demo with `weir demo`")
            .into());
    };
    output::remark("the simulated providers do not run; these are their books as of the last stop");
    serde_json::from_str(&text).with_context(|| format!("could not read {}", path.display()))
}

async fn add_up(providers: &Providers, client: &Client) -> anyhow::Result<Books> {
    // Promises are read before deeds: what is promised meanwhile must not count as lost.
    let deliveries: Deliveries = providers.get(&format!("deliveries?limit={DELIVERIES_MAX}")).await?;
    let open = runs::read(client, &["RUNNING", "WAITING"], runs::Choice::default(), RUNS_MAX).await;
    let failed = runs::read(client, &["FAILED"], runs::Choice::default(), RUNS_MAX).await;
    let messages: Vec<Value> = providers.get("state/slack/messages/").await?;
    let invoices: Vec<Value> = providers.get("state/stripe/invoices/").await?;
    let ledger: Value = providers.get("ledger?limit=1").await?;

    let told: BTreeSet<&str> = messages
        .iter()
        .filter_map(|message| payment_in(message["message"]["text"].as_str()?))
        .collect();
    let invoiced: BTreeSet<&str> = invoices
        .iter()
        .filter(|invoice| invoice["status"] == "open")
        .filter_map(|invoice| invoice["metadata"]["deal_id"].as_str())
        .collect();
    let promised = |kind: &'static str| {
        deliveries
            .recent
            .iter()
            .filter(move |delivery| delivery.acknowledged && delivery.forged.is_none() && delivery.kind == kind)
    };
    let payments_told = promised("stripe.payment_intent.succeeded")
        .filter(|event| told.contains(payment_of(&event.id).as_str()))
        .count() as u64;
    let deals_promised = promised("hubspot.deal.propertyChange").count() as u64;
    let deals_invoiced = (invoiced.len() as u64).min(deals_promised);
    let unfinished = (promised("stripe.payment_intent.succeeded").count() as u64 - payments_told)
        + (deals_promised - deals_invoiced);

    // Runs of events from before these providers were started are none of their business.
    let known: BTreeSet<&str> = deliveries.recent.iter().map(|delivery| delivery.id.as_str()).collect();
    let of_promises = |runs: &[Run]| {
        let events = runs.iter().filter_map(|run| run.event.as_ref());
        // The server's id of a deal's event has more parts than the provider's own.
        events
            .filter(|event| event.external_id.split('.').next().is_some_and(|id| known.contains(id)))
            .count() as u64
    };
    let server_answered = open.is_ok() && failed.is_ok();
    // A server that does not answer goes on where it stopped: until it has had its chance, nothing is lost.
    let under_way = if server_answered {
        open.as_deref().map_or(0, of_promises)
    } else {
        unfinished
    };
    let asking = failed.as_deref().map_or(0, of_promises);
    let summary = &ledger["summary"];
    let routes = summary["routes"]
        .as_object()
        .into_iter()
        .flat_map(|routes| routes.values());
    Ok(Books {
        acknowledged: deliveries.summary.acknowledged,
        forged_refused: deliveries.summary.forged_refused,
        forged_accepted: deliveries.summary.forged_accepted,
        payments_told,
        deals_invoiced,
        under_way,
        asking,
        lost: unfinished.saturating_sub(under_way + asking),
        effects: summary["effects"].as_u64().unwrap_or_default(),
        doubled: summary["doubled"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|doubled| doubled["identity"].as_str().map(str::to_owned))
            .collect(),
        recognised_repeats: routes.filter_map(|route| route["replayed"].as_u64()).sum(),
        server_answered,
    })
}

/// The payment that a message is about: the last word in brackets.
fn payment_in(text: &str) -> Option<&str> {
    let (_, rest) = text.rsplit_once('(')?;
    rest.strip_suffix(')')
}

/// The payment that an event of the simulated Stripe announces: both carry the same number.
fn payment_of(event_id: &str) -> String {
    event_id.replacen("evt_", "pi_", 1)
}

fn print(books: &Books) {
    let style = Style::stdout();
    let say = |label: &str, text: String| output::line(format!("  {label:<34}{text}"));
    let zero = |number: u64| {
        if number == 0 {
            style.green(number)
        } else {
            style.red(number)
        }
    };
    output::line(style.bold("What the simulated providers saw"));
    say("webhooks acknowledged", books.acknowledged.to_string());
    say("payments told to Slack", books.payments_told.to_string());
    say("deals with a finalised invoice", books.deals_invoiced.to_string());
    say(
        "still under way",
        if books.server_answered {
            books.under_way.to_string()
        } else {
            format!("{} (the server does not run)", books.under_way)
        },
    );
    if books.asking > 0 {
        say(
            "failed, for a person to look at",
            format!("{}   (weir runs --status failed)", style.yellow(books.asking)),
        );
    }
    say("lost", zero(books.lost));
    say("changes made at the providers", books.effects.to_string());
    say("done twice", zero(books.doubled.len() as u64));
    say("repeats recognised by their key", books.recognised_repeats.to_string());
    say("forged webhooks refused", books.forged_refused.to_string());
    say("forged webhooks taken", zero(books.forged_accepted));
    for identity in &books.doubled {
        output::line(style.red(format!("  done twice: {identity}")));
    }
}
