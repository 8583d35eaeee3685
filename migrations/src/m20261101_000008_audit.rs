//! The audit trail of one thing, such as a run, without a look at the others.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const INDEXES: &[&str] = &["CREATE INDEX audit_subject ON audit (workspace_id, subject, id)"];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, INDEXES).await
    }
}
