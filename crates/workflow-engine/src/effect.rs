//! What makes an effect the same effect: its class, its key, the digest of its request.
//!
//! A key never contains an id that one database made: a replay, a takeover and a redelivered event all reach the
//! same key. The digest is part of the key, so a provider never sees another body under a key it knows.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Clock skew and slow requests are kept away from the end of a key's window by this much.
const WINDOW_MARGIN: Duration = Duration::from_secs(3600);

/// What a call does outside and how it can be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// Changes nothing outside.
    Read,
    /// The provider recognises our key and carries the call out once.
    Keyed {
        /// For how long the provider remembers a key, from the first time it saw it.
        #[serde(with = "crate::duration::in_ms")]
        window: Duration,
    },
    /// The provider can be asked whether it was done.
    FindBy {
        /// Whether a look right after the effect is sure to see it.
        consistent: bool,
        /// How long it may take until a look sees it, when not consistent.
        #[serde(with = "crate::duration::in_ms")]
        settle: Duration,
    },
    /// Sets absolute values: doing it twice is the same as doing it once.
    Repeatable,
    /// None of these: when in doubt, a person decides.
    Blind,
}

impl EffectClass {
    /// The name of the class without its numbers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Keyed { .. } => "keyed",
            Self::FindBy { .. } => "find_by",
            Self::Repeatable => "repeatable",
            Self::Blind => "blind",
        }
    }

    /// Whether a person has to look when an effect of this class may have been sent and the run ended.
    pub const fn asks_a_person(self) -> bool {
        match self {
            Self::Blind | Self::FindBy { .. } => true,
            Self::Read | Self::Keyed { .. } | Self::Repeatable => false,
        }
    }
}

/// How long after the first send a key may be sent again: the window less one hour, for a short window less a quarter.
pub(crate) fn resend_limit(window: Duration) -> Duration {
    window.saturating_sub(WINDOW_MARGIN.min(window / 4))
}

/// The idempotency key of one effect, the same in every replay.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EffectKey([u8; 16]);

/// The digest of what an effect asks for: connection, operation and arguments, independent of member order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestDigest([u8; 16]);

/// What an effect key is made of.
pub(crate) struct KeyParts<'a> {
    pub(crate) workspace: i64,
    pub(crate) workflow: i64,
    pub(crate) dedupe_scope: &'a str,
    pub(crate) dedupe_key: &'a str,
    /// The path of the step, which holds the keys of the items around it.
    pub(crate) step: &'a str,
    pub(crate) generation: u32,
    pub(crate) digest: RequestDigest,
}

fn half(hash: Sha256) -> [u8; 16] {
    let full: [u8; 32] = hash.finalize().into();
    let mut first = [0; 16];
    for (to, from) in first.iter_mut().zip(full) {
        *to = from;
    }
    first
}

/// Text with its length before it, so that no two lists of texts hash alike.
fn feed(hash: &mut Sha256, text: &str) {
    hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(text.as_bytes());
}

impl EffectKey {
    /// The bytes of the key.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    pub(crate) fn derive(parts: &KeyParts<'_>) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"weir effect 1");
        hash.update(parts.workspace.to_be_bytes());
        hash.update(parts.workflow.to_be_bytes());
        feed(&mut hash, parts.dedupe_scope);
        feed(&mut hash, parts.dedupe_key);
        feed(&mut hash, parts.step);
        hash.update(parts.generation.to_be_bytes());
        hash.update(parts.digest.0);
        Self(half(hash))
    }
}

impl RequestDigest {
    pub(crate) fn of(connection: &str, connector: &str, operation: &str, args: &Value) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"weir request 1");
        feed(&mut hash, connection);
        feed(&mut hash, connector);
        feed(&mut hash, operation);
        feed_value(&mut hash, args);
        Self(half(hash))
    }
}

