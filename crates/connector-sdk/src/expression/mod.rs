//! `{{ … }}` expressions in manifests: plain paths, simple conditions, and MiniJinja for the rest.
//!
//! Only manifest text is ever compiled, never a payload. Evaluation is strict (an unknown name is an
//! error that names the key), bounded by fuel, and sees exactly the names of its [`Scope`]: no
//! secrets, no environment, no functions with effects. Paths and simple conditions never build a
//! template context; they are what a hot call consists of.

mod path;

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

use path::Cursor;
pub(crate) use path::{Path, Step, Term};

/// What one evaluation may use; some ten thousand times what real manifests need.
///
/// Limit: work of one expression in a manifest: about one per instruction and per 64 bytes of text | the call fails, `invalid` | `expressions_of_a_manifest_stop_at_their_bounds`
pub(crate) const FUEL_PER_EVALUATION: u64 = 50_000;

/// Longest text an expression may produce, in bytes.
///
/// Limit: text that one expression in a manifest gives | the call fails, `invalid` | `expressions_of_a_manifest_stop_at_their_bounds`
pub(crate) const MAX_OUTPUT_BYTES: usize = 1024 * 1024;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL_PER_EVALUATION));
    environment.set_recursion_limit(64);
    let globals: Vec<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
    for name in globals {
        environment.remove_global(&name);
    }
    for name in ["safe", "escape", "e", "pprint", "format", "indent"] {
        environment.remove_filter(name);
    }
    environment
});

/// Why an expression gave no value. The text names the expression's own words, never a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpressionError {
    pub(crate) message: String,
    /// The first name of the path that was missing, when that was the reason.
    pub(crate) missing: Option<String>,
}

impl ExpressionError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            missing: None,
        }
    }
}

/// The names an expression sees.
///
/// `named` entries come first; several entries of one name are layers (`config` and its defaults), the
/// first that resolves the whole path wins. `layers` hold names that stand at the top (arguments, then
/// their defaults).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) named: &'a [(&'a str, &'a Value)],
    pub(crate) layers: &'a [&'a Map<String, Value>],
}

impl<'a> Scope<'a> {
    fn resolve(&self, path: &Path) -> Option<&'a Value> {
        let mut is_named = false;
        for (name, value) in self.named {
            if *name == path.root {
                is_named = true;
                if let Some(found) = path.follow(value) {
                    return Some(found);
                }
            }
        }
        if is_named {
            return None;
        }
        self.layers
            .iter()
            .find_map(|layer| layer.get(&path.root).and_then(|value| path.follow(value)))
    }

    /// The value of a top name for a template context; layers of one name are merged.
    fn root(&self, name: &str) -> Option<Cow<'a, Value>> {
        let mut found: Option<Cow<'a, Value>> = None;
        let named = self
            .named
            .iter()
            .filter(|(known, _)| *known == name)
            .map(|(_, value)| *value);
        let is_named = self.named.iter().any(|(known, _)| *known == name);
        let layered = self
            .layers
            .iter()
            .filter(|_| !is_named)
            .filter_map(|layer| layer.get(name));
        for value in named.chain(layered) {
            found = Some(match found {
                None => Cow::Borrowed(value),
                Some(upper) => Cow::Owned(merged(upper.into_owned(), value)),
            });
        }
        found
    }

    fn known_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.named.iter().map(|(name, _)| *name).collect();
        names.extend(self.layers.iter().flat_map(|layer| layer.keys().map(String::as_str)));
        names
    }
}

/// `upper` with the keys of `lower` that it lacks.
fn merged(upper: Value, lower: &Value) -> Value {
    match (upper, lower) {
        (Value::Object(mut upper), Value::Object(lower)) => {
            for (key, value) in lower {
                let merged_value = match upper.remove(key) {
                    Some(existing) => merged(existing, value),
                    None => value.clone(),
                };
                upper.insert(key.clone(), merged_value);
            }
            Value::Object(upper)
        }
        (upper, _) => upper,
    }
}

/// One compiled expression (the text between `{{` and `}}`).
pub(crate) enum Expression {
    /// A lookup.
    Path(Path),
    /// `a == 'x' and b is defined and c in ['y', 'z']`, evaluated without MiniJinja.
    Condition(Vec<Term>),
    /// Everything else.
    Jinja {
        expression: minijinja::Expression<'static, 'static>,
        roots: Vec<String>,
    },
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "Path({path})"),
            Self::Condition(terms) => f.debug_tuple("Condition").field(terms).finish(),
            Self::Jinja { roots, .. } => f.debug_struct("Jinja").field("roots", roots).finish_non_exhaustive(),
        }
    }
}

