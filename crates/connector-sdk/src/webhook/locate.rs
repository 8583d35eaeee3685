//! Where a value stands in a request: JSON Pointers, headers, fixed text, expressions, and two ways to combine them.

use serde_json::Value;

use crate::expression::Scope;
use crate::fields::{Fields, is_header_name};
use crate::pointer::{self, Pointer};
use crate::problem::Problems;
use crate::template::Template;
use crate::verify::InboundRequest;

/// One locator.
#[derive(Debug)]
pub(super) enum Locator {
    /// In the event object.
    Unit(Pointer),
    /// In the whole body around it.
    Envelope(Pointer),
    Header(String),
    Literal(String),
    /// Sees `body` (the event object) and `headers`.
    Computed(Template),
    /// The first that is there.
    First(Vec<Locator>),
    /// All that are there, joined; the first must be.
    Joined(Vec<Locator>),
}

/// What a locator looks at.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    /// Absent for events that did not come by a request.
    pub(super) request: Option<&'a InboundRequest<'a>>,
    pub(super) envelope: &'a Value,
    pub(super) unit: &'a Value,
}

impl Locator {
    pub(super) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        match value {
            Value::String(text) => Self::read_text(text, place, problems),
            Value::Array(items) => read_all(items, place, problems).map(Self::Joined),
            Value::Object(_) => {
                let fields = Fields::open(value, place, &["first"], problems)?;
                match fields.required("first", problems)?.as_array() {
                    Some(items) => read_all(items, &fields.at("first"), problems).map(Self::First),
                    None => {
                        problems.add(&fields.at("first"), "bad_type", "`first` is a list");
                        None
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                problems.add(place, "bad_type", "expected where the value stands: /pointer, header:NAME, lit:TEXT, a list to join, or { first: […] }");
                None
            }
        }
    }

    fn read_text(text: &str, place: &str, problems: &mut Problems) -> Option<Self> {
        if text.contains("{{") {
            let before = problems.len();
            let template = Template::compile(&Value::String(text.to_owned()), place, &|_| true, problems);
            return (problems.len() == before).then_some(Self::Computed(template));
        }
        if let Some(pointer) = text.starts_with('/').then(|| Pointer::parse(text)).flatten() {
            return Some(Self::Unit(pointer));
        }
        match text.split_once(':') {
            Some(("header", name)) if is_header_name(name) => Some(Self::Header(name.to_ascii_lowercase())),
            Some(("lit", literal)) if !literal.is_empty() => Some(Self::Literal(literal.to_owned())),
            Some(("envelope", pointer)) if pointer.starts_with('/') => Pointer::parse(pointer).map(Self::Envelope),
            _ => {
                problems.add_with_suggestion(
                    place,
                    "bad_value",
                    format!("`{text}` does not say where"),
                    "/pointer, header:NAME, lit:TEXT, envelope:/pointer, an expression, a list to join, or { first: […] }",
                );
                None
            }
        }
    }

    /// Whether what is found here can tell an item of a list from others: an item comes without headers, and a fixed
    /// text is the same for all.
    pub(super) fn tells_items_apart(&self) -> bool {
        match self {
            Self::Unit(_) | Self::Envelope(_) => true,
            Self::Header(_) | Self::Literal(_) => false,
            Self::Computed(template) => {
                let mut sees_body = false;
                template.visit(&mut |expression| sees_body |= expression.roots().contains(&"body"));
                sees_body
            }
            Self::First(locators) | Self::Joined(locators) => locators.iter().any(Self::tells_items_apart),
        }
    }

    /// The value as text; `None` when it is absent, null, empty, or has no text form.
    pub(super) fn text(&self, seen: &Seen<'_>) -> Option<String> {
        match self {
            Self::Unit(pointer) => pointer.lookup(seen.unit).and_then(text_of),
            Self::Envelope(pointer) => pointer.lookup(seen.envelope).and_then(text_of),
            Self::Header(name) => seen.header(name).map(str::to_owned),
            Self::Literal(text) => Some(text.clone()),
            Self::Computed(_) => self.value(seen).as_ref().and_then(text_of),
            Self::First(locators) => locators.iter().find_map(|locator| locator.text(seen)),
            Self::Joined(locators) => {
                let (first, rest) = locators.split_first()?;
                let mut text = first.text(seen)?;
                for part in rest.iter().filter_map(|locator| locator.text(seen)) {
                    text.push('.');
                    text.push_str(&part);
                }
                Some(text)
            }
        }
    }

    /// The value with its type, for times.
    pub(super) fn value(&self, seen: &Seen<'_>) -> Option<Value> {
        match self {
            Self::Unit(pointer) => pointer.lookup(seen.unit).cloned(),
            Self::Envelope(pointer) => pointer.lookup(seen.envelope).cloned(),
            Self::First(locators) => locators
                .iter()
                .find_map(|locator| locator.value(seen).filter(|value| !value.is_null())),
            Self::Computed(template) => {
                let headers = seen
                    .request
                    .map(|request| {
                        request
                            .headers
                            .iter()
                            .map(|(name, value)| (name.to_ascii_lowercase(), Value::String(value.clone())))
                            .collect()
                    })
                    .unwrap_or_default();
                let headers = Value::Object(headers);
                let named = [("body", seen.unit), ("headers", &headers)];
                let rendered = template
                    .render(&Scope {
                        named: &named,
                        layers: &[],
                    })
                    .ok()?;
                rendered.map(|value| value.into_owned())
            }
            Self::Header(_) | Self::Literal(_) | Self::Joined(_) => self.text(seen).map(Value::String),
        }
    }
}

impl<'a> Seen<'a> {
    fn header(&self, name: &str) -> Option<&'a str> {
        let headers = self.request?.headers;
        headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }
}

fn read_all(items: &[Value], place: &str, problems: &mut Problems) -> Option<Vec<Locator>> {
    if items.is_empty() {
        problems.add(place, "bad_value", "the list is empty");
        return None;
    }
    items
        .iter()
        .enumerate()
        .map(|(index, item)| Locator::read(item, &pointer::join(place, &index.to_string()), problems))
        .collect()
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
