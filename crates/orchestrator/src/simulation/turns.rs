//! Runs that wait for their turn: what a process hears of them, and what is noted for the laws.

use std::collections::{BTreeMap, BTreeSet};

use weir_storage::{AcceptOutcome, Answer, Fact, FactOutcome, RunRow, RunStatus, TurnAsk, TurnEvent, WriteError};
use weir_workflow_engine::RunId;

use super::flow::Flow;
use super::item::Item;
use super::rules::Broken;
use super::world::{Lawful, World, unread};
use crate::driver::ActiveRun;
use crate::turns::{self, Look};

/// What happened to runs, in its order: each thing has a number higher than those before.
#[derive(Debug, Default)]
pub(super) struct Order {
    last: u64,
    /// Runs of events as these were accepted.
    pub(super) accepted: BTreeMap<RunId, u64>,
    /// When each run was driven for the first time.
    pub(super) began: BTreeMap<RunId, u64>,
    /// When its end was on disk.
    pub(super) over: BTreeMap<RunId, u64>,
    /// Runs that waited and were let start.
    pub(super) released: BTreeSet<RunId>,
    /// When a person let the lane go on that it kept.
    pub(super) let_go: BTreeMap<RunId, u64>,
    /// Runs of which nobody hears, when that rule is broken.
    lost: BTreeSet<RunId>,
}

/// What a fact says, to be noted when it is on disk.
pub(super) enum News {
    Accepted(Vec<RunId>),
    Over(RunId),
    LetGo(RunId),
    Nothing,
}

impl News {
    pub(super) fn of(fact: &Fact) -> Self {
        match fact {
            Fact::Accept(accepted) => Self::Accepted(accepted.runs.iter().map(|run| run.id).collect()),
            Fact::Run(row) if row.update.as_ref().is_some_and(|update| !update.status.is_open()) => Self::Over(row.run),
            Fact::Turn(ask) if ask.event == TurnEvent::Release => Self::LetGo(ask.run),
            _ => Self::Nothing,
        }
    }
}

impl Order {
    pub(super) fn note(&mut self, news: News, answer: &Answer) {
        self.last += 1;
        self.released.extend(&answer.released);
        match news {
            News::Accepted(runs) if answer.result == Ok(FactOutcome::Accepted(AcceptOutcome::New)) => {
                self.accepted.extend(runs.into_iter().map(|run| (run, self.last)));
            }
            News::Over(run) if answer.result.is_ok() => _ = self.over.entry(run).or_insert(self.last),
            News::LetGo(run) if answer.result.is_ok() => _ = self.let_go.entry(run).or_insert(self.last),
            News::Accepted(_) | News::Over(_) | News::LetGo(_) | News::Nothing => {}
        }
    }

    pub(super) fn begins(&mut self, run: RunId) {
        self.last += 1;
        self.began.entry(run).or_insert(self.last);
    }

    pub(super) fn is_lost(&self, run: RunId) -> bool {
        self.lost.contains(&run)
    }
}

impl World<'_> {
    /// Writes a fact with the troubles that a connection to a database has.
    pub(super) fn write_in_trouble(&mut self, process: usize, fact: Fact) -> Lawful<Answer> {
        let mishap = if self.calm { 100 } else { self.chance.below(100) };
        match mishap {
            0 | 1 => Ok(Answer::lost(WriteError::Unavailable)),
            2 | 3 => {
                let answer = self.write(process, fact)?;
                let error = answer.result.err().unwrap_or(WriteError::Unknown);
                if error == WriteError::Unknown {
                    self.processes[process].rescan = true;
                }
                Ok(Answer::lost(error))
            }
            _ => self.write(process, fact),
        }
    }

    /// Tells the process what came of a fact: runs that have got mail, runs that may start, runs to be looked at later.
    /// What it does not hear of mail, its heartbeat finds.
    pub(super) fn hand_over(&mut self, process: usize, answer: &Answer) {
        for run in &answer.released {
            if self.broken == Broken::HandOverLost {
                self.order.lost.insert(*run);
            }
            self.soon(Item::Load(process, *run));
        }
        for (run, due) in &answer.due {
            self.at((*due).max(self.now), Item::Load(process, *run));
        }
        for run in &answer.mailed {
            if !self.chance.percent(20) {
                self.soon(Item::Load(process, *run));
            }
        }
    }

    /// The process looks at a run that waits.
    pub(super) fn look_at_turn(&mut self, process: usize, row: &RunRow) -> Lawful {
        match turns::at(row, self.now) {
            Look::Nothing => Ok(()),
            Look::Later(due) => {
                self.at(due, Item::Load(process, row.id));
                Ok(())
            }
            Look::Tell(_) if self.broken == Broken::DueIgnored => Ok(()),
            Look::Tell(ask) => self.tell(process, ask),
        }
    }

    /// Storage is told that a time has come, or that a person lets a lane go on.
    pub(super) fn tell(&mut self, process: usize, ask: TurnAsk) -> Lawful {
        if self.in_charge() == Some(process) && self.dies_here() {
            self.crash(false);
            return Ok(());
        }
        let answer = self.write_in_trouble(process, Fact::Turn(ask))?;
        self.note(|| {
            format!(
                "{:?} of {}: {:?}, start {:?}",
                ask.event, ask.run, answer.result, answer.released
            )
        });
        if self.in_charge() == Some(process) && self.dies_here() {
            self.crash(false);
            return Ok(());
        }
        self.hand_over(process, &answer);
        Ok(())
    }

    /// Whether a run that must wait is launched anyway, because a rule is broken.
    pub(super) fn jumps_the_queue(&self, run: &ActiveRun) -> bool {
        let flow = self.flow_of(&run.state.head().workflow_name);
        let (lane, limit, rate) = (flow.lane.is_some(), flow.concurrency.is_some(), flow.throttle.is_some());
        match self.broken {
            Broken::LaneIgnored => lane && !flow.gathers,
            Broken::LimitIgnored => limit && !lane && !flow.gathers,
            Broken::RateIgnored => rate && !lane && !limit && !flow.gathers,
            Broken::MergedBegins => flow.gathers,
            _ => false,
        }
    }

    pub(super) fn flow_of(&self, workflow: &str) -> Flow {
        let found = self.workflows.iter().find(|written| written.name == workflow);
        found.map(|written| written.flow.clone()).unwrap_or_default()
    }

    /// Runs that failed, whatever became of their lanes.
    pub(super) fn failed_runs(&mut self) -> Lawful<Vec<RunId>> {
        let rows = self.store.runs().map_err(unread)?;
        let failed = rows.iter().filter(|row| row.status == RunStatus::Failed);
        Ok(failed.map(|row| row.id).collect())
    }

    /// Runs that are over.
    pub(super) fn ended_runs(&mut self) -> Lawful<Vec<RunId>> {
        let rows = self.store.runs().map_err(unread)?;
        let ended = rows.iter().filter(|row| !row.status.is_open());
        Ok(ended.map(|row| row.id).collect())
    }
}
