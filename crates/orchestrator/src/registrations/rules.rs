//! What is to be done about a registration: from what is wanted, what is stored and what the provider has, to the next
//! step. No IO: whoever asks brings the time.
//!
//! A webhook is known by the provider's id, once that is stored, and by its address before: the address is stored before
//! the webhook is made, so whatever a crash left behind is found by it. What has our address and not our id is deleted:
//! nobody knows its secret.

use std::collections::BTreeSet;
use std::time::Duration;

use weir_connector_sdk::Hook;
use weir_storage::RegistrationRow;
use weir_workflow_engine::{ConnectionId, Timestamp};

/// How long webhooks are still taken that were signed with a secret which the provider no longer uses.
///
/// Limit: time that the secret of a webhook which was replaced or deleted at its provider still counts | webhooks signed with it are refused, `bad_signature` | `an_old_secret_counts_for_a_bounded_time`
pub const SECRET_OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// Pause after a failure: doubled by each in a row, up to the longest.
pub(super) const BACK_OFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5 * 60));

/// Why nothing is to be there while a connection is disconnected.
pub(super) const DISCONNECTED: &str = "its connection was disconnected";

/// What is to be at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) connection: ConnectionId,
    /// Whose webhooks: what the endpoint says, JSON.
    pub(super) place: String,
    pub(super) url: String,
    /// In the provider's names.
    pub(super) events: BTreeSet<String>,
    /// Time between two looks.
    pub(super) every: Duration,
    /// How long before its end it is renewed.
    pub(super) margin: Duration,
    /// What can be changed without making it anew.
    pub(super) changes: Changes,
}

/// What the provider lets us change of a webhook.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) url: bool,
    pub(super) events: bool,
}

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// It is to be registered.
    Registered(Wanted),
    /// Nothing is to be there, with the reason where it is worth telling.
    Absent(Option<&'static str>),
    /// It cannot be told now what is to be there; what is there stays.
    Unclear(String),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// All is as it should be.
    Keep,
    /// Nothing is there, and nothing is to be.
    Forget,
    /// Make it.
    Create,
    /// Tell it where to send to, and what.
    Update(String),
    /// Make it live longer.
    Renew(String),
    /// Delete it.
    Delete(String),
}

/// Where a registration stands, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationState {
    /// It is being made.
    Pending,
    /// The provider has it.
    Active,
    /// What was tried last failed; it is tried again.
    Failing,
    /// Nothing is to be sent, so nothing is registered.
    Idle,
    /// It is being deleted.
    Removing,
}

/// Whether a row speaks of webhooks that are made elsewhere: with another connection, or of another place.
pub(super) fn is_elsewhere(row: &RegistrationRow, wanted: &Wanted) -> bool {
    row.connection != wanted.connection || row.place != wanted.place
}

/// Whether the provider may have something of a row.
pub(super) fn may_be_there(row: &RegistrationRow) -> bool {
    row.provider_id.is_some() || row.url.is_some()
}

/// When it is to be looked at; `None`: not by itself.
pub(super) fn due(now: Timestamp, wish: &Wish, row: Option<&RegistrationRow>) -> Option<Timestamp> {
    let Some(row) = row else {
        return matches!(wish, Wish::Registered(_)).then_some(now);
    };
    if row.failures > 0 {
        return (!matches!(wish, Wish::Unclear(_))).then_some(row.retry_at);
    }
    match wish {
        Wish::Unclear(_) => None,
        Wish::Absent(_) if may_be_there(row) => Some(now),
        // Only its secrets are left.
        Wish::Absent(_) => Some(row.secrets_until.unwrap_or(now)),
        Wish::Registered(wanted) => {
            let is_as_wanted = row.provider_id.is_some()
                && !is_elsewhere(row, wanted)
                && row.url.as_ref() == Some(&wanted.url)
                && row.events.iter().eq(&wanted.events);
            if !is_as_wanted {
                return Some(now);
            }
            let looked = row.checked_at.map_or(now, |at| at.plus(wanted.every));
            let renewed = row.expires_at.map(|at| renewal(at, wanted.margin, row.renewed_at));
            [Some(looked), renewed, row.secrets_until].into_iter().flatten().min()
        }
    }
}

