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
/// Unfinished runs looked at together; older ones have their turn when these have finished.
const OPEN_MAX: u32 = 500;
/// Waiting runs told per look, so that a CRM that is away does not flood the terminal at once.
const TOLD_PER_LOOK: usize = 5;
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
    /// Starts after everything that had finished when this process began; what was under way is followed.
    pub(crate) async fn start(client: &Client, began: DateTime<Utc>) -> anyhow::Result<Self> {
        let recent = runs::read(client, &[], runs::Choice::default(), PAGE).await?;
        let unfinished = runs::read(client, &["RUNNING", "WAITING"], runs::Choice::default(), OPEN_MAX).await?;
        let newest = recent.first().map(|run| run.id.clone());
        let since = recent
            .into_iter()
            .filter(|run| run.finished_at.is_none_or(|finished| finished >= began));
        let open = since.chain(unfinished).map(|run| run.id).collect();
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
        for listed in runs::read(&self.client, &[], runs::Choice::default(), PAGE)
            .await?
            .into_iter()
            .rev()
        {
            if self.newest.as_ref().is_none_or(|newest| listed.id > *newest) {
                self.newest = Some(listed.id.clone());
                self.open.insert(listed.id);
            }
        }
        if self.open.is_empty() {
            return Ok(());
        }
        // Read after the newest runs: what is followed and not among these has finished.
        let unfinished = runs::read(&self.client, &["RUNNING", "WAITING"], runs::Choice::default(), OPEN_MAX).await?;
        let is_cut = u32::try_from(unfinished.len()).unwrap_or(u32::MAX) >= OPEN_MAX;
        let oldest = unfinished.last().map(|run| run.id.clone()).filter(|_| is_cut);
        let still: BTreeSet<&str> = unfinished.iter().map(|run| run.id.as_str()).collect();
        let listed = |id: &String| oldest.as_ref().is_none_or(|oldest| id >= oldest);
        let finished: Vec<String> = self
            .open
            .iter()
            .filter(|id| !still.contains(id.as_str()) && listed(id))
            .cloned()
            .collect();
        let mut stories = Vec::new();
        for id in finished {
            let run = show::load(&self.client, &id, false).await?;
            // It may have changed between two states while they were asked for one after the other.
            if run.is_finished() {
                stories.push(run);
            }
        }
        stories.sort_by_key(|run| run.finished_at);
        for run in stories {
            self.open.remove(&run.id);
            self.told_waiting.remove(&run.id);
            output::line(self.finished_line(&run));
        }
        let waiting = unfinished.iter().rev().filter(|run| run.status == "WAITING");
        let untold: Vec<&Run> = waiting
            .filter(|run| !self.told_waiting.contains(&run.id))
            .take(TOLD_PER_LOOK)
            .collect();
        for run in untold {
            let story = show::load(&self.client, &run.id, false).await?;
            if self.tell_waiting(&story) {
                self.told_waiting.insert(run.id.clone());
            }
        }
        Ok(())
    }

    /// Tells what a run waits for; false when it does not wait any more.
    fn tell_waiting(&self, run: &Run) -> bool {
        let Some((step, attempt)) = run.waiting() else {
            return false;
        };
        let Some(next) = attempt.next_at else { return false };
        output::line(format!(
            "{}  {}  {:<15}  {}  {}: {}; try {} at {}",
            self.style.dim(story::clock(attempt.at)),
            self.style.yellow("waits    "),
            run.workflow_name(),
            run.id,
            step.label,
            attempt.error.as_deref().unwrap_or("no answer"),
            attempt.number + 1,
            story::clock(next),
        ));
        true
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
