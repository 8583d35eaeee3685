//! `weir connector check`: reads manifests the way `weir serve --connectors` does, and prints what is wrong with them.

use crate::failure::{EXIT_FAILURE, Failure};
use crate::output;
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use weir_connector_sdk::Problem;
use weir_orchestrator::registry::{Registry, RegistryError};

/// Prints every problem of a manifest, or of each manifest in a folder.
pub(crate) fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let paths = if path.is_dir() {
        files_of(path, is_manifest)?
    } else {
        vec![path.to_owned()]
    };
    if paths.is_empty() {
        return Err(Failure::usage(format!("there is no manifest in {}", path.display()))
            .fix("manifests are files that end in .yaml")
            .into());
    }
    let mut broken = 0_usize;
    for path in &paths {
        let problems = check_one(path)?;
        for problem in &problems {
            output::line(format!("{}{}", path.display(), describe(problem)));
        }
        broken += usize::from(!problems.is_empty());
    }
    if broken > 0 {
        output::remark(format!("{broken} of {} manifests cannot be used", paths.len()));
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    Ok(ExitCode::SUCCESS)
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

/// Reads one manifest; says what it offers when it is right.
fn check_one(path: &Path) -> anyhow::Result<Vec<Problem>> {
    match load(path)? {
        Ok(registry) => {
            for connector in registry.iter() {
                let (operations, events) = (connector.operations().count(), connector.events().count());
                let (name, version) = (connector.name(), connector.version());
                output::line(format!(
                    "{}: ok: {name} {version}, {operations} operations, {events} event types",
                    path.display()
                ));
            }
            Ok(Vec::new())
        }
        Err(problems) => Ok(problems),
    }
}

/// Reads one manifest with the files it names, or says what is wrong with it.
pub(super) fn load(path: &Path) -> anyhow::Result<Result<Registry, Vec<Problem>>> {
    let unreadable = || Failure::usage(format!("could not read the manifest {}", path.display()));
    let text = std::fs::read_to_string(path).with_context(unreadable)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let beside = |name: &str| {
        // A manifest may name files below its own folder, not files elsewhere on the machine.
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        if inside {
            std::fs::read_to_string(folder.join(name)).ok()
        } else {
            None
        }
    };
    let mut registry = Registry::default();
    match registry.add(&path.display().to_string(), &text, &beside) {
        Ok(()) => Ok(Ok(registry)),
        Err(RegistryError::Invalid { problems, .. }) => Ok(Err(problems)),
        Err(error @ RegistryError::Unreadable { .. }) => Err(error.into()),
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
