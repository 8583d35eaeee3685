//! Secrets at rest: envelope encryption with XChaCha20-Poly1305.
//!
//! Each value is sealed with a data key of its own, and the data key with the master key. Both are bound to the
//! identity of their row, so that a sealed value copied into another row does not open. The sealed form names its
//! master key: several can be in use while the current one is being replaced, and replacing it touches only the
//! data keys.

use std::fmt;

use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, Generate, Key, KeyInit, Nonce, Payload};
use secrecy::SecretSlice;
use weir_workflow_engine::{ConnectionId, EndpointId, RunId, WorkspaceId};

use crate::master_key::MasterKey;

/// First byte of every sealed value.
const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// Nonce and sealed data key.
const ENVELOPE_BYTES: usize = NONCE_BYTES + KEY_BYTES + TAG_BYTES;
/// What a key check row seals.
const KEY_CHECK: &[u8] = b"weir key check";

/// The row and column a sealed value belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowIdentity(String);

impl RowIdentity {
    /// The credential of a connection.
    pub fn connection(workspace: WorkspaceId, id: ConnectionId) -> Self {
        Self(format!("connection/{workspace}/{id}/credential"))
    }

    /// The list of secrets of an endpoint.
    pub fn endpoint(workspace: WorkspaceId, id: EndpointId) -> Self {
        Self(format!("endpoint/{workspace}/{id}/secrets"))
    }

    /// The tokens of a connection's grant.
    pub fn grant(workspace: WorkspaceId, id: ConnectionId) -> Self {
        Self(format!("oauth_grant/{workspace}/{id}/tokens"))
    }

    /// The secrets of a webhook that was registered.
    pub fn registration(workspace: WorkspaceId, id: EndpointId) -> Self {
        Self(format!("registration/{workspace}/{id}/secrets"))
    }

    /// What belongs to a person's way to a provider.
    pub fn authorization(workspace: WorkspaceId, id: i64) -> Self {
        Self(format!("oauth_attempt/{workspace}/{id}/sealed"))
    }

    /// Proof that a person comes back from where we sent them. Kept in no row.
    pub fn authorization_state() -> Self {
        Self("oauth_attempt/state".to_owned())
    }

    /// Proof that whoever asks for the answer of a run was told where it is. Kept in no row.
    pub fn answer(run: RunId) -> Self {
        Self(format!("run/{run}/answer"))
    }

    fn key_check(key_id: &str) -> Self {
        Self(format!("key_check/{key_id}"))
    }
}

impl fmt::Display for RowIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Why a sealed value does not open.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It was sealed with a key that this process does not have.
    #[error("the secrets were sealed with master key {wanted}, and this process has {given}")]
    WrongKey {
        /// Id of the key it wants.
        wanted: String,
        /// Id of the current key.
        given: String,
    },
    /// It was changed, or belongs to another row.
    #[error("the sealed value of {row} does not open: it was changed or moved")]
    Damaged {
        /// Where it stands.
        row: String,
    },
}

/// Seals and opens secrets.
#[derive(Clone, Debug)]
pub struct SecretBox {
    current: MasterKey,
    previous: Vec<MasterKey>,
}

impl SecretBox {
    /// A box with one key.
    pub fn new(current: MasterKey) -> Self {
        Self {
            current,
            previous: Vec::new(),
        }
    }

    /// A box that also opens what earlier keys sealed.
    pub fn with_previous(current: MasterKey, previous: Vec<MasterKey>) -> Self {
        Self { current, previous }
    }

    /// Id of the key that seals.
    pub fn key_id(&self) -> &str {
        self.current.id()
    }

    /// Seals a value for a row.
    pub fn seal(&self, row: &RowIdentity, plaintext: &[u8]) -> Vec<u8> {
        let data_key = Key::<XChaCha20Poly1305>::generate();
        let mut sealed = self.seal_data_key(row, &data_key);
        sealed.extend(encrypt(&data_key, row, plaintext));
        sealed
    }

    /// Opens a value.
    ///
    /// # Errors
    /// [`KeyError::WrongKey`] when its key is not here, [`KeyError::Damaged`] when it is not what was sealed for
    /// this row.
    pub fn open(&self, row: &RowIdentity, sealed: &[u8]) -> Result<SecretSlice<u8>, KeyError> {
        let (data_key, body) = self.open_data_key(row, sealed)?;
        decrypt(&data_key, row, body)
            .map(SecretSlice::from)
            .ok_or_else(|| damaged(row))
    }

    /// Seals the data key anew with the current master key; `None` when it is already. This is all that replacing
    /// a master key needs.
    ///
    /// # Errors
    /// As [`SecretBox::open`].
    pub fn rewrap(&self, row: &RowIdentity, sealed: &[u8]) -> Result<Option<Vec<u8>>, KeyError> {
        if key_id_of(sealed) == Some(self.current.id()) {
            return Ok(None);
        }
        let (data_key, body) = self.open_data_key(row, sealed)?;
        let mut rewrapped = self.seal_data_key(row, &data_key);
        rewrapped.extend_from_slice(body);
        Ok(Some(rewrapped))
    }

    pub(crate) fn seal_key_check(&self) -> Vec<u8> {
        self.seal(&RowIdentity::key_check(self.key_id()), KEY_CHECK)
    }

