//! How requests prove who we are: schemes as data, credentials as secrets, and the small pure steps between.
//!
//! The host holds the credential, fetches tokens and signs assertions; nothing here prints or compares a
//! secret, and no expression sees one.

mod code;
mod credential;
mod scheme;
mod token;

pub use code::{AuthorizeAsk, OAuth2CodeScheme, Rotation, TokenSet};
pub use credential::{Applied, AuthError, Credential};
pub use scheme::{ApiKeyPlace, AuthScheme, AuthTest, ClientAuth, OAuth2Scheme, ServiceAccountScheme};
pub use token::{Assertion, Token, TokenError};

pub(crate) use scheme::{read, secret_names};
