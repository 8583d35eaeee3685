//! The way back from a provider: what comes with a person, what is checked of it, and what a person is told.

use secrecy::SecretString;
use serde_json::Value;
use weir_connector_sdk::OAuth2CodeScheme;
use weir_workflow_engine::Timestamp;

/// Where to send a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// The address at the provider.
    pub url: String,
    /// The address that the provider sends people back to; the app at the provider has to know it.
    pub redirect_uri: String,
    /// Until when the person may come back.
    pub expires_at: Timestamp,
}

/// What a person came back with.
#[derive(Debug, Clone, Default)]
pub struct Callback {
    /// `state`.
    pub state: Option<String>,
    /// `code`.
    pub code: Option<SecretString>,
    /// `error`.
    pub error: Option<String>,
    /// `iss` (RFC 9207).
    pub issuer: Option<String>,
}

impl Callback {
    /// Reads the query of the address that a provider sent a person back to. Of a parameter that is there twice the first
    /// counts.
    #[must_use]
    pub fn of_query(query: &str) -> Self {
        let mut callback = Callback::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let place = match name.as_ref() {
                "state" => &mut callback.state,
                "error" => &mut callback.error,
                "iss" => &mut callback.issuer,
                "code" => {
                    callback.code.get_or_insert_with(|| SecretString::from(value.as_ref()));
                    continue;
                }
                _ => continue,
            };
            place.get_or_insert_with(|| value.into_owned());
        }
        callback
    }
}

/// A connection that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Its name.
    pub connection: String,
    /// Its account, for people.
    pub account: Option<String>,
}

/// Why a person cannot be sent, or a connection is not made. Every text is ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// There is no such connection.
    #[error("there is no such connection")]
    NotFound,
    /// Nobody has to let it in.
    #[error("connection `{name}` cannot be let in by a person: {why}")]
    NotGranted {
        /// The connection.
        name: String,
        /// What it is instead, and what to do.
        why: String,
    },
    /// It has no access that could be given back.
    #[error("connection `{0}` is not connected")]
    NotConnected(String),
    /// The state is not ours, was changed, is over, or was used before.
    #[error("{0}")]
    State(&'static str),
    /// The provider, or the person there, refused.
    #[error("{0}")]
    Refused(String),
    /// Another account than the one that the connection belongs to.
    #[error("{0}")]
    OtherAccount(String),
    /// It may work later.
    #[error("{0}")]
    Unavailable(String),
}

/// RFC 9207 §2.4: another server that sends people here must not pass for the one they were sent to.
pub(super) fn check_issuer(
    scheme: &OAuth2CodeScheme,
    (config, defaults): (&Value, &Value),
    callback: &Callback,
) -> Result<(), ConnectError> {
    let wanted = scheme
        .issuer(config, defaults)
        .map_err(|error| ConnectError::Refused(error.to_string()))?;
    match (wanted, &callback.issuer) {
        (Some(wanted), Some(stated)) if wanted == *stated => Ok(()),
        (None, _) => Ok(()),
        (Some(_), Some(_)) => Err(ConnectError::Refused(
            "the answer comes from another authorization server than the one that was asked (`iss`)".to_owned(),
        )),
        (Some(_), None) => Err(ConnectError::Refused(
            "the answer does not say which authorization server it comes from (`iss`)".to_owned(),
        )),
    }
}

/// What an error of the authorization endpoint means (RFC 6749 §4.1.2.1).
pub(super) fn refusal(error: &str) -> String {
    let meaning = match error {
        "access_denied" => "access was not given at the provider",
        "invalid_scope" => {
            "the provider does not know a scope that the connector asks for, or the app may not ask for it"
        }
        "unauthorized_client" => "the app may not ask for access in this way; see to its settings at the provider",
        "temporarily_unavailable" | "server_error" => "the provider could not answer; connect again later",
        _ => "the provider sent an error back",
    };
    let is_code =
        !error.is_empty() && error.len() <= 64 && error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    match is_code {
        true => format!("{meaning} ({error})"),
        false => meaning.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_providers_are_told_in_our_words() {
        let check = |error: &str, wanted: &str| assert_eq!(refusal(error), wanted);
        check("access_denied", "access was not given at the provider (access_denied)");
        check("odd_code", "the provider sent an error back (odd_code)");
        check("<script>", "the provider sent an error back");
        check(&"x".repeat(65), "the provider sent an error back");
        check("", "the provider sent an error back");
    }
}
