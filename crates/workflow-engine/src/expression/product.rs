//! `*` for numbers only: the library also repeats texts and lists, lazily and without end.
//!
//! A list repeated ten million times costs nothing until something turns it into text, and then all memory. So each
//! `a * b` becomes `product(a, b)` before it is compiled. Nothing binds tighter than `* / // %` but `**`, signs,
//! filters, tests and members, so the tokens between two such operators are one operand.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::token::{Kind, Token, spaced, tokens};

/// The name under which the environment knows [`product`]; authors cannot write it.
pub(super) const NAME: &str = "product";

/// The product of two numbers.
pub(super) fn product(left: &Value, right: &Value) -> Result<Value, Error> {
    for side in [left, right] {
        if !matches!(side.kind(), ValueKind::Number | ValueKind::Bool) {
            let what = format!("`*` multiplies numbers, and one side is a {}", side.kind());
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
    }
    let whole = |side: &Value| match side.kind() {
        ValueKind::Number if !side.is_integer() => None,
        _ => i128::try_from(side.clone()).ok(),
    };
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left
            .checked_mul(right)
            .map(Value::from)
            .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "the product is too large")),
        (Some(_) | None, Some(_) | None) => Ok(Value::from(fraction(left)? * fraction(right)?)),
    }
}

/// A number as a fraction; true counts as 1.
fn fraction(value: &Value) -> Result<f64, Error> {
    match value.kind() {
        ValueKind::Bool => Ok(f64::from(u8::from(value.is_true()))),
        _ => f64::try_from(value.clone()),
    }
}

/// The expression with every `a * b` written as a call of [`product`].
pub(super) fn guard(source: &str) -> String {
    let tokens = tokens(source);
    if !tokens.iter().any(|token| token.is("*")) {
        return source.to_owned();
    }
    let mut rewriter = Rewriter { tokens: &tokens, at: 0 };
    let mut out = String::with_capacity(source.len() + 16);
    while rewriter.at < tokens.len() {
        out.push_str(&rewriter.region());
        // A closing bracket without an opening one cannot be in an expression whose syntax was checked.
        out.push_str(rewriter.take().map_or("", |token| token.text));
    }
    out
}

struct Rewriter<'t> {
    tokens: &'t [Token<'t>],
    at: usize,
}

/// A chain of operands at the level of `*`, as far as it was read.
#[derive(Default)]
struct Chain {
    left: Option<String>,
    operator: Option<&'static str>,
    operand: String,
}

impl Chain {
    fn fold(&mut self, next: Option<&'static str>) {
        let operand = std::mem::take(&mut self.operand);
        self.left = Some(match (self.left.take(), self.operator) {
            (Some(left), Some("*")) => format!("{NAME}({}, {})", left.trim(), operand.trim()),
            (Some(left), Some(operator)) => format!("{left} {operator} {operand}"),
            (Some(left), None) => left + &operand,
            (None, _) => operand,
        });
        self.operator = next;
    }

    fn finish(&mut self) -> String {
        self.fold(None);
        self.left.take().unwrap_or_default()
    }
}

impl<'t> Rewriter<'t> {
    fn take(&mut self) -> Option<&'t Token<'t>> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    /// Whether the token here is a sign before an operand and not an operator between two.
    fn is_prefix(&self) -> bool {
        let Some(before) = self.at.checked_sub(1).and_then(|before| self.tokens.get(before)) else {
            return true;
        };
        match before.kind {
            Kind::Sign => !matches!(before.text, ")" | "]" | "}"),
            // The argument of a test needs no brackets: `a is divisibleby -2`.
            Kind::Name => {
                matches!(before.text, "and" | "or" | "not" | "in" | "if" | "else") || self.is_test(self.at - 1)
            }
            Kind::Number | Kind::Text => false,
        }
    }

    /// Whether the name at `at` is a test: it follows `is` or `is not`.
    fn is_test(&self, at: usize) -> bool {
        let word = |back: usize, text: &str| {
            at.checked_sub(back)
                .and_then(|at| self.tokens.get(at))
                .is_some_and(|token| token.kind == Kind::Name && token.text == text)
        };
        word(1, "is") || word(1, "not") && word(2, "is")
    }

    /// Whether the token here ends an operand: it binds looser than `*`.
    fn is_looser(&self, token: &Token<'_>) -> bool {
        match token.kind {
            Kind::Sign => match token.text {
                "+" | "-" => !self.is_prefix(),
                other => matches!(other, "~" | "==" | "!=" | "<" | ">" | "<=" | ">=" | "," | ":" | "="),
            },
            Kind::Name => match token.text {
                "and" | "or" | "in" | "if" | "else" => true,
                // `is not odd` is one test.
                "not" => self
                    .tokens
                    .get(self.at.wrapping_sub(1))
                    .is_none_or(|before| before.text != "is"),
                _ => false,
            },
            Kind::Number | Kind::Text => false,
        }
    }

