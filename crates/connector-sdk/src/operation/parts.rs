//! The parts of a request as a manifest states them: target, query, headers.

use serde_json::Value;

use super::{Headers, MethodRule, Query, Target};
use crate::fields::{Fields, is_header_name};
use crate::problem::Problems;
use crate::template::{IsOptional, Template, pieces};

const METHODS: [(&str, &str); 6] = [
    ("get", "GET"),
    ("head", "HEAD"),
    ("post", "POST"),
    ("put", "PUT"),
    ("patch", "PATCH"),
    ("delete", "DELETE"),
];

pub(super) fn read_target(
    fields: &Fields<'_>,
    is_optional: IsOptional<'_>,
    problems: &mut Problems,
) -> Option<(MethodRule, Target)> {
    let stated: Vec<(&str, &'static str)> = METHODS
        .iter()
        .filter(|(key, _)| fields.get(key).is_some())
        .copied()
        .collect();
    match (stated.as_slice(), fields.get("method")) {
        ([(key, method)], None) => {
            let text = fields.text(key, problems)?;
            let place = fields.at(key);
            if !text.starts_with('/') {
                problems.add(&place, "bad_value", "a path starts with `/`");
            }
            if text
                .split("{{")
                .next()
                .is_some_and(|literal| literal.contains(['?', '#', ' ']))
            {
                problems.add_with_suggestion(&place, "bad_value", "a path has no query or spaces", "use `query:`");
            }
            match pieces(text, is_optional) {
                Ok(pieces) => Some((MethodRule::Fixed(method), Target::Path(pieces))),
                Err(message) => {
                    problems.add(&place, "bad_expression", message);
                    None
                }
            }
        }
        ([], Some(method)) => {
            let method = Template::compile(method, &fields.at("method"), is_optional, problems);
            let target = fields.required("target", problems)?;
            let place = fields.at("target");
            let target = match Template::compile(target, &place, is_optional, problems) {
                Template::Array(templates) => templates,
                Template::Literal(_) => {
                    problems.add_with_suggestion(
                        &place,
                        "bad_value",
                        "a target comes from arguments",
                        "for a fixed path write `get: /path`",
                    );
                    return None;
                }
                template @ (Template::Single { .. } | Template::Text(_) | Template::Object(_)) => {
                    vec![template]
                }
            };
            Some((MethodRule::Computed(method), Target::Given(target)))
        }
        _ => {
            problems.add(
                fields.place(),
                "missing_key",
                "an operation has exactly one of get, head, post, put, patch, delete: PATH, or `method` with `target`",
            );
            None
        }
    }
}

pub(super) fn read_query(fields: &Fields<'_>, is_optional: IsOptional<'_>, problems: &mut Problems) -> Query {
    match fields.get("query") {
        None => Query::None,
        Some(Value::String(word)) if word == "rest" => Query::Rest,
        Some(value) => {
            let place = fields.at("query");
            let template = Template::compile(value, &place, is_optional, problems);
            if !matches!(
                &template,
                Template::Object(_) | Template::Single { .. } | Template::Literal(Value::Object(_))
            ) {
                problems.add(&place, "bad_type", "`query` is a mapping, `rest`, or one expression");
            }
            Query::Template(template)
        }
    }
}

pub(super) fn read_headers(fields: &Fields<'_>, is_optional: IsOptional<'_>, problems: &mut Problems) -> Headers {
    let Some(value) = fields.get("headers") else {
        return Headers::Named(Vec::new());
    };
    let place = fields.at("headers");
    if value.is_string() {
        return Headers::Given(Template::compile(value, &place, is_optional, problems));
    }
    Headers::Named(named_headers(value, &place, is_optional, problems))
}

/// A mapping of header names to templates.
pub(crate) fn named_headers(
    value: &Value,
    place: &str,
    is_optional: IsOptional<'_>,
    problems: &mut Problems,
) -> Vec<(String, Template)> {
    let Some(fields) = Fields::open_any(value, place, problems) else {
        return Vec::new();
    };
    fields
        .map()
        .iter()
        .map(|(name, value)| {
            if !is_header_name(name) {
                problems.add(&fields.at(name), "bad_value", format!("`{name}` is not a header name"));
            }
            (
                name.clone(),
                Template::compile(value, &fields.at(name), is_optional, problems),
            )
        })
        .collect()
}
