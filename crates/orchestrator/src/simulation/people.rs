//! What people want of runs: to cancel, pause, resume, decide, replay, and to let lanes go on.

use std::time::Duration;

use weir_storage::{Fact, FactOutcome, Request, RequestOutcome, RunCommit, RunStatus, TurnAsk, TurnEvent, WaitKind};
use weir_workflow_engine::RunId;

use super::item::{Item, Place, Wish};
use super::world::{Broke, Lawful, WORKSPACE, World, unread};
use crate::mail::Asked;

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
        // Mostly of what failed; what came to a good end can be done again, too.
        let ended = match self.chance.percent(70) {
            true => self.failed_runs()?,
            false => self.ended_runs()?,
        };
        if !ended.is_empty() && self.replays_left > 0 && self.chance.percent(25) {
            self.replays_left -= 1;
            let run = *self.chance.pick(&ended);
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
