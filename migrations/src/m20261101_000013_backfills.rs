//! Backfills: a chosen past range of a provider's list, read by one node at a time.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &[&str] = &[
    // `owner` is the incarnation of the node that reads the list now, 0 nobody; every move proves it. `place`: where the
    // walk goes on. `reached`: the time of the last item. `retry_at`: not to be taken up before, after a failed try.
    "CREATE TABLE backfill (
        id {id},
        workspace_id {big} NOT NULL,
        endpoint_id {big} NOT NULL,
        status {small} NOT NULL,
        owner {big} NOT NULL,
        actor TEXT NOT NULL,
        since {big} NOT NULL,
        until {big} NOT NULL,
        place TEXT,
        reached {big},
        pages {int} NOT NULL,
        listed {big} NOT NULL,
        recovered {big} NOT NULL,
        duplicates {big} NOT NULL,
        passed_over {big} NOT NULL,
        failures {int} NOT NULL,
        error TEXT,
        created_at {big} NOT NULL,
        retry_at {big} NOT NULL,
        finished_at {big}
    ){strict}",
    "CREATE INDEX backfill_endpoint ON backfill (endpoint_id, id)",
    // One at a time per endpoint, running or paused.
    "CREATE UNIQUE INDEX backfill_open ON backfill (endpoint_id) WHERE status < 2",
    // What there is to do; a server that works at none finds nothing here.
    "CREATE INDEX backfill_running ON backfill (id) WHERE status = 0",
    // New events that backfills found, apart from those of sweeps.
    "ALTER TABLE coverage ADD COLUMN backfilled {big} NOT NULL DEFAULT 0",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, TABLES).await
    }
}
