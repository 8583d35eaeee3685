//! Failures that a protocol reports inside an answer that may look like success: GraphQL errors, SOAP faults.

use serde_json::Value;

use super::Executed;

/// What an answer has to follow beyond HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    GraphQl,
    Soap,
}

/// A failure in the protocol's own words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reported {
    pub(super) code: &'static str,
    pub(super) retryable: bool,
    pub(super) executed: Executed,
}

impl Protocol {
    /// The failure that `body` reports, and whether it counts above the status.
    pub(super) fn failure(self, body: Option<&Value>, status: u16) -> Option<Reported> {
        match self {
            Self::Http => None,
            Self::GraphQl if (200..300).contains(&status) => graphql_errors(body?),
            // A refusal by the server in front of the service keeps its own meaning.
            Self::Soap if (200..300).contains(&status) || matches!(status, 400 | 500) => soap_fault(body?),
            Self::GraphQl | Self::Soap => None,
        }
    }

    /// The words of the protocol for people, in any answer.
    pub(super) fn message(self, body: &Value) -> Option<String> {
        match self {
            Self::Http => None,
            Self::GraphQl => body.pointer("/errors/0/message")?.as_str().map(str::to_owned),
            Self::Soap => fault_message(body.get("Fault")?),
        }
    }
}

/// `errors` of a response (GraphQL, October 2021, §7.1): without `data` nothing was executed.
fn graphql_errors(body: &Value) -> Option<Reported> {
    let errors = body.get("errors")?.as_array()?;
    if errors.is_empty() {
        return None;
    }
    Some(Reported {
        code: "graphql_error",
        retryable: false,
        executed: match body.get("data") {
            None => Executed::No,
            Some(_) => Executed::Maybe,
        },
    })
}

/// The fault in a SOAP body (1.1 §4.4, 1.2 part 1 §5.4). Only the sender's own mistakes prove that nothing was done.
fn soap_fault(body: &Value) -> Option<Reported> {
    let fault = body.get("Fault")?;
    let code = text(fault.get("faultcode").or_else(|| fault.pointer("/Code/Value"))).unwrap_or_default();
    // `soap:Client.Authentication`: neither the prefix nor what is said more closely matters.
    let code = code
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .split('.')
        .next()
        .unwrap_or_default();
    let (retryable, executed) = match code.trim() {
        "Client" | "Sender" | "VersionMismatch" | "MustUnderstand" | "DataEncodingUnknown" => (false, Executed::No),
        "Server" | "Receiver" => (true, Executed::Maybe),
        _ => (false, Executed::Maybe),
    };
    Some(Reported {
        code: "soap_fault",
        retryable,
        executed,
    })
}

fn fault_message(fault: &Value) -> Option<String> {
    text(fault.get("faultstring").or_else(|| fault.pointer("/Reason/Text"))).map(str::to_owned)
}

/// The text of an element, also when it has attributes or stands in several languages.
fn text(element: Option<&Value>) -> Option<&str> {
    match element? {
        Value::String(text) => Some(text),
        Value::Object(map) => map.get(crate::xml::TEXT)?.as_str(),
        Value::Array(items) => text(items.first()),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}
