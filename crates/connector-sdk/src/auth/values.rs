//! Named secrets: what a credential of several parts holds, and what a login gave.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::SecretString;

use crate::fields::{Fields, is_name};
use crate::pointer;
use crate::problem::{Problems, nearest};

/// Most values of one credential.
///
/// Limit: values that a manifest asks of one credential | the manifest is refused, `too_many` | `a_credential_has_so_many_values_and_a_session_so_many_logins`
const MAX_AUTH_VALUES: usize = 16;

/// Names that stand for something else where values are named.
const TAKEN: [&str; 5] = ["config", "signature", "timestamp", "nonce", "body_hash"];

/// Secrets by name. `Debug` shows the names alone.
#[derive(Clone, Default)]
pub struct Values {
    by_name: BTreeMap<String, SecretString>,
}

impl Values {
    /// The secret of that name.
    pub fn get(&self, name: &str) -> Option<&SecretString> {
        self.by_name.get(name)
    }

    /// Sets one; a name stands for one secret.
    pub(super) fn set(&mut self, name: &str, secret: impl Into<SecretString>) {
        self.by_name.insert(name.to_owned(), secret.into());
    }

    /// These, and those of `more` beside them or in their place.
    #[must_use]
    pub fn with(&self, more: &Self) -> Self {
        let mut all = self.clone();
        let more = more.by_name.iter();
        all.by_name
            .extend(more.map(|(name, secret)| (name.clone(), secret.clone())));
        all
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Compares with what a manifest asks for: each name has to be there, and no other.
    pub(super) fn check(&self, wanted: &[String], place: &str, problems: &mut Problems) {
        for name in wanted {
            if self.get(name).is_none() {
                let message = format!("`{name}` is missing: the connector asks for it");
                problems.add(place, "missing_key", message);
            }
        }
        let known = || wanted.iter().map(String::as_str);
        for name in self.names().filter(|name| !known().any(|known| known == *name)) {
            // A slip of the pen stands for one that is missing.
            let missing = known().filter(|known| self.get(known).is_none());
            let suggestion = match nearest(name, missing) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known keys: {}", wanted.join(", ")),
            };
            let message = format!("`{name}` is not a key here");
            problems.add_with_suggestion(&pointer::join(place, name), "unknown_key", message, suggestion);
        }
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Reads `values`: the names of what a credential holds.
pub(super) fn read_names(fields: &Fields<'_>, problems: &mut Problems) -> Vec<String> {
    fields.required("values", problems);
    let Some(names) = fields.texts("values", problems) else {
        return Vec::new();
    };
    let place = fields.at("values");
    if names.is_empty() {
        problems.add(&place, "bad_value", "name at least one value of the credential");
    }
    if names.len() > MAX_AUTH_VALUES {
        let message = format!("{} values, at most {MAX_AUTH_VALUES} are possible", names.len());
        problems.add(&place, "too_many", message);
    }
    for (index, name) in names.iter().enumerate() {
        check_name(name, &pointer::join(&place, &index.to_string()), problems);
        if names.iter().take(index).any(|earlier| earlier == name) {
            let message = format!("`{name}` is named twice");
            problems.add(&pointer::join(&place, &index.to_string()), "conflict", message);
        }
    }
    names
}

/// A name that templates may use.
pub(super) fn check_name(name: &str, place: &str, problems: &mut Problems) {
    if !is_name(name, false) {
        let message = format!("`{name}` is not a name: lower-case letters, digits and `_`");
        problems.add(place, "bad_name", message);
    } else if TAKEN.contains(&name) {
        problems.add(place, "bad_name", format!("`{name}` stands for something else"));
    }
}

/// What is asked of a person has to be for something.
pub(super) fn check_used(names: &[String], used: &[&str], fields: &Fields<'_>, problems: &mut Problems) {
    let place = fields.at("values");
    for (index, name) in names
        .iter()
        .enumerate()
        .filter(|(_, name)| !used.contains(&name.as_str()))
    {
        problems.add(
            &pointer::join(&place, &index.to_string()),
            "unused",
            format!("`{name}` is asked of every connection and used nowhere"),
        );
    }
}
