//! JSON trees with `{{ … }}` in their leaves, compiled once.
//!
//! A leaf that is exactly one expression keeps the expression's type; any other leaf with expressions
//! becomes text. An optional path (the caller says which) that is absent removes its key or element;
//! every other missing name is an error.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::expression::{Expression, ExpressionError, Scope};
use crate::pointer;
use crate::problem::Problems;

/// A compiled tree.
#[derive(Debug)]
pub(crate) enum Template {
    Literal(Value),
    /// Exactly one expression. `optional`: a missing path makes the leaf absent.
    Single {
        expression: Expression,
        optional: bool,
    },
    Text(Vec<Piece>),
    Array(Vec<Template>),
    Object(Vec<(String, Template)>),
}

#[derive(Debug)]
pub(crate) enum Piece {
    Literal(String),
    Expression { expression: Expression, optional: bool },
}

/// Says whether a path with this root and first key may be absent.
pub(crate) type IsOptional<'a> = &'a dyn Fn(&Expression) -> bool;

impl Template {
    /// Compiles `value`; what does not compile is reported under its pointer and becomes null.
    pub(crate) fn compile(value: &Value, place: &str, is_optional: IsOptional<'_>, problems: &mut Problems) -> Self {
        match value {
            Value::String(text) => Self::compile_text(text, place, is_optional, problems),
            Value::Array(items) => {
                let compiled: Vec<Self> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| {
                        Self::compile(item, &pointer::join(place, &index.to_string()), is_optional, problems)
                    })
                    .collect();
                match all_literal(compiled.iter()) {
                    true => Self::Literal(value.clone()),
                    false => Self::Array(compiled),
                }
            }
            Value::Object(map) => {
                let compiled: Vec<(String, Self)> = map
                    .iter()
                    .map(|(key, item)| {
                        (
                            key.clone(),
                            Self::compile(item, &pointer::join(place, key), is_optional, problems),
                        )
                    })
                    .collect();
                match all_literal(compiled.iter().map(|(_, item)| item)) {
                    true => Self::Literal(value.clone()),
                    false => Self::Object(compiled),
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Literal(value.clone()),
        }
    }

    fn compile_text(text: &str, place: &str, is_optional: IsOptional<'_>, problems: &mut Problems) -> Self {
        match pieces(text, is_optional) {
            Ok(mut found) => match (found.len(), found.pop()) {
                (1, Some(Piece::Expression { expression, optional })) => Self::Single { expression, optional },
                (0, _) => Self::Literal(Value::String(String::new())),
                (1, Some(Piece::Literal(literal))) => Self::Literal(Value::String(literal)),
                (_, last) => {
                    found.extend(last);
                    Self::Text(found)
                }
            },
            Err(message) => {
                problems.add(place, "bad_expression", message);
                Self::Literal(Value::Null)
            }
        }
    }

    /// Whether nothing in it is computed.
    pub(crate) fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }

