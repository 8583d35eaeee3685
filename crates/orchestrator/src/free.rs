//! Runs that belong to no node yet: who leaves them so, and how workers take them.
//!
//! A server without the role `worker` leaves every run it accepts to others; so does one whose memory is full while other
//! servers are there. The commit tells all workers at once. Each takes a slice, no larger than fair and only while it has
//! room, until none is left; what is missed is found by the heartbeat.

use crate::service::Core;
use crate::settings::Role;
use std::sync::Arc;
use std::time::Duration;
use weir_storage::{Fact, FactOutcome, RunOwner, WriteError};

/// Runs taken per statement: claims of fewer cost as much, and more would leave nothing for the other workers.
const SLICE: u32 = 64;
/// Time between two claims that were not worth a slice: a commit somewhere tells everybody, and most come too late.
const PAUSE: Duration = Duration::from_millis(5);
/// Pause while memory is full, and before a lost connection is made again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The longest pause between attempts to listen.
const LISTEN_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Runs given away per statement at start.
const RELEASE_SLICE: u32 = 1024;

impl Core {
    /// Who drives a run that is accepted now.
    pub(crate) fn new_run_owner(&self) -> RunOwner {
        let worker = self.settings.roles.has(Role::Worker);
        if worker && !self.runs.shares() {
            RunOwner::ThisNode
        } else {
            RunOwner::Anyone
        }
    }
}

/// Gives away what this server drove when it was a worker.
pub(crate) async fn release(core: &Arc<Core>) -> Result<(), WriteError> {
    loop {
        let pending = core
            .writer
            .submit(Fact::Release { limit: RELEASE_SLICE })
            .map_err(|_full| WriteError::Unavailable)?;
        match pending.await? {
            FactOutcome::Released(0) => return Ok(()),
            FactOutcome::Released(runs) => tracing::info!(runs, "left {runs} open runs to the workers"),
            other => {
                tracing::error!("the writer answered a release with {other:?}");
                return Err(WriteError::Unavailable);
            }
        }
    }
}

/// Hears of new runs, as long as the process runs.
pub(crate) async fn listen(core: Arc<Core>) {
    let mut pause = LOOK_AGAIN;
    while !core.stopping.is_cancelled() {
        match hear(&core).await {
            Ok(()) => return,
            Err(error) => tracing::warn!("new runs are found by the heartbeat only: {error}"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = core.stopping.cancelled() => return,
        }
        pause = (pause * 2).min(LISTEN_PAUSE_MAX);
    }
}

async fn hear(core: &Core) -> Result<(), weir_storage::ReadError> {
    let Some(mut free) = core.store.free_runs().await? else {
        return Ok(());
    };
    loop {
        // Also once at the beginning: nothing was heard before.
        core.free.notify_one();
        tokio::select! {
            heard = free.heard() => heard?,
            () = core.stopping.cancelled() => return Ok(()),
        }
    }
}

/// Takes runs when there are any, as long as the process runs.
pub(crate) async fn claim(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.free.notified() => {}
            () = core.stopping.cancelled() => return,
        }
        while !core.stopping.is_cancelled() {
            let room = core.runs.room_for_others();
            if room == 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            match claim_slice(&core).await {
                Ok(SLICE..) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!("new runs cannot be claimed yet: {error}");
                    // The claim may have come through.
                    core.rescan.notify_one();
                    break;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn claim_slice(core: &Core) -> Result<u32, WriteError> {
    let pending = core
        .writer
        .submit(Fact::ClaimFree { limit: SLICE })
        .map_err(|_full| WriteError::Unavailable)?;
    let FactOutcome::Claimed(runs) = pending.await? else {
        return Err(WriteError::Unavailable);
    };
    for run in &runs {
        core.runs.leave_on_disk(*run);
    }
    Ok(u32::try_from(runs.len()).unwrap_or(u32::MAX))
}
