//! The connectors this process knows: the built-ins it was started with and those of a directory.
//!
//! A connector has no privileges by being built in; a manifest of the directory with the same name replaces it.

use crate::configure::catalogue::event_type_info;
use serde_json::Value;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_connector_sdk::{Connector, Problem, YamlDocument, parse_yaml};

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

/// The manifest of a text, which is one document.
fn read_one(yaml: &str) -> Result<YamlDocument, Problem> {
    let bad = |line, message| Problem {
        pointer: String::new(),
        line,
        code: "bad_yaml",
        message,
        suggestion: None,
    };
    let mut documents = parse_yaml(yaml).map_err(|error| bad(Some(error.line), error.message))?;
    match (documents.pop(), documents.len()) {
        (Some(document), 0) => Ok(document),
        (None, _) => Err(bad(None, "a manifest is one YAML document, found 0".to_owned())),
        (Some(_), others) => Err(bad(
            None,
            format!("a manifest is one YAML document, found {}", others + 1),
        )),
    }
}

/// Reads a manifest, also one that brings the files that it names (`kind: Connector` with `files`), and finds the order
/// of its reads. `load` gives the texts of files that it does not bring. The problems have no lines.
///
/// # Errors
/// Everything that is wrong with it.
pub fn compile(document: &Value, load: &dyn Fn(&str) -> Option<String>) -> Result<Connector, Vec<Problem>> {
    let (manifest, files) = apart(document)?;
    let connector = Connector::from_value(&manifest, &|name| files.get(name).cloned().or_else(|| load(name)))?;
    let mut problems = Vec::new();
    for (name, _) in connector.events() {
        let Some(info) = event_type_info(&connector, name) else {
            continue;
        };
        let Err(found) = weir_workflow_engine::read_order(&info.reads) else {
            continue;
        };
        problems.extend(found.into_iter().map(|problem| Problem {
            pointer: format!("/events/{}/reads{}", crate::configure::escape(name), problem.pointer),
            line: None,
            code: problem.code,
            message: problem.message,
            suggestion: problem.suggestion,
        }));
    }
    if problems.is_empty() {
        Ok(connector)
    } else {
        Err(problems)
    }
}

/// Texts of files by their names beside a manifest.
type Files = BTreeMap<String, String>;

/// A manifest, and the files that it brings along.
fn apart(document: &Value) -> Result<(Cow<'_, Value>, Files), Vec<Problem>> {
    let with_files = document.get("kind").is_some() && document.get("files").is_some();
    let (true, Value::Object(fields)) = (with_files, document) else {
        return Ok((Cow::Borrowed(document), Files::new()));
    };
    let mut manifest = fields.clone();
    let files = manifest.shift_remove("files").unwrap_or_default();
    let texts = files.as_object().map(|files| {
        let text = |(name, text): (&String, &Value)| Some((name.clone(), text.as_str()?.to_owned()));
        files.iter().map(text).collect::<Option<Files>>()
    });
    match texts.flatten() {
        Some(texts) => Ok((Cow::Owned(Value::Object(manifest)), texts)),
        None => Err(vec![Problem {
            pointer: "/files".to_owned(),
            line: None,
            code: "bad_type",
            message: "`files` is a mapping of names to texts".to_owned(),
            suggestion: None,
        }]),
    }
}

/// A manifest in `folder` as the document that is published: with the files that it names. What cannot be read is
/// left out, and told by whoever reads the document.
#[must_use]
pub fn with_files(document: Value, folder: &Path) -> Value {
    let files = RefCell::new(serde_json::Map::new());
    let _told_by_the_server = compile(&document, &|name| {
        let text = read_beside(folder, name)?;
        files.borrow_mut().insert(name.to_owned(), text.clone().into());
        Some(text)
    });
    let Value::Object(manifest) = document else {
        return document;
    };
    let mut fields = serde_json::Map::new();
    fields.insert("kind".to_owned(), "Connector".into());
    fields.extend(manifest);
    let found = files.into_inner();
    if !found.is_empty() && !fields.contains_key("files") {
        fields.insert("files".to_owned(), Value::Object(found));
    }
    Value::Object(fields)
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
        let invalid = |problems| RegistryError::Invalid {
            origin: origin.to_owned(),
            problems,
        };
        let document = read_one(yaml).map_err(|problem| invalid(vec![problem]))?;
        let connector = compile(&document.value, load).map_err(|mut problems| {
            for problem in &mut problems {
                problem.line = document.line_of(&problem.pointer);
            }
            invalid(problems)
        })?;
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
