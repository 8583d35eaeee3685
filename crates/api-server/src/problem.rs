//! The catalogue of everything that can go wrong at the HTTP door: one code, status, title and fix per case.
//!
//! Webhooks and plain routes answer with problem details (RFC 9457); GraphQL puts the same code into `extensions.code`.
//! Internal causes never stand here: the text is written for the person who reads it, and stays stable.

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, HttpResponseBuilder};
use serde_json::json;

/// Everything that can be answered instead of what was asked for.
///
/// A new variant does not compile until [`Code::entry`] names its status, title and fix, and a test insists that
/// [`Code::ALL`] lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// No endpoint has this id or name.
    EndpointUnknown,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body could not be read or parsed.
    BodyInvalid,
    /// The sender's keys or the confirmation of its registration cannot be had from the provider now.
    ProviderUnavailable,
    /// The sender's address is not in the endpoint's allow list.
    AddressNotAllowed,
    /// The signature is missing, wrong or stale.
    SignatureRefused,
    /// Too many accepted runs wait for their turn.
    BacklogFull,
    /// The write queue is full.
    QueueFull,
    /// The database did not confirm the write.
    DatabaseUnavailable,
    /// The server is stopping.
    ShuttingDown,
    /// Other servers do this.
    RoleElsewhere,
    /// No such path.
    NotFound,
    /// A run ended without the answer that its caller was promised.
    NoAnswer,
    /// What came back from a provider does not belong to a way that we sent a person, or not any more.
    OauthState,
    /// The provider, or the person there, did not let us in.
    OauthRefused,
    /// Another account than the one that the connection has.
    OauthAccount,
    /// The connection is gone, or is not one that people let in.
    OauthConnection,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// Nothing that the client accepts can be produced.
    NotAcceptable,
    /// The request body is not `application/json`.
    UnsupportedMediaType,
    /// The request is malformed.
    BadRequest,
    /// The GraphQL document does not parse.
    ParseFailed,
    /// The GraphQL document does not fit the schema.
    ValidationFailed,
    /// A variable is missing or has the wrong type.
    BadVariables,
    /// The request is too large to be worked on.
    CostExceeded,
    /// An id has the wrong form or names another kind of thing.
    InvalidId,
    /// A paging cursor is not ours, or belongs to another filter.
    InvalidCursor,
    /// No token, or none that we know.
    Unauthenticated,
    /// The token lacks a permission.
    Forbidden,
    /// The request took too long.
    Timeout,
    /// Something broke on our side.
    Internal,
}

/// What the catalogue says about one code.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Stable name, the same in problem details and in GraphQL.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// One line that names the problem.
    pub title: &'static str,
    /// What the reader can do about it.
    pub fix: &'static str,
}

impl Code {
    /// Every code, in the order of the catalogue page.
    pub const ALL: [Code; 32] = [
        Code::EndpointUnknown,
        Code::BodyTooLarge,
        Code::BodyTimeout,
        Code::BodyInvalid,
        Code::AddressNotAllowed,
        Code::SignatureRefused,
        Code::ProviderUnavailable,
        Code::BacklogFull,
        Code::QueueFull,
        Code::DatabaseUnavailable,
        Code::ShuttingDown,
        Code::RoleElsewhere,
        Code::NotFound,
        Code::NoAnswer,
        Code::OauthState,
        Code::OauthRefused,
        Code::OauthAccount,
        Code::OauthConnection,
        Code::MethodNotAllowed,
        Code::NotAcceptable,
        Code::UnsupportedMediaType,
        Code::BadRequest,
        Code::ParseFailed,
        Code::ValidationFailed,
        Code::BadVariables,
        Code::CostExceeded,
        Code::InvalidId,
        Code::InvalidCursor,
        Code::Unauthenticated,
        Code::Forbidden,
        Code::Timeout,
        Code::Internal,
    ];

