//! `<`, `<=`, `>` and `>=` for what has an order: numbers among numbers, texts among texts.
//!
//! The library orders everything, by kind first: `"1200" > 1000` is true and `null > 1000` false, whatever stands in
//! them, so a condition on an amount that came as a text would silently be wrong. So each comparison that asks for an
//! order becomes `ordered(a, "<", b)` before it is compiled. `==` and `!=` stay: different kinds are different.

use std::cmp::Ordering;

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::token::{Kind, Token, spaced, tokens};

/// The name under which the environment knows [`ordered`]; authors cannot write it.
pub(super) const NAME: &str = "ordered";
/// What one unit of fuel pays for in the library.
const BYTES_PER_FUEL: usize = 64;
/// How much of a value is shown in an error.
const SAMPLE_CHARACTERS: usize = 40;

/// A chain of comparisons: a value, an operator, a value, and so on. All of them must hold.
pub(super) fn ordered(state: &mut State<'_, '_>, arguments: Rest<Value>) -> Result<bool, Error> {
    for pair in arguments.windows(3).step_by(2) {
        let [left, operator, right] = pair else { continue };
        let operator = operator.as_str().unwrap_or_default();
        let holds = match operator {
            "==" => left == right,
            "!=" => left != right,
            "in" => is_in(state, left, right)?,
            "not in" => !is_in(state, left, right)?,
            order => holds(state, left, order, right)?,
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The library's test takes what nothing can be in for empty.
fn is_in(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<bool, Error> {
    match right.kind() {
        ValueKind::String | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            minijinja::tests::is_in(state, left, right)
        }
        _ => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("nothing can be in {}", named(right)),
        )),
    }
}

fn holds(state: &mut State<'_, '_>, left: &Value, operator: &str, right: &Value) -> Result<bool, Error> {
    let bytes = left
        .as_str()
        .map_or(0, str::len)
        .min(right.as_str().map_or(0, str::len));
    state.consume_fuel(u64::try_from(bytes / BYTES_PER_FUEL).unwrap_or(u64::MAX))?;
    let ordering = order_of(operator, left, right)?;
    Ok(match operator {
        "<" => ordering == Ordering::Less,
        "<=" => ordering != Ordering::Greater,
        ">" => ordering == Ordering::Greater,
        _ => ordering != Ordering::Less,
    })
}

/// How two values of one kind stand to each other.
pub(super) fn order_of(what: &str, left: &Value, right: &Value) -> Result<Ordering, Error> {
    let numeric = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    let text = |value: &Value| value.kind() == ValueKind::String;
    if numeric(left) && numeric(right) || text(left) && text(right) {
        return Ok(left.cmp(right));
    }
    let cure = if text(left) && numeric(right) || numeric(left) && text(right) {
        "turn one into the other's kind with `| float`, `| int` or `| string`"
    } else if [left, right].iter().any(|side| side.is_none() || side.is_undefined()) {
        "say what to use instead of null with `| default(…)`"
    } else {
        "compare something in it"
    };
    Err(Error::new(
        ErrorKind::InvalidOperation,
        format!(
            "`{what}` compares numbers with numbers and texts with texts, but here {} meets {}; {cure}",
            named(left),
            named(right)
        ),
    ))
}

/// A value by its kind, with the beginning of it.
pub(super) fn named(value: &Value) -> String {
    let kind = match value.kind() {
        ValueKind::Undefined | ValueKind::None => return "null".to_owned(),
        ValueKind::Bool => return format!("{value}"),
        ValueKind::Number => "the number",
        ValueKind::String => "the text",
        ValueKind::Seq | ValueKind::Iterable => return "a list".to_owned(),
        _ => return "an object".to_owned(),
    };
    let whole = value
        .as_str()
        .map_or_else(|| value.to_string(), |text| format!("{text:?}"));
    let mut sample: String = whole.chars().take(SAMPLE_CHARACTERS).collect();
    if sample.len() < whole.len() {
        sample.push('…');
    }
    format!("{kind} {sample}")
}

/// The expression with every chain of comparisons that asks for an order written as a call of [`ordered`].
pub(super) fn guard(source: &str) -> String {
    let tokens = tokens(source);
    if !tokens.iter().any(asks_for_order) {
        return source.to_owned();
    }
    let mut rewriter = Rewriter { tokens: &tokens, at: 0 };
    let mut out = String::with_capacity(source.len() + 32);
    while rewriter.at < tokens.len() {
        out.push_str(&rewriter.region());
        // A closing bracket without an opening one cannot be in an expression whose syntax was checked.
        out.push_str(rewriter.take().map_or("", |token| token.text));
    }
    out
}

fn asks_for_order(token: &Token<'_>) -> bool {
    ["<", "<=", ">", ">="].iter().any(|sign| token.is(sign))
}

struct Rewriter<'t> {
    tokens: &'t [Token<'t>],
    at: usize,
}

