//! What came of a call: the answer that the host gives to a command.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::time::Timestamp;

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallResult {
    /// Done or failed.
    pub outcome: CallOutcome,
    /// Every HTTP exchange it took, redacted, in order.
    pub exchanges: Vec<Exchange>,
    /// How the answer was got.
    pub origin: Origin,
}

/// Done or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The call was carried out.
    Done {
        /// What the operation gives back.
        output: Document,
    },
    /// The call was not carried out, or nobody knows.
    Failed(CallFailure),
    /// The call was not made: it is to be made later, and this was no try.
    Held(Hold),
}

/// Why a call was not made yet, and when it is to be offered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it is to be offered again.
    pub until: Timestamp,
    /// What holds it.
    pub by: HeldBy,
    /// For people.
    pub reason: String,
}

impl Hold {
    /// What it is for a call that must not wait any longer.
    pub(crate) fn into_failure(self, now: Timestamp) -> CallFailure {
        CallFailure {
            code: self.by.code().to_owned(),
            message: self.reason,
            http_status: None,
            sent: Sent::Never,
            retry: Retry::Retryable {
                after: Some(self.until.since(now)),
            },
        }
    }
}

/// What holds a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// The request allowance of its connection.
    Budget,
    /// A circuit breaker of its connection: the provider is down, or fails the calls of this step.
    Breaker,
    /// The server that drives the run is stopping: the next one makes the call.
    Stop,
    /// The tokens of its connection cannot be renewed now.
    Token,
    /// Its connection needs a person who lets us in again.
    Reauth,
}

impl HeldBy {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Breaker => "breaker",
            Self::Stop => "stop",
            Self::Token => "token",
            Self::Reauth => "reauth",
        }
    }

    /// The code under which a call fails that was held too often.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Budget => "budget_exhausted",
            Self::Breaker => "circuit_open",
            Self::Stop => "server_stopped",
            Self::Token => "token_unavailable",
            Self::Reauth => "needs_reauth",
        }
    }
}

/// How an answer was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// By a request of its own.
    Sent,
    /// From a request that another run made for the same object.
    Coalesced,
    /// By looking: the effect was there already.
    Found,
}

/// Why a call failed, and what that says about the outside world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFailure {
    /// Stable name in `snake_case`: `http_500`, `timeout`, `connect`, `rate_limited`, `auth`, `not_found`, `unproven` …
    pub code: String,
    /// For people; never a secret.
    pub message: String,
    /// The status of the answer, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Whether the provider may have acted.
    pub sent: Sent,
    /// Whether another try can help.
    pub retry: Retry,
}

impl CallFailure {
    /// Whether the provider turned a request away because too many requests came before it.
    pub fn is_throttled(&self) -> bool {
        self.code == RATE_LIMITED && self.retry != Retry::Permanent
    }
}

/// The code of a call that the provider turned away because of too many requests.
pub const RATE_LIMITED: &str = "rate_limited";

/// Whether the provider may have acted on a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sent {
    /// Proven not: no byte was written, or the provider refused before it executed anything.
    Never,
    /// Nobody knows.
    Maybe,
}

/// Whether another try can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// Yes, not before `after` when the provider named a time.
    Retryable {
        /// What the provider asked for (`Retry-After`).
        #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::duration::as_ms")]
        after: Option<Duration>,
    },
    /// No.
    Permanent,
}

/// The body of an answer, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseBody {
    /// The same as the output of the call; kept only there.
    Output,
    /// Text of at most 16 KiB, redacted.
    Text(String),
    /// There was none, or it is not kept.
    None,
}

/// One HTTP request and its answer, redacted before it comes here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// HTTP method.
    pub method: String,
    /// Full URL with secret parameters redacted.
    pub url: String,
    /// Request headers with secret values redacted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<(String, String)>,
    /// Request body, redacted, at most 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_body: Option<String>,
    /// Status of the answer; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Response headers with secret values redacted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<(String, String)>,
    /// Headers of the answer that was kept from before and still holds, by this one's own 304: what the author sees,
    /// with status 200. Absent when the answer stands for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_headers: Option<Vec<(String, String)>>,
    /// Response body.
    pub response_body: ResponseBody,
    /// Size of the response body on the wire in bytes.
    pub response_bytes: u64,
    /// When the request began.
    #[serde(with = "crate::time::unix_ms")]
    pub started_at: Timestamp,
    /// From the first byte written to the last byte read, in milliseconds.
    pub duration_ms: u32,
    /// Why there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
