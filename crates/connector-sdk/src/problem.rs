//! What is wrong with a document, and where: the one form in which this crate refuses input.
//!
//! A problem never contains a secret: messages quote keys and shapes, not values of secret fields.

use std::fmt;

/// One thing wrong with a manifest, a configuration or a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as an RFC 6901 JSON Pointer into the document.
    pub pointer: String,
    /// Line in the YAML text, 1-based, when the document came from text.
    pub line: Option<usize>,
    /// Stable, snake-case code (`unknown_key`, `missing_key`, `bad_value` …).
    pub code: &'static str,
    /// What is wrong, as a fragment without full stop.
    pub message: String,
    /// What would be right, when there is a good guess.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "/" } else { &self.pointer };
        match self.line {
            Some(line) => write!(f, "line {line}, {place}: {}", self.message)?,
            None => write!(f, "{place}: {}", self.message)?,
        }
        match &self.suggestion {
            Some(suggestion) => write!(f, " ({suggestion})"),
            None => Ok(()),
        }
    }
}

/// Collects problems while a document is read, so that one pass reports all of them.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    pub(crate) fn add(&mut self, pointer: &str, code: &'static str, message: impl Into<String>) {
        self.list.push(Problem {
            pointer: pointer.to_owned(),
            line: None,
            code,
            message: message.into(),
            suggestion: None,
        });
    }

    pub(crate) fn add_with_suggestion(
        &mut self,
        pointer: &str,
        code: &'static str,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        self.list.push(Problem {
            pointer: pointer.to_owned(),
            line: None,
            code,
            message: message.into(),
            suggestion: Some(suggestion.into()),
        });
    }

    pub(crate) fn extend(&mut self, problems: Vec<Problem>) {
        self.list.extend(problems);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn into_list(self) -> Vec<Problem> {
        self.list
    }

    /// The value when nothing was wrong, all problems otherwise.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Problem>> {
        match value {
            Some(value) if self.list.is_empty() => Ok(value),
            Some(_) | None => Err(self.list),
        }
    }
}

/// The known word nearest to `word`, when it is near enough to be a likely slip of the pen.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count().max(word.chars().count()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
