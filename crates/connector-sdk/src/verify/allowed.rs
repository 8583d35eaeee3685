//! Values that a request must carry: stated in the manifest, or by the endpoint in its `context`.

use serde_json::Value;

use super::evidence::Evidence;
use super::{Refusal, RefusalReason};
use crate::fields::Fields;
use crate::problem::Problems;

#[derive(Debug)]
pub(crate) enum Allowed {
    These(Vec<Value>),
    /// The values of the endpoint under this name.
    Context(String),
}

impl Allowed {
    /// Reads a value, a list of values, or `ctx:NAME` under `key`.
    pub(crate) fn read(fields: &Fields<'_>, key: &str, problems: &mut Problems) -> Option<Self> {
        Self::read_value(fields.get(key)?, &fields.at(key), problems)
    }

    pub(super) fn read_value(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        match value {
            Value::String(text) => match text.split_once(':') {
                Some(("ctx", name)) if !name.is_empty() => Some(Self::Context(name.to_owned())),
                _ => Some(Self::These(vec![value.clone()])),
            },
            Value::Bool(_) | Value::Number(_) => Some(Self::These(vec![value.clone()])),
            Value::Array(items)
                if !items.is_empty() && items.iter().all(|item| item.is_string() || item.is_number()) =>
            {
                Some(Self::These(items.clone()))
            }
            Value::Array(_) | Value::Object(_) | Value::Null => {
                problems.add_with_suggestion(
                    place,
                    "bad_value",
                    "expected a value or a list of values",
                    "values that differ from endpoint to endpoint stand in the endpoint's own `verify`",
                );
                None
            }
        }
    }

    /// The number that stands here, for limits.
    pub(crate) fn number(&self, evidence: &Evidence<'_>) -> Result<u64, Refusal> {
        let number = match self {
            Self::These(values) => values.first().and_then(Value::as_u64),
            Self::Context(name) => evidence.context(name)?.trim().parse().ok(),
        };
        number.ok_or_else(|| {
            Refusal::new(
                RefusalReason::MissingContext,
                "the endpoint states no whole number here",
            )
        })
    }

    /// Whether it can be a number.
    pub(crate) fn is_number(&self) -> bool {
        match self {
            Self::These(values) => matches!(values.as_slice(), [one] if one.is_u64()),
            Self::Context(_) => true,
        }
    }

    /// Whether `found` is one of the values, or a list with one of them in it. `what` names it for people.
    pub(crate) fn judge(&self, evidence: &Evidence<'_>, found: Option<&Value>, what: &str) -> Result<(), Refusal> {
        let fits = |one: &Value| match self {
            Self::These(values) => Ok(values.contains(one)),
            Self::Context(name) => Ok(evidence
                .contexts(name)?
                .iter()
                .any(|value| one.as_str() == Some(value.as_str()))),
        };
        let good = match found {
            None | Some(Value::Null) => false,
            Some(Value::Array(items)) => items
                .iter()
                .map(fits)
                .collect::<Result<Vec<_>, Refusal>>()?
                .contains(&true),
            Some(one) => fits(one)?,
        };
        match good {
            true => Ok(()),
            false => Err(Refusal::new(
                RefusalReason::ValueNotAllowed,
                format!("{what} is not one that is expected here"),
            )),
        }
    }
}
