//! Text with secrets in it: `Token {{ token }}`.
//!
//! Not the expressions of the rest of a manifest, which never see a secret: here a name stands for a value as it is, and
//! nothing can be computed from it. What comes of it goes to a request and nowhere else.

use std::borrow::Cow;

use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};

use super::values::Values;
use crate::connector::Common;
use crate::encode;
use crate::expression::{Expression, Scope};
use crate::fields::kind_of;
use crate::operation::BuildError;
use crate::pointer;
use crate::problem::{Problems, nearest};
use crate::template::{self, pieces, scalar_text};

/// What may be named where a text is read.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    /// Values.
    pub(super) values: &'a [&'a str],
    /// Settings too, of this connector.
    pub(super) settings: Option<&'a Common>,
}

/// What the names stand for.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// Values; the first that has a name counts.
    pub(super) values: &'a [&'a Values],
    /// Settings and their defaults.
    pub(super) settings: Option<(&'a Value, &'a Value)>,
}

/// A compiled text.
#[derive(Debug)]
pub(super) struct SecretText {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Literal(String),
    Value(String),
    Setting { expression: Expression, optional: bool },
}

/// How a value is written into its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// As it is.
    No,
    /// As a part of a URL: values, but not settings.
    Values,
    /// As a part of a path: values and settings.
    All,
}

impl SecretText {
    /// Compiles a text; what does not compile is reported.
    pub(super) fn read(value: &Value, place: &str, names: Names<'_>, problems: &mut Problems) -> Option<Self> {
        let Some(text) = value.as_str() else {
            problems.add(place, "bad_type", format!("expected text, found {}", kind_of(value)));
            return None;
        };
        let may_be_absent = |expression: &Expression| {
            let common = names.settings;
            common.is_some_and(|common| common.config_may_be_absent(expression))
        };
        let found = match pieces(text, &may_be_absent) {
            Ok(found) => found,
            Err(message) => {
                problems.add(place, "bad_expression", message);
                return None;
            }
        };
        let mut read = Vec::with_capacity(found.len());
        for piece in found {
            read.push(match piece {
                template::Piece::Literal(text) => Piece::Literal(text),
                template::Piece::Expression { expression, optional } => {
                    read_name(expression, optional, place, names, problems)?
                }
            });
        }
        Some(Self { pieces: read })
    }

    /// The names of the values in it.
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Value(name) => Some(name.as_str()),
            Piece::Literal(_) | Piece::Setting { .. } => None,
        })
    }

    /// The text; `None` when a setting in it is absent that may be.
    pub(super) fn render(&self, given: Given<'_>, escape: Escape) -> Result<Option<String>, BuildError> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Value(name) => {
                    let value = value_of(name, given)?;
                    match escape {
                        Escape::No => text.push_str(value),
                        Escape::Values | Escape::All => encode::percent(&mut text, value),
                    }
                }
                Piece::Setting { expression, optional } => {
                    let Some(value) = setting(expression, *optional, given)? else {
                        return Ok(None);
                    };
                    let value = scalar_text(&value).map_err(|error| BuildError::new("/config", error.message))?;
                    match escape {
                        Escape::No | Escape::Values => text.push_str(&value),
                        Escape::All => encode::percent(&mut text, &value),
                    }
                }
            }
        }
        Ok(Some(text))
    }

    /// The setting that it is, when it is nothing else: that keeps its type.
    fn whole_setting(&self) -> Option<(&Expression, bool)> {
        match self.pieces.as_slice() {
            [Piece::Setting { expression, optional }] => Some((expression, *optional)),
            _ => None,
        }
    }
}

