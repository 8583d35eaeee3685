//! Mutations of API tokens.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::scalars::DateTime;
use super::super::types::token::ApiToken;
use super::super::user_error::{UserError, UserErrorCode, in_input, of_apply};
use super::{DeletePayload, input_id};
use crate::auth::{self, Permission};
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use weir_orchestrator::Orchestrator;
use weir_storage::token_hash;
use weir_workflow_engine::{TokenId, WorkspaceId};

/// Longest name of a token, characters.
///
/// Limit: name of a token | `INVALID` | `inputs_stop_at_their_bounds`
const MAX_NAME_CHARACTERS: usize = 100;
/// Every token begins with this, so that scanners for leaked secrets find it.
const TOKEN_PREFIX: &str = "weir_tok_";

/// Whom the audit trail calls so: the administrator of the server's own token, the server, a sender.
const RESERVED_NAMES: [&str; 3] = ["admin", "system", "provider"];

/// Mutations of API tokens.
#[derive(Default)]
pub(crate) struct TokenMutations;

#[Object]
impl TokenMutations {
    /// Creates an API token. Nobody can give a permission that they do not have. Needs `TOKEN_ADMIN`.
    async fn token_create(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The new token.")] input: TokenCreateInput,
    ) -> ApiResult<TokenCreatePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::TokenAdmin)?;
        for permission in &input.permissions {
            caller.may(*permission)?;
        }
        let name = input.name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARACTERS {
            let error = UserError::input(
                UserErrorCode::Invalid,
                "name",
                format!("a name has 1 to {MAX_NAME_CHARACTERS} characters"),
            );
            return Ok(TokenCreatePayload::refused(vec![error]));
        }
        if let Some(taken) = who_has(name, orchestrator, workspace) {
            let error = UserError::input(UserErrorCode::Taken, "name", taken);
            return Ok(TokenCreatePayload::refused(vec![error]));
        }
        if input.permissions.is_empty() {
            return Ok(TokenCreatePayload::refused(vec![UserError::input(
                UserErrorCode::Required,
                "permissions",
                "a token needs a permission",
            )]));
        }
        let expires_at = input.expires_at.map(|time| time.0);
        if expires_at.is_some_and(|end| end <= orchestrator.now()) {
            return Ok(TokenCreatePayload::refused(vec![UserError::input(
                UserErrorCode::Invalid,
                "expiresAt",
                "this is in the past",
            )]));
        }
        let token = make();
        let hash = token_hash(token.expose_secret());
        let scopes = auth::write_scopes(&input.permissions);
        match orchestrator
            .token_create(workspace, &caller.actor(), name, scopes, hash, expires_at)
            .await
        {
            Ok(_id) => {
                let row = caller.any().snapshot().token(&hash).cloned();
                Ok(TokenCreatePayload {
                    token: row.map(ApiToken),
                    value_once: Some(token.expose_secret().to_owned()),
                    user_errors: Vec::new(),
                })
            }
            Err(error) => of_apply(error, "name", &in_input).map(TokenCreatePayload::refused),
        }
    }

    /// Revokes an API token: it is refused from now on. Needs `TOKEN_ADMIN`.
    async fn token_revoke(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which token.")] input: TokenRevokeInput,
    ) -> ApiResult<DeletePayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::TokenAdmin)?;
        let id = match input_id::<TokenId>(&input.id, "id") {
            Ok(id) => id,
            Err(errors) => return Ok(DeletePayload::refused(errors)),
        };
        match orchestrator.token_revoke(workspace, &caller.actor(), id).await {
            Ok(()) => Ok(DeletePayload::deleted(input.id)),
            Err(error) => of_apply(error, "id", &in_input).map(DeletePayload::refused),
        }
    }
}

/// Who has a name already. People are told apart by it: in the audit trail, and among those who may decide an approval.
fn who_has(name: &str, orchestrator: &Orchestrator, workspace: WorkspaceId) -> Option<String> {
    if RESERVED_NAMES.contains(&name) || name.starts_with("token:") {
        return Some(format!(
            "`{name}` is how the audit trail names somebody else: take another name"
        ));
    }
    let now = orchestrator.now();
    let snapshot = orchestrator.snapshot();
    let mut alive = snapshot
        .tokens(workspace)
        .filter(|row| row.expires_at.is_none_or(|end| end > now));
    alive.any(|row| row.name == name).then(|| {
        format!(
            "there is a token `{name}` already: revoke it first, or take another name (an `approve` step takes several \
             names in `by`)"
        )
    })
}

/// A new token: 256 random bits.
fn make() -> SecretString {
    let random: [u8; 32] = rand::random();
    SecretString::from(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// A new token.
#[derive(Debug, InputObject)]
pub(crate) struct TokenCreateInput {
    /// What people call it; it stands in the audit trail.
    name: String,
    /// What it may do.
    permissions: Vec<Permission>,
    /// When it ends. Left out: it does not.
    expires_at: Option<DateTime>,
}

/// Which token to revoke.
#[derive(Debug, InputObject)]
pub(crate) struct TokenRevokeInput {
    /// Id of the token.
    id: ID,
}

/// A token that was created.
#[derive(SimpleObject)]
pub(crate) struct TokenCreatePayload {
    /// The token's description. Null: nothing was created.
    token: Option<ApiToken>,
    /// The token itself. Shown this once; keep it safe.
    value_once: Option<String>,
    /// What the input did wrong.
    user_errors: Vec<UserError>,
}

impl TokenCreatePayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        TokenCreatePayload {
            token: None,
            value_once: None,
            user_errors,
        }
    }
}
