//! Shows runs as they finish, by asking the running server like any other client would.
//!
//! Five times a second the newest runs are read; each that is not finished is remembered and asked for again, so nothing is
//! missed however many runs come and whatever waits.

use crate::client::Client;
use crate::commands::runs;
use crate::commands::show;
use crate::commands::story::{self, Run, Step};
use crate::demo::welcome;
use crate::output::{self, Style};
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often the server is asked.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Runs read at a time; more than start between two looks at the highest rate shown in full.
const PAGE: u32 = 100;
/// Unfinished runs that are asked for one by one at each look; the rest has its turn at later looks.
const ASKED_PER_LOOK: usize = 50;
/// Failed looks in a row before the demo gives up.
const FAILURES_MAX: u32 = 25;

/// Follows the runs of one server.
pub(crate) struct Follower {
    client: Client,
    style: Style,
    /// Newest run seen. Ids are in the order of time, as text too.
    newest: Option<String>,
    /// Runs that were not finished when last seen.
    open: BTreeSet<String>,
    /// Runs whose waiting has been told.
    told_waiting: BTreeSet<String>,
    /// When this process began: what started before was under way in another one.
    began: DateTime<Utc>,
}

impl Follower {
    /// Starts after everything that is finished by now; what is under way is followed.
    pub(crate) async fn start(client: &Client, began: DateTime<Utc>) -> anyhow::Result<Self> {
        let newest = runs::read(client, &[], None, 1).await?.pop().map(|run| run.id);
        let open: BTreeSet<String> = runs::read(client, &["RUNNING", "WAITING"], None, PAGE)
            .await?
            .into_iter()
            .map(|run| run.id)
            .collect();
        Ok(Follower {
            client: client.clone(),
            style: Style::stdout(),
            newest,
            open,
            told_waiting: BTreeSet::new(),
            began,
        })
    }

    /// Shows runs until the server does not answer any more.
    pub(crate) async fn follow(&mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            match self.look().await {
                Ok(()) => failures = 0,
                Err(error) if failures >= FAILURES_MAX => return Err(error),
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, "the demo could not ask its server");
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Goes on until every run is finished or `limit` is over; answers how many are not.
    pub(crate) async fn finish(&mut self, limit: Duration) -> anyhow::Result<usize> {
        let until_done = async {
            loop {
                self.look().await?;
                if self.open.is_empty() {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(limit, until_done).await {
            Ok(done) => done?,
            Err(_over) => {}
        }
        Ok(self.open.len())
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let mut asked = 0;
        for id in self.open.clone() {
            if asked == ASKED_PER_LOOK {
                break;
            }
            asked += 1;
            let run = show::load(&self.client, &id, false).await?;
            self.meet(&run);
        }
        let newest = runs::read(&self.client, &[], None, PAGE).await?;
        for listed in newest.iter().rev() {
            if self.newest.as_ref().is_some_and(|newest| listed.id <= *newest) {
                continue;
            }
            self.newest = Some(listed.id.clone());
            let run = show::load(&self.client, &listed.id, false).await?;
            self.meet(&run);
        }
        Ok(())
    }

    /// Tells what is new about a run.
    fn meet(&mut self, run: &Run) {
        if run.is_finished() {
            self.open.remove(&run.id);
            self.told_waiting.remove(&run.id);
            output::line(self.finished_line(run));
            return;
        }
        self.open.insert(run.id.clone());
        if let Some((step, attempt)) = run.waiting()
            && let Some(next) = attempt.next_at
            && self.told_waiting.insert(run.id.clone())
        {
            let error = attempt.error.as_deref().unwrap_or("no answer");
            output::line(format!(
                "{}  {}  {:<15}  {}  {}: {error}; try {} at {}",
                self.style.dim(story::clock(attempt.at)),
                self.style.yellow("waits    "),
                run.workflow_name(),
                run.id,
                step.label,
                attempt.number + 1,
                story::clock(next),
            ));
        }
    }

    fn finished_line(&self, run: &Run) -> String {
        let finished = run.finished_at.unwrap_or(run.started_at);
        let state = match run.status.as_str() {
            "SUCCEEDED" => self.style.green("succeeded"),
            other => self.style.red(format!("{:<9}", other.to_lowercase())),
        };
        let event = run.event.as_ref().map_or("", |event| event.external_id.as_str());
        let took = story::length_ms((finished - run.started_at).num_milliseconds());
        let again = if run.started_at < self.began {
            "  taken up again"
        } else {
            ""
        };
        let error = run
            .error
            .as_ref()
            .map(|error| format!("  {}", self.style.red(&error.code)))
            .unwrap_or_default();
        format!(
            "{}  {state}  {:<15}  {event}  {}{error}  {took}{}  {}",
            self.style.dim(story::clock(finished)),
            run.workflow_name(),
            what_happened(run),
            self.style.yellow(again),
            self.style.cyan(welcome::command(&format!("run show {}", run.id))),
        )
    }
}

/// The reads by name, then each effect with the status that the provider answered.
fn what_happened(run: &Run) -> String {
    let reads: Vec<&str> = run
        .steps
        .iter()
        .filter(|step| step.kind.as_deref() == Some("READ") && step.status.as_deref() == Some("SUCCEEDED"))
        .map(|step| step.path.rsplit('.').next().unwrap_or(&step.path))
        .collect();
    let mut connectors: Vec<(&str, Vec<String>)> = Vec::new();
    for (connector, call) in run.steps.iter().filter_map(call) {
        match connectors.last_mut() {
            Some((last, calls)) if *last == connector => calls.push(call),
            Some(_) | None => connectors.push((connector, vec![call])),
        }
    }
    let calls: Vec<String> = connectors
        .into_iter()
        .map(|(connector, calls)| format!("{connector}: {}", counted(calls).join(", ")))
        .collect();
    format!(
        "read {} → {}",
        if reads.is_empty() {
            "nothing".to_owned()
        } else {
            reads.join(", ")
        },
        calls.join("; ")
    )
}

/// Connector, and operation with the status it was answered, of a step that changed something outside.
fn call(step: &Step) -> Option<(&str, String)> {
    step.effect.as_ref()?;
    let exchange = step.attempts.last().and_then(|attempt| attempt.exchanges.last());
    let status = exchange
        .and_then(|exchange| exchange.status)
        .map_or_else(|| "?".to_owned(), |status| status.to_string());
    let (connector, operation) = step.label.split_once('.').unwrap_or((&step.label, ""));
    Some((connector, format!("{operation} {status}")))
}

/// Says the same call in a row once, with its number.
fn counted(calls: Vec<String>) -> Vec<String> {
    let mut counted: Vec<(String, usize)> = Vec::new();
    for call in calls {
        match counted.last_mut() {
            Some((last, count)) if *last == call => *count += 1,
            Some(_) | None => counted.push((call, 1)),
        }
    }
    counted
        .into_iter()
        .map(|(call, count)| if count == 1 { call } else { format!("{count} × {call}") })
        .collect()
}
