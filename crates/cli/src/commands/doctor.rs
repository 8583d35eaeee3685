//! `weir doctor`: tries what `weir serve` needs, one line each, and says what to do about what is wrong.
//!
//! It opens the database the way a server does, which brings its schema up to date; it makes no database and no key.

use crate::arguments::ServeArguments;
use crate::client;
use crate::config::{self, Config};
use crate::data_folder::DataFolder;
use crate::failure::{EXIT_FAILURE, Failure};
use crate::output::{self, Style};
use crate::serve;
use chrono::{DateTime, TimeZone as _, Utc};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;
use weir_orchestrator::clock::{CLOCK_SKEW_LIMIT, Clock as _, DatabaseClock};
use weir_storage::{ReadError, Store};

/// A clock before this is wrong: this release is younger.
const RELEASED: (i32, u32, u32) = (2026, 11, 1);

/// What a check found.
enum Finding {
    Good(String),
    /// It works, and somebody should know.
    Remark(String),
    /// It does not work; what went wrong, with its remedy.
    Bad(anyhow::Error),
}

pub(crate) async fn run(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    let mut bad = 0;
    let mut tell = |subject: &str, finding: Finding| bad += usize::from(!print(subject, &finding));
    let config = match config::load(arguments.config.as_deref(), arguments.settings) {
        Ok(config) => config,
        Err(error) => {
            tell("settings", Finding::Bad(error));
            return Ok(ExitCode::from(EXIT_FAILURE));
        }
    };
    tell("settings", Finding::Good("understood".to_owned()));
    tell("clock", clock());
    tell("connectors", connectors(&config));
    tell("data folder", data_folder(&config));
    for file in secret_files(&config) {
        tell("secret file", private(&file));
    }
    tell("database", database(&config).await);
    tell("address", address(&config).await);
    tell("public URL", public_url(&config));
    Ok(if bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILURE)
    })
}

/// Prints one line (and the remedy); answers whether it was good.
fn print(subject: &str, finding: &Finding) -> bool {
    let style = Style::stdout();
    let (mark, text, fix) = match finding {
        Finding::Good(text) => (style.green("ok  "), text.clone(), None),
        Finding::Remark(text) => (style.yellow("note"), text.clone(), None),
        Finding::Bad(error) => {
            let fix = error.downcast_ref::<Failure>().and_then(Failure::remedy);
            (style.red("bad "), format!("{error:#}"), fix)
        }
    };
    output::line(format!("{mark}  {subject:<12} {text}"));
    if let Some(fix) = fix {
        output::line(format!("{:18} fix: {fix}", ""));
    }
    !matches!(finding, Finding::Bad(_))
}

fn clock() -> Finding {
    let now = DateTime::<Utc>::from(UNIX_EPOCH + UNIX_EPOCH.elapsed().unwrap_or_default());
    let (year, month, day) = RELEASED;
    match Utc.with_ymd_and_hms(year, month, day, 0, 0, 0).single() {
        Some(released) if now < released => {
            let failure = Failure::new(format!(
                "this machine says it is {now}: signatures would be refused as too old or too new"
            ));
            Finding::Bad(failure.fix("set the clock, and let it follow a time server").into())
        }
        Some(_) | None => Finding::Good(format!("{}", now.format("%Y-%m-%d %H:%M:%S UTC"))),
    }
}

fn connectors(config: &Config) -> Finding {
    match serve::connectors(config.connectors.as_deref()) {
        Ok(registry) => Finding::Good(
            registry
                .iter()
                .map(|connector| connector.name().to_owned())
                .collect::<Vec<_>>()
                .join(", "),
        ),
        Err(error) => Finding::Bad(error),
    }
}

fn data_folder(config: &Config) -> Finding {
    let Some(folder) = &config.data_folder else {
        return Finding::Remark("none: after a crash an effect without a key whose answer was lost is always left to a person (WEIR_DATA_FOLDER)".to_owned());
    };
    let path = folder.path();
    if !path.exists() {
        return Finding::Good(format!("{} will be made at the first start", path.display()));
    }
    let probe = path.join(".weir-doctor");
    match std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)) {
        Ok(()) => Finding::Good(format!("{} can be written", path.display())),
        Err(error) => {
            let failure = Failure::new(format!("{} cannot be written", path.display()))
                .fix("give this user the right to write there");
            Finding::Bad(anyhow::Error::new(error).context(failure))
        }
    }
}

