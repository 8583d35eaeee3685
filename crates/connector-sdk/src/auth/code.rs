//! OAuth2 by authorization code (RFC 6749 §4.1, RFC 7636, RFC 9207): a person lets us in once, and tokens that expire
//! are renewed with a refresh token.
//!
//! What providers do differently is data here: addresses, extra parameters, where the answer holds what. Nothing is
//! sent, and nothing that is read here is ever part of a message.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use super::credential::Credential;
use super::scheme::{ClientAuth, read_url, render_url};
use super::token::{TokenError, form_body, form_request, read_error};
use crate::connector::Common;
use crate::encode;
use crate::expression::Scope;
use crate::fields::Fields;
use crate::http_message::{HttpRequest, HttpResponse};
use crate::operation::BuildError;
use crate::pointer::{self, Pointer};
use crate::problem::Problems;
use crate::template::Template;

/// Longest account id, scope list or address that is taken from a token answer, bytes.
const MAX_STATED_BYTES: usize = 2_000;
/// Parameters that are ours to set.
const OWN_PARAMETERS: [&str; 11] = [
    "client_id",
    "client_secret",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "grant_type",
    "redirect_uri",
    "refresh_token",
    "response_type",
    "state",
];

/// `OAuth2` by authorization code, as a manifest states it.
#[derive(Debug)]
pub struct OAuth2CodeScheme {
    authorize_url: Template,
    token_url: Template,
    refresh_url: Option<Template>,
    revoke_url: Option<Template>,
    issuer: Option<Template>,
    /// Scopes to ask for, some of them settings.
    scopes: Vec<Template>,
    scope_separator: String,
    /// Whether a proof key goes with the code (RFC 7636, S256).
    pub pkce: bool,
    client_auth: ClientAuth,
    audience: Option<String>,
    authorize_params: Vec<(String, String)>,
    token_params: Vec<(String, String)>,
    token_request: TokenRequest,
    answer: AnswerPlaces,
    default_expires_in_s: u64,
    /// Whether a refresh gives a new refresh token and ends the old one.
    pub refresh_rotates: Rotation,
    ends_on: Vec<String>,
    instance_hosts: Vec<String>,
}

/// The body of requests to the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokenRequest {
    Form,
    Json,
}

/// Whether a refresh token is good for one use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Each refresh gives another one.
    Yes,
    /// It stays the same.
    No,
    /// Not known, or only sometimes.
    Maybe,
}

/// Where things stand in the answer of the token endpoint.
#[derive(Debug)]
struct AnswerPlaces {
    access_token: Pointer,
    refresh_token: Pointer,
    expires_in: Pointer,
    expires_in_is_ms: bool,
    scope: Pointer,
    error: Pointer,
    account: Option<Pointer>,
    instance_url: Option<Pointer>,
}

/// What a person is sent to the provider with.
#[derive(Debug, Clone, Copy)]
pub struct AuthorizeAsk<'a> {
    /// Where the provider sends the person back to.
    pub redirect_uri: &'a str,
    /// What comes back with it.
    pub state: &'a str,
    /// The S256 challenge; used when the scheme wants one.
    pub code_challenge: &'a str,
}

/// What a token endpoint gave.
#[derive(Clone)]
pub struct TokenSet {
    /// For requests.
    pub access_token: SecretString,
    /// For the next refresh; `None`: the answer holds none.
    pub refresh_token: Option<SecretString>,
    /// Lifetime of the access token in seconds, as stated or as the manifest assumes.
    pub expires_in_s: u64,
    /// The scopes that were granted, as the provider writes them.
    pub scopes: Option<String>,
    /// The account, where the answer says it.
    pub account: Option<String>,
    /// Where the API of this account is, where the answer says it.
    pub instance_url: Option<String>,
}

