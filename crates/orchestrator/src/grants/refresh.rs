//! One look after a grant: read it, renew it when it has to be, store what came, hand it out.
//!
//! Runs in a task of its own that holds the connection's lock, so that neither a call that gives up nor one that is
//! cancelled loses what the provider answered.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use weir_connector_sdk::{HttpRequest, TokenSet};
use weir_storage::{GrantClaim, GrantNote, GrantRow, GrantSave, GrantState, GrantStep, WriteError};
use weir_workflow_engine::{HeldBy, Hold};

use super::rules::{Ended, Known, Mark, judge, patience};
use super::tokens::Tokens;
use super::{Granted, Grants, Job, Last, Slot};
use crate::credentials::{AccessToken, exchange};
use crate::http_client::{SendError, SendErrorKind};

/// Time for one request to a token endpoint. Some take half a minute, and an answer that is not waited for is a refresh
/// token lost.
const TOKEN_REQUEST_TIMEOUT: Duration = Duration::from_secs(45);
/// How long a claim holds: longer than the request and its name resolution.
const LEASE: Duration = Duration::from_secs(90);
/// Pause between two looks while another node refreshes.
const LOOK_AGAIN: Duration = Duration::from_millis(150);
/// Pauses between attempts to store new tokens.
const STORE_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Looks that may find the grant changed under our hands before the call is put off.
const MAX_LOOKS: u32 = 20;

/// What to do about a grant as it was read.
enum Look {
    Use(Arc<AccessToken>),
    Hold(Hold),
    Renew(SecretString),
    /// No refresh token, and the access token is over.
    Over,
}

impl Grants {
    /// Looks after a grant until there is a token or a reason why there is none.
    pub(super) async fn settle(
        self: Arc<Self>,
        job: Job,
        slot: Arc<Slot>,
        mut place: OwnedMutexGuard<Last>,
    ) -> Result<Arc<AccessToken>, Hold> {
        let settled = self.look_after(&job, &slot).await;
        match &settled {
            Ok(token) => {
                slot.current.store(Some(Arc::clone(token)));
                place.held = None;
            }
            Err(hold) => place.held = Some((self.clock.now(), hold.clone())),
        }
        settled
    }

    async fn look_after(&self, job: &Job, slot: &Slot) -> Result<Arc<AccessToken>, Hold> {
        let began = Instant::now();
        let mut looks = 0;
        loop {
            let row = match self.seed.store.grant_load(job.workspace, job.id).await {
                Ok(row) => row,
                Err(_unreadable) => return Err(self.come_again(&job.name, "the database cannot be read")),
            };
            let look = self.look(job, slot, row.as_ref())?;
            let row = match (look, row) {
                (Look::Use(token), _) => return Ok(token),
                (Look::Hold(hold), _) => return Err(hold),
                (Look::Over, Some(row)) => {
                    let error = format!(
                        "the access token has ended, and the provider gave no refresh token; connect again with \
                         `weir connection authorize {}`",
                        job.name
                    );
                    self.conclude(
                        job,
                        &row,
                        (GrantState::NeedsReauth, error),
                        (row.failures, Duration::ZERO, None),
                    )
                    .await?;
                    continue;
                }
                (Look::Renew(refresh_token), Some(row)) => {
                    if self.claim(job, &row).await? {
                        if let Some(token) = self.renew(job, &row, &refresh_token).await? {
                            return Ok(token);
                        }
                    } else if let Some(token) = self.still_good(slot, &row, job) {
                        // Another node is at it, and until then the old one does.
                        return Ok(token);
                    } else if began.elapsed() < LEASE {
                        tokio::time::sleep(LOOK_AGAIN).await;
                        continue;
                    }
                    row
                }
                (Look::Over | Look::Renew(_), None) => return Err(self.come_again(&job.name, "its grant is gone")),
            };
            looks += 1;
            if looks > MAX_LOOKS {
                tracing::warn!(
                    generation = row.generation,
                    "the grant of `{}` keeps changing",
                    job.name
                );
                return Err(self.come_again(&job.name, "its grant keeps changing"));
            }
        }
    }

    /// What a grant as it is stored means for whoever wants to use it now.
    fn look(&self, job: &Job, slot: &Slot, row: Option<&GrantRow>) -> Result<Look, Hold> {
        let now = self.clock.now();
        let waits = |row: Option<&GrantRow>| {
            let since = row.map_or(now, |row| row.state_since);
            let never = || format!("`{0}` is not connected yet: `weir connection authorize {0}`", job.name);
            Hold {
                until: now.plus(patience(since, now)),
                by: HeldBy::Reauth,
                reason: row.and_then(|row| row.error.clone()).unwrap_or_else(never),
            }
        };
        let Some(row) = row else {
            return Ok(Look::Hold(waits(None)));
        };
        let (Some(sealed), GrantState::Healthy | GrantState::Degraded) = (&row.tokens, row.state) else {
            return Ok(Look::Hold(waits(Some(row))));
        };
        let tokens = self.open(job, sealed)?;
        let is_refused = row.generation <= self.refused_up_to(slot, row);
        let token = AccessToken::granted_at(&tokens, granted(row, &tokens));
        if !is_refused && token.is_fresh(now) {
            return Ok(Look::Use(Arc::new(token)));
        }
        let still_good = !is_refused && tokens.expires_at > now;
        let Some(refresh) = tokens.refresh else {
            return Ok(match still_good {
                true => Look::Use(Arc::new(token.kept_until(tokens.expires_at))),
                false => Look::Over,
            });
        };
        if row.retry_at <= now {
            return Ok(Look::Renew(refresh));
        }
        Ok(match still_good {
            true => Look::Use(Arc::new(token.kept_until(tokens.expires_at.min(row.retry_at)))),
            false => Look::Hold(Hold {
                until: row.retry_at,
                by: HeldBy::Token,
                reason: row
                    .error
                    .clone()
                    .unwrap_or_else(|| "its token is renewed soon".to_owned()),
            }),
        })
    }

