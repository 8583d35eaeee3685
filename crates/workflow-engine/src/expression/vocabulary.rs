//! The words of the expression language: an allow-list of filters, tests and functions, and ours among them.
//!
//! Whatever is not in these lists cannot be compiled. No word may read anything but its arguments.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior};
use sha2::{Digest as _, Sha256};

use super::{FUEL_PER_EVALUATION, attribute, order, product};
use crate::problem::Problem;

/// The filters: `value | filter`.
pub(super) const FILTERS: [&str; 43] = [
    "abs",
    "base64",
    "base64_decode",
    "bool",
    "capitalize",
    "count",
    "d",
    "date",
    "default",
    "dictsort",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sha256",
    "sort",
    "split",
    "string",
    "sum",
    "timestamp",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "urlencode",
    "keys",
    "values",
];

/// The tests: `value is test`.
pub(super) const TESTS: [&str; 17] = [
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "even",
    "float",
    "integer",
    "iterable",
    "lower",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "undefined",
];

/// The functions.
pub(super) const FUNCTIONS: [&str; 2] = ["decimal_amount", "money"];

/// What one unit of fuel pays for in the library (`Environment::set_fuel`).
const BYTES_PER_FUEL: usize = 64;

/// Filters of the library that are not offered: they print for machines of the library, or trust their input.
const REMOVED_FILTERS: [&str; 12] = [
    "safe", "escape", "e", "attr", "batch", "slice", "indent", "groupby", "chain", "zip", "pprint", "format",
];
const REMOVED_GLOBALS: [&str; 4] = ["range", "dict", "debug", "namespace"];

/// The one environment that all expressions are compiled in.
pub(super) fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut environment = Environment::new();
        for name in REMOVED_FILTERS {
            environment.remove_filter(name);
        }
        for name in REMOVED_GLOBALS {
            environment.remove_global(name);
        }
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL_PER_EVALUATION));
        environment.set_recursion_limit(64);
        environment.set_debug(false);
        environment.add_filter("map", map);
        environment.add_filter("sort", attribute::sort);
        environment.add_filter("unique", attribute::unique);
        environment.add_filter("selectattr", attribute::selectattr);
        environment.add_filter("rejectattr", attribute::rejectattr);
        environment.add_filter("min", |state: &mut State<'_, '_>, value: Value, named: Kwargs| {
            attribute::named(state, "min", &value, &named)?;
            all_of_one_order("min", &value, &named)?;
            minijinja::filters::min(state, value, named)
        });
        environment.add_filter("max", |state: &mut State<'_, '_>, value: Value, named: Kwargs| {
            attribute::named(state, "max", &value, &named)?;
            all_of_one_order("max", &value, &named)?;
            minijinja::filters::max(state, value, named)
        });
        environment.add_function(product::NAME, product::product);
        environment.add_function(order::NAME, order::ordered);
        environment.add_filter("default", default);
        environment.add_filter("d", default);
        environment.add_filter("date", date);
        environment.add_filter("timestamp", timestamp);
        environment.add_filter("sha256", sha256);
        environment.add_filter("base64", |text: &str| STANDARD.encode(text));
        environment.add_filter("base64_decode", base64_decode);
        environment.add_filter("urlencode", urlencode);
        environment.add_filter("keys", |map: &Value| -> Result<Value, Error> {
            Ok(map.try_iter()?.collect())
        });
        environment.add_filter("values", values);
        environment.add_function("money", money);
        environment.add_function("decimal_amount", decimal_amount);
        environment
    })
}

