//! Operations on many runs, and of them replays: chosen by a filter, shown in sum first, then started one after the other behind live events.
//!
//! The operation is a row, each of its runs another one with the word for what was shown. A replay is started by the
//! same write that takes its run's turn, so after a crash the next process goes on with those whose turn has not come,
//! and no run is replayed twice. Whatever a replay would do otherwise than shown is left out, not done.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use weir_storage::{BulkChange, BulkItemRow, BulkRow, CauseKey, Operation, RunSelection, RunStatus, SelectedRuns};
use weir_workflow_engine::{BulkId, RunId, Timestamp, WorkspaceId};

use super::bulk_operation::{Beginning, Turn, actor_of, bracketed, plural};
use super::bulk_work::Lot;
use super::{Refused, ReplayFrom, ReplayOptions, ReplayVersion};
use crate::configure::Actor;
use crate::control::ControlError;
use crate::service::Orchestrator;

/// Most runs of one operation. Each is read with its family before the operation begins; take the next ones after it.
///
/// Limit: runs of one operation on many runs | the oldest are taken, `more` says that there are others; repeat it for them | `an_operation_takes_the_oldest_runs_and_the_next_one_the_rest`
pub const MAX_BULK_RUNS: u32 = 1000;
/// Most replays of operations that a node drives at a time, so that live events always find room and budget.
pub const BULK_IN_FLIGHT: usize = 16;

/// Which runs; `None` = any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkFilter {
    /// With this status; only runs that are over.
    pub status: RunStatus,
    /// Of the workflow with this name.
    pub workflow: Option<String>,
    /// That failed with this code.
    pub error_code: Option<String>,
    /// That failed at this step.
    pub error_step: Option<String>,
    /// That are open dead letters with this cause.
    pub cause: Option<CauseKey>,
    /// That started at this time or later.
    pub since: Option<Timestamp>,
    /// That started before this time.
    pub until: Option<Timestamp>,
}

/// What the replays of many runs would do, in sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BulkPreview {
    /// How many runs would be replayed.
    pub runs: u32,
    /// Whether more runs fit than one operation takes; the oldest come first.
    pub more: bool,
    /// Runs that fit and cannot be replayed, with the reason.
    pub left_out: Vec<(RunId, String)>,
    /// Of how many of them not all can be shown: what follows a call without a recorded answer or a wait whose outcome
    /// is open, and some of the runs that they start.
    pub in_part: u32,
    /// How many of them would fail, for a reason that is known now.
    pub failing: u32,
    /// Calls that change nothing outside.
    pub reads: u64,
    /// Effects by what they do, in the order of their names.
    pub effects: Vec<BulkEffects>,
    /// All of it in a sentence.
    pub summary: String,
    /// To be handed to [`Orchestrator::bulk_replay`].
    pub confirm: String,
}

/// Effects of one operation in the replays of many runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkEffects {
    /// Name of the connector.
    pub connector: String,
    /// Name of the operation.
    pub operation: String,
    /// `keyed`, `find_by`, `repeatable` or `blind`.
    pub class: &'static str,
    /// Took place, and would be answered from the record.
    pub answered: u64,
    /// Would be sent.
    pub sent: u64,
    /// Of those that would be sent: the same step did it before with another request.
    pub changed: u64,
    /// Of those that would be sent: nobody knows whether they took place; they are sent again in the way of their class.
    pub resent: u64,
    /// Nobody knows whether they took place, and the run would end there.
    pub blocked: u64,
}

/// A selection with what each of its runs would do.
struct Shown {
    preview: BulkPreview,
    items: Vec<(RunId, String)>,
}

