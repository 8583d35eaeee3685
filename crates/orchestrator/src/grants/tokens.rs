//! The tokens of a grant as they are sealed and kept: the only form in which they leave this process.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use weir_connector_sdk::TokenSet;
use weir_storage::{RowIdentity, SecretBox};
use weir_workflow_engine::{ConnectionId, Timestamp, WorkspaceId};

use crate::snapshot::SnapshotError;
use crate::snapshot::open_json;

/// What is kept of a token set.
#[derive(Clone)]
pub(super) struct Tokens {
    pub(super) access: SecretString,
    pub(super) refresh: Option<SecretString>,
    pub(super) received_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

impl Tokens {
    /// Tokens that came at `now`. An answer without a refresh token leaves the one that was used.
    pub(super) fn new(set: &TokenSet, used: Option<&SecretString>, now: Timestamp) -> Self {
        Tokens {
            access: set.access_token.clone(),
            refresh: set.refresh_token.clone().or_else(|| used.cloned()),
            received_at: now,
            expires_at: now.plus(Duration::from_secs(set.expires_in_s)),
        }
    }

    pub(super) fn seal(&self, secrets: &SecretBox, workspace: WorkspaceId, connection: ConnectionId) -> Vec<u8> {
        let value = json!({
            "access": self.access.expose_secret(),
            "refresh": self.refresh.as_ref().map(ExposeSecret::expose_secret),
            "received_at": self.received_at.as_unix_ms(),
            "expires_at": self.expires_at.as_unix_ms(),
        });
        secrets.seal(&RowIdentity::grant(workspace, connection), value.to_string().as_bytes())
    }

    /// Opens sealed tokens.
    ///
    /// # Errors
    /// They do not open, or are no tokens. Nothing of what was inside is told.
    pub(super) fn open(
        sealed: &[u8],
        secrets: &SecretBox,
        (workspace, connection): (WorkspaceId, ConnectionId),
    ) -> Result<Self, SnapshotError> {
        let row = || format!("the tokens of connection {connection}");
        let value = open_json(secrets, &RowIdentity::grant(workspace, connection), sealed, row)?;
        let time = |key: &str| value.get(key).and_then(Value::as_i64).map(Timestamp::from_unix_ms);
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(SecretString::from);
        let read = || {
            Some(Tokens {
                access: text("access")?,
                refresh: text("refresh"),
                received_at: time("received_at")?,
                expires_at: time("expires_at")?,
            })
        };
        read().ok_or_else(|| SnapshotError::Corrupt {
            row: row(),
            reason: "they are not understood".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_storage::MasterKey;

    #[test]
    fn tokens_come_back_as_they_were_sealed_and_only_for_their_connection() {
        let secrets = SecretBox::new(MasterKey::new([1; 32]));
        let (workspace, connection) = (WorkspaceId::from_raw(1), ConnectionId::from_raw(2));
        let now = Timestamp::from_unix_ms(1_000);
        let set = |refresh: Option<&str>| TokenSet {
            access_token: "a2".into(),
            refresh_token: refresh.map(SecretString::from),
            expires_in_s: 60,
            scopes: None,
            account: None,
            instance_url: None,
        };
        // Long enough not to stand in a sealed text by chance.
        let (used, new) = ("the refresh token before", "the refresh token that came");
        for (given, wanted) in [(Some(new), new), (None, used)] {
            let tokens = Tokens::new(&set(given), Some(&SecretString::from(used)), now);
            let sealed = tokens.seal(&secrets, workspace, connection);
            let holds = |text: &str| sealed.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!holds(used) && !holds(new));
            let opened = Tokens::open(&sealed, &secrets, (workspace, connection)).unwrap();
            assert_eq!(opened.refresh.as_ref().map(ExposeSecret::expose_secret), Some(wanted));
            assert_eq!(opened.access.expose_secret(), "a2");
            assert_eq!(
                (opened.received_at, opened.expires_at),
                (now, Timestamp::from_unix_ms(61_000))
            );
            assert!(Tokens::open(&sealed, &secrets, (workspace, ConnectionId::from_raw(3))).is_err());
        }
    }
}
