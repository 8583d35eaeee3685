//! The small grammar of plain paths and simple conditions, which never needs a template context.

use std::fmt;

use serde_json::Value;

use super::{ExpressionError, Scope};

/// A plain path: `a`, `a.b`, `a[0].b`, `a['key with space']`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) root: String,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    pub(super) fn follow<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.steps.iter().try_fold(value, |value, step| match step {
            Step::Key(key) => value.get(key.as_str()),
            Step::Index(index) => value.get(*index),
        })
    }

    pub(super) fn missing(&self, scope: &Scope<'_>) -> ExpressionError {
        let known = scope.known_names();
        let message = if known.contains(&self.root.as_str()) {
            format!("`{self}` is not there")
        } else {
            match crate::problem::nearest(&self.root, known.iter().copied()) {
                Some(near) => format!("`{}` is not given; did you mean `{near}`?", self.root),
                None => format!("`{}` is not given", self.root),
            }
        };
        ExpressionError {
            message,
            missing: Some(self.root.clone()),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.root)?;
        for step in &self.steps {
            match step {
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Term {
    pub(super) path: Path,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Defined(bool),
    Equals { literal: String, wanted: bool },
    OneOf(Vec<String>),
}

impl Term {
    pub(super) fn holds(&self, scope: &Scope<'_>) -> Result<bool, ExpressionError> {
        let value = scope.resolve(&self.path);
        match &self.test {
            Test::Defined(wanted) => Ok(value.is_some() == *wanted),
            Test::Equals { literal, wanted } => {
                let value = value.ok_or_else(|| self.path.missing(scope))?;
                Ok((value.as_str() == Some(literal.as_str())) == *wanted)
            }
            Test::OneOf(literals) => {
                let value = value.ok_or_else(|| self.path.missing(scope))?;
                Ok(value
                    .as_str()
                    .is_some_and(|text| literals.iter().any(|literal| literal == text)))
            }
        }
    }
}

/// Reads the small grammar of paths and simple conditions; gives up (`None`) on anything else.
pub(super) struct Cursor<'s> {
    rest: &'s str,
}

impl<'s> Cursor<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { rest: source.trim() }
    }

    pub(super) fn at_end(&self) -> bool {
        self.rest.trim_start().is_empty()
    }

    fn eat(&mut self, token: &str) -> bool {
        let trimmed = self.rest.trim_start();
        match trimmed.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Eats a word that is not the beginning of a longer word.
    fn word(&mut self, word: &str) -> bool {
        let trimmed = self.rest.trim_start();
        match trimmed.strip_prefix(word) {
            Some(rest) if !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_') => {
                self.rest = rest;
                true
            }
            Some(_) | None => false,
        }
    }

    fn identifier(&mut self) -> Option<&'s str> {
        let first = self.rest.chars().next()?;
        if !(first.is_ascii_alphabetic() || first == '_') {
            return None;
        }
        let end = self
            .rest
            .find(|next: char| !(next.is_ascii_alphanumeric() || next == '_'))
            .unwrap_or(self.rest.len());
        let (identifier, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(identifier)
    }

    pub(super) fn path(&mut self) -> Option<Path> {
        self.rest = self.rest.trim_start();
        let root = self.identifier()?;
        if [
            "true", "false", "none", "True", "False", "None", "not", "and", "or", "in", "is", "if", "else",
        ]
        .contains(&root)
        {
            return None;
        }
        let mut steps = Vec::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix('.') {
                self.rest = rest;
                steps.push(Step::Key(self.identifier()?.to_owned()));
            } else if let Some(rest) = self.rest.strip_prefix('[') {
                self.rest = rest;
                steps.push(match self.literal() {
                    Some(key) => Step::Key(key),
                    None => {
                        let end = self.rest.find(']')?;
                        let (digits, rest) = self.rest.split_at(end);
                        self.rest = rest;
                        Step::Index(digits.trim().parse().ok()?)
                    }
                });
                if !self.eat("]") {
                    return None;
                }
            } else {
                return Some(Path {
                    root: root.to_owned(),
                    steps,
                });
            }
        }
    }

    /// A quoted text without escapes.
    fn literal(&mut self) -> Option<String> {
        let trimmed = self.rest.trim_start();
        let quote = trimmed.chars().next().filter(|first| *first == '\'' || *first == '"')?;
        let inner = trimmed.strip_prefix(quote)?;
        let (text, rest) = inner.split_once(quote)?;
        if text.contains('\\') {
            return None;
        }
        self.rest = rest;
        Some(text.to_owned())
    }

    pub(super) fn terms(&mut self) -> Option<Vec<Term>> {
        let mut terms = Vec::new();
        loop {
            let path = self.path()?;
            let test = if self.word("is") {
                let wanted = !self.word("not");
                if !self.word("defined") {
                    return None;
                }
                Test::Defined(wanted)
            } else if self.word("in") {
                Test::OneOf(self.literals()?)
            } else if self.eat("==") {
                Test::Equals {
                    literal: self.literal()?,
                    wanted: true,
                }
            } else if self.eat("!=") {
                Test::Equals {
                    literal: self.literal()?,
                    wanted: false,
                }
            } else {
                return None;
            };
            terms.push(Term { path, test });
            if self.at_end() {
                return Some(terms);
            }
            if !self.word("and") {
                return None;
            }
        }
    }

    fn literals(&mut self) -> Option<Vec<String>> {
        if !self.eat("[") {
            return None;
        }
        let mut literals = Vec::new();
        loop {
            literals.push(self.literal()?);
            if self.eat("]") {
                return Some(literals);
            }
            if !self.eat(",") {
                return None;
            }
        }
    }
}