impl Orchestrator {
    /// Says what replaying every run that fits would do. Writes nothing, calls nobody.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub async fn bulk_preview(
        &self,
        workspace: WorkspaceId,
        filter: &BulkFilter,
        options: &ReplayOptions,
    ) -> Result<BulkPreview, ControlError> {
        self.show(workspace, filter, options).await.map(|shown| shown.preview)
    }

    /// Begins to replay every run that fits. It goes on by itself; [`Orchestrator::bulk_stop`] stops it.
    ///
    /// # Errors
    /// [`ControlError::BulkChanged`] with the new preview when it would now do something else than was shown.
    pub async fn bulk_replay(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        filter: &BulkFilter,
        options: &ReplayOptions,
        confirm: &str,
    ) -> Result<BulkId, ControlError> {
        let Shown { preview, items } = self.show(workspace, filter, options).await?;
        if preview.confirm != confirm {
            return Err(ControlError::BulkChanged(Box::new(preview)));
        }
        if items.is_empty() {
            let why = "no run fits that can be replayed".to_owned();
            return Err(ControlError::not_replayable(why));
        }
        let beginning = Beginning {
            action: "bulk.replay".to_owned(),
            filter: filter_json(filter),
            options: options_json(options),
            items,
            shown: preview.summary,
            lot: Lot::Replays,
        };
        self.begin_bulk(workspace, actor, beginning).await
    }

    async fn show(
        &self,
        workspace: WorkspaceId,
        filter: &BulkFilter,
        options: &ReplayOptions,
    ) -> Result<Shown, ControlError> {
        let selection = RunSelection {
            runs: SelectedRuns::Ended(filter.status),
            workflow: self.filtered_workflow(workspace, filter.workflow.as_deref())?,
            error_code: filter.error_code.clone(),
            error_step: filter.error_step.clone(),
            cause: filter.cause,
            since: filter.since,
            until: filter.until,
        };
        let mut runs = self
            .core
            .store
            .run_select(workspace, &selection, MAX_BULK_RUNS + 1)
            .await?;
        let limit = usize::try_from(MAX_BULK_RUNS).unwrap_or(usize::MAX);
        let mut preview = BulkPreview {
            more: runs.len() > limit,
            ..BulkPreview::default()
        };
        runs.truncate(limit);
        let mut items = Vec::with_capacity(runs.len());
        let mut effects: BTreeMap<(String, String, &'static str), BulkEffects> = BTreeMap::new();
        for run in runs {
            match self.prepare(workspace, run.id, options).await {
                Ok(ready) => {
                    let shown = ready.prepared.preview;
                    if let Some(stuck) = shown.stuck_at() {
                        let (step, run) = (shown.names.name(&stuck.step), run.id);
                        let why = format!("nobody knows about `{step}`; first say it: weir run resolve {run} {step}");
                        preview.left_out.push((run, why));
                        continue;
                    }
                    preview.reads += u64::try_from(shown.reads.len()).unwrap_or(u64::MAX);
                    preview.in_part += u32::from(shown.in_part);
                    preview.failing += u32::from(shown.fails);
                    let all = shown.answered.iter().chain(&shown.new).chain(&shown.unknown);
                    for effect in all {
                        let key = (effect.connector.clone(), effect.operation.clone(), effect.class);
                        let sum = effects
                            .entry(key)
                            .or_insert_with_key(|(connector, operation, class)| BulkEffects {
                                connector: connector.clone(),
                                operation: operation.clone(),
                                class,
                                answered: 0,
                                sent: 0,
                                changed: 0,
                                resent: 0,
                                blocked: 0,
                            });
                        sum.sent += u64::from(effect.sends);
                        sum.changed += u64::from(effect.sends && effect.changed);
                        let is_unknown = shown.unknown.iter().any(|unknown| unknown.key == effect.key);
                        sum.resent += u64::from(effect.sends && is_unknown);
                        if !effect.sends {
                            let is_answered = shown.answered.iter().any(|answered| answered.key == effect.key);
                            sum.answered += u64::from(is_answered);
                            sum.blocked += u64::from(!is_answered);
                        }
                    }
                    items.push((run.id, ready.prepared.confirm));
                }
                Err(ControlError::NotReplayable { why, .. }) => preview.left_out.push((run.id, why)),
                Err(ControlError::Invalid(problems)) => {
                    let why = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    preview.left_out.push((run.id, why));
                }
                Err(ControlError::NotFound) => {}
                Err(other) => return Err(other),
            }
        }
        preview.runs = u32::try_from(items.len()).unwrap_or(u32::MAX);
        preview.effects = effects.into_values().collect();
        preview.summary = summary(&preview);
        let mut digest = Sha256::new();
        for (run, confirm) in &items {
            digest.update(format!("{run} {confirm} ").as_bytes());
        }
        preview.confirm = hex::encode(digest.finalize().get(..8).unwrap_or_default());
        Ok(Shown { preview, items })
    }

    /// Gives a run its turn. `false`: the operation is over.
    pub(super) async fn turn(
        &self,
        bulk: &BulkRow,
        options: &ReplayOptions,
        item: &BulkItemRow,
    ) -> Result<Turn, ControlError> {
        let workspace = bulk.workspace;
        let actor = actor_of(bulk);
        let _one_at_a_time = self.core.replaying.lock().await;
        let reason = match self.prepare(workspace, item.run, options).await {
            Ok(ready) if ready.prepared.confirm == item.confirm => {
                let replay = ready.id();
                let with = Operation {
                    bulk: Some(BulkChange::Started {
                        bulk: bulk.id,
                        run: item.run,
                        replay: Some(replay),
                    }),
                    ..Operation::default()
                };
                return match self.start_replay(workspace, &actor, item.run, ready, with).await {
                    Ok(started) => Ok(Turn::Started(started)),
                    // Somebody was faster with the run or with the operation: look at both again.
                    Err(Refused::Stale) => Ok(Turn::Again),
                    Err(Refused::Other(error)) => Err(error),
                };
            }
            Ok(_) => "what the replay would do is not what was shown any more".to_owned(),
            // Kept for everybody who may see the operation.
            Err(ControlError::NotReplayable { why, .. }) => format!("the run cannot be replayed: {why}"),
            Err(error @ (ControlError::NotFound | ControlError::Invalid(_))) => error.to_string(),
            Err(other) => return Err(other),
        };
        self.skip_turn(bulk, item.run, reason).await
    }
}

