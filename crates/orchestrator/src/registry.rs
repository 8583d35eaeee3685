//! The connectors this process knows: the built-ins it was started with and those of a directory.
//!
//! A connector has no privileges by being built in; a manifest of the directory with the same name replaces it.

use crate::configure::catalogue::event_type_info;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_connector_sdk::{Connector, Problem};

/// Connectors by name. Immutable after start.
#[derive(Debug, Default, Clone)]
pub struct Registry {
    connectors: BTreeMap<String, Arc<Connector>>,
}

/// Why a manifest was not taken. One bad manifest refuses the start: a connector that is silently missing would turn
/// webhooks away.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The directory or one of its files could not be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A manifest is wrong; every problem found is listed.
    #[error("{origin} is not a valid connector manifest:{}", list(problems))]
    Invalid {
        /// The manifest's file or name.
        origin: String,
        /// What is wrong, with pointer and line.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// The text of a file that a manifest in `folder` names: one in that folder or below it, not elsewhere on the machine.
#[must_use]
pub fn read_beside(folder: &Path, name: &str) -> Option<String> {
    let is_inside = Path::new(name)
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if !is_inside {
        return None;
    }
    std::fs::read_to_string(folder.join(name)).ok()
}

impl Registry {
    /// Adds one manifest. `load` gives the texts of the files that it names.
    ///
    /// # Errors
    /// The manifest is wrong, or its reads have no order (a cycle, an unknown name, more than 16).
    pub fn add(
        &mut self,
        origin: &str,
        yaml: &str,
        load: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Arc<Connector>, RegistryError> {
        let connector = Connector::parse(yaml, load).map_err(|problems| RegistryError::Invalid {
            origin: origin.to_owned(),
            problems,
        })?;
        let lines = weir_connector_sdk::parse_yaml(yaml)
            .ok()
            .and_then(|documents| documents.into_iter().next());
        let mut problems = Vec::new();
        for (name, _) in connector.events() {
            let Some(info) = event_type_info(&connector, name) else {
                continue;
            };
            let Err(found) = weir_workflow_engine::read_order(&info.reads) else {
                continue;
            };
            problems.extend(found.into_iter().map(|problem| {
                let pointer = format!("/events/{}/reads{}", crate::configure::escape(name), problem.pointer);
                Problem {
                    line: lines.as_ref().and_then(|document| document.line_of(&pointer)),
                    pointer,
                    code: problem.code,
                    message: problem.message,
                    suggestion: problem.suggestion,
                }
            }));
        }
        if !problems.is_empty() {
            return Err(RegistryError::Invalid {
                origin: origin.to_owned(),
                problems,
            });
        }
        let connector = Arc::new(connector);
        self.connectors
            .insert(connector.name().to_owned(), Arc::clone(&connector));
        Ok(connector)
    }

    /// Adds the manifest in a file; the files that it names stand in the same folder or below it.
    ///
    /// # Errors
    /// The file cannot be read, or the manifest is wrong.
    pub fn add_file(&mut self, path: &Path) -> Result<Arc<Connector>, RegistryError> {
        let yaml = std::fs::read_to_string(path).map_err(|source| RegistryError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        self.add(&path.display().to_string(), &yaml, &|name| read_beside(folder, name))
    }

    /// Adds every `*.yaml` of a directory, in order of the file names. Files that manifests name are looked for in it.
    ///
    /// # Errors
    /// A file cannot be read, or a manifest is wrong.
    pub fn add_directory(&mut self, directory: &Path) -> Result<usize, RegistryError> {
        let unreadable = |source| RegistryError::Unreadable {
            path: directory.to_owned(),
            source,
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "yaml" || extension == "yml")
            {
                files.push(path);
            }
        }
        files.sort();
        for path in &files {
            self.add_file(path)?;
        }
        Ok(files.len())
    }

    /// A connector by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Connector>> {
        self.connectors.get(name)
    }

    /// All connectors by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Connector>> {
        self.connectors.values()
    }
}
