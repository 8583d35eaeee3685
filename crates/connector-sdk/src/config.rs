//! The shape of settings and arguments: names, types, defaults, allowed values.
//!
//! One small vocabulary serves `config` of a connector and `input` of an operation. It is checked when a
//! connection is saved and when a request is built; secrets never stand here.

use indexmap::IndexMap;
use regex_lite::Regex;
use serde_json::{Map, Value, json};
use url::Url;

use crate::fields::{self, Fields, kind_of};
use crate::pointer;
use crate::problem::{Problems, nearest};

/// Named fields, in the order of the manifest.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    pub(crate) fields: IndexMap<String, Field>,
    /// Whether names beyond `fields` are accepted.
    pub(crate) open: bool,
    /// Default values by name; nested defaults as objects.
    pub(crate) defaults: Map<String, Value>,
}

#[derive(Debug, Default)]
pub(crate) struct Field {
    pub(crate) required: bool,
    kind: Option<Kind>,
    allowed: Option<Vec<Value>>,
    default: Option<Value>,
    properties: Option<Shape>,
    format: Option<Format>,
    pattern: Option<Pattern>,
    /// For hosts: the domains under which they must be, each with a leading dot.
    under: Vec<String>,
    description: Option<String>,
}

/// A regular expression that the whole text must match.
#[derive(Debug)]
struct Pattern {
    anchored: String,
    regex: Regex,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    String,
    Integer,
    Number,
    Boolean,
    Object,
    Array,
}

const KINDS: [(&str, Kind); 6] = [
    ("string", Kind::String),
    ("integer", Kind::Integer),
    ("number", Kind::Number),
    ("boolean", Kind::Boolean),
    ("object", Kind::Object),
    ("array", Kind::Array),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Duration,
    Url,
    Header,
    /// A DNS label: what may stand between dots of a host name without leaving it.
    Label,
    /// A whole host name.
    Host,
}

const FORMATS: [(&str, Format); 5] = [
    ("duration", Format::Duration),
    ("url", Format::Url),
    ("header", Format::Header),
    ("label", Format::Label),
    ("host", Format::Host),
];

impl Shape {
    /// Reads a mapping of name to field. `*` opens the shape where `may_open` says so.
    pub(crate) fn read(value: &Value, place: &str, may_open: bool, problems: &mut Problems) -> Self {
        let mut shape = Self::default();
        let Some(fields) = Fields::open_any(value, place, problems) else {
            return shape;
        };
        for (name, value) in fields.map() {
            let place = fields.at(name);
            if name == "*" && may_open {
                shape.open = true;
                continue;
            }
            if ["config", "args"].contains(&name.as_str()) {
                problems.add(&place, "reserved_name", format!("`{name}` is a reserved name"));
            }
            let Some(field) = Field::read(value, &place, problems) else {
                continue;
            };
            if let Some(default) = field.default.clone().or_else(|| field.nested_defaults()) {
                shape.defaults.insert(name.clone(), default);
            }
            shape.fields.insert(name.clone(), field);
        }
        shape
    }

    /// Adds a field that every manifest has.
    pub(crate) fn add_url(&mut self, name: &str, description: &str) {
        self.fields.entry(name.to_owned()).or_insert_with(|| Field {
            kind: Some(Kind::String),
            format: Some(Format::Url),
            description: Some(description.to_owned()),
            ..Field::default()
        });
    }

    /// Adds a mapping of URLs by these names.
    pub(crate) fn add_urls(&mut self, name: &str, names: &[&str], description: &str) {
        let mut urls = Self::default();
        for name in names {
            urls.add_url(name, description);
        }
        self.fields.entry(name.to_owned()).or_insert_with(|| Field {
            kind: Some(Kind::Object),
            properties: Some(urls),
            description: Some(description.to_owned()),
            ..Field::default()
        });
    }

    /// Adds a mapping that somebody else checks.
    pub(crate) fn add_mapping(&mut self, name: &str, description: &str) {
        self.fields.entry(name.to_owned()).or_insert_with(|| Field {
            kind: Some(Kind::Object),
            description: Some(description.to_owned()),
            ..Field::default()
        });
    }

    /// The field that `names` (a path of keys) leads to.
    pub(crate) fn field(&self, names: &[&str]) -> Option<&Field> {
        let (first, rest) = names.split_first()?;
        let field = self.fields.get(*first)?;
        match (rest, &field.properties) {
            ([], _) => Some(field),
            (rest, Some(properties)) => properties.field(rest),
            (_, None) => None,
        }
    }

