//! What is said of an expression that failed, in the words of whoever has to mend it: of a path that leads nowhere how far
//! it leads, what is there instead, and which name was probably meant; of anything else what it read.

use serde_json::Value;

use super::scan::Use;
use super::{Found, Scope};
use crate::document::PathPart;
use crate::problem::nearest;

/// How many names of members are listed.
const SHOWN_NAMES: usize = 12;
/// How many characters of a name or of the value that is there are shown.
const SHOWN_CHARS: usize = 80;
/// How many of the values that an expression read are shown.
const SHOWN_VALUES: usize = 4;

/// What a person is told of a path that is not there.
pub(super) fn absent(used: &Use, scope: &dyn Scope) -> String {
    let path = used.text();
    let hint = "if that can happen, say what to use instead with `| default(…)`";
    let reached = (0..used.parts.len()).rev().find_map(|count| {
        let (reached, rest) = used.parts.split_at(count);
        match scope.find(&used.root, reached) {
            Found::Missing => None,
            found => Some((prefix(used, count), found.into_value(), rest.first()?)),
        }
    });
    match reached {
        Some((reached, value, next)) => format!("{path} is not there: {}; {hint}", instead(&reached, &value, next)),
        None => format!("{path} is not there; {hint}"),
    }
}

fn prefix(used: &Use, count: usize) -> String {
    let parts = used.parts.iter().take(count).cloned().collect();
    let (root, guarded) = (used.root.clone(), used.guarded);
    Use { root, parts, guarded }.text()
}

/// What is there where the path stops.
fn instead(reached: &str, value: &Value, next: &PathPart) -> String {
    match (value, next) {
        (Value::Object(map), _) if map.is_empty() => format!("`{reached}` is an empty object"),
        (Value::Object(map), next) => {
            let meant = match next {
                PathPart::Key(wrong) => nearest(wrong, map.keys().map(String::as_str)),
                PathPart::Index(_) => None,
            };
            let names: Vec<String> = map.keys().take(SHOWN_NAMES).map(|name| cut(name)).collect();
            let more = match map.len().saturating_sub(SHOWN_NAMES) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let known = format!("`{reached}` has {}{more}", names.join(", "));
            match meant {
                Some(meant) => {
                    let sample = map.get(meant).map(sample).unwrap_or_default();
                    format!("{known} (did you mean `{}`, which is {sample}?)", cut(meant))
                }
                None => known,
            }
        }
        (Value::Array(list), PathPart::Index(_)) => format!("`{reached}` is a list of {}", list.len()),
        (Value::Array(list), PathPart::Key(_)) => {
            format!(
                "`{reached}` is a list of {}, whose elements are `{reached}[0]` and so on",
                list.len()
            )
        }
        (value, _) => format!("`{reached}` is {}", sample(value)),
    }
}

/// The values that an expression read, each once, in brackets; nothing when it read none.
pub(super) fn with_values(uses: &[Use], scope: &dyn Scope) -> String {
    let mut read: Vec<String> = Vec::new();
    let mut more = 0;
    for used in uses {
        let mut json = String::new();
        match scope.find(&used.root, &used.parts) {
            Found::Missing => continue,
            found => found.write_json(&mut json),
        }
        let value = format!("`{}` is {}", used.text(), cut(&json));
        if read.contains(&value) {
            continue;
        }
        match read.len() < SHOWN_VALUES {
            true => read.push(value),
            false => more += 1,
        }
    }
    match (read.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!(" ({})", read.join(", ")),
        (false, more) => format!(" ({} and {more} more)", read.join(", ")),
    }
}

/// The beginning of a value, for people.
pub(crate) fn sample(value: &Value) -> String {
    cut(&value.to_string())
}

/// The text, or its beginning.
fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
