//! Service accounts: a JWT signed with the connection's private key, as the token itself or exchanged for one (RFC 7523).

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use weir_connector_sdk::{Assertion, Credential, ServiceAccountScheme};

use super::{AccessToken, CredentialError, TokenRequests, to_http};
use crate::connection::Connection;

/// Signs an assertion and, where the scheme says so, exchanges it.
pub(super) async fn fetch(
    connection: &Connection,
    credential: &Credential,
    scheme: &ServiceAccountScheme,
    via: &TokenRequests<'_>,
) -> Result<AccessToken, CredentialError> {
    let Credential::ServiceAccount { private_key, .. } = credential else {
        return Err(CredentialError::permanent("the connection has no service account"));
    };
    let (config, defaults) = (&connection.config, connection.connector.config_defaults());
    let now = via.clock.now();
    let assertion = scheme
        .assertion(config, defaults, credential, now.as_unix_ms().div_euclid(1000))
        .map_err(|error| CredentialError::permanent(error.to_string()))?;
    let signed = sign(&assertion, private_key)?;
    let exchange = scheme
        .token_request(config, defaults, &signed)
        .map_err(|error| CredentialError::permanent(error.to_string()))?;
    let Some(request) = exchange else {
        return Ok(AccessToken::new(signed, now, Duration::from_secs(scheme.ttl_s)));
    };
    let response = via.send(to_http(request)?).await?;
    let token = scheme
        .token(&response)
        .map_err(|error| CredentialError::of_endpoint(&error))?;
    let lifetime = Duration::from_secs(token.expires_in_s);
    Ok(AccessToken::new(token.access_token, via.clock.now(), lifetime))
}

fn sign(assertion: &Assertion, private_key: &SecretString) -> Result<SecretString, CredentialError> {
    let key = private_key.expose_secret().as_bytes();
    // What the key library says about a bad key is of no use to people and not worth a risk.
    let bad_key =
        |_error| CredentialError::permanent(format!("the private key is not a PEM key for {}", assertion.alg));
    let (algorithm, key) = match assertion.alg.as_str() {
        "RS256" => (Algorithm::RS256, EncodingKey::from_rsa_pem(key).map_err(bad_key)?),
        "ES256" => (Algorithm::ES256, EncodingKey::from_ec_pem(key).map_err(bad_key)?),
        "HS256" => (Algorithm::HS256, EncodingKey::from_secret(key)),
        other => {
            return Err(CredentialError::permanent(format!(
                "{other} is not an algorithm for assertions"
            )));
        }
    };
    let header = Header {
        kid: assertion.key_id.clone(),
        ..Header::new(algorithm)
    };
    jsonwebtoken::encode(&header, &assertion.claims, &key)
        .map(SecretString::from)
        .map_err(|_error| CredentialError::permanent("the assertion cannot be signed with this key"))
}
