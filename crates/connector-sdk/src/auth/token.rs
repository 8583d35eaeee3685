//! Token requests and answers (RFC 6749 §4.4 and §5, RFC 7523): built and read here, sent by the host.

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::code::basic;
use super::credential::Credential;
use super::scheme::{ClientAuth, OAuth2Scheme, ServiceAccountScheme, render_url};
use crate::encode::{self, Arrays};
use crate::expression::Scope;
use crate::http_message::{HttpRequest, HttpResponse};
use crate::operation::BuildError;

/// A token from a token endpoint.
#[derive(Clone)]
pub struct Token {
    /// The access token.
    pub access_token: SecretString,
    /// Its lifetime in seconds, as stated or as the manifest assumes.
    pub expires_in_s: u64,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("expires_in_s", &self.expires_in_s)
            .finish_non_exhaustive()
    }
}

/// Why a token endpoint gave no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token endpoint refused: {code}")]
pub struct TokenError {
    /// The endpoint's `error` code (`invalid_client`, `invalid_grant` …), `http_NNN`, or `unreadable`.
    pub code: String,
    /// Whether the same request may succeed later; otherwise the credential needs a person.
    pub retryable: bool,
}

/// What the host signs as a JWT.
#[derive(Debug, Clone, PartialEq)]
pub struct Assertion {
    /// JWS algorithm.
    pub alg: String,
    /// Key id for the header.
    pub key_id: Option<String>,
    /// The claims, with `iat` and `exp`.
    pub claims: Value,
}

impl OAuth2Scheme {
    /// The token request. `defaults` are the connector's default settings (see `Connector::config_defaults`).
    ///
    /// # Errors
    /// [`BuildError`] when the credential is not an OAuth2 client or a setting is missing.
    pub fn token_request(
        &self,
        config: &Value,
        defaults: &Value,
        credential: &Credential,
    ) -> Result<HttpRequest, BuildError> {
        let Credential::OAuth2 {
            client_id,
            client_secret,
        } = credential
        else {
            return Err(BuildError::new("/credential", "the connection has no OAuth2 client"));
        };
        let mut form = Map::new();
        form.insert("grant_type".to_owned(), "client_credentials".into());
        if !self.scopes.is_empty() {
            form.insert("scope".to_owned(), self.scopes.join(" ").into());
        }
        if let Some(audience) = &self.audience {
            form.insert("audience".to_owned(), audience.as_str().into());
        }
        let mut request = form_request(render_url(&self.token_url, config, defaults, "token")?);
        match self.client_auth {
            ClientAuth::Basic => {
                request.set_header("Authorization", basic(client_id, client_secret));
            }
            ClientAuth::Body => {
                form.insert("client_id".to_owned(), client_id.as_str().into());
                form.insert("client_secret".to_owned(), client_secret.expose_secret().into());
            }
        }
        request.body = Some(form_body(&form));
        Ok(request)
    }

    /// Reads the answer of the token endpoint.
    ///
    /// # Errors
    /// [`TokenError`] unless it holds an access token.
    pub fn token(&self, response: &HttpResponse) -> Result<Token, TokenError> {
        read_token(response, self.default_expires_in_s)
    }
}

impl ServiceAccountScheme {
    /// What to sign at `now_unix_s`.
    ///
    /// # Errors
    /// [`BuildError`] when the credential is not a service account or a claim cannot be filled in.
    pub fn assertion(
        &self,
        config: &Value,
        defaults: &Value,
        credential: &Credential,
        now_unix_s: i64,
    ) -> Result<Assertion, BuildError> {
        let Credential::ServiceAccount { account, key_id, .. } = credential else {
            return Err(BuildError::new("/credential", "the connection has no service account"));
        };
        let account = Value::Object(account.clone());
        let named = [("config", config), ("config", defaults), ("account", &account)];
        let scope = Scope {
            named: &named,
            layers: &[],
        };
        let mut claims = Map::new();
        for (name, template) in &self.claims {
            if let Some(value) = template
                .render(&scope)
                .map_err(|error| BuildError::new("/config", error.message))?
            {
                claims.insert(name.clone(), value.into_owned());
            }
        }
        let ttl_s = i64::try_from(self.ttl_s).unwrap_or(i64::MAX);
        claims.insert("iat".to_owned(), now_unix_s.into());
        claims.insert("exp".to_owned(), now_unix_s.saturating_add(ttl_s).into());
        Ok(Assertion {
            alg: self.alg.clone(),
            key_id: key_id.clone(),
            claims: Value::Object(claims),
        })
    }

    /// The request that exchanges a signed assertion for a token; `None` when the assertion is the token.
    ///
    /// # Errors
    /// [`BuildError`] when a setting is missing.
    pub fn token_request(
        &self,
        config: &Value,
        defaults: &Value,
        signed: &SecretString,
    ) -> Result<Option<HttpRequest>, BuildError> {
        let Some(token_url) = &self.token_url else {
            return Ok(None);
        };
        let form =
            json!({ "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": signed.expose_secret() });
        let mut request = form_request(render_url(token_url, config, defaults, "token")?);
        request.body = form.as_object().map(form_body);
        Ok(Some(request))
    }

    /// Reads the answer of the token endpoint.
    ///
    /// # Errors
    /// [`TokenError`] unless it holds an access token.
    pub fn token(&self, response: &HttpResponse) -> Result<Token, TokenError> {
        read_token(response, self.default_expires_in_s)
    }
}

pub(super) fn form_request(url: String) -> HttpRequest {
    let headers = vec![
        ("Accept".to_owned(), "application/json".to_owned()),
        (
            "Content-Type".to_owned(),
            "application/x-www-form-urlencoded".to_owned(),
        ),
    ];
    HttpRequest {
        method: "POST".to_owned(),
        url,
        headers,
        body: None,
    }
}

pub(super) fn form_body(form: &Map<String, Value>) -> Vec<u8> {
    let mut body = String::new();
    encode::pairs(&mut body, form, Arrays::Indexes);
    body.into_bytes()
}

/// What a token endpoint's refusal means.
pub(super) fn read_error(status: u16, stated: Option<&str>) -> TokenError {
    let retryable = status >= 500 || status == 429 || status == 408;
    // Codes are words; anything else could be a text with secrets in it.
    let is_code = |code: &&str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        code.len() <= 64 && code.bytes().all(fits)
    };
    let code = stated
        .filter(is_code)
        .map_or_else(|| format!("http_{status}"), str::to_owned);
    // RFC 6749 leaves the first two to the authorisation endpoint, but token endpoints send them too.
    let passes = ["temporarily_unavailable", "server_error", "rate_limited", "ratelimited"];
    TokenError {
        retryable: retryable || passes.contains(&code.as_str()),
        code,
    }
}

fn read_token(response: &HttpResponse, default_expires_in_s: u64) -> Result<Token, TokenError> {
    let body: Option<Value> = serde_json::from_slice(&response.body).ok();
    let field = |name: &str| body.as_ref().and_then(|body| body.get(name));
    if !(200..300).contains(&response.status) {
        return Err(read_error(response.status, field("error").and_then(Value::as_str)));
    }
    let Some(access_token) = field("access_token")
        .and_then(Value::as_str)
        .filter(|token| !token.is_empty())
    else {
        return Err(TokenError {
            code: "unreadable".to_owned(),
            retryable: false,
        });
    };
    // Some endpoints send the lifetime as text.
    let stated = field("expires_in").and_then(|value| {
        value
            .as_u64()
            .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
    });
    Ok(Token {
        access_token: access_token.into(),
        expires_in_s: stated.unwrap_or(default_expires_in_s),
    })
}
