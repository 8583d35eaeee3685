//! What steps wait for, and which runs they start: event types, connections, workflows.

use super::calls::check_connection;
use super::with_pointer;
use crate::catalogue::Catalogue;
use crate::definition::{Action, Approve, ChildRun, Definition, Step, UNDO, WaitFor, check_input};
use crate::problem::{Problem, child};

pub(super) fn check(definition: &Definition, catalogue: &dyn Catalogue, problems: &mut Vec<Problem>) {
    let blocks = [&definition.steps, &definition.on_failure];
    for steps in blocks {
        inside(steps, None, catalogue, problems);
    }
    if !blocks.iter().any(|steps| can_undo(steps)) {
        blocks.iter().for_each(|steps| nothing_to_undo(steps, problems));
    }
}

/// Whether one of these steps, or of those inside, can be undone.
fn can_undo(steps: &[Step]) -> bool {
    steps
        .iter()
        .any(|step| !step.undo.is_empty() || step.labelled_blocks().into_iter().any(|(_, block)| can_undo(block)))
}

/// Every `compensate` of a workflow in which nothing can be undone.
fn nothing_to_undo(steps: &[Step], problems: &mut Vec<Problem>) {
    for step in steps {
        if matches!(step.action, Action::Compensate) {
            let message = "there is nothing to undo: no step of this workflow has `undo`";
            let problem = Problem::new(child(&step.pointer, "compensate"), "nothing_to_undo", message);
            problems.push(problem.suggest("give each step that it is to undo its `undo: [ … ]`, the steps that do so"));
        }
        for (_, block) in step.labelled_blocks() {
            nothing_to_undo(block, problems);
        }
    }
}

/// A question without words, as far as the document says what it will be.
fn approve(approve: &Approve, problems: &mut Vec<Problem>) {
    if let Some(place) = &approve.untitled_at {
        let message = "nothing is asked: the question is empty";
        let problem = Problem::new(place, "empty_question", message);
        problems.push(problem.suggest("say what is to be decided: `Refund {{ event.data.id }}?`"));
    }
}

/// `around`: what the steps stand in that leaves no place for a `compensate`.
fn inside(steps: &[Step], around: Option<&'static str>, catalogue: &dyn Catalogue, problems: &mut Vec<Problem>) {
    for step in steps {
        match &step.action {
            Action::WaitFor(wait) => wait_for(step, wait, catalogue, problems),
            Action::Approve(asked) => approve(asked, problems),
            Action::Run(run) => child_run(step, run, catalogue, problems),
            Action::Compensate => {
                if let Some(around) = around {
                    let message =
                        format!("a `compensate` undoes one step after the other and cannot stand in {around}");
                    let problem = Problem::new(child(&step.pointer, "compensate"), "misplaced_step", message);
                    problems.push(problem.suggest("put it into `catch` or `on_failure` around it"));
                }
            }
            _ => {}
        }
        let own = match step.action {
            Action::ForEach(_) => Some("a `for_each`"),
            Action::Parallel(_) => Some("a `parallel`"),
            _ => None,
        };
        for (label, block) in step.labelled_blocks() {
            let own = own.or_else(|| (label == UNDO).then_some("`undo`"));
            inside(block, own.or(around), catalogue, problems);
        }
    }
}

/// Whether the workflow exists and takes the input, as far as the document says what it will be.
fn child_run(step: &Step, run: &ChildRun, catalogue: &dyn Catalogue, problems: &mut Vec<Problem>) {
    let known = catalogue.workflows();
    if !known.contains(&run.workflow) {
        let message = format!("there is no workflow `{}`", run.workflow);
        let problem = Problem::new(child(&step.pointer, "run"), "unknown_workflow", message);
        problems.push(problem.did_you_mean(&run.workflow, known.iter().map(String::as_str)));
        return;
    }
    if let Some(schema) = catalogue.input_schema(&run.workflow) {
        let mut found = Vec::new();
        check_input(&schema, &run.input, &with_pointer(step), &mut found);
        let taker = format!("`{}` takes what its trigger says", run.workflow);
        problems.extend(found.into_iter().map(|problem| match problem.suggestion {
            Some(_) => problem,
            None => problem.suggest(taker.clone()),
        }));
    }
}

fn wait_for(step: &Step, wait: &WaitFor, catalogue: &dyn Catalogue, problems: &mut Vec<Problem>) {
    let place = child(&step.pointer, "wait_for");
    let connectors = catalogue.connectors();
    if !connectors.contains(&wait.connector) {
        let message = format!("there is no connector `{}`", wait.connector);
        let problem = Problem::new(child(&place, "event"), "unknown_connector", message);
        problems.push(problem.did_you_mean(&wait.connector, connectors.iter().map(String::as_str)));
        return;
    }
    if wait.kind == "*" {
        let message = format!(
            "`{}.*` is no event type; a `wait_for` waits for one type",
            wait.connector
        );
        let problem = Problem::new(child(&place, "event"), "unknown_event_type", message);
        problems.push(problem.suggest("name the type, such as `generic.order.paid`"));
        return;
    }
    let info = catalogue.event_type(&wait.connector, wait.connection.as_deref(), &wait.kind);
    if info.is_none() {
        let known = catalogue.event_types(&wait.connector);
        let message = format!("the connector `{}` has no event type `{}`", wait.connector, wait.kind);
        let problem = Problem::new(child(&place, "event"), "unknown_event_type", message);
        problems.push(problem.did_you_mean(&wait.kind, known.iter().map(String::as_str)));
    }
    if let Some(name) = &wait.connection {
        check_connection(name, &wait.connector, &child(&place, "connection"), catalogue, problems);
    }
}