    /// Checks an object of values; missing values are fine when they have a default.
    pub(crate) fn check(&self, values: &Value, place: &str, problems: &mut Problems) {
        let empty = Map::new();
        let map = match values {
            Value::Null => &empty,
            Value::Object(map) => map,
            other => {
                problems.add(
                    place,
                    "bad_type",
                    format!("expected a mapping, found {}", kind_of(other)),
                );
                return;
            }
        };
        for (name, value) in map {
            let place = pointer::join(place, name);
            match self.fields.get(name) {
                Some(field) => field.check(name, value, &place, problems),
                None if self.open => {}
                None => {
                    let message = format!("`{name}` is not known here");
                    match nearest(name, self.fields.keys().map(String::as_str)) {
                        Some(near) => problems.add_with_suggestion(
                            &place,
                            "unknown_key",
                            message,
                            format!("did you mean `{near}`?"),
                        ),
                        None => problems.add(&place, "unknown_key", message),
                    }
                }
            }
        }
        for (name, field) in &self.fields {
            if field.required && !map.contains_key(name) && !self.defaults.contains_key(name) {
                problems.add(place, "missing_key", format!("`{name}` is missing"));
            }
        }
    }

    /// Whether `names` (a path of keys) may be absent: not required, and without a default.
    pub(crate) fn may_be_absent(&self, names: &[&str]) -> bool {
        let Some((first, rest)) = names.split_first() else {
            return false;
        };
        match self.fields.get(*first) {
            Some(field) if rest.is_empty() => !field.required && !self.defaults.contains_key(*first),
            Some(field) => match &field.properties {
                Some(properties) => !field.required || properties.may_be_absent(rest),
                None => !field.required && !self.defaults.contains_key(*first),
            },
            None => self.open,
        }
    }

    /// As a JSON Schema object.
    pub(crate) fn json_schema(&self) -> Value {
        let properties: Map<String, Value> = self
            .fields
            .iter()
            .map(|(name, field)| (name.clone(), field.json_schema()))
            .collect();
        let required: Vec<&String> = self
            .fields
            .iter()
            .filter(|(_, field)| field.required)
            .map(|(name, _)| name)
            .collect();
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": self.open })
    }
}

impl Field {
    fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        if let Some(word) = value.as_str() {
            let required = fields::choose(word, &[("required", true), ("optional", false)], place, problems)?;
            return Some(Self {
                required,
                ..Self::default()
            });
        }
        let fields = Fields::open(
            value,
            place,
            &[
                "type",
                "required",
                "default",
                "enum",
                "format",
                "pattern",
                "under",
                "properties",
                "description",
            ],
            problems,
        )?;
        let mut field = Self {
            required: fields.flag("required", problems).unwrap_or(false),
            kind: fields.choice("type", &KINDS, problems),
            default: fields.get("default").cloned(),
            format: fields.choice("format", &FORMATS, problems),
            pattern: Pattern::read(&fields, problems),
            description: fields.text("description", problems).map(str::to_owned),
            ..Self::default()
        };
        field.read_under(&fields, problems);
        match fields.get("enum") {
            None => {}
            Some(Value::Array(values)) if !values.is_empty() => field.allowed = Some(values.clone()),
            Some(_) => problems.add(&fields.at("enum"), "bad_type", "`enum` is a list of values"),
        }
        if let Some(properties) = fields.get("properties") {
            field.kind.get_or_insert(Kind::Object);
            field.properties = Some(Shape::read(properties, &fields.at("properties"), false, problems));
        }
        if let Some(default) = &field.default {
            field.check("default", default, &fields.at("default"), problems);
        }
        Some(field)
    }

    fn read_under(&mut self, fields: &Fields<'_>, problems: &mut Problems) {
        let Some(domains) = fields.texts("under", problems) else {
            return;
        };
        if self.format != Some(Format::Host) {
            problems.add(&fields.at("under"), "conflict", "`under` belongs to `format: host`");
        }
        for domain in &domains {
            // One label would be a whole top-level domain.
            if !domain.strip_prefix('.').is_some_and(is_host) {
                let message = format!("`{domain}` is not a domain with a leading dot");
                problems.add_with_suggestion(&fields.at("under"), "bad_value", message, "such as `.example.com`");
            }
        }
        self.under = domains.iter().map(|domain| domain.to_ascii_lowercase()).collect();
    }

    /// Whether its value may stand for a whole host: it is one of a few domains, whatever is set.
    pub(crate) fn is_bounded_host(&self) -> bool {
        self.format == Some(Format::Host) && !self.under.is_empty()
    }

    /// Whether it is declared to be a whole host.
    pub(crate) fn is_host(&self) -> bool {
        self.format == Some(Format::Host)
    }

    /// Whether `text` is a host under the declared domains.
    pub(crate) fn takes_host(&self, text: &str) -> bool {
        let lower = text.to_ascii_lowercase();
        is_host(text) && self.under.iter().any(|domain| lower.ends_with(domain.as_str()))
    }

    fn nested_defaults(&self) -> Option<Value> {
        let properties = self.properties.as_ref()?;
        (!properties.defaults.is_empty()).then(|| Value::Object(properties.defaults.clone()))
    }

    /// The values that it may have, where only some are allowed.
    pub(crate) fn allowed(&self) -> Option<&[Value]> {
        self.allowed.as_deref()
    }

    /// Whether a value is fine, without saying why not; for the hot path.
    pub(crate) fn accepts(&self, value: &Value) -> bool {
        self.kind.is_none_or(|kind| kind.fits(value))
            && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(value))
            && self.format.is_none()
            && self.pattern.is_none()
            && self.properties.is_none()
    }

    pub(crate) fn check(&self, name: &str, value: &Value, place: &str, problems: &mut Problems) {
        if let Some(kind) = self.kind
            && !kind.fits(value)
        {
            let kind = KINDS
                .iter()
                .find(|(_, known)| *known == kind)
                .map_or("value", |(name, _)| name);
            problems.add(
                place,
                "bad_type",
                format!("`{name}` must be of type {kind}, found {}", kind_of(value)),
            );
            return;
        }
        if let Some(allowed) = &self.allowed
            && !allowed.contains(value)
        {
            let names: Vec<String> = allowed
                .iter()
                .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                .collect();
            problems.add_with_suggestion(
                place,
                "bad_value",
                format!("`{name}` has a value that is not allowed"),
                format!("one of: {}", names.join(", ")),
            );
        }
        if let Some(format) = self.format
            && let Some(text) = value.as_str()
            && let Some(wanted) = format.mismatch(text)
        {
            problems.add(place, "bad_value", format!("`{name}` must be {wanted}"));
        }
        if let Some(pattern) = &self.pattern
            && let Some(text) = value.as_str()
            && !pattern.regex.is_match(text)
        {
            problems.add(
                place,
                "bad_value",
                format!("`{name}` does not match {}", pattern.anchored),
            );
        }
        if !self.under.is_empty()
            && let Some(text) = value.as_str()
            && is_host(text)
            && !self.takes_host(text)
        {
            let message = format!("`{name}` must be a host under {}", self.under.join(" or "));
            problems.add(place, "bad_value", message);
        }
        if let Some(properties) = &self.properties {
            properties.check(value, place, problems);
        }
    }

    fn json_schema(&self) -> Value {
        let mut schema = match &self.properties {
            Some(properties) => properties.json_schema(),
            None => json!({}),
        };
        if let Value::Object(schema) = &mut schema {
            if let Some(kind) = self.kind {
                let name = KINDS
                    .iter()
                    .find(|(_, known)| *known == kind)
                    .map_or("string", |(name, _)| name);
                schema.insert("type".to_owned(), json!(name));
            }
            if let Some(allowed) = &self.allowed {
                schema.insert("enum".to_owned(), json!(allowed));
            }
            if let Some(default) = &self.default {
                schema.insert("default".to_owned(), default.clone());
            }
            if let Some(description) = &self.description {
                schema.insert("description".to_owned(), json!(description));
            }
            match self.format {
                Some(Format::Url) => {
                    schema.insert("format".to_owned(), json!("uri"));
                }
                Some(Format::Host) => {
                    schema.insert("format".to_owned(), json!("hostname"));
                }
                Some(Format::Duration | Format::Header | Format::Label) | None => {}
            }
            if let Some(pattern) = &self.pattern {
                schema.insert("pattern".to_owned(), json!(pattern.anchored));
            }
        }
        schema
    }
}

