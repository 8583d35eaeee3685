//! The `auth` part of a manifest.

use serde_json::Value;

use super::code::{self, OAuth2CodeScheme};
use super::places::{self, KeysScheme};
use super::session::SessionScheme;
use super::signed::SignedScheme;
use super::{session_read, signed_read};
use crate::connector::Common;
use crate::expression::Scope;
use crate::fields::{Fields, is_header_name};
use crate::operation::BuildError;
use crate::pointer::Pointer;
use crate::problem::Problems;
use crate::redact::SecretNames;
use crate::template::Template;

/// One way to authenticate; a connector may offer several, the credential decides.
#[derive(Debug)]
pub enum AuthScheme {
    /// No credentials.
    None,
    /// `Authorization: Bearer TOKEN` with a fixed token.
    Bearer,
    /// A key in a header or query parameter.
    ApiKey(ApiKeyPlace),
    /// HTTP Basic.
    Basic,
    /// A bearer token from a token endpoint, by client id and secret (RFC 6749 §4.4).
    OAuth2ClientCredentials(OAuth2Scheme),
    /// A bearer token that a person granted, renewed by refresh tokens (RFC 6749 §4.1).
    OAuth2AuthorizationCode(Box<OAuth2CodeScheme>),
    /// A JWT signed with a private key, as the token itself or exchanged for one (RFC 7523).
    ServiceAccountJwt(ServiceAccountScheme),
    /// Several secrets at once, each where it belongs.
    Keys(KeysScheme),
    /// A token that a login gives, for a while.
    Session(Box<SessionScheme>),
    /// A signature over each request.
    Signed(Box<SignedScheme>),
}

/// Where an API key goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiKeyPlace {
    /// A header, with text before the key (`"Token "`), often empty.
    Header {
        /// Header name.
        name: String,
        /// Text before the key.
        prefix: String,
    },
    /// A query parameter.
    Query {
        /// Parameter name.
        name: String,
    },
}

/// How a client proves itself to a token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// HTTP Basic.
    Basic,
    /// `client_id` and `client_secret` in the form body.
    Body,
}

/// OAuth2 client credentials, as a manifest states them.
#[derive(Debug)]
pub struct OAuth2Scheme {
    pub(super) token_url: Template,
    /// Scopes to ask for; joined with spaces.
    pub scopes: Vec<String>,
    /// How the client proves itself.
    pub client_auth: ClientAuth,
    /// The `audience` parameter.
    pub audience: Option<String>,
    /// Lifetime in seconds of a token whose answer states none.
    pub default_expires_in_s: u64,
}

/// A signed assertion, as a manifest states it.
#[derive(Debug)]
pub struct ServiceAccountScheme {
    /// JWS algorithm: RS256, ES256 or HS256.
    pub alg: String,
    pub(super) claims: Vec<(String, Template)>,
    pub(super) token_url: Option<Template>,
    /// Lifetime of the assertion, in seconds.
    pub ttl_s: u64,
    /// Lifetime in seconds of an exchanged token whose answer states none.
    pub default_expires_in_s: u64,
}

/// The call that proves a credential and names the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthTest {
    /// An operation without required arguments.
    pub call: String,
    /// JSON Pointer in its output to the account's id.
    pub account: Option<String>,
    /// JSON Pointer in its output to a name for people.
    pub label: Option<String>,
}

impl AuthScheme {
    /// The word used in manifests and credentials.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bearer => "bearer",
            Self::ApiKey(_) => "api_key",
            Self::Basic => "basic",
            Self::OAuth2ClientCredentials(_) | Self::OAuth2AuthorizationCode(_) => "oauth2",
            Self::ServiceAccountJwt(_) => "service_account",
            Self::Keys(_) => "keys",
            Self::Session(_) => "session",
            Self::Signed(_) => "signed",
        }
    }
}

impl AuthScheme {
    /// The names of the values that its credential holds, when it names them itself.
    pub(crate) fn value_names(&self) -> Option<&[String]> {
        match self {
            Self::Keys(scheme) => Some(scheme.values()),
            Self::Session(scheme) => Some(scheme.values()),
            Self::Signed(scheme) => Some(scheme.values()),
            Self::None
            | Self::Bearer
            | Self::ApiKey(_)
            | Self::Basic
            | Self::OAuth2ClientCredentials(_)
            | Self::OAuth2AuthorizationCode(_)
            | Self::ServiceAccountJwt(_) => None,
        }
    }
}

/// Where a template over `config` leads. `which` names the URL for people.
pub(super) fn render_url(
    template: &Template,
    config: &Value,
    defaults: &Value,
    which: &str,
) -> Result<String, BuildError> {
    let named = [("config", config), ("config", defaults)];
    let scope = Scope {
        named: &named,
        layers: &[],
    };
    let text = template
        .render_to_text(&scope)
        .map_err(|error| BuildError::new("/config", error.message))?;
    let text = text.ok_or_else(|| {
        let message = format!("the {which} URL needs a setting that is absent");
        BuildError::new("/config", message)
    })?;
    match url::Url::parse(&text) {
        Ok(url) if ["https", "http"].contains(&url.scheme()) && url.has_host() => Ok(text.into_owned()),
        Ok(_) | Err(_) => Err(BuildError::new("/config", format!("the {which} URL is not valid"))),
    }
}

