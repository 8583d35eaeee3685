//! A budget of bytes for one evaluation: fuel counts steps, and one step over a long text can make a longer one.
//!
//! Every filter that makes text out of values is ours, and pays while it builds. The operators are the library's.

use std::cell::Cell;
use std::fmt::Write as _;

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};

/// Bytes of text that the filters of one evaluation may make: eight times the largest output.
pub(super) const MAX_EVALUATION_BYTES: usize = 8 * 1024 * 1024;

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Begins an evaluation with a full budget.
pub(super) fn refill() {
    LEFT.set(MAX_EVALUATION_BYTES);
}

fn spent() -> Error {
    let what = format!("makes more than the {MAX_EVALUATION_BYTES} bytes of text that one evaluation may make");
    Error::new(ErrorKind::InvalidOperation, what)
}

fn charge(bytes: usize) -> Result<(), Error> {
    let left = LEFT.get().checked_sub(bytes).ok_or_else(spent)?;
    LEFT.set(left);
    Ok(())
}

/// Text that is charged while it is written.
struct Charged(String);

impl std::fmt::Write for Charged {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        charge(text.len()).map_err(|_spent| std::fmt::Error)?;
        self.0.push_str(text);
        Ok(())
    }
}

/// The text of any value, charged.
fn text(value: &Value) -> Result<String, Error> {
    let mut charged = Charged(String::new());
    match value.as_str() {
        Some(text) => charged.write_str(text),
        None if value.is_undefined() => return Err(Error::from(ErrorKind::UndefinedError)),
        None => write!(charged, "{value}"),
    }
    .map_err(|_spent| spent())?;
    Ok(charged.0)
}

fn join(list: &Value, joiner: Option<&Value>) -> Result<String, Error> {
    let joiner = joiner.map(text).transpose()?.unwrap_or_default();
    let mut charged = Charged(String::new());
    for (index, item) in list.try_iter()?.enumerate() {
        let separator = if index == 0 { "" } else { joiner.as_str() };
        let written = match item.as_str() {
            Some(text) => charged.write_str(separator).and_then(|()| charged.write_str(text)),
            None => write!(charged, "{separator}{item}"),
        };
        written.map_err(|_spent| spent())?;
    }
    Ok(charged.0)
}

fn replace(value: &Value, from: &Value, to: &Value) -> Result<String, Error> {
    let (value, from, to) = (text(value)?, text(from)?, text(to)?);
    charge(value.matches(&from).count().saturating_mul(to.len()))?;
    Ok(value.replace(&from, &to))
}

fn trim(value: &Value, characters: Option<&Value>) -> Result<String, Error> {
    let value = text(value)?;
    let Some(characters) = characters.map(text).transpose()? else {
        return Ok(value.trim().to_owned());
    };
    Ok(value
        .trim_matches(|character| characters.contains(character))
        .to_owned())
}

fn title(value: &Value) -> Result<String, Error> {
    let value = text(value)?;
    let mut begins = true;
    let cased = value.chars().flat_map(|character| {
        let letters: Vec<char> = if begins {
            character.to_uppercase().collect()
        } else {
            character.to_lowercase().collect()
        };
        begins = character.is_whitespace() || "-({[<".contains(character);
        letters
    });
    Ok(cased.collect())
}

fn capitalize(value: &Value) -> Result<String, Error> {
    let value = text(value)?;
    let mut characters = value.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    Ok(first + &characters.as_str().to_lowercase())
}

/// Puts the paying filters in the place of the library's.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_filter("upper", |value: &Value| text(value).map(|text| text.to_uppercase()));
    environment.add_filter("lower", |value: &Value| text(value).map(|text| text.to_lowercase()));
    environment.add_filter("string", text);
    environment.add_filter("join", join);
    environment.add_filter("replace", replace);
    environment.add_filter("trim", trim);
    environment.add_filter("title", title);
    environment.add_filter("capitalize", capitalize);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Evaluates with a text of 60 KB at hand; gives the length of the answer or the error.
    fn check(source: &str) -> Result<usize, String> {
        let mut environment = Environment::new();
        install(&mut environment);
        environment.set_fuel(Some(100_000));
        refill();
        let long = "x".repeat(60_000);
        let compiled = environment.compile_expression(source).unwrap();
        let answer = compiled.eval(minijinja::context! { s => long, words => ["a", "b"] });
        answer
            .map(|value| value.to_string().len())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn bombs_are_out_of_budget_before_they_are_large() {
        for bomb in [
            "([s] * 10000000) | join | length",
            "([s] * 1000) | map('upper') | list | length",
            "([s] * 100000) | string | length",
            "s | replace('x', s) | length",
            "(s | replace('x', 'xxxxxxxxxx')) | replace('x', 'xxxxxxxxxxxxxxxxxxxx') | length",
            "([s] * 100000) | join(s) | length",
        ] {
            let error = check(bomb).unwrap_err();
            assert!(
                error.contains("bytes of text") || error.contains("out of fuel"),
                "{bomb}: {error}"
            );
            assert!(LEFT.get() <= MAX_EVALUATION_BYTES, "{bomb}");
        }
    }

    #[test]
    fn ordinary_use_is_as_before() {
        let long = check("s | upper").unwrap();
        assert_eq!(long, 60_000);
        assert_eq!(check("words | join(', ') | length"), Ok(1));
        for (source, expected) in [
            ("'hello wORLD' | title", "Hello World"),
            ("'hELLO' | capitalize", "Hello"),
            ("'--a--' | trim('-')", "a"),
            ("' a ' | trim", "a"),
            ("'a-b' | replace('-', '+')", "a+b"),
            ("[1, 'a'] | join('/')", "1/a"),
            ("17 | string", "17"),
        ] {
            let mut environment = Environment::new();
            install(&mut environment);
            refill();
            let value = environment.compile_expression(source).unwrap().eval(()).unwrap();
            assert_eq!(value.to_string(), expected, "{source}");
        }
    }
}
