//! What reaches a run from outside: events, decisions and ends of runs that steps wait for, and what people ask of it.

use std::sync::Arc;

use serde_json::json;

use super::state::{Closed, Place, RunState, Slot, Verdict};
use super::walk::{Fault, Walk};
use crate::correlation::{key_text, source, text};
use crate::definition::{Approve, WaitFor};
use crate::document::Document;
use crate::event::Event;
use crate::expression::sample;
use crate::id::RunId;
use crate::journal::{
    Arrived, Awaited, Awaits, CancelAsked, Ending, Entry, PassedOver, Paused, Resumed, StepFailed, Target,
};
use crate::plan::{By, CallTask, Task};

/// The code of a step that waited in vain.
pub(crate) const WAIT_TIMEOUT: &str = "wait_timeout";
/// The code of a step whose run was canceled.
const RUN_CANCELED: &str = "run_canceled";
/// The code of a step that a person decided against.
pub(crate) const REJECTED: &str = "rejected";

/// What reaches a run from outside.
#[derive(Clone, Copy, Debug)]
pub enum Mail<'a> {
    /// An event that a step of the run may wait for.
    Event(&'a Event),
    /// A run that this one started has ended, or one that repeats it.
    RunEnded {
        /// The one that was started.
        root: RunId,
        /// The one that ended.
        run: RunId,
        /// How it ended.
        ending: &'a Ending,
        /// What it gave.
        output: &'a Document,
    },
    /// A person has decided.
    Decision {
        /// Path of the step that asked.
        step: &'a str,
        /// For it or against it.
        approved: bool,
        /// Who.
        by: &'a str,
        /// What they say about it.
        note: &'a str,
    },
    /// The run should end: nothing new is begun, effects that are on their way are waited for.
    Cancel {
        /// Who wants it.
        by: &'a str,
        /// Why, for people.
        reason: &'a str,
    },
    /// The run should stand still: nothing new is begun, what comes back is noted.
    Pause {
        /// Who wants it.
        by: &'a str,
        /// Why, for people.
        reason: &'a str,
    },
    /// The run may go on.
    Resume {
        /// Who wants it.
        by: &'a str,
    },
    /// Calls that wait for their next tries should go on as early as they may.
    Hurry {
        /// Who wants it.
        by: &'a str,
    },
}

/// A step that waits for something from outside.
#[derive(Clone, Copy, Debug)]
pub struct OpenWait<'a> {
    /// Path of the step.
    pub step: &'a Arc<str>,
    /// What for, since when and until when.
    pub awaited: &'a Awaited,
}

impl RunState {
    /// The steps that wait for something from outside.
    pub fn open_waits(&self) -> impl Iterator<Item = OpenWait<'_>> {
        self.waits.iter().filter_map(|(step, place)| match self.slot(place) {
            Some(Slot::Waiting(awaited)) => Some(OpenWait { step, awaited }),
            _ => None,
        })
    }

    /// What the last step of the workflow gave.
    pub(super) fn output(&self) -> Option<Document> {
        let node = *self.program.0.top.last()?;
        match self.frame.slots.get(self.program.0.nodes.get(node)?.slot)? {
            Slot::Closed(closed) => closed.output.clone(),
            _ => None,
        }
    }

    /// A call was carried out. One that started a run goes on to wait for its end.
    pub(super) fn done(&mut self, path: &Arc<str>, closed: Closed) {
        let Some(place) = self.place(path) else {
            return self.note_foreign(&Target::Step(Arc::clone(path)));
        };
        let by = self.program.0.nodes.get(place.node).and_then(|node| node.task.call());
        let run = match by {
            Some(CallTask {
                by: By::Run(Some(_)), ..
            }) => closed.output.as_ref().and_then(started_run),
            _ => None,
        };
        match run {
            Some(run) => self.put_slot(&place, |_| Slot::Begun(run)),
            None => self.close(place, closed),
        }
    }

    pub(super) fn fold_awaited(&mut self, awaited: &Awaited) {
        let Some(place) = self.place(&awaited.step) else {
            return self.note_foreign(&Target::Step(Arc::clone(&awaited.step)));
        };
        self.put_slot(&place, |_| Slot::Waiting(Arc::new(awaited.clone())));
        self.sleeps.insert((awaited.until, place.clone()));
        self.waits.insert(Arc::clone(&awaited.step), place);
    }

    pub(super) fn fold_arrived(&mut self, arrived: &Arrived) {
        self.forget_wait(&Target::Step(Arc::clone(&arrived.step)));
        self.taken.extend(arrived.event);
        let closed = Closed::plain(Verdict::Done, Some(arrived.output.clone()));
        self.close_path(&arrived.step, closed);
    }

    /// A step waited in vain. A run that failed has to undo what it did itself; one that was left or canceled does not.
    pub(super) fn fail_wait(&mut self, failed: &StepFailed) {
        if let Target::Step(path) = &failed.of
            && matches!(&*failed.code, WAIT_TIMEOUT | RUN_CANCELED)
            && let Some(place) = self.waits.get(path).cloned()
        {
            self.note_left_run(&place);
        }
        self.forget_wait(&failed.of);
    }

    /// A step waits no longer.
    pub(super) fn forget_wait(&mut self, of: &Target) {
        let Target::Step(path) = of else { return };
        if let Some(place) = self.waits.remove(path) {
            self.sleeps.retain(|(_, waiting)| *waiting != place);
        }
    }
}

