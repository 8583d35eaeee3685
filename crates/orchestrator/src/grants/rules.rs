//! What is concluded about a grant: from the end of a refresh, and from an API that does not take a token. No IO, no clock.
//!
//! Nothing that may pass by itself ends a grant. A grant ends when the provider says so with a code that means it, or when
//! it gives tokens that its own API refuses, again and again.

use std::time::Duration;

use weir_connector_sdk::Rotation;
use weir_storage::GrantState;
use weir_workflow_engine::Timestamp;

/// The longest pause between two refreshes that fail.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A token that is younger than this counts as fresh: that the API refuses it is not a matter of its age.
const FRESH: Duration = Duration::from_secs(30);
/// Fresh tokens in a row that the API refuses before a person is asked.
///
/// Limit: fresh tokens in a row that a provider's API refuses with 401 | the connection is `needs_reauth`, its calls wait | `what_a_401_means` | `weir_connections_needing_reauth`
pub(super) const MAX_REFUSED_TOKENS: u32 = 3;

/// Since when a refresh is without a stored answer, and which node sent it.
pub(super) type Mark = Option<(Timestamp, String)>;

/// How a refresh ended, when it gave no tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// No answer came.
    Unanswered {
        /// Whether the request may have reached the provider.
        left: bool,
        /// Why, for people.
        why: String,
    },
    /// The provider answered, and not with tokens.
    Refused {
        /// Its code.
        code: String,
        /// Whether the same request may succeed later.
        passes: bool,
        /// Whether the code means that the grant is over.
        over: bool,
    },
}

/// What is known of the grant when a refresh ended.
#[derive(Debug, Clone)]
pub(super) struct Known<'a> {
    /// Name of the connection.
    pub(super) name: &'a str,
    pub(super) rotates: Rotation,
    /// A refresh before this one whose answer was not stored.
    pub(super) earlier: Mark,
    /// This one.
    pub(super) this: (Timestamp, String),
    /// Refreshes that failed in a row, before this one.
    pub(super) failures: u32,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) state: GrantState,
    pub(super) error: String,
    pub(super) failures: u32,
    /// No refresh for so long.
    pub(super) pause: Duration,
    /// The refresh that is without a stored answer.
    pub(super) mark: Mark,
}

/// Judges the end of a refresh.
pub(super) fn judge(ended: &Ended, known: &Known<'_>) -> Judged {
    let failures = known.failures.saturating_add(1);
    let degraded = |error: String, mark: Mark| Judged {
        state: GrantState::Degraded,
        error,
        failures,
        pause: pause_after(failures),
        mark,
    };
    // The first one that had no answer is the one to tell of.
    let unsure = || known.earlier.clone().or_else(|| Some(known.this.clone()));
    match ended {
        Ended::Unanswered { left: false, why } => degraded(
            format!("the token endpoint was not reached: {why}"),
            known.earlier.clone(),
        ),
        Ended::Unanswered { left: true, why } => {
            degraded(format!("the token endpoint gave no answer: {why}"), unsure())
        }
        Ended::Refused { code, over: true, .. } => Judged {
            state: GrantState::NeedsReauth,
            error: over(code, known),
            failures,
            pause: Duration::ZERO,
            mark: known.earlier.clone(),
        },
        // It may have replaced the tokens before it failed.
        Ended::Refused { code, passes: true, .. } => degraded(format!("the token endpoint failed: {code}"), unsure()),
        Ended::Refused {
            code, passes: false, ..
        } => degraded(
            format!(
                "the token endpoint refused: {code}; see to the client id and secret in the `credential` of `{}` and to the \
                 app's settings at the provider",
                known.name
            ),
            known.earlier.clone(),
        ),
    }
}

/// Why a grant is over, as exactly as it is known, and what to do.
fn over(code: &str, known: &Known<'_>) -> String {
    let todo = format!(
        "connect again with `weir connection authorize {}`; what waits goes on by itself",
        known.name
    );
    match (&known.earlier, known.rotates) {
        (Some((since, by)), Rotation::Yes | Rotation::Maybe) => format!(
            "node {by} began a refresh at {since} whose answer was never stored, and the provider now refuses the refresh \
             token that was sent then ({code}): it was probably replaced by one that did not arrive; {todo}"
        ),
        (Some(_), Rotation::No) | (None, _) => format!(
            "the provider refuses the refresh token ({code}): access was taken back, has ended, or was renewed elsewhere; {todo}"
        ),
    }
}

/// 2, 4, 8 … seconds.
fn pause_after(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(16)).min(LONGEST_PAUSE)
}

/// What to do with a call whose token the API did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unauthorized {
    /// Renew the token, and try once more.
    Renew,
    /// The token is good for other calls: this one is not allowed, and fails.
    NotAllowed,
    /// Nothing works with it: put the call off.
    Hold {
        /// The grant's state from now on.
        state: GrantState,
        /// Until the next fresh token is tried.
        pause: Duration,
    },
}

/// A token that the API did not take.
#[derive(Debug, Clone, Copy)]
pub(super) struct RefusedToken {
    /// How long ago it was received.
    pub(super) age: Duration,
    /// Whether it was renewed for this very call.
    pub(super) renewed: bool,
    /// Whether another call with it got an answer that was not 401.
    pub(super) worked: bool,
    /// Fresh tokens in a row that were refused before.
    pub(super) refused_before: u32,
}

