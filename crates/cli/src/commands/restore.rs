//! `weir restore`: an empty database from a backup, all or nothing, on either kind of database.

use crate::arguments::BackupArguments;
use crate::commands::backup::{NAME, counted, instant};
use crate::config::{self, Backend, Config};
use crate::data_folder::make_private_files;
use crate::failure::Failure;
use crate::output;
use crate::serve;
use anyhow::Context as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use weir_storage::OpenError;
use weir_storage::backup::{self, ArchiveError, BackupSummary, RestoreError};

pub(crate) async fn run(arguments: BackupArguments) -> anyhow::Result<ExitCode> {
    make_private_files();
    let config = config::load(arguments.serve.config.as_deref(), arguments.serve.settings)?;
    let archive = chosen(arguments.target)?;
    let made = config.data_folder.as_ref().filter(|folder| !folder.path().exists());
    if let Some(folder) = &config.data_folder {
        folder.create()?;
    }
    let restored = Box::pin(backup::restore(&config.database_url, &archive)).await;
    if restored.is_err()
        && let Some(folder) = made
    {
        folder.give_up();
    }
    let summary = restored.map_err(|error| explained(error, &archive, config.backend))?;
    output::line(format!(
        "restored {} (Weir {}, {}, {}): {}",
        archive.display(),
        summary.manifest.weir,
        summary.manifest.database,
        instant(&summary.manifest).format("%Y-%m-%d %H:%M:%S UTC"),
        counted(&summary)
    ));
    say_which_key(&config, &summary);
    Ok(ExitCode::SUCCESS)
}

/// The file itself, or the newest backup in a folder.
fn chosen(target: PathBuf) -> anyhow::Result<PathBuf> {
    if !target.is_dir() {
        return Ok(target);
    }
    let (before, after) = NAME;
    let entries = fs::read_dir(&target).with_context(|| format!("could not read {}", target.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // They are named by their time.
    let newest = names
        .filter(|name| name.starts_with(before) && name.ends_with(after))
        .max();
    let newest = newest.with_context(|| {
        Failure::usage(format!("there is no file {before}…{after} in {}", target.display()))
            .fix("give the file that `weir backup` wrote")
    })?;
    Ok(target.join(newest))
}

fn explained(error: RestoreError, archive: &Path, backend: Backend) -> anyhow::Error {
    let fix = match (&error, backend) {
        (RestoreError::Archive(ArchiveError::Read(_) | ArchiveError::NotABackup), _) => {
            "give the file that `weir backup` wrote"
        }
        (RestoreError::Archive(ArchiveError::Damaged { .. }), _) => {
            "use another backup; copy this one again if it was copied"
        }
        (RestoreError::Archive(ArchiveError::Format { .. }) | RestoreError::Newer { .. }, _) => {
            "use the version of Weir that made it, or a later one"
        }
        (RestoreError::NotEmpty { .. }, Backend::Sqlite) => {
            "move the old database away, or give another place (WEIR_DATABASE_URL)"
        }
        (RestoreError::NotEmpty { .. }, Backend::PostgreSql) => {
            "make a new database (createdb) and name it in WEIR_DATABASE_URL"
        }
        (RestoreError::Open(OpenError::Locked { .. }), _) => "stop the server that runs there",
        (RestoreError::Open(_), _) => "check WEIR_DATABASE_URL",
        (RestoreError::Load { .. }, _) => "make sure that the target has room, then try again",
    };
    let failure = Failure::new(format!("nothing was restored from {}", archive.display())).fix(fix);
    anyhow::Error::new(error).context(failure)
}

/// A restored database without its key is found out now, not at the next start.
fn say_which_key(config: &Config, summary: &BackupSummary) {
    let wanted = &summary.manifest.key_ids;
    if wanted.is_empty() {
        return;
    }
    let place = match (&config.data_folder, config.backend) {
        (Some(folder), Backend::Sqlite) => {
            format!("put it into {} or set WEIR_MASTER_KEY", folder.master_key().display())
        }
        (None, Backend::Sqlite) | (_, Backend::PostgreSql) => "set WEIR_MASTER_KEY to it".to_owned(),
    };
    let wanted = wanted.join(", ");
    match serve::master_key(config, true) {
        Ok(key) if wanted == key.id() => output::line(format!("the master key {wanted} fits")),
        Ok(key) => output::remark(format!(
            "the secrets were sealed with the master key {wanted}, and the one here is {}: {place} before you start",
            key.id()
        )),
        Err(_) => output::remark(format!(
            "the secrets were sealed with the master key {wanted}, which is not here: {place} before you start"
        )),
    }
}
