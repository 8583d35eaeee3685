//! Runs that wait for their turn.

use serde_json::json;
use weir_workflow_engine::{Mail, Status, attend};

use crate::support::{Driver, KEYED, plan, seconds};

#[test]
fn a_run_that_waits_for_its_turn_is_held_let_go_on_and_canceled_and_begins_nothing() {
    let plan = plan(
        "  - { id: seen, set: { is: 1 } }\ntimeout: 1s\non_failure:\n  - { id: told, call: http.request, connection: crm, with: { method: POST } }",
    );
    let driver = Driver::new(plan, KEYED, json!({}));
    let (mut run, plan) = (driver.run.clone(), &driver.plan);
    // Long after its time limit would be over, had it begun.
    let later = driver.now.plus(seconds(3600));
    let pause = Mail::Pause { by: "ada", reason: "" };
    let resume = Mail::Resume { by: "ada" };
    let cancel = Mail::Cancel { by: "ada", reason: "" };
    let steps: [(&Mail<'_>, &[&str], Status); 6] = [
        (&resume, &[], Status::Running),
        (&pause, &["paused"], Status::Paused),
        (&pause, &[], Status::Paused),
        (&resume, &["resumed"], Status::Running),
        (&cancel, &["cancel_asked", "finished"], Status::Canceled),
        (&pause, &[], Status::Canceled),
    ];
    for (mail, wanted, status) in steps {
        let decision = attend(plan, &run, &driver.world, mail, later);
        let kinds: Vec<String> = decision
            .entries
            .iter()
            .map(|entry| {
                serde_json::to_value(entry)
                    .unwrap()
                    .as_object()
                    .unwrap()
                    .keys()
                    .next()
                    .unwrap()
                    .clone()
            })
            .collect();
        assert_eq!(
            (kinds, decision.commands.len(), &decision.status),
            (wanted.iter().map(ToString::to_string).collect(), 0, &status),
            "{mail:?}"
        );
        for entry in &decision.entries {
            run.fold(entry);
        }
    }
}
