//! What a mutation says its input did wrong.

use crate::failure::Failure;
use serde::Deserialize;

/// What to read of each user error.
pub(crate) const FIELDS: &str = "userErrors { __typename code message path ... on InputError { pointer suggestion } }";

/// One mistake in the input of a mutation.
#[derive(Debug, Deserialize)]
pub(crate) struct UserError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) path: Vec<String>,
    #[serde(default)]
    pub(crate) pointer: Option<String>,
    #[serde(default)]
    pub(crate) suggestion: Option<String>,
}

impl UserError {
    /// Whether runs that are not over stand in the way.
    pub(crate) fn is_about_open_runs(&self) -> bool {
        self.code == "OPEN_RUNS"
    }

    /// The text behind its place inside of the document that was given, where there is one.
    fn placed(&self) -> String {
        // Before it stand `input` and the member that holds the document.
        match (self.pointer.as_deref(), self.path.get(2..)) {
            (Some(pointer), _) if !pointer.is_empty() => format!("{pointer}: {}", self.text()),
            (_, Some(inside)) if !inside.is_empty() => format!("/{}: {}", inside.join("/"), self.text()),
            _ => self.text(),
        }
    }

    /// The message with its suggestion.
    pub(crate) fn text(&self) -> String {
        match &self.suggestion {
            Some(suggestion) => format!("{} ({suggestion})", self.message),
            None => self.message.clone(),
        }
    }
}

/// Fails with all mistakes, if there are any.
pub(crate) fn refuse(what: &str, errors: &[UserError]) -> Result<(), Failure> {
    if errors.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = errors.iter().map(UserError::placed).collect();
    Err(Failure::new(format!("{what}: {}", texts.join("\n"))))
}
