//! The laws of flow control: lanes in order, limits never exceeded, nobody who is merged begins.

use std::collections::{BTreeMap, BTreeSet};

use weir_storage::{RunRow, RunStatus};
use weir_workflow_engine::{EventSource, RunId};

use super::flow::Flow;
use super::world::{Broke, Lawful, WORKSPACE, World, broke, unread};

/// A run of a workflow with flow control.
struct Member {
    row: RunRow,
    key: String,
    /// The number of its place in what happened, when it was driven for the first time; `None`: it never was.
    began: Option<u64>,
    over: u64,
}

/// The runs of one workflow that have to pass its gates, in the order in which they began.
pub(super) struct Members {
    flow: Flow,
    runs: Vec<Member>,
}

impl World<'_> {
    /// All laws of flow control, at the end of a world.
    pub(super) fn turns_were_kept(&mut self) -> Lawful {
        let workflows: Vec<String> = self.workflows.iter().map(|written| written.name.clone()).collect();
        for name in workflows {
            let flow = self.flow_of(&name);
            if !flow.is_used() {
                continue;
            }
            let members = self.members(&name, flow)?;
            self.lanes_were_kept(&members)?;
            limits_were_kept(&members)?;
            rates_were_kept(&members)?;
        }
        self.somebody_stands_for_the_merged()
    }

    pub(super) fn members(&mut self, name: &str, flow: Flow) -> Lawful<Members> {
        let events = self.store.events().map_err(unread)?;
        let mut keys = BTreeMap::new();
        for event in events.iter().filter(|event| event.row.source != EventSource::Workflow) {
            let body: serde_json::Value =
                serde_json::from_slice(&event.row.body).map_err(|error| Broke(error.to_string()))?;
            let key = body["data"]["key"].as_str().unwrap_or_default().to_owned();
            keys.insert(event.row.id, key);
        }
        let workflow = self.snapshot.workflow(WORKSPACE, name).map(|workflow| workflow.row.id);
        let mut runs = Vec::new();
        for row in self.store.runs().map_err(unread)? {
            if Some(row.workflow_id) != workflow {
                continue;
            }
            let Some(key) = keys.get(&row.event_id).cloned() else {
                continue;
            };
            runs.push(Member {
                key,
                began: self.order.began.get(&row.id).copied(),
                over: self.order.over.get(&row.id).copied().unwrap_or(u64::MAX),
                row,
            });
        }
        runs.sort_by_key(|member| member.began);
        Ok(Members { flow, runs })
    }

    /// One run at a time, a failed one that keeps its lane included, and events in the order of acceptance.
    fn lanes_were_kept(&self, members: &Members) -> Lawful {
        let Some(lane) = members.flow.lane else { return Ok(()) };
        for group in by_key(members, true) {
            let mut free = 0;
            let mut last = 0;
            for member in &group {
                let (run, Some(began)) = (member.row.id, member.began) else {
                    continue;
                };
                if began < free {
                    return broke("in a lane one run is in progress at a time", run);
                }
                free = match lane.holds && member.row.status == RunStatus::Failed {
                    true => self.held_until(&group, member),
                    false => member.over,
                };
                if members.flow.gathers || member.row.replay_of.is_some() {
                    continue;
                }
                let accepted = self.order.accepted.get(&run).copied().unwrap_or_default();
                if accepted < last {
                    return broke("in a lane runs begin in the order of acceptance", run);
                }
                last = accepted;
            }
        }
        Ok(())
    }

    /// Until when a failed run keeps its lane: a person lets it go on, or a replay takes its place.
    fn held_until(&self, group: &[&Member], failed: &Member) -> u64 {
        let replays = group
            .iter()
            .filter(|member| member.row.root_id == failed.row.root_id && member.row.id != failed.row.id)
            .map(|member| member.began.unwrap_or(member.over).min(member.over));
        let let_go = self.order.let_go.get(&failed.row.id).copied();
        let ends = replays.chain(let_go).filter(|end| *end > failed.over);
        ends.min().unwrap_or(u64::MAX)
    }

    /// Who is merged or was put aside never begins, and a run that ended stands for who is merged.
    fn somebody_stands_for_the_merged(&mut self) -> Lawful {
        let rows = self.store.runs().map_err(unread)?;
        let merged: BTreeMap<RunId, RunId> = self.store.merged().map_err(unread)?.into_iter().collect();
        for row in &rows {
            let never = row.status == RunStatus::Merged || row.error_code.as_deref() == Some("lane_full");
            if (never || merged.contains_key(&row.id)) && self.order.began.contains_key(&row.id) {
                return broke("who is merged or put aside never begins", row.id);
            }
            if row.status == RunStatus::Merged && !merged.contains_key(&row.id) {
                return broke("who is merged names the run that stands for it", row.id);
            }
        }
        for first in merged.keys() {
            let mut seen = BTreeSet::new();
            let mut run = *first;
            while let Some(into) = merged.get(&run) {
                if !seen.insert(run) {
                    return broke(
                        "a run that ended stands for who is merged",
                        format!("{first} in a circle"),
                    );
                }
                run = *into;
            }
            let of = |id: RunId| rows.iter().find(|row| row.id == id);
            let stands = of(run).zip(of(*first)).is_some_and(|(row, first)| {
                !row.status.is_open() && row.status != RunStatus::Merged && row.workflow_id == first.workflow_id
            });
            if !stands {
                return broke(
                    "a run that ended stands for who is merged",
                    format!("{run} for {first}"),
                );
            }
        }
        Ok(())
    }
}

/// The runs of each key, in the order in which they began; all of them together when the gate has no key.
fn by_key(members: &Members, keyed: bool) -> Vec<Vec<&Member>> {
    let mut groups: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
    for member in &members.runs {
        let key = if keyed { member.key.as_str() } else { "" };
        groups.entry(key).or_default().push(member);
    }
    groups.into_values().collect()
}

/// Never more runs in progress than the limit says.
pub(super) fn limits_were_kept(members: &Members) -> Lawful {
    let Some(limit) = members.flow.concurrency else {
        return Ok(());
    };
    for group in by_key(members, limit.keyed) {
        let mut inside: Vec<u64> = Vec::new();
        for member in group {
            let Some(began) = member.began else { continue };
            inside.retain(|over| *over > began);
            inside.push(member.over);
            if inside.len() > limit.most {
                return broke("no more runs are in progress than a limit says", member.row.id);
            }
        }
    }
    Ok(())
}

/// Never more starts in a period than the throttle says, by the times in the database.
fn rates_were_kept(members: &Members) -> Lawful {
    let Some(throttle) = members.flow.throttle else {
        return Ok(());
    };
    for group in by_key(members, throttle.starts.keyed) {
        let begun = group.iter().filter(|member| member.began.is_some());
        let mut starts: Vec<i64> = begun.map(|member| member.row.started_at.as_unix_ms()).collect();
        starts.sort_unstable();
        let pairs = starts.iter().zip(starts.iter().skip(throttle.starts.most));
        for (first, next) in pairs {
            if next - first < throttle.per_ms {
                let detail = format!("{} ms, and the period has {}", next - first, throttle.per_ms);
                return broke("no more runs start in a period than a throttle says", detail);
            }
        }
    }
    Ok(())
}