    /// The token of a row that is past its time to be renewed and not over yet.
    fn still_good(&self, slot: &Slot, row: &GrantRow, job: &Job) -> Option<Arc<AccessToken>> {
        let now = self.clock.now();
        let tokens = self.open(job, row.tokens.as_ref()?).ok()?;
        let good = tokens.expires_at > now && row.generation > self.refused_up_to(slot, row);
        let token = AccessToken::granted_at(&tokens, granted(row, &tokens));
        good.then(|| Arc::new(token.kept_until(tokens.expires_at.min(now.plus(Duration::from_secs(1))))))
    }

    /// The generations that the API does not take any more.
    fn refused_up_to(&self, slot: &Slot, row: &GrantRow) -> i64 {
        let refused = slot.refused();
        match refused.connected_at == row.connected_at {
            true => refused.up_to,
            false => 0,
        }
    }

    fn open(&self, job: &Job, sealed: &[u8]) -> Result<Tokens, Hold> {
        Tokens::open(sealed, &self.seed.secrets, (job.workspace, job.id)).map_err(|error| {
            tracing::error!("the tokens of connection `{}` cannot be used: {error}", job.name);
            self.come_again(&job.name, "what is stored does not open")
        })
    }

    /// Whether this node renews the grant now.
    async fn claim(&self, job: &Job, row: &GrantRow) -> Result<bool, Hold> {
        let claim = GrantClaim {
            connection: job.id,
            workspace: job.workspace,
            generation: row.generation,
            lease: LEASE,
            at: self.clock.now(),
        };
        match self.write(GrantStep::Claim(claim)).await {
            Ok(()) => Ok(true),
            Err(WriteError::Stale) => Ok(false),
            Err(error) => Err(self.come_again(&job.name, &error.to_string())),
        }
    }

    /// Asks the provider and stores what it says. The claim is ours, and proves the generation; what went on before it is
    /// read once more.
    async fn renew(
        &self,
        job: &Job,
        row: &GrantRow,
        refresh_token: &SecretString,
    ) -> Result<Option<Arc<AccessToken>>, Hold> {
        let node = self.seed.node.name.clone();
        let known = Known {
            name: &job.name,
            rotates: job
                .scheme()
                .map_or(weir_connector_sdk::Rotation::Maybe, |scheme| scheme.refresh_rotates),
            earlier: self.earlier(job, row).await?,
            this: (self.clock.now(), node),
            failures: row.failures,
        };
        let ended = match self.ask(job, refresh_token).await {
            Ok(set) => return self.keep(job, row, &set, refresh_token).await,
            Err(ended) => ended,
        };
        let judged = judge(&ended, &known);
        self.count(
            job,
            if judged.state == GrantState::NeedsReauth {
                "over"
            } else {
                "failed"
            },
        );
        self.conclude(
            job,
            row,
            (judged.state, judged.error),
            (judged.failures, judged.pause, judged.mark),
        )
        .await?;
        Ok(None)
    }

    /// The mark that was there before our claim: a claim keeps the first one, so it is ours only if there was none.
    async fn earlier(&self, job: &Job, row: &GrantRow) -> Result<Mark, Hold> {
        let read = self.seed.store.grant_load(job.workspace, job.id).await;
        let Ok(Some(fresh)) = read else {
            return Err(self.come_again(&job.name, "the database cannot be read"));
        };
        // Between our look and our claim another node may have begun, and died.
        let is_ours = row.refreshing.is_none()
            && fresh
                .refreshing
                .as_ref()
                .is_some_and(|(_, by)| *by == self.seed.node.name);
        Ok(if is_ours { None } else { fresh.refreshing })
    }

    async fn ask(&self, job: &Job, refresh_token: &SecretString) -> Result<TokenSet, Ended> {
        let unsent = |why: String| Ended::Unanswered { left: false, why };
        let scheme = job
            .scheme()
            .ok_or_else(|| unsent("the connector has no such scheme any more".to_owned()))?;
        let request = scheme
            .refresh_request(job.settings(), &job.credential, refresh_token)
            .map_err(|error| unsent(error.message))?;
        let response = self.send(request).await.map_err(|error| ended_by(&error))?;
        scheme.tokens(&response).map_err(|error| Ended::Refused {
            over: scheme.is_over(&error.code),
            passes: error.retryable,
            code: error.code,
        })
    }

