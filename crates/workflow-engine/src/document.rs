//! JSON documents kept as the bytes they came in.
//!
//! A document is validated once and then looked into through an index of byte ranges, so that reading three fields
//! of a 3 KB body never builds a tree. What was received is what is kept: a document is never reformatted.

mod index;
mod lenient;

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::Value;
use serde_json::value::RawValue;

use self::index::Index;

/// How deeply arrays and objects may be nested in a document; deeper ones are refused, because code that walks
/// a document may recurse.
///
/// Limit: levels of JSON | an event: 400; the answer of a read: the call fails, `unreadable` | `refuses_what_is_not_json_with_its_place`
pub const MAX_JSON_DEPTH: usize = 128;

/// One step of a path into a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathPart {
    /// A member of an object.
    Key(String),
    /// An element of an array, counted from 0.
    Index(usize),
}

/// Bytes that are not a JSON document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}, at line {line}, column {column}")]
pub struct DocumentError {
    /// Line of the fault, from 1.
    pub line: usize,
    /// Column of the fault in bytes, from 1.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
}

impl DocumentError {
    /// A fault at the byte `place` of `text`.
    fn at(text: &[u8], place: usize, reason: String) -> Self {
        let before = text.get(..place).unwrap_or_default();
        Self {
            line: before.split(|byte| *byte == b'\n').count(),
            column: before.rsplit(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len) + 1,
            reason,
        }
    }
}

/// A JSON document: immutable, cheap to clone, parsed into a tree at most once and only on demand.
#[derive(Clone)]
pub struct Document(Arc<Inner>);

struct Inner {
    source: Arc<RawValue>,
    /// The bytes of `source` that are this document (all of them unless it is a part of another one).
    start: usize,
    end: usize,
    index: OnceLock<Index>,
    value: OnceLock<Value>,
}

