//! Who asks, and what they may do. Bearer tokens only: no cookies, so nothing that a foreign page could ride on.
//!
//! Everything fails closed: no token, an unknown one, an expired one and a malformed header all give the same answer.
//! Tokens are compared by their hashes and never kept in clear.

use async_graphql::Enum;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;
use weir_storage::{ApiTokenRow, token_hash};
use weir_workflow_engine::{Timestamp, TokenId, WorkspaceId};

/// One thing that a token may allow. Each field of the API names the permission it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enum)]
pub(crate) enum Permission {
    /// Read connectors, connections, endpoints and workflows, never their secrets.
    ConfigRead,
    /// Create, change, publish and delete connections, endpoints and workflows.
    ConfigWrite,
    /// Set credentials and webhook secrets; needed in addition to `CONFIG_WRITE` when a change carries one.
    SecretWrite,
    /// Read runs, their steps and attempts, and events without their contents.
    RunRead,
    /// Start, end, hold and replay runs.
    RunOperate,
    /// Decide what `approve` steps ask.
    RunApprove,
    /// Read contents: bodies and headers of events, exchanges, outputs and refused requests.
    PayloadRead,
    /// List, create and revoke API tokens.
    TokenAdmin,
    /// Read the audit trail: who changed what, and when.
    AuditRead,
    /// Read `/metrics` from another machine.
    MetricsRead,
}

impl Permission {
    /// Every permission: what the admin token has.
    pub(crate) const ALL: [Permission; 10] = [
        Permission::ConfigRead,
        Permission::ConfigWrite,
        Permission::SecretWrite,
        Permission::RunRead,
        Permission::RunOperate,
        Permission::RunApprove,
        Permission::PayloadRead,
        Permission::TokenAdmin,
        Permission::AuditRead,
        Permission::MetricsRead,
    ];

    /// The stable name, the same in the API, in messages and in the stored scopes.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Permission::ConfigRead => "CONFIG_READ",
            Permission::ConfigWrite => "CONFIG_WRITE",
            Permission::SecretWrite => "SECRET_WRITE",
            Permission::RunRead => "RUN_READ",
            Permission::RunOperate => "RUN_OPERATE",
            Permission::RunApprove => "RUN_APPROVE",
            Permission::PayloadRead => "PAYLOAD_READ",
            Permission::TokenAdmin => "TOKEN_ADMIN",
            Permission::AuditRead => "AUDIT_READ",
            Permission::MetricsRead => "METRICS_READ",
        }
    }

    fn by_name(name: &str) -> Option<Permission> {
        Permission::ALL
            .into_iter()
            .find(|permission| permission.as_str() == name)
    }
}

/// Permissions as the token row stores them: a JSON list of names.
pub(crate) fn write_scopes(permissions: &[Permission]) -> String {
    let mut names: Vec<_> = permissions.iter().map(|permission| permission.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    serde_json::Value::from(names).to_string()
}

/// Reads what [`write_scopes`] wrote. A name that this version does not know gives nothing.
pub(crate) fn read_scopes(scopes: &str) -> Vec<Permission> {
    let names: Vec<String> = serde_json::from_str(scopes).unwrap_or_default();
    let mut permissions: Vec<_> = names.iter().filter_map(|name| Permission::by_name(name)).collect();
    permissions.sort_unstable();
    permissions.dedup();
    permissions
}

/// A caller whose token was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// What people call it; it stands in the audit trail.
    pub(crate) name: String,
    /// The API token; `None` for the admin token.
    pub(crate) token: Option<TokenId>,
    /// The workspace it may see.
    pub(crate) workspace: WorkspaceId,
    permissions: Vec<Permission>,
}

impl Principal {
    /// The holder of the admin token: every permission.
    pub(crate) fn admin(workspace: WorkspaceId) -> Self {
        Principal {
            name: "admin".to_owned(),
            token: None,
            workspace,
            permissions: Permission::ALL.to_vec(),
        }
    }

    fn of_token(row: &ApiTokenRow) -> Self {
        Principal {
            name: row.name.clone(),
            token: Some(row.id),
            workspace: row.workspace,
            permissions: read_scopes(&row.scopes),
        }
    }

