//! The `state` that goes to a provider with a person and comes back (RFC 6749 §10.12): sealed with the master key, so that
//! only we can have made it, and nobody on the way reads what is in it. That it counts once is the database's to say.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use weir_storage::{RowIdentity, SecretBox};
use weir_workflow_engine::{ConnectionId, Timestamp, WorkspaceId};

/// Longest state that is looked at, bytes.
const MAX_STATE_BYTES: usize = 2_000;

/// What a state says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) workspace: WorkspaceId,
    pub(super) connection: ConnectionId,
    pub(super) attempt: i64,
    pub(super) expires_at: Timestamp,
}

/// Why a state is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadState {
    /// We did not make it, or it was changed.
    NotOurs,
    /// Its time is over.
    Expired,
}

impl State {
    pub(super) fn seal(&self, secrets: &SecretBox) -> String {
        let value = json!({
            "w": self.workspace.as_raw(),
            "c": self.connection.as_raw(),
            "a": self.attempt,
            "e": self.expires_at.as_unix_ms(),
        });
        URL_SAFE_NO_PAD.encode(secrets.seal(&RowIdentity::authorization_state(), value.to_string().as_bytes()))
    }

    /// Opens a state that came back at `now`.
    pub(super) fn open(text: &str, secrets: &SecretBox, now: Timestamp) -> Result<Self, BadState> {
        let read = || -> Option<State> {
            let sealed = URL_SAFE_NO_PAD
                .decode(text.get(..MAX_STATE_BYTES.min(text.len()))?)
                .ok()?;
            let opened = secrets.open(&RowIdentity::authorization_state(), &sealed).ok()?;
            let value: Value = serde_json::from_slice(opened.expose_secret()).ok()?;
            let number = |key: &str| value.get(key).and_then(Value::as_i64);
            Some(State {
                workspace: WorkspaceId::from_raw(number("w")?),
                connection: ConnectionId::from_raw(number("c")?),
                attempt: number("a")?,
                expires_at: Timestamp::from_unix_ms(number("e")?),
            })
        };
        let state = read().ok_or(BadState::NotOurs)?;
        match now < state.expires_at {
            true => Ok(state),
            false => Err(BadState::Expired),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_AUTHORIZATION;
    use super::*;
    use weir_storage::MasterKey;

    #[test]
    fn a_state_comes_back_unchanged_in_time_or_not_at_all() {
        let secrets = SecretBox::new(MasterKey::new([1; 32]));
        let at = Timestamp::from_unix_ms;
        let state = State {
            workspace: WorkspaceId::from_raw(11),
            connection: ConnectionId::from_raw(31),
            attempt: 7,
            expires_at: at(0).plus(MAX_AUTHORIZATION),
        };
        let text = state.seal(&secrets);
        let end = state.expires_at.as_unix_ms();
        assert_eq!(State::open(&text, &secrets, at(end - 1)), Ok(state));
        assert_eq!(State::open(&text, &secrets, at(end)), Err(BadState::Expired));
        assert_ne!(text, state.seal(&secrets), "the same state never looks the same");
        for position in [0, 10, 40, text.len() - 1] {
            let mut changed = text.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(
                State::open(&changed, &secrets, at(0)),
                Err(BadState::NotOurs),
                "{position}"
            );
        }
        let other = SecretBox::new(MasterKey::new([2; 32]));
        assert_eq!(State::open(&text, &other, at(0)), Err(BadState::NotOurs));
        // What was sealed for something else is no state.
        let tokens = RowIdentity::grant(state.workspace, state.connection);
        let stolen = URL_SAFE_NO_PAD.encode(secrets.seal(&tokens, br#"{"w":11,"c":31,"a":7,"e":1000}"#));
        assert_eq!(State::open(&stolen, &secrets, at(0)), Err(BadState::NotOurs));
        for odd in ["", "x", "ü", &"A".repeat(5_000)] {
            assert_eq!(State::open(odd, &secrets, at(0)), Err(BadState::NotOurs));
        }
    }
}
