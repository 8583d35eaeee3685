//! Signatures that are checked with a certificate whose URL stands in the request.
//!
//! The certificate is trusted because it came by HTTPS from a host that the manifest names, not because of who issued
//! it. Its end is judged, so that an old key which got out is of no use; its beginning is not, because a certificate
//! that its owner serves is in use, and clocks err.

use std::collections::BTreeMap;

use x509_cert::Certificate;
use x509_cert::der::Encode as _;

use super::allowed::Allowed;
use super::evidence::Evidence;
use super::key_documents::{KeyDocuments, Unverified};
use super::parts::Source;
use super::public_key::SignatureAlgorithm;
use super::signed::Signed;
use super::url_rule::UrlRule;
use super::{Refusal, RefusalReason};

#[derive(Debug)]
pub(super) struct CertificateCheck {
    pub(super) alg: AlgorithmChoice,
    pub(super) signed: Signed,
    pub(super) url: Source,
    pub(super) rule: UrlRule,
    /// What the request must carry: all of them.
    pub(super) allow: Vec<(Source, Allowed)>,
}

#[derive(Debug)]
pub(super) enum AlgorithmChoice {
    Fixed(SignatureAlgorithm),
    /// A field of the request chooses out of a closed list.
    By(Source, BTreeMap<String, SignatureAlgorithm>),
}

impl CertificateCheck {
    pub(super) fn verify(
        &self,
        evidence: &Evidence<'_>,
        documents: &KeyDocuments,
        now_unix_ms: i64,
    ) -> Result<(), Unverified> {
        let taken = self.signed.take(evidence, None, None)?;
        let alg = self.algorithm(evidence)?;
        for (source, allowed) in &self.allow {
            let found = source.read(evidence, None, None)?.map(|text| text.into_owned().into());
            allowed.judge(evidence, found.as_ref(), &source.value_words())?;
        }
        self.signed.judge_time(&taken, now_unix_ms)?;
        let text = self.url.read(evidence, None, None)?.ok_or_else(|| {
            Refusal::new(
                RefusalReason::MissingPart,
                "the request does not say where its certificate is",
            )
        })?;
        let url = self.rule.permit(&text)?;
        let (pem, _) = documents.get(url.as_str())?;
        let key = key_of(pem, now_unix_ms)?;
        let message = taken.message(evidence.request.url);
        match taken
            .candidates
            .iter()
            .any(|candidate| alg.verify(&key, &message, candidate))
        {
            true => Ok(()),
            false => Err(Refusal::new(
                RefusalReason::BadSignature,
                format!(
                    "{} does not fit the request under its certificate",
                    self.signed.sig.words()
                ),
            )
            .into()),
        }
    }

    fn algorithm(&self, evidence: &Evidence<'_>) -> Result<SignatureAlgorithm, Refusal> {
        match &self.alg {
            AlgorithmChoice::Fixed(alg) => Ok(*alg),
            AlgorithmChoice::By(source, known) => {
                let stated = source.read(evidence, None, None)?;
                stated
                    .and_then(|text| known.get(text.as_ref()).copied())
                    .ok_or_else(|| {
                        Refusal::new(
                            RefusalReason::AlgorithmNotAllowed,
                            "the request is signed in a way that the scheme does not permit",
                        )
                    })
            }
        }
    }
}

/// The public key of the first certificate of a PEM file.
fn key_of(pem: &[u8], now_unix_ms: i64) -> Result<Vec<u8>, Refusal> {
    let unusable = || {
        Refusal::new(
            RefusalReason::KeysUnavailable,
            "the document is not a certificate in PEM form",
        )
    };
    let chain = Certificate::load_pem_chain(pem).ok();
    let certificate = chain.as_ref().and_then(|chain| chain.first()).ok_or_else(unusable)?;
    let certificate = certificate.tbs_certificate();
    let end_s = certificate.validity().not_after.to_unix_duration().as_secs();
    if i64::try_from(end_s).unwrap_or(i64::MAX) < now_unix_ms.div_euclid(1_000) {
        return Err(Refusal::new(
            RefusalReason::KeyExpired,
            "the certificate of the signature has run out",
        ));
    }
    let key = certificate.subject_public_key_info().to_der().ok();
    key.ok_or_else(unusable)
}
