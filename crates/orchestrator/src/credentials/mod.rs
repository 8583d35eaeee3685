//! Credentials at work: static ones are put on a request, tokens are fetched or signed first.
//!
//! Secrets are read here and go to the request being sent, nowhere else: no message, log line or error of this module
//! quotes one, nor anything a token endpoint answered beyond its error code.

mod oauth2_client;
mod refusal;
mod service_account;
mod session;
mod signature;
mod token;

use std::sync::Arc;

use futures::future::BoxFuture;

use thiserror::Error;
use tokio::time::Instant;
use weir_connector_sdk::{Applied, AuthScheme, Credential, HttpRequest, HttpResponse, TokenError};
use weir_workflow_engine::{HeldBy, Hold};

pub(crate) use session::{Leaving, leave};
pub(crate) use signature::sign;
pub(crate) use token::{AccessToken, TokenCache};

use crate::clock::Clock;
use crate::connection::Connection;
use crate::grants::{AfterRefusal, Grants};
use crate::http_client::{HttpClient, Outgoing, SendError, SendErrorKind, Tracking};
use crate::perform::header_pairs;

/// Why a request could not be authorised. It was not sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct CredentialError {
    /// Stable code: `auth` when a person must act on the credential, `token_unavailable` when it may work later,
    /// `egress_refused` when the token endpoint is at an address that may not be called.
    pub code: &'static str,
    /// For people; never a secret.
    pub message: String,
    /// Whether the same request may succeed later.
    pub transient: bool,
    /// A login was refused: another one with the same credential would be too, and may lock the account.
    pub(crate) is_refusal: bool,
}

impl CredentialError {
    pub(crate) fn permanent(message: impl Into<String>) -> Self {
        CredentialError {
            code: "auth",
            message: message.into(),
            transient: false,
            is_refusal: false,
        }
    }

    pub(crate) fn transient(message: impl Into<String>) -> Self {
        CredentialError {
            code: "token_unavailable",
            message: message.into(),
            transient: true,
            is_refusal: false,
        }
    }

    /// A login was refused: a person has to see to the credential.
    pub(crate) fn refused_login(message: impl Into<String>) -> Self {
        CredentialError {
            is_refusal: true,
            ..CredentialError::permanent(message)
        }
    }

    fn of_endpoint(error: &TokenError) -> Self {
        let message = format!("the token endpoint refused: {}", error.code);
        match error.retryable {
            true => CredentialError::transient(message),
            false => CredentialError::permanent(message),
        }
    }

    fn of_send(error: &SendError) -> Self {
        match &error.kind {
            SendErrorKind::Egress(refused) => CredentialError {
                code: "egress_refused",
                message: format!("token endpoint: {refused}"),
                transient: false,
                is_refusal: false,
            },
            kind => CredentialError::transient(format!("no answer from the token endpoint: {kind}")),
        }
    }
}

/// Why a request cannot be sent with its credential now.
#[derive(Debug)]
pub(crate) enum NotAuthorised {
    /// It fails.
    Failed(CredentialError),
    /// It is to come again.
    Held(Hold),
}

impl From<CredentialError> for NotAuthorised {
    fn from(error: CredentialError) -> Self {
        NotAuthorised::Failed(error)
    }
}

/// How tokens are fetched.
#[derive(Clone, Copy)]
pub(crate) struct TokenRequests<'a> {
    pub(crate) http: &'a HttpClient,
    pub(crate) clock: &'a Arc<dyn Clock>,
    /// Access that people granted.
    pub(crate) grants: Option<&'a Arc<Grants>>,
    /// The fetch shares the deadline of the call that needs the token.
    pub(crate) deadline: Instant,
}

/// What was put on a request.
#[derive(Default)]
pub(crate) struct Authorised {
    /// The token that was used, if one was.
    pub(crate) token: Option<Arc<AccessToken>>,
    /// It is to be signed right before it leaves.
    pub(crate) needs_signature: bool,
    /// Secrets on it that an answer must not show, beside those in well-known places.
    pub(crate) exposed: Vec<String>,
}

/// Puts the connection's credential on `request`.
///
/// Cancel-safe; see [`TokenCache::get`].
pub(crate) async fn authorise(
    connection: &Connection,
    request: &mut HttpRequest,
    via: &TokenRequests<'_>,
) -> Result<Authorised, NotAuthorised> {
    let (credential, scheme) = scheme_of(connection)?;
    let applied = credential
        .apply_static(scheme, request)
        .map_err(|error| CredentialError::permanent(error.to_string()))?;
    let token = match applied {
        Applied::Complete | Applied::NeedsSignature => None,
        Applied::NeedsToken => {
            let token = match scheme {
                AuthScheme::OAuth2AuthorizationCode(_) => granted(connection, via).await?,
                AuthScheme::None
                | AuthScheme::Bearer
                | AuthScheme::ApiKey(_)
                | AuthScheme::Basic
                | AuthScheme::OAuth2ClientCredentials(_)
                | AuthScheme::ServiceAccountJwt(_)
                | AuthScheme::Keys(_)
                | AuthScheme::Session(_)
                | AuthScheme::Signed(_) => fetched(connection, credential, scheme, via).await?,
            };
            token.put_on(credential, scheme, request)?;
            Some(token)
        }
    };
    let session = token.as_ref().and_then(|token| token.session());
    Ok(Authorised {
        needs_signature: applied == Applied::NeedsSignature,
        exposed: credential.exposed(scheme, session),
        token,
    })
}