/// The run that the output of a `run` names.
pub(crate) fn started_run(output: &Document) -> Option<RunId> {
    output.value().get("run")?.as_str()?.parse().ok()
}

impl Walk<'_> {
    /// What has just started a run waits for its end, also where nothing else goes on: whoever leaves the step then knows
    /// which run is to be asked to end.
    pub(super) fn wait_if_begun(&mut self, place: &Place) {
        if matches!(self.run.slot(place), Some(Slot::Begun(_))) {
            self.wait(place);
        }
    }

    /// A step that waits, or is about to, is looked at.
    pub(super) fn wait(&mut self, place: &Place) {
        let path = self.run.path(place);
        match self.run.slot(place) {
            Some(Slot::Begun(run)) => {
                let run = *run;
                let node = self.program.nodes.get(place.node);
                let Some(Task::Call(CallTask {
                    by: By::Run(Some(limit)),
                    ..
                })) = node.map(|node| &node.task)
                else {
                    return;
                };
                let until = self.now.plus(*limit);
                self.push(Entry::Awaited(Awaited {
                    step: path,
                    what: Awaits::Run { run },
                    at: self.now,
                    until,
                }));
            }
            Some(Slot::Waiting(awaited)) if awaited.until <= self.now => {
                let span = crate::duration::print(awaited.until.since(awaited.at));
                let message = match &awaited.what {
                    Awaits::Event {
                        connector,
                        kind,
                        equals,
                        ..
                    } => format!("no `{connector}.{kind}` for {equals:?} came within {span}"),
                    Awaits::Approval { .. } => format!("nobody decided within {span}"),
                    Awaits::Run { run } => format!("{run} was not over within {span}"),
                };
                let code = WAIT_TIMEOUT;
                self.fail(Target::Step(path), Fault { code, message });
            }
            _ => {}
        }
    }

    /// A `wait_for` begins.
    pub(super) fn await_event(&self, place: &Place, path: &Arc<str>, wait: &WaitFor) -> Result<Entry, Fault> {
        let value = wait.equals.value(&self.scope(place))?;
        let Some(equals) = text(&value) else {
            return Err(Fault {
                code: "bad_key",
                message: format!(
                    "`{}` at {} is {}; an event is found by a text, a number or a boolean",
                    wait.equals.source(),
                    wait.equals.pointer(),
                    sample(&value)
                ),
            });
        };
        let what = Awaits::Event {
            connector: Arc::from(wait.connector.as_str()),
            kind: Arc::from(wait.kind.as_str()),
            key: Arc::from(source(&wait.key)),
            equals: Arc::from(equals),
        };
        Ok(Entry::Awaited(Awaited {
            step: Arc::clone(path),
            what,
            at: self.now,
            until: self.now.plus(wait.timeout),
        }))
    }

    /// An `approve` begins.
    pub(super) fn ask(&self, place: &Place, path: &Arc<str>, approve: &Approve) -> Result<Entry, Fault> {
        let scope = self.scope(place);
        let title = approve.title.render(&scope)?;
        let title = title
            .value()
            .as_str()
            .map_or_else(|| title.raw().to_owned(), str::to_owned);
        let what = Awaits::Approval {
            title: Arc::from(title),
            detail: approve.detail.render(&scope)?,
            by: approve.by.clone(),
        };
        Ok(Entry::Awaited(Awaited {
            step: Arc::clone(path),
            what,
            at: self.now,
            until: self.now.plus(approve.timeout),
        }))
    }

    /// Takes in what came from outside.
    pub(super) fn mail(&mut self, mail: &Mail<'_>) {
        match mail {
            Mail::Event(event) => self.arrived(event),
            Mail::RunEnded {
                root,
                run,
                ending,
                output,
            } => self.run_ended(*root, *run, ending, output),
            Mail::Decision {
                step,
                approved,
                by,
                note,
            } => self.decided(step, *approved, by, note),
            Mail::Cancel { by, reason } if self.run.ending.is_none() => self.push(Entry::CancelAsked(CancelAsked {
                by: Arc::from(*by),
                reason: Arc::from(*reason),
            })),
            Mail::Pause { by, reason } if self.run.paused.is_none() && self.run.ending.is_none() => {
                self.push(Entry::Paused(Paused {
                    by: Arc::from(*by),
                    reason: Arc::from(*reason),
                    at: self.now,
                }));
            }
            Mail::Resume { by } if self.run.paused.is_some() => self.push(Entry::Resumed(Resumed {
                by: Arc::from(*by),
                at: self.now,
            })),
            Mail::Hurry { by } if self.run.ending.is_none() => self.hurry(by),
            Mail::Cancel { .. } | Mail::Pause { .. } | Mail::Resume { .. } | Mail::Hurry { .. } => {}
        }
    }

    /// The first step that waits for this event takes it; an event is taken once.
    fn arrived(&mut self, event: &Event) {
        if self.run.taken.contains(&event.uid) || event.uid == self.run.event.uid || self.run.ending.is_some() {
            return;
        }
        let waits: Vec<(Arc<str>, Place)> = self
            .run
            .waits
            .iter()
            .map(|(path, at)| (Arc::clone(path), at.clone()))
            .collect();
        for (step, place) in waits {
            if self.run.is_settling(&place) {
                continue;
            }
            let found = match (
                self.run.slot(&place),
                self.program.nodes.get(place.node).map(|node| &node.task),
            ) {
                (Some(Slot::Waiting(awaited)), Some(Task::WaitFor(wait))) => fits(wait, awaited, event).then_some(wait),
                _ => None,
            };
            let Some(wait) = found else { continue };
            let wanted = match &wait.filter {
                None => Ok(true),
                Some(filter) => filter.truth(&self.scope(&place).with_arrived(event)),
            };
            let reason = match wanted {
                Ok(true) => {
                    let output = output_of(event);
                    let event = Some(event.uid);
                    return self.push(Entry::Arrived(Arrived { step, output, event }));
                }
                Ok(false) => "its `where` was not true".to_owned(),
                Err(error) => error.to_string(),
            };
            self.push(Entry::PassedOver(PassedOver {
                step,
                event: event.uid,
                reason: Arc::from(reason),
            }));
        }
    }

    /// The step has the name of the run that it started, whichever of its family succeeded: what the steps behind make of
    /// it stays the same.
    fn run_ended(&mut self, root: RunId, run: RunId, ending: &Ending, output: &Document) {
        let mut waiting = self.run.open_waits();
        let found = waiting.find(|wait| matches!(wait.awaited.what, Awaits::Run { run: started } if started == root));
        let Some(step) = found.map(|wait| Arc::clone(wait.step)) else {
            return;
        };
        drop(waiting);
        let (code, message) = match ending {
            Ending::Succeeded => {
                let name = Document::from_value(json!(root.to_string()));
                let output = Document::object([("run", &name), ("output", output)].into_iter());
                return self.push(Entry::Arrived(Arrived {
                    step,
                    output,
                    event: None,
                }));
            }
            Ending::Failed { code, message, step } => {
                let place = step.as_deref().map(|step| format!(" at `{step}`")).unwrap_or_default();
                let what_to_do = format!("retry {run} first, then this one");
                (
                    "run_failed",
                    format!("{run} failed{place} ({code}): {message}; {what_to_do}"),
                )
            }
            Ending::Canceled => (RUN_CANCELED, format!("{run} was canceled")),
        };
        self.fail(Target::Step(step), Fault { code, message });
    }

    fn decided(&mut self, step: &str, approved: bool, by: &str, note: &str) {
        let asked = self.run.open_waits().find(|wait| &**wait.step == step);
        let Some(step) = asked
            .filter(|wait| matches!(wait.awaited.what, Awaits::Approval { .. }))
            .map(|wait| Arc::clone(wait.step))
        else {
            return;
        };
        if approved {
            let at = self.now.to_string();
            let output = Document::from_value(json!({ "approved": true, "by": by, "note": note, "at": at }));
            let event = None;
            return self.push(Entry::Arrived(Arrived { step, output, event }));
        }
        let message = match note {
            "" => format!("{by} decided against it"),
            note => format!("{by} decided against it: {note}"),
        };
        let code = REJECTED;
        self.fail(Target::Step(step), Fault { code, message });
    }
}

/// Whether the event is of the kind that is waited for, and has the key.
fn fits(wait: &WaitFor, awaited: &Awaited, event: &Event) -> bool {
    let Awaits::Event { equals, .. } = &awaited.what else {
        return false;
    };
    let of_connection = wait.connection.is_none() || wait.connection == event.connection;
    wait.connector == event.connector
        && wait.kind == event.kind
        && of_connection
        && matches!(key_text(&wait.key, event), Ok(Some(key)) if key == **equals)
}

/// What a step that waited for an event gives.
fn output_of(event: &Event) -> Document {
    let text = |text: Option<&str>| Document::from_value(json!(text));
    let time = event.time.map(|time| time.to_string());
    let (id, uid, kind) = (
        text(Some(&event.id)),
        text(Some(&event.uid.to_string())),
        text(Some(&event.kind)),
    );
    let (account, time) = (text(event.account.as_deref()), text(time.as_deref()));
    let members = [
        ("id", &id),
        ("uid", &uid),
        ("type", &kind),
        ("time", &time),
        ("account", &account),
        ("data", &event.data),
    ];
    Document::object(members.into_iter())
}
