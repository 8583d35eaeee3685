//! Files beside a manifest, which the caller loads by their relative names.

use serde_json::Value;

use crate::problem::Problems;

/// A JSON Schema: inline, or the name of a file beside the manifest.
pub(crate) fn read_schema(
    value: &Value,
    place: &str,
    load: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<Value> {
    match value {
        Value::Object(_) => Some(value.clone()),
        Value::String(file) => load_json(file, place, load, problems),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            problems.add(place, "bad_type", "a schema is a mapping or the name of a file");
            None
        }
    }
}

/// The text of a file beside the manifest.
pub(crate) fn load_text(
    file: &str,
    place: &str,
    load: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<String> {
    if file.starts_with('/') || file.contains('\\') || file.split('/').any(|part| part == "..") {
        problems.add(
            place,
            "bad_value",
            format!("`{file}` is not a file beside the manifest"),
        );
        return None;
    }
    let text = load(file);
    if text.is_none() {
        problems.add(place, "missing_file", format!("the file `{file}` is not there"));
    }
    text
}

/// A JSON file beside the manifest.
pub(crate) fn load_json(
    file: &str,
    place: &str,
    load: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<Value> {
    let text = load_text(file, place, load, problems)?;
    match serde_json::from_str(&text) {
        Ok(value) => Some(value),
        Err(error) => {
            problems.add(
                place,
                "bad_file",
                format!("`{file}` is not JSON: line {}, column {}", error.line(), error.column()),
            );
            None
        }
    }
}
