//! Credentials: parsed once at the edge, held as secrets, put on requests here.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use super::scheme::{ApiKeyPlace, AuthScheme, KINDS};
use super::secret_text::Given;
use super::values::Values;
use crate::encode;
use crate::fields::Fields;
use crate::http_message::HttpRequest;
use crate::operation::BuildError;
use crate::problem::{Problem, Problems};

/// The secret half of a connection.
#[derive(Clone)]
pub enum Credential {
    /// Nothing.
    None,
    /// A fixed bearer token.
    Bearer {
        /// The token.
        token: SecretString,
    },
    /// An API key.
    ApiKey {
        /// The key.
        key: SecretString,
    },
    /// User and password.
    Basic {
        /// User name.
        username: String,
        /// Password; may be empty where the user name is the key.
        password: SecretString,
    },
    /// An OAuth2 client.
    OAuth2 {
        /// Client id.
        client_id: String,
        /// Client secret.
        client_secret: SecretString,
    },
    /// A private key that signs assertions.
    ServiceAccount {
        /// Who signs: everything beside the key (`client_email`, `app_id` …); claims see it as `account`.
        account: Map<String, Value>,
        /// `kid` of the assertion's header: `key_id` or `private_key_id`.
        key_id: Option<String>,
        /// PEM for RS256 and ES256, the shared secret for HS256.
        private_key: SecretString,
    },
    /// Secrets that the connector names.
    Named {
        /// What they are for.
        kind: NamedKind,
        /// The secrets.
        values: Values,
    },
}

/// What secrets are for whose names a connector states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedKind {
    /// Several secrets that stand on each request.
    Keys,
    /// What a login asks for.
    Session,
    /// A key that signs requests, and what names it.
    Signed,
}

/// What [`Credential::apply_static`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The request carries its credentials.
    Complete,
    /// The host must fetch a token first and put it on with [`Credential::apply_token`].
    NeedsToken,
    /// The host must sign the request right before it leaves, with [`crate::SignedScheme::sign`].
    NeedsSignature,
}

/// Why a credential could not be put on a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The connector does not offer the scheme of this credential.
    #[error("a {credential} credential does not fit the scheme {scheme}")]
    Mismatch {
        /// Kind of the credential.
        credential: &'static str,
        /// Kind of the scheme.
        scheme: &'static str,
    },
    /// The secret holds characters that a header cannot carry.
    #[error("the {credential} credential holds characters that a header cannot carry")]
    Unsendable {
        /// Kind of the credential.
        credential: &'static str,
    },
    /// It lacks what the scheme needs, or cannot stand where the scheme puts it.
    #[error("{0}")]
    Unfit(String),
}