fn secret_files(config: &Config) -> Vec<PathBuf> {
    let files = |folder: &DataFolder| [folder.master_key(), folder.admin_token()];
    let mut files: Vec<PathBuf> = config.data_folder.iter().flat_map(files).collect();
    // Contents of events stand in them, and hashes of tokens.
    if let Some(database) = config.sqlite_path() {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        files.extend([database.to_owned(), log.into()]);
    }
    files.retain(|path| path.exists());
    files
}

#[cfg(unix)]
fn private(path: &Path) -> Finding {
    use std::os::unix::fs::PermissionsExt as _;
    match std::fs::metadata(path) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            let failure = Failure::new(format!("{} can be read by other users", path.display()))
                .fix(format!("chmod 600 {}", path.display()));
            Finding::Bad(failure.into())
        }
        Ok(_) => Finding::Good(format!("{} is readable by its owner only", path.display())),
        Err(error) => Finding::Bad(anyhow::Error::new(error).context(format!("could not look at {}", path.display()))),
    }
}

#[cfg(not(unix))]
fn private(path: &Path) -> Finding {
    Finding::Remark(format!(
        "{}: permissions are not checked on this system",
        path.display()
    ))
}

async fn database(config: &Config) -> Finding {
    let absent = config.sqlite_path().is_some_and(|path| !path.exists());
    if absent {
        return Finding::Good("none yet; it will be made at the first start".to_owned());
    }
    match serve::open(config).await {
        Ok(opened) => match (
            opened.store.schema_version().await,
            skew_ms(config, &opened.store).await,
        ) {
            (Ok(_), Ok(skew_ms))
                if skew_ms.unsigned_abs() > u64::try_from(CLOCK_SKEW_LIMIT.as_millis()).unwrap_or(u64::MAX) =>
            {
                let failure = Failure::new(weir_orchestrator::skew_warning(skew_ms));
                Finding::Bad(
                    failure
                        .fix("set the clocks of both machines, and let them follow a time server")
                        .into(),
                )
            }
            (Ok(version), Ok(_)) => Finding::Good(format!("opens, the master key fits, schema {version}")),
            (Err(error), _) | (_, Err(error)) => Finding::Bad(error.into()),
        },
        Err(error) if is_locked(&error) => Finding::Remark("in use by a running server".to_owned()),
        Err(error) => Finding::Bad(error),
    }
}

/// How far this machine's clock is ahead of the database's.
async fn skew_ms(config: &Config, store: &Store) -> Result<i64, ReadError> {
    let clock = DatabaseClock::new(config.clock_shift_ms);
    let asked_at = clock.now();
    let database_time = store.database_time().await?;
    clock.learn(database_time, asked_at, clock.now());
    Ok(clock.skew_ms())
}

fn is_locked(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(weir_storage::OpenError::Locked { .. }))
}

async fn address(config: &Config) -> Finding {
    let error = match serve::try_port(config.listen) {
        Ok(_free) => return Finding::Good(format!("{} is free", config.listen)),
        Err(error) => error,
    };
    let url = format!("http://{}/healthz", config.listen);
    let ours = match client::http() {
        Ok(http) => http
            .get(&url)
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success()),
        Err(_) => false,
    };
    if ours {
        Finding::Remark(format!("{}: a server answers there", config.listen))
    } else {
        Finding::Bad(error)
    }
}

fn public_url(config: &Config) -> Finding {
    match (&config.public_url, config.listen.ip().is_loopback()) {
        (Some(url), false) if url.starts_with("http://") => Finding::Remark(format!(
            "{url} is not encrypted: put a proxy with TLS in front, and let WEIR_PUBLIC_URL begin with https://"
        )),
        (Some(url), _) => Finding::Good(url.clone()),
        (None, true) => Finding::Remark("not set: only programs on this machine can send webhooks".to_owned()),
        (None, false) => Finding::Bad(
            Failure::new(
                "not set, though the server listens beyond this machine: signatures that cover the URL will be refused",
            )
            .fix("set WEIR_PUBLIC_URL to the address under which providers reach this server")
            .into(),
        ),
    }
}