    /// Everything up to a closing bracket that belongs to somebody else, or to the end.
    fn region(&mut self) -> String {
        let mut out = String::new();
        let mut chain = Chain::default();
        while let Some(token) = self.tokens.get(self.at) {
            let operator = ["*", "/", "//", "%"].into_iter().find(|sign| token.is(sign));
            match token.text {
                ")" | "]" | "}" if token.kind == Kind::Sign => break,
                "(" | "[" | "{" if token.kind == Kind::Sign => {
                    chain.operand.push_str(token.text);
                    self.at += 1;
                    let inside = self.region();
                    chain.operand.push_str(&inside);
                    chain.operand.push_str(self.take().map_or("", |close| close.text));
                    continue;
                }
                // A name right before `*` in a call's arguments would be a splat, which the syntax check refused.
                _ if operator.is_some() => chain.fold(operator),
                _ if self.is_looser(token) => {
                    out.push_str(&chain.finish());
                    out.push_str(&spaced(token));
                }
                _ => chain.operand.push_str(&spaced(token)),
            }
            self.at += 1;
        }
        out.push_str(&chain.finish());
        out
    }
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;
    use proptest::prelude::*;

    use super::*;

    fn check(source: &str, expected: &str) {
        let words = |text: &str| text.replace(' ', "");
        assert_eq!(words(&guard(source)), words(expected), "{source}");
    }

    #[test]
    fn each_product_becomes_a_call() {
        check("a", "a");
        check("a * b", "product(a, b)");
        check("a * b * c", "product(product(a, b), c)");
        check("1 + a * -b", "1 + product(a, -b)");
        check(
            "-a.b[x * 2] * f(y * z) | round(1)",
            "product(-a.b[product(x,2)], f(product(y,z)) | round(1))",
        );
        check("a / b * c % d", "product(a / b, c) % d");
        check("a ** 2 * b ** 3", "product(a ** 2, b ** 3)");
        check("a * b ~ c * d + e", "product(a,b) ~ product(c,d) + e");
        check(
            "a * b is not odd and c * d == 4",
            "product(a, b is not odd) and product(c,d) == 4",
        );
        check("x if a * b > 1 else c * d", "x if product(a,b) > 1 else product(c,d)");
        check(
            "{'a': b * c, 'd * e': [f * g]}",
            "{'a': product(b,c), 'd * e': [product(f,g)]}",
        );
        check("not a * b", "not product(a, b)");
        check("a * b is divisibleby -2", "product(a, b is divisibleby -2)");
        check("'*' ~ a", "'*' ~ a");
    }

    fn expression() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            (0..50_i64).prop_map(|number| number.to_string()),
            (1..9_i64).prop_map(|number| format!("{number}.5")),
            Just("a".to_owned()),
            Just("b.c[0]".to_owned()),
        ];
        leaf.prop_recursive(5, 40, 3, |inner| {
            let operators = prop::sample::select(vec![
                "*", "*", "*", "/", "//", "%", "+", "-", "**", "<", "==", "and", "or", "~", "in",
            ]);
            prop_oneof![
                4 => (inner.clone(), operators, inner.clone()).prop_map(|(l, o, r)| if o == "in" {
                    format!("{l} in [{r}, {l}]")
                } else {
                    format!("{l} {o} {r}")
                }),
                1 => inner.clone().prop_map(|inner| format!("({inner})")),
                1 => inner.clone().prop_map(|inner| format!("-{inner}")),
                1 => inner.clone().prop_map(|inner| format!("(not {inner})")),
                1 => inner.clone().prop_map(|inner| format!("{inner} | abs")),
                1 => inner.clone().prop_map(|inner| format!("{inner} is not odd")),
                1 => (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("{a} if {b} else {c}")),
            ]
        })
    }

    proptest! {
        /// The guard changes nothing but the way to the product.
        #[test]
        fn a_guarded_expression_gives_the_same(source in expression()) {
            let mut environment = Environment::new();
            environment.add_function(NAME, product);
            let context = minijinja::context! { a => 7, b => minijinja::context! { c => [3] } };
            let Ok(plain) = environment.compile_expression(&source) else { return Ok(()) };
            let guarded = guard(&source);
            let compiled = environment.compile_expression(&guarded);
            prop_assert!(compiled.is_ok(), "{source} became {guarded}");
            let (expected, got) = (plain.eval(&context), compiled.unwrap().eval(&context));
            match (expected, got) {
                // The library repeats texts and lists, and knows numbers beyond 128 bits.
                (Ok(expected), Ok(got)) => prop_assert_eq!(expected.to_string(), got.to_string(), "{} became {}", source, guarded),
                (Err(_), Err(_)) => {}
                (Ok(_), Err(error)) => prop_assert!(
                    error.to_string().contains("`*` multiplies") || error.to_string().contains("too large"),
                    "{source} became {guarded}: {error}"
                ),
                (Err(error), Ok(_)) => prop_assert!(false, "{source} became {guarded}: {error}"),
            }
        }
    }
}
