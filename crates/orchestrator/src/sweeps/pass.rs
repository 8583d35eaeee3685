//! One sweep of one endpoint: claim it, read page after page, put the events through the door, move the cursor.
//!
//! The cursor moves in a fact of its own, after all events of the page are committed: a crash anywhere reads a page
//! again, and the dedupe knows its events.

use super::door::{ListDoor, Stop};
use super::place::{Kept, Next, Place, REMEMBERED, Seen, SeenItem, earlier, floor};
use super::plan::{Due, SweepCause, SweepOutcome, failures_after};
use crate::budget::Class;
use crate::connection::Connection;
use crate::perform::ListPage;
use crate::service::Core;
use crate::snapshot::Endpoint;
use std::sync::Arc;
use std::time::Duration;
use weir_connector_sdk::{Recover, Webhook};
use weir_storage::{Fact, SweepBegin, SweepChange, SweepEnd, SweepMove, SweepRow, WriteError};
use weir_workflow_engine::{CallFailure, EventSource, Timestamp};

/// Pages that one pass reads. A list that is longer is gone on with by the next pass, after other endpoints.
///
/// Limit: pages of one pass of a sweep | the pass ends as `partial` and goes on a second later | `a_long_list_is_read_in_several_passes` | `weir_sweeps_total`
pub const MAX_PAGES_PER_PASS: u32 = 100;
/// How long one page may take.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Events that are handed to the writer together.
const CHUNK: usize = 128;
/// The first sweep of an endpoint looks back to when it was made, but not further than this.
const FIRST_LOOK_BACK: Duration = Duration::from_secs(24 * 3600);

/// What became of a pass.
pub(super) enum Passed {
    /// It came to an end.
    Ended(Timestamp, SweepOutcome),
    /// Another node sweeps the endpoint, or has swept it since.
    Overtaken(Option<SweepRow>),
    /// It could not begin or could not note its end; the claim stays with this node.
    Postponed,
}

struct Pass<'a> {
    core: &'a Arc<Core>,
    endpoint: Arc<Endpoint>,
    connection: Arc<Connection>,
    /// Of older items nobody remembers whether they were received.
    remembered_from: Timestamp,
    /// Younger items are left to their webhooks, which may be on their way, and to the next sweep.
    leaves_after: Option<Timestamp>,
    /// Older items of a poll are no news.
    wanted_from: Option<Timestamp>,
    door: ListDoor<'a>,
    strange: u64,
}

/// Sweeps an endpoint.
pub(super) async fn sweep(core: &Arc<Core>, endpoint: &Arc<Endpoint>, due: &Due) -> Passed {
    let began_at = core.clock.now();
    let begin = SweepChange::Begin(SweepBegin {
        endpoint: endpoint.id(),
        workspace: endpoint.workspace(),
        after: due.after,
        cause: due.cause.as_str().to_owned(),
        at: began_at,
        covered_until: endpoint
            .polls_from()
            .unwrap_or_else(|| endpoint.created_at().max(earlier(began_at, FIRST_LOOK_BACK))),
    });
    let row = || core.store.sweep_load(endpoint.workspace(), endpoint.id());
    match write(core, begin).await {
        Ok(()) => {}
        Err(WriteError::Stale) => return row().await.map_or(Passed::Postponed, Passed::Overtaken),
        Err(_) => return Passed::Postponed,
    }
    let Ok(Some(row)) = row().await else {
        return Passed::Postponed;
    };
    let leaves = endpoint.receives() && due.cause == SweepCause::Schedule;
    let (outcome, error) = match run(core, endpoint, &row, (began_at, leaves)).await {
        Ok(strange) => (SweepOutcome::Complete, remark(strange)),
        Err(Stop::Failed(error)) => (SweepOutcome::Failed, Some(error)),
        Err(Stop::Partial(why)) => (SweepOutcome::Partial, Some(why)),
        Err(Stop::Overtaken) => {
            let row = core.store.sweep_load(endpoint.workspace(), endpoint.id()).await;
            return row.map_or(Passed::Postponed, Passed::Overtaken);
        }
        Err(Stop::Interrupted) => return Passed::Postponed,
    };
    match (&error, outcome) {
        (Some(error), SweepOutcome::Failed) => {
            tracing::warn!(endpoint.name = %endpoint.name(), cause = due.cause.as_str(), "endpoint `{}` cannot be swept: {error}", endpoint.name());
        }
        (error, _) => {
            tracing::debug!(endpoint.name = %endpoint.name(), cause = due.cause.as_str(), outcome = outcome.as_str(), ?error, "swept");
        }
    }
    metrics::counter!("weir_sweeps_total", "cause" => due.cause.as_str(), "outcome" => outcome.as_str()).increment(1);
    let end = SweepChange::End(SweepEnd {
        endpoint: endpoint.id(),
        at: core.clock.now(),
        outcome: outcome.as_str().to_owned(),
        error,
        failures: failures_after(due.failures, outcome),
    });
    match write(core, end).await {
        Ok(()) => Passed::Ended(began_at, outcome),
        Err(_) => Passed::Postponed,
    }
}

