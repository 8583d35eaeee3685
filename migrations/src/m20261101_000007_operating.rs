//! Operations on many runs, and dead letters by their causes. Events and runs that succeed write none of it.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &[&str] = &[
    "CREATE TABLE bulk (
        id {id},
        workspace_id {big} NOT NULL,
        status {small} NOT NULL,
        owner {small} NOT NULL,
        actor TEXT NOT NULL,
        filter TEXT NOT NULL,
        options TEXT NOT NULL,
        total {int} NOT NULL,
        created_at {big} NOT NULL,
        finished_at {big}
    ){strict}",
    "CREATE INDEX bulk_workspace ON bulk (workspace_id, id)",
    // What is still to be done, at start and after a node is gone.
    "CREATE INDEX bulk_open ON bulk (id) WHERE status = 0",
    // The key keeps each run in an operation once; the state is the guard that starts its replay once.
    "CREATE TABLE bulk_item (
        bulk_id {big} NOT NULL,
        run_id {big} NOT NULL,
        confirm TEXT NOT NULL,
        state {small} NOT NULL,
        started_run {big},
        reason TEXT,
        PRIMARY KEY (bulk_id, run_id)
    ){clustered}",
    "CREATE INDEX bulk_item_open ON bulk_item (bulk_id, run_id) WHERE state = 0",
    // One row per failed run, written by the commit that ends it. State 0 = wants a person, 1 = replayed since.
    "CREATE TABLE dead_letter (
        run_id {id},
        workspace_id {big} NOT NULL,
        workflow_id {big} NOT NULL,
        cause {big} NOT NULL,
        code TEXT NOT NULL,
        step TEXT,
        message TEXT NOT NULL,
        failed_at {big} NOT NULL,
        state {small} NOT NULL
    ){strict}",
    // Jumps from cause to cause, and counts within one.
    "CREATE INDEX dead_letter_open ON dead_letter (workspace_id, workflow_id, cause, run_id) WHERE state = 0",
    // What people noted about a cause. A million runs are resolved by one row.
    "CREATE TABLE dead_letter_mark (
        workspace_id {big} NOT NULL,
        workflow_id {big} NOT NULL,
        cause {big} NOT NULL,
        state {small} NOT NULL,
        up_to {big} NOT NULL,
        note TEXT NOT NULL,
        actor TEXT NOT NULL,
        at {big} NOT NULL,
        PRIMARY KEY (workspace_id, workflow_id, cause)
    ){clustered}",
    // Runs that failed before there was this list, by workflow, code and step: their messages stand in their journals.
    // Negative numbers, which a hash takes by chance alone.
    "INSERT INTO dead_letter (run_id, workspace_id, workflow_id, cause, code, step, message, failed_at, state)
        SELECT id, workspace_id, workflow_id,
            -dense_rank() OVER (ORDER BY coalesce(error_code, ''), coalesce(error_step, '')),
            coalesce(error_code, ''), error_step, '', coalesce(finished_at, started_at), 0
        FROM run WHERE status = 3",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, TABLES).await
    }
}
