//! Sessions: logins are sent one after the other, and what they give is kept like any other token.

use std::time::Duration;

use weir_connector_sdk::{AuthScheme, BuildError, Credential, HttpRequest, SessionScheme, Values};

use super::{AccessToken, CredentialError, TokenRequests, to_http};
use crate::connection::Connection;

/// Begins a session.
pub(super) async fn fetch(
    connection: &Connection,
    credential: &Credential,
    scheme: &SessionScheme,
    via: &TokenRequests<'_>,
) -> Result<AccessToken, CredentialError> {
    let place = (connection.connector.as_ref(), &connection.config);
    let mut session = Values::default();
    let mut lifetime_s = None;
    for number in 0..scheme.logins() {
        let request = scheme
            .login_request(number, place, credential, &session)
            .map_err(|error| CredentialError::permanent(error.message))?;
        let response = via.send(to_http(request)?).await?;
        let answer = scheme.login_answer(number, &response, via.clock.now().as_unix_ms());
        let part = answer.map_err(|error| match error.retryable {
            true => CredentialError::transient(format!("the login failed: {}", error.code)),
            false => refused(connection, &error.code),
        })?;
        session = session.with(&part.values);
        // The first part to end ends the session.
        lifetime_s = match (lifetime_s, part.expires_in_s) {
            (Some(one), Some(other)) => Some(u64::min(one, other)),
            (one, other) => one.or(other),
        };
    }
    let lifetime = Duration::from_secs(lifetime_s.unwrap_or_else(|| scheme.default_lifetime_s()));
    Ok(AccessToken::of_session(session, via.clock.now(), lifetime))
}

fn refused(connection: &Connection, code: &str) -> CredentialError {
    let name = &connection.name;
    let message =
        format!("the login was refused: {code}; see to the `credential` of `{name}`, what waits goes on by itself");
    tracing::warn!(connection.name = %name, "{message}");
    CredentialError::refused_login(message)
}

/// A session that is over here, and the request that ends it at the provider.
pub(crate) struct Leaving {
    /// `None`: the connector knows no way to end it.
    pub(crate) logout: Option<HttpRequest>,
}

/// Forgets the session of a connection. `None`: there is none in this process.
///
/// # Errors
/// What is wrong with the request that would end it; it is forgotten all the same.
pub(crate) async fn leave(connection: &Connection) -> Option<Result<Leaving, BuildError>> {
    let credential = connection.credential.as_ref()?;
    let Some(AuthScheme::Session(scheme)) = connection.connector.scheme_for(credential) else {
        return None;
    };
    let token = connection.token.take().await?;
    let place = (connection.connector.as_ref(), &connection.config);
    let request = scheme.logout_request(place, credential, token.session()?);
    Some(request.map(|logout| Leaving { logout }))
}