    /// Calls `visit` with each expression and whether it is one optional leaf.
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(&Expression)) {
        match self {
            Self::Literal(_) => {}
            Self::Single { expression, .. } => visit(expression),
            Self::Text(pieces) => {
                for piece in pieces {
                    if let Piece::Expression { expression, .. } = piece {
                        visit(expression);
                    }
                }
            }
            Self::Array(items) => items.iter().for_each(|item| item.visit(visit)),
            Self::Object(entries) => entries.iter().for_each(|(_, item)| item.visit(visit)),
        }
    }

    /// The value in `scope`; `None` when an optional path was absent.
    pub(crate) fn render<'a>(&'a self, scope: &Scope<'a>) -> Result<Option<Cow<'a, Value>>, ExpressionError> {
        match self {
            Self::Literal(value) => Ok(Some(Cow::Borrowed(value))),
            Self::Single {
                expression,
                optional: true,
            } => expression.evaluate_optional(scope),
            Self::Single {
                expression,
                optional: false,
            } => expression.evaluate(scope).map(Some),
            Self::Text(pieces) => Ok(render_text(pieces, scope)?.map(|text| Cow::Owned(Value::String(text)))),
            Self::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for item in items {
                    if let Some(value) = item.render(scope)? {
                        list.push(value.into_owned());
                    }
                }
                Ok(Some(Cow::Owned(Value::Array(list))))
            }
            Self::Object(entries) => {
                let mut map = Map::with_capacity(entries.len());
                for (key, item) in entries {
                    if let Some(value) = item.render(scope)? {
                        map.insert(key.clone(), value.into_owned());
                    }
                }
                Ok(Some(Cow::Owned(Value::Object(map))))
            }
        }
    }

    /// The value as text: texts as they are, numbers and booleans in JSON form.
    pub(crate) fn render_to_text<'a>(&'a self, scope: &Scope<'a>) -> Result<Option<Cow<'a, str>>, ExpressionError> {
        match self.render(scope)? {
            None => Ok(None),
            Some(Cow::Borrowed(value)) => scalar_text(value).map(Some),
            Some(Cow::Owned(Value::String(text))) => Ok(Some(Cow::Owned(text))),
            Some(Cow::Owned(value)) => scalar_text(&value).map(|text| Some(Cow::Owned(text.into_owned()))),
        }
    }
}

fn all_literal<'t>(mut parts: impl Iterator<Item = &'t Template>) -> bool {
    parts.all(Template::is_literal)
}

fn render_text(pieces: &[Piece], scope: &Scope<'_>) -> Result<Option<String>, ExpressionError> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => text.push_str(literal),
            Piece::Expression {
                expression,
                optional: true,
            } => match expression.evaluate_optional(scope)? {
                Some(value) => text.push_str(&scalar_text(&value)?),
                None => return Ok(None),
            },
            Piece::Expression {
                expression,
                optional: false,
            } => {
                let value = expression.evaluate(scope)?;
                text.push_str(&scalar_text(&value)?);
            }
        }
    }
    Ok(Some(text))
}

/// A scalar as text. Null, lists and objects have no text form here: they are mistakes in a path, header or URL.
pub(crate) fn scalar_text(value: &Value) -> Result<Cow<'_, str>, ExpressionError> {
    match value {
        Value::String(text) => Ok(Cow::Borrowed(text)),
        Value::Bool(flag) => Ok(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::Number(number) => Ok(Cow::Owned(number.to_string())),
        Value::Null => Err(ExpressionError::new("null has no text form")),
        Value::Array(_) => Err(ExpressionError::new("a list has no text form")),
        Value::Object(_) => Err(ExpressionError::new("an object has no text form")),
    }
}

/// Splits text at `{{ … }}`, respecting quotes inside the braces.
pub(crate) fn pieces(text: &str, is_optional: IsOptional<'_>) -> Result<Vec<Piece>, String> {
    if text.contains("{%") {
        return Err("statements (`{% … %}`) are not allowed here; write an expression".to_owned());
    }
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once("{{") {
        if !literal.is_empty() {
            found.push(Piece::Literal(literal.to_owned()));
        }
        let end = closing(after).ok_or_else(|| "`{{` without `}}`".to_owned())?;
        let (source, tail) = after.split_at(end);
        let expression = Expression::compile(source)?;
        let optional = is_optional(&expression);
        found.push(Piece::Expression { expression, optional });
        rest = tail.strip_prefix("}}").unwrap_or(tail);
    }
    if !rest.is_empty() {
        found.push(Piece::Literal(rest.to_owned()));
    }
    Ok(found)
}

fn closing(source: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0_usize;
    let bytes = source.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        let byte = bytes[index];
        match quote {
            Some(_) if byte == b'\\' => index += 1,
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None => match byte {
                b'\'' | b'"' => quote = Some(byte),
                b'{' => depth += 1,
                b'}' if depth > 0 => depth -= 1,
                b'}' if bytes.get(index + 1) == Some(&b'}') => return Some(index),
                _ => {}
            },
        }
        index += 1;
    }
    None
}
