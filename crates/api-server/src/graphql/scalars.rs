//! The scalars of the schema.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};
use std::str::FromStr as _;
use weir_workflow_engine::{Document, Timestamp};

/// A point in time: RFC 3339, UTC, milliseconds, such as `2026-01-31T12:00:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DateTime(pub(crate) Timestamp);

/// A point in time: RFC 3339, UTC, milliseconds, such as `2026-01-31T12:00:00.000Z`.
#[Scalar(
    name = "DateTime",
    specified_by_url = "https://scalars.graphql.org/andimarek/date-time.html"
)]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => Timestamp::from_str(text).map(DateTime).map_err(InputValueError::custom),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// Any JSON value.
#[derive(Clone, PartialEq)]
pub(crate) struct Json(pub(crate) serde_json::Value);

impl std::fmt::Debug for Json {
    /// Inputs of this type may carry secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Json(..)")
    }
}

/// Any JSON value.
#[Scalar(name = "JSON")]
impl ScalarType for Json {
    fn parse(value: Value) -> InputValueResult<Self> {
        value.into_json().map(Json).map_err(InputValueError::custom)
    }

    fn to_value(&self) -> Value {
        Value::from_json(self.0.clone()).unwrap_or_default()
    }
}

impl From<&Document> for Json {
    fn from(document: &Document) -> Self {
        Json(document.value().clone())
    }
}

/// A whole number up to 2^53-1, for sizes and counts that may exceed 2^31.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Long(pub(crate) u64);

/// A whole number up to 2^53-1, for sizes and counts that may exceed 2^31.
#[Scalar(name = "Long")]
impl ScalarType for Long {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::Number(number) => number
                .as_u64()
                .map(Long)
                .ok_or_else(|| InputValueError::expected_type(value)),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::Number(self.0.into())
    }
}

/// Write-only: a secret text, or an object of them such as `{username, password}`. Never part of a result.
#[derive(Clone, PartialEq)]
pub(crate) struct Secret(pub(crate) serde_json::Value);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// Write-only: a secret text, or an object of them such as `{username, password}`. Never part of a result.
#[Scalar(name = "Secret")]
impl ScalarType for Secret {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            // Errors of this scalar must not quote the value.
            Value::String(_) | Value::Object(_) => value
                .into_json()
                .map(Secret)
                .map_err(|_error| InputValueError::custom("not a secret")),
            _ => Err(InputValueError::custom("a secret is a text or an object")),
        }
    }

    fn to_value(&self) -> Value {
        Value::String("[redacted]".to_owned())
    }
}
