//! From valid JSON text to a tree, total: what a tree cannot hold becomes the nearest thing that it can.
//!
//! Providers send halves of surrogate pairs (a cut emoji) and numbers out of range. Refusing such an event would
//! lose it, so this must never fail on valid JSON.

use serde_json::{Map, Number, Value};

/// The tree for a valid JSON text.
pub(super) fn parse(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) => Reader {
            bytes: text.as_bytes(),
            text,
            at: 0,
        }
        .value(),
    }
}

/// The text inside a valid JSON string literal, given with its quotes.
pub(super) fn string(literal: &str) -> String {
    match serde_json::from_str(literal) {
        Ok(text) => text,
        Err(_) => repair_string(literal),
    }
}

fn repair_string(literal: &str) -> String {
    let mut units: Vec<u16> = Vec::with_capacity(literal.len());
    let inside = literal
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or_default();
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
            continue;
        }
        let unit = match characters.next() {
            Some('u') => {
                let hex: String = characters.by_ref().take(4).collect();
                u16::from_str_radix(&hex, 16).unwrap_or(0xfffd)
            }
            Some('n') => 0x0a,
            Some('t') => 0x09,
            Some('r') => 0x0d,
            Some('b') => 0x08,
            Some('f') => 0x0c,
            Some('"') => 0x22,
            Some('/') => 0x2f,
            _ => 0x5c,
        };
        units.push(unit);
    }
    String::from_utf16_lossy(&units)
}

fn number(literal: &str) -> Value {
    match serde_json::from_str::<Number>(literal) {
        Ok(number) => Value::Number(number),
        Err(_) => Value::from(if literal.starts_with('-') { f64::MIN } else { f64::MAX }),
    }
}

/// A recursive reader; its depth is bounded because documents are.
struct Reader<'t> {
    bytes: &'t [u8],
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn skip(&mut self, set: &[u8]) {
        while self.bytes.get(self.at).is_some_and(|byte| set.contains(byte)) {
            self.at += 1;
        }
    }

    fn literal(&mut self) -> &str {
        let start = self.at;
        if self.bytes.get(self.at) == Some(&b'"') {
            self.at += 1;
            while let Some(byte) = self.bytes.get(self.at) {
                match byte {
                    b'"' => break,
                    b'\\' => self.at += 2,
                    _ => self.at += 1,
                }
            }
            self.at += 1;
        } else {
            while self
                .bytes
                .get(self.at)
                .is_some_and(|byte| !b",]} \t\n\r".contains(byte))
            {
                self.at += 1;
            }
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn value(&mut self) -> Value {
        self.skip(b" \t\n\r");
        match self.bytes.get(self.at) {
            Some(b'{') => {
                let mut map = Map::new();
                self.at += 1;
                loop {
                    self.skip(b" \t\n\r,");
                    if self.bytes.get(self.at) != Some(&b'"') {
                        self.at += 1;
                        return Value::Object(map);
                    }
                    let key = string(self.literal());
                    self.skip(b" \t\n\r:");
                    let member = self.value();
                    map.insert(key, member);
                }
            }
            Some(b'[') => {
                let mut list = Vec::new();
                self.at += 1;
                loop {
                    self.skip(b" \t\n\r,");
                    if matches!(self.bytes.get(self.at), Some(b']') | None) {
                        self.at += 1;
                        return Value::Array(list);
                    }
                    list.push(self.value());
                }
            }
            Some(b'"') => Value::String(string(self.literal())),
            Some(b't' | b'f' | b'n') => match self.literal() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => Value::Null,
            },
            _ => number(self.literal()),
        }
    }
}
