//! Connectors that workspaces publish into a running server: one row per version, never changed.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &[&str] = &[
    // No release wrote into it. A table of SQLite cannot be given another key.
    "DROP TABLE connector_manifest",
    "CREATE TABLE connector_manifest (
        workspace_id {big} NOT NULL,
        name TEXT NOT NULL,
        version TEXT NOT NULL,
        document TEXT NOT NULL,
        created_at {big} NOT NULL,
        PRIMARY KEY (workspace_id, name, version)
    ){strict}",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, TABLES).await
    }
}