impl Pattern {
    fn read(fields: &Fields<'_>, problems: &mut Problems) -> Option<Self> {
        let text = fields.text("pattern", problems)?;
        let anchored = format!("^(?:{text})$");
        // By itself first: what closes a bracket that it did not open would get out of the anchors.
        match Regex::new(text).and_then(|_| Regex::new(&anchored)) {
            Ok(regex) => Some(Self { anchored, regex }),
            Err(error) => {
                let message = format!("`{text}` is not a regular expression: {error}");
                problems.add(&fields.at("pattern"), "bad_value", message);
                None
            }
        }
    }
}

impl Kind {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
        }
    }
}

impl Format {
    /// What would fit, when `text` does not.
    fn mismatch(self, text: &str) -> Option<&'static str> {
        let fits = match self {
            Self::Duration => fields::duration_s(text).is_some(),
            Self::Url => Url::parse(text).is_ok_and(|url| {
                ["http", "https"].contains(&url.scheme())
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.query().is_none()
                    && url.fragment().is_none()
            }),
            Self::Header => fields::is_header_name(text),
            Self::Label => is_label(text),
            Self::Host => is_host(text),
        };
        let wanted = match self {
            Self::Duration => "a duration such as 60s, 5m, 24h or 30d",
            Self::Url => "an http or https URL without user, query and fragment",
            Self::Header => "a header name",
            Self::Label => "one part of a host name: letters, digits and hyphens",
            Self::Host => "a host name such as acme.example.com, without scheme, port and path",
        };
        (!fits).then_some(wanted)
    }
}

/// Whether text is a host name of at least two parts.
fn is_host(text: &str) -> bool {
    text.len() <= 253 && text.contains('.') && text.split('.').all(is_label)
}

/// Whether text may stand inside a host name without changing which host it is.
pub(crate) fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}
