//! `weir connector test`: runs the request vectors of a folder against its manifests. Nothing is sent or fetched.

use super::connector::{describe, files_of, load};
use crate::failure::{EXIT_FAILURE, Failure};
use crate::output;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use weir_connector_sdk::Problem;
use weir_connector_sdk::testing::{run_vectors, vector_providers};
use weir_orchestrator::registry::Registry;

/// What became of all vectors.
#[derive(Default)]
struct Count {
    ran: usize,
    failed: usize,
    /// Files that are no manifests or no vector files.
    broken: usize,
    /// Providers of vectors without a manifest.
    strangers: Vec<String>,
}

/// Prints one line per vector; the exit code says whether all have their verdict.
pub(crate) fn test(folder: &Path) -> anyhow::Result<ExitCode> {
    let manifests = files_of(folder, |name| name.ends_with(".yaml") || name.ends_with(".yml"))?;
    let vectors = files_of(folder, |name| name.contains("vectors") && name.ends_with(".json"))?;
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
    let mut registries: BTreeMap<String, Registry> = BTreeMap::new();
    for path in &manifests {
        match load(path)? {
            Ok(registry) => {
                let names: Vec<String> = registry.iter().map(|connector| connector.name().to_owned()).collect();
                registries.extend(names.into_iter().map(|name| (name, registry.clone())));
            }
            Err(problems) => count.report(path, &problems),
        }
    }
    for path in &vectors {
        let text = std::fs::read_to_string(path)
            .with_context(|| Failure::usage(format!("could not read {}", path.display())))?;
        run_file(path, &text, &registries, &mut count);
    }
    let Count {
        ran,
        failed,
        broken,
        strangers,
        ..
    } = &count;
    for provider in strangers {
        output::remark(format!(
            "not run: the vectors of `{provider}`, for which there is no manifest"
        ));
    }
    output::remark(format!("{ran} vectors, {failed} with another verdict than they state"));
    // A run in which nothing ran proves nothing.
    if *failed > 0 || *broken > 0 || !strangers.is_empty() || *ran == 0 {
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    Ok(ExitCode::SUCCESS)
}

fn run_file(path: &Path, text: &str, registries: &BTreeMap<String, Registry>, count: &mut Count) {
    let providers = match vector_providers(text) {
        Ok(providers) => providers,
        Err(problems) => return count.report(path, &problems),
    };
    let all_on_one = registries.len() == 1 && !providers.iter().any(|name| registries.contains_key(name));
    let wanted: Vec<Option<String>> = match all_on_one {
        true => vec![None],
        false => providers.into_iter().map(Some).collect(),
    };
    for provider in wanted {
        let named = match &provider {
            Some(name) => registries.get_key_value(name),
            None => registries.first_key_value(),
        };
        let connector = named.and_then(|(name, registry)| registry.get(name));
        let Some(connector) = connector else {
            count.strangers.extend(provider);
            continue;
        };
        match run_vectors(connector, text, provider.as_deref()) {
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
