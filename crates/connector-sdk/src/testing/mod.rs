//! Runs recorded cases against a connector: arguments → expected request, canned answer → expected outcome,
//! signed webhook → expected events, and the forgeries of every signed webhook → refused.
//!
//! A case file is one YAML mapping: `cases` (a list), and for all of them `config` and `secret`. What a case
//! states is compared; what it leaves out is not. Nothing here sends or reads anything by itself.

mod call;
mod vectors;
mod webhook;

use serde_json::Value;

pub use vectors::{Selection, VectorOutcome, run_vectors, vector_providers};

use crate::connector::Connector;
use crate::fields::Fields;
use crate::pointer;
use crate::problem::{Problem, Problems};
use crate::yaml::parse_yaml;

/// How one case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseOutcome {
    /// The case's name.
    pub name: String,
    /// Its line in the file, 1-based.
    pub line: Option<usize>,
    /// What differed; `None` when nothing did.
    pub failure: Option<String>,
}

/// Runs every case of a file. `load` gives the text of files that cases name (`body_file`).
///
/// # Errors
/// [`Problem`]s when the file itself is not a case file. A case that fails is an outcome, not an error.
pub fn run_cases(
    connector: &Connector,
    yaml: &str,
    load: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<CaseOutcome>, Vec<Problem>> {
    let bad_yaml = |message: String, line: Option<usize>| {
        vec![Problem {
            pointer: String::new(),
            line,
            code: "bad_yaml",
            message,
            suggestion: None,
        }]
    };
    let documents = parse_yaml(yaml).map_err(|error| bad_yaml(error.message, Some(error.line)))?;
    let [document] = documents.as_slice() else {
        return Err(bad_yaml(
            format!("a case file is one YAML document, found {}", documents.len()),
            None,
        ));
    };
    let mut problems = Problems::default();
    let outcomes = run_all(connector, &document.value, load, &mut problems);
    problems
        .finish(outcomes)
        .map(|mut outcomes| {
            for (index, outcome) in outcomes.iter_mut().enumerate() {
                outcome.line = document.line_of(&format!("/cases/{index}"));
            }
            outcomes
        })
        .map_err(|mut list| {
            for problem in &mut list {
                problem.line = document.line_of(&problem.pointer);
            }
            list
        })
}

/// What a file states for all of its cases.
struct Shared<'a> {
    connector: &'a Connector,
    config: Value,
    secret: Option<&'a str>,
    load: &'a dyn Fn(&str) -> Option<String>,
}

fn run_all(
    connector: &Connector,
    file: &Value,
    load: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<Vec<CaseOutcome>> {
    let fields = Fields::open(file, "", &["config", "secret", "cases"], problems)?;
    let shared = Shared {
        connector,
        config: fields.get("config").cloned().unwrap_or(Value::Null),
        secret: fields.text("secret", problems),
        load,
    };
    for problem in connector.check_config(&shared.config) {
        problems.add(&format!("/config{}", problem.pointer), problem.code, problem.message);
    }
    let Some(cases) = fields.required("cases", problems)?.as_array() else {
        problems.add("/cases", "bad_type", "`cases` is a list");
        return None;
    };
    let mut outcomes = Vec::with_capacity(cases.len());
    for (index, case) in cases.iter().enumerate() {
        let place = pointer::join("/cases", &index.to_string());
        let is_webhook = case.get("webhook").is_some();
        let known: &[&str] = if is_webhook { &webhook::KEYS } else { &call::KEYS };
        let Some(fields) = Fields::open(case, &place, known, problems) else {
            continue;
        };
        let Some(name) = fields.required_text("name", problems) else {
            continue;
        };
        let result = if is_webhook {
            webhook::run(&shared, &fields, problems)
        } else {
            call::run(&shared, &fields, problems)
        };
        outcomes.push(CaseOutcome {
            name: name.to_owned(),
            line: None,
            failure: result.err(),
        });
    }
    Some(outcomes)
}

/// Both values in one line, for people.
fn differs(what: &str, wanted: &Value, found: &Value) -> String {
    format!("{what}: expected {wanted}, found {found}")
}

/// Compares when the case states something.
fn compare(what: &str, wanted: Option<&Value>, found: &Value) -> Result<(), String> {
    match wanted {
        Some(wanted) if wanted != found => Err(differs(what, wanted, found)),
        Some(_) | None => Ok(()),
    }
}
