//! `weir backup`: one consistent snapshot of the database in one file, whether a server runs or not.
//!
//! The file takes its name when it is whole and on disk. The master key is never in it.

use crate::arguments::BackupArguments;
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::output;
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use weir_storage::backup::{self, BackupError, BackupSummary, Manifest};

/// What a backup in a folder is called, around the instant of its snapshot.
pub(crate) const NAME: (&str, &str) = ("weir-", ".backup");
/// Bytes that are written at once.
const BUFFER_BYTES: usize = 1 << 20;

pub(crate) async fn run(arguments: BackupArguments) -> anyhow::Result<ExitCode> {
    let config = config::load(arguments.serve.config.as_deref(), arguments.serve.settings)?;
    let target = arguments.target;
    if target == Path::new("-") {
        let out = std::io::stdout();
        if out.is_terminal() {
            return Err(Failure::usage("a backup is no text for a terminal")
                .fix("redirect the output: weir backup - > weir.backup")
                .into());
        }
        let (_, summary) = take(&config, out.lock()).await?;
        output::remark(told(&summary, "standard output"));
        return Ok(ExitCode::SUCCESS);
    }
    if target.exists() && !target.is_dir() {
        return Err(
            Failure::usage(format!("{} exists, and nothing is overwritten", target.display()))
                .fix("give a new file, or a folder: files in it are named by their time")
                .into(),
        );
    }
    let partial = partial_of(&target);
    let written = write(&config, &target, &partial).await;
    if written.is_err()
        && let Err(error) = fs::remove_file(&partial)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "{} is left over", partial.display());
    }
    let (path, summary) = written?;
    output::line(told(&summary, &path.display().to_string()));
    Ok(ExitCode::SUCCESS)
}

fn partial_of(target: &Path) -> PathBuf {
    let name = format!(".weir-backup-{}.partial", std::process::id());
    if target.is_dir() {
        target.join(name)
    } else {
        target.with_file_name(name)
    }
}

async fn write(config: &Config, target: &Path, partial: &Path) -> anyhow::Result<(PathBuf, BackupSummary)> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let cannot = || {
        Failure::new(format!("could not write {}", partial.display()))
            .fix("give a path in a folder that is there, that you may write to, and that has room")
    };
    let file = options.open(partial).with_context(cannot)?;
    let (file, summary) = take(config, BufWriter::with_capacity(BUFFER_BYTES, file)).await?;
    let file = file
        .into_inner()
        .map_err(|error| error.into_error())
        .with_context(cannot)?;
    file.sync_all().with_context(cannot)?;
    let path = if target.is_dir() {
        target.join(file_name(&summary.manifest))
    } else {
        target.to_owned()
    };
    // Two backups may have been told the same name.
    fs::hard_link(partial, &path)
        .and_then(|()| fs::remove_file(partial))
        .with_context(|| {
            Failure::new(format!("could not give the backup its name {}", path.display()))
                .fix("give another name; a file that is there is not overwritten")
        })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .with_context(|| {
            Failure::new(format!(
                "could not make sure that {} outlasts a power cut",
                path.display()
            ))
            .fix("the backup is whole; check the disk, and take another one")
        })?;
    Ok((path, summary))
}

async fn take<W: Write>(config: &Config, out: W) -> anyhow::Result<(W, BackupSummary)> {
    backup::take(&config.database_url, out).await.map_err(|error| {
        let fix = match &error {
            BackupError::Missing { .. } | BackupError::NotWeir => "check WEIR_DATABASE_URL",
            BackupError::Open(_) => "check WEIR_DATABASE_URL, and that the database can be reached from here",
            BackupError::Read { .. } => "`weir doctor` says what is wrong with the database",
            BackupError::Write(_) => "make room where the backup is written",
        };
        let failure = Failure::new("no backup was taken").fix(fix);
        anyhow::Error::new(error).context(failure)
    })
}

/// The instant of the snapshot.
pub(crate) fn instant(manifest: &Manifest) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(manifest.taken_at.as_unix_ms()).unwrap_or_default()
}

fn file_name(manifest: &Manifest) -> String {
    let (before, after) = NAME;
    format!("{before}{}{after}", instant(manifest).format("%Y%m%dT%H%M%S%.3fZ"))
}

fn told(summary: &BackupSummary, path: &str) -> String {
    let keys = match summary.manifest.key_ids.as_slice() {
        [] => "it holds no secrets".to_owned(),
        ids => format!(
            "its secrets need the master key {}, which is not in it: keep that elsewhere",
            ids.join(", ")
        ),
    };
    format!("{path}: {}; {keys}", counted(summary))
}

/// How much is in it, in words.
pub(crate) fn counted(summary: &BackupSummary) -> String {
    let rows = |table: &str| {
        let found = summary.rows.iter().find(|(name, _)| name == table);
        found.map_or(0, |(_, rows)| *rows)
    };
    let all: u64 = summary.rows.iter().map(|(_, rows)| rows).sum();
    format!("{} events, {} runs, {all} rows in all", rows("event"), rows("run"))
}