    pub(crate) fn check_key(&self, key_id: &str, sealed: &[u8]) -> Result<(), KeyError> {
        self.open(&RowIdentity::key_check(key_id), sealed).map(drop)
    }

    fn seal_data_key(&self, row: &RowIdentity, data_key: &Key<XChaCha20Poly1305>) -> Vec<u8> {
        let id = self.current.id().as_bytes();
        let mut sealed = vec![FORMAT, u8::try_from(id.len()).expect("a key id is 16 characters")];
        sealed.extend_from_slice(id);
        sealed.extend(encrypt(self.current.bytes().into(), row, data_key));
        sealed
    }

    fn open_data_key<'a>(
        &self,
        row: &RowIdentity,
        sealed: &'a [u8],
    ) -> Result<(Key<XChaCha20Poly1305>, &'a [u8]), KeyError> {
        let wanted = key_id_of(sealed).ok_or_else(|| damaged(row))?;
        let keys = std::iter::once(&self.current).chain(&self.previous);
        let Some(key) = keys.into_iter().find(|key| key.id() == wanted) else {
            return Err(KeyError::WrongKey {
                wanted: wanted.to_owned(),
                given: self.current.id().to_owned(),
            });
        };
        let rest = sealed.get(2 + wanted.len()..).unwrap_or_default();
        let (envelope, body) = rest.split_at_checked(ENVELOPE_BYTES).ok_or_else(|| damaged(row))?;
        let data_key = decrypt(key.bytes().into(), row, envelope)
            .and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok())
            .ok_or_else(|| damaged(row))?;
        Ok((data_key.into(), body))
    }
}

fn damaged(row: &RowIdentity) -> KeyError {
    KeyError::Damaged { row: row.to_string() }
}

fn key_id_of(sealed: &[u8]) -> Option<&str> {
    let (&[FORMAT, length], rest) = sealed.split_first_chunk::<2>()? else {
        return None;
    };
    std::str::from_utf8(rest.get(..usize::from(length))?).ok()
}

/// Nonce, then ciphertext. A random nonce is safe with `XChaCha`'s 192 bits.
fn encrypt(key: &Key<XChaCha20Poly1305>, row: &RowIdentity, plaintext: &[u8]) -> Vec<u8> {
    let nonce = Nonce::<XChaCha20Poly1305>::generate();
    let payload = Payload {
        msg: plaintext,
        aad: row.0.as_bytes(),
    };
    let ciphertext = XChaCha20Poly1305::new(key)
        .encrypt(&nonce, payload)
        .expect("only values of 256 GiB do not encrypt");
    [nonce.as_slice(), &ciphertext].concat()
}

fn decrypt(key: &Key<XChaCha20Poly1305>, row: &RowIdentity, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let payload = Payload {
        msg: ciphertext,
        aad: row.0.as_bytes(),
    };
    XChaCha20Poly1305::new(key).decrypt(nonce.into(), payload).ok()
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn row(id: i64) -> RowIdentity {
        RowIdentity::connection(WorkspaceId::from_raw(1), ConnectionId::from_raw(id))
    }

    #[test]
    fn a_value_opens_only_where_it_was_sealed() {
        let secrets = SecretBox::new(MasterKey::new([1; 32]));
        let sealed = secrets.seal(&row(5), b"sk_live_1");
        assert_eq!(secrets.open(&row(5), &sealed).unwrap().expose_secret(), b"sk_live_1");
        assert!(!sealed.windows(7).any(|part| part == b"sk_live"));
        assert_ne!(
            sealed,
            secrets.seal(&row(5), b"sk_live_1"),
            "the same value never looks the same"
        );

        assert_eq!(secrets.open(&row(6), &sealed).unwrap_err(), damaged(&row(6)));
        for position in [0, 1, 30, 60, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(secrets.open(&row(5), &changed).is_err(), "byte {position} was changed");
        }
        for length in 0..sealed.len() {
            assert!(secrets.open(&row(5), &sealed[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn another_key_is_named() {
        let sealed = SecretBox::new(MasterKey::new([1; 32])).seal(&row(5), b"x");
        let other = SecretBox::new(MasterKey::new([2; 32]));
        let wanted = MasterKey::new([1; 32]).id().to_owned();
        assert_eq!(
            other.open(&row(5), &sealed).unwrap_err(),
            KeyError::WrongKey {
                wanted,
                given: other.key_id().to_owned()
            }
        );
    }

    #[test]
    fn the_master_key_can_be_replaced() {
        let (old, new) = (MasterKey::new([1; 32]), MasterKey::new([2; 32]));
        let sealed = SecretBox::new(old.clone()).seal(&row(5), b"x");
        let both = SecretBox::with_previous(new.clone(), vec![old]);
        assert_eq!(both.open(&row(5), &sealed).unwrap().expose_secret(), b"x");
        let rewrapped = both.rewrap(&row(5), &sealed).unwrap().unwrap();
        assert_eq!(both.rewrap(&row(5), &rewrapped).unwrap(), None);
        assert_eq!(
            SecretBox::new(new).open(&row(5), &rewrapped).unwrap().expose_secret(),
            b"x"
        );
    }
}
