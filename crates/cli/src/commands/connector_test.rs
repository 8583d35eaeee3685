//! `weir connector test`: runs the request vectors of a folder against its manifests. Nothing is sent or fetched.

use super::connector::{describe, files_of, is_manifest, load};
use crate::failure::{EXIT_FAILURE, Failure};
use crate::output;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use weir_connector_sdk::testing::{Selection, run_vectors, vector_providers};
use weir_connector_sdk::{Connector, Problem};

/// What became of all vectors.
#[derive(Default)]
struct Count {
    ran: usize,
    failed: usize,
    /// Files that are no manifests or no vector files.
    broken: usize,
    /// Providers of vectors without a manifest.
    strangers: Vec<String>,
    /// Files with vectors that do not say for which of several manifests they are.
    nameless: Vec<String>,
}

/// Prints one line per vector; the exit code says whether all have their verdict.
pub(crate) fn test(folder: &Path) -> anyhow::Result<ExitCode> {
    let manifests = files_of(folder, is_manifest)?;
    let is_vectors = |name: &str| name.contains("vectors") && name.ends_with(".json");
    let mut vectors = files_of(folder, is_vectors)?;
    let cases = folder.join("cases");
    if cases.is_dir() {
        vectors.extend(files_of(&cases, is_vectors)?);
    }
    if manifests.is_empty() || vectors.is_empty() {
        let what = if manifests.is_empty() {
            "manifest"
        } else {
            "vector file"
        };
        return Err(Failure::usage(format!("there is no {what} in {}", folder.display()))
            .fix("manifests are files that end in .yaml, vector files have `vectors` in their names and end in .json")
            .into());
    }
    let mut count = Count::default();
    let mut connectors: BTreeMap<String, Arc<Connector>> = BTreeMap::new();
    for path in &manifests {
        match load(path)? {
            Ok(connector) => {
                connectors.insert(connector.name().to_owned(), connector);
            }
            Err(problems) => count.report(path, &problems),
        }
    }
    for path in &vectors {
        let text = std::fs::read_to_string(path)
            .with_context(|| Failure::usage(format!("could not read {}", path.display())))?;
        run_file(path, &text, &connectors, &mut count);
    }
    let Count {
        ran,
        failed,
        broken,
        strangers,
        nameless,
    } = &count;
    for provider in strangers {
        output::remark(format!(
            "not run: the vectors of `{provider}`, for which there is no manifest"
        ));
    }
    for file in nameless {
        output::remark(format!(
            "not run: the vectors in {file} that name no `provider`; without it there has to be one manifest"
        ));
    }
    output::remark(format!("{ran} vectors, {failed} with another verdict than they state"));
    // A run in which nothing ran proves nothing.
    if *failed > 0 || *broken > 0 || !strangers.is_empty() || !nameless.is_empty() || *ran == 0 {
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    Ok(ExitCode::SUCCESS)
}

fn run_file(path: &Path, text: &str, connectors: &BTreeMap<String, Arc<Connector>>, count: &mut Count) {
    let providers = match vector_providers(text) {
        Ok(providers) => providers,
        Err(problems) => return count.report(path, &problems),
    };
    let only = connectors.first_key_value().filter(|_| connectors.len() == 1);
    let is_known = |name: &Option<String>| name.as_ref().is_some_and(|name| connectors.contains_key(name));
    let selections: Vec<Selection<'_>> = match only {
        Some(_) if !providers.iter().any(is_known) => vec![Selection::All],
        Some(_) | None => providers
            .iter()
            .map(|name| name.as_deref().map_or(Selection::Nameless, Selection::Of))
            .collect(),
    };
    for selection in selections {
        let chosen = match selection {
            Selection::Of(name) => connectors.get_key_value(name),
            Selection::All | Selection::Nameless => only,
        };
        let Some((_, connector)) = chosen else {
            match selection {
                Selection::Of(name) => count.strangers.push(name.to_owned()),
                Selection::All | Selection::Nameless => count.nameless.push(path.display().to_string()),
            }
            continue;
        };
        match run_vectors(connector, text, selection) {
            Err(problems) => count.report(path, &problems),
            Ok(outcomes) => {
                for outcome in outcomes {
                    count.ran += 1;
                    count.failed += usize::from(outcome.failure.is_some());
                    let (id, found) = (&outcome.id, &outcome.found);
                    output::line(match &outcome.failure {
                        None => format!("ok      {id}: {found}"),
                        Some(failure) => format!("FAILED  {id}: {found}; {failure}"),
                    });
                }
            }
        }
    }
}

impl Count {
    fn report(&mut self, path: &Path, problems: &[Problem]) {
        self.broken += 1;
        for problem in problems {
            output::line(format!("{}{}", path.display(), describe(problem)));
        }
    }
}
