//! Signatures of requests: the moment and the random bytes are taken here, everything else is the connector contract's.

use secrecy::ExposeSecret as _;
use weir_connector_sdk::{AuthScheme, HttpRequest, SignAt};

use super::{CredentialError, scheme_of};
use crate::clock::Clock;
use crate::connection::Connection;

/// Signs a request that leaves now, and gives what an answer must not show of it.
pub(crate) fn sign(
    connection: &Connection,
    request: &mut HttpRequest,
    clock: &dyn Clock,
) -> Result<String, CredentialError> {
    let (credential, scheme) = scheme_of(connection)?;
    let AuthScheme::Signed(scheme) = scheme else {
        return Err(CredentialError::permanent("the connector signs no requests"));
    };
    let at = SignAt {
        now_unix_ms: clock.now().as_unix_ms(),
        nonce: rand::random(),
    };
    let signature = scheme
        .sign(credential, &at, request)
        .map_err(|error| CredentialError::permanent(error.message))?;
    Ok(signature.expose_secret().to_owned())
}