    /// Whether this permission was given.
    pub(crate) fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }

    /// All permissions that were given.
    pub(crate) fn permissions(&self) -> &[Permission] {
        &self.permissions
    }
}

/// The admin token, as a hash.
#[derive(Debug, Clone)]
pub(crate) struct AdminToken(Option<[u8; 32]>);

impl AdminToken {
    /// `None` or an empty text: there is no admin token, and no text is it.
    pub(crate) fn new(token: Option<&SecretString>) -> Self {
        AdminToken(
            token
                .map(|token| token.expose_secret())
                .filter(|token| !token.is_empty())
                .map(token_hash),
        )
    }

    fn is(&self, presented: &[u8; 32]) -> bool {
        self.0.is_some_and(|own| bool::from(own.ct_eq(presented)))
    }
}

/// The token of an `Authorization` header, if it is a bearer token.
pub(crate) fn bearer(header: Option<&str>) -> Option<&str> {
    let (scheme, token) = header?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Decides whose token this is.
pub(crate) fn identify(
    presented: Option<&str>,
    admin: &AdminToken,
    workspace: WorkspaceId,
    now: Timestamp,
    find: impl FnOnce(&[u8; 32]) -> Option<ApiTokenRow>,
) -> Option<Principal> {
    let hash = token_hash(presented?);
    if admin.is(&hash) {
        return Some(Principal::admin(workspace));
    }
    let row = find(&hash)?;
    let lives = row.expires_at.is_none_or(|end| now < end);
    (lives && bool::from(row.hash.ct_eq(&hash))).then(|| Principal::of_token(&row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(scopes: &str, expires_at: Option<i64>) -> ApiTokenRow {
        ApiTokenRow {
            id: TokenId::from_raw(7),
            workspace: WorkspaceId::from_raw(1),
            name: "ci".to_owned(),
            hash: token_hash("api-token"),
            scopes: scopes.to_owned(),
            created_at: Timestamp::from_unix_ms(0),
            expires_at: expires_at.map(Timestamp::from_unix_ms),
        }
    }

    fn who(header: Option<&str>, admin: Option<&str>, row: Option<ApiTokenRow>) -> Option<Principal> {
        let admin = AdminToken::new(admin.map(SecretString::from).as_ref());
        let find = |hash: &[u8; 32]| row.filter(|row| row.hash == *hash);
        identify(
            bearer(header),
            &admin,
            WorkspaceId::from_raw(1),
            Timestamp::from_unix_ms(1000),
            find,
        )
    }

    #[test]
    fn only_known_living_tokens_are_accepted() {
        let api = || Some(row(r#"["RUN_READ"]"#, None));
        assert_eq!(
            who(Some("Bearer root"), Some("root"), None).unwrap().permissions(),
            Permission::ALL
        );
        assert_eq!(who(Some("bearer  root "), Some("root"), None).unwrap().name, "admin");
        let ci = who(Some("Bearer api-token"), Some("root"), api()).unwrap();
        assert!(ci.may(Permission::RunRead) && !ci.may(Permission::RunOperate) && ci.name == "ci");
        for (header, admin, row) in [
            (None, Some("root"), api()),
            (Some("Bearer wrong"), Some("root"), api()),
            (Some("Basic root"), Some("root"), api()),
            (Some("root"), Some("root"), api()),
            (Some("Bearer "), Some(""), None),
            (Some("Bearer root"), None, None),
            (
                Some("Bearer api-token"),
                Some("root"),
                Some(super::tests::row(r#"["RUN_READ"]"#, Some(1000))),
            ),
        ] {
            assert_eq!(who(header, admin, row), None, "{header:?}");
        }
    }

    #[test]
    fn scopes_survive_storage_and_unknown_ones_give_nothing() {
        assert_eq!(
            read_scopes(&write_scopes(&Permission::ALL)).len(),
            Permission::ALL.len()
        );
        assert_eq!(read_scopes(r#"["RUN_READ","EVERYTHING"]"#), [Permission::RunRead]);
        assert_eq!(read_scopes("oops"), []);
    }
}