/// Compiles once as written, for the sake of an error that points into the author's own text.
pub(super) fn check_syntax(source: &str, pointer: &str) -> Result<(), Problem> {
    let Err(error) = environment().compile_expression(source) else {
        return Ok(());
    };
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let mut message = format!("syntax error: {what}");
    if let Some(range) = error.range() {
        let before = source.get(..range.start.min(source.len())).unwrap_or(source);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = source
            .get(line_start..)
            .and_then(|rest| rest.lines().next())
            .unwrap_or_default();
        let column = before.get(line_start..).map_or(0, |text| text.chars().count());
        let width = source.get(range).map_or(1, |text| text.chars().count()).max(1);
        message = format!("{message}\n  {line}\n  {}{}", " ".repeat(column), "^".repeat(width));
    }
    Err(Problem::new(pointer, "expression_syntax", message))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// The value, or `other` when the value is not there or null; with `falsy` also when it is empty, zero or false.
fn default(value: &Value, arguments: Rest<Value>) -> Result<Value, Error> {
    let other = || arguments.first().cloned().unwrap_or_else(|| Value::from(""));
    let falsy = arguments.get(1).is_some_and(Value::is_true);
    match arguments.len() {
        3.. => Err(Error::from(ErrorKind::TooManyArguments)),
        _ if value.is_undefined() || value.is_none() || falsy && !value.is_true() => Ok(other()),
        _ => Ok(value.clone()),
    }
}

/// The library's `map`; what it puts in for absent attributes is paid for at each place.
fn map(state: &mut State<'_, '_>, value: Value, arguments: Rest<ValueOrKwargs>) -> Result<Vec<Value>, Error> {
    let named = |argument: &ValueOrKwargs| Kwargs::try_from(Value::clone(argument)).ok();
    let default = arguments
        .iter()
        .find_map(named)
        .and_then(|named| named.get::<Option<Value>>("default").ok().flatten());
    if let Some(default) = default {
        if default.as_object().is_some() {
            return Err(invalid(
                "`default` of `map` can be a text, a number, true, false or null",
            ));
        }
        let bytes = default
            .as_str()
            .map_or(0, str::len)
            .saturating_mul(value.len().unwrap_or(0));
        state.consume_fuel(u64::try_from(bytes / BYTES_PER_FUEL).unwrap_or(u64::MAX))?;
    } else if let Some(named) = arguments.iter().find_map(named).filter(|named| !named.has("default")) {
        attribute::named(state, "map", &value, &named)?;
    }
    minijinja::filters::map(state, value, arguments)
}

/// Whether the elements can be ordered among themselves; the library would order them by kind first.
fn all_of_one_order(filter: &str, list: &Value, named: &Kwargs) -> Result<(), Error> {
    let attribute = named.get::<Option<&str>>("attribute")?;
    let mut before: Option<Value> = None;
    for element in list.try_iter()? {
        let key = match attribute {
            None => element,
            Some(path) => {
                let mut found = element;
                for name in path.split('.') {
                    found = found.get_attr(name)?;
                }
                found
            }
        };
        if let Some(before) = &before {
            order::order_of(filter, before, &key)?;
        }
        before = Some(key);
    }
    Ok(())
}

fn moment(value: &Value) -> Result<chrono::DateTime<chrono::Utc>, Error> {
    let time = match (value.as_i64(), value.as_str()) {
        (Some(seconds), _) => chrono::DateTime::from_timestamp(seconds, 0),
        (None, Some(text)) => chrono::DateTime::parse_from_rfc3339(text)
            .ok()
            .map(|time| time.to_utc()),
        (None, None) => None,
    };
    let what = || {
        format!(
            "{} is neither an RFC 3339 time nor seconds since 1970",
            order::named(value)
        )
    };
    time.ok_or_else(|| invalid(what()))
}

/// A time as text, in UTC; `format` is strftime's, ISO 8601 date by default.
fn date(value: &Value, format: Option<&str>) -> Result<String, Error> {
    use std::fmt::Write as _;
    let format = format.unwrap_or("%Y-%m-%d");
    let mut out = String::new();
    match write!(out, "{}", moment(value)?.format(format)) {
        Ok(()) => Ok(out),
        Err(_) => Err(invalid(format!("{format:?} is not a date format"))),
    }
}

/// A time as whole seconds since 1970.
fn timestamp(value: &Value) -> Result<i64, Error> {
    moment(value).map(|time| time.timestamp())
}

fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

fn base64_decode(text: &str) -> Result<String, Error> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| invalid(format!("the text is not base64: {error}")))?;
    String::from_utf8(bytes).map_err(|error| invalid(format!("the decoded bytes are not text: {error}")))
}

/// Percent-encodes everything but unreserved characters (RFC 3986 section 2.3).
fn urlencode(value: &Value) -> Result<String, Error> {
    use std::fmt::Write as _;
    if value.is_undefined() || value.is_none() {
        return Err(invalid(
            "null cannot stand in a URL; say what to write instead with `| default(\"…\")`",
        ));
    }
    let mut out = String::new();
    for byte in value.to_string().bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => write!(out, "%{other:02X}").map_err(|error| invalid(error.to_string()))?,
        }
    }
    Ok(out)
}

fn values(map: &Value) -> Result<Value, Error> {
    let members: Result<Vec<Value>, Error> = map.try_iter()?.map(|key| map.get_item(&key)).collect();
    members.map(Value::from)
}

/// Digits after the decimal point of a currency (ISO 4217, list one, as of January 2026); 2 unless listed here.
fn minor_digits(currency: &str) -> usize {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI" | "VND"
        | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

/// An amount in minor units as a decimal number in text: `decimal_amount(1999, "eur")` is `19.99`.
fn decimal_amount(amount: &Value, currency: &str) -> Result<String, Error> {
    let Some(minor) = amount.as_i64().filter(|_| amount.is_integer()) else {
        let what = match amount.kind() {
            ValueKind::String => {
                "the amount is text: minor units are a whole number, as `| int` makes of a text".to_owned()
            }
            ValueKind::Undefined | ValueKind::None => "the amount is null: minor units are a whole number".to_owned(),
            _ => format!("{amount} is not a whole number of minor units"),
        };
        return Err(invalid(what));
    };
    let currency = currency.trim().to_uppercase();
    if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(invalid(format!("{currency:?} is not a currency code of three letters")));
    }
    let digits = minor_digits(&currency);
    let sign = if minor < 0 { "-" } else { "" };
    let text = format!("{:0>width$}", minor.unsigned_abs(), width = digits + 1);
    let (whole, fraction) = text.split_at(text.len() - digits);
    Ok(if digits == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    })
}

/// An amount in minor units for people: `money(1999, "eur")` is `19.99 EUR`.
fn money(amount: &Value, currency: &str) -> Result<String, Error> {
    Ok(format!(
        "{} {}",
        decimal_amount(amount, currency)?,
        currency.trim().to_uppercase()
    ))
}
