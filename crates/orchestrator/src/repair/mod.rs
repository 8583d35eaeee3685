//! What people do with runs that are over: say what became of an effect, retry, replay, one or many.
//!
//! A run that is over has no owner in memory, so its family is read from the database, judged by the pure rules of the
//! engine, and changed by one [`Operation`] that fails when the family has grown or a journal has moved on since.

pub(crate) mod bulk;
mod bulk_operation;
mod bulk_request;
mod bulk_resolve;
pub(crate) mod bulk_work;
mod dead_letter;
mod event_start;
mod rehearse;
mod replay;
mod resolve;

pub use bulk::{BULK_IN_FLIGHT, BulkEffects, BulkFilter, BulkPreview, MAX_BULK_RUNS};
pub use bulk_request::{BulkAction, BulkRequest, OpenEffects, OpenFilter, RequestError, RequestPreview};
pub use bulk_resolve::{BulkResolveError, BulkVerdict, ResolvePreview, UnknownEffects, UnknownFilter};
pub(crate) use dead_letter::dead_letter;
pub use event_start::EventStartError;
pub use rehearse::MAX_PREVIEWED_RUNS;
pub use replay::{MAX_FAMILY, PreparedReplay, ReplayFrom, ReplayOptions, ReplayVersion};
#[cfg(test)]
pub(crate) use replay::{Parts, assemble, copy_of};
pub use resolve::{MAX_NOTE_CHARACTERS, MAX_STATED_OUTPUT_BYTES, Resolution, Resolved};

use crate::configure::Actor;
use crate::control::ControlError;
use crate::service::Core;
use weir_storage::{AuditEntry, ExpectedFamily, Fact, FactOutcome, Operation, RunRow, RunStatus, WriteError};
use weir_workflow_engine::{EffectKey, Entry, Intent, Ledger, RunId, Timestamp, WorkspaceId, decode};

/// A run and all its replays, with what each of them did.
pub(crate) struct Family {
    root: RunId,
    /// Oldest first.
    runs: Vec<Member>,
}

/// One run of a family.
pub(crate) struct Member {
    row: RunRow,
    entries: Vec<Entry>,
    /// Sequence number of the next journal row.
    next_seq: i32,
}

impl Family {
    /// Reads a family.
    ///
    /// # Errors
    /// The database cannot be read, or a journal cannot: without it nobody could tell what was done already.
    pub(crate) async fn load(core: &Core, workspace: WorkspaceId, root: RunId) -> Result<Self, ControlError> {
        let rows = core.store.run_family(workspace, root).await?;
        let mut journals: std::collections::HashMap<RunId, Vec<(i32, Vec<u8>)>> =
            core.store.family_journals(workspace, root).await?.into_iter().collect();
        let mut runs = Vec::with_capacity(rows.len());
        for row in rows {
            let journal = journals.remove(&row.id).unwrap_or_default();
            let next_seq = journal.last().map_or(0, |(seq, _)| seq + 1);
            let mut entries = Vec::new();
            for (seq, body) in journal {
                let (_, more) = decode(&body).map_err(|error| {
                    ControlError::not_replayable(format!("journal row {seq} of {} cannot be read: {error}", row.id))
                })?;
                entries.extend(more);
            }
            runs.push(Member { row, entries, next_seq });
        }
        Ok(Self { root, runs })
    }

    /// The run of the family that is not over, if there is one.
    fn open(&self) -> Option<RunId> {
        let open = self.runs.iter().find(|member| member.row.status.is_open());
        open.map(|member| member.row.id)
    }

    /// The guard of what is written about it.
    fn expected(&self) -> ExpectedFamily {
        let replays = self.runs.iter().filter(|member| member.row.replay_of.is_some()).count();
        ExpectedFamily {
            root: self.root,
            replays: u64::try_from(replays).unwrap_or(u64::MAX),
        }
    }

    fn member(&self, run: RunId) -> Option<&Member> {
        self.runs.iter().find(|member| member.row.id == run)
    }

    /// What all of them did outside.
    fn ledger(&self) -> Ledger {
        Ledger::fold(
            self.runs
                .iter()
                .map(|member| (member.row.id, member.entries.as_slice())),
        )
    }

    /// The journal of the run that succeeded last, or of the last one.
    fn last_word(&self) -> &[Entry] {
        let succeeded = |member: &&Member| member.row.status == RunStatus::Succeeded;
        let last = self.runs.iter().rev().find(succeeded).or_else(|| self.runs.last());
        last.map_or(&[], |member| &member.entries)
    }

    /// Whether a step is one of those that undo another.
    fn undoes(&self, step: &str) -> bool {
        let mut entries = self.runs.iter().flat_map(|member| &member.entries);
        entries.any(|entry| match entry {
            Entry::Compensating(compensating) => compensating.undoes(step),
            _ => false,
        })
    }

    /// What was asked for under a key, the last time it was.
    fn intent(&self, key: EffectKey) -> Option<&Intent> {
        let entries = self.runs.iter().rev().flat_map(|member| member.entries.iter().rev());
        entries.into_iter().find_map(|entry| match entry {
            Entry::Intended(intent) if intent.key == key => Some(intent),
            _ => None,
        })
    }
}

/// An entry of the audit trail about a run.
pub(crate) fn audit(
    core: &Core,
    workspace: WorkspaceId,
    actor: &Actor,
    now: Timestamp,
    (action, subject, detail): (&str, String, serde_json::Value),
) -> AuditEntry {
    AuditEntry {
        id: core.new_id(now),
        workspace,
        at: now,
        actor: actor.label(),
        action: action.to_owned(),
        subject,
        client_ip: None,
        request_id: None,
        detail: detail.to_string(),
    }
}

/// Why an operation was not written.
pub(crate) enum Refused {
    /// Somebody was faster: read again.
    Stale,
    /// The database cannot write now, or did not say whether it has.
    Other(ControlError),
}

/// Writes an operation; gives those of the runs that it starts that wait for their turn, or are over already.
pub(crate) async fn write(core: &Core, operation: Operation) -> Result<Vec<RunId>, Refused> {
    let unavailable = |cause: String| Refused::Other(ControlError::Unavailable(cause));
    let pending = core
        .writer
        .submit(Fact::Operate(Box::new(operation)))
        .map_err(|full| unavailable(full.to_string()))?;
    match pending.await {
        Ok(FactOutcome::Started { held }) => Ok(held),
        Ok(_) => Ok(Vec::new()),
        Err(WriteError::Stale) => Err(Refused::Stale),
        Err(WriteError::Unknown) => {
            // Runs may have been started that no task drives.
            core.rescan.notify_one();
            Err(unavailable(
                "the result of the commit is unknown; look at the runs of the event before you try again".to_owned(),
            ))
        }
        Err(error) => Err(unavailable(error.to_string())),
    }
}