impl Document {
    /// Takes the bytes of a JSON text.
    ///
    /// # Errors
    /// When the bytes are not UTF-8, not JSON (RFC 8259), or nested deeper than [`MAX_JSON_DEPTH`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                return Err(DocumentError::at(
                    bytes,
                    error.valid_up_to(),
                    "the text is not UTF-8".to_owned(),
                ));
            }
        };
        match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) => Self::from_raw(raw.to_owned()),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.split(" at line ").next().unwrap_or_default();
                Err(DocumentError {
                    line: error.line(),
                    column: error.column(),
                    reason: format!("the text is not JSON: {reason}"),
                })
            }
        }
    }

    fn from_raw(raw: Box<RawValue>) -> Result<Self, DocumentError> {
        let text = raw.get();
        let brackets = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
        if brackets > MAX_JSON_DEPTH
            && let Some(place) = index::too_deep(text, MAX_JSON_DEPTH)
        {
            let reason = format!("arrays and objects are nested deeper than {MAX_JSON_DEPTH}");
            return Err(DocumentError::at(text.as_bytes(), place, reason));
        }
        Ok(Self::whole(Arc::from(raw), OnceLock::new()))
    }

    fn whole(source: Arc<RawValue>, value: OnceLock<Value>) -> Self {
        let end = source.get().len();
        Self(Arc::new(Inner {
            source,
            start: 0,
            end,
            index: OnceLock::new(),
            value,
        }))
    }

    /// The document for text that this crate wrote itself.
    pub(crate) fn from_own_text(text: String) -> Result<Self, DocumentError> {
        match RawValue::from_string(text) {
            Ok(raw) => Self::from_raw(raw),
            Err(error) => Err(DocumentError {
                line: error.line(),
                column: error.column(),
                reason: error.to_string(),
            }),
        }
    }

    /// The object of these members. It may be one deeper than a document that came in.
    pub(crate) fn object<'a>(members: impl Iterator<Item = (&'a str, &'a Self)>) -> Self {
        let mut text = String::from("{");
        for (position, (name, document)) in members.enumerate() {
            if position > 0 {
                text.push(',');
            }
            text.push_str(&Value::from(name).to_string());
            text.push(':');
            text.push_str(document.raw());
        }
        text.push('}');
        let raw = RawValue::from_string(text).expect("an object of JSON texts is a JSON text");
        Self::whole(Arc::from(raw), OnceLock::new())
    }

    /// The list of these documents. It may be one deeper than a document that came in.
    pub(crate) fn list<'a>(documents: impl Iterator<Item = &'a Self>) -> Self {
        let mut text = String::from("[");
        for (position, document) in documents.enumerate() {
            if position > 0 {
                text.push(',');
            }
            text.push_str(document.raw());
        }
        text.push(']');
        let raw = RawValue::from_string(text).expect("a list of JSON texts is a JSON text");
        Self::whole(Arc::from(raw), OnceLock::new())
    }

    /// A document made of a tree.
    pub fn from_value(value: Value) -> Self {
        let raw = serde_json::value::to_raw_value(&value).unwrap_or_else(|_| RawValue::NULL.to_owned());
        let parsed = OnceLock::new();
        parsed.get_or_init(|| value);
        Self::whole(Arc::from(raw), parsed)
    }

    /// The document `null`.
    pub fn null() -> Self {
        static NULL: OnceLock<Document> = OnceLock::new();
        NULL.get_or_init(|| Self::from_value(Value::Null)).clone()
    }

    /// The JSON text, as it came in, without white space around it.
    pub fn raw(&self) -> &str {
        self.0.source.get().get(self.0.start..self.0.end).unwrap_or("null")
    }

    /// Size of the JSON text in bytes.
    pub fn size_bytes(&self) -> usize {
        self.0.end - self.0.start
    }

    /// Whether the document is `null`.
    pub fn is_null(&self) -> bool {
        self.raw() == "null"
    }

    /// The whole document as a tree, parsed on the first call.
    ///
    /// Where JSON allows what a tree cannot hold, the nearest is taken: halves of surrogate pairs become U+FFFD,
    /// numbers out of range the largest finite one.
    pub fn value(&self) -> &Value {
        self.0.value.get_or_init(|| lenient::parse(self.raw()))
    }

    fn index(&self) -> &Index {
        self.0.index.get_or_init(|| Index::build(self.raw()))
    }

    /// The JSON text of the value at `path`, if there is one.
    pub(crate) fn find(&self, path: &[PathPart]) -> Option<&str> {
        if path.is_empty() {
            return Some(self.raw());
        }
        self.index().find(self.raw(), path)
    }

    /// The value at `path`, if there is one; only that part of the document is parsed.
    pub fn lookup(&self, path: &[PathPart]) -> Option<Value> {
        self.find(path).map(lenient::parse)
    }

    /// The value at an RFC 6901 pointer, if there is one; only that part of the document is parsed.
    pub fn pointer(&self, pointer: &str) -> Option<Value> {
        self.find_pointer(pointer).map(lenient::parse)
    }

    fn find_pointer(&self, pointer: &str) -> Option<&str> {
        if pointer.is_empty() {
            return Some(self.raw());
        }
        self.index().find_pointer(self.raw(), pointer)
    }

    /// The part at an RFC 6901 pointer as a document of its own that shares the bytes of this one.
    pub fn part(&self, pointer: &str) -> Option<Self> {
        if pointer.is_empty() {
            return Some(self.clone());
        }
        let range = self.index().range_of_pointer(self.raw(), pointer)?;
        Some(Self(Arc::new(Inner {
            source: Arc::clone(&self.0.source),
            start: self.0.start + range.start,
            end: self.0.start + range.end,
            index: OnceLock::new(),
            value: OnceLock::new(),
        })))
    }

    /// The elements of the array at the root as JSON texts; nothing when the root is not an array.
    pub(crate) fn elements(&self) -> Option<Vec<&str>> {
        self.index().elements(self.raw())
    }
}

