//! Grants: what a person allowed at a provider, and the tokens that it is kept alive with.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &[&str] = &[
    // One row per connection that was ever granted. `tokens` is sealed; null: disconnected. `generation` is raised by
    // every change of the tokens and is what each write proves. `owner` is the incarnation of the node that refreshes
    // now, 0 nobody, until `lease_until` by the time of the database. `refreshing_since` and `refreshing_by`: a refresh of
    // this generation left then, from that node, and its answer was not stored.
    "CREATE TABLE oauth_grant (
        connection_id {id},
        workspace_id {big} NOT NULL,
        state {small} NOT NULL,
        tokens {bytes},
        generation {big} NOT NULL,
        owner {big} NOT NULL,
        lease_until {big} NOT NULL,
        refreshing_since {big},
        refreshing_by TEXT,
        expires_at {big},
        account TEXT,
        label TEXT,
        scopes TEXT,
        instance_url TEXT,
        error TEXT,
        failures {int} NOT NULL,
        retry_at {big} NOT NULL,
        state_since {big} NOT NULL,
        connected_at {big},
        refreshed_at {big}
    ){strict}",
    // People on their way to a provider. `sealed` holds the proof key; a row is taken once.
    "CREATE TABLE oauth_attempt (
        id {id},
        workspace_id {big} NOT NULL,
        connection_id {big} NOT NULL,
        sealed {bytes} NOT NULL,
        expires_at {big} NOT NULL
    ){strict}",
    "CREATE INDEX oauth_attempt_connection ON oauth_attempt (connection_id, id)",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, TABLES).await
    }
}
