//! What runs wait for, and what reaches them from outside: rows only while somebody waits.
//!
//! Only the owner of a run appends to its journal. Everybody else leaves a row in `inbox`, which the owner deletes
//! in the commit that takes it in.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &[&str] = &[
    // `id` is the id of the event or run that it is about, so that nothing is told twice, or one of its own.
    "CREATE TABLE inbox (
        run_id {big} NOT NULL,
        id {big} NOT NULL,
        kind {small} NOT NULL,
        body TEXT,
        created_at {big} NOT NULL,
        PRIMARY KEY (run_id, id)
    ){clustered}",
    // A step that waits. `key` is what an event or the end of a run is found by, `since` the lowest id of an event
    // that it takes.
    "CREATE TABLE wait (
        run_id {big} NOT NULL,
        step TEXT NOT NULL,
        workspace_id {big} NOT NULL,
        kind {small} NOT NULL,
        key {bytes},
        since {big} NOT NULL,
        title TEXT,
        detail TEXT,
        created_at {big} NOT NULL,
        due_at {big},
        PRIMARY KEY (run_id, step)
    ){clustered}",
    // Who waits for this?
    "CREATE INDEX wait_key ON wait (key) WHERE key IS NOT NULL",
    // The list of approvals that are asked for.
    "CREATE INDEX wait_approval ON wait (workspace_id, run_id) WHERE kind = 1",
    // Events of types that some workflow waits for, by what they can be found by: a wait that begins later than its
    // event looks back here.
    "CREATE TABLE event_key (
        key {bytes} NOT NULL,
        event_id {big} NOT NULL,
        PRIMARY KEY (key, event_id)
    ){clustered}",
    // Retention.
    "CREATE INDEX event_key_event ON event_key (event_id)",
    // Outgoing events, once per effect key. The body is compressed as an event's is.
    "CREATE TABLE outgoing (
        id {id},
        workspace_id {big} NOT NULL,
        effect_key {bytes} NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        order_key TEXT,
        run_id {big} NOT NULL,
        step TEXT NOT NULL,
        created_at {big} NOT NULL,
        codec {small} NOT NULL,
        body {bytes} NOT NULL
    ){strict}",
    "CREATE INDEX outgoing_workspace ON outgoing (workspace_id, id)",
    // The expressions that published versions compute of arriving events. Runs of old versions may still wait, so
    // what was published once stays.
    "CREATE TABLE correlation (
        workspace_id {big} NOT NULL,
        connector TEXT NOT NULL,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        PRIMARY KEY (workspace_id, connector, kind, key)
    ){clustered}",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, TABLES).await
    }
}
