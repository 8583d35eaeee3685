//! What is wrong with a document, at a place, with a hint: the words of every check at publish.
//!
//! Problems are for people who write workflows. They never carry secrets and never an internal cause.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong in a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// RFC 6901 pointer to the place in the document; empty for the whole document.
    pub pointer: String,
    /// Stable name of the kind of problem, in `snake_case`.
    pub code: &'static str,
    /// What is wrong, one sentence fragment for people.
    pub message: String,
    /// What to write instead, when that can be guessed.
    pub suggestion: Option<String>,
}

impl Problem {
    /// A problem without a suggestion.
    pub fn new(pointer: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            code,
            message: message.into(),
            suggestion: None,
        }
    }

    /// The same problem with a suggestion.
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The same problem; if one of `known` is close to `wrong`, it is suggested.
    pub(crate) fn did_you_mean<'a>(mut self, wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        if let Some(near) = nearest(wrong, known) {
            self.suggestion = Some(format!("did you mean `{near}`?"));
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "/" } else { &self.pointer };
        write!(formatter, "{place}: {}", self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(formatter, " ({suggestion})"),
            None => Ok(()),
        }
    }
}

/// The name in `known` that is most like `wrong`, if any is like it at all.
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for name in known {
        let right = name.to_lowercase();
        let edits = strsim::damerau_levenshtein(&wrong, &right);
        // One slip in three characters is a slip; more is another word. A long common beginning counts as well.
        let is_slip = edits <= (wrong.chars().count().min(right.chars().count()) / 3).max(1);
        let is_like = wrong.len() > 3 && strsim::jaro_winkler(&wrong, &right) > 0.84;
        let likeness = strsim::normalized_damerau_levenshtein(&wrong, &right);
        if (is_slip && wrong.len() > 1 || is_like) && best.is_none_or(|(top, _)| likeness > top) {
            best = Some((likeness, name));
        }
    }
    best.map(|(_, name)| name)
}

/// One more token at the end of a pointer, escaped as RFC 6901 section 3 wants it.
pub(crate) fn child(pointer: &str, token: impl fmt::Display) -> String {
    let token = token.to_string().replace('~', "~0").replace('/', "~1");
    format!("{pointer}/{token}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_near_name_and_no_far_one() {
        let known = ["contacts.search", "contacts.update", "deals.create"];
        assert_eq!(nearest("contact.search", known), Some("contacts.search"));
        assert_eq!(nearest("deals.creat", known), Some("deals.create"));
        assert_eq!(nearest("teapot", known), None);
    }

    #[test]
    fn pointers_are_escaped() {
        assert_eq!(child("/with", "a/b~c"), "/with/a~1b~0c");
    }
}
