//! Structural templates: a JSON value whose text leaves may hold `{{ }}`.
//!
//! A leaf that is exactly one expression keeps the type of its value; any other leaf renders text. The result is
//! written as JSON text, so values found in documents are copied and never parsed. There are no statements.

use std::sync::Arc;

use serde_json::Value;

use super::render::write_escaped;
use super::{Expression, ExpressionError, MAX_EXPRESSION_BYTES, MAX_OUTPUT_BYTES, Scope};
use crate::document::Document;
use crate::problem::{Problem, child};

/// A compiled template.
#[derive(Clone, Debug, Default)]
pub(crate) struct Template {
    ops: Vec<Op>,
}

#[derive(Clone, Debug)]
enum Op {
    /// JSON text as it is.
    Literal(String),
    /// A value.
    Value(Expression),
    /// A piece of a text.
    Text(Expression),
}

/// A piece of a text with expressions in it.
enum Segment<'t> {
    Literal(&'t str),
    Expression(&'t str),
}

/// Cuts a text at its braces. `}}` inside a string or an object of the expression does not end it.
fn segments<'t>(text: &'t str, pointer: &str) -> Result<Vec<Segment<'t>>, Problem> {
    let problem = |message: &str| Problem::new(pointer, "expression_syntax", message);
    let mut segments = Vec::new();
    let mut rest = text;
    loop {
        let opening = rest.find("{{");
        let literal = opening.map_or(Some(rest), |at| rest.get(..at)).unwrap_or_default();
        if literal.contains("{%") || literal.contains("{#") {
            let hint = "write `{{ value if condition else other }}`, or an `if` or `for_each` step";
            return Err(problem("statements and comments are not part of texts").suggest(hint));
        }
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal));
        }
        let Some(inside) = opening.and_then(|at| rest.get(at + 2..)) else {
            return Ok(segments);
        };
        let Some(end) = expression_end(inside) else {
            return Err(problem(&format!("`{{{{` in {text:?} is never closed")).suggest("close it with `}}`"));
        };
        segments.push(Segment::Expression(inside.get(..end).unwrap_or_default()));
        rest = inside.get(end + 2..).unwrap_or_default();
    }
}

fn expression_end(inside: &str) -> Option<usize> {
    let bytes = inside.as_bytes();
    let (mut at, mut open) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while bytes.get(at).is_some_and(|byte| byte != quote) {
                    at += if bytes.get(at) == Some(&b'\\') { 2 } else { 1 };
                }
            }
            b'{' => open += 1,
            b'}' if open > 0 => open -= 1,
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// What stands between the braces of a text that is exactly one expression.
pub(super) fn sole_expression<'t>(text: &'t str, pointer: &str) -> Result<Option<&'t str>, Problem> {
    Ok(match segments(text, pointer)?.as_slice() {
        [Segment::Expression(source)] => Some(source),
        _ => None,
    })
}

impl Template {
    /// Compiles every text leaf of `value`; all problems are reported, not only the first.
    pub(crate) fn compile(value: &Value, pointer: &str) -> Result<Self, Vec<Problem>> {
        let mut template = Self::default();
        let mut problems = Vec::new();
        template.add(value, pointer, &mut problems);
        if problems.is_empty() {
            Ok(template)
        } else {
            Err(problems)
        }
    }

    /// The same template, told with another place in the document: what stood below `from` stands below `to`.
    pub(crate) fn moved(mut self, from: &str, to: &str) -> Self {
        for op in &mut self.ops {
            if let Op::Value(expression) | Op::Text(expression) = op
                && let Some(rest) = expression.pointer.strip_prefix(from)
            {
                expression.pointer = Arc::from(format!("{to}{rest}"));
            }
        }
        self
    }

    fn literal(&mut self, text: &str) {
        match self.ops.last_mut() {
            Some(Op::Literal(last)) => last.push_str(text),
            Some(Op::Value(_) | Op::Text(_)) | None => self.ops.push(Op::Literal(text.to_owned())),
        }
    }

    fn literal_inside_text(&mut self, text: &str) {
        let mut escaped = String::new();
        write_escaped(text, &mut escaped);
        self.literal(&escaped);
    }

    fn add(&mut self, value: &Value, pointer: &str, problems: &mut Vec<Problem>) {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.literal(&value.to_string()),
            Value::String(text) => {
                if let Err(problem) = self.add_text(text, pointer) {
                    problems.push(problem);
                }
            }
            Value::Array(list) => {
                for (index, element) in list.iter().enumerate() {
                    self.literal(if index == 0 { "[" } else { "," });
                    self.add(element, &child(pointer, index), problems);
                }
                self.literal(if list.is_empty() { "[]" } else { "]" });
            }
            Value::Object(map) => {
                for (index, (name, member)) in map.iter().enumerate() {
                    let place = child(pointer, name);
                    if name.contains("{{") {
                        let message = "the name of a member cannot hold an expression";
                        problems.push(Problem::new(&place, "expression_in_name", message));
                    }
                    self.literal(if index == 0 { "{\"" } else { ",\"" });
                    self.literal_inside_text(name);
                    self.literal("\":");
                    self.add(member, &place, problems);
                }
                self.literal(if map.is_empty() { "{}" } else { "}" });
            }
        }
    }

    fn add_text(&mut self, text: &str, pointer: &str) -> Result<(), Problem> {
        if text.contains("{{") && text.len() > MAX_EXPRESSION_BYTES {
            let message = format!(
                "a text with expressions of {} bytes is longer than {MAX_EXPRESSION_BYTES}",
                text.len()
            );
            return Err(Problem::new(pointer, "expression_too_long", message));
        }
        match segments(text, pointer)?.as_slice() {
            [Segment::Expression(source)] => self.ops.push(Op::Value(Expression::compile(source, pointer)?)),
            segments => {
                self.literal("\"");
                for segment in segments {
                    match segment {
                        Segment::Literal(text) => self.literal_inside_text(text),
                        Segment::Expression(source) => self.ops.push(Op::Text(Expression::compile(source, pointer)?)),
                    }
                }
                self.literal("\"");
            }
        }
        Ok(())
    }

    /// Every expression in it.
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.ops.iter().filter_map(|op| match op {
            Op::Literal(_) => None,
            Op::Value(expression) | Op::Text(expression) => Some(expression),
        })
    }

    /// The document for a scope.
    ///
    /// # Errors
    /// When an expression fails, or the document is larger than [`MAX_OUTPUT_BYTES`].
    pub(crate) fn render(&self, scope: &dyn Scope) -> Result<Document, ExpressionError> {
        let mut out = String::with_capacity(256);
        for op in &self.ops {
            let result = match op {
                Op::Literal(text) => {
                    out.push_str(text);
                    continue;
                }
                Op::Value(expression) => {
                    expression.find(scope)?.write_json(&mut out);
                    Ok(expression)
                }
                Op::Text(expression) => match expression.find(scope)?.write_text(&mut out) {
                    Ok(()) => Ok(expression),
                    Err(reason) => Err((expression, reason.to_owned())),
                },
            };
            match result {
                Ok(expression) if out.len() > MAX_OUTPUT_BYTES => {
                    return Err(expression.error(format!("makes a document of more than {MAX_OUTPUT_BYTES} bytes")));
                }
                Ok(_) => {}
                Err((expression, reason)) => return Err(expression.error(reason)),
            }
        }
        Document::from_own_text(out).map_err(|error| ExpressionError {
            pointer: String::new(),
            expression: "{{ … }}".to_owned(),
            reason: format!("the values do not make one JSON document: {error}"),
        })
    }
}
