//! The tables that people edit: small, read whole at start and after each change of the revision.

use sea_orm_migration::prelude::{DbErr, DeriveMigrationName, MigrationTrait, SchemaManager, async_trait};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const TABLES: &[&str] = &[
    // One row. The revision rises with every change, and each node compares it once a second.
    "CREATE TABLE config_state (
        id {small} PRIMARY KEY NOT NULL,
        revision {big} NOT NULL
    ){strict}",
    "INSERT INTO config_state (id, revision) VALUES (1, 0)",
    "CREATE TABLE workspace (
        id {id},
        name TEXT NOT NULL UNIQUE,
        created_at {big} NOT NULL
    ){strict}",
    "CREATE TABLE connection (
        id {id},
        workspace_id {big} NOT NULL,
        name TEXT NOT NULL,
        connector TEXT NOT NULL,
        config TEXT NOT NULL,
        credential {bytes},
        revision {big} NOT NULL,
        created_at {big} NOT NULL,
        updated_at {big} NOT NULL,
        UNIQUE (workspace_id, name)
    ){strict}",
    "CREATE TABLE endpoint (
        id {id},
        workspace_id {big} NOT NULL,
        name TEXT NOT NULL,
        connector TEXT NOT NULL,
        connection_id {big},
        verify TEXT,
        allow TEXT NOT NULL,
        secrets {bytes},
        revision {big} NOT NULL,
        created_at {big} NOT NULL,
        updated_at {big} NOT NULL,
        UNIQUE (workspace_id, name)
    ){strict}",
    "CREATE TABLE workflow (
        id {id},
        workspace_id {big} NOT NULL,
        name TEXT NOT NULL,
        paused {small} NOT NULL,
        published_version_id {big},
        draft_version_id {big},
        revision {big} NOT NULL,
        created_at {big} NOT NULL,
        updated_at {big} NOT NULL,
        UNIQUE (workspace_id, name)
    ){strict}",
    "CREATE TABLE workflow_version (
        id {id},
        workspace_id {big} NOT NULL,
        workflow_id {big} NOT NULL,
        number {int} NOT NULL,
        state {small} NOT NULL,
        definition TEXT NOT NULL,
        resolution TEXT NOT NULL,
        checksum TEXT NOT NULL,
        created_at {big} NOT NULL,
        UNIQUE (workflow_id, number)
    ){strict}",
    "CREATE TABLE connector_manifest (
        workspace_id {big} NOT NULL,
        name TEXT NOT NULL,
        version TEXT NOT NULL,
        yaml TEXT NOT NULL,
        revision {big} NOT NULL,
        created_at {big} NOT NULL,
        updated_at {big} NOT NULL,
        PRIMARY KEY (workspace_id, name)
    ){strict}",
    // Only a hash of the token is kept.
    "CREATE TABLE api_token (
        id {id},
        workspace_id {big} NOT NULL,
        name TEXT NOT NULL,
        hash {bytes} NOT NULL UNIQUE,
        scopes TEXT NOT NULL,
        created_at {big} NOT NULL,
        expires_at {big}
    ){strict}",
    // Who changed what, written in the transaction of the change itself.
    "CREATE TABLE audit (
        id {id},
        workspace_id {big} NOT NULL,
        at {big} NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        client_ip TEXT,
        request_id TEXT,
        detail TEXT NOT NULL
    ){strict}",
    "CREATE INDEX audit_workspace ON audit (workspace_id, id)",
    // A known text sealed with each master key in use: a wrong key is found at start, before anything is read.
    "CREATE TABLE key_check (
        key_id TEXT PRIMARY KEY NOT NULL,
        sealed {bytes} NOT NULL
    ){strict}",
];

#[expect(elided_lifetimes_in_paths, reason = "the trait is declared this way")]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, TABLES).await
    }
}
