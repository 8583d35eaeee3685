//! Retention: what has had its time is deleted, in small slices between other writes.
//!
//! An event goes with its runs, their journals and large values, all at once; how long it is kept counts from the end of
//! its last run. An event with an open run stays for ever. `fate` decides; the writer checks again in the transaction.
//! What recognises repeated events is kept apart and longer than any provider sends again ([`DEDUPE_DAYS`]), so nothing
//! that is deleted here comes back as new.

use crate::service::Core;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use weir_storage::{Fact, FactOutcome, History, Prune, ReadError, Removed, RunStatus};
use weir_workflow_engine::{EventId, Timestamp};

pub use weir_storage::DEDUPE_DAYS;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Time between two rounds.
const EVERY: Duration = Duration::from_secs(60);
/// How much later the next round is when there was nothing to delete: an idle server asks little of its database.
const IDLE_TIMES: u32 = 15;
/// Minutes after which the oldest events are looked at again: runs that were open, and failures, stay behind.
const SWEEP_EVERY: u32 = 60;
/// Events looked at per statement.
const PAGE: u32 = 500;
/// Events that one slice drops: two or three milliseconds of the writer.
const SLICE_EVENTS: usize = 100;
/// Shortest and longest pause between two slices. In between, as long as the slice took with its time in the queue:
/// retention takes half of a writer without other work, and less the more others queue.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));
/// How long the hourly counts of refusals are kept.
const REFUSED_COUNTS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long the hours of the coverage ledger are kept.
const COVERAGE_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long before the end of its time a run can no longer be replayed. Clocks of nodes differ by less.
const LEAVING: Duration = Duration::from_secs(10 * 60);

/// How long things are kept; `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events, runs, journals and bodies, after the last run of the event has ended. Default 30 days.
    pub runs: Option<Duration>,
    /// The same for events with a failed run: somebody may still want to replay it. Default 90 days.
    pub failed: Option<Duration>,
    /// Refused requests (at most 10,000 and 32 MiB in any case). Default one day: for the person who asks why.
    pub refused: Option<Duration>,
    /// The audit trail. Default two years.
    pub audit: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            runs: Some(30 * DAY),
            failed: Some(90 * DAY),
            refused: Some(DAY),
            audit: Some(730 * DAY),
        }
    }
}

/// How the metrics call what is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Runs,
    Failed,
    Refused,
    Dedupe,
    Audit,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Runs => "runs",
            Class::Failed => "failed",
            Class::Refused => "refused",
            Class::Dedupe => "dedupe",
            Class::Audit => "audit",
        }
    }
}

/// Whether an event, received at a time and with runs that stand like this, has had its time: then the class it goes
/// with.
fn fate(
    keep: &Retention,
    received_at: Timestamp,
    runs: &[(RunStatus, Option<Timestamp>)],
    now: Timestamp,
) -> Option<Class> {
    let mut last = received_at;
    let mut class = Class::Runs;
    for (status, finished_at) in runs {
        match status {
            RunStatus::Queued | RunStatus::Paused | RunStatus::Running | RunStatus::Waiting => return None,
            RunStatus::Failed => class = Class::Failed,
            RunStatus::Succeeded | RunStatus::Canceled | RunStatus::Merged => {}
        }
        last = last.max(finished_at.unwrap_or(received_at));
    }
    let kept = match class {
        Class::Failed => keep.failed?,
        Class::Runs | Class::Refused | Class::Dedupe | Class::Audit => keep.runs?,
    };
    (last.plus(kept) < now).then_some(class)
}

/// Whether the history is gone within minutes, so that nothing may begin that needs it.
pub(crate) fn is_leaving(
    keep: &Retention,
    received_at: Timestamp,
    runs: &[(RunStatus, Option<Timestamp>)],
    now: Timestamp,
) -> bool {
    fate(keep, received_at, runs, now.plus(LEAVING)).is_some()
}

fn before(now: Timestamp, kept: Duration) -> Timestamp {
    let kept_ms = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_ms(now.as_unix_ms().saturating_sub(kept_ms))
}