/// The connection's credential, and the connector's scheme for it.
fn scheme_of(connection: &Connection) -> Result<(&Credential, &AuthScheme), CredentialError> {
    let credential = connection.credential.as_ref().unwrap_or(&Credential::None);
    let scheme = connection.connector.scheme_for(credential).ok_or_else(|| {
        let offered: Vec<&str> = connection.connector.auth().iter().map(AuthScheme::as_str).collect();
        CredentialError::permanent(format!(
            "connector {} needs a credential of kind {}, the connection has {}",
            connection.connector.name(),
            offered.join(" or "),
            credential.kind(),
        ))
    })?;
    Ok((credential, scheme))
}

/// A token that the connection itself can get, fetched once for all its calls.
async fn fetched(
    connection: &Connection,
    credential: &Credential,
    scheme: &AuthScheme,
    via: &TokenRequests<'_>,
) -> Result<Arc<AccessToken>, NotAuthorised> {
    // Boxed: the compiler does not see that the future of a closure over references can be sent.
    let fetch = || -> BoxFuture<'_, _> { Box::pin(fetch(connection, credential, scheme, via)) };
    let fetched = connection.token.get(|| via.clock.now(), fetch).await;
    fetched.map_err(|error| match error.is_refusal {
        true => NotAuthorised::Held(Hold {
            until: refusal::come_again_at(connection.token.refusal().as_deref(), via.clock.now()),
            by: HeldBy::Reauth,
            reason: error.message,
        }),
        false => NotAuthorised::Failed(error),
    })
}

/// The token of a grant.
async fn granted(connection: &Connection, via: &TokenRequests<'_>) -> Result<Arc<AccessToken>, NotAuthorised> {
    if let Some(trial) = &connection.trial {
        return Ok(Arc::clone(trial));
    }
    let grants = via
        .grants
        .ok_or_else(|| CredentialError::permanent("this process keeps no access that people grant"))?;
    grants
        .token(connection, via.deadline)
        .await
        .map_err(NotAuthorised::Held)
}

/// What a call is to do whose token the API did not take (401). `renewed`: it is the second in this call.
pub(crate) async fn refused(
    connection: &Connection,
    token: &Arc<AccessToken>,
    renewed: bool,
    grants: Option<&Arc<Grants>>,
) -> AfterRefusal {
    match (token.granted(), grants) {
        (Some(_), Some(grants)) => grants.refused(connection, token, renewed).await,
        _ if renewed || connection.trial.is_some() => AfterRefusal::Stands,
        _ => {
            connection.token.forget(token);
            AfterRefusal::Again
        }
    }
}

async fn fetch(
    connection: &Connection,
    credential: &Credential,
    scheme: &AuthScheme,
    via: &TokenRequests<'_>,
) -> Result<AccessToken, CredentialError> {
    match scheme {
        AuthScheme::OAuth2ClientCredentials(scheme) => oauth2_client::fetch(connection, credential, scheme, via).await,
        AuthScheme::ServiceAccountJwt(scheme) => service_account::fetch(connection, credential, scheme, via).await,
        AuthScheme::Session(scheme) => session::fetch(connection, credential, scheme, via).await,
        AuthScheme::None
        | AuthScheme::Bearer
        | AuthScheme::ApiKey(_)
        | AuthScheme::Basic
        | AuthScheme::Keys(_)
        | AuthScheme::Signed(_)
        | AuthScheme::OAuth2AuthorizationCode(_) => {
            Err(CredentialError::permanent("this kind of credential has no token"))
        }
    }
}

impl TokenRequests<'_> {
    /// Sends a request to a token endpoint: no redirects, no record of the exchange.
    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<HttpResponse, CredentialError> {
        let url = reqwest::Url::parse(&request.uri().to_string())
            .map_err(|_error| CredentialError::permanent("the token URL is not valid"))?;
        let sent = send(self.http, request, url, self.deadline).await;
        sent.map_err(|error| CredentialError::of_send(&error))
    }
}

/// Sends a request to an endpoint for tokens: no redirects, no record of the exchange. No error quotes the request.
pub(crate) async fn exchange(
    http: &HttpClient,
    request: HttpRequest,
    deadline: Instant,
) -> Result<HttpResponse, SendError> {
    let unsendable = || SendError {
        kind: SendErrorKind::Unsendable("the token request cannot be sent".to_owned()),
        never_left: true,
        status: None,
    };
    let request = to_http(request).map_err(|_error| unsendable())?;
    let url = reqwest::Url::parse(&request.uri().to_string()).map_err(|_error| unsendable())?;
    send(http, request, url, deadline).await
}

async fn send(
    http: &HttpClient,
    request: http::Request<Vec<u8>>,
    url: reqwest::Url,
    deadline: Instant,
) -> Result<HttpResponse, SendError> {
    let (head, body) = request.into_parts();
    let outgoing = Outgoing {
        method: head.method,
        url,
        headers: head.headers,
        body: Some(body),
        tracking: Tracking::Off,
    };
    let received = http.send(outgoing, deadline).await?;
    Ok(HttpResponse {
        status: received.status,
        headers: header_pairs(&received.headers),
        body: received.body,
    })
}

/// A request description of the connector contract in the form of the `http` crate.
fn to_http(request: HttpRequest) -> Result<http::Request<Vec<u8>>, CredentialError> {
    let mut builder = http::Request::builder()
        .method(request.method.as_str())
        .uri(&request.url);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    // The source would quote the value.
    builder
        .body(request.body.unwrap_or_default())
        .map_err(|_error| CredentialError::permanent("the token request cannot be sent"))
}
