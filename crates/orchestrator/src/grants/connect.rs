//! Connecting: a person is sent to the provider, comes back with a code, and the code becomes a grant.
//!
//! The way back is open to anybody, so nothing is done before the state proves that we sent the person, and each state
//! counts once. What goes wrong is told in words of ours: a provider's texts are shown nowhere.

use std::sync::Arc;
use std::time::Duration;

use oauth2::PkceCodeChallenge;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use weir_connector_sdk::{AuthorizeAsk, Credential, OAuth2CodeScheme, TokenSet};
use weir_storage::{
    AuditEntry, AuthorizationAttempt, ConfigChange, ConfigRowChange, ConfigSubject, ExpectedRevision, Fact,
    GrantRefused, GrantStep, NewGrant, RowIdentity, WriteError,
};
use weir_workflow_engine::{
    CallCommand, CallId, CallOutcome, ConnectionId, Document, EffectClass, Timestamp, WorkspaceId,
};

use super::account::{Account, may_replace};
use super::callback::{Authorization, Callback, ConnectError, Connected, check_issuer, refusal};
use super::state::{BadState, State};
use super::tokens::Tokens;
use super::{Grants, scheme_of};
use crate::configure::Actor;
use crate::connection::Connection;
use crate::credentials::AccessToken;
use crate::perform::Purpose;
use crate::service::Orchestrator;
use crate::snapshot::open_json;

/// How long a person may take at the provider.
///
/// Limit: time that a person may take at a provider to let a connection in | the way back is refused, `OAUTH_STATE` | `a_state_comes_back_unchanged_in_time_or_not_at_all`
pub const MAX_AUTHORIZATION: Duration = Duration::from_secs(30 * 60);
/// Time for the call that says whose account it is.
const TEST_CALL: Duration = Duration::from_secs(30);
/// Longest code that is taken from the way back, bytes.
const MAX_CODE_BYTES: usize = 8_000;
/// The path that providers send people back to.
pub(crate) const CALLBACK: &str = "/oauth/callback";

/// What is kept of a person's way, sealed.
struct Way {
    verifier: SecretString,
    redirect_uri: String,
    actor: String,
    another_account: bool,
}

impl Way {
    fn seal(&self) -> Vec<u8> {
        let value = json!({
            "verifier": self.verifier.expose_secret(),
            "redirect_uri": self.redirect_uri,
            "actor": self.actor,
            "another_account": self.another_account,
        });
        value.to_string().into_bytes()
    }

    fn read(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        Some(Way {
            verifier: text("verifier")?.into(),
            redirect_uri: text("redirect_uri")?.to_owned(),
            actor: text("actor")?.to_owned(),
            another_account: value.get("another_account").and_then(Value::as_bool)?,
        })
    }
}