pub(super) fn remark(strange: u64) -> Option<String> {
    (strange > 0).then(|| {
        format!("{strange} item(s) of the list are not what the connector describes and were passed over; see `recover.identify`")
    })
}

async fn run(
    core: &Arc<Core>,
    endpoint: &Arc<Endpoint>,
    row: &SweepRow,
    (began_at, leaves): (Timestamp, bool),
) -> Result<u64, Stop> {
    let gone = |what: &str| Stop::Failed(format!("{what} is not there any more; apply the configuration anew"));
    let webhook = endpoint
        .way_in()
        .ok_or_else(|| gone("the webhook part of the connector"))?;
    let recover = webhook.recover().ok_or_else(|| gone("`recover` of the connector"))?;
    let snapshot = core.snapshot.load_full();
    let connection = endpoint
        .connection()
        .and_then(|(_, name)| snapshot.connection(endpoint.workspace(), name))
        .ok_or_else(|| gone("the connection of the endpoint"))?;
    let kept: Kept = match row.cursor.as_deref().map(serde_json::from_str) {
        None => Kept::default(),
        Some(Ok(kept)) => kept,
        // A later release wrote it. The list is read from the last covered moment on.
        Some(Err(_)) => Kept::default(),
    };
    let covered_until = row.covered_until.unwrap_or(began_at);
    let floor = floor(recover.reach_s, began_at);
    let mut pass = Pass {
        core,
        endpoint: Arc::clone(endpoint),
        connection: Arc::clone(connection),
        remembered_from: earlier(began_at, REMEMBERED),
        leaves_after: leaves.then(|| earlier(began_at, Duration::from_secs(recover.settle_s))),
        wanted_from: endpoint.polls_from(),
        door: ListDoor::new(
            core,
            endpoint,
            match endpoint.poll() {
                Some(_) => EventSource::Poll,
                None => EventSource::Sweep,
            },
        ),
        strange: 0,
    };
    let mut place = Place::new(kept, covered_until, floor, began_at);
    if covered_until < floor {
        tracing::error!(endpoint.name = %endpoint.name(), "endpoint `{}` was not swept since {covered_until}, and nothing before {floor} can be recovered: the provider does not list it, or what was received then is not remembered; events in between may be lost", endpoint.name());
        pass.note(&place, None, Some((covered_until, floor)), 0).await?;
    }
    let mut has_forgotten = false;
    for _ in 0..MAX_PAGES_PER_PASS {
        if core.stopping.is_cancelled() {
            return Err(Stop::Interrupted);
        }
        let page = match pass.ask(recover, &mut place).await {
            Ok(page) => page,
            Err(failure)
                if failure
                    .http_status
                    .is_some_and(|status| recover.expired.contains(&status))
                    && place.is_continued()
                    && !has_forgotten =>
            {
                tracing::warn!(endpoint.name = %endpoint.name(), "the provider no longer knows where the sweep of `{}` stood; its list is read from the last covered time on", endpoint.name());
                has_forgotten = true;
                place.forget();
                continue;
            }
            Err(failure) => return Err(Stop::Failed(format!("{}: {}", failure.code, failure.message))),
        };
        metrics::counter!("weir_sweep_pages_total").increment(1);
        let seen = pass.take(webhook, recover, page).await?;
        match place.advance(recover, &seen) {
            Next::More => pass.note(&place, None, None, 1).await?,
            Next::End { covered_until } => {
                pass.note(&place, Some(covered_until), None, 1).await?;
                #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double")]
                let covered_s = covered_until.as_unix_ms() as f64 / 1_000.0;
                metrics::gauge!("weir_sweep_covered_until_seconds", "endpoint" => endpoint.name().to_owned())
                    .set(covered_s);
                return Ok(pass.strange + pass.door.refused);
            }
            Next::Broken(why) => {
                pass.note(&place, None, None, 1).await?;
                return Err(Stop::Failed(format!("paging_broken: {why}")));
            }
        }
    }
    Err(Stop::Partial(format!(
        "the list has more than {MAX_PAGES_PER_PASS} pages; it is gone on with"
    )))
}

