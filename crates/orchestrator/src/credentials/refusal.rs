//! That a provider does not let a credential in: who calls meanwhile, and when a login is tried again. No IO, no clock.
//!
//! A login that was refused would be refused again, and many providers lock an account after a few. So calls wait for a
//! person, as they do for access that ended. Another credential is another connection object, which begins anew.

use std::time::Duration;

use weir_workflow_engine::Timestamp;

use super::CredentialError;
use crate::grants::{patience, show_refused};

/// The first pause between two logins of a credential that is refused: it may be let in again at the provider.
const FIRST_PAUSE: Duration = Duration::from_secs(300);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// A credential that is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: CredentialError,
    /// Since when.
    since: Timestamp,
    pause: Duration,
    /// No login before it.
    pub(crate) next_login_at: Timestamp,
    _counted: Counted,
}

/// Counts among the connections that wait for a person, as long as it is there.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn new() -> Self {
        show_refused(1);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        show_refused(-1);
    }
}

impl Refusal {
    /// Another login was refused.
    pub(crate) fn after(before: Option<&Refusal>, error: CredentialError, now: Timestamp) -> Self {
        let pause = before.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        Refusal {
            error,
            since: before.map_or(now, |before| before.since),
            pause,
            next_login_at: now.plus(pause),
            _counted: Counted::new(),
        }
    }
}

/// When a call that waits for a person looks again. Looking costs no login. `None`: meanwhile a login went well.
pub(super) fn come_again_at(refusal: Option<&Refusal>, now: Timestamp) -> Timestamp {
    now.plus(patience(refusal.map_or(now, |refusal| refusal.since), now))
}
