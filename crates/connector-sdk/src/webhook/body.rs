//! What the body of a webhook is: JSON, a form that holds or is the event, or XML. Everything after it sees JSON.

use std::borrow::Cow;

use serde_json::Value;

use super::IdentifyError;
use crate::answer::Reading;
use crate::encode;
use crate::fields::Fields;
use crate::problem::Problems;
use crate::verify::{InboundRequest, is_form};
use crate::xml;

#[derive(Debug, Default)]
pub(super) struct BodyForm {
    /// Where the event stands in a form, in order; the first that is there counts. Without any, no body is read as a form.
    form: Vec<FormPlace>,
    /// Elements that are lists also when they stand alone; `None` when bodies are not XML.
    xml_lists: Option<Vec<String>>,
}

#[derive(Debug)]
enum FormPlace {
    /// The fields make up the event.
    Fields,
    /// One field holds the event as JSON.
    Field(String),
}

impl BodyForm {
    pub(super) fn read(webhook: &Fields<'_>, problems: &mut Problems) -> Self {
        let names = match webhook.get("form") {
            None => Vec::new(),
            Some(Value::Array(_)) => webhook.texts("form", problems).unwrap_or_default(),
            Some(_) => webhook.text("form", problems).map(str::to_owned).into_iter().collect(),
        };
        if names.iter().rev().skip(1).any(|name| name == "*") {
            problems.add(&webhook.at("form"), "bad_value", "`*` is every form, so it stands last");
        }
        let xml_lists = webhook.get("body").and_then(|value| {
            let place = webhook.at("body");
            match Reading::read(value, &place, problems)? {
                Reading::Xml { lists } => Some(lists),
                Reading::Auto | Reading::Json | Reading::Soap { .. } | Reading::Text | Reading::Binary => {
                    problems.add(&place, "bad_value", "`body` is xml; without it bodies are JSON");
                    None
                }
            }
        });
        if xml_lists.is_some() && !names.is_empty() {
            problems.add(&webhook.at("form"), "conflict", "state `form` or `body`, not both");
        }
        let places = names.into_iter().map(|name| match name.as_str() {
            "*" => FormPlace::Fields,
            _ => FormPlace::Field(name),
        });
        Self {
            form: places.collect(),
            xml_lists,
        }
    }

    pub(super) fn json<'a>(&self, request: &InboundRequest<'a>) -> Result<Cow<'a, [u8]>, IdentifyError> {
        if request.body.is_empty() {
            return Ok(Cow::Borrowed(b"null"));
        }
        if let Some(lists) = &self.xml_lists {
            return xml_as_json(request.body, lists).map(Cow::Owned);
        }
        let content_type = request
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
            .map(|(_, value)| value.as_str());
        // Where no form is declared, what the sender calls its JSON is of no interest.
        if self.form.is_empty() || !is_form(content_type) {
            return Ok(Cow::Borrowed(request.body));
        }
        let pairs = encode::decode_pairs(&String::from_utf8_lossy(request.body));
        for place in &self.form {
            match place {
                FormPlace::Field(name) => {
                    if let Some((_, text)) = pairs.iter().find(|(known, _)| known == name) {
                        return Ok(Cow::Owned(text.as_bytes().to_vec()));
                    }
                }
                FormPlace::Fields => {
                    let map = pairs.into_iter().map(|(name, value)| (name, Value::String(value)));
                    return Ok(Cow::Owned(Value::Object(map.collect()).to_string().into_bytes()));
                }
            }
        }
        let names: Vec<&str> = self.form.iter().filter_map(FormPlace::name).collect();
        Err(IdentifyError::new(
            "",
            format!("the form has no field `{}`", names.join("` or `")),
        ))
    }
}

impl FormPlace {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Field(name) => Some(name),
            Self::Fields => None,
        }
    }
}

fn xml_as_json(body: &[u8], lists: &[String]) -> Result<Vec<u8>, IdentifyError> {
    let text = std::str::from_utf8(body).map_err(|_error| IdentifyError::new("", "the body is not text in UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value = xml::read(text, lists)
        .map_err(|error| IdentifyError::new("", format!("the body is not acceptable XML: {error}")))?;
    Ok(value.to_string().into_bytes())
}
