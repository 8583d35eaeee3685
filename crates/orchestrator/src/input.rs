//! Checks the input of a started workflow against its trigger's schema.
//!
//! The schema is the subset that `on.manual.input` accepts: `type`, `properties`, `required`, `enum`, `items`.

use crate::configure::escape;
use serde_json::Value;

/// Where the input does not fit and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// RFC 6901 pointer into the input.
    pub(crate) pointer: String,
    /// What is expected there.
    pub(crate) message: String,
}

/// The first place where `input` does not fit `schema`.
pub(crate) fn check(schema: &Value, input: &Value) -> Result<(), Misfit> {
    walk(schema, input, &mut String::new())
}

fn walk(schema: &Value, input: &Value, pointer: &mut String) -> Result<(), Misfit> {
    let misfit = |message: String, pointer: &str| Err(Misfit { pointer: pointer.to_owned(), message });
    if let Some(expected) = schema.get("type") {
        let names: Vec<&str> = expected.as_str().into_iter().chain(expected.as_array().into_iter().flatten().filter_map(Value::as_str)).collect();
        if !names.iter().any(|name| is_of_type(input, name)) {
            return misfit(format!("must be {}", names.join(" or ")), pointer);
        }
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        if !allowed.contains(input) {
            let list: Vec<String> = allowed.iter().map(Value::to_string).collect();
            return misfit(format!("must be one of {}", list.join(", ")), pointer);
        }
    }
    if let Some(map) = input.as_object() {
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                return misfit(format!("`{name}` is missing"), pointer);
            }
        }
        for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if let Some(value) = map.get(name) {
                descend(inner, value, &escape(name), pointer)?;
            }
        }
    }
    if let (Some(inner), Some(list)) = (schema.get("items"), input.as_array()) {
        for (index, value) in list.iter().enumerate() {
            descend(inner, value, &index.to_string(), pointer)?;
        }
    }
    Ok(())
}

fn descend(schema: &Value, value: &Value, token: &str, pointer: &mut String) -> Result<(), Misfit> {
    let length = pointer.len();
    pointer.push('/');
    pointer.push_str(token);
    walk(schema, value, pointer)?;
    pointer.truncate(length);
    Ok(())
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_misfit_is_named_with_its_place() {
        let schema = json!({ "type": "object", "required": ["email"], "properties": { "email": { "type": "string" }, "plan": { "enum": ["a", "b"] }, "lines": { "type": "array", "items": { "type": "object", "required": ["sku"] } } } });
        let place = |input: Value| check(&schema, &input).err().map(|misfit| (misfit.pointer, misfit.message));
        assert_eq!(place(json!({ "email": "a@example.test", "plan": "a", "lines": [{ "sku": 1 }] })), None);
        assert_eq!(place(json!([])), Some((String::new(), "must be object".to_owned())));
        assert_eq!(place(json!({})), Some((String::new(), "`email` is missing".to_owned())));
        assert_eq!(place(json!({ "email": 1 })), Some(("/email".to_owned(), "must be string".to_owned())));
        assert_eq!(place(json!({ "email": "x", "plan": "c" })), Some(("/plan".to_owned(), "must be one of \"a\", \"b\"".to_owned())));
        assert_eq!(place(json!({ "email": "x", "lines": [{ "sku": 1 }, {}] })), Some(("/lines/1".to_owned(), "`sku` is missing".to_owned())));
    }
}
