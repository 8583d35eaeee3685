//! Random histories of runs at gates, with nodes that die.

use std::collections::{BTreeMap, BTreeSet};

use weir_storage::{Fact, RunStatus};
use weir_workflow_engine::RunId;

use super::{accepted, empty, end, lane, limit};
use crate::support::{Bed, Node};

/// Numbers that look random and come out the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides).unwrap()).unwrap()
    }
}

/// Two nodes on PostgreSQL, one on SQLite; they accept, finish, die and come back, and in the end all is done, each run
/// once, in the order of its lane.
pub(super) async fn random_histories_come_to_an_end(bed: &Bed) {
    let mut dice = Dice(0x5eed_0000_0000_0001 | u64::from(bed.is_postgres()) << 8);
    let names: &[&str] = if bed.is_postgres() { &["a", "b"] } else { &["a"] };
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(bed.node(name).await);
    }
    let lanes = ["x", "y", "z"];
    let mut accepted_in: BTreeMap<&str, Vec<RunId>> = BTreeMap::new();
    let mut finished: Vec<RunId> = Vec::new();
    let mut all: BTreeSet<RunId> = BTreeSet::new();
    for round in 0..60 {
        let node = dice.roll(nodes.len());
        match dice.roll(8) {
            0 if round > 5 => {
                // As after a kill: nobody says goodbye. Its runs are its own again under the same name.
                let dead = nodes.remove(node);
                let name = dead.identity.name.clone();
                if bed.is_postgres() {
                    dead.task.abort();
                    drop(dead);
                } else {
                    // The file lets nobody in before.
                    dead.stop().await;
                }
                nodes.push(bed.node(&name).await);
            }
            1..4 => {
                let mut pending = Vec::new();
                for number in 0..=dice.roll(6) {
                    let name = lanes[dice.roll(lanes.len())];
                    let gates = vec![lane(name, false, 100, false), limit(2)];
                    let (accepted, _) = accepted(bed, &format!("{round}.{number}"), 0, gates);
                    accepted_in.entry(name).or_default().push(accepted.runs[0].id);
                    all.insert(accepted.runs[0].id);
                    pending.push(nodes[node].submit(Fact::Accept(accepted)));
                }
                for pending in pending {
                    pending.await.unwrap();
                }
            }
            _ => finished.extend(finish_some(&nodes[node], &mut dice).await),
        }
        let inside = bed.number("SELECT count(*) FROM run WHERE status = 0").await;
        assert!(inside <= 2, "{inside} runs in progress in round {round}");
    }
    for _ in 0..1000 {
        if finished.len() == all.len() {
            break;
        }
        for node in &nodes {
            finished.extend(finish_some(node, &mut dice).await);
        }
    }
    assert_eq!(
        finished.iter().copied().collect::<BTreeSet<_>>(),
        all,
        "somebody waits for ever"
    );
    assert_eq!(finished.len(), all.len(), "a run was done twice");
    for (name, runs) in accepted_in {
        let order: Vec<RunId> = finished.iter().copied().filter(|run| runs.contains(run)).collect();
        assert_eq!(order, runs, "lane {name}");
    }
    empty(bed).await;
}

/// What a node does with the open runs that are its own.
async fn finish_some(node: &Node, dice: &mut Dice) -> Vec<RunId> {
    let open = node.store.run_open_ids(&node.identity, None, 100).await.unwrap();
    let chosen: Vec<RunId> = open.into_iter().filter(|_| dice.roll(3) > 0).collect();
    let pending: Vec<_> = chosen
        .iter()
        .map(|run| node.submit(end(*run, 0, RunStatus::Succeeded)))
        .collect();
    for pending in pending {
        pending.await.unwrap();
    }
    chosen
}