/// What follows from a 401.
pub(super) fn unauthorized(token: &RefusedToken) -> Unauthorized {
    if token.age >= FRESH && !token.renewed {
        return Unauthorized::Renew;
    }
    if token.worked {
        return Unauthorized::NotAllowed;
    }
    let refused = token.refused_before.saturating_add(1);
    match refused >= MAX_REFUSED_TOKENS {
        true => Unauthorized::Hold {
            state: GrantState::NeedsReauth,
            pause: Duration::ZERO,
        },
        false => Unauthorized::Hold {
            state: GrantState::Degraded,
            pause: FRESH * refused,
        },
    }
}

/// How long a call is put off that waits for a person: short at first, for whoever sits in front of it.
pub(crate) fn patience(since: Timestamp, now: Timestamp) -> Duration {
    (now.since(since) / 8).clamp(Duration::from_secs(5), LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_unix_ms(1_790_000_000_000 + s * 1_000)
    }

    fn known(rotates: Rotation, earlier: Mark, failures: u32) -> Known<'static> {
        Known {
            name: "crm",
            rotates,
            earlier,
            this: (at(100), "n2".to_owned()),
            failures,
        }
    }

    fn refused(code: &str, passes: bool, over: bool) -> Ended {
        Ended::Refused {
            code: code.to_owned(),
            passes,
            over,
        }
    }

    fn unanswered(left: bool) -> Ended {
        Ended::Unanswered {
            left,
            why: "timeout".to_owned(),
        }
    }

    #[test]
    fn the_end_of_a_refresh_decides_what_the_grant_is() {
        let earlier: Mark = Some((at(0), "n1".to_owned()));
        let this: Mark = Some((at(100), "n2".to_owned()));
        let check = |ended: Ended, earlier: &Mark, state: GrantState, mark: &Mark, part: &str| {
            let judged = judge(&ended, &known(Rotation::Yes, earlier.clone(), 0));
            assert_eq!((judged.state, &judged.mark), (state, mark), "{ended:?}");
            assert!(judged.error.contains(part), "{}", judged.error);
        };
        let (degraded, needs) = (GrantState::Degraded, GrantState::NeedsReauth);
        check(unanswered(false), &None, degraded, &None, "not reached: timeout");
        check(unanswered(false), &earlier, degraded, &earlier, "not reached");
        check(unanswered(true), &None, degraded, &this, "no answer: timeout");
        check(unanswered(true), &earlier, degraded, &earlier, "no answer");
        // Rotated, and then failed.
        check(refused("http_500", true, false), &None, degraded, &this, "http_500");
        check(
            refused("http_500", true, false),
            &earlier,
            degraded,
            &earlier,
            "http_500",
        );
        // A wrong client secret ends no grant.
        check(
            refused("invalid_client", false, false),
            &None,
            degraded,
            &None,
            "client id and secret",
        );
        check(
            refused("invalid_client", false, false),
            &earlier,
            degraded,
            &earlier,
            "`crm`",
        );
        check(
            refused("invalid_grant", false, true),
            &None,
            needs,
            &None,
            "refuses the refresh token (invalid_grant)",
        );
        check(
            refused("invalid_grant", false, true),
            &earlier,
            needs,
            &earlier,
            "node n1 began a refresh at 2026",
        );
        check(
            refused("invalid_grant", false, true),
            &earlier,
            needs,
            &earlier,
            "weir connection authorize crm",
        );
    }

    #[test]
    fn a_token_that_does_not_rotate_was_not_lost() {
        let earlier: Mark = Some((at(0), "n1".to_owned()));
        let told = |rotates| {
            judge(
                &refused("invalid_grant", false, true),
                &known(rotates, earlier.clone(), 0),
            )
            .error
        };
        assert!(told(Rotation::Maybe).contains("n1"));
        assert!(!told(Rotation::No).contains("n1"));
    }

    #[test]
    fn refreshes_that_fail_come_at_growing_distances() {
        let pauses = [0, 1, 2, 6, 7, 30, u32::MAX].map(|failures| {
            judge(&unanswered(true), &known(Rotation::No, None, failures))
                .pause
                .as_secs()
        });
        assert_eq!(pauses, [2, 4, 8, 128, 256, 300, 300]);
    }

    #[test]
    fn what_a_401_means() {
        let check = |age_s: u64, renewed: bool, worked: bool, refused_before: u32, wanted: Unauthorized| {
            let token = RefusedToken {
                age: Duration::from_secs(age_s),
                renewed,
                worked,
                refused_before,
            };
            assert_eq!(unauthorized(&token), wanted, "{token:?}");
        };
        let hold = |state, pause_s| Unauthorized::Hold {
            state,
            pause: Duration::from_secs(pause_s),
        };
        // An old token is renewed, whatever it was good for.
        check(30, false, false, 0, Unauthorized::Renew);
        check(3_000, false, true, 0, Unauthorized::Renew);
        check(3_000, false, false, 2, Unauthorized::Renew);
        // A fresh one is not: providers count refreshes.
        check(29, false, true, 0, Unauthorized::NotAllowed);
        check(0, true, true, 2, Unauthorized::NotAllowed);
        check(40, true, true, 0, Unauthorized::NotAllowed);
        check(0, true, false, 0, hold(GrantState::Degraded, 30));
        check(29, false, false, 1, hold(GrantState::Degraded, 60));
        check(0, true, false, 2, hold(GrantState::NeedsReauth, 0));
        check(0, true, false, 9, hold(GrantState::NeedsReauth, 0));
    }

    #[test]
    fn who_waits_for_a_person_looks_more_and_more_seldom() {
        let waits = [0, 8, 80, 800, 8_000, 800_000].map(|s| patience(at(0), at(s)).as_secs());
        assert_eq!(waits, [5, 5, 10, 100, 300, 300]);
    }
}