fn feed_value(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hash.update(b"n"),
        Value::Bool(true) => hash.update(b"t"),
        Value::Bool(false) => hash.update(b"f"),
        Value::Number(number) => {
            hash.update(b"#");
            feed(hash, &number.to_string());
        }
        Value::String(text) => {
            hash.update(b"s");
            feed(hash, text);
        }
        Value::Array(list) => {
            hash.update(b"[");
            hash.update(u64::try_from(list.len()).unwrap_or(u64::MAX).to_be_bytes());
            for element in list {
                feed_value(hash, element);
            }
        }
        Value::Object(map) => {
            hash.update(b"{");
            hash.update(u64::try_from(map.len()).unwrap_or(u64::MAX).to_be_bytes());
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            for (name, member) in members {
                feed(hash, name);
                feed_value(hash, member);
            }
        }
    }
}

/// A short name for a value that does not depend on member order: 16 hexadecimal characters.
pub(crate) fn fingerprint(value: &Value) -> String {
    let mut hash = Sha256::new();
    hash.update(b"weir item 1");
    feed_value(&mut hash, value);
    let full: [u8; 32] = hash.finalize().into();
    hex::encode(full.first_chunk::<8>().unwrap_or(&[0; 8]))
}

/// The longest text that stands in paths as it is; longer ones are hashed.
const MAX_PATH_TEXT_BYTES: usize = 64;

/// A value's text as it stands in paths: short plain ones as they are, anything else by the value's hash.
pub(crate) fn path_text(text: &str, value: &Value) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b':' | b'@');
    match !text.is_empty() && text.len() <= MAX_PATH_TEXT_BYTES && text.bytes().all(plain) {
        true => text.to_owned(),
        false => format!("~{}", fingerprint(value)),
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "weir_{}", hex::encode(self.0))
    }
}

impl fmt::Debug for EffectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for RequestDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RequestDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl std::str::FromStr for EffectKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("weir_").ok_or("an effect key begins with weir_")?;
        bytes(digits).map(Self).ok_or("an effect key has 32 hexadecimal digits")
    }
}

impl Serialize for EffectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EffectKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl Serialize for RequestDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RequestDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        bytes(&text)
            .map(Self)
            .ok_or_else(|| de::Error::custom("a request digest has 32 hexadecimal digits"))
    }
}

fn bytes(digits: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_member_order_and_does_on_everything_else() {
        let digest = |args: Value| RequestDigest::of("crm", "http", "http.request", &args);
        assert_eq!(
            digest(json!({"a": 1, "b": [1, 2]})),
            digest(json!({"b": [1, 2], "a": 1}))
        );
        assert_ne!(
            digest(json!({"a": 1, "b": [1, 2]})),
            digest(json!({"a": 1, "b": [2, 1]}))
        );
        assert_ne!(digest(json!({"a": 1})), digest(json!({"a": "1"})));
        assert_ne!(digest(json!([["a"], "b"])), digest(json!([["a", "b"]])));
        assert_ne!(
            RequestDigest::of("a", "bc", "d", &Value::Null),
            RequestDigest::of("ab", "c", "d", &Value::Null)
        );
    }

    #[test]
    fn a_window_is_left_an_hour_early() {
        assert_eq!(resend_limit(Duration::from_secs(86_400)), Duration::from_secs(82_800));
        assert_eq!(resend_limit(Duration::from_secs(600)), Duration::from_secs(450));
    }

    #[test]
    fn keys_survive_the_journal() {
        let digest = RequestDigest::of("crm", "http", "http.request", &Value::Null);
        let (dedupe_scope, dedupe_key, step) = ("ep", "evt_1", "pay");
        let key = EffectKey::derive(&KeyParts {
            workspace: 1,
            workflow: 2,
            dedupe_scope,
            dedupe_key,
            step,
            generation: 0,
            digest,
        });
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<EffectKey>(&text).unwrap(), key);
        assert_eq!(key.to_string().len(), "weir_".len() + 32);
    }
}