/// The next step, given all that the provider has with our address or our id.
pub(super) fn next_step(now: Timestamp, wish: &Wish, row: &RegistrationRow, seen: &[Hook]) -> Step {
    let is_known = |hook: &Hook| row.provider_id.as_ref() == Some(&hook.id);
    let wanted = match wish {
        Wish::Registered(wanted) => Some(wanted),
        Wish::Absent(_) => None,
        Wish::Unclear(_) => return Step::Keep,
    };
    let has_our_address = |hook: &Hook| {
        let addresses = [row.url.as_ref(), wanted.map(|wanted| &wanted.url)];
        hook.url
            .as_ref()
            .is_some_and(|url| addresses.into_iter().flatten().any(|ours| ours == url))
    };
    if let Some(stray) = seen.iter().find(|hook| !is_known(hook) && has_our_address(hook)) {
        return Step::Delete(stray.id.clone());
    }
    let ours = seen.iter().find(|hook| is_known(hook));
    match (wanted, ours) {
        (None, None) => Step::Forget,
        (None, Some(hook)) => Step::Delete(hook.id.clone()),
        (Some(_), None) => Step::Create,
        (Some(wanted), Some(hook)) => step_for(now, wanted, row, hook),
    }
}

fn step_for(now: Timestamp, wanted: &Wanted, row: &RegistrationRow, hook: &Hook) -> Step {
    let id = || hook.id.clone();
    if !hook.works {
        return Step::Delete(id());
    }
    let other_url = hook.url.as_ref() != Some(&wanted.url);
    let other_events = match &hook.events {
        Some(events) => *events != wanted.events,
        None => !row.events.iter().eq(&wanted.events),
    };
    if other_url || other_events {
        let can = (!other_url || wanted.changes.url) && (!other_events || wanted.changes.events);
        return if can { Step::Update(id()) } else { Step::Delete(id()) };
    }
    let expires_at = hook.expires_unix_ms.map(Timestamp::from_unix_ms).or(row.expires_at);
    match expires_at {
        Some(at) if renewal(at, wanted.margin, row.renewed_at) <= now => Step::Renew(id()),
        Some(_) | None => Step::Keep,
    }
}

/// What the provider has otherwise than we had left it, for people. Asked before anything is done.
pub(super) fn drift(row: &RegistrationRow, seen: &[Hook]) -> Option<&'static str> {
    let id = row.provider_id.as_ref()?;
    let Some(hook) = seen.iter().find(|hook| hook.id == *id) else {
        return Some("the provider no longer had it");
    };
    if !hook.works {
        return Some("the provider had disabled it");
    }
    if hook.url.as_ref() != row.url.as_ref() {
        return Some("it sent to another address");
    }
    let is_same = |events: &BTreeSet<String>| row.events.iter().eq(events);
    (!hook.events.as_ref().is_none_or(is_same)).then_some("it sent other events")
}

/// When to try again after so many failures in a row.
pub(super) fn retry_at(now: Timestamp, failures: u32) -> Timestamp {
    let (first, longest) = BACK_OFF;
    let doubled = 1_u32
        .checked_shl(failures.saturating_sub(1).min(16))
        .unwrap_or(u32::MAX);
    now.plus(first.saturating_mul(doubled).min(longest))
}

/// Where it stands, and why where that is worth telling. `None`: it is not registered, and is not to be.
pub(super) fn state(wish: &Wish, row: Option<&RegistrationRow>) -> Option<(RegistrationState, Option<String>)> {
    let failing = row.filter(|row| row.failures > 0);
    let error = failing.and_then(|row| row.error.clone());
    match (wish, row) {
        (Wish::Unclear(why), _) => Some((RegistrationState::Failing, Some(why.clone()))),
        (Wish::Registered(_) | Wish::Absent(Some(_)), _) if failing.is_some() => {
            Some((RegistrationState::Failing, error))
        }
        (Wish::Absent(_), Some(row)) if may_be_there(row) => Some((RegistrationState::Removing, error)),
        (Wish::Absent(Some(why)), _) => Some((RegistrationState::Idle, Some((*why).to_owned()))),
        (Wish::Absent(None), _) => None,
        (Wish::Registered(_), Some(row)) if row.provider_id.is_some() => Some((RegistrationState::Active, None)),
        (Wish::Registered(_), _) => Some((RegistrationState::Pending, None)),
    }
}

/// When what ends then is renewed: the margin before, but not before half of its life is over, for a provider may let it
/// live shorter than it was asked to.
fn renewal(ends_at: Timestamp, margin: Duration, renewed_at: Option<Timestamp>) -> Timestamp {
    let margin_ms = i64::try_from(margin.as_millis()).unwrap_or(i64::MAX);
    let ends_ms = ends_at.as_unix_ms();
    let planned_ms = ends_ms.saturating_sub(margin_ms);
    let half_ms = renewed_at.map_or(planned_ms, |at| at.as_unix_ms().midpoint(ends_ms).min(ends_ms));
    Timestamp::from_unix_ms(planned_ms.max(half_ms))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
