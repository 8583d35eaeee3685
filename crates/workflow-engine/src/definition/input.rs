//! Whether the input of a manual start looks like its trigger says: the input itself, or what a `run` step says of it.

use serde_json::Value;

use super::fields::kind;
use crate::expression::sample;
use crate::problem::{Problem, child, nearest};

/// The JSON Schema type of a value fits `wanted`.
fn is_type(value: &Value, wanted: &str) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "boolean" => value.is_boolean(),
        _ => value.is_null(),
    }
}

/// Everything in `value` that `schema` does not allow; the schema was checked when the workflow was parsed. What an
/// expression is to give fits everything: it is not known yet.
pub(crate) fn check_input(schema: &Value, value: &Value, pointer: &str, problems: &mut Vec<Problem>) {
    check(schema, value, pointer, true, problems);
}

/// `computed`: whether texts may be expressions.
pub(super) fn check(schema: &Value, value: &Value, pointer: &str, computed: bool, problems: &mut Vec<Problem>) {
    if computed && value.as_str().is_some_and(|text| text.contains("{{")) {
        return;
    }
    if let Some(wanted) = schema.get("type").and_then(Value::as_str)
        && !is_type(value, wanted)
    {
        let found = match value {
            Value::Null => kind(value).to_owned(),
            _ => format!("{}: {}", kind(value), sample(value)),
        };
        let message = format!("the input must be of type {wanted} here, not {found}");
        problems.push(Problem::new(pointer, "wrong_type", message));
        return;
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array)
        && !values.contains(value)
    {
        let known: Vec<String> = values.iter().map(Value::to_string).collect();
        let message = format!("{value} is none of: {}", known.join(", "));
        problems.push(Problem::new(pointer, "unknown_word", message));
    }
    if let (Some(list), Some(items)) = (value.as_array(), schema.get("items")) {
        for (index, element) in list.iter().enumerate() {
            check(items, element, &child(pointer, index), computed, problems);
        }
    }
    let Some(object) = value.as_object() else {
        return;
    };
    let properties = schema.get("properties").and_then(Value::as_object);
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let required: Vec<&str> = required.filter_map(Value::as_str).collect();
    for name in required.iter().filter(|name| !object.contains_key(**name)) {
        let problem = Problem::new(pointer, "missing_key", format!("`{name}` is missing"));
        let is_known =
            |key: &str| required.contains(&key) || properties.is_some_and(|properties| properties.contains_key(key));
        let unknown = object.keys().map(String::as_str).filter(|key| !is_known(key));
        problems.push(match nearest(name, unknown) {
            Some(given) => problem.suggest(format!("did you mean `{name}` instead of `{given}`?")),
            None => problem,
        });
    }
    for (name, member) in object {
        let place = child(pointer, name);
        match properties.and_then(|properties| properties.get(name)) {
            Some(property) => check(property, member, &place, computed, problems),
            None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                let known = properties
                    .into_iter()
                    .flat_map(|properties| properties.keys().map(String::as_str));
                let problem = Problem::new(&place, "unknown_key", format!("there is no `{name}` in the input"));
                problems.push(problem.did_you_mean(name, known));
            }
            None => {}
        }
    }
}
