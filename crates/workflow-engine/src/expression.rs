//! Expressions: what stands in `{{ }}`.
//!
//! Every name in an expression is found by a scan before compiling and replaced by a slot, so an evaluation only ever
//! sees the values that it names, never a context with everything in it. An expression that is a plain path is not
//! compiled at all: it is a pointer into a document. Nothing here can loop without fuel, reach a secret, or write.

mod absent;
mod attribute;
mod order;
mod product;
mod render;
mod scan;
mod template;
mod token;
mod values;
mod vocabulary;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

pub(crate) use self::absent::sample;
pub(crate) use self::render::Found;
use self::render::truth;
use self::scan::Scan;
pub(crate) use self::scan::Use;
pub(crate) use self::template::Template;
use crate::document::PathPart;
use crate::problem::Problem;

/// Fuel of one evaluation: about one unit per instruction, per 64 bytes of text and per 4 bytes of text made from lists
/// and objects. A useful expression needs tens; printing a document of [`MAX_OUTPUT_BYTES`] needs most of it.
///
/// Limit: work of one expression: about one per instruction, per 64 bytes of text, per 4 bytes of text made from lists and objects | the step fails, `expression_failed` | `bombs_run_out_of_fuel_or_room`
pub const FUEL_PER_EVALUATION: u64 = 400_000;
/// The longest expression or template text in bytes; longer ones are programs and belong elsewhere.
///
/// Limit: expression, or text with expressions | refused at publish | `faulty_expressions_are_refused_at_publish`
pub const MAX_EXPRESSION_BYTES: usize = 4096;
/// The largest JSON text that one step may compute from expressions, in bytes.
///
/// Limit: what a step computes from expressions | the step fails, `expression_failed` | `expressions_stop_at_their_bounds`
pub const MAX_OUTPUT_BYTES: usize = 1024 * 1024;

/// What one evaluation may read, in bytes of JSON, counted at each place where the expression names it.
///
/// Limit: what one expression reads, counted each time it is named | the step fails, `expression_failed` | `expressions_stop_at_their_bounds`
pub const MAX_READ_BYTES: usize = 8 * 1024 * 1024;

/// Where an expression finds the names that it uses.
pub(crate) trait Scope {
    /// The value at a path below a root name.
    fn find(&self, root: &str, path: &[PathPart]) -> Found<'_>;
}

/// A compiled expression.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    /// Where it stands in its document.
    pointer: Arc<str>,
    uses: Arc<[Use]>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// Exactly one path: `uses` has one element.
    Path,
    Compiled(Arc<minijinja::Expression<'static, 'static>>),
}

/// An expression that failed on the values it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{expression}`{}: {reason}", at(pointer))]
pub struct ExpressionError {
    /// JSON pointer to where it stands in its document; empty when it stands in several places.
    pub pointer: String,
    /// The expression, without its braces.
    pub expression: String,
    /// What went wrong, for people.
    pub reason: String,
}

fn at(pointer: &str) -> String {
    match pointer {
        "" => String::new(),
        pointer => format!(" at {pointer}"),
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{{{{ {} }}}}", self.source)
    }
}

impl Expression {
    /// Compiles a text that is exactly one `{{ … }}`.
    pub(crate) fn parse(text: &str, pointer: &str) -> Result<Self, Problem> {
        match template::sole_expression(text, pointer)? {
            Some(source) => Self::compile(source, pointer),
            None => Err(
                Problem::new(pointer, "not_an_expression", format!("{text:?} is not one expression"))
                    .suggest("write it as \"{{ … }}\""),
            ),
        }
    }

    /// Compiles what stands between the braces.
    fn compile(source: &str, pointer: &str) -> Result<Self, Problem> {
        let source = source.trim();
        if source.len() > MAX_EXPRESSION_BYTES {
            let message = format!(
                "an expression of {} bytes is longer than {MAX_EXPRESSION_BYTES}",
                source.len()
            );
            return Err(Problem::new(pointer, "expression_too_long", message));
        }
        vocabulary::check_syntax(source, pointer)?;
        let Scan { uses, rewritten } = scan::scan(source, pointer)?;
        let kind = match &rewritten {
            None => Kind::Path,
            Some(rewritten) => {
                match vocabulary::environment().compile_expression_owned(order::guard(&product::guard(rewritten))) {
                    Ok(compiled) => Kind::Compiled(Arc::new(compiled)),
                    Err(error) => {
                        return Err(Problem::new(
                            pointer,
                            "expression_syntax",
                            format!("`{source}`: {error}"),
                        ));
                    }
                }
            }
        };
        Ok(Self {
            source: Arc::from(source),
            pointer: Arc::from(pointer),
            uses: Arc::from(uses),
            kind,
        })
    }

    /// What stands between the braces.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// JSON pointer to where it stands in its document.
    pub(crate) fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The names that it uses.
    pub(crate) fn uses(&self) -> &[Use] {
        &self.uses
    }

    fn error(&self, reason: impl Into<String>) -> ExpressionError {
        ExpressionError {
            pointer: self.pointer.to_string(),
            expression: self.source.to_string(),
            reason: reason.into(),
        }
    }

    /// Its value in a scope; missing only when a plain path leads nowhere.
    fn evaluate<'s>(&self, scope: &'s dyn Scope) -> Result<Found<'s>, ExpressionError> {
        match &self.kind {
            Kind::Path => Ok(self
                .uses
                .first()
                .map_or(Found::Missing, |path| scope.find(&path.root, &path.parts))),
            Kind::Compiled(compiled) => values::evaluate(compiled, &self.uses, scope)
                .map(Found::Owned)
                .map_err(|reason| self.error(reason)),
        }
    }

    /// Its value in a scope.
    ///
    /// # Errors
    /// When something it names is not there, or it fails, or it runs out of fuel.
    pub(crate) fn find<'s>(&self, scope: &'s dyn Scope) -> Result<Found<'s>, ExpressionError> {
        match self.evaluate(scope)? {
            Found::Missing => {
                let why = self.uses.first().map(|path| absent::absent(path, scope));
                Err(self.error(why.unwrap_or_default()))
            }
            found => Ok(found),
        }
    }

    /// Its value in a scope as a tree.
    pub(crate) fn value(&self, scope: &dyn Scope) -> Result<Value, ExpressionError> {
        Ok(self.find(scope)?.into_value())
    }

    /// Whether it is true: not false, null, zero, or empty.
    pub(crate) fn truth(&self, scope: &dyn Scope) -> Result<bool, ExpressionError> {
        Ok(truth(&self.find(scope)?))
    }

    /// Whether it is true, where something that is not there counts as false.
    pub(crate) fn truth_or_absent(&self, scope: &dyn Scope) -> bool {
        self.evaluate(scope).is_ok_and(|found| truth(&found))
    }
}
