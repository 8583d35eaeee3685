//! Reads configuration documents from files and fills in `{ env: NAME }` and `{ file: PATH }`.
//!
//! References are resolved here, on the machine of the person who applies; the server never reads its own environment or
//! files on somebody's behalf. Messages name file and line, and never a value that was filled in.

use crate::failure::Failure;
use anyhow::Context as _;
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use weir_connector_sdk::{YamlDocument, parse_yaml};
use weir_orchestrator::registry::with_files;

/// Extensions of files that a folder contributes.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Most bytes taken from standard input or a referenced file.
///
/// Limit: a file or standard input that `weir apply` reads | refused | `a_text_is_read_whole_or_not_at_all`
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Kinds whose values may be references. In a workflow `{ env: … }` is data like any other.
const KINDS_WITH_REFERENCES: [&str; 2] = ["Connection", "Endpoint"];

/// One document, its references resolved, and where it came from.
pub(crate) struct Document {
    pub(crate) value: Value,
    /// File name, or `standard input`.
    pub(crate) origin: String,
    text: YamlDocument,
}

impl Document {
    /// `file:line` of a JSON pointer into the document.
    pub(crate) fn place(&self, pointer: &str) -> String {
        place(&self.origin, &self.text, pointer)
    }
}

fn place(origin: &str, text: &YamlDocument, pointer: &str) -> String {
    match text.line_of(pointer) {
        Some(line) => format!("{origin}:{line}"),
        None => origin.to_owned(),
    }
}

/// The whole text, or an error: half of it could be a set of documents too.
fn read_whole(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other(format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Reads all documents of files, folders and `-`, in the order given. Reports every problem of every file at once.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let text = read_whole(std::io::stdin().lock()).context("could not read standard input")?;
            read_text(&text, "standard input", Path::new("."), &mut documents, &mut problems);
            continue;
        }
        for file in files_of(path)? {
            let text = std::fs::File::open(&file).and_then(read_whole);
            let text = text.with_context(|| format!("could not read {}", file.display()))?;
            let folder = file.parent().unwrap_or_else(|| Path::new("."));
            read_text(
                &text,
                &file.display().to_string(),
                folder,
                &mut documents,
                &mut problems,
            );
        }
    }
    if !problems.is_empty() {
        return Err(Failure::usage(problems.join("\n")).into());
    }
    if documents.is_empty() {
        return Err(Failure::usage("there is no document in what was given")
            .fix("a document begins with `kind: Connector`, `kind: Connection`, `kind: Endpoint` or `kind: Workflow`")
            .into());
    }
    Ok(documents)
}

fn files_of(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        if path.exists() {
            return Ok(vec![path.to_owned()]);
        }
        return Err(Failure::usage(format!("there is no file or folder {}", path.display())).into());
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("could not read the folder {}", path.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry
            .with_context(|| format!("could not read the folder {}", path.display()))?
            .path();
        let wanted = file
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| EXTENSIONS.contains(&extension));
        if wanted && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_text(text: &str, origin: &str, folder: &Path, documents: &mut Vec<Document>, problems: &mut Vec<String>) {
    let parsed = match parse_yaml(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            problems.push(format!("{origin}:{}:{}: {}", error.line, error.column, error.message));
            return;
        }
    };
    for text in parsed {
        let mut value = text.value.clone();
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
        if KINDS_WITH_REFERENCES.contains(&kind) {
            let mut resolver = Resolver {
                folder,
                found: Vec::new(),
            };
            resolver.resolve(&mut value, &mut String::new());
            problems.extend(
                resolver
                    .found
                    .iter()
                    .map(|(pointer, message)| format!("{}: {pointer}: {message}", place(origin, &text, pointer))),
            );
        }
        if is_manifest(&value) {
            value = with_files(value, folder);
        }
        documents.push(Document {
            value,
            origin: origin.to_owned(),
            text,
        });
    }
}

/// Whether a document is a connector's manifest: it says so, or it is one as `weir serve --connectors` reads it.
fn is_manifest(document: &Value) -> bool {
    match document.get("kind") {
        Some(kind) => kind == "Connector",
        None => ["connector", "version"].iter().all(|key| document.get(key).is_some()),
    }
}