impl std::fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSet")
            .field("expires_in_s", &self.expires_in_s)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl OAuth2CodeScheme {
    /// Where a person lets us in.
    ///
    /// # Errors
    /// [`BuildError`] when the credential is no `OAuth2` client or a setting is missing.
    pub fn authorize_url(
        &self,
        config: &Value,
        defaults: &Value,
        credential: &Credential,
        ask: &AuthorizeAsk<'_>,
    ) -> Result<String, BuildError> {
        let (client_id, _) = client_of(credential)?;
        let mut url = render_url(&self.authorize_url, config, defaults, "authorize")?;
        let scopes = self.scopes(config, defaults)?;
        let mut begun = url.contains('?');
        let mut add = |name: &str, value: &str| {
            url.push(if begun { '&' } else { '?' });
            begun = true;
            encode::percent(&mut url, name);
            url.push('=');
            encode::percent(&mut url, value);
        };
        add("response_type", "code");
        add("client_id", client_id);
        add("redirect_uri", ask.redirect_uri);
        if !scopes.is_empty() {
            add("scope", &scopes.join(&self.scope_separator));
        }
        add("state", ask.state);
        if self.pkce {
            add("code_challenge", ask.code_challenge);
            add("code_challenge_method", "S256");
        }
        if let Some(audience) = &self.audience {
            add("audience", audience);
        }
        for (name, value) in &self.authorize_params {
            add(name, value);
        }
        Ok(url)
    }

    fn scopes(&self, config: &Value, defaults: &Value) -> Result<Vec<String>, BuildError> {
        let named = [("config", config), ("config", defaults)];
        let scope = Scope {
            named: &named,
            layers: &[],
        };
        let mut scopes = Vec::with_capacity(self.scopes.len());
        for template in &self.scopes {
            let text = template
                .render_to_text(&scope)
                .map_err(|error| BuildError::new("/config", error.message))?;
            scopes.extend(text.map(Cow::into_owned).filter(|text| !text.is_empty()));
        }
        Ok(scopes)
    }

    /// The request that turns a code into tokens.
    ///
    /// # Errors
    /// As [`OAuth2CodeScheme::authorize_url`].
    pub fn exchange_request(
        &self,
        (config, defaults): (&Value, &Value),
        credential: &Credential,
        code: &SecretString,
        redirect_uri: &str,
        verifier: &SecretString,
    ) -> Result<HttpRequest, BuildError> {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code.expose_secret()),
            ("redirect_uri", redirect_uri),
        ];
        if self.pkce {
            fields.push(("code_verifier", verifier.expose_secret()));
        }
        let url = render_url(&self.token_url, config, defaults, "token")?;
        self.request(url, &fields, credential)
    }

    /// The request that renews the tokens.
    ///
    /// # Errors
    /// As [`OAuth2CodeScheme::authorize_url`].
    pub fn refresh_request(
        &self,
        (config, defaults): (&Value, &Value),
        credential: &Credential,
        refresh_token: &SecretString,
    ) -> Result<HttpRequest, BuildError> {
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose_secret()),
        ];
        let template = self.refresh_url.as_ref().unwrap_or(&self.token_url);
        let url = render_url(template, config, defaults, "refresh")?;
        self.request(url, &fields, credential)
    }

    /// The request that takes a token back (RFC 7009); `None` when the manifest knows no address for it.
    ///
    /// # Errors
    /// As [`OAuth2CodeScheme::authorize_url`].
    pub fn revoke_request(
        &self,
        (config, defaults): (&Value, &Value),
        credential: &Credential,
        token: &SecretString,
    ) -> Result<Option<HttpRequest>, BuildError> {
        let Some(template) = &self.revoke_url else {
            return Ok(None);
        };
        let url = render_url(template, config, defaults, "revoke")?;
        self.request(url, &[("token", token.expose_secret())], credential)
            .map(Some)
    }

    /// Who answers at the authorize URL (RFC 9207); `None`: not named, and not checked.
    ///
    /// # Errors
    /// [`BuildError`] when a setting is missing.
    pub fn issuer(&self, config: &Value, defaults: &Value) -> Result<Option<String>, BuildError> {
        let issuer = self.issuer.as_ref();
        issuer
            .map(|template| render_url(template, config, defaults, "issuer"))
            .transpose()
    }

    /// Reads the answer of the token endpoint.
    ///
    /// # Errors
    /// [`TokenError`] unless it holds an access token.
    pub fn tokens(&self, response: &HttpResponse) -> Result<TokenSet, TokenError> {
        let body: Option<Value> = serde_json::from_slice(&response.body).ok();
        let text = |place: &Pointer| {
            let found = body.as_ref().and_then(|body| place.lookup(body));
            found.and_then(Value::as_str).filter(|text| !text.is_empty())
        };
        if !(200..300).contains(&response.status) || text(&self.answer.error).is_some() {
            return Err(read_error(response.status, text(&self.answer.error)));
        }
        let Some(access_token) = text(&self.answer.access_token) else {
            return Err(TokenError {
                code: "unreadable".to_owned(),
                retryable: true,
            });
        };
        let stated = body.as_ref().and_then(|body| self.answer.expires_in.lookup(body));
        let stated = stated.and_then(|value| {
            let text = || value.as_str().and_then(|text| text.parse().ok());
            value.as_u64().or_else(text).filter(|stated| *stated > 0)
        });
        let unit = if self.answer.expires_in_is_ms { 1_000 } else { 1 };
        let short = |text: &str| (text.len() <= MAX_STATED_BYTES).then(|| text.to_owned());
        let account = self.answer.account.as_ref().and_then(|place| {
            let found = body.as_ref().and_then(|body| place.lookup(body));
            match found {
                Some(Value::Number(number)) => Some(number.to_string()),
                Some(Value::String(text)) => short(text),
                Some(_) | None => None,
            }
        });
        Ok(TokenSet {
            access_token: access_token.into(),
            refresh_token: text(&self.answer.refresh_token).map(SecretString::from),
            expires_in_s: stated.map_or(self.default_expires_in_s, |stated| stated / unit),
            scopes: text(&self.answer.scope).and_then(short),
            account,
            instance_url: self
                .answer
                .instance_url
                .as_ref()
                .and_then(text)
                .and_then(|url| self.instance(url)),
        })
    }

    /// Whether the token endpoint said with this code that only a person can go on.
    pub fn is_over(&self, code: &str) -> bool {
        code == "invalid_grant" || self.ends_on.iter().any(|known| known == code)
    }

    /// The origin of an instance URL, when the manifest lets its host in.
    fn instance(&self, text: &str) -> Option<String> {
        let url = url::Url::parse(text).ok()?;
        let host = url.host_str()?;
        let is_let_in = self
            .instance_hosts
            .iter()
            .any(|allowed| match allowed.strip_prefix('.') {
                Some(parent) => host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.')),
                None => host == allowed,
            });
        let fits = is_let_in && matches!(url.scheme(), "https" | "http") && url.username().is_empty();
        fits.then(|| text.trim_end_matches('/').to_owned())
    }

    fn request(
        &self,
        url: String,
        fields: &[(&str, &str)],
        credential: &Credential,
    ) -> Result<HttpRequest, BuildError> {
        let (client_id, client_secret) = client_of(credential)?;
        let mut body = Map::new();
        for (name, value) in fields {
            body.insert((*name).to_owned(), (*value).into());
        }
        for (name, value) in &self.token_params {
            body.insert(name.clone(), value.as_str().into());
        }
        let mut request = form_request(url);
        match self.client_auth {
            ClientAuth::Basic => request.set_header("Authorization", basic(client_id, client_secret)),
            ClientAuth::Body => {
                body.insert("client_id".to_owned(), client_id.into());
                body.insert("client_secret".to_owned(), client_secret.expose_secret().into());
            }
        }
        request.body = Some(match self.token_request {
            TokenRequest::Form => form_body(&body),
            TokenRequest::Json => {
                request.set_header("Content-Type", "application/json".to_owned());
                Value::Object(body).to_string().into_bytes()
            }
        });
        Ok(request)
    }
}

