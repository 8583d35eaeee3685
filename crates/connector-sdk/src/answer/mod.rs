//! From an HTTP answer to what it means: done, or failed in a way that says what may be tried again.
//!
//! Rules of the manifest come first, in order; then `success_when`; then the classes of RFC 9110. A
//! failure always says whether the other side can have executed the request.

mod condition;
mod protocol;
pub(crate) mod reading;
mod retry_after;
mod source;

use std::cell::OnceCell;

use serde_json::Value;

use crate::fields::{self, Fields};
use crate::http_message::HttpResponse;
use crate::page::Page;
use crate::pointer::Pointer;
use crate::problem::Problems;
use condition::Condition;
pub(crate) use protocol::Protocol;
pub(crate) use reading::Reading;
pub(crate) use retry_after::http_date_ms;
use retry_after::{RetryAfter, retry_after_ms_of};
pub(crate) use source::Source;

/// What an answer means.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The call did what it should.
    Done {
        /// The output.
        output: AnswerBody,
        /// The following page, when the output is one page of a list that goes on.
        next: Option<Page>,
    },
    /// The call did not do what it should.
    Failed {
        /// Stable code: from the manifest's rules, or `auth`, `forbidden`, `not_found`, `invalid`, `conflict`,
        /// `rate_limited`, `timeout`, `not_successful`, `graphql_error`, `soap_fault`, `unreadable`, `paging_loop`, `paging_broken`, `paging_refused`, `page_limit`, `http_NNN`.
        code: String,
        /// For people; may quote the provider's own message.
        message: String,
        /// The status code.
        http_status: Option<u16>,
        /// Whether the same request may succeed later.
        retryable: bool,
        /// How long the provider asked to wait, in milliseconds.
        retry_after_ms: Option<u64>,
        /// Whether the other side can have executed it.
        executed: Executed,
    },
}

/// The output of a finished call.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerBody {
    /// The response body as it is (said to be JSON by the provider; the host's parse decides).
    Whole,
    /// A value: the items of a list, null for an empty answer, what was read from XML, text, bytes as base64.
    Value(Value),
}

/// Whether the other side can have executed a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executed {
    /// Refused before execution.
    No,
    /// Nobody knows.
    Maybe,
}

/// What the answers of an operation mean: its own rules, then those of the connector.
#[derive(Debug, Default)]
pub(crate) struct Meaning {
    pub(crate) rules: Vec<Rule>,
    pub(crate) success_when: Option<Condition>,
    pub(crate) error_message: Option<Pointer>,
}

#[derive(Debug)]
pub(crate) struct Rule {
    when: Condition,
    /// The matched answer counts as done.
    ok: bool,
    code: String,
    retryable: Option<bool>,
    executed: Option<Executed>,
    message: Option<Pointer>,
    retry_after: Option<RetryAfter>,
}

/// An answer with its body parsed at most once, and only when a rule looks into it.
pub(crate) struct Seen<'r> {
    pub(crate) response: &'r HttpResponse,
    reading: &'r Reading,
    protocol: Protocol,
    parsed: OnceCell<Result<Value, String>>,
}

impl<'r> Seen<'r> {
    pub(crate) fn new(response: &'r HttpResponse, reading: &'r Reading, protocol: Protocol) -> Self {
        Self {
            response,
            reading,
            protocol,
            parsed: OnceCell::new(),
        }
    }

    fn parsed(&self) -> &Result<Value, String> {
        self.parsed.get_or_init(|| self.reading.value(self.response))
    }

    pub(crate) fn body(&self) -> Option<&Value> {
        self.parsed().as_ref().ok()
    }

    /// Why there is no [`Seen::body`].
    pub(crate) fn unreadable(&self) -> String {
        match self.parsed() {
            Ok(_) => "the answer cannot be read".to_owned(),
            Err(reason) => reason.clone(),
        }
    }

    pub(crate) fn into_body(self) -> Option<Value> {
        self.parsed();
        self.parsed.into_inner().and_then(Result::ok)
    }
}

impl Meaning {
    /// Reads `errors`, `success_when` and `error_message` of an operation or a connector.
    pub(crate) fn read(fields: &Fields<'_>, problems: &mut Problems) -> Self {
        let mut meaning = Self::default();
        if let Some(value) = fields.get("errors") {
            let place = fields.at("errors");
            match value.as_array() {
                Some(items) => {
                    meaning.rules = items
                        .iter()
                        .enumerate()
                        .filter_map(|(index, item)| {
                            Rule::read(item, &crate::pointer::join(&place, &index.to_string()), problems)
                        })
                        .collect();
                }
                None => problems.add(&place, "bad_type", "`errors` is a list of rules"),
            }
        }
        if let Some(value) = fields.get("success_when") {
            meaning.success_when = Condition::read(value, &fields.at("success_when"), problems);
        }
        if fields.get("error_message").is_some() {
            meaning.error_message = read_pointer(fields, "error_message", problems);
        }
        meaning
    }

    /// Whether a rule gives this code.
    pub(crate) fn names(&self, code: &str) -> bool {
        self.rules.iter().any(|rule| rule.code == code)
    }

