//! How an arriving event finds the steps that wait for it: by the value of an expression over the event alone.

use serde_json::Value;

use crate::event::Event;
use crate::expression::{Expression, ExpressionError};
use crate::problem::Problem;
use crate::run::ArrivedNames;

/// What is computed of every event of one type, because some workflow waits for such events.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Correlation {
    /// Name of the connector.
    pub connector: String,
    /// The event type.
    pub kind: String,
    /// The expression, as it was written.
    pub key: String,
}

/// An expression over an arriving event.
#[derive(Clone, Debug)]
pub struct Correlator(Expression);

impl Correlator {
    /// Reads the expression of a [`Correlation`].
    ///
    /// # Errors
    /// When it is no expression.
    pub fn parse(key: &str) -> Result<Self, Problem> {
        Expression::parse(key, "").map(Self)
    }

    /// What the event can be found by. `None` when it has no such value: a text, a number or a boolean.
    pub fn value(&self, event: &Event) -> Option<String> {
        self.0
            .value(&ArrivedNames { event })
            .ok()
            .and_then(|value| text(&value))
    }
}

/// The expression of a `key` as a [`Correlation`] holds it.
pub(crate) fn source(key: &Expression) -> String {
    format!("{{{{ {} }}}}", key.source().trim())
}

/// The value of an expression, as keys are compared.
pub(crate) fn key_text(key: &Expression, event: &Event) -> Result<Option<String>, ExpressionError> {
    key.value(&ArrivedNames { event }).map(|value| text(&value))
}

/// Text, numbers and booleans by what they read like; anything else cannot be a key.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