/// A chain of comparisons as far as it was read: operands, and the operators between them.
#[derive(Default)]
struct Chain {
    done: Vec<(String, String)>,
    operand: String,
    asks: bool,
}

impl Chain {
    fn next(&mut self, operator: &str, asks: bool) {
        self.asks |= asks;
        self.done.push((std::mem::take(&mut self.operand), operator.to_owned()));
    }

    fn finish(&mut self) -> String {
        let Self { done, operand, asks } = std::mem::take(self);
        let mut out = String::new();
        for (left, operator) in done {
            if asks {
                out.push_str(&format!("{}, \"{operator}\", ", left.trim()));
            } else {
                out.push_str(&format!("{left} {operator} "));
            }
        }
        if asks {
            format!(" {NAME}({out}{}) ", operand.trim())
        } else {
            out + &operand
        }
    }
}

impl<'t> Rewriter<'t> {
    fn take(&mut self) -> Option<&'t Token<'t>> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    fn name_at(&self, at: usize) -> Option<&'t str> {
        let token = self.tokens.get(at)?;
        (token.kind == Kind::Name).then_some(token.text)
    }

    /// The comparison that begins here, and the number of its tokens.
    fn comparison(&self) -> Option<(&'static str, usize)> {
        let token = self.tokens.get(self.at)?;
        match token.kind {
            Kind::Sign => ["==", "!=", "<", "<=", ">", ">="]
                .into_iter()
                .find(|sign| token.text == *sign)
                .map(|sign| (sign, 1)),
            Kind::Name if self.is_member() => None,
            Kind::Name => match token.text {
                "in" => Some(("in", 1)),
                "not" if self.name_at(self.at + 1) == Some("in") => Some(("not in", 2)),
                _ => None,
            },
            Kind::Number | Kind::Text => None,
        }
    }

    /// Whether the name here comes after a point.
    fn is_member(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|before| self.tokens.get(before));
        before.is_some_and(|before| before.is("."))
    }

    /// Whether the token here binds looser than a comparison.
    fn is_looser(&self, token: &Token<'_>) -> bool {
        match token.kind {
            Kind::Sign => matches!(token.text, "," | ":" | "="),
            Kind::Name if self.is_member() => false,
            Kind::Name => match token.text {
                "and" | "or" | "if" | "else" => true,
                // `is not odd` is one test.
                "not" => self.at.checked_sub(1).and_then(|before| self.name_at(before)) != Some("is"),
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
                _ => {}
            }
            if let Some((operator, length)) = self.comparison() {
                chain.next(operator, asks_for_order(token));
                self.at += length;
                continue;
            }
            if self.is_looser(token) {
                out.push_str(&chain.finish());
                out.push_str(&spaced(token));
            } else {
                chain.operand.push_str(&spaced(token));
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
    fn each_comparison_of_order_becomes_a_call() {
        check("a == b", "a == b");
        check("a < b", "ordered(a, \"<\", b)");
        check("a + 1 >= -b ~ c", "ordered(a + 1, \">=\", -b ~ c)");
        check("a < b < c == d", "ordered(a, \"<\", b, \"<\", c, \"==\", d)");
        check(
            "not a < b and c not in [d > e]",
            "not ordered(a, \"<\", b) and c not in [ordered(d, \">\", e)]",
        );
        check(
            "x if a.in < 1 else y > 2",
            "x if ordered(a.in, \"<\", 1) else ordered(y, \">\", 2)",
        );
        check("a is not odd < b", "ordered(a is not odd, \"<\", b)");
        check(
            "f(x, d=a < b) | round(1) > 2",
            "ordered(f(x, d=ordered(a,\"<\",b)) | round(1), \">\", 2)",
        );
        check("{'a < b': c <= d}", "{'a < b': ordered(c, \"<=\", d)}");
    }

    fn environment() -> Environment<'static> {
        let mut environment = Environment::new();
        environment.add_function(NAME, ordered);
        environment
    }

    #[test]
    fn kinds_are_not_mixed_up() {
        let environment = environment();
        let ask = |source: &str| {
            let compiled = environment.compile_expression_owned(guard(source)).unwrap();
            compiled
                .eval(())
                .map(|value| value.is_true())
                .map_err(|error| error.to_string())
        };
        for holds in [
            "1 < 1.5",
            "'a' < 'b'",
            "true > 0",
            "1 < 2 < 3",
            "'2026-11-02' >= '2026-11-01'",
            "2 > 1 in [1]",
        ] {
            assert_eq!(ask(holds), Ok(true), "{holds}");
        }
        for (mixed, says) in [
            ("'1200' > 1000", "the text \"1200\" meets the number 1000"),
            ("1 <= none", "the number 1 meets null"),
            ("[1] < [2]", "a list meets a list"),
            ("{'a': 1} >= 0", "an object meets the number 0"),
        ] {
            let error = ask(mixed).expect_err(mixed);
            assert!(error.contains(says), "{mixed}: {error}");
        }
    }

    fn expression() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            (0..9_i64).prop_map(|number| number.to_string()),
            Just("a".to_owned()),
            Just("b.c[0]".to_owned()),
        ];
        leaf.prop_recursive(5, 40, 3, |inner| {
            let operators = prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!=", "+", "-", "and", "or", "%"]);
            prop_oneof![
                4 => (inner.clone(), operators, inner.clone()).prop_map(|(l, o, r)| format!("{l} {o} {r}")),
                1 => inner.clone().prop_map(|inner| format!("({inner})")),
                1 => (inner.clone(), inner.clone()).prop_map(|(l, r)| format!("{l} not in [{r}, {l}]")),
                1 => inner.clone().prop_map(|inner| format!("(not {inner})")),
                // Without brackets the library takes `not in` after a test for an argument of the test.
                1 => inner.clone().prop_map(|inner| format!("({inner} is not odd)")),
                1 => (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("{a} if {b} else {c}")),
            ]
        })
    }

    proptest! {
        /// Among numbers the guard changes nothing.
        #[test]
        fn a_guarded_expression_gives_the_same(source in expression()) {
            let environment = environment();
            let context = minijinja::context! { a => 7, b => minijinja::context! { c => [3] } };
            let Ok(plain) = environment.compile_expression(&source) else { return Ok(()) };
            let guarded = guard(&source);
            let compiled = environment.compile_expression(&guarded);
            prop_assert!(compiled.is_ok(), "{source} became {guarded}");
            match (plain.eval(&context), compiled.unwrap().eval(&context)) {
                (Ok(expected), Ok(got)) => {
                    prop_assert_eq!(expected.to_string(), got.to_string(), "{} became {}", source, guarded);
                }
                // What comes later in a chain is worked out even when it no longer matters.
                (Ok(_) | Err(_), Err(_)) => {}
                (Err(error), Ok(_)) => prop_assert!(false, "{source} became {guarded}: {error}"),
            }
        }
    }
}