impl Credential {
    /// Reads the `credential` of a connection document: `{bearer: {token}}`, `{api_key: {key}}`, `{basic: {username, password}}`,
    /// `{oauth2: {client_id, client_secret}}`, `{service_account: {private_key, key_id?, …}}` (a provider's key file as it is), `{none: {}}`, and with the names
    /// that the connector states `{keys: {…}}`, `{session: {…}}`, `{signed: {…}}`;
    /// `bearer` and `api_key` also take the text itself.
    ///
    /// # Errors
    /// Every [`Problem`], none of which quotes a value.
    pub fn parse(value: &Value) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::default();
        let credential = read(value, &mut problems);
        problems.finish(credential)
    }

    /// The word used in documents and manifests.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bearer { .. } => "bearer",
            Self::ApiKey { .. } => "api_key",
            Self::Basic { .. } => "basic",
            Self::OAuth2 { .. } => "oauth2",
            Self::ServiceAccount { .. } => "service_account",
            Self::Named { kind, .. } => kind.as_str(),
        }
    }

    /// Its secrets by the names of its connector.
    pub(super) fn values(&self) -> Result<&Values, BuildError> {
        match self {
            Self::Named { values, .. } => Ok(values),
            Self::None
            | Self::Bearer { .. }
            | Self::ApiKey { .. }
            | Self::Basic { .. }
            | Self::OAuth2 { .. }
            | Self::ServiceAccount { .. } => {
                let message = format!("a {} credential has no named values", self.kind());
                Err(BuildError::new("/credential", message))
            }
        }
    }

    /// Compares it with the names that a scheme of its kind asks for. Pointers are relative to the credential.
    pub fn check(&self, scheme: &AuthScheme) -> Vec<Problem> {
        let mut problems = Problems::default();
        if let (Ok(values), Some(names)) = (self.values(), scheme.value_names()) {
            values.check(names, &format!("/{}", self.kind()), &mut problems);
        }
        problems.into_list()
    }

    /// What of it a request shows to those who receive it, beside what stands in well-known places: an answer may repeat it.
    /// `session`: what a login gave.
    pub fn exposed(&self, scheme: &AuthScheme, session: Option<&Values>) -> Vec<String> {
        let places = match scheme {
            AuthScheme::Keys(scheme) => &scheme.places,
            AuthScheme::Session(scheme) => &scheme.places,
            AuthScheme::Signed(scheme) => &scheme.places,
            AuthScheme::None
            | AuthScheme::Bearer
            | AuthScheme::ApiKey(_)
            | AuthScheme::Basic
            | AuthScheme::OAuth2ClientCredentials(_)
            | AuthScheme::OAuth2AuthorizationCode(_)
            | AuthScheme::ServiceAccountJwt(_) => return Vec::new(),
        };
        let none = Values::default();
        let given = Given {
            values: &[session.unwrap_or(&none), self.values().unwrap_or(&none)],
            settings: None,
        };
        places.exposed(given)
    }

    /// Puts a credential that needs no token on a request.
    ///
    /// # Errors
    /// [`AuthError`] when scheme and credential do not fit, or the secret cannot stand in a header.
    pub fn apply_static(&self, scheme: &AuthScheme, request: &mut HttpRequest) -> Result<Applied, AuthError> {
        match (self, scheme) {
            (Self::None, AuthScheme::None) => Ok(Applied::Complete),
            (Self::Bearer { token }, AuthScheme::Bearer) => {
                self.put(request, "Authorization", format!("Bearer {}", token.expose_secret()))
            }
            (Self::ApiKey { key }, AuthScheme::ApiKey(ApiKeyPlace::Header { name, prefix })) => {
                self.put(request, name, format!("{prefix}{}", key.expose_secret()))
            }
            (Self::ApiKey { key }, AuthScheme::ApiKey(ApiKeyPlace::Query { name })) => {
                let url = &mut request.url;
                url.push(if url.contains('?') { '&' } else { '?' });
                encode::percent(url, name);
                url.push('=');
                encode::percent(url, key.expose_secret());
                Ok(Applied::Complete)
            }
            (Self::Basic { username, password }, AuthScheme::Basic) => {
                let pair = STANDARD.encode(format!("{username}:{}", password.expose_secret()));
                self.put(request, "Authorization", format!("Basic {pair}"))
            }
            (Self::OAuth2 { .. }, AuthScheme::OAuth2ClientCredentials(_) | AuthScheme::OAuth2AuthorizationCode(_))
            | (Self::ServiceAccount { .. }, AuthScheme::ServiceAccountJwt(_))
            | (
                Self::Named {
                    kind: NamedKind::Session,
                    ..
                },
                AuthScheme::Session(_),
            ) => Ok(Applied::NeedsToken),
            (
                Self::Named {
                    kind: NamedKind::Keys,
                    values,
                },
                AuthScheme::Keys(scheme),
            ) => match scheme.put(request, values) {
                Ok(()) => Ok(Applied::Complete),
                Err(error) => Err(AuthError::Unfit(error.message)),
            },
            (
                Self::Named {
                    kind: NamedKind::Signed,
                    ..
                },
                AuthScheme::Signed(_),
            ) => Ok(Applied::NeedsSignature),
            (_, scheme) => Err(AuthError::Mismatch {
                credential: self.kind(),
                scheme: scheme.as_str(),
            }),
        }
    }

    /// Puts a fetched or signed token on a request, as a bearer token.
    ///
    /// # Errors
    /// [`AuthError::Unsendable`] when it cannot stand in a header.
    pub fn apply_token(&self, token: &SecretString, request: &mut HttpRequest) -> Result<(), AuthError> {
        self.put(request, "Authorization", format!("Bearer {}", token.expose_secret()))
            .map(|_| ())
    }

    fn put(&self, request: &mut HttpRequest, name: &str, value: String) -> Result<Applied, AuthError> {
        if value.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err(AuthError::Unsendable {
                credential: self.kind(),
            });
        }
        request.set_header(name, value);
        Ok(Applied::Complete)
    }
}

