//! The secrets of a registration: the one that the provider uses now, and those that it used before, which count until
//! what was signed with them has come. Sealed in the row; opened for verification and for telling the provider.

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use weir_storage::{RegistrationRow, RowIdentity, SecretBox};
use weir_workflow_engine::Timestamp;

use super::rules::SECRET_OVERLAP;
use crate::snapshot::{SnapshotError, open_json};

/// Secrets of one registration that count at once; the oldest goes first.
///
/// Limit: secrets of a registered webhook that count at once | the oldest counts no longer | `an_old_secret_counts_for_a_bounded_time`
pub const MAX_REGISTERED_SECRETS: usize = 4;
/// Bytes of chance in a secret of ours.
const SECRET_BYTES: u32 = 32;

/// The newest first.
#[derive(Default)]
pub(crate) struct Secrets {
    list: Vec<Kept>,
}

struct Kept {
    secret: SecretString,
    /// `None`: the provider uses it.
    until: Option<Timestamp>,
}

impl Secrets {
    /// Opens those of a row.
    pub(crate) fn open(row: &RegistrationRow, secrets: &SecretBox) -> Result<Self, SnapshotError> {
        let Some(sealed) = &row.secrets else {
            return Ok(Self::default());
        };
        let name = || format!("the registration of endpoint {}", row.endpoint);
        let identity = RowIdentity::registration(row.workspace, row.endpoint);
        let opened = open_json(secrets, &identity, sealed, name)?;
        let read = |item: &Value| {
            let until = item.get("until").filter(|until| !until.is_null());
            Some(Kept {
                secret: item.get("secret")?.as_str()?.into(),
                until: match until {
                    Some(until) => Some(Timestamp::from_unix_ms(until.as_i64()?)),
                    None => None,
                },
            })
        };
        let list = opened.as_array().and_then(|items| items.iter().map(read).collect());
        list.map(|list| Self { list }).ok_or_else(|| SnapshotError::Corrupt {
            row: name(),
            reason: "its secrets are not understood".to_owned(),
        })
    }

    /// Puts them into a row.
    pub(super) fn seal_into(&self, row: &mut RegistrationRow, secrets: &SecretBox) {
        row.secrets_until = self.list.iter().filter_map(|kept| kept.until).min();
        row.secrets = (!self.list.is_empty()).then(|| {
            let items: Vec<Value> = self
                .list
                .iter()
                .map(|kept| {
                    let until = kept.until.map(Timestamp::as_unix_ms);
                    json!({ "secret": kept.secret.expose_secret(), "until": until })
                })
                .collect();
            let identity = RowIdentity::registration(row.workspace, row.endpoint);
            secrets.seal(&identity, Value::Array(items).to_string().as_bytes())
        });
    }

    /// All that count.
    pub(crate) fn all(&self) -> impl Iterator<Item = &SecretString> {
        self.list.iter().map(|kept| &kept.secret)
    }

    /// The one that the provider uses.
    pub(super) fn current(&self) -> Option<&SecretString> {
        self.list
            .iter()
            .find(|kept| kept.until.is_none())
            .map(|kept| &kept.secret)
    }

    /// Makes one of ours, unless there is one.
    pub(super) fn make(&mut self) {
        if self.current().is_none() {
            let made = oauth2::CsrfToken::new_random_len(SECRET_BYTES);
            self.put(made.secret().as_str().into());
        }
    }

    /// The provider uses this one from now on.
    pub(super) fn replace(&mut self, secret: SecretString, now: Timestamp) {
        self.retire(now);
        self.put(secret);
    }

    /// The provider uses none any more.
    pub(super) fn retire(&mut self, now: Timestamp) {
        let until = now.plus(SECRET_OVERLAP);
        for kept in self.list.iter_mut().filter(|kept| kept.until.is_none()) {
            kept.until = Some(until);
        }
    }

    /// Forgets those whose time is over. True: there were some.
    pub(super) fn prune(&mut self, now: Timestamp) -> bool {
        let before = self.list.len();
        self.list.retain(|kept| kept.until.is_none_or(|until| until > now));
        self.list.len() < before
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn put(&mut self, secret: SecretString) {
        self.list.insert(0, Kept { secret, until: None });
        self.list.truncate(MAX_REGISTERED_SECRETS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::time::Duration;

    fn texts(secrets: &Secrets) -> Vec<&str> {
        secrets.all().map(ExposeSecret::expose_secret).collect()
    }

    #[test]
    fn an_old_secret_counts_for_a_bounded_time() {
        let now = Timestamp::from_unix_ms(1_000);
        let mut secrets = Secrets::default();
        secrets.replace("one".into(), now);
        secrets.replace("two".into(), now);
        assert_eq!(texts(&secrets), ["two", "one"]);
        assert_eq!(secrets.current().map(ExposeSecret::expose_secret), Some("two"));
        let end = now.plus(SECRET_OVERLAP);
        assert!(!secrets.prune(Timestamp::from_unix_ms(end.as_unix_ms() - 1)));
        assert!(secrets.prune(end));
        assert_eq!(texts(&secrets), ["two"], "the one in use has no end");
        secrets.retire(end);
        assert_eq!(secrets.current().map(ExposeSecret::expose_secret), None);
        assert!(secrets.prune(end.plus(SECRET_OVERLAP + Duration::from_millis(1))));
        assert!(secrets.is_empty());
        for number in 0..10 {
            secrets.replace(number.to_string().into(), now);
        }
        assert_eq!(texts(&secrets), ["9", "8", "7", "6"]);
        assert_eq!(texts(&secrets).len(), MAX_REGISTERED_SECRETS);
    }

    #[test]
    fn one_of_ours_is_made_once_and_cannot_be_guessed() {
        let mut secrets = Secrets::default();
        secrets.make();
        let made = texts(&secrets)[0].to_owned();
        assert!(made.len() >= 40 && made.len() <= 128, "{}", made.len());
        secrets.make();
        assert_eq!(texts(&secrets), [made.as_str()]);
        let mut others = Secrets::default();
        others.make();
        assert_ne!(texts(&others), [made.as_str()]);
    }
}