impl Pass<'_> {
    async fn ask(&self, recover: &Recover, place: &mut Place) -> Result<ListPage, CallFailure> {
        let question = place.question(recover);
        let args = recover.args(question.since.as_unix_ms(), None, question.cursor.as_deref());
        let performer = &self.core.performer;
        let call = recover.call.as_deref().unwrap_or_default();
        performer
            .list_page(
                &self.connection,
                call,
                args,
                question.page.as_ref(),
                (Class::Sweep, PAGE_TIMEOUT),
            )
            .await
    }

    /// Stores the events of a page, and says what was on it.
    async fn take(&mut self, webhook: &Webhook, recover: &Recover, page: ListPage) -> Result<Seen, Stop> {
        let mut seen = Seen {
            count: page.items.len(),
            next: page.next,
            token: recover.next_cursor(&page.body),
            more: recover.says_more(&page.body),
            items: Vec::with_capacity(page.items.len()),
        };
        let mut found = Vec::with_capacity(page.items.len());
        for item in page.items {
            match webhook.identify_unit(&item) {
                Ok(unit) => {
                    seen.items.push(SeenItem {
                        id: unit.id.clone(),
                        time: unit.time_unix_ms.map(Timestamp::from_unix_ms),
                        position: recover.position(&item),
                    });
                    let time = unit.time_unix_ms.map(Timestamp::from_unix_ms);
                    let is_left = self
                        .leaves_after
                        .is_some_and(|after| time.is_some_and(|time| time > after));
                    // Whether it was received already cannot be known any more.
                    let is_forgotten = time.is_some_and(|time| time < self.remembered_from);
                    let is_no_news = match (self.wanted_from, time) {
                        (Some(from), Some(time)) => time < from,
                        (Some(_), None) => {
                            self.strange += 1;
                            true
                        }
                        (None, _) => false,
                    };
                    if !unit.ignored && !is_left && !is_forgotten && !is_no_news {
                        found.push((unit, item));
                    }
                }
                Err(error) => {
                    self.strange += 1;
                    tracing::warn!(endpoint.name = %self.endpoint.name(), "an item of the list of `{}` is not what the connector describes: {error}", self.endpoint.name());
                }
            }
        }
        // Oldest first, so that lanes see events in their order.
        found.sort_by_key(|(unit, _)| unit.time_unix_ms);
        for chunk in found.chunks(CHUNK) {
            self.door.store(webhook, chunk.iter().collect()).await?;
        }
        Ok(seen)
    }

    /// Stores how far the list was read.
    async fn note(
        &mut self,
        place: &Place,
        covered_until: Option<Timestamp>,
        lost: Option<(Timestamp, Timestamp)>,
        pages: u32,
    ) -> Result<(), Stop> {
        let cursor = serde_json::to_string(place.kept())
            .map_err(|error| Stop::Failed(format!("the cursor cannot be stored: {error}")))?;
        let step = SweepChange::Move(SweepMove {
            endpoint: self.endpoint.id(),
            cursor: Some(cursor),
            covered_until,
            lost,
            pages,
            recovered: std::mem::take(&mut self.door.recovered),
            duplicates: std::mem::take(&mut self.door.duplicates),
        });
        match write(self.core, step).await {
            Ok(()) => Ok(()),
            Err(WriteError::Stale) => Err(Stop::Overtaken),
            Err(WriteError::Fenced) => {
                self.core.lose_place();
                Err(Stop::Interrupted)
            }
            Err(error) => Err(Stop::Failed(format!("database: {error}"))),
        }
    }
}

async fn write(core: &Core, change: SweepChange) -> Result<(), WriteError> {
    match core.writer.submit(Fact::Sweep(change)) {
        Ok(pending) => pending.await.map(drop),
        Err(_full) => Err(WriteError::Unavailable),
    }
}
