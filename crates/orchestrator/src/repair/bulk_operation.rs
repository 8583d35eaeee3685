//! What every operation on many runs does with its row, whatever it does with the runs: begin, stop, pass a run over.

use serde_json::{Value, json};
use weir_storage::{BulkChange, BulkRow, BulkStatus, Operation};
use weir_workflow_engine::{BulkId, RunId, WorkflowId, WorkspaceId};

use super::bulk_work::Lot;
use super::{Refused, audit, write};
use crate::configure::Actor;
use crate::control::ControlError;
use crate::service::Orchestrator;

/// An operation that is about to begin.
pub(super) struct Beginning {
    /// What the audit trail calls it, such as `bulk.replay`.
    pub(super) action: String,
    /// Which runs were asked for.
    pub(super) filter: Value,
    /// What is done with them.
    pub(super) options: Value,
    /// Its runs, each with the word for what was shown.
    pub(super) items: Vec<(RunId, String)>,
    /// What was shown, in a sentence.
    pub(super) shown: String,
    /// Who goes on with it.
    pub(super) lot: Lot,
}

/// What came of a turn.
pub(super) enum Turn {
    Started(RunId),
    /// Nothing was started; look what is next.
    Again,
}

impl Orchestrator {
    /// Writes the operation with its runs and wakes who goes on with it.
    pub(super) async fn begin_bulk(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        beginning: Beginning,
    ) -> Result<BulkId, ControlError> {
        let Beginning {
            action,
            filter,
            options,
            items,
            shown,
            lot,
        } = beginning;
        let now = self.clock().now();
        let id = BulkId::from_raw(self.core.new_id(now));
        let total = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let row = BulkRow {
            id,
            workspace,
            status: BulkStatus::Running,
            actor: actor.label(),
            filter: filter.to_string(),
            options: options.to_string(),
            total,
            created_at: now,
            finished_at: None,
        };
        let detail = json!({ "filter": filter, "options": options, "runs": total, "shown": shown });
        let told = audit(&self.core, workspace, actor, now, (&action, id.to_string(), detail));
        let operation = Operation {
            bulk: Some(BulkChange::Begin { row, items }),
            audit: vec![told],
            ..Operation::default()
        };
        write(&self.core, operation).await.map_err(|refused| match refused {
            Refused::Stale => ControlError::Unavailable("the operation was not written".to_owned()),
            Refused::Other(error) => error,
        })?;
        tracing::info!(actor = %actor.name, bulk.id = %id, "{id} began by {}: {action}, {shown}", actor.name);
        lot.begun(&self.core).notify_one();
        Ok(id)
    }

    /// Stops an operation: no further run has its turn. Replays that were started go on.
    ///
    /// # Errors
    /// [`ControlError::NotFound`]: no such operation. [`ControlError::NotReplayable`]: it is over.
    pub async fn bulk_stop(&self, workspace: WorkspaceId, actor: &Actor, id: BulkId) -> Result<(), ControlError> {
        let row = self.core.store.bulk_load(workspace, id).await?;
        row.ok_or(ControlError::NotFound)?;
        let now = self.clock().now();
        let told = audit(
            &self.core,
            workspace,
            actor,
            now,
            ("bulk.stop", id.to_string(), json!({})),
        );
        let operation = Operation {
            bulk: Some(BulkChange::End {
                bulk: id,
                status: BulkStatus::Stopped,
                at: now,
            }),
            audit: vec![told],
            ..Operation::default()
        };
        let written = write(&self.core, operation).await.map(drop);
        written.map_err(|refused| match refused {
            Refused::Stale => ControlError::not_replayable("the operation is over"),
            Refused::Other(error) => error,
        })
    }

    /// Passes a run over, as its turn.
    pub(super) async fn skip_turn(&self, bulk: &BulkRow, run: RunId, reason: String) -> Result<Turn, ControlError> {
        let operation = Operation {
            bulk: Some(BulkChange::Skipped {
                bulk: bulk.id,
                run,
                reason,
            }),
            ..Operation::default()
        };
        match write(&self.core, operation).await {
            Ok(_) | Err(Refused::Stale) => Ok(Turn::Again),
            Err(Refused::Other(error)) => Err(error),
        }
    }

    /// The workflow that a filter names.
    pub(super) fn filtered_workflow(
        &self,
        workspace: WorkspaceId,
        name: Option<&str>,
    ) -> Result<Option<WorkflowId>, ControlError> {
        let find = |name| {
            let snapshot = self.snapshot();
            snapshot.workflow(workspace, name).map(|found| found.row.id)
        };
        name.map(|name| find(name).ok_or(ControlError::NotFound)).transpose()
    }
}

/// In whose name the turns of an operation are: of the person who began it.
pub(super) fn actor_of(bulk: &BulkRow) -> Actor {
    Actor {
        name: bulk.actor.clone(),
        token: None,
    }
}

/// "1 run", "2 runs".
pub(super) fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Parts in brackets behind a word, if there are any: " (shop.pay 2, shop.mail 1)".
pub(super) fn bracketed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        parts => format!(" ({})", parts.join(", ")),
    }
}
