//! Whether a path can exist in what a JSON Schema describes.
//!
//! Only a clear no counts: an object that lists its properties and does not allow others. Whatever combines or refers
//! to other schemas is taken to allow everything.

use serde_json::Value;

use crate::document::PathPart;
use crate::problem::nearest;

/// A member that a schema does not have.
pub(super) struct Unknown {
    pub(super) member: String,
    pub(super) known: Vec<String>,
}

impl Unknown {
    pub(super) fn suggestion(&self) -> Option<String> {
        let near = nearest(&self.member, self.known.iter().map(String::as_str))?;
        Some(format!("did you mean `{near}`?"))
    }
}

const OPEN_KEYWORDS: [&str; 7] = [
    "$ref",
    "allOf",
    "anyOf",
    "oneOf",
    "patternProperties",
    "if",
    "$dynamicRef",
];

/// The first member on the path that the schema rules out.
pub(super) fn rules_out(schema: &Value, path: &[PathPart]) -> Option<Unknown> {
    let object = schema.as_object()?;
    if OPEN_KEYWORDS.iter().any(|keyword| object.contains_key(*keyword)) {
        return None;
    }
    let (part, rest) = path.split_first()?;
    match part {
        PathPart::Index(_) => rules_out(object.get("items")?, rest),
        PathPart::Key(member) => {
            let properties = object
                .get("properties")?
                .as_object()
                .filter(|properties| !properties.is_empty())?;
            match (properties.get(member), object.get("additionalProperties")) {
                (Some(property), _) => rules_out(property, rest),
                (None, None | Some(Value::Bool(false))) => Some(Unknown {
                    member: member.clone(),
                    known: properties.keys().cloned().collect(),
                }),
                (None, Some(_)) => None,
            }
        }
    }
}