impl NamedKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Session => "session",
            Self::Signed => "signed",
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}, [redacted])", self.kind())
    }
}

fn read(value: &Value, problems: &mut Problems) -> Option<Credential> {
    let fields = Fields::open(value, "", &KINDS, problems)?;
    let (kind, value) = fields.single("a credential", problems)?;
    let place = fields.at(kind);
    match kind {
        "none" => Fields::open(value, &place, &[], problems).map(|_| Credential::None),
        "bearer" => one_secret(value, &place, "token", problems).map(|token| Credential::Bearer { token }),
        "api_key" => one_secret(value, &place, "key", problems).map(|key| Credential::ApiKey { key }),
        "basic" => {
            let fields = Fields::open(value, &place, &["username", "password"], problems)?;
            let username = fields.required_text("username", problems)?.to_owned();
            if username.contains(':') {
                problems.add(&fields.at("username"), "bad_value", "a user name has no colon");
            }
            let password = fields.required_text("password", problems)?;
            Some(Credential::Basic {
                username,
                password: password.into(),
            })
        }
        "oauth2" => {
            let fields = Fields::open(value, &place, &["client_id", "client_secret"], problems)?;
            let client_id = fields.required_text("client_id", problems)?.to_owned();
            Some(Credential::OAuth2 {
                client_id,
                client_secret: secret(&fields, "client_secret", problems)?,
            })
        }
        "service_account" => {
            // Every provider's key file has its own fields; claims pick what they need.
            let fields = Fields::open_any(value, &place, problems)?;
            let private_key = secret(&fields, "private_key", problems)?;
            let mut account = fields.map().clone();
            account.remove("private_key");
            let key_id = ["key_id", "private_key_id"]
                .into_iter()
                .find_map(|key| fields.text(key, problems))
                .map(str::to_owned);
            Some(Credential::ServiceAccount {
                account,
                key_id,
                private_key,
            })
        }
        "keys" => read_named(value, &place, NamedKind::Keys, problems),
        "session" => read_named(value, &place, NamedKind::Session, problems),
        "signed" => read_named(value, &place, NamedKind::Signed, problems),
        _ => None,
    }
}

/// Which names there have to be, says the connector: see [`Credential::check`].
fn read_named(value: &Value, place: &str, kind: NamedKind, problems: &mut Problems) -> Option<Credential> {
    let fields = Fields::open_any(value, place, problems)?;
    let mut values = Values::default();
    for name in fields.map().keys() {
        if let Some(secret) = secret(&fields, name, problems) {
            values.set(name, secret);
        }
    }
    Some(Credential::Named { kind, values })
}

fn one_secret(value: &Value, place: &str, key: &str, problems: &mut Problems) -> Option<SecretString> {
    if let Some(text) = value.as_str() {
        if text.is_empty() {
            problems.add(place, "bad_value", format!("`{key}` is empty"));
        }
        return Some(text.into());
    }
    let fields = Fields::open(value, place, &[key], problems)?;
    secret(&fields, key, problems)
}

fn secret(fields: &Fields<'_>, key: &str, problems: &mut Problems) -> Option<SecretString> {
    let text = fields.required_text(key, problems)?;
    if text.is_empty() {
        problems.add(&fields.at(key), "bad_value", format!("`{key}` is empty"));
    }
    Some(text.into())
}