/// All of a preview in a sentence: "142 runs: 142 reads, 0 effects answered from the record, 17 sent".
fn summary(preview: &BulkPreview) -> String {
    let sum = |of: fn(&BulkEffects) -> u64| preview.effects.iter().map(of).sum::<u64>();
    let mut parts = vec![
        plural(preview.reads, "read"),
        format!(
            "{} answered from the record",
            plural(sum(|effects| effects.answered), "effect")
        ),
    ];
    let sent: Vec<String> = preview
        .effects
        .iter()
        .filter(|effects| effects.sent > 0)
        .map(|effects| format!("{}.{} {}", effects.connector, effects.operation, effects.sent))
        .collect();
    let least = if preview.in_part > 0 { "at least " } else { "" };
    parts.push(format!(
        "{least}{} sent{}",
        sum(|effects| effects.sent),
        bracketed(&sent)
    ));
    let resent = sum(|effects| effects.resent);
    if resent > 0 {
        parts.push(format!("{resent} of them may have taken place and are sent again"));
    }
    if preview.in_part > 0 {
        parts.push(format!(
            "{} shown in part (what another answer to a read changes, and what follows a call without a recorded answer or \
             an open wait, in runs that they start too, is not counted)",
            preview.in_part
        ));
    }
    let blocked = sum(|effects| effects.blocked);
    if blocked > 0 {
        parts.push(format!("{blocked} of unknown fate that stop their runs"));
    }
    if preview.failing > 0 {
        parts.push(format!(
            "{} would fail again",
            plural(u64::from(preview.failing), "run")
        ));
    }
    if !preview.left_out.is_empty() {
        parts.push(format!("{} left out", preview.left_out.len()));
    }
    format!("{}: {}", plural(u64::from(preview.runs), "run"), parts.join(", "))
}

fn filter_json(filter: &BulkFilter) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    json!({
        "status": filter.status.as_str(), "workflow": filter.workflow, "errorCode": filter.error_code,
        "errorStep": filter.error_step,
        "cause": filter.cause.map(|key| format!("{} {}", key.workflow, key.cause)),
        "since": time(filter.since), "until": time(filter.until),
    })
}

/// How the options stand in the row of an operation.
fn options_json(options: &ReplayOptions) -> Value {
    let (from, step) = match &options.from {
        ReplayFrom::Automatic => ("automatic", None),
        ReplayFrom::Start => ("start", None),
        ReplayFrom::FailedStep => ("failed_step", None),
        ReplayFrom::Step(step) => ("step", Some(step)),
    };
    let version = match options.version {
        ReplayVersion::Pinned => "pinned",
        ReplayVersion::Live => "live",
    };
    json!({ "from": from, "step": step, "version": version, "body": options.body })
}

/// The same, read back.
pub(super) fn parse_options(stored: &Value) -> Option<ReplayOptions> {
    let text = |name: &str| stored.get(name).and_then(Value::as_str);
    Some(ReplayOptions {
        from: match text("from")? {
            "automatic" => ReplayFrom::Automatic,
            "start" => ReplayFrom::Start,
            "failed_step" => ReplayFrom::FailedStep,
            "step" => ReplayFrom::Step(text("step")?.to_owned()),
            _ => return None,
        },
        version: match text("version")? {
            "pinned" => ReplayVersion::Pinned,
            "live" => ReplayVersion::Live,
            _ => return None,
        },
        body: stored.get("body").filter(|body| !body.is_null()).cloned(),
        again: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_database() {
        let (from, version) = (ReplayFrom::Step("a.then.b".to_owned()), ReplayVersion::Live);
        let body = Some(json!({ "to": "bob" }));
        let all = [
            ReplayOptions::default(),
            ReplayOptions {
                from,
                version,
                body,
                again: false,
            },
            ReplayOptions {
                from: ReplayFrom::FailedStep,
                ..ReplayOptions::default()
            },
        ];
        for options in all {
            let stored = options_json(&options).to_string();
            assert_eq!(parse_options(&serde_json::from_str(&stored).unwrap()), Some(options));
        }
    }

    #[test]
    fn a_summary_says_what_would_be_sent_again() {
        let effects = |operation: &str, answered, sent, blocked| BulkEffects {
            connector: "shop".to_owned(),
            operation: operation.to_owned(),
            class: "blind",
            answered,
            sent,
            changed: 0,
            resent: 0,
            blocked,
        };
        let preview = BulkPreview {
            runs: 142,
            reads: 142,
            effects: vec![effects("mail", 0, 17, 0), effects("pay", 142, 0, 1)],
            left_out: vec![(RunId::from_raw(1), "no event".to_owned())],
            failing: 2,
            ..BulkPreview::default()
        };
        assert_eq!(
            summary(&preview),
            "142 runs: 142 reads, 142 effects answered from the record, 17 sent (shop.mail 17), \
             1 of unknown fate that stop their runs, 2 runs would fail again, 1 left out"
        );
        let in_part = BulkPreview { in_part: 5, ..preview };
        let told = summary(&in_part);
        assert!(
            told.contains("at least 17 sent") && told.contains("5 shown in part"),
            "{told}"
        );
    }
}