    /// Sends a request to the provider's OAuth endpoints: guarded, not recorded.
    pub(super) async fn send(&self, request: HttpRequest) -> Result<weir_connector_sdk::HttpResponse, SendError> {
        exchange(&self.http, request, Instant::now() + TOKEN_REQUEST_TIMEOUT).await
    }

    /// Stores new tokens, however long that takes: the old ones may be worth nothing by now. `None`: others are stored.
    async fn keep(
        &self,
        job: &Job,
        row: &GrantRow,
        set: &TokenSet,
        used: &SecretString,
    ) -> Result<Option<Arc<AccessToken>>, Hold> {
        let now = self.clock.now();
        let tokens = Tokens::new(set, Some(used), now);
        let mut pause = STORE_AGAIN.0;
        loop {
            let save = GrantSave {
                connection: job.id,
                workspace: job.workspace,
                generation: row.generation,
                tokens: tokens.seal(&self.seed.secrets, job.workspace, job.id),
                expires_at: tokens.expires_at,
                scopes: set.scopes.clone(),
                at: now,
            };
            match self.write(GrantStep::Save(save)).await {
                Ok(()) => {
                    self.count(job, "renewed");
                    tracing::debug!(connection.name = %job.name, "the token of `{}` was renewed", job.name);
                    let granted = Granted {
                        generation: row.generation + 1,
                        ..granted(row, &tokens)
                    };
                    return Ok(Some(Arc::new(AccessToken::granted_at(&tokens, granted))));
                }
                // Stored by an attempt whose result was not known, or overtaken: the row says which.
                Err(WriteError::Stale) => return Ok(None),
                Err(WriteError::Unknown | WriteError::Unavailable) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(STORE_AGAIN.1);
                }
                Err(error @ (WriteError::Fenced | WriteError::Refused(_) | WriteError::Outdated { .. })) => {
                    tracing::error!("new tokens of connection `{}` cannot be stored: {error}", job.name);
                    return Err(self.come_again(&job.name, "this server cannot store it"));
                }
            }
        }
    }

    async fn conclude(
        &self,
        job: &Job,
        row: &GrantRow,
        (state, error): (GrantState, String),
        (failures, pause, mark): (u32, Duration, Mark),
    ) -> Result<(), Hold> {
        let now = self.clock.now();
        tracing::warn!(connection.name = %job.name, connection.state = state.as_str(), "connection `{}`: {error}", job.name);
        let note = GrantNote {
            connection: job.id,
            workspace: job.workspace,
            generation: row.generation,
            state,
            error: Some(error),
            failures,
            retry_at: now.plus(pause),
            refreshing: mark,
            at: now,
        };
        match self.write(GrantStep::Note(note)).await {
            // Somebody has newer tokens: they are read next.
            Ok(()) | Err(WriteError::Stale) => Ok(()),
            Err(error) => Err(self.come_again(&job.name, &error.to_string())),
        }
    }
}

fn granted(row: &GrantRow, tokens: &Tokens) -> Granted {
    Granted {
        generation: row.generation,
        received_at: tokens.received_at,
        connected_at: row.connected_at,
        worked: AtomicBool::new(false),
    }
}

fn ended_by(error: &SendError) -> Ended {
    let left = match &error.kind {
        SendErrorKind::Egress(_)
        | SendErrorKind::Dns(_)
        | SendErrorKind::Connect(_)
        | SendErrorKind::NotRecorded(_)
        | SendErrorKind::LeaseOver
        | SendErrorKind::Unsendable(_) => false,
        SendErrorKind::Timeout | SendErrorKind::ConnectionLost(_) | SendErrorKind::TooLarge => true,
    };
    Ended::Unanswered {
        left,
        why: error.kind.to_string(),
    }
}

impl AccessToken {
    /// The token of a grant.
    fn granted_at(tokens: &Tokens, granted: Granted) -> Self {
        let lifetime = tokens.expires_at.since(tokens.received_at);
        AccessToken::new(tokens.access.clone(), tokens.received_at, lifetime).of_grant(granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_client::CONNECT_TIMEOUT;

    #[test]
    fn a_claim_outlasts_its_request() {
        // Nobody takes over while an answer may still come.
        assert!(LEASE > TOKEN_REQUEST_TIMEOUT + CONNECT_TIMEOUT + STORE_AGAIN.1);
    }

    #[test]
    fn only_what_cannot_have_left_counts_as_not_sent() {
        let check = |kind: SendErrorKind, wanted: bool| {
            let error = SendError {
                kind,
                never_left: false,
                status: None,
            };
            let Ended::Unanswered { left, .. } = ended_by(&error) else {
                panic!("an error is no answer")
            };
            assert_eq!(left, wanted, "{error:?}");
        };
        check(SendErrorKind::Dns("x".to_owned()), false);
        check(SendErrorKind::Connect("x".to_owned()), false);
        check(SendErrorKind::Timeout, true);
        check(SendErrorKind::ConnectionLost("x".to_owned()), true);
        check(SendErrorKind::TooLarge, true);
    }
}