/// The tree for a JSON text that is known to be valid.
pub(crate) fn parse_text(text: &str) -> Value {
    lenient::parse(text)
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.raw() == other.raw() || self.value() == other.value()
    }
}

impl Eq for Document {}

impl fmt::Debug for Document {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Document({} bytes)", self.size_bytes())
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.start == 0 && self.0.end == self.0.source.get().len() {
            return self.0.source.serialize(serializer);
        }
        let raw: &RawValue = serde_json::from_str(self.raw()).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_raw(raw).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> PathPart {
        PathPart::Key(name.to_owned())
    }

    #[test]
    fn looks_up_without_a_tree_what_the_tree_holds() {
        let text = r#" {"a":{"b":[1,{"c":"x\u00e9\"]"},[]],"é":null},"dup":1,"dup":2,"\u0064":true,"e":{}} "#;
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.raw(), text.trim());
        assert_eq!(
            document.lookup(&[key("a"), key("b"), PathPart::Index(1), key("c")]),
            Some(json!("xé\"]"))
        );
        assert_eq!(
            document.lookup(&[key("a"), key("b"), PathPart::Index(2)]),
            Some(json!([]))
        );
        assert_eq!(document.lookup(&[key("a"), key("b"), PathPart::Index(3)]), None);
        assert_eq!(document.lookup(&[key("a"), key("é")]), Some(Value::Null));
        assert_eq!(document.lookup(&[key("dup")]), Some(json!(2)));
        assert_eq!(document.lookup(&[key("d")]), Some(json!(true)));
        assert_eq!(document.lookup(&[key("e"), key("f")]), None);
        assert_eq!(document.pointer("/a/b/1/c"), Some(json!("xé\"]")));
        assert_eq!(document.pointer(""), Some(document.value().clone()));
        let part = document.part("/a/b").unwrap();
        assert_eq!(part.value(), &json!([1, {"c": "xé\"]"}, []]));
        assert_eq!(part.pointer("/0"), Some(json!(1)));
        assert_eq!(serde_json::to_string(&part).unwrap(), r#"[1,{"c":"x\u00e9\"]"},[]]"#);
        assert_eq!(part.elements().unwrap(), ["1", r#"{"c":"x\u00e9\"]"}"#, "[]"]);
    }

    #[test]
    fn refuses_what_is_not_json_with_its_place() {
        let error = Document::parse(b"{\n  \"a\": }").unwrap_err();
        assert_eq!((error.line, error.column), (2, 8));
        assert_eq!(
            Document::parse(b"[1]\n\xff").unwrap_err().reason,
            "the text is not UTF-8"
        );
        assert!(Document::parse(b"").is_err());
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Document::parse(nested(MAX_JSON_DEPTH).as_bytes()).is_ok());
        let error = Document::parse(format!("{{\n \"a\": {}}}", nested(MAX_JSON_DEPTH)).as_bytes()).unwrap_err();
        let place = format!("at line 2, column {}", 6 + MAX_JSON_DEPTH);
        assert_eq!(
            error.to_string(),
            format!("arrays and objects are nested deeper than {MAX_JSON_DEPTH}, {place}")
        );
        assert!(Document::parse(format!("[{}]", vec!["[]"; 500].join(",")).as_bytes()).is_ok());
    }

    #[test]
    fn valid_json_that_a_tree_cannot_hold_is_still_readable() {
        let text =
            r#"{"cut":"\ud83d!","pair":"\ud83d\ude00","big":1e999,"small":-1e999,"long":123456789012345678901234}"#;
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.value()["cut"], json!("\u{fffd}!"));
        assert_eq!(document.value()["pair"], json!("😀"));
        assert_eq!(document.value()["big"], json!(f64::MAX));
        assert_eq!(document.value()["small"], json!(f64::MIN));
        let deep = "[".repeat(MAX_JSON_DEPTH) + &"]".repeat(MAX_JSON_DEPTH);
        assert!(Document::parse(deep.as_bytes()).unwrap().value().is_array());
    }
}