/// Why a round ends before its end.
enum Interrupted {
    /// The process stops.
    Stopping,
    /// The database cannot be read or written now; the next round goes on.
    Database(String),
}

impl From<ReadError> for Interrupted {
    fn from(error: ReadError) -> Self {
        Interrupted::Database(error.to_string())
    }
}

/// Deletes until the process stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut rounds = tokio::time::interval(EVERY);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut after = None;
    // Minutes until the next round, and since the oldest events were looked at.
    let (mut left, mut swept) = (0, 0);
    loop {
        tokio::select! {
            _ = rounds.tick() => {}
            () = core.stopping.cancelled() => return,
        }
        swept += 1;
        if left > 0 {
            left -= 1;
        } else {
            if swept >= SWEEP_EVERY {
                (after, swept) = (None, 0);
            }
            match round(&core, &mut after).await {
                Ok(0) => left = IDLE_TIMES - 1,
                Ok(_) => {}
                Err(Interrupted::Stopping) => return,
                Err(Interrupted::Database(reason)) => tracing::debug!("retention waits: {reason}"),
            }
        }
        if let Ok(oldest) = core.store.oldest_event().await {
            let age = oldest.map_or(0.0, |at| core.clock.now().since(at).as_secs_f64());
            metrics::gauge!("weir_oldest_event_seconds").set(age);
        }
    }
}

/// Deletes all that has had its time; how many rows these were.
async fn round(core: &Core, after: &mut Option<EventId>) -> Result<u64, Interrupted> {
    let keep = core.settings.retention;
    let now = core.clock.now();
    let mut rows = all(core, Class::Runs, &Prune::Leftovers).await?;
    rows += histories(core, &keep, after).await?;
    if let Some(refused) = keep.refused {
        let what = Prune::Refused {
            before: before(now, refused),
        };
        rows += all(core, Class::Refused, &what).await?;
    }
    let counts = Prune::RefusedCounts {
        before: before(now, REFUSED_COUNTS_KEPT),
    };
    rows += all(core, Class::Refused, &counts).await?;
    let coverage = Prune::Coverage {
        before: before(now, COVERAGE_KEPT),
    };
    rows += all(core, Class::Runs, &coverage).await?;
    rows += all(core, Class::Dedupe, &Prune::Dedupe { now }).await?;
    // A few small rows of throttles; they go with what is remembered for as short a time.
    rows += all(core, Class::Dedupe, &Prune::Gates { now }).await?;
    if let (Some(runs), Some(failed)) = (keep.runs, keep.failed) {
        let what = Prune::Outgoing {
            before: before(now, runs.max(failed)),
        };
        rows += all(core, Class::Runs, &what).await?;
    }
    if let Some(audit) = keep.audit {
        let what = Prune::Audit {
            before: before(now, audit),
        };
        rows += all(core, Class::Audit, &what).await?;
    }
    Ok(rows)
}

/// Drops the events that have had their time, from where the last round ended.
async fn histories(core: &Core, keep: &Retention, after: &mut Option<EventId>) -> Result<u64, Interrupted> {
    let Some(shortest) = keep.runs.into_iter().chain(keep.failed).min() else {
        return Ok(0);
    };
    let mut rows = 0;
    loop {
        let now = core.clock.now();
        let page = core.store.old_events(*after, before(now, shortest), PAGE).await?;
        let Some(last) = page.last() else { return Ok(rows) };
        let last = last.history.event;
        let mut due: [(Class, Vec<History>); 2] = [(Class::Runs, Vec::new()), (Class::Failed, Vec::new())];
        for old in page {
            let class = fate(keep, old.received_at, &old.runs, now);
            if let Some((_, histories)) = due.iter_mut().find(|(one, _)| Some(*one) == class) {
                histories.push(old.history);
            }
        }
        for (class, histories) in due {
            for slice in histories.chunks(SLICE_EVENTS) {
                rows += delete(core, class, Prune::History(slice.to_vec())).await?.rows;
            }
            if !histories.is_empty() {
                rows += all(core, class, &Prune::Leftovers).await?;
            }
        }
        *after = Some(last);
    }
}

