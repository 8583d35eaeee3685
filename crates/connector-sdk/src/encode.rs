//! Percent-encoding, query strings and nested form bodies.
//!
//! Form bodies follow the bracket form that Stripe reads (`a[b][0]=x`). Brackets that we write are
//! structure and stay plain; brackets inside names are escaped, so the form can always be read back.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// How an array becomes pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrays {
    /// `a=x&a=y`
    Repeat,
    /// `a[]=x&a[]=y`
    Brackets,
    /// `a[0]=x&a[1]=y`
    Indexes,
    /// `a=x,y`
    Comma,
}

pub(crate) const ARRAYS: [(&str, Arrays); 4] = [
    ("repeat", Arrays::Repeat),
    ("brackets", Arrays::Brackets),
    ("indexes", Arrays::Indexes),
    ("comma", Arrays::Comma),
];

/// Appends `text` with everything but RFC 3986 unreserved characters escaped.
pub(crate) fn percent(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(out, "%{byte:02X}").expect("a String accepts every write");
        }
    }
}

/// Appends `map` as `name=value` pairs. Null values, empty lists and empty objects have no pair form and are left out.
pub(crate) fn pairs(out: &mut String, map: &Map<String, Value>, arrays: Arrays) {
    for (name, value) in map {
        let mut key = String::new();
        escape_name(&mut key, name, arrays);
        append(out, &key, value, arrays);
    }
}

/// Escapes one part of a name. In query strings people write `expand[]` themselves: brackets stay there.
fn escape_name(out: &mut String, name: &str, arrays: Arrays) {
    let keeps_brackets = matches!(arrays, Arrays::Repeat | Arrays::Comma);
    for part in name.split_inclusive(['[', ']']) {
        match part.strip_suffix(['[', ']']) {
            Some(stem) if keeps_brackets => {
                percent(out, stem);
                out.push(if part.ends_with('[') { '[' } else { ']' });
            }
            Some(_) | None => percent(out, part),
        }
    }
}

fn append(out: &mut String, key: &str, value: &Value, arrays: Arrays) {
    match value {
        Value::Null => {}
        Value::Bool(flag) => pair(out, key, if *flag { "true" } else { "false" }),
        Value::Number(number) => pair(out, key, &number.to_string()),
        Value::String(text) => pair(out, key, text),
        Value::Array(items) => append_array(out, key, items, arrays),
        Value::Object(map) => {
            for (name, value) in map {
                let mut nested = String::with_capacity(key.len() + name.len() + 2);
                nested.push_str(key);
                nested.push('[');
                percent(&mut nested, name);
                nested.push(']');
                append(out, &nested, value, arrays);
            }
        }
    }
}

fn append_array(out: &mut String, key: &str, items: &[Value], arrays: Arrays) {
    match arrays {
        Arrays::Repeat => items.iter().for_each(|item| append(out, key, item, arrays)),
        Arrays::Brackets => {
            let key = format!("{key}[]");
            items.iter().for_each(|item| append(out, &key, item, arrays));
        }
        Arrays::Indexes => {
            for (index, item) in items.iter().enumerate() {
                append(out, &format!("{key}[{index}]"), item, arrays);
            }
        }
        Arrays::Comma => {
            let texts: Vec<String> = items
                .iter()
                .filter_map(|item| crate::template::scalar_text(item).ok().map(|text| text.into_owned()))
                .collect();
            if !texts.is_empty() {
                pair(out, key, &texts.join(","));
            }
        }
    }
}

fn pair(out: &mut String, key: &str, value: &str) {
    if !out.is_empty() {
        out.push('&');
    }
    out.push_str(key);
    out.push('=');
    percent(out, value);
}

/// Decodes `%XX`, and `+` as a space when `plus` says so. Broken escapes stay as they are.
pub(crate) fn decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        match bytes[index] {
            b'%' => match bytes.get(index + 1..index + 3).and_then(hex_byte) {
                Some(byte) => {
                    decoded.push(byte);
                    index += 2;
                }
                None => decoded.push(b'%'),
            },
            b'+' if plus => decoded.push(b' '),
            byte => decoded.push(byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

/// The pairs of a query string or form body, decoded, in order.
pub(crate) fn decode_pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true), decode(value, true))
        })
        .collect()
}
