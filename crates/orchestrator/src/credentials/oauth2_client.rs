//! `OAuth2` client credentials (RFC 6749 §4.4): the `oauth2` crate makes the request, our guarded client sends it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use oauth2::basic::BasicClient;
use oauth2::{
    AsyncHttpClient, AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, RequestTokenError, Scope,
    TokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::time::Instant;
use weir_connector_sdk::{AuthScheme, ClientAuth, Connector, Credential, OAuth2Scheme};

use super::{AccessToken, CredentialError, TokenRequests};
use crate::clock::Clock;
use crate::connection::Connection;
use crate::http_client::HttpClient;

/// Fetches a token.
pub(super) async fn fetch(
    connection: &Connection,
    credential: &Credential,
    scheme: &OAuth2Scheme,
    via: &TokenRequests<'_>,
) -> Result<AccessToken, CredentialError> {
    let Credential::OAuth2 {
        client_id,
        client_secret,
    } = credential
    else {
        return Err(CredentialError::permanent("the connection has no OAuth2 client"));
    };
    // The scheme knows where the endpoint is; what it would send is left to the `oauth2` crate.
    let described = scheme
        .token_request(&connection.config, connection.connector.config_defaults(), credential)
        .map_err(|error| CredentialError::permanent(error.to_string()))?;
    let token_url =
        TokenUrl::new(described.url).map_err(|_error| CredentialError::permanent("the token URL is not valid"))?;
    let client = BasicClient::new(ClientId::new(client_id.clone()))
        .set_client_secret(ClientSecret::new(client_secret.expose_secret().to_owned()))
        .set_token_uri(token_url)
        .set_auth_type(match scheme.client_auth {
            ClientAuth::Basic => AuthType::BasicAuth,
            ClientAuth::Body => AuthType::RequestBody,
        });
    let mut request = client
        .exchange_client_credentials()
        .add_scopes(scheme.scopes.iter().cloned().map(Scope::new));
    if let Some(audience) = &scheme.audience {
        request = request.add_extra_param("audience", audience);
    }
    let endpoint = TokenEndpoint {
        http: via.http.clone(),
        clock: Arc::clone(via.clock),
        deadline: via.deadline,
        connector: Arc::clone(&connection.connector),
    };
    let answer = request.request_async(&endpoint).await.map_err(|error| match error {
        RequestTokenError::Request(error) => error,
        // Cannot be reached with the answer made below; its text could quote the token, so it stays out.
        RequestTokenError::ServerResponse(_) | RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            CredentialError::permanent("the answer of the token endpoint is not understood")
        }
    })?;
    let lifetime = answer
        .expires_in()
        .unwrap_or_else(|| Duration::from_secs(scheme.default_expires_in_s));
    let secret = SecretString::from(answer.access_token().secret().as_str());
    Ok(AccessToken::new(secret, via.clock.now(), lifetime))
}

/// The HTTP client that the `oauth2` crate calls: ours, with the egress guard. It owns what it needs, because the
/// compiler cannot see that the future of a borrowed one may be sent to another thread.
struct TokenEndpoint {
    http: HttpClient,
    clock: Arc<dyn Clock>,
    deadline: Instant,
    connector: Arc<Connector>,
}

impl<'c> AsyncHttpClient<'c> for TokenEndpoint {
    type Error = CredentialError;
    type Future = BoxFuture<'c, Result<HttpResponse, CredentialError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.exchange(request))
    }
}

impl TokenEndpoint {
    /// Sends the token request and reads the answer leniently: real endpoints leave out `token_type` or send the
    /// lifetime as text, so the answer is handed on in the form that the RFC asks for.
    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, CredentialError> {
        let scheme = self.connector.auth().iter().find_map(|scheme| match scheme {
            AuthScheme::OAuth2ClientCredentials(scheme) => Some(scheme),
            AuthScheme::None
            | AuthScheme::Bearer
            | AuthScheme::ApiKey(_)
            | AuthScheme::Basic
            | AuthScheme::OAuth2AuthorizationCode(_)
            | AuthScheme::ServiceAccountJwt(_)
            | AuthScheme::Keys(_)
            | AuthScheme::Session(_)
            | AuthScheme::Signed(_) => None,
        });
        let scheme = scheme.ok_or_else(|| CredentialError::permanent("the connector has no OAuth2 scheme"))?;
        let via = TokenRequests {
            http: &self.http,
            clock: &self.clock,
            grants: None,
            deadline: self.deadline,
        };
        let response = via.send(request).await?;
        let token = scheme
            .token(&response)
            .map_err(|error| CredentialError::of_endpoint(&error))?;
        let body = json!({
            "access_token": token.access_token.expose_secret(),
            "token_type": "bearer",
            "expires_in": token.expires_in_s,
        });
        Ok(HttpResponse::new(body.to_string().into_bytes()))
    }
}
