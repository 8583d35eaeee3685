//! Checks that compare a secret as it is: tokens, Basic pairs, client addresses.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use subtle::{Choice, ConstantTimeEq as _};

use super::evidence::Evidence;
use super::key_documents::{KeyDocuments, Unverified, WantedDocument};
use super::{Refusal, RefusalReason};
use crate::pointer::Pointer;

#[derive(Debug)]
pub(super) struct TokenCheck {
    pub(super) at: TokenPlace,
    /// Text before the token, e.g. `Bearer `.
    pub(super) prefix: String,
}

#[derive(Debug)]
pub(super) enum TokenPlace {
    Header(String),
    Query(String),
    /// The last segment of the URL's path.
    Path,
    Json(Pointer),
    /// Every element that `each` reaches must carry the token.
    Each {
        each: Pointer,
        item: Pointer,
    },
}

impl TokenCheck {
    pub(super) fn verify(&self, evidence: &Evidence<'_>, secrets: &[SecretString]) -> Result<(), Refusal> {
        match &self.at {
            TokenPlace::Header(name) => match evidence.header(name)? {
                Some(text) => self.compare(text, secrets, || format!("the header {name}")),
                None => Err(missing(format!("the header {name} is absent"))),
            },
            TokenPlace::Query(name) => match evidence.query(name) {
                Some(text) => self.compare(&text, secrets, || format!("the query parameter {name}")),
                None => Err(missing(format!("the query parameter {name} is absent"))),
            },
            TokenPlace::Path => match evidence.last_segment() {
                Some(text) => self.compare(&text, secrets, || "the end of the URL's path".to_owned()),
                None => Err(missing("the URL's path is empty".to_owned())),
            },
            TokenPlace::Json(pointer) => {
                let text = evidence
                    .json()
                    .and_then(|body| pointer.lookup(body))
                    .and_then(|value| value.as_str());
                match text {
                    Some(text) => self.compare(text, secrets, || "the body".to_owned()),
                    None => Err(missing("the body has no token".to_owned())),
                }
            }
            TokenPlace::Each { each, item } => {
                let items = evidence
                    .json()
                    .and_then(|body| each.expand(body))
                    .filter(|items| !items.is_empty());
                let items = items.ok_or_else(|| missing("the body has no items with a token".to_owned()))?;
                for (place, value) in items {
                    match item.lookup(value).and_then(|value| value.as_str()) {
                        Some(text) => self.compare(text, secrets, || format!("the item at {place}"))?,
                        None => return Err(missing(format!("the item at {place} has no token"))),
                    }
                }
                Ok(())
            }
        }
    }

    fn compare(&self, text: &str, secrets: &[SecretString], place: impl Fn() -> String) -> Result<(), Refusal> {
        let Some(token) = text.strip_prefix(self.prefix.as_str()) else {
            return Err(Refusal::new(
                RefusalReason::MalformedSignature,
                format!("{} has not the form of a token", place()),
            ));
        };
        match matches_any(token.as_bytes(), secrets) {
            true => Ok(()),
            false => Err(Refusal::new(
                RefusalReason::BadSignature,
                format!("{} does not hold an active token", place()),
            )),
        }
    }
}

/// Compares with every secret, without stopping at the first match. An empty secret matches nothing.
pub(crate) fn matches_any(given: &[u8], secrets: &[SecretString]) -> bool {
    let mut matched = Choice::from(0);
    for secret in secrets {
        let secret = secret.expose_secret().as_bytes();
        matched |= given.ct_eq(secret) & Choice::from(u8::from(!secret.is_empty()));
    }
    matched.into()
}

fn missing(detail: String) -> Refusal {
    Refusal::new(RefusalReason::MissingSignature, detail)
}

/// HTTP Basic (RFC 7617); a secret is `user:password`.
pub(super) fn verify_basic(evidence: &Evidence<'_>, secrets: &[SecretString]) -> Result<(), Refusal> {
    let header = evidence
        .header("authorization")?
        .ok_or_else(|| missing("the header authorization is absent".to_owned()))?;
    let malformed = || {
        Refusal::new(
            RefusalReason::MalformedSignature,
            "the header authorization is not HTTP Basic",
        )
    };
    let (scheme, encoded) = header.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let Ok(pair) = STANDARD.decode(encoded.trim()) else {
        return Err(malformed());
    };
    match matches_any(&pair, secrets) {
        true => Ok(()),
        false => Err(Refusal::new(
            RefusalReason::BadSignature,
            "the user and password are not an active pair",
        )),
    }
}

/// Networks that may send.
#[derive(Debug)]
pub(super) enum IpCheck {
    Listed(Vec<IpNet>),
    /// The provider publishes them as JSON.
    Published {
        url: String,
        /// Where in the document texts of networks stand.
        at: Vec<Pointer>,
    },
}

impl IpCheck {
    pub(super) fn verify(&self, evidence: &Evidence<'_>, documents: &KeyDocuments) -> Result<(), Unverified> {
        let refused = |detail: &str| Err(Refusal::new(RefusalReason::IpNotAllowed, detail).into());
        let Some(address) = evidence.request.client_ip else {
            return refused("the client's address is not known");
        };
        // An IPv4 client on an IPv6 socket counts as IPv4.
        let address = address.to_canonical();
        let listed = match self {
            Self::Listed(networks) => networks.iter().any(|network| network.contains(&address)),
            Self::Published { url, at } => {
                let (body, final_word) = documents.get(url)?;
                let listed = published(body, at)
                    .ok_or_else(|| {
                        Refusal::new(
                            RefusalReason::KeysUnavailable,
                            format!("{url} is not a list of networks"),
                        )
                    })?
                    .any(|network| network.contains(&address));
                // The provider may have added the address since.
                if !listed && !final_word {
                    return Err(Unverified::Wants(WantedDocument {
                        url: url.clone(),
                        newer: true,
                    }));
                }
                listed
            }
        };
        match listed {
            true => Ok(()),
            false => refused("the client's address is not on the list"),
        }
    }
}

/// The networks in a published document; `None` when it has none.
fn published(body: &[u8], at: &[Pointer]) -> Option<impl Iterator<Item = IpNet>> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let mut networks = Vec::new();
    for pointer in at {
        for (_, found) in pointer.expand(&document)? {
            networks.extend(found.as_str().and_then(parse_network));
        }
    }
    (!networks.is_empty()).then(|| networks.into_iter())
}

/// `192.0.2.0/24`, `2001:db8::/32`, or one address.
pub(super) fn parse_network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(address)
}

pub(super) fn check_token(secret: &SecretString) -> Result<(), String> {
    match secret.expose_secret().is_empty() {
        true => Err("the token is empty".to_owned()),
        false => Ok(()),
    }
}

pub(super) fn check_pair(secret: &SecretString) -> Result<(), String> {
    match secret.expose_secret().split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => Ok(()),
        Some(_) | None => Err("the secret is not of the form user:password".to_owned()),
    }
}
