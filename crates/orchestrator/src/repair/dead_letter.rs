//! Dead letters: what is listed of a run that failed, and what people note about those with one cause.

use serde_json::json;
use weir_storage::{CauseKey, CauseNote, CauseState, NewDeadLetter, Operation};
use weir_workflow_engine::{Cause, WorkspaceId};

use super::{Refused, audit, write};
use crate::configure::Actor;
use crate::control::ControlError;
use crate::runner::storable;
use crate::service::Orchestrator;

/// How a run that failed stands among the dead letters.
pub(crate) fn dead_letter(code: &str, step: Option<&str>, message: &str) -> Box<NewDeadLetter> {
    let cause = Cause::of(code, step, message);
    Box::new(NewDeadLetter {
        cause: cause.id,
        code: code.to_owned(),
        step: cause.step.as_deref().map(storable),
        message: storable(&cause.message),
    })
}

impl Orchestrator {
    /// Notes what became of the dead letters with one cause. What is resolved is open again when another run fails for
    /// the same cause; what is ignored is not.
    ///
    /// # Errors
    /// [`ControlError::NotFound`]: there is no dead letter with this cause.
    pub async fn cause_mark(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        key: CauseKey,
        state: CauseState,
        note: String,
    ) -> Result<(), ControlError> {
        let cause = self.core.store.cause_load(workspace, key).await?;
        let cause = cause.ok_or(ControlError::NotFound)?;
        let now = self.clock().now();
        let mark = match state {
            CauseState::Open => "open",
            CauseState::Resolved => "resolved",
            CauseState::Ignored => "ignored",
        };
        let detail = json!({
            "mark": mark, "note": note, "workflow": key.workflow.to_string(), "step": cause.step, "code": cause.code,
            "message": cause.message, "upTo": cause.sample.to_string(),
        });
        let operation = Operation {
            note: Some(CauseNote {
                workspace,
                key,
                state,
                up_to: cause.sample,
                note,
                actor: actor.label(),
                at: now,
            }),
            audit: vec![audit(
                &self.core,
                workspace,
                actor,
                now,
                ("dead_letter.mark", key.workflow.to_string(), detail),
            )],
            ..Operation::default()
        };
        let written = write(&self.core, operation).await.map(drop);
        written.map_err(|refused| match refused {
            Refused::Stale => ControlError::Unavailable("the mark was not written".to_owned()),
            Refused::Other(error) => error,
        })
    }
}
