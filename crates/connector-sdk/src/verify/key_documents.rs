//! Documents that a proof needs besides the request: key sets, certificates, published address lists.
//!
//! Nothing is fetched here. A verification that lacks a document says which one it wants; the host fetches it
//! through its own guards and asks again. Everything that can be judged without the document is judged before it
//! is asked for, so that a request which is wrong anyway makes nobody fetch anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Refusal, RefusalReason};

/// What was fetched for a verification, by URL.
#[derive(Debug, Clone, Default)]
pub struct KeyDocuments {
    by_url: BTreeMap<String, KeyDocument>,
}

/// One fetched document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyDocument {
    /// It is here.
    Here {
        /// Its bytes.
        body: Arc<[u8]>,
        /// No newer one can be had now: what it lacks is not asked for again.
        final_word: bool,
    },
    /// It cannot be had now.
    Unavailable {
        /// Why, for people; without secrets.
        why: String,
    },
}

/// A document that a verification wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDocument {
    /// Its absolute URL. Its scheme and host are permitted by the manifest.
    pub url: String,
    /// The document that is known lacks the key: an older copy of it will not do.
    pub newer: bool,
}

/// Why a request is not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unverified {
    /// It is refused.
    Refused(Refusal),
    /// A document is needed to tell.
    Wants(WantedDocument),
}

impl From<Refusal> for Unverified {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl KeyDocuments {
    /// Adds a document, replacing what was there under this URL.
    pub fn insert(&mut self, url: impl Into<String>, document: KeyDocument) {
        self.by_url.insert(url.into(), document);
    }

    /// The document, with whether it is the final word.
    pub(super) fn get(&self, url: &str) -> Result<(&[u8], bool), Unverified> {
        match self.by_url.get(url) {
            None => Err(Unverified::Wants(WantedDocument {
                url: url.to_owned(),
                newer: false,
            })),
            Some(KeyDocument::Here { body, final_word }) => Ok((body, *final_word)),
            Some(KeyDocument::Unavailable { why }) => Err(Unverified::Refused(Refusal::new(
                RefusalReason::KeysUnavailable,
                format!("{url} cannot be had: {why}"),
            ))),
        }
    }
}