impl Orchestrator {
    /// Begins to connect: where to send a person, and until when. Nothing changes before the person comes back.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connection_authorize(
        &self,
        workspace: WorkspaceId,
        actor: &Actor,
        name: &str,
        another_account: bool,
    ) -> Result<Authorization, ConnectError> {
        let snapshot = self.snapshot();
        let connection = snapshot.connection(workspace, name).ok_or(ConnectError::NotFound)?;
        let (scheme, credential) = granting(connection)?;
        let now = self.now();
        let id = self.core.new_id(now);
        let expires_at = now.plus(MAX_AUTHORIZATION);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let redirect_uri = format!("{}{CALLBACK}", self.public_url());
        let state = State {
            workspace,
            connection: connection.id,
            attempt: id,
            expires_at,
        };
        let ask = AuthorizeAsk {
            redirect_uri: &redirect_uri,
            state: &state.seal(&self.core.secrets),
            code_challenge: challenge.as_str(),
        };
        let url = scheme
            .authorize_url(
                &connection.config,
                connection.connector.config_defaults(),
                credential,
                &ask,
            )
            .map_err(|error| ConnectError::NotGranted {
                name: name.to_owned(),
                why: error.to_string(),
            })?;
        let way = Way {
            verifier: verifier.secret().as_str().into(),
            redirect_uri: redirect_uri.clone(),
            actor: actor.label(),
            another_account,
        };
        let attempt = AuthorizationAttempt {
            id,
            workspace,
            connection: connection.id,
            sealed: self
                .core
                .secrets
                .seal(&RowIdentity::authorization(workspace, id), &way.seal()),
            expires_at,
            at: now,
        };
        match self.grant_step(GrantStep::Begin(attempt)).await {
            Ok(()) => Ok(Authorization {
                url,
                redirect_uri,
                expires_at,
            }),
            Err(WriteError::Stale) => Err(ConnectError::NotFound),
            Err(error) => Err(ConnectError::Unavailable(error.to_string())),
        }
    }

    /// A person came back: exchanges the code, asks whose account it is, and stores the grant.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing was connected, and a connection that worked before works as before.
    pub async fn connection_complete(&self, callback: Callback) -> Result<Connected, ConnectError> {
        let this = self.clone();
        // A person who closes the window must not lose what the provider answers.
        let completing = self.core.tasks.spawn_on(
            async move { Box::pin(this.complete(callback)).await },
            &self.core.runtime,
        );
        let unavailable = |_panic| ConnectError::Unavailable("the connection could not be made".to_owned());
        completing.await.map_err(unavailable)?
    }

    async fn complete(&self, callback: Callback) -> Result<Connected, ConnectError> {
        let now = self.now();
        let text = callback.state.as_deref().unwrap_or_default();
        let state = State::open(text, &self.core.secrets, now).map_err(|bad| match bad {
            BadState::NotOurs => {
                ConnectError::State("this address was not made by this server, or was changed on its way")
            }
            BadState::Expired => ConnectError::State("this way to connect has expired; begin anew"),
        })?;
        let way = self.take_way(&state).await?;
        let done = Box::pin(self.connect(&state, &way, &callback)).await;
        if let Err(error) = &done {
            tracing::warn!("a connection was not made: {error}");
            let refused = GrantRefused {
                connection: state.connection,
                workspace: state.workspace,
                error: format!("connecting failed: {error}"),
                at: now,
            };
            if let Err(error) = self.grant_step(GrantStep::Refused(refused)).await {
                tracing::debug!("that a connection was not made could not be stored: {error}");
            }
        }
        done
    }

    /// Takes the way of a state: only the first who comes gets it.
    async fn take_way(&self, state: &State) -> Result<Way, ConnectError> {
        let used = ConnectError::State("this way to connect was used already, or is over; begin anew");
        let unavailable = || ConnectError::Unavailable("the database does not answer; try again".to_owned());
        let found = self
            .store()
            .authorization_load(state.workspace, state.attempt)
            .await
            .map_err(|_error| unavailable())?;
        let Some(attempt) = found.filter(|attempt| attempt.connection == state.connection) else {
            return Err(used);
        };
        let take = GrantStep::Take {
            workspace: state.workspace,
            id: state.attempt,
        };
        match self.grant_step(take).await {
            Ok(()) => {}
            Err(WriteError::Stale) => return Err(used),
            Err(_error) => return Err(unavailable()),
        }
        let identity = RowIdentity::authorization(state.workspace, state.attempt);
        let opened = open_json(&self.core.secrets, &identity, &attempt.sealed, || {
            "an authorization".to_owned()
        });
        opened.ok().as_ref().and_then(Way::read).ok_or(used)
    }

    async fn connect(&self, state: &State, way: &Way, callback: &Callback) -> Result<Connected, ConnectError> {
        // Another server may have changed it a moment ago.
        let snapshot = self.latest().await.unwrap_or_else(|| self.snapshot());
        let (connection, row) = snapshot
            .connections(state.workspace)
            .find(|(connection, _)| connection.id == state.connection)
            .ok_or(ConnectError::NotFound)?;
        let (scheme, credential) = granting(connection)?;
        let settings = (&connection.config, connection.connector.config_defaults());
        check_issuer(scheme, settings, callback)?;
        if let Some(error) = &callback.error {
            return Err(ConnectError::Refused(refusal(error)));
        }
        let code = callback.code.as_ref().filter(|code| {
            let bytes = code.expose_secret().len();
            (1..=MAX_CODE_BYTES).contains(&bytes)
        });
        let code = code.ok_or_else(|| ConnectError::Refused("the provider sent no code back".to_owned()))?;
        let grants = self.grants()?;
        let request = scheme
            .exchange_request(settings, credential, code, &way.redirect_uri, &way.verifier)
            .map_err(|error| ConnectError::Refused(error.to_string()))?;
        let response = grants.send(request).await.map_err(|error| {
            ConnectError::Refused(format!(
                "the token endpoint gave no answer: {}; connect again",
                error.kind
            ))
        })?;
        let set = scheme
            .tokens(&response)
            .map_err(|error| ConnectError::Refused(format!("the token endpoint refused the code: {}", error.code)))?;
        let received_at = self.now();
        let account = self.account_of(connection, &set).await?;
        let before = self
            .store()
            .grant_load(state.workspace, state.connection)
            .await
            .map_err(|_error| ConnectError::Unavailable("the database does not answer; connect again".to_owned()))?;
        let known = before.as_ref().and_then(|before| before.account.as_deref());
        if !may_replace(known, account.id.as_deref(), way.another_account) {
            return Err(ConnectError::OtherAccount(format!(
                "connection `{}` belongs to the account {}, and you signed in to {}; sign in to that one, or say \
                 `weir connection authorize {} --another-account`",
                connection.name,
                known.unwrap_or_default(),
                account.name().unwrap_or_default(),
                connection.name
            )));
        }
        let tokens = Tokens::new(&set, None, received_at);
        let grant = NewGrant {
            connection: state.connection,
            workspace: state.workspace,
            tokens: tokens.seal(&self.core.secrets, state.workspace, state.connection),
            expires_at: tokens.expires_at,
            account: account.id.clone(),
            label: account.label.clone(),
            scopes: set.scopes.clone(),
            instance_url: set.instance_url.clone(),
            at: received_at,
        };
        let detail = json!({ "account": account.id, "label": account.label, "scopes": set.scopes });
        self.store_grant(grant, row.revision, &connection.name, &way.actor, &detail)
            .await?;
        tracing::info!(connection.name = %connection.name, actor = %way.actor, "`{}` is connected", connection.name);
        Ok(Connected {
            connection: connection.name.clone(),
            account: account.name(),
        })
    }

    /// Whose account the tokens are for: the `auth.test` call of the connector, or what the token answer says.
    async fn account_of(&self, connection: &Connection, set: &TokenSet) -> Result<Account, ConnectError> {
        let stated = Account {
            id: set.account.clone(),
            label: None,
        };
        let Some(test) = connection.connector.auth_test() else {
            return Ok(stated);
        };
        let trial = connection.on_trial(set, self.now());
        let command = CallCommand {
            call: CallId(0),
            step: String::new(),
            attempt: 1,
            connection: connection.name.clone(),
            connector: connection.connector.name().to_owned(),
            operation: test.call.clone(),
            args: Document::from_value(json!({})),
            args_at: String::new(),
            all_max: None,
            timeout: TEST_CALL,
            class: EffectClass::Read,
            effect: None,
        };
        let called = self
            .core
            .performer
            .call(&Arc::new(trial), &command, &Purpose::default())
            .await;
        let failed = |why: String| {
            let call = &test.call;
            ConnectError::Refused(format!(
                "the tokens came, but the call `{call}` that tries them failed: {why}"
            ))
        };
        match called.outcome {
            CallOutcome::Done { output } => {
                let read = Account::read(test, output.value());
                Ok(Account {
                    id: read.id.or(stated.id),
                    label: read.label,
                })
            }
            CallOutcome::Failed(failure) => Err(failed(match failure.http_status {
                Some(status) => format!("{} (HTTP {status})", failure.code),
                None => failure.message,
            })),
            CallOutcome::Held(hold) => Err(failed(hold.reason)),
        }
    }

    async fn store_grant(
        &self,
        grant: NewGrant,
        revision: i64,
        name: &str,
        actor: &str,
        detail: &Value,
    ) -> Result<(), ConnectError> {
        let (workspace, id, at) = (grant.workspace, grant.connection, grant.at);
        let entry = self.grant_audit(workspace, at, (actor, "connection.connect"), name, detail);
        let change = ConfigChange {
            changes: vec![ConfigRowChange::PutGrant(grant)],
            expected: vec![ExpectedRevision {
                workspace,
                subject: ConfigSubject::Connection(id),
                revision: Some(revision),
            }],
            audit: vec![entry],
        };
        self.change_grant(change).await
    }

    pub(super) fn grant_audit(
        &self,
        workspace: WorkspaceId,
        at: Timestamp,
        (actor, action): (&str, &str),
        name: &str,
        detail: &Value,
    ) -> AuditEntry {
        AuditEntry {
            id: self.core.new_id(at),
            workspace,
            at,
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject: name.to_owned(),
            client_ip: None,
            request_id: None,
            detail: detail.to_string(),
        }
    }

    /// Writes a change of a grant and puts it in force here; the other servers hear of it with their next heartbeat.
    pub(super) async fn change_grant(&self, change: ConfigChange) -> Result<(), ConnectError> {
        let _one_at_a_time = self.core.configuring.lock().await;
        let written = crate::configure::outcome(self.writer(), Fact::Config(change)).await;
        match written {
            Ok(None) => {}
            Ok(Some(_changed)) => {
                return Err(ConnectError::Unavailable(
                    "the connection was changed meanwhile; connect again".to_owned(),
                ));
            }
            Err(error) => return Err(ConnectError::Unavailable(error.to_string())),
        }
        if let Err(error) = self.reload().await {
            tracing::warn!("a grant was stored, and is in force as soon as the configuration can be read: {error}");
        }
        Ok(())
    }

    pub(super) fn grants(&self) -> Result<&Arc<Grants>, ConnectError> {
        let grants = self.core.performer.grants.as_ref();
        grants.ok_or_else(|| ConnectError::Unavailable("this server keeps no access that people grant".to_owned()))
    }

    async fn grant_step(&self, step: GrantStep) -> Result<(), WriteError> {
        match self.writer().submit(Fact::Grant(step)) {
            Ok(pending) => pending.await.map(drop),
            Err(_full) => Err(WriteError::Unavailable),
        }
    }
}

