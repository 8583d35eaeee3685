//! The calls of a look: each tells the provider one thing, and is stored before the next.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use weir_connector_sdk::{Hook, Register, RegisterAsk, RegisterCall, RegisterSecret, redact};
use weir_workflow_engine::{CallFailure, Timestamp};

use super::{LEASE, Look, Stop};
use crate::budget::Class;
use crate::connection::Connection;
use crate::registrations::rules::{Wanted, Wish};

/// How long one call to the provider may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Pages of a provider's list of webhooks that are read.
///
/// Limit: pages of a provider's list of webhooks that are read | the registration fails with that reason, and is tried again | `a_list_of_webhooks_is_not_read_without_bound`
pub const MAX_HOOK_PAGES: u32 = 50;
/// Longest error that is kept, characters.
const MAX_ERROR_CHARACTERS: usize = 500;

/// Where a registration is.
#[derive(Clone, Copy)]
pub(super) struct Provider<'a> {
    pub(super) connection: &'a Arc<Connection>,
    pub(super) register: &'a Register,
    /// Whose webhooks, as the endpoint says.
    pub(super) with: &'a Map<String, Value>,
}

impl Look<'_> {
    /// The provider's webhooks that have our id or our address.
    pub(super) async fn list(&self, at: Provider<'_>, wish: &Wish) -> Result<Vec<Hook>, Stop> {
        let wanted = match wish {
            Wish::Registered(wanted) => Some(wanted.url.as_str()),
            Wish::Absent(_) | Wish::Unclear(_) => None,
        };
        let ours = [self.row.url.as_deref(), wanted];
        let args = self.args(at, &at.register.list, (wanted, None))?;
        let mut found = Vec::new();
        let mut page = None;
        for _ in 0..MAX_HOOK_PAGES {
            let call = &at.register.list.call;
            let class = (Class::Live, CALL_TIMEOUT);
            let asking = self
                .core
                .performer
                .list_page(at.connection, call, Ok(args.clone()), page.as_ref(), class);
            let listed = asking.await.map_err(|failure| self.failed(call, &failure))?;
            let hooks = listed.items.iter().filter_map(|item| at.register.hook(item));
            found.extend(hooks.filter(|hook| {
                Some(&hook.id) == self.row.provider_id.as_ref()
                    || hook.url.as_deref().is_some_and(|url| ours.contains(&Some(url)))
            }));
            match listed.next {
                Some(next) => page = Some(next),
                None => return Ok(found),
            }
        }
        Err(Stop::Failed(format!(
            "the provider lists more than {MAX_HOOK_PAGES} pages of webhooks"
        )))
    }

    pub(super) async fn delete(&mut self, at: Provider<'_>, id: &str, seen: &mut Vec<Hook>) -> Result<(), Stop> {
        let call = &at.register.delete;
        let args = self.args(at, call, (None, Some(id)))?;
        match self.call(at, call, &args).await {
            Err(failure) if !is_gone(&failure) => return Err(self.failed(&call.call, &failure)),
            Ok(_) | Err(_) => {}
        }
        seen.retain(|hook| hook.id != id);
        self.tell("deleted", id);
        if self.row.provider_id.as_deref() == Some(id) {
            self.row.provider_id = None;
            self.row.expires_at = None;
            if at.register.secret == RegisterSecret::Returned {
                self.secrets.retire(self.now());
            }
        }
        self.save(Some(LEASE)).await
    }

    pub(super) async fn create(&mut self, at: Provider<'_>, wanted: &Wanted, seen: &mut Vec<Hook>) -> Result<(), Stop> {
        self.row.provider_id = None;
        self.note(wanted);
        if at.register.secret == RegisterSecret::Ours && self.secrets.current().is_none() {
            self.secrets.make();
            self.is_news = true;
        }
        // From here on whatever has this address is ours.
        self.save(Some(LEASE)).await?;
        let call = &at.register.create;
        let expires = self.lifetime(at);
        let args = self.args(at, call, (Some(&wanted.url), None))?;
        let answer = self
            .call(at, call, &args)
            .await
            .map_err(|failure| self.failed(&call.call, &failure))?;
        let unreadable = |what: &str| Stop::Failed(format!("`{}`: the answer holds no {what}", call.call));
        let hook = at.register.hook(&answer).ok_or_else(|| unreadable("id"))?;
        let now = self.now();
        if at.register.secret == RegisterSecret::Returned {
            let secret = at
                .register
                .returned_secret(&answer)
                .ok_or_else(|| unreadable("secret"))?;
            self.secrets.replace(secret, now);
            self.is_news = true;
        }
        self.row.provider_id = Some(hook.id.clone());
        self.row.created_at = Some(now);
        self.row.renewed_at = Some(now);
        self.row.checked_at = Some(now);
        self.row.expires_at = hook.expires_unix_ms.or(expires).map(Timestamp::from_unix_ms);
        self.save_surely().await?;
        self.tell("created", &hook.id);
        seen.push(Hook {
            expires_unix_ms: self.row.expires_at.map(Timestamp::as_unix_ms),
            ..as_told(hook, wanted)
        });
        Ok(())
    }

    pub(super) async fn update(
        &mut self,
        at: Provider<'_>,
        wanted: &Wanted,
        id: &str,
        seen: &mut Vec<Hook>,
    ) -> Result<(), Stop> {
        let Some(call) = &at.register.update else {
            return Err(Stop::Failed(
                "the connector no longer says how webhooks are changed".to_owned(),
            ));
        };
        self.note(wanted);
        let args = self.args(at, call, (Some(&wanted.url), Some(id)))?;
        match self.call(at, call, &args).await {
            Ok(_) => {
                self.tell("updated", id);
                for hook in seen.iter_mut().filter(|hook| hook.id == id) {
                    *hook = as_told(hook.clone(), wanted);
                }
            }
            Err(failure) if is_gone(&failure) => seen.retain(|hook| hook.id != id),
            Err(failure) => return Err(self.failed(&call.call, &failure)),
        }
        self.save(Some(LEASE)).await
    }

    pub(super) async fn renew(
        &mut self,
        at: Provider<'_>,
        wanted: &Wanted,
        id: &str,
        seen: &mut Vec<Hook>,
    ) -> Result<(), Stop> {
        let Some(call) = &at.register.renew else {
            return Err(Stop::Failed(
                "the connector no longer says how webhooks are renewed".to_owned(),
            ));
        };
        let expires = self.lifetime(at);
        let args = self.args(at, call, (Some(&wanted.url), Some(id)))?;
        match self.call(at, call, &args).await {
            Ok(answer) => {
                let told = at.register.hook(&answer).and_then(|hook| hook.expires_unix_ms);
                let expires = told.or(expires);
                self.row.expires_at = expires.map(Timestamp::from_unix_ms);
                self.row.renewed_at = Some(self.now());
                self.tell("renewed", id);
                for hook in seen.iter_mut().filter(|hook| hook.id == id) {
                    hook.expires_unix_ms = expires;
                }
            }
            Err(failure) if is_gone(&failure) => seen.retain(|hook| hook.id != id),
            Err(failure) => return Err(self.failed(&call.call, &failure)),
        }
        self.save(Some(LEASE)).await
    }

    /// What the provider is about to be told.
    fn note(&mut self, wanted: &Wanted) {
        self.row.url = Some(wanted.url.clone());
        self.row.events = wanted.events.iter().cloned().collect();
    }

    fn lifetime(&self, at: Provider<'_>) -> Option<i64> {
        let lifetime_ms = i64::try_from(at.register.lifetime_s?.saturating_mul(1_000)).ok()?;
        self.now().as_unix_ms().checked_add(lifetime_ms)
    }

    fn args(
        &self,
        at: Provider<'_>,
        call: &RegisterCall,
        (url, id): (Option<&str>, Option<&str>),
    ) -> Result<Value, Stop> {
        let ask = RegisterAsk {
            url: url.or(self.row.url.as_deref()).unwrap_or_default(),
            events: &self.row.events,
            secret: self
                .secrets
                .current()
                .filter(|_| at.register.secret == RegisterSecret::Ours),
            id,
            expires_unix_ms: self.lifetime(at),
            with: at.with,
        };
        call.args(&ask)
            .map_err(|error| Stop::Failed(format!("`{}` cannot be called: {}", call.call, error.message)))
    }

    async fn call(&self, at: Provider<'_>, call: &RegisterCall, args: &Value) -> Result<Value, CallFailure> {
        let performer = &self.core.performer;
        performer.manage(at.connection, &call.call, args, CALL_TIMEOUT).await
    }

    fn failed(&self, call: &str, failure: &CallFailure) -> Stop {
        let told = format!("`{call}`: {}: {}", failure.code, failure.message);
        // A provider may show what it was told.
        let secrets = self.secrets.all().map(|secret| secret.expose_secret());
        let told = redact::hide(&told, secrets).unwrap_or(told);
        Stop::Failed(told.chars().take(MAX_ERROR_CHARACTERS).collect())
    }
}

/// A webhook as it is once the provider was told what is wanted.
fn as_told(hook: Hook, wanted: &Wanted) -> Hook {
    Hook {
        url: Some(wanted.url.clone()),
        events: Some(wanted.events.clone()),
        works: true,
        ..hook
    }
}

fn is_gone(failure: &CallFailure) -> bool {
    matches!(failure.http_status, Some(404 | 410))
}