    /// The catalogue entry of this code.
    pub const fn entry(self) -> Entry {
        match self {
            Code::EndpointUnknown => Entry {
                code: "ENDPOINT_UNKNOWN",
                status: 404,
                title: "There is no such endpoint",
                fix: "Copy the ingest URL from the endpoint (query `{ endpoints { name url } }`) into the provider's settings.",
            },
            Code::BodyTooLarge => Entry {
                code: "BODY_TOO_LARGE",
                status: 413,
                title: "The request body is too large",
                fix: "Send a smaller body, or have the provider send a reference instead of the whole object.",
            },
            Code::BodyTimeout => Entry {
                code: "BODY_TIMEOUT",
                status: 408,
                title: "The request body did not arrive in time",
                fix: "Send the request again over a faster or more stable network.",
            },
            Code::BodyInvalid => Entry {
                code: "BODY_INVALID",
                status: 400,
                title: "The request body cannot be understood",
                fix: "Check that the endpoint belongs to the provider that sends here, and that the body is what its connector describes.",
            },
            Code::AddressNotAllowed => Entry {
                code: "ADDRESS_NOT_ALLOWED",
                status: 403,
                title: "The sender's address is not allowed",
                fix: "Add the provider's networks to `allow` of the endpoint; behind a proxy, set the trusted proxies.",
            },
            Code::SignatureRefused => Entry {
                code: "SIGNATURE_REFUSED",
                status: 401,
                title: "The signature was refused",
                fix: "Compare the endpoint's secret with the one the provider shows; `refusedRequests` says what was wrong with each request.",
            },
            Code::ProviderUnavailable => Entry {
                code: "PROVIDER_UNAVAILABLE",
                status: 503,
                title: "The provider's keys or confirmation cannot be had",
                fix: "No event was stored: the provider should send again later, after Retry-After. Check that this server reaches the URL that the message or the log names; a private address has to be in `WEIR_EGRESS_ALLOW`.",
            },
            Code::BacklogFull => Entry {
                code: "BACKLOG_FULL",
                status: 503,
                title: "Too many accepted runs are waiting",
                fix: "Nothing was stored: the provider should send again later. Look for the slow or failing system in the waiting runs.",
            },
            Code::QueueFull => Entry {
                code: "QUEUE_FULL",
                status: 503,
                title: "The write queue is full",
                fix: "Nothing was stored: the provider should send again later. If this lasts, the disk or the database is too slow for the traffic.",
            },
            Code::DatabaseUnavailable => Entry {
                code: "DATABASE_UNAVAILABLE",
                status: 503,
                title: "The database did not confirm the write",
                fix: "Send again: what was stored already is recognised. Check the database and the free disk space.",
            },
            Code::ShuttingDown => Entry {
                code: "SHUTTING_DOWN",
                status: 503,
                title: "The server is stopping",
                fix: "Send again in a moment.",
            },
            Code::RoleElsewhere => Entry {
                code: "ROLE_ELSEWHERE",
                status: 421,
                title: "Other servers do this",
                fix: "Send webhooks to a server with the role `ingest`, GraphQL to one with the role `api`; a proxy can route `/hooks/` and `/graphql` apart. WEIR_ROLES says what a server does.",
            },
            Code::NotFound => Entry {
                code: "NOT_FOUND",
                status: 404,
                title: "There is nothing at this path",
                fix: "`/` lists what this server offers.",
            },
            Code::NoAnswer => Entry {
                code: "NO_ANSWER",
                status: 410,
                title: "The run gave no answer",
                fix: "The run ended before its `respond` step; look at the run, and send the request again with another id if it should be worked on again.",
            },
            Code::OauthState => Entry {
                code: "OAUTH_STATE",
                status: 400,
                title: "This way to connect cannot be used",
                fix: "Begin anew with `weir connection authorize NAME` or `connectionAuthorize`; each address works once, for half an hour.",
            },
            Code::OauthRefused => Entry {
                code: "OAUTH_REFUSED",
                status: 400,
                title: "The provider did not let the connection in",
                fix: "See to what the message names, at the provider or in the connection, and begin anew with `weir connection authorize NAME`.",
            },
            Code::OauthAccount => Entry {
                code: "OAUTH_ACCOUNT",
                status: 409,
                title: "This is another account than the connection has",
                fix: "Sign in to the account that the connection belongs to, or let it have another one with `--another-account` (`anotherAccount`).",
            },
            Code::OauthConnection => Entry {
                code: "OAUTH_CONNECTION",
                status: 404,
                title: "There is no such connection to let in",
                fix: "Give the connection a connector with `grant: authorization_code` and `credential: { oauth2: { client_id, client_secret } }`, and begin anew.",
            },
            Code::MethodNotAllowed => Entry {
                code: "METHOD_NOT_ALLOWED",
                status: 405,
                title: "This method is not allowed here",
                fix: "Use one of the methods in the `Allow` header.",
            },
            Code::NotAcceptable => Entry {
                code: "NOT_ACCEPTABLE",
                status: 406,
                title: "No acceptable answer format",
                fix: "Accept `application/graphql-response+json` or `application/json`.",
            },
            Code::UnsupportedMediaType => Entry {
                code: "UNSUPPORTED_MEDIA_TYPE",
                status: 415,
                title: "Unsupported content type",
                fix: "Send `content-type: application/json` (UTF-8).",
            },
            Code::BadRequest => Entry {
                code: "BAD_REQUEST",
                status: 400,
                title: "The request is malformed",
                fix: "Send one JSON object with `query`, and optionally `operationName` and `variables`.",
            },
            Code::ParseFailed => Entry {
                code: "PARSE_FAILED",
                status: 400,
                title: "The GraphQL document does not parse",
                fix: "Correct the syntax at the place named in `locations`.",
            },
            Code::ValidationFailed => Entry {
                code: "VALIDATION_FAILED",
                status: 400,
                title: "The GraphQL document does not fit the schema",
                fix: "Compare the document with the schema (`/graphiql` checks while you type).",
            },
            Code::BadVariables => Entry {
                code: "BAD_VARIABLES",
                status: 400,
                title: "The variables do not fit the operation",
                fix: "Give every required variable a value of its declared type.",
            },
            Code::CostExceeded => Entry {
                code: "COST_EXCEEDED",
                status: 400,
                title: "The request asks for too much at once",
                fix: "Split the request, or ask for smaller pages.",
            },
            Code::InvalidId => Entry {
                code: "INVALID_ID",
                status: 400,
                title: "This is not an id of the expected kind",
                fix: "Pass the `id` of the thing itself; its prefix names the kind, such as `run_` or `evt_`.",
            },
            Code::InvalidCursor => Entry {
                code: "INVALID_CURSOR",
                status: 400,
                title: "This cursor does not belong to this list",
                fix: "Use `pageInfo.endCursor` of the same list with the same filter, or start without `after`.",
            },
            Code::Unauthenticated => Entry {
                code: "UNAUTHENTICATED",
                status: 401,
                title: "A valid token is needed",
                fix: "Send `Authorization: Bearer TOKEN` with the admin token or an API token that has neither expired nor been revoked.",
            },
            Code::Forbidden => Entry {
                code: "FORBIDDEN",
                status: 403,
                title: "The token lacks a permission",
                fix: "Use a token that has the permission named in the message.",
            },
            Code::Timeout => Entry {
                code: "TIMEOUT",
                status: 504,
                title: "The request took too long",
                fix: "Ask for less at once. A mutation may still have been carried out: read before sending it again.",
            },
            Code::Internal => Entry {
                code: "INTERNAL",
                status: 500,
                title: "Something broke inside the server",
                fix: "Send again; if it stays, look for the request id in the server's log.",
            },
        }
    }