    /// The failure, when this answer is one; `None` means success.
    pub(crate) fn failure(&self, general: &Self, seen: &Seen<'_>) -> Option<Answer> {
        let matched = self
            .rules
            .iter()
            .chain(&general.rules)
            .find(|rule| rule.when.holds(seen));
        let error_message = self.error_message.as_ref().or(general.error_message.as_ref());
        if let Some(rule) = matched {
            return (!rule.ok).then(|| rule.failure(seen, error_message));
        }
        let status = seen.response.status;
        if seen.protocol != Protocol::Http
            && let Some(reported) = seen.protocol.failure(seen.body(), status)
        {
            let message = provider_message(seen, error_message).unwrap_or_else(|| "the call failed".to_owned());
            let meaning = (reported.retryable, retry_after_ms_of(seen.response), reported.executed);
            return Some(failed(reported.code, message, status, meaning));
        }
        if !(200..300).contains(&status) {
            return Some(by_status(seen, error_message));
        }
        let success_when = self.success_when.as_ref().or(general.success_when.as_ref())?;
        (!success_when.holds(seen)).then(|| {
            let message = provider_message(seen, error_message)
                .unwrap_or_else(|| format!("the answer with status {status} does not report success"));
            failed("not_successful", message, status, (false, None, Executed::No))
        })
    }
}

impl Rule {
    fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(
            value,
            place,
            &["when", "ok", "code", "retryable", "executed", "message", "retry_after"],
            problems,
        )?;
        let when = Condition::read(fields.required("when", problems)?, &fields.at("when"), problems)?;
        let ok = fields.flag("ok", problems).unwrap_or(false);
        let code = match ok {
            true => String::new(),
            false => fields.required_text("code", problems)?.to_owned(),
        };
        if !ok && !fields::is_name(&code, false) {
            problems.add(
                &fields.at("code"),
                "bad_value",
                format!("`{code}` is not a snake_case code"),
            );
        }
        let retry_after = fields
            .get("retry_after")
            .and_then(|_| RetryAfter::read(&fields, problems));
        Some(Self {
            when,
            ok,
            code,
            retryable: fields.flag("retryable", problems),
            executed: fields.choice(
                "executed",
                &[("no", Executed::No), ("maybe", Executed::Maybe)],
                problems,
            ),
            message: if fields.get("message").is_some() {
                read_pointer(&fields, "message", problems)
            } else {
                None
            },
            retry_after,
        })
    }

    fn failure(&self, seen: &Seen<'_>, error_message: Option<&Pointer>) -> Answer {
        let status = seen.response.status;
        let (retryable, executed) = match status {
            // Of a batch the other items were done.
            200..=299 if self.when.looks_over_items() => (false, Executed::Maybe),
            200..=299 => (false, Executed::No),
            _ => class_of(status),
        };
        let retry_after_ms = self
            .retry_after
            .as_ref()
            .and_then(|retry_after| retry_after.ms(seen.response, || seen.body()));
        let message = provider_message(seen, self.message.as_ref().or(error_message))
            .unwrap_or_else(|| format!("the server answered {status}"));
        failed(
            &self.code,
            message,
            status,
            (
                self.retryable.unwrap_or(retryable),
                retry_after_ms.or_else(|| retry_after_ms_of(seen.response)),
                self.executed.unwrap_or(executed),
            ),
        )
    }
}

/// Reads the key `key`, which has to be there.
pub(crate) fn read_pointer(fields: &Fields<'_>, key: &str, problems: &mut Problems) -> Option<Pointer> {
    let text = fields.required_text(key, problems)?;
    let pointer = Pointer::parse(text);
    if pointer.is_none() {
        problems.add(
            &fields.at(key),
            "bad_pointer",
            format!("`{text}` is not a JSON Pointer"),
        );
    }
    pointer
}

fn failed(
    code: &str,
    message: String,
    status: u16,
    (retryable, retry_after_ms, executed): (bool, Option<u64>, Executed),
) -> Answer {
    Answer::Failed {
        code: code.to_owned(),
        message,
        http_status: Some(status),
        retryable,
        retry_after_ms,
        executed,
    }
}

/// A failure to read an answer that itself reports success.
pub(crate) fn unreadable(code: &str, message: String, status: u16) -> Answer {
    failed(code, message, status, (false, None, Executed::Maybe))
}

fn by_status(seen: &Seen<'_>, error_message: Option<&Pointer>) -> Answer {
    let status = seen.response.status;
    let (retryable, executed) = class_of(status);
    let code = match status {
        400 | 422 => "invalid".to_owned(),
        401 => "auth".to_owned(),
        403 => "forbidden".to_owned(),
        404 | 410 => "not_found".to_owned(),
        408 => "timeout".to_owned(),
        409 => "conflict".to_owned(),
        429 => "rate_limited".to_owned(),
        other => format!("http_{other}"),
    };
    let message = provider_message(seen, error_message).unwrap_or_else(|| format!("the server answered {status}"));
    let retry_after_ms = if retryable {
        retry_after_ms_of(seen.response)
    } else {
        None
    };
    failed(&code, message, status, (retryable, retry_after_ms, executed))
}

/// Retryable, and whether it can have been executed. A 4xx is a refusal (RFC 9110 §15.5); 408 and 5xx prove
/// nothing; 303 says that the work was done and its result is elsewhere.
fn class_of(status: u16) -> (bool, Executed) {
    match status {
        408 => (true, Executed::Maybe),
        425 | 429 => (true, Executed::No),
        500..=599 => (true, Executed::Maybe),
        303 => (false, Executed::Maybe),
        _ => (false, Executed::No),
    }
}

/// Longest provider message that is passed on, in characters.
const MAX_MESSAGE_CHARACTERS: usize = 300;

fn provider_message(seen: &Seen<'_>, pointer: Option<&Pointer>) -> Option<String> {
    let stated = || pointer?.lookup(seen.body()?)?.as_str();
    let cut = |text: &str| text.chars().take(MAX_MESSAGE_CHARACTERS).collect();
    let own = || match seen.protocol {
        Protocol::Http => None,
        protocol => protocol.message(seen.body()?),
    };
    stated()
        .map(cut)
        .filter(|text: &String| !text.is_empty())
        .or_else(|| own().map(|text| cut(&text)))
        .filter(|text| !text.is_empty())
}
