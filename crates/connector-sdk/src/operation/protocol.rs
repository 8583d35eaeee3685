//! Requests that a protocol wraps: GraphQL documents with variables, SOAP envelopes.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::build::{expression_error, put_header, rest};
use super::{BuildError, Operation};
use crate::answer::Reading;
use crate::expression::{Expression, Scope};
use crate::fields::{Fields, choose};
use crate::files::load_text;
use crate::http_message::HttpRequest;
use crate::problem::Problems;
use crate::template::{IsOptional, Template};

/// A GraphQL request: the document is fixed, only variables are computed.
#[derive(Debug)]
pub(super) struct GraphQl {
    query: String,
    /// `None`: every argument that nothing else uses.
    variables: Option<Template>,
    operation: Option<String>,
}

/// A call in a SOAP envelope.
#[derive(Debug)]
pub(super) struct Soap {
    action: Option<String>,
    version: SoapVersion,
    header: Option<Template>,
    body: Template,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SoapVersion {
    V1_1,
    V1_2,
}

impl GraphQl {
    /// Whether every argument that nothing else uses is a variable.
    pub(super) fn takes_rest(&self) -> bool {
        self.variables.is_none()
    }

    pub(super) fn visit(&self, visit: &mut dyn FnMut(&Expression)) {
        if let Some(variables) = &self.variables {
            variables.visit(visit);
        }
    }

    pub(super) fn read(
        value: &Value,
        place: &str,
        is_optional: IsOptional<'_>,
        load: &dyn Fn(&str) -> Option<String>,
        problems: &mut Problems,
    ) -> Option<Self> {
        if let Some(query) = value.as_str() {
            return Some(Self {
                query: query.to_owned(),
                variables: None,
                operation: None,
            });
        }
        let fields = Fields::open(value, place, &["query", "file", "variables", "operation"], problems)?;
        let query = match (fields.get("query"), fields.get("file")) {
            (Some(_), None) => fields.text("query", problems)?.to_owned(),
            (None, Some(_)) => load_text(fields.text("file", problems)?, &fields.at("file"), load, problems)?,
            (Some(_), Some(_)) | (None, None) => {
                problems.add(
                    place,
                    "missing_key",
                    "state one of `query` (its text) and `file` (beside the manifest)",
                );
                return None;
            }
        };
        let variables = fields
            .get("variables")
            .map(|value| Template::compile(value, &fields.at("variables"), is_optional, problems));
        if variables.is_some() && !fields.get("variables").is_some_and(Value::is_object) {
            problems.add(&fields.at("variables"), "bad_type", "`variables` is a mapping");
        }
        Some(Self {
            query,
            variables,
            operation: fields.text("operation", problems).map(str::to_owned),
        })
    }

    pub(super) fn value(&self, operation: &Operation, args: &Value, scope: &Scope<'_>) -> Result<Value, BuildError> {
        let variables = match &self.variables {
            None => Value::Object(rest(operation, args)),
            Some(template) => rendered(template, scope, "/variables")?,
        };
        let mut request = json!({ "query": self.query, "variables": variables });
        if let (Some(name), Value::Object(map)) = (&self.operation, &mut request) {
            map.insert("operationName".to_owned(), Value::from(name.as_str()));
        }
        Ok(request)
    }
}

impl Soap {
    pub(super) fn visit(&self, visit: &mut dyn FnMut(&Expression)) {
        if let Some(header) = &self.header {
            header.visit(visit);
        }
        self.body.visit(visit);
    }

    /// The content of the body.
    pub(super) fn content(&self, scope: &Scope<'_>) -> Result<Value, BuildError> {
        rendered(&self.body, scope, "/body")
    }

    pub(super) fn read(
        value: &Value,
        place: &str,
        is_optional: IsOptional<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let fields = Fields::open(
            value,
            place,
            &["action", "version", "header", "body", "lists"],
            problems,
        )?;
        let versions = [("1.1", SoapVersion::V1_1), ("1.2", SoapVersion::V1_2)];
        let version = match fields.get("version") {
            // YAML takes 1.1 for a number.
            Some(Value::Number(number)) => choose(&number.to_string(), &versions, &fields.at("version"), problems),
            _ => fields.choice("version", &versions, problems),
        };
        let action = fields.text("action", problems).map(str::to_owned);
        if action
            .as_ref()
            .is_some_and(|action| !action.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"'))
        {
            problems.add(
                &fields.at("action"),
                "bad_value",
                "an action is ASCII text without quotes",
            );
        }
        let body = fields.required("body", problems)?;
        for key in ["header", "body"] {
            if fields.get(key).is_some_and(|value| !value.is_object()) {
                problems.add(&fields.at(key), "bad_type", format!("`{key}` is a mapping of elements"));
            }
        }
        Some(Self {
            action,
            version: version.unwrap_or(SoapVersion::V1_1),
            header: fields
                .get("header")
                .map(|header| Template::compile(header, &fields.at("header"), is_optional, problems)),
            body: Template::compile(body, &fields.at("body"), is_optional, problems),
        })
    }

    /// How the answers are read.
    pub(super) fn reading(operation: &Fields<'_>, problems: &mut Problems) -> Reading {
        let lists = operation
            .get("soap")
            .and_then(|soap| Fields::open_any(soap, &operation.at("soap"), problems))
            .and_then(|soap| soap.texts("lists", problems));
        Reading::Soap {
            lists: lists.unwrap_or_default(),
        }
    }

    /// The whole message around the content of its body (SOAP 1.1 §4, SOAP 1.2 part 1 §5).
    pub(super) fn envelope(&self, body: Value, scope: &Scope<'_>) -> Result<Value, BuildError> {
        let namespace = match self.version {
            SoapVersion::V1_1 => "http://schemas.xmlsoap.org/soap/envelope/",
            SoapVersion::V1_2 => "http://www.w3.org/2003/05/soap-envelope",
        };
        let mut envelope = Map::new();
        envelope.insert("@xmlns:soap".to_owned(), Value::from(namespace));
        if let Some(header) = &self.header {
            envelope.insert("soap:Header".to_owned(), rendered(header, scope, "/header")?);
        }
        envelope.insert("soap:Body".to_owned(), body);
        Ok(json!({ "soap:Envelope": envelope }))
    }

    /// `Content-Type`, and the action where the version wants it (SOAP 1.1 §6.1.1, RFC 3902).
    pub(super) fn set_headers(&self, request: &mut HttpRequest) -> Result<(), BuildError> {
        let action = self.action.as_deref().unwrap_or_default();
        match self.version {
            SoapVersion::V1_1 => {
                put_header(request, "Content-Type", "text/xml; charset=utf-8")?;
                put_header(request, "SOAPAction", &format!("\"{action}\""))
            }
            SoapVersion::V1_2 if action.is_empty() => {
                put_header(request, "Content-Type", "application/soap+xml; charset=utf-8")
            }
            SoapVersion::V1_2 => {
                let kind = format!("application/soap+xml; charset=utf-8; action=\"{action}\"");
                put_header(request, "Content-Type", &kind)
            }
        }
    }
}

pub(super) fn rendered(template: &Template, scope: &Scope<'_>, place: &str) -> Result<Value, BuildError> {
    let value = template.render(scope).map_err(|error| expression_error(error, place))?;
    Ok(value.map_or(Value::Null, Cow::into_owned))
}