/// Slice after slice, until nothing is left; how many rows these were.
async fn all(core: &Core, class: Class, what: &Prune) -> Result<u64, Interrupted> {
    let mut rows = 0;
    loop {
        match delete(core, class, what.clone()).await?.rows {
            0 => return Ok(rows),
            more => rows += more,
        }
    }
}

async fn delete(core: &Core, class: Class, slice: Prune) -> Result<Removed, Interrupted> {
    let began = Instant::now();
    let failed = |reason: String| Interrupted::Database(reason);
    let pending = core.writer.submit(Fact::Prune(slice));
    let pending = pending.map_err(|full| failed(full.to_string()))?;
    let removed = match pending.await {
        Ok(FactOutcome::Pruned(removed)) => removed,
        Ok(other) => return Err(failed(format!("the writer answered with {other:?}"))),
        Err(error) => return Err(failed(error.to_string())),
    };
    if removed.rows > 0 {
        metrics::counter!("weir_retention_rows_total", "class" => class.name()).increment(removed.rows);
        metrics::counter!("weir_retention_bytes_total", "class" => class.name()).increment(removed.bytes);
        let (shortest, longest) = PAUSE;
        tokio::select! {
            () = tokio::time::sleep(began.elapsed().clamp(shortest, longest)) => {}
            () = core.stopping.cancelled() => return Err(Interrupted::Stopping),
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn at(days: i64) -> Timestamp {
        Timestamp::from_unix_ms(days * 24 * HOUR_MS)
    }

    #[test]
    fn the_last_run_decides() {
        let check = |runs: &[(RunStatus, i64)], now: i64, expected: Option<Class>| {
            let runs: Vec<_> = runs.iter().map(|(status, day)| (*status, Some(at(*day)))).collect();
            let now = at(now).plus(Duration::from_millis(1));
            assert_eq!(
                fate(&Retention::default(), at(0), &runs, now),
                expected,
                "{runs:?} {now:?}"
            );
        };
        check(&[], 30, Some(Class::Runs));
        check(&[], 29, None);
        check(&[(RunStatus::Succeeded, 5)], 34, None);
        check(&[(RunStatus::Succeeded, 5)], 35, Some(Class::Runs));
        check(&[(RunStatus::Succeeded, 5), (RunStatus::Canceled, 9)], 38, None);
        check(
            &[(RunStatus::Succeeded, 5), (RunStatus::Canceled, 9)],
            39,
            Some(Class::Runs),
        );
        // One failure keeps the whole event; a replay keeps it again.
        check(&[(RunStatus::Succeeded, 5), (RunStatus::Failed, 1)], 94, None);
        check(
            &[(RunStatus::Succeeded, 5), (RunStatus::Failed, 1)],
            95,
            Some(Class::Failed),
        );
        for open in [RunStatus::Paused, RunStatus::Running, RunStatus::Waiting] {
            check(&[(RunStatus::Succeeded, 5), (open, 0)], 10_000, None);
        }
    }

    #[test]
    fn what_is_kept_for_ever_stays() {
        let keep = Retention {
            runs: None,
            ..Retention::default()
        };
        assert_eq!(
            fate(&keep, at(0), &[(RunStatus::Succeeded, Some(at(0)))], at(10_000)),
            None
        );
        let failed = [(RunStatus::Failed, Some(at(0)))];
        assert_eq!(fate(&keep, at(0), &failed, at(91)), Some(Class::Failed));
    }

    #[test]
    fn nothing_begins_on_what_is_leaving() {
        let runs = [(RunStatus::Succeeded, Some(at(0)))];
        let keep = Retention::default();
        let end = at(30);
        let shortly = Timestamp::from_unix_ms(end.as_unix_ms() - 9 * 60_000);
        assert!(is_leaving(&keep, at(0), &runs, shortly) && fate(&keep, at(0), &runs, shortly).is_none());
        assert!(!is_leaving(
            &keep,
            at(0),
            &runs,
            Timestamp::from_unix_ms(end.as_unix_ms() - 11 * 60_000)
        ));
    }
}
