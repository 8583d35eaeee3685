//! The coverage ledger: what arrived, what was recovered, and how far the provider's list was read.

use super::super::scalars::{DateTime, Long};
use async_graphql::{Enum, SimpleObject};
use weir_connector_sdk::Level;
use weir_orchestrator::snapshot::Endpoint;
use weir_storage::{CoverageRow, SweepRow};

/// How far a connector can recover events that were never delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum RecoveryLevel {
    /// The provider keeps a log of events: every one within its reach is found.
    A,
    /// Objects are listed by when they changed: the last state is found; states in between and deletes are not.
    B,
    /// The provider lists nothing: what it does not deliver is not found.
    C,
}

/// What arrived at an endpoint, and how sure it is that nothing is missing.
#[derive(Debug, SimpleObject)]
pub(crate) struct Coverage {
    /// How far the connector can recover events.
    level: RecoveryLevel,
    /// What that means, in words.
    promise: String,
    /// Seconds between two sweeps. Null: it is not swept by itself.
    sweep_every_s: Option<Long>,
    /// Up to here, everything that the provider lists is stored. Null: it was never swept.
    covered_until: Option<DateTime>,
    /// The oldest span that the provider no longer listed when it could be asked: events in it may be lost. Null: none.
    oldest_gap: Option<CoverageGap>,
    /// New events that came by webhook, or by a poll, in the hours asked for.
    received: Long,
    /// New events that sweeps found, in the hours asked for.
    recovered: Long,
    /// New events that backfills found, in the hours asked for.
    backfilled: Long,
    /// Events that were here already, by either way, in the hours asked for.
    duplicates: Long,
    /// The same by hour, the newest first; hours in which nothing came are left out.
    hours: Vec<CoverageHour>,
    /// The sweep that began last. Null: there was none.
    last_sweep: Option<Sweep>,
}

/// A span of time that no sweep could see.
#[derive(Debug, SimpleObject)]
pub(crate) struct CoverageGap {
    /// Its beginning.
    from: DateTime,
    /// Its end.
    until: DateTime,
}

/// One hour of an endpoint.
#[derive(Debug, SimpleObject)]
pub(crate) struct CoverageHour {
    /// Its beginning.
    hour: DateTime,
    /// New events that came by webhook, or by a poll.
    received: Long,
    /// New events that sweeps found.
    recovered: Long,
    /// New events that backfills found.
    backfilled: Long,
    /// Events that were here already.
    duplicates: Long,
}

/// One pass over the provider's list.
#[derive(Debug, SimpleObject)]
pub(crate) struct Sweep {
    /// Why: `start`, `downtime`, `schedule`, `refusals`, `silence`, `sequence`, `failed_delivery`, `registration` or `demand`.
    cause: String,
    /// When it began.
    started_at: DateTime,
    /// When it ended. Null: it runs, or its server went away.
    finished_at: Option<DateTime>,
    /// How: `complete`, `partial` (it goes on by itself) or `failed`. Null: it has not ended.
    outcome: Option<String>,
    /// What went wrong, or what is worth knowing.
    error: Option<String>,
    /// Pages it read.
    pages: u32,
    /// Events it found that had never arrived.
    recovered: Long,
    /// Events it found that were here already.
    duplicates: Long,
    /// Failed sweeps in a row.
    failures: u32,
}

impl Coverage {
    pub(super) fn of(endpoint: &Endpoint, row: Option<SweepRow>, hours: &[CoverageRow]) -> Self {
        let recover = endpoint.way_in().and_then(|webhook| webhook.recover());
        let level = recover.map_or(Level::PushOnly, |recover| recover.level);
        let sum = |part: fn(&CoverageRow) -> u64| Long(hours.iter().map(part).sum());
        let gap = row.as_ref().and_then(|row| row.lost);
        Coverage {
            level: match level {
                Level::EventLog => RecoveryLevel::A,
                Level::UpdatedSince => RecoveryLevel::B,
                Level::PushOnly => RecoveryLevel::C,
            },
            promise: level.promise().to_owned(),
            sweep_every_s: endpoint.swept_every().map(|every| Long(every.as_secs())),
            covered_until: row.as_ref().and_then(|row| row.covered_until).map(DateTime),
            oldest_gap: gap.map(|(from, until)| CoverageGap {
                from: DateTime(from),
                until: DateTime(until),
            }),
            received: sum(|hour| hour.received),
            recovered: sum(|hour| hour.recovered),
            backfilled: sum(|hour| hour.backfilled),
            duplicates: sum(|hour| hour.duplicates),
            hours: hours.iter().map(CoverageHour::of).collect(),
            last_sweep: row.map(Sweep::of),
        }
    }
}

impl CoverageHour {
    fn of(row: &CoverageRow) -> Self {
        CoverageHour {
            hour: DateTime(row.hour),
            received: Long(row.received),
            recovered: Long(row.recovered),
            backfilled: Long(row.backfilled),
            duplicates: Long(row.duplicates),
        }
    }
}

impl Sweep {
    fn of(row: SweepRow) -> Self {
        Sweep {
            cause: row.cause,
            started_at: DateTime(row.started_at),
            finished_at: row.finished_at.map(DateTime),
            outcome: row.outcome,
            error: row.error,
            pages: row.pages,
            recovered: Long(row.recovered),
            duplicates: Long(row.duplicates),
            failures: row.failures,
        }
    }
}
