//! Runs that wait for their turn: rows only for workflows that have a lane or a limit, and only while they matter.
//!
//! Everything is read and written under the lock of the workflow's row in `turn_order`, so that those who wait and
//! those who make room never miss each other.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &[&str] = &[
    // The lock, and the last position given out: microseconds, ever rising.
    "CREATE TABLE turn_order (
        workflow_id {big} PRIMARY KEY NOT NULL,
        tail {big} NOT NULL
    ){clustered}",
    // What runs wait in front of. `holder` is the failed run that keeps a lane, or the run that gathers events. A throttle
    // keeps the times of its last `starts` (8 bytes each, big endian) until `idle_at`; `alarm` is the run whose `due_at`
    // lets the next one through.
    "CREATE TABLE gate (
        id {bytes} PRIMARY KEY NOT NULL,
        workspace_id {big} NOT NULL,
        workflow_id {big} NOT NULL,
        kind {small} NOT NULL,
        name TEXT NOT NULL,
        max_inside {int} NOT NULL,
        inside {int} NOT NULL,
        waiting {int} NOT NULL,
        holder {big},
        since {big},
        per_ms {big} NOT NULL,
        starts {bytes},
        alarm {big},
        idle_at {big}
    ){clustered}",
    // The list of lanes that wait for a person.
    "CREATE INDEX gate_held ON gate (workspace_id, holder) WHERE holder IS NOT NULL AND kind = 0",
    // Retention of what throttles remember.
    "CREATE INDEX gate_idle ON gate (idle_at) WHERE idle_at IS NOT NULL",
    // The standing of a run until it is over. `gate_id` is the gate it waits at, null when it has passed all; of those
    // who wait at a gate the one with the lowest `place` goes first. `gates` is what it has to pass.
    "CREATE TABLE turn (
        run_id {big} PRIMARY KEY NOT NULL,
        root_id {big} NOT NULL,
        workspace_id {big} NOT NULL,
        workflow_id {big} NOT NULL,
        is_replay {small} NOT NULL,
        priority {int} NOT NULL,
        position {big} NOT NULL,
        stage {small} NOT NULL,
        gate_id {bytes},
        place {big} NOT NULL,
        gates {bytes} NOT NULL
    ){clustered}",
    // Who is next?
    "CREATE INDEX turn_gate ON turn (gate_id, place, run_id) WHERE gate_id IS NOT NULL",
    // Runs for whose event another run stands; `place` is their place in the order of acceptance.
    "CREATE TABLE merged (
        run_id {big} PRIMARY KEY NOT NULL,
        into_id {big} NOT NULL,
        place {big} NOT NULL
    ){clustered}",
    "CREATE INDEX merged_into ON merged (into_id, place)",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, TABLES).await
    }
}