    /// The stable name, such as `BODY_TOO_LARGE`.
    pub const fn as_str(self) -> &'static str {
        self.entry().code
    }

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        self.entry().status
    }

    /// Finds a code by its stable name.
    pub fn by_name(name: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.as_str() == name)
    }
}

/// One answer instead of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub code: Code,
    /// What happened this time; shown to the sender, so it holds neither secrets nor internal causes.
    pub detail: String,
    /// When sending again makes sense, seconds.
    pub retry_after_s: Option<u32>,
    /// Methods that would work, for [`Code::MethodNotAllowed`].
    pub allow: Option<&'static str>,
}

impl Problem {
    /// A problem of this kind with its own detail text.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem {
            code,
            detail: detail.into(),
            retry_after_s: None,
            allow: None,
        }
    }

    /// The method is not allowed; `allow` lists those that are.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Problem {
            allow: Some(allow),
            ..Problem::new(Code::MethodNotAllowed, format!("allowed here: {allow}"))
        }
    }

    /// Problem details as RFC 9457 wants them. `type` is a path on this server, so that the link works on every install.
    pub fn to_json(&self) -> serde_json::Value {
        let entry = self.code.entry();
        json!({
            "type": docs_path(self.code),
            "title": entry.title,
            "status": entry.status,
            "detail": self.detail,
            "code": entry.code,
            "fix": entry.fix,
        })
    }

    /// The HTTP answer.
    pub fn to_response(&self) -> HttpResponse {
        self.with_body("application/problem+json", self.to_json().to_string())
    }

    /// An answer with this problem's status and headers and another body.
    pub(crate) fn with_body(&self, content_type: &'static str, body: String) -> HttpResponse {
        self.head().content_type(content_type).body(body)
    }

    /// An answer with this problem's status and headers alone.
    pub(crate) fn without_body(&self) -> HttpResponse {
        self.head().finish()
    }

    fn head(&self) -> HttpResponseBuilder {
        let status = StatusCode::from_u16(self.code.status()).expect("the catalogue holds valid statuses");
        let mut answer = HttpResponse::build(status);
        if let Some(seconds) = self.retry_after_s {
            answer.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        if let Some(allow) = self.allow {
            answer.insert_header((ALLOW, allow));
        }
        if self.code == Code::Unauthenticated {
            answer.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"weir\""));
        }
        answer
    }
}

