//! Where each schedule stands: one row per workflow that the clock starts.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &[&str] = &[
    // Made when a version with new times is published (`begins_at`: nothing before it fires). `fired_for` is the planned
    // instant that fired last; it moves in the transaction that stores the event of that instant, and never back.
    "CREATE TABLE schedule (
        workflow_id {id},
        workspace_id {big} NOT NULL,
        begins_at {big} NOT NULL,
        fired_for {big}
    ){strict}",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, TABLES).await
    }
}