fn client_of(credential: &Credential) -> Result<(&str, &SecretString), BuildError> {
    match credential {
        Credential::OAuth2 {
            client_id,
            client_secret,
        } => Ok((client_id, client_secret)),
        Credential::None
        | Credential::Bearer { .. }
        | Credential::ApiKey { .. }
        | Credential::Basic { .. }
        | Credential::ServiceAccount { .. }
        | Credential::Named { .. } => Err(BuildError::new("/credential", "the connection has no OAuth2 client")),
    }
}

/// RFC 6749 §2.3.1: both halves are form-encoded before they are joined.
pub(super) fn basic(client_id: &str, client_secret: &SecretString) -> String {
    let (mut id, mut secret) = (String::new(), String::new());
    encode::percent(&mut id, client_id);
    encode::percent(&mut secret, client_secret.expose_secret());
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// Keys that `grant: authorization_code` has beside those of client credentials.
pub(super) const KEYS: [&str; 14] = [
    "authorize_url",
    "refresh_url",
    "revoke_url",
    "issuer",
    "scope_separator",
    "pkce",
    "authorize_params",
    "token_params",
    "token_request",
    "answer",
    "refresh_rotates",
    "ends_on",
    "instance_hosts",
    "expires_in_unit",
];

/// Reads `oauth2` with `grant: authorization_code`.
pub(super) fn read(fields: &Fields<'_>, common: &Common, problems: &mut Problems) -> Option<OAuth2CodeScheme> {
    let optional_url = |key: &str, problems: &mut Problems| {
        let there = fields.get(key).is_some();
        there.then(|| read_url(fields, key, common, problems)).flatten()
    };
    let authorize_url = read_url(fields, "authorize_url", common, problems);
    let token_url = read_url(fields, "token_url", common, problems);
    let expires_in_is_ms = fields
        .choice("expires_in_unit", &[("s", false), ("ms", true)], problems)
        .unwrap_or(false);
    let answer = read_answer(fields, expires_in_is_ms, problems);
    let instance_hosts = fields.texts("instance_hosts", problems).unwrap_or_default();
    match (&answer.instance_url, instance_hosts.is_empty()) {
        (Some(_), true) => problems.add(
            &fields.at("instance_hosts"),
            "missing_key",
            "with `answer.instance_url` say which hosts it may name: `.example.com` for all under example.com, or a host",
        ),
        (None, false) => problems.add(
            &fields.at("instance_hosts"),
            "bad_value",
            "`instance_hosts` means nothing without `answer.instance_url`",
        ),
        (Some(_), false) | (None, true) => {}
    }
    let scheme = OAuth2CodeScheme {
        refresh_url: optional_url("refresh_url", problems),
        revoke_url: optional_url("revoke_url", problems),
        issuer: optional_url("issuer", problems),
        authorize_url: authorize_url?,
        token_url: token_url?,
        scopes: read_scopes(fields, common, problems),
        scope_separator: fields.text("scope_separator", problems).unwrap_or(" ").to_owned(),
        pkce: fields
            .choice("pkce", &[("required", true), ("off", false)], problems)
            .unwrap_or(true),
        client_auth: super::scheme::read_client_auth(fields, problems),
        audience: fields.text("audience", problems).map(str::to_owned),
        authorize_params: read_parameters(fields, "authorize_params", problems),
        token_params: read_parameters(fields, "token_params", problems),
        token_request: fields
            .choice(
                "token_request",
                &[("form", TokenRequest::Form), ("json", TokenRequest::Json)],
                problems,
            )
            .unwrap_or(TokenRequest::Form),
        answer,
        default_expires_in_s: fields.duration_s("default_expires_in", problems).unwrap_or(3_600),
        refresh_rotates: fields
            .choice(
                "refresh_rotates",
                &[("yes", Rotation::Yes), ("no", Rotation::No), ("maybe", Rotation::Maybe)],
                problems,
            )
            .unwrap_or(Rotation::Maybe),
        ends_on: fields.texts("ends_on", problems).unwrap_or_default(),
        instance_hosts,
    };
    Some(scheme)
}

fn read_scopes(fields: &Fields<'_>, common: &Common, problems: &mut Problems) -> Vec<Template> {
    let texts = fields.texts("scopes", problems).unwrap_or_default();
    let place = fields.at("scopes");
    let mut scopes = Vec::with_capacity(texts.len());
    for (index, text) in texts.into_iter().enumerate() {
        let place = pointer::join(&place, &index.to_string());
        let template = Template::compile(
            &Value::String(text),
            &place,
            &|expression| common.config_may_be_absent(expression),
            problems,
        );
        template.visit(&mut |expression| common.check_config_names(expression, &place, problems));
        scopes.push(template);
    }
    scopes
}

fn read_answer(fields: &Fields<'_>, expires_in_is_ms: bool, problems: &mut Problems) -> AnswerPlaces {
    let known = [
        "access_token",
        "refresh_token",
        "expires_in",
        "scope",
        "error",
        "account",
        "instance_url",
    ];
    let stated = fields
        .get("answer")
        .and_then(|value| Fields::open(value, &fields.at("answer"), &known, problems));
    let mut place = |key: &str| {
        let fields = stated.as_ref()?;
        let text = fields.text(key, problems)?;
        let pointer = Pointer::parse(text);
        if pointer.is_none() {
            problems.add(
                &fields.at(key),
                "bad_pointer",
                format!("`{text}` is not a JSON Pointer"),
            );
        }
        pointer
    };
    let rfc = |name: &str| Pointer::parse(name).expect("the names of RFC 6749 are pointers");
    AnswerPlaces {
        access_token: place("access_token").unwrap_or_else(|| rfc("/access_token")),
        refresh_token: place("refresh_token").unwrap_or_else(|| rfc("/refresh_token")),
        expires_in: place("expires_in").unwrap_or_else(|| rfc("/expires_in")),
        expires_in_is_ms,
        scope: place("scope").unwrap_or_else(|| rfc("/scope")),
        error: place("error").unwrap_or_else(|| rfc("/error")),
        account: place("account"),
        instance_url: place("instance_url"),
    }
}

fn read_parameters(fields: &Fields<'_>, key: &str, problems: &mut Problems) -> Vec<(String, String)> {
    let Some(value) = fields.get(key) else {
        return Vec::new();
    };
    let Some(parameters) = Fields::open_any(value, &fields.at(key), problems) else {
        return Vec::new();
    };
    let mut read = Vec::with_capacity(parameters.map().len());
    for name in parameters.map().keys() {
        if OWN_PARAMETERS.contains(&name.as_str()) {
            problems.add(
                &parameters.at(name),
                "bad_value",
                format!("`{name}` is set by itself; leave it out"),
            );
        }
        if let Some(text) = parameters.text(name, problems) {
            read.push((name.clone(), text.to_owned()));
        }
    }
    read
}
