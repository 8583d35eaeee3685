//! The times of a workflow that the clock starts.

use super::super::scalars::Json;
use async_graphql::{Enum, SimpleObject};

/// When a workflow is started by the clock.
#[derive(Debug, SimpleObject)]
pub(crate) struct Schedule {
    /// Cron lines as written. Empty: it fires every `everySeconds`.
    cron: Vec<String>,
    /// The time zone of the cron lines, an IANA name.
    timezone: Option<String>,
    /// The span between two times, counted from 1970-01-01T00:00Z.
    every_seconds: Option<u32>,
    /// What becomes of times that passed while nobody could fire them.
    catch_up: CatchUp,
    /// How many missed times are made up for at most. Null: `catchUp` is not `ALL`.
    max_catch_up: Option<u32>,
    /// What each run is given as `event.data.input`.
    input: Json,
}

/// What becomes of times that passed while nobody could fire them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum CatchUp {
    /// They are dropped.
    Skip,
    /// One run, for the last of them.
    One,
    /// One run for each, oldest first.
    All,
}

impl Schedule {
    pub(super) fn of(schedule: &weir_workflow_engine::Schedule) -> Self {
        use weir_workflow_engine::CatchUp as Policy;
        let (catch_up, max_catch_up) = match schedule.catch_up() {
            Policy::Skip => (CatchUp::Skip, None),
            Policy::One => (CatchUp::One, None),
            Policy::All { most } => (CatchUp::All, Some(most)),
        };
        let every = schedule.every();
        Self {
            cron: schedule.cron_lines().into_iter().map(str::to_owned).collect(),
            timezone: schedule.timezone().map(str::to_owned),
            every_seconds: every.map(|span| u32::try_from(span.as_secs()).unwrap_or(u32::MAX)),
            catch_up,
            max_catch_up,
            input: Json(schedule.input().clone()),
        }
    }
}
