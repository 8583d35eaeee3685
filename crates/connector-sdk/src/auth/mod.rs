//! How requests prove who we are: schemes as data, credentials as secrets, and the small pure steps between.
//!
//! The host holds the credential, fetches tokens and signs assertions; nothing here prints or compares a
//! secret, and no expression sees one.

mod code;
mod credential;
mod places;
mod scheme;
mod secret_text;
mod session;
mod session_read;
mod signed;
mod signed_read;
mod token;
mod values;

pub use code::{AuthorizeAsk, OAuth2CodeScheme, Rotation, TokenSet};
pub use credential::{Applied, AuthError, Credential, NamedKind};
pub use places::KeysScheme;
pub use scheme::{ApiKeyPlace, AuthScheme, AuthTest, ClientAuth, OAuth2Scheme, ServiceAccountScheme};
pub use session::{SessionPart, SessionScheme};
pub use signed::{SignAt, SignedScheme};
pub use token::{Assertion, Token, TokenError};
pub use values::Values;

pub(crate) use scheme::{read, secret_names};
