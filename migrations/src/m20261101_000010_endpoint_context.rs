//! What an endpoint knows of its registration at the provider.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const COLUMNS: &[&str] = &[
    // A JSON object of names and lists of values. Null: nothing is known.
    "ALTER TABLE endpoint ADD COLUMN context TEXT",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, COLUMNS).await
    }
}
