//! `weir connector check`: reads manifests the way `weir serve --connectors` does, and prints what is wrong with them.

use crate::failure::{EXIT_FAILURE, Failure};
use crate::output;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use weir_connector_sdk::{Connector, Problem};
use weir_orchestrator::registry::{Registry, RegistryError};

/// Prints every problem of manifests, and of each manifest in folders; with `as_json` an object in a line for each.
pub(crate) fn check(paths: &[PathBuf], as_json: bool) -> anyhow::Result<ExitCode> {
    let mut manifests = Vec::new();
    for path in paths {
        manifests.extend(manifests_of(path)?);
    }
    let mut broken = 0_usize;
    for path in &manifests {
        let checked = load(path)?;
        broken += usize::from(checked.is_err());
        if as_json {
            output::document(as_object(path, &checked));
        } else {
            print(path, &checked);
        }
    }
    if broken > 0 {
        output::remark(format!("{broken} of {} manifests cannot be used", manifests.len()));
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    Ok(ExitCode::SUCCESS)
}

/// The manifests that a path stands for: itself, or those of a folder.
fn manifests_of(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let found = files_of(path, is_manifest)?;
    if found.is_empty() {
        return Err(Failure::usage(format!("there is no manifest in {}", path.display()))
            .fix("manifests are files that end in .yaml")
            .into());
    }
    Ok(found)
}

/// Whether a file of this name is taken for a manifest.
pub(super) fn is_manifest(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// The files of a folder whose names fit, sorted.
pub(super) fn files_of(folder: &Path, fits: impl Fn(&str) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let unreadable = || Failure::usage(format!("could not read the folder {}", folder.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_file() && fits(name) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads one manifest with the files it names, or says what is wrong with it.
pub(super) fn load(path: &Path) -> anyhow::Result<Result<Arc<Connector>, Vec<Problem>>> {
    let mut registry = Registry::default();
    match registry.add_file(path) {
        Ok(connector) => Ok(Ok(connector)),
        Err(RegistryError::Invalid { problems, .. }) => Ok(Err(problems)),
        Err(RegistryError::Unreadable { path, source }) => {
            let unreadable = Failure::usage(format!("could not read the manifest {}", path.display()));
            Err(anyhow::Error::new(source).context(unreadable))
        }
    }
}

fn print(path: &Path, checked: &Result<Arc<Connector>, Vec<Problem>>) {
    match checked {
        Ok(connector) => {
            let (operations, events) = (connector.operations().count(), connector.events().count());
            let (name, version) = (connector.name(), connector.version());
            output::line(format!(
                "{}: ok: {name} {version}, {operations} operations, {events} event types",
                path.display()
            ));
        }
        Err(problems) => {
            for problem in problems {
                output::line(format!("{}{}", path.display(), describe(problem)));
            }
        }
    }
}

/// What programs read: the same facts as the lines for people.
fn as_object(path: &Path, checked: &Result<Arc<Connector>, Vec<Problem>>) -> Value {
    let file = path.display().to_string();
    match checked {
        Ok(connector) => json!({
            "file": file,
            "ok": true,
            "connector": connector.name(),
            "version": connector.version(),
            "operations": connector.operations().count(),
            "eventTypes": connector.events().count(),
            "problems": [],
        }),
        Err(problems) => json!({
            "file": file,
            "ok": false,
            "problems": problems.iter().map(|problem| json!({
                "line": problem.line,
                "pointer": problem.pointer,
                "code": problem.code,
                "message": problem.message,
                "suggestion": problem.suggestion,
            })).collect::<Vec<_>>(),
        }),
    }
}

/// `:line: pointer: message (suggestion)`, to be put behind a file name.
pub(super) fn describe(problem: &Problem) -> String {
    let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
    let pointer = if problem.pointer.is_empty() {
        String::new()
    } else {
        format!("{}: ", problem.pointer)
    };
    let suggestion = problem
        .suggestion
        .as_ref()
        .map(|text| format!(" ({text})"))
        .unwrap_or_default();
    format!("{line}: {pointer}{}{suggestion}", problem.message)
}