impl Connection {
    /// The same account-to-be with tokens that are not stored yet.
    fn on_trial(&self, set: &TokenSet, now: Timestamp) -> Connection {
        let lifetime = Duration::from_secs(set.expires_in_s);
        let mut trial = Connection::new(
            self.id,
            self.workspace,
            self.name.clone(),
            Arc::clone(&self.connector),
            self.own_config(),
            self.credential.clone(),
            None,
        )
        .at_account(None, set.instance_url.clone());
        trial.trial = Some(Arc::new(AccessToken::new(set.access_token.clone(), now, lifetime)));
        trial
    }
}

/// How a connection is let in.
pub(super) fn granting(connection: &Connection) -> Result<(&OAuth2CodeScheme, &Credential), ConnectError> {
    let not = |why: String| ConnectError::NotGranted {
        name: connection.name.clone(),
        why,
    };
    let Some(scheme) = scheme_of(&connection.connector) else {
        let connector = connection.connector.name();
        return Err(not(format!(
            "the connector `{connector}` has no `oauth2` with `grant: authorization_code`"
        )));
    };
    match &connection.credential {
        Some(credential @ Credential::OAuth2 { .. }) => Ok((scheme, credential)),
        Some(other) => Err(not(format!(
            "its credential is of the kind `{}`; give it `credential: {{ oauth2: {{ client_id, client_secret }} }}`",
            other.kind()
        ))),
        None => Err(not(
            "it has no credential; give it `credential: { oauth2: { client_id, client_secret } }`".to_owned(),
        )),
    }
}

impl Grants {
    /// The connection's grant is looked after by nobody else in this process, until the guard is dropped.
    pub(super) async fn alone_with(&self, id: ConnectionId) -> tokio::sync::OwnedMutexGuard<super::Last> {
        Arc::clone(&self.slot(id).settling).lock_owned().await
    }

    pub(super) fn secrets(&self) -> &weir_storage::SecretBox {
        &self.seed.secrets
    }
}