/// Replaces references in place and collects what is wrong with them, by pointer.
struct Resolver<'a> {
    folder: &'a Path,
    found: Vec<(String, String)>,
}

impl Resolver<'_> {
    fn resolve(&mut self, value: &mut Value, pointer: &mut String) {
        if let Some(resolved) = self.reference(value) {
            match resolved {
                Ok(text) => *value = Value::String(text),
                Err(message) => self.found.push((pointer.clone(), message)),
            }
            return;
        }
        let length = pointer.len();
        match value {
            Value::Object(map) => {
                for (key, child) in map {
                    pointer.push('/');
                    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                    self.resolve(child, pointer);
                    pointer.truncate(length);
                }
            }
            Value::Array(items) => {
                for (index, child) in items.iter_mut().enumerate() {
                    pointer.push('/');
                    pointer.push_str(&index.to_string());
                    self.resolve(child, pointer);
                    pointer.truncate(length);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// The text a reference stands for; `None` when the value is no reference.
    fn reference(&self, value: &Value) -> Option<Result<String, String>> {
        let map = value.as_object().filter(|map| map.len() == 1)?;
        let (key, target) = map.iter().next()?;
        match (key.as_str(), target.as_str()?) {
            ("env", name) => Some(environment(name)),
            ("file", path) => Some(self.file(path)),
            _ => None,
        }
    }

    fn file(&self, path: &str) -> Result<String, String> {
        let full = self.folder.join(path);
        let text = std::fs::File::open(&full).and_then(read_whole);
        let text = text.map_err(|error| format!("could not read the file {}: {error}", full.display()))?;
        // Editors and `echo` end files with a line break that is no part of a secret.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the document names the variable; it is no setting of ours"
)]
fn environment(name: &str) -> Result<String, String> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Err(format!("the environment variable {name} is empty")),
        Ok(value) => Ok(value),
        Err(std::env::VarError::NotPresent) => Err(format!("the environment variable {name} is not set")),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("the environment variable {name} is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_one(text: &str, folder: &Path) -> Result<Value, String> {
        let (mut documents, mut problems) = (Vec::new(), Vec::new());
        read_text(text, "flow.yaml", folder, &mut documents, &mut problems);
        if problems.is_empty() {
            Ok(documents.remove(0).value)
        } else {
            Err(problems.join("\n"))
        }
    }

    #[test]
    fn a_text_is_read_whole_or_not_at_all() {
        assert_eq!(
            read_whole(std::io::repeat(b'a').take(MAX_BYTES)).unwrap().len() as u64,
            MAX_BYTES
        );
        let refused = read_whole(std::io::repeat(b'a').take(MAX_BYTES + 1)).unwrap_err();
        assert!(refused.to_string().contains("more than 4194304 bytes"), "{refused}");
    }

    #[test]
    fn references_are_filled_in_where_they_may_stand() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "s3cret\n").unwrap();
        let text = "kind: Connection\nname: a\ncredential:\n  bearer:\n    token: { file: key }\n";
        assert_eq!(
            read_one(text, folder.path()).unwrap()["credential"]["bearer"]["token"],
            "s3cret"
        );
        let flow = "kind: Workflow\nname: a\nsteps: [{ with: { body: { env: production } } }]\n";
        assert_eq!(
            read_one(flow, folder.path()).unwrap()["steps"][0]["with"]["body"],
            json!({"env": "production"})
        );
    }

    #[test]
    fn what_is_missing_is_named_with_its_line() {
        let text = "kind: Connection\nname: a\ncredential:\n  bearer:\n    token: { env: WEIR_TEST_NOT_SET }\n";
        let complaint = read_one(text, Path::new(".")).unwrap_err();
        assert_eq!(
            complaint,
            "flow.yaml:5: /credential/bearer/token: the environment variable WEIR_TEST_NOT_SET is not set"
        );
        let broken = read_one("kind: [", Path::new(".")).unwrap_err();
        assert!(broken.starts_with("flow.yaml:"), "{broken}");
    }
}