impl Expression {
    /// Compiles the text between the braces. The error is a message for the manifest's author.
    pub(crate) fn compile(source: &str) -> Result<Self, String> {
        let source = source.trim();
        let mut cursor = Cursor::new(source);
        if let Some(path) = cursor.path()
            && cursor.at_end()
        {
            return Ok(Self::Path(path));
        }
        if let Some(terms) = Cursor::new(source).terms() {
            return Ok(Self::Condition(terms));
        }
        if has_product(source) {
            return Err(format!(
                "`{source}` multiplies; manifests describe requests, compute in the workflow instead"
            ));
        }
        let expression = ENVIRONMENT
            .compile_expression_owned(source.to_owned())
            .map_err(|error| {
                format!(
                    "`{source}` is not an expression: {}",
                    error.detail().unwrap_or("syntax error")
                )
            })?;
        let mut roots: Vec<String> = expression.undeclared_variables(false).into_iter().collect();
        roots.sort();
        Ok(Self::Jinja { expression, roots })
    }

    /// The top names it uses.
    pub(crate) fn roots(&self) -> Vec<&str> {
        match self {
            Self::Path(path) => vec![path.root.as_str()],
            Self::Condition(terms) => terms.iter().map(|term| term.path.root.as_str()).collect(),
            Self::Jinja { roots, .. } => roots.iter().map(String::as_str).collect(),
        }
    }

    /// The value in `scope`; a path borrows it.
    pub(crate) fn evaluate<'a>(&self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, ExpressionError> {
        match self {
            Self::Path(path) => scope
                .resolve(path)
                .map(Cow::Borrowed)
                .ok_or_else(|| path.missing(scope)),
            Self::Condition(terms) => {
                for term in terms {
                    if !term.holds(scope)? {
                        return Ok(Cow::Owned(Value::Bool(false)));
                    }
                }
                Ok(Cow::Owned(Value::Bool(true)))
            }
            Self::Jinja { expression, roots } => {
                let context = minijinja::Value::from_pairs(roots.iter().filter_map(|root| {
                    scope
                        .root(root)
                        .map(|value| (root.clone(), minijinja::Value::from(Serde(value.into_owned()))))
                }));
                let result = expression
                    .eval(context)
                    .map_err(|error| jinja_error(&error, roots, scope))?;
                if result.is_undefined() {
                    return Err(ExpressionError::new("the expression gave no value; use `default(…)`"));
                }
                let value = serde_json::to_value(&result).map_err(|error| {
                    ExpressionError::new(format!("the expression gave something that is not data: {error}"))
                })?;
                if text_bytes(&value) > MAX_OUTPUT_BYTES {
                    return Err(ExpressionError::new(format!(
                        "the expression gave more than {MAX_OUTPUT_BYTES} bytes"
                    )));
                }
                Ok(Cow::Owned(value))
            }
        }
    }

    /// The value when it may be absent: `None` instead of an error that nobody reads, which would cost more than the rest of a request.
    pub(crate) fn evaluate_optional<'a>(&self, scope: &Scope<'a>) -> Result<Option<Cow<'a, Value>>, ExpressionError> {
        match self {
            Self::Path(path) => Ok(scope.resolve(path).map(Cow::Borrowed)),
            Self::Condition(_) | Self::Jinja { .. } => self.evaluate(scope).map(Some),
        }
    }

    /// Whether the value counts as true. Absent paths are false: `when: "{{ charge.customer }}"` asks for presence.
    pub(crate) fn holds(&self, scope: &Scope<'_>) -> Result<bool, ExpressionError> {
        if let Self::Path(path) = self {
            return Ok(scope.resolve(path).is_some_and(truthy));
        }
        self.evaluate(scope).map(|value| truthy(&value))
    }
}

/// Whether `*` stands outside of texts. The library also repeats texts and lists with it, lazily and without end: a
/// few bytes of manifest and one argument would print a value that fits no memory.
fn has_product(source: &str) -> bool {
    let mut quote = None;
    let mut characters = source.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(_), '\\') => {
                characters.next();
            }
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            (None, '*') => return true,
            (Some(_) | None, _) => {}
        }
    }
    false
}

fn jinja_error(error: &minijinja::Error, roots: &[String], scope: &Scope<'_>) -> ExpressionError {
    let known = scope.known_names();
    match roots.iter().find(|root| !known.contains(&root.as_str())) {
        Some(root) if error.kind() == minijinja::ErrorKind::UndefinedError => ExpressionError {
            message: format!("`{root}` is not given"),
            missing: Some(root.clone()),
        },
        Some(_) | None => ExpressionError::new(format!(
            "{}{}",
            error.kind(),
            error.detail().map_or_else(String::new, |detail| format!(": {detail}"))
        )),
    }
}

fn text_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(text_bytes).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + text_bytes(value)).sum(),
    }
}

/// Truth as in MiniJinja: empty text, list, map, zero, false and null are false.
pub(crate) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}
