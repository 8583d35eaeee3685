//! Sweeps: how far each endpoint's list was read, and what arrived, by hour.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &[&str] = &[
    // How the endpoint is swept and whether it takes webhooks at all, JSON; null: as its connector says.
    "ALTER TABLE endpoint ADD COLUMN sweep TEXT",
    // One row per endpoint that was swept. `owner` is the incarnation of the node that sweeps it now, 0 nobody; every
    // move of `cursor` proves it. `covered_until`: what the provider lists up to then is here. `lost_*`: a span that its
    // list no longer reached.
    "CREATE TABLE sweep (
        endpoint_id {id},
        workspace_id {big} NOT NULL,
        owner {big} NOT NULL,
        cursor TEXT,
        covered_until {big},
        lost_from {big},
        lost_until {big},
        cause TEXT NOT NULL,
        started_at {big} NOT NULL,
        finished_at {big},
        outcome TEXT,
        error TEXT,
        pages {int} NOT NULL,
        recovered {big} NOT NULL,
        duplicates {big} NOT NULL,
        failures {int} NOT NULL
    ){strict}",
    "CREATE TABLE coverage (
        endpoint_id {big} NOT NULL,
        hour {int} NOT NULL,
        workspace_id {big} NOT NULL,
        received {big} NOT NULL,
        recovered {big} NOT NULL,
        duplicates {big} NOT NULL,
        PRIMARY KEY (endpoint_id, hour)
    ){clustered}",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, TABLES).await
    }
}