/// The names of the schemes, and of the credentials for them.
pub(super) const KINDS: [&str; 9] = [
    "none",
    "bearer",
    "api_key",
    "basic",
    "oauth2",
    "service_account",
    "keys",
    "session",
    "signed",
];

/// Reads `auth`: any of the schemes by name, and `test`.
pub(crate) fn read(
    value: &Value,
    place: &str,
    common: &Common,
    problems: &mut Problems,
) -> (Vec<AuthScheme>, Option<AuthTest>) {
    let mut known = KINDS.to_vec();
    known.push("test");
    let mut schemes = Vec::new();
    let Some(fields) = Fields::open(value, place, &known, problems) else {
        return (schemes, None);
    };
    // In the order of the manifest: the first is what a person is offered first.
    for (name, value) in fields.map() {
        let place = fields.at(name);
        let scheme = match name.as_str() {
            "none" => Fields::open(value, &place, &[], problems).map(|_| AuthScheme::None),
            "bearer" => Fields::open(value, &place, &[], problems).map(|_| AuthScheme::Bearer),
            "basic" => Fields::open(value, &place, &[], problems).map(|_| AuthScheme::Basic),
            "api_key" => read_api_key(value, &place, problems).map(AuthScheme::ApiKey),
            "oauth2" => read_oauth2(value, &place, common, problems),
            "service_account" => {
                read_service_account(value, &place, common, problems).map(AuthScheme::ServiceAccountJwt)
            }
            "keys" => places::read_keys(value, &place, problems).map(AuthScheme::Keys),
            "session" => {
                let scheme = session_read::read(value, &place, common, problems);
                scheme.map(|scheme| AuthScheme::Session(Box::new(scheme)))
            }
            "signed" => {
                let scheme = signed_read::read(value, &place, problems);
                scheme.map(|scheme| AuthScheme::Signed(Box::new(scheme)))
            }
            _ => None,
        };
        schemes.extend(scheme);
    }
    if KINDS.iter().all(|name| fields.get(name).is_none()) {
        problems.add(
            place,
            "missing_key",
            format!("`auth` states no scheme; one of: {}", KINDS.join(", ")),
        );
    }
    let test = fields
        .get("test")
        .and_then(|value| read_test(value, &fields.at("test"), problems));
    (schemes, test)
}

/// The header and query names that carry the credentials of these schemes.
pub(crate) fn secret_names(schemes: &[AuthScheme]) -> SecretNames {
    let mut names = SecretNames::default();
    for scheme in schemes {
        match scheme {
            AuthScheme::ApiKey(ApiKeyPlace::Header { name, .. }) => names.headers.push(name.to_ascii_lowercase()),
            AuthScheme::ApiKey(ApiKeyPlace::Query { name }) => names.queries.push(name.to_ascii_lowercase()),
            AuthScheme::Keys(scheme) => scheme.places.add_secret_names(&mut names, &|_| true),
            AuthScheme::Session(scheme) => scheme.places.add_secret_names(&mut names, &|_| true),
            // When and with what a request was signed helps people, and nobody else.
            AuthScheme::Signed(scheme) => scheme
                .places
                .add_secret_names(&mut names, &|name| !["timestamp", "nonce", "body_hash"].contains(&name)),
            AuthScheme::None
            | AuthScheme::Bearer
            | AuthScheme::Basic
            | AuthScheme::OAuth2ClientCredentials(_)
            | AuthScheme::OAuth2AuthorizationCode(_)
            | AuthScheme::ServiceAccountJwt(_) => {}
        }
    }
    names
}

fn read_api_key(value: &Value, place: &str, problems: &mut Problems) -> Option<ApiKeyPlace> {
    let fields = Fields::open(value, place, &["header", "query", "prefix"], problems)?;
    match (fields.text("header", problems), fields.text("query", problems)) {
        (Some(name), None) if is_header_name(name) => Some(ApiKeyPlace::Header {
            name: name.to_owned(),
            prefix: fields.text("prefix", problems).unwrap_or_default().to_owned(),
        }),
        (None, Some(name)) if !name.is_empty() && fields.get("prefix").is_none() => {
            Some(ApiKeyPlace::Query { name: name.to_owned() })
        }
        _ => {
            problems.add(
                place,
                "bad_value",
                "an API key goes into a `header` (with an optional `prefix`) or into a `query` parameter",
            );
            None
        }
    }
}

/// How tokens of `oauth2` are got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grant {
    ClientCredentials,
    AuthorizationCode,
}