fn read_name(
    expression: Expression,
    optional: bool,
    place: &str,
    names: Names<'_>,
    problems: &mut Problems,
) -> Option<Piece> {
    if let (Some(common), true) = (names.settings, expression.roots() == ["config"]) {
        common.check_config_names(&expression, place, problems);
        return Some(Piece::Setting { expression, optional });
    }
    let name = match &expression {
        Expression::Path(path) if path.steps.is_empty() => path.root.clone(),
        Expression::Path(_) | Expression::Condition(_) | Expression::Jinja { .. } => {
            let message = match names.settings {
                Some(_) => "here stands the name of a value, or a setting: secrets cannot be computed with",
                None => "here stands the name of a value: secrets cannot be computed with",
            };
            problems.add(place, "bad_expression", message);
            return None;
        }
    };
    if names.values.contains(&name.as_str()) {
        return Some(Piece::Value(name));
    }
    let suggestion = match nearest(&name, names.values.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", names.values.join(", ")),
    };
    let message = format!("`{name}` is not a value that is known here");
    problems.add_with_suggestion(place, "unknown_name", message, suggestion);
    None
}

/// The secret that a name stands for.
pub(super) fn value_of<'g>(name: &str, given: Given<'g>) -> Result<&'g str, BuildError> {
    let found = given.values.iter().find_map(|values| values.get(name));
    found
        .map(|secret| secret.expose_secret())
        .ok_or_else(|| BuildError::new("/credential", format!("the credential has no `{name}`")))
}

fn setting<'g>(
    expression: &'g Expression,
    optional: bool,
    given: Given<'g>,
) -> Result<Option<Cow<'g, Value>>, BuildError> {
    let (config, defaults) = given.settings.unwrap_or((&Value::Null, &Value::Null));
    let named = [("config", config), ("config", defaults)];
    let scope = Scope {
        named: &named,
        layers: &[],
    };
    let value = match optional {
        true => expression.evaluate_optional(&scope),
        false => expression.evaluate(&scope).map(Some),
    };
    let value = value.map_err(|error| BuildError::new("/config", error.message))?;
    Ok(value.map(|value| Cow::Owned(value.into_owned())))
}

/// A tree whose texts may hold secrets.
#[derive(Debug)]
pub(super) enum SecretTree {
    Literal(Value),
    Text(SecretText),
    Array(Vec<SecretTree>),
    Object(Vec<(String, SecretTree)>),
}

impl SecretTree {
    pub(super) fn read(value: &Value, place: &str, names: Names<'_>, problems: &mut Problems) -> Option<Self> {
        Some(match value {
            Value::String(_) => Self::Text(SecretText::read(value, place, names, problems)?),
            Value::Array(items) => {
                let mut read = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    let place = pointer::join(place, &index.to_string());
                    read.extend(Self::read(item, &place, names, problems));
                }
                Self::Array(read)
            }
            Value::Object(map) => {
                let mut read = Vec::with_capacity(map.len());
                for (name, item) in map {
                    let inner = Self::read(item, &pointer::join(place, name), names, problems);
                    read.extend(inner.map(|inner| (name.clone(), inner)));
                }
                Self::Object(read)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Literal(value.clone()),
        })
    }

    /// Adds the names of the values in it.
    pub(super) fn add_values<'t>(&'t self, names: &mut Vec<&'t str>) {
        match self {
            Self::Literal(_) => {}
            Self::Text(text) => names.extend(text.values()),
            Self::Array(items) => items.iter().for_each(|item| item.add_values(names)),
            Self::Object(entries) => entries.iter().for_each(|(_, item)| item.add_values(names)),
        }
    }

    /// The value; `None` when it is a setting that is absent and may be.
    pub(super) fn render(&self, given: Given<'_>) -> Result<Option<Value>, BuildError> {
        Ok(match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Text(text) => match text.whole_setting() {
                Some((expression, optional)) => setting(expression, optional, given)?.map(Cow::into_owned),
                None => text.render(given, Escape::No)?.map(Value::String),
            },
            Self::Array(items) => {
                let mut list = Vec::with_capacity(items.len());
                for item in items {
                    list.extend(item.render(given)?);
                }
                Some(Value::Array(list))
            }
            Self::Object(entries) => {
                let mut map = Map::with_capacity(entries.len());
                for (name, item) in entries {
                    if let Some(value) = item.render(given)? {
                        map.insert(name.clone(), value);
                    }
                }
                Some(Value::Object(map))
            }
        })
    }
}
