//! Signatures that are checked with the sender's public key.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use x509_cert::der::{DecodePem as _, Encode as _};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::evidence::Evidence;
use super::mac::{KeyStep, derive_key};
use super::signed::Signed;
use super::{Refusal, RefusalReason};

#[derive(Debug)]
pub(super) struct PublicKeyCheck {
    pub(super) alg: SignatureAlgorithm,
    pub(super) signed: Signed,
    pub(super) form: KeyForm,
    pub(super) key: Vec<KeyStep>,
    /// Keys that the manifest states; without them the endpoint's secrets are the keys.
    pub(super) own_keys: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureAlgorithm {
    Ed25519,
    EcdsaP256Sha256,
    RsaSha1,
    RsaSha256,
    RsaSha512,
}

/// How a public key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyForm {
    RawHex,
    RawBase64,
    SpkiBase64,
    Pem,
}

impl KeyForm {
    /// The key's bytes: raw, or as DER of a `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
    pub(super) fn decode(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::RawHex => hex::decode(text.trim_ascii()).ok(),
            Self::RawBase64 | Self::SpkiBase64 => STANDARD.decode(text.trim_ascii()).ok(),
            Self::Pem => SubjectPublicKeyInfoOwned::from_pem(text.trim_ascii())
                .and_then(|key| key.to_der())
                .ok(),
        }
    }
}

impl SignatureAlgorithm {
    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Ed25519 => &ED25519,
            Self::EcdsaP256Sha256 => &ECDSA_P256_SHA256_ASN1,
            Self::RsaSha1 => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Self::RsaSha256 => &RSA_PKCS1_2048_8192_SHA256,
            Self::RsaSha512 => &RSA_PKCS1_2048_8192_SHA512,
        }
    }

    /// Whether `signature` over `message` was made with the private half of `key`.
    pub(super) fn verify(self, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.verification(), key)
            .verify(message, signature)
            .is_ok()
    }

    /// Whether the bytes are a key for this algorithm.
    pub(super) fn accepts(self, key: &[u8]) -> bool {
        match self {
            // Ed25519 keys are 32 bytes, or 44 as DER.
            Self::Ed25519 => UnparsedPublicKey::new(&ED25519, key).parse().is_ok(),
            Self::EcdsaP256Sha256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).parse().is_ok(),
            Self::RsaSha1 | Self::RsaSha256 | Self::RsaSha512 => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).parse().is_ok()
            }
        }
    }
}

impl PublicKeyCheck {
    pub(super) fn verify(
        &self,
        evidence: &Evidence<'_>,
        secrets: &[SecretString],
        now_unix_ms: i64,
    ) -> Result<(), Refusal> {
        let taken = self.signed.take(evidence, None, None)?;
        let message = taken.message(evidence.request.url);
        let configured: Vec<Vec<u8>> = match self.own_keys.is_empty() {
            false => Vec::new(),
            true => secrets.iter().filter_map(|secret| self.decode(secret)).collect(),
        };
        let keys = if self.own_keys.is_empty() {
            &configured
        } else {
            &self.own_keys
        };
        if keys.is_empty() {
            return Err(Refusal::new(
                RefusalReason::UnusableSecret,
                "no configured public key has the form that the scheme needs",
            ));
        }
        let matches = keys.iter().any(|key| {
            let mut candidates = taken.candidates.iter();
            candidates.any(|candidate| self.alg.verify(key, &message, candidate))
        });
        match matches {
            true => self.signed.judge_time(&taken, now_unix_ms),
            false => Err(Refusal::new(
                RefusalReason::BadSignature,
                format!(
                    "{} does not fit the request under any active public key",
                    self.signed.sig.words()
                ),
            )),
        }
    }

    fn decode(&self, secret: &SecretString) -> Option<Vec<u8>> {
        let text = derive_key(&self.key, secret)?;
        self.form.decode(&text).filter(|key| self.alg.accepts(key))
    }

    pub(super) fn check_secret(&self, secret: &SecretString) -> Result<(), String> {
        match self.decode(secret) {
            Some(_) => Ok(()),
            None if secret.expose_secret().is_empty() => Err("the public key is empty".to_owned()),
            None => Err(format!("not a public key in the form {}", self.form.words())),
        }
    }
}

impl KeyForm {
    fn words(self) -> &'static str {
        match self {
            Self::RawHex => "raw-hex",
            Self::RawBase64 => "raw-base64",
            Self::SpkiBase64 => "spki-base64",
            Self::Pem => "pem",
        }
    }
}
