//! What retention has dropped and not yet deleted: histories are dropped whole, and deleted in small slices.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &[&str] = &[
    // Runs and events whose rows are gone, and some of whose journal rows and large values are still to be deleted.
    "CREATE TABLE dropped (
        owner_id {id}
    ){strict}",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, TABLES).await
    }
}
