//! From what went wrong to what the engine may conclude: a code, a message, whether anything was sent, whether to retry.
//!
//! When in doubt the answer is "maybe sent". No message here may quote a URL, a header value or a credential.

use std::time::Duration;

use weir_workflow_engine::{CallFailure, CallOutcome, CallResult, Exchange, Origin, Retry, Sent};

use crate::budget::Failure;
use crate::credentials::CredentialError;
use crate::http_client::{SendError, SendErrorKind};

/// A failure that no other try can mend, of a request that was never sent.
pub(super) fn refused(code: &str, message: impl Into<String>) -> CallFailure {
    CallFailure {
        code: code.to_owned(),
        message: message.into(),
        http_status: None,
        sent: Sent::Never,
        retry: Retry::Permanent,
    }
}

/// The code of an effect of which it could not be proven what was asked.
pub(crate) const UNPROVEN: &str = "unproven";

/// The failure after which a person decides: it may have been sent and nobody can tell.
pub(crate) fn unproven(reason: &str) -> CallFailure {
    CallFailure {
        code: UNPROVEN.to_owned(),
        message: format!("it cannot be proven that nothing was sent: {reason}"),
        http_status: None,
        sent: Sent::Maybe,
        retry: Retry::Permanent,
    }
}

/// The look found nothing yet, and an earlier request may still arrive or not be visible.
pub(super) fn not_settled(after: Duration) -> CallFailure {
    CallFailure {
        code: "not_settled".to_owned(),
        message:
            "not found yet; an earlier request may still take effect, so it is looked for again before anything is sent"
                .to_owned(),
        http_status: None,
        sent: Sent::Maybe,
        retry: Retry::Retryable { after: Some(after) },
    }
}

/// The request could not be sent, or its answer did not come.
pub(super) fn of_send(error: &SendError) -> CallFailure {
    let transient = Retry::Retryable { after: None };
    let (code, retry) = match &error.kind {
        SendErrorKind::Egress(_) => ("egress_refused", Retry::Permanent),
        SendErrorKind::Dns(_) => ("dns", transient),
        SendErrorKind::Connect(_) => ("connect", transient),
        SendErrorKind::Timeout => ("timeout", transient),
        SendErrorKind::ConnectionLost(_) => ("connection_lost", transient),
        SendErrorKind::TooLarge => ("response_too_large", Retry::Permanent),
        SendErrorKind::NotRecorded(_) => ("not_recorded", transient),
        SendErrorKind::LeaseOver => ("lease_over", transient),
        SendErrorKind::Unsendable(_) => ("invalid", Retry::Permanent),
    };
    CallFailure {
        code: code.to_owned(),
        message: error.kind.to_string(),
        http_status: error.status,
        sent: if error.never_left { Sent::Never } else { Sent::Maybe },
        retry,
    }
}

/// How the server failed: it could not be reached, or broke off.
pub(super) fn outage(error: &SendError) -> Option<Failure> {
    match &error.kind {
        SendErrorKind::Dns(_) | SendErrorKind::Connect(_) => Some(Failure::Unreachable),
        SendErrorKind::Timeout | SendErrorKind::ConnectionLost(_) => Some(Failure::Silent),
        SendErrorKind::Egress(_)
        | SendErrorKind::TooLarge
        | SendErrorKind::NotRecorded(_)
        | SendErrorKind::LeaseOver
        | SendErrorKind::Unsendable(_) => None,
    }
}

/// The connection's credential could not be turned into an authorised request.
pub(super) fn of_credential(error: &CredentialError) -> CallFailure {
    CallFailure {
        code: error.code.to_owned(),
        message: error.message.clone(),
        http_status: None,
        sent: Sent::Never,
        retry: if error.transient {
            Retry::Retryable { after: None }
        } else {
            Retry::Permanent
        },
    }
}

/// A result that failed after `exchanges`.
pub(super) fn failed(failure: CallFailure, exchanges: Vec<Exchange>) -> CallResult {
    CallResult {
        outcome: CallOutcome::Failed(failure),
        exchanges,
        origin: Origin::Sent,
    }
}
