//! What the steps of a workflow wait for from outside: events that arrive, people who decide.

use std::collections::BTreeSet;

use crate::correlation::{self, Correlation};
use crate::definition::{Action, Definition, Step};

impl Definition {
    /// What its steps wait for: every event of these types is looked at when it arrives.
    pub fn correlations(&self) -> Vec<Correlation> {
        let mut found = BTreeSet::new();
        self.each(&mut |step| {
            if let Action::WaitFor(wait) = &step.action {
                found.insert(Correlation {
                    connector: wait.connector.clone(),
                    kind: wait.kind.clone(),
                    key: correlation::source(&wait.key),
                });
            }
        });
        found.into_iter().collect()
    }

    /// The names of those who may decide what its steps ask, as far as a step names them.
    pub fn deciders(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.each(&mut |step| {
            if let Action::Approve(approve) = &step.action {
                found.extend(approve.by.iter().cloned());
            }
        });
        found
    }

    /// Looks at each step, wherever it stands.
    fn each(&self, look: &mut impl FnMut(&Step)) {
        fn inside(steps: &[Step], look: &mut impl FnMut(&Step)) {
            for step in steps {
                look(step);
                step.blocks().into_iter().for_each(|block| inside(block, look));
            }
        }
        inside(&self.steps, look);
        inside(&self.on_failure, look);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_waited_for_is_found_wherever_it_stands() {
        let definition = json!({
            "name": "w",
            "on": { "event": "generic.order" },
            "steps": [
                { "id": "each", "for_each": "{{ event.data }}", "do": [
                    { "id": "paid", "wait_for": { "event": "generic.paid", "key": "{{ arrived.id }}", "equals": "{{ item }}" },
                      "on_timeout": [{ "id": "ok", "approve": { "title": "Now?", "by": ["sales", "finance"] } }] },
                ] },
            ],
            "on_failure": [{ "id": "seen", "approve": { "title": "Seen?", "by": ["ops"] } }],
        });
        let definition = Definition::parse(&definition).unwrap();
        let kinds = definition.correlations().into_iter().map(|found| found.kind);
        assert_eq!(kinds.collect::<Vec<_>>(), ["paid"]);
        assert_eq!(
            definition.deciders().into_iter().collect::<Vec<_>>(),
            ["finance", "ops", "sales"]
        );
    }
}
