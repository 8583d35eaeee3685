//! The database schema of Weir: one source for SQLite and PostgreSQL.
//!
//! Migrations only ever go forward, and one that was released is never edited: a change of the
//! schema is a new file at the end of [`Migrator`]'s list. The statements are written by hand (see
//! `dialect.rs`), because the shape of a table decides the speed of the product and a builder hides it.

mod dialect;
mod m20261101_000001_facts;
mod m20261101_000002_configuration;
mod m20261101_000003_mail;
mod m20261101_000004_flow;
mod m20261101_000005_schedules;
mod m20261101_000006_retention;
mod m20261101_000007_operating;
mod m20261101_000008_audit;
mod m20261101_000009_recovery;
mod m20261101_000010_endpoint_context;
mod m20261101_000011_connectors;
mod m20261101_000012_workers;
mod m20261101_000013_backfills;
mod m20261101_000014_grants;
mod m20261101_000015_registrations;

pub use sea_orm_migration::IntoSchemaManagerConnection;
pub use sea_orm_migration::prelude::MigratorTrait;
use sea_orm_migration::prelude::{MigrationTrait, async_trait};

/// The list of all migrations, oldest first.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261101_000001_facts::Migration),
            Box::new(m20261101_000002_configuration::Migration),
            Box::new(m20261101_000003_mail::Migration),
            Box::new(m20261101_000004_flow::Migration),
            Box::new(m20261101_000005_schedules::Migration),
            Box::new(m20261101_000006_retention::Migration),
            Box::new(m20261101_000007_operating::Migration),
            Box::new(m20261101_000008_audit::Migration),
            Box::new(m20261101_000009_recovery::Migration),
            Box::new(m20261101_000010_endpoint_context::Migration),
            Box::new(m20261101_000011_connectors::Migration),
            Box::new(m20261101_000012_workers::Migration),
            Box::new(m20261101_000013_backfills::Migration),
            Box::new(m20261101_000014_grants::Migration),
            Box::new(m20261101_000015_registrations::Migration),
        ]
    }
}
