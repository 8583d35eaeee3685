//! What every signature has in common: where it stands, how it is written, and what it is made over.

use std::borrow::Cow;

use serde_json::Value;

use super::evidence::Evidence;
use super::mac::Encoding;
use super::parts::{Format, Part, PartBytes, Signature, Source, TimestampRule};
use super::{Refusal, RefusalReason};

#[derive(Debug)]
pub(super) struct Signed {
    pub(super) sig: Source,
    pub(super) format: Option<Format>,
    pub(super) encoding: Encoding,
    pub(super) parts: Vec<Part>,
    pub(super) timestamp: Option<TimestampRule>,
}

/// A signature with what it is over, taken out of a request.
pub(super) struct Taken<'e> {
    /// The signatures that may be the right one, decoded.
    pub(super) candidates: Vec<Vec<u8>>,
    pub(super) parts: Vec<PartBytes<'e>>,
    stamp_unix_ms: Option<i64>,
}

impl Signed {
    /// Takes a request apart. `signature_bytes`: the length that a signature must have, when it is fixed.
    pub(super) fn take<'e>(
        &'e self,
        evidence: &'e Evidence<'_>,
        item: Option<&'e Value>,
        signature_bytes: Option<usize>,
    ) -> Result<Taken<'e>, Refusal> {
        let whole = match &self.sig {
            Source::Header(name) => evidence.header(name)?.map(Cow::Borrowed),
            source => source.read(evidence, None, item)?,
        };
        let whole = whole.ok_or_else(|| {
            Refusal::new(
                RefusalReason::MissingSignature,
                format!("{} is absent", self.sig.words()),
            )
        })?;
        let signature = Signature::take_apart(whole.as_ref(), self.format.as_ref());
        let candidates = self.candidates(evidence, &signature, signature_bytes)?;
        let stamp_unix_ms = match &self.timestamp {
            Some(rule) => Some(rule.read(evidence, &signature, item)?),
            None => None,
        };
        let parts = self
            .parts
            .iter()
            .map(|part| part.bytes(evidence, &signature, item))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Taken {
            candidates,
            parts,
            stamp_unix_ms,
        })
    }

    fn candidates(
        &self,
        evidence: &Evidence<'_>,
        signature: &Signature<'_>,
        signature_bytes: Option<usize>,
    ) -> Result<Vec<Vec<u8>>, Refusal> {
        let texts: Vec<&str> = match &self.format {
            None => vec![signature.whole.trim()],
            Some(format) => {
                let wanted = format.name.read(evidence)?;
                let entries = signature.entries.iter();
                entries
                    .filter(|(name, _)| *name == wanted)
                    .map(|(_, value)| *value)
                    .collect()
            }
        };
        if texts.is_empty() {
            return Err(Refusal::new(
                RefusalReason::MalformedSignature,
                format!("{} has no entry of the wanted scheme", self.sig.words()),
            ));
        }
        let decoded: Vec<Vec<u8>> = texts
            .iter()
            .filter_map(|text| self.encoding.decode(text))
            .filter(|bytes| signature_bytes.is_none_or(|length| bytes.len() == length))
            .collect();
        match decoded.is_empty() {
            true => Err(Refusal::new(
                RefusalReason::MalformedSignature,
                format!("{} cannot be decoded", self.sig.words()),
            )),
            false => Ok(decoded),
        }
    }

    /// Whether the signed time is inside its tolerance.
    pub(super) fn judge_time(&self, taken: &Taken<'_>, now_unix_ms: i64) -> Result<(), Refusal> {
        match (&self.timestamp, taken.stamp_unix_ms) {
            (Some(rule), Some(stamp)) => rule.judge(stamp, now_unix_ms),
            (Some(_), None) | (None, _) => Ok(()),
        }
    }

    pub(super) fn covers_body(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Body))
    }
}

impl Taken<'_> {
    /// The signed bytes in one piece, for signatures with public keys.
    pub(super) fn message(&self, url: &str) -> Vec<u8> {
        let mut message = Vec::new();
        for part in &self.parts {
            match part {
                PartBytes::Bytes(bytes) => message.extend_from_slice(bytes),
                PartBytes::Url => message.extend_from_slice(url.as_bytes()),
                // The reader of manifests lets a secret be a part of digests only.
                PartBytes::Secret => {}
            }
        }
        message
    }

    /// Some senders sign Base64 text and mean its bytes: what is no Base64 could be decoded to something else.
    pub(super) fn only_base64(&self) -> Result<(), Refusal> {
        let is_base64 = |bytes: &[u8]| {
            bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(byte))
        };
        let all = self.parts.iter().all(|part| match part {
            PartBytes::Bytes(bytes) => is_base64(bytes),
            PartBytes::Url | PartBytes::Secret => true,
        });
        match all {
            true => Ok(()),
            false => Err(Refusal::new(
                RefusalReason::MalformedBody,
                "what is signed is not Base64 text",
            )),
        }
    }
}
