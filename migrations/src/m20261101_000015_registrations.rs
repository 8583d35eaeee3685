//! Registrations: the webhooks that Weir made at providers, and what they are verified with.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &[&str] = &[
    // One row per endpoint that was to be registered. It outlives its endpoint until the provider's webhook is deleted, so
    // connection and `place` (whose webhooks, as JSON) are those that it was made with. `url` is written before
    // the webhook is made: whatever the provider has with it is this row's. `secrets` is sealed, and the first of those that the
    // provider no longer uses counts until `secrets_until`. `generation` is raised by
    // every write and is what each write proves. `owner` is the incarnation of the node that works at it, 0 nobody, until
    // `lease_until` by the time of the database.
    "CREATE TABLE registration (
        endpoint_id {id},
        workspace_id {big} NOT NULL,
        connection_id {big} NOT NULL,
        place TEXT NOT NULL,
        provider_id TEXT,
        url TEXT,
        events TEXT NOT NULL,
        secrets {bytes},
        secrets_until {big},
        expires_at {big},
        created_at {big},
        renewed_at {big},
        checked_at {big},
        drift TEXT,
        drifted_at {big},
        error TEXT,
        failures {int} NOT NULL,
        retry_at {big} NOT NULL,
        generation {big} NOT NULL,
        owner {big} NOT NULL,
        lease_until {big} NOT NULL
    ){strict}",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, TABLES).await
    }
}