/// Where this server explains the code.
pub(crate) fn docs_path(code: Code) -> String {
    format!("/errors/{}", code.as_str())
}

/// The page behind a problem's `type`: plain text, one code.
pub(crate) fn page(code: Code) -> String {
    let Entry {
        code,
        status,
        title,
        fix,
    } = code.entry();
    format!("{code} (HTTP {status})\n\n{title}.\n\nWhat to do: {fix}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn catalogue_is_complete_and_distinct() {
        let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len(), "two codes share a name");
        // `Internal` is the last variant; its position is the number of variants before it.
        assert_eq!(
            Code::ALL.len(),
            Code::Internal as usize + 1,
            "a variant is missing in ALL"
        );
        for code in Code::ALL {
            let entry = code.entry();
            assert!((400..600).contains(&entry.status), "{} has no error status", entry.code);
            assert!(
                entry.fix.ends_with('.') && entry.fix.len() > 10,
                "{} does not say what to do",
                entry.code
            );
            assert!(!entry.title.ends_with('.'), "{} title is a heading", entry.code);
            assert_eq!(Code::by_name(entry.code), Some(code));
        }
    }

    #[test]
    fn problem_details_carry_code_fix_and_link() {
        let problem = Problem {
            retry_after_s: Some(7),
            ..Problem::new(Code::QueueFull, "4096 facts are waiting")
        };
        insta::assert_json_snapshot!(problem.to_json());
        let answer = problem.to_response();
        assert_eq!(answer.headers().get("retry-after").unwrap(), "7");
        assert_eq!(
            answer.headers().get("content-type").unwrap(),
            "application/problem+json"
        );
    }
}
