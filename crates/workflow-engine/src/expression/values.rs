//! Between JSON and the values of the expression language.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object};
use minijinja::{Error, ErrorKind};
use serde_json::{Map, Value};

use super::absent::{absent, with_values};
use super::scan::Use;
use super::{FUEL_PER_EVALUATION, MAX_OUTPUT_BYTES, MAX_READ_BYTES, Scope};

/// The values of the slots of one evaluation.
struct Slots(Vec<minijinja::Value>);

impl fmt::Debug for Slots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} slots", self.0.len())
    }
}

impl Object for Slots {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<minijinja::Value> {
        let number: usize = key.strip_prefix("slot")?.parse().ok()?;
        self.0.get(number).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

/// Runs a compiled expression over the values of its slots.
pub(super) fn evaluate(
    compiled: &minijinja::Expression<'static, 'static>,
    uses: &[Use],
    scope: &dyn Scope,
) -> Result<Value, String> {
    // A list written with the same long text in it a thousand times is one pointer a thousand times, until it is printed.
    let mut read_bytes = 0_usize;
    let mut slot = |used: &Use| match scope.find(&used.root, &used.parts) {
        super::Found::Missing if used.guarded => minijinja::Value::UNDEFINED,
        // Only an expression that really reads the slot fails: the other side of an `if` may be missing.
        super::Found::Missing => Error::new(ErrorKind::UndefinedError, used.text()).into(),
        found => {
            read_bytes = read_bytes.saturating_add(found.json_bytes());
            match read_bytes > MAX_READ_BYTES {
                true => minijinja::Value::UNDEFINED,
                false => from_json(found.into_value()),
            }
        }
    };
    let slots = Slots(uses.iter().map(&mut slot).collect());
    if read_bytes > MAX_READ_BYTES {
        return Err(format!(
            "reads {read_bytes} bytes; one evaluation may read {MAX_READ_BYTES}"
        ));
    }
    let result =
        compiled
            .eval(minijinja::Value::from_object(slots))
            .map_err(|error| match absent_use(&error, uses, scope) {
                Some(used) => absent(used, scope),
                None => format!("{}{}", explain(&error), with_values(uses, scope)),
            })?;
    if result.is_undefined() {
        return Err(format!(
            "leads to something that is not there{}; say what to use instead with `| default(…)`",
            with_values(uses, scope)
        ));
    }
    to_json(&result).map_err(|reason| format!("{reason}{}", with_values(uses, scope)))
}

/// The path that was read and is not there, if that is what failed.
fn absent_use<'u>(error: &Error, uses: &'u [Use], scope: &dyn Scope) -> Option<&'u Use> {
    let path = error.detail().filter(|_| error.kind() == ErrorKind::UndefinedError)?;
    let is_it =
        |used: &&Use| used.text() == path && matches!(scope.find(&used.root, &used.parts), super::Found::Missing);
    uses.iter().find(is_it)
}

fn explain(error: &Error) -> String {
    match error.kind() {
        ErrorKind::OutOfFuel => {
            format!("needs more than the {FUEL_PER_EVALUATION} units of work that one evaluation may take")
        }
        kind => match error.detail() {
            Some(detail) => detail.to_owned(),
            None => kind.to_string(),
        },
    }
}

/// A tree as a value of the expression language.
fn from_json(value: Value) -> minijinja::Value {
    match value {
        Value::Null => minijinja::Value::from(()),
        Value::Bool(flag) => flag.into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(integer), _, _) => integer.into(),
            (None, Some(integer), _) => integer.into(),
            (None, None, float) => float.unwrap_or(f64::MAX).into(),
        },
        Value::String(text) => text.into(),
        Value::Array(list) => list.into_iter().map(from_json).collect(),
        Value::Object(map) => {
            minijinja::Value::from_pairs(map.into_iter().map(|(key, member)| (key, from_json(member))))
        }
    }
}

/// A value of the expression language as a tree.
fn to_json(value: &minijinja::Value) -> Result<Value, String> {
    let mut budget = MAX_OUTPUT_BYTES;
    convert(value, &mut budget, 0)
}

fn convert(value: &minijinja::Value, budget: &mut usize, depth: usize) -> Result<Value, String> {
    use minijinja::value::ValueKind;
    let mut spend = |bytes: usize| match budget.checked_sub(bytes) {
        Some(rest) => {
            *budget = rest;
            Ok(())
        }
        None => Err(format!("gives more than {MAX_OUTPUT_BYTES} bytes")),
    };
    if depth > crate::document::MAX_JSON_DEPTH {
        return Err("gives something that is nested too deeply".to_owned());
    }
    spend(2)?;
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Ok(Value::Null),
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::Number => {
            spend(8)?;
            serde_json::to_value(value).map_err(|error| format!("gives a number out of range: {error}"))
        }
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            spend(text.len())?;
            Ok(Value::from(text))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let mut list = Vec::new();
            for element in value.try_iter().map_err(|error| explain(&error))?.checked() {
                let element = element.map_err(|error| explain(&error))?;
                list.push(convert(&element, budget, depth + 1)?);
            }
            Ok(Value::Array(list))
        }
        ValueKind::Map => {
            let mut map = Map::new();
            for key in value.try_iter().map_err(|error| explain(&error))?.checked() {
                let key = key.map_err(|error| explain(&error))?;
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                let member = value.get_item(&key).map_err(|error| explain(&error))?;
                *budget = budget.saturating_sub(name.len());
                map.insert(name, convert(&member, budget, depth + 1)?);
            }
            Ok(Value::Object(map))
        }
        ValueKind::Bytes | ValueKind::Plain | ValueKind::Invalid => {
            Err(format!("gives a {}, which JSON cannot hold", value.kind()))
        }
        _ => Err("gives something that JSON cannot hold".to_owned()),
    }
}
