//! What people want of runs: to cancel, pause, resume, decide, replay, and to let lanes go on.

use std::sync::Arc;
use std::time::Duration;

use weir_storage::{
    Fact, FactOutcome, Request, RequestOutcome, RunCommit, RunOwner, RunStatus, TurnAsk, TurnEvent, WaitKind,
};
use weir_workflow_engine::{RunHead, RunId, RunState};

use super::item::{Item, Place, Wish};
use super::world::{Broke, Lawful, WORKSPACE, World, broke, unread};
use crate::driver::{ActiveRun, First};
use crate::ingest::accept::new_run;
use crate::mail::Asked;
use crate::recovery::restore_event;
use crate::turns;

const HOUR: Duration = Duration::from_secs(3600);

impl World<'_> {
    /// Somebody wants something of a run.
    pub(super) fn ask(&mut self, wish: &Wish) -> Lawful {
        let Some(process) = self.in_charge() else { return Ok(()) };
        self.asked += 1;
        let by = format!("person-{}", self.asked);
        let reason = "they wanted it".to_owned();
        let (run, asked, answers) = match wish {
            Wish::Something => return self.ask_something(),
            Wish::Replay(run) => return self.replay(*run),
            Wish::Release(run) => return self.release(process, *run),
            Wish::Cancel(run) => (*run, Asked::Cancel { by, reason }, None),
            Wish::Pause(run) => (*run, Asked::Pause { by, reason }, None),
            Wish::Resume(run) => (*run, Asked::Resume { by }, None),
            Wish::Decide(run, step) => {
                let asked = Asked::Decision {
                    step: step.clone(),
                    approved: self.chance.percent(70),
                    by,
                    note: String::new(),
                };
                (*run, asked, Some(step.clone()))
            }
        };
        let request = Request {
            id: self.processes[process].ids.next_raw(self.now),
            workspace: WORKSPACE,
            run,
            body: asked.to_body(),
            at: self.now,
            answers,
            audit: None,
        };
        let answer = self.write(process, Fact::Request(request))?;
        if let (Wish::Decide(run, step), Ok(FactOutcome::Request(RequestOutcome::Delivered))) = (wish, &answer.result) {
            self.decided.insert((*run, step.clone()), self.now);
        }
        if self.dies_here() {
            self.crash(false);
            return Ok(());
        }
        self.hand_over(process, &answer);
        Ok(())
    }

    fn ask_something(&mut self) -> Lawful {
        let failed = self.failed_runs()?;
        if !failed.is_empty() && self.replays_left > 0 && self.chance.percent(20) {
            self.replays_left -= 1;
            let run = *self.chance.pick(&failed);
            return self.ask(&Wish::Replay(run));
        }
        let runs = self.store.runs().map_err(|error| Broke(error.to_string()))?;
        let open: Vec<RunId> = runs
            .iter()
            .filter(|run| run.status.is_open())
            .map(|run| run.id)
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        let run = *self.chance.pick(&open);
        if self.chance.percent(30) {
            return self.ask(&Wish::Cancel(run));
        }
        let pause = self.within(30 * HOUR);
        self.after(pause, Item::Ask(Wish::Resume(run)));
        self.ask(&Wish::Pause(run))
    }

    /// A person has a run replayed, after having seen what that would do.
    fn replay(&mut self, run: RunId) -> Lawful {
        let Some(process) = self.in_charge() else { return Ok(()) };
        let rows = self.store.runs().map_err(|error| Broke(error.to_string()))?;
        let Some(row) = rows.iter().find(|row| row.id == run) else {
            return broke("a run that ended is there", run);
        };
        let family_is_open = rows
            .iter()
            .any(|other| other.root_id == row.root_id && other.status.is_open());
        if family_is_open || row.status != RunStatus::Failed {
            return Ok(());
        }
        let stored = self
            .store
            .event(row.event_id)
            .map_err(|error| Broke(error.to_string()))?;
        let Some(stored) = stored else {
            return broke("a run has its event", run);
        };
        let snapshot = Arc::clone(&self.snapshot);
        let workflow = snapshot.workflow_by_id(WORKSPACE, row.workflow_id);
        let Some(version) = workflow.and_then(|workflow| workflow.published.clone()) else {
            return broke("a run has its version", run);
        };
        let mut event = restore_event(&snapshot, &stored.row).map_err(Broke)?;
        if version.plan.is_batched() {
            let others = self.events_of_batch(row.root_id)?;
            event = event.with_batch(&others);
        }
        let turn = match turns::of(&snapshot, WORKSPACE, &version, &event, self.now) {
            Ok(turn) => turn,
            Err(refused) => return broke("every key can be computed", refused.message),
        };
        let head = RunHead {
            id: RunId::from_raw(self.processes[process].ids.next_raw(self.now)),
            root_id: row.root_id,
            replay_of: Some(run),
            workspace: WORKSPACE,
            workflow: row.workflow_id,
            workflow_name: version.plan.name().to_owned(),
            version: row.version_id,
            version_number: version.number,
            dedupe_scope: stored.dedupe.scope.clone(),
            dedupe_key: stored.dedupe.key.clone(),
            started_at: self.now,
        };
        let ledger = self.family(row.root_id, None)?;
        let state = RunState::new(head, Arc::new(event), &version.plan).with_ledger(ledger);
        let active = ActiveRun {
            turn,
            state,
            version,
            next_seq: 0,
            first: First::Started,
            mail: Vec::new(),
            refused: None,
            traceparent: None,
        };
        let fact = Fact::Start(vec![new_run(&active, RunOwner::ThisNode)]);
        let answer = self.write_in_trouble(process, fact)?;
        if answer.result.is_err() {
            return Ok(());
        }
        if self.dies_here() {
            self.crash(false);
            return Ok(());
        }
        self.hand_over(process, &answer);
        self.launch_if_free(process, active, &answer);
        Ok(())
    }

    /// A person lets a lane go on, if the run still keeps one.
    fn release(&mut self, process: usize, run: RunId) -> Lawful {
        let held = self.store.held_lanes().map_err(unread)?;
        let Some((run, workflow)) = held.into_iter().find(|(holder, _)| *holder == run) else {
            return Ok(());
        };
        let ask = TurnAsk {
            run,
            workflow,
            at: self.now,
            event: TurnEvent::Release,
        };
        self.tell(process, ask)
    }

    /// People see what a run asks them.
    pub(super) fn ask_about(&mut self, place: Place, row: &RunCommit) {
        let asked: Vec<String> = row
            .mail
            .iter()
            .flat_map(|change| &change.opened)
            .filter(|wait| wait.kind == WaitKind::Approval)
            .map(|wait| wait.step.clone())
            .collect();
        for step in asked {
            if self.chance.percent(75) {
                let pause = self.within(Duration::from_secs(2 * 3600));
                self.after(pause, Item::Ask(Wish::Decide(place.run, step)));
            }
        }
    }

    /// People see that a run failed: they have it replayed, or let its lane go on.
    pub(super) fn see_failure(&mut self, run: RunId) {
        if self.replays_left > 0 && self.chance.percent(60) {
            self.replays_left -= 1;
            let pause = self.within(26 * HOUR);
            self.after(pause, Item::Ask(Wish::Replay(run)));
        }
        if self.chance.percent(30) {
            let pause = self.within(2 * HOUR);
            self.after(pause, Item::Ask(Wish::Release(run)));
        }
    }

    /// Nothing goes wrong from now on, and whoever had a run stand still lets it go on.
    pub(super) fn calm_down(&mut self) -> Lawful {
        self.calm = true;
        self.note(|| "it becomes calm".to_owned());
        for told in 0..self.told.len() {
            self.deliver_again(told);
        }
        Ok(())
    }

    /// Whether people still keep a run or a lane from going on; they let it go.
    pub(super) fn is_anybody_kept(&mut self) -> Lawful<bool> {
        let runs = self.store.runs().map_err(unread)?;
        let paused = runs.iter().filter(|run| run.status == RunStatus::Paused);
        let mut wishes: Vec<Wish> = paused.map(|run| Wish::Resume(run.id)).collect();
        let held = self.store.held_lanes().map_err(unread)?;
        wishes.extend(held.into_iter().map(|(run, _)| Wish::Release(run)));
        let any = !wishes.is_empty();
        for wish in wishes {
            self.soon(Item::Ask(wish));
        }
        Ok(any)
    }
}