fn read_oauth2(value: &Value, place: &str, common: &Common, problems: &mut Problems) -> Option<AuthScheme> {
    let of_both = [
        "grant",
        "token_url",
        "scopes",
        "client_auth",
        "audience",
        "default_expires_in",
    ];
    let known: Vec<&str> = of_both.into_iter().chain(code::KEYS).collect();
    let fields = Fields::open(value, place, &known, problems)?;
    let grants = [
        ("client_credentials", Grant::ClientCredentials),
        ("authorization_code", Grant::AuthorizationCode),
    ];
    let grant = match fields.get("grant") {
        Some(_) => fields.choice("grant", &grants, problems)?,
        None => Grant::ClientCredentials,
    };
    if grant == Grant::AuthorizationCode {
        let scheme = code::read(&fields, common, problems)?;
        return Some(AuthScheme::OAuth2AuthorizationCode(Box::new(scheme)));
    }
    for key in code::KEYS {
        if fields.get(key).is_some() {
            problems.add(
                &fields.at(key),
                "bad_value",
                format!("`{key}` belongs to `grant: authorization_code`"),
            );
        }
    }
    Some(AuthScheme::OAuth2ClientCredentials(OAuth2Scheme {
        token_url: read_url(&fields, "token_url", common, problems)?,
        scopes: fields.texts("scopes", problems).unwrap_or_default(),
        client_auth: read_client_auth(&fields, problems),
        audience: fields.text("audience", problems).map(str::to_owned),
        default_expires_in_s: fields.duration_s("default_expires_in", problems).unwrap_or(3_600),
    }))
}

pub(super) fn read_client_auth(fields: &Fields<'_>, problems: &mut Problems) -> ClientAuth {
    let ways = [("basic", ClientAuth::Basic), ("body", ClientAuth::Body)];
    fields
        .choice("client_auth", &ways, problems)
        .unwrap_or(ClientAuth::Body)
}

fn read_service_account(
    value: &Value,
    place: &str,
    common: &Common,
    problems: &mut Problems,
) -> Option<ServiceAccountScheme> {
    let fields = Fields::open(
        value,
        place,
        &["alg", "claims", "token_url", "ttl", "default_expires_in"],
        problems,
    )?;
    fields.required("alg", problems);
    let alg = fields.choice(
        "alg",
        &[("RS256", "RS256"), ("ES256", "ES256"), ("HS256", "HS256")],
        problems,
    )?;
    let claims = match fields.get("claims") {
        Some(claims) => read_claims(claims, &fields.at("claims"), common, problems),
        None => Vec::new(),
    };
    let token_url = if fields.get("token_url").is_some() {
        Some(read_url(&fields, "token_url", common, problems)?)
    } else {
        None
    };
    Some(ServiceAccountScheme {
        alg: alg.to_owned(),
        claims,
        token_url,
        ttl_s: fields.duration_s("ttl", problems).unwrap_or(300),
        default_expires_in_s: fields.duration_s("default_expires_in", problems).unwrap_or(3_600),
    })
}

fn read_claims(value: &Value, place: &str, common: &Common, problems: &mut Problems) -> Vec<(String, Template)> {
    let Some(fields) = Fields::open_any(value, place, problems) else {
        return Vec::new();
    };
    let mut claims = Vec::with_capacity(fields.map().len());
    for (name, value) in fields.map() {
        let place = fields.at(name);
        // A claim over an optional setting is left out with it; one over the account must be there.
        let template = Template::compile(
            value,
            &place,
            &|expression| common.config_may_be_absent(expression),
            problems,
        );
        template.visit(&mut |expression| {
            if expression.roots() != ["account"] {
                common.check_config_names(expression, &place, problems);
            }
        });
        claims.push((name.clone(), template));
    }
    claims
}

pub(super) fn read_url(fields: &Fields<'_>, key: &str, common: &Common, problems: &mut Problems) -> Option<Template> {
    let value = fields.required(key, problems)?;
    let place = fields.at(key);
    let template = Template::compile(value, &place, &|_| false, problems);
    if !value
        .as_str()
        .is_some_and(|text| text.starts_with("https://") || text.starts_with("{{"))
    {
        problems.add(
            &place,
            "bad_value",
            format!("`{key}` begins with https:// or is one expression"),
        );
    }
    template.visit(&mut |expression| common.check_config_names(expression, &place, problems));
    Some(template)
}

fn read_test(value: &Value, place: &str, problems: &mut Problems) -> Option<AuthTest> {
    let fields = Fields::open(value, place, &["call", "account", "label"], problems)?;
    let call = fields.required_text("call", problems)?.to_owned();
    for key in ["account", "label"] {
        if let Some(text) = fields.text(key, problems)
            && Pointer::parse(text).is_none()
        {
            problems.add(
                &fields.at(key),
                "bad_pointer",
                format!("`{text}` is not a JSON Pointer"),
            );
        }
    }
    let text = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(AuthTest {
        call,
        account: text("account"),
        label: text("label"),
    })
}
