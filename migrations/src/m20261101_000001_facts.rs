//! The tables that events and runs write: few columns, few indexes, keys that rise with time.
//!
//! Every index here is paid for by each event (a needless one costs up to a third of the throughput), so each
//! says what reads it. Rows are only ever inserted, except `run` (updated at wait and finish), `node` (once a
//! second) and the counters of refusals.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &[&str] = &[
    // One row per process that may run things. `slot` is the process's place (also in its ids, and what a run's
    // `owner` names), `incarnation` the random number that fences its predecessors; 0 = fenced by another node.
    "CREATE TABLE node (
        slot {small} PRIMARY KEY NOT NULL,
        name TEXT NOT NULL UNIQUE,
        incarnation {big} NOT NULL,
        started_at {big} NOT NULL,
        lease_until {big} NOT NULL,
        id_high_water {big} NOT NULL
    ){strict}",
    // What was seen: the first 16 bytes of SHA-256 over workspace, scope and key, behind a day number, so that
    // inserts stay together instead of hitting random pages of an ever larger tree.
    "CREATE TABLE dedupe (
        day {int} NOT NULL,
        hash {bytes} NOT NULL,
        event_id {big} NOT NULL,
        PRIMARY KEY (day, hash)
    ){clustered}",
    // Never updated. The body stands last: lists read the columns before it and never touch its pages.
    // `run_ids` holds the runs the event started (8 bytes each, big endian), which saves an index on `run`.
    "CREATE TABLE event (
        id {id},
        workspace_id {big} NOT NULL,
        endpoint_id {big},
        connection_id {big},
        source {small} NOT NULL,
        received_at {big} NOT NULL,
        occurred_at {big},
        scheduled_for {big},
        connector TEXT NOT NULL,
        kind TEXT NOT NULL,
        external_id TEXT NOT NULL,
        dedupe_scope TEXT NOT NULL,
        dedupe_key TEXT,
        account TEXT,
        ref_kind TEXT,
        ref_id TEXT,
        ref_version TEXT,
        data_pointer TEXT NOT NULL,
        traceparent TEXT,
        run_ids {bytes},
        headers TEXT NOT NULL,
        body_bytes {int} NOT NULL,
        body_codec {small} NOT NULL,
        body {bytes}
    ){strict}",
    "CREATE TABLE run (
        id {id},
        workspace_id {big} NOT NULL,
        workflow_id {big} NOT NULL,
        version_id {big} NOT NULL,
        event_id {big} NOT NULL,
        root_id {big} NOT NULL,
        replay_of {big},
        owner {small} NOT NULL,
        status {small} NOT NULL,
        started_at {big} NOT NULL,
        due_at {big},
        finished_at {big},
        error_code TEXT,
        error_step TEXT
    ){strict}",
    // The one full index: the list of a workflow's runs.
    "CREATE INDEX run_workflow ON run (workflow_id, id)",
    // What a node takes back after a crash, or takes over from another.
    "CREATE INDEX run_open ON run (owner, id) WHERE status < 2",
    // Timers.
    "CREATE INDEX run_due ON run (owner, due_at) WHERE due_at IS NOT NULL",
    // The list of failures (status 3), and with it the runs whose effects are unknown.
    "CREATE INDEX run_failed ON run (workspace_id, id) WHERE status = 3",
    // All runs of one event, whose ledger a replay inherits.
    "CREATE INDEX run_replay ON run (root_id) WHERE replay_of IS NOT NULL",
    // The truth of a run: one row per commit. The key is the guard against a second writer.
    "CREATE TABLE journal (
        run_id {big} NOT NULL,
        seq {int} NOT NULL,
        codec {small} NOT NULL,
        body {bytes},
        PRIMARY KEY (run_id, seq)
    ){strict}",
    // Values above 64 KiB. `owner_id` is the event (seq 0) or the run (seq as in the journal).
    "CREATE TABLE payload (
        owner_id {big} NOT NULL,
        seq {int} NOT NULL,
        codec {small} NOT NULL,
        body {bytes} NOT NULL,
        PRIMARY KEY (owner_id, seq)
    ){strict}",
    // Requests that were turned away, kept a day for the person who asks why.
    "CREATE TABLE refused (
        id {id},
        workspace_id {big} NOT NULL,
        endpoint_id {big},
        received_at {big} NOT NULL,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        client_ip TEXT,
        headers TEXT NOT NULL,
        body_bytes {big} NOT NULL,
        stored_bytes {int} NOT NULL,
        body {bytes} NOT NULL
    ){strict}",
    // How many were turned away, per hour (hours since 1970); exact also when the rows above were dropped.
    "CREATE TABLE refused_count (
        workspace_id {big} NOT NULL,
        endpoint_id {big} NOT NULL,
        hour {int} NOT NULL,
        reason TEXT NOT NULL,
        count {big} NOT NULL,
        PRIMARY KEY (workspace_id, endpoint_id, hour, reason)
    ){clustered}",
];

/// The bodies arrive compressed: PostgreSQL's own attempt would only cost time.
const STORAGE: &[&str] = &[
    "ALTER TABLE event ALTER COLUMN body SET STORAGE EXTERNAL",
    "ALTER TABLE journal ALTER COLUMN body SET STORAGE EXTERNAL",
    "ALTER TABLE payload ALTER COLUMN body SET STORAGE EXTERNAL",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, TABLES).await?;
        dialect::run_on_postgres(manager, STORAGE).await
    }
}
