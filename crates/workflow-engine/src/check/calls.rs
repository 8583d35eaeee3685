//! What the `call` steps call: connectors, operations, connections, arguments.

use serde_json::Value;

use super::{CallResolution, Resolution, with_pointer};
use crate::catalogue::{Catalogue, OperationInfo};
use crate::definition::{Action, Call, Step};
use crate::problem::{Problem, child};

/// Resolves every call, in the order of the document.
pub(super) fn resolve(
    steps: &[Step],
    catalogue: &dyn Catalogue,
    resolution: &mut Resolution,
    problems: &mut Vec<Problem>,
) {
    for step in steps {
        if let Action::Call(call) = &step.action
            && let Some(resolved) = resolve_call(step, call, catalogue, resolution, problems)
        {
            resolution.calls.insert(step.id.clone(), resolved);
        }
        for block in step.blocks() {
            resolve(block, catalogue, resolution, problems);
        }
    }
}

fn resolve_call(
    step: &Step,
    call: &Call,
    catalogue: &dyn Catalogue,
    resolution: &Resolution,
    problems: &mut Vec<Problem>,
) -> Option<CallResolution> {
    let (connector, operation) = call.call.split_once('.')?;
    let place = child(&step.pointer, "call");
    let connectors = catalogue.connectors();
    if !connectors.iter().any(|known| known == connector) {
        let problem = Problem::new(
            place,
            "unknown_connector",
            format!("there is no connector `{connector}`"),
        );
        problems.push(problem.did_you_mean(connector, connectors.iter().map(String::as_str)));
        return None;
    }
    let spoken = match (&call.connection, &resolution.connector) {
        (Some(name), _) => Some(name.as_str()),
        (None, Some(trigger)) if trigger == connector => resolution.connection.as_deref(),
        (None, _) => None,
    };
    match catalogue.operation(connector, spoken, operation) {
        Some(info) => {
            arguments(step, call, &info, problems);
            if call.all_max.is_some() && !info.paged {
                let message = format!("`all` needs pages, and `{}` has none", call.call);
                problems.push(Problem::new(child(&step.pointer, "all"), "not_paged", message));
            }
        }
        None => {
            let known = catalogue.operations(connector);
            let message = format!("the connector `{connector}` has no operation `{operation}`");
            let problem = Problem::new(place, "unknown_operation", message);
            let problem = problem.did_you_mean(operation, known.iter().map(String::as_str));
            problems.push(match problem.suggestion {
                Some(_) => problem,
                None => problem.suggest(format!("it has {}", known.join(", "))),
            });
        }
    }
    let connection = match (&call.connection, &resolution.connector) {
        (Some(name), _) => {
            check_connection(
                name,
                connector,
                &child(&step.pointer, "connection"),
                catalogue,
                problems,
            );
            Some(name.clone())
        }
        (None, Some(trigger)) if trigger == connector => resolution.connection.clone(),
        (None, _) => {
            let fitting: Vec<String> = catalogue
                .connections()
                .into_iter()
                .filter(|name| catalogue.connection(name).as_deref() == Some(connector))
                .collect();
            let message = format!("the trigger is not of `{connector}`, so this call must name its `connection`");
            let problem = Problem::new(&step.pointer, "missing_connection", message);
            problems.push(match fitting.as_slice() {
                [] => problem.suggest(format!("create a connection of `{connector}` first")),
                names => problem.suggest(format!("connections of `{connector}`: {}", names.join(", "))),
            });
            None
        }
    };
    Some(CallResolution {
        connection,
        connector: connector.to_owned(),
        operation: operation.to_owned(),
    })
}

/// Whether a connection exists and is of the right connector.
pub(super) fn check_connection(
    name: &str,
    connector: &str,
    pointer: &str,
    catalogue: &dyn Catalogue,
    problems: &mut Vec<Problem>,
) {
    match catalogue.connection(name) {
        Some(found) if found == connector => {}
        Some(found) => {
            let message = format!("the connection `{name}` is of `{found}`, not of `{connector}`");
            problems.push(Problem::new(pointer, "wrong_connection", message));
        }
        None => {
            let known = catalogue.connections();
            let problem = Problem::new(
                pointer,
                "unknown_connection",
                format!("there is no connection `{name}`"),
            );
            problems.push(problem.did_you_mean(name, known.iter().map(String::as_str)));
        }
    }
}

fn arguments(step: &Step, call: &Call, info: &OperationInfo, problems: &mut Vec<Problem>) {
    let place = with_pointer(step);
    let is_given = |name: &str| call.arguments.iter().any(|(given, _)| given == name);
    for name in info.required.iter().filter(|name| !is_given(name)) {
        let message = format!("`{}` needs the argument `{name}`", call.call);
        problems.push(Problem::new(&place, "missing_argument", message));
    }
    for (name, value) in &call.arguments {
        if let (Some(value), Some(allowed)) = (value, info.allowed.get(name))
            && !allowed.contains(value)
        {
            let names: Vec<String> = allowed.iter().map(plain).collect();
            let message = format!("`{}` takes no {name} `{}`", call.call, plain(value));
            let problem = Problem::new(child(&place, name), "value_not_allowed", message);
            problems.push(problem.suggest(format!("it takes {}", names.join(", "))));
        }
    }
    let Some(known) = &info.known else { return };
    for (name, _) in call.arguments.iter().filter(|(name, _)| !known.contains(name)) {
        let message = format!("`{}` has no argument `{name}`; it has {}", call.call, known.join(", "));
        let problem = Problem::new(child(&place, name), "unknown_argument", message);
        problems.push(problem.did_you_mean(name, known.iter().map(String::as_str)));
    }
}

/// A value as it stands in YAML.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
