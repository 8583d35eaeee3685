//! Settings of `weir serve`: where they come from (flag, then environment, then `weir.toml`) and what they mean.
//!
//! [`SettingsSource`] is the one list of settings: its fields are the flags, the environment variables and the keys of the
//! file, and their comments are the documentation. Whatever concerns security has no default that opens something.

use crate::data_folder::DataFolder;
use crate::failure::Failure;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weir_orchestrator::retention::Retention;
use weir_orchestrator::{Role, Roles};

/// Read when `--config` names no other.
const DEFAULT_FILE: &str = "weir.toml";
const DEFAULT_DATABASE_URL: &str = "sqlite://./weir-data/weir.db";
/// The loopback address: nothing can be reached from outside until somebody says so.
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
const DEFAULT_SHUTDOWN_GRACE_S: u64 = 10;
/// How alike a misspelt name must be to be worth suggesting; 1 is equal.
const SUGGESTION_LIKENESS: f64 = 0.75;

/// The settings as they were given, unchecked. Each field: meaning, default, unit.
#[expect(
    clippy::doc_markdown,
    reason = "these comments are the help texts of the command line"
)]
#[derive(Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SettingsSource {
    /// Database: sqlite://PATH (one machine) or postgres://… (many). Default: sqlite://./weir-data/weir.db
    #[arg(long, env = "WEIR_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) database_url: Option<String>,
    /// Address and port to listen on. Default: 127.0.0.1:8080
    #[arg(long, env = "WEIR_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Scheme and host under which providers reach this server; signatures that cover the URL are checked against it. Default: http:// and the listening address
    #[arg(long, env = "WEIR_PUBLIC_URL", value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Folder for the master key, the administrator's token and the record of departed calls. Default: the folder of the SQLite file; none with PostgreSQL
    #[arg(long, env = "WEIR_DATA_FOLDER", value_name = "DIR")]
    pub(crate) data_folder: Option<PathBuf>,
    /// Key that seals all stored secrets: 32 bytes, base64. Default: made and kept in the data folder with SQLite; required with PostgreSQL
    #[arg(long, env = "WEIR_MASTER_KEY", value_name = "BASE64", hide_env_values = true)]
    pub(crate) master_key: Option<SecretString>,
    /// Token with every permission, to begin with. Default: made and kept in the data folder with SQLite; none with PostgreSQL
    #[arg(long, env = "WEIR_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) admin_token: Option<SecretString>,
    /// Private hosts and networks that may be called, comma separated, e.g. 127.0.0.0/8. Default: none
    #[arg(long, env = "WEIR_EGRESS_ALLOW", value_name = "HOST|CIDR,…", value_delimiter = ',')]
    pub(crate) egress_allow: Option<Vec<String>>,
    /// Networks of proxies whose X-Forwarded-For is believed, comma separated. Default: none
    #[arg(long, env = "WEIR_TRUSTED_PROXIES", value_name = "CIDR,…", value_delimiter = ',')]
    pub(crate) trusted_proxies: Option<Vec<String>>,
    /// Largest webhook body, bytes. Larger ones get 413. Default: 1048576
    #[arg(long, env = "WEIR_MAX_BODY_BYTES", value_name = "BYTES")]
    pub(crate) max_body_bytes: Option<usize>,
    /// Accepted runs that may wait on disk; above it webhooks get 503 with Retry-After. Default: 100000
    #[arg(long, env = "WEIR_MAX_BACKLOG_RUNS", value_name = "COUNT")]
    pub(crate) max_backlog_runs: Option<usize>,
    /// Accepted runs that may wait in lanes, for limits and for paused workflows; above it webhooks get 503 with Retry-After. Default: 1000000
    #[arg(long, env = "WEIR_MAX_QUEUED_RUNS", value_name = "COUNT")]
    pub(crate) max_queued_runs: Option<usize>,
    /// What this server does: api (GraphQL), ingest (webhooks), worker (runs), comma separated. Anything but all of it needs PostgreSQL. Default: api,ingest,worker
    #[arg(long, env = "WEIR_ROLES", value_name = "ROLE,…", value_delimiter = ',')]
    pub(crate) roles: Option<Vec<String>>,
    /// Name of this server among those that share a PostgreSQL. A restart under the same name takes its own work back at once. Default: the host's name
    #[arg(long, env = "WEIR_NODE", value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Threads that serve HTTP. Default: one per core
    #[arg(long, env = "WEIR_WORKERS", value_name = "COUNT")]
    pub(crate) workers: Option<usize>,
    /// Folder with connector manifests, loaded beside the built-in ones. Default: none
    #[arg(long, env = "WEIR_CONNECTORS", value_name = "DIR")]
    pub(crate) connectors: Option<PathBuf>,
    /// Seconds that a stop waits for calls that have left; the rest is taken up at the next start. Default: 10
    #[arg(long, env = "WEIR_SHUTDOWN_GRACE_S", value_name = "SECONDS")]
    pub(crate) shutdown_grace_s: Option<u64>,
    /// Days that events, runs and journals are kept after the last run of the event has ended; 0 is for ever. Default: 30
    #[arg(long, env = "WEIR_KEEP_RUNS_DAYS", value_name = "DAYS")]
    pub(crate) keep_runs_days: Option<u32>,
    /// The same for events with a failed run. Default: 90
    #[arg(long, env = "WEIR_KEEP_FAILED_DAYS", value_name = "DAYS")]
    pub(crate) keep_failed_days: Option<u32>,
    /// Days that refused requests are kept; 0 is for ever, within 10,000 of them and 32 MiB. Default: 1
    #[arg(long, env = "WEIR_KEEP_REFUSED_DAYS", value_name = "DAYS")]
    pub(crate) keep_refused_days: Option<u32>,
    /// Days that the audit trail is kept; 0 is for ever. Default: 730
    #[arg(long, env = "WEIR_KEEP_AUDIT_DAYS", value_name = "DAYS")]
    pub(crate) keep_audit_days: Option<u32>,
    /// Seconds by which this server takes the machine's clock to be ahead (negative: behind), to rehearse a wrong clock. Default: 0
    #[arg(
        long,
        env = "WEIR_CLOCK_SHIFT_S",
        value_name = "SECONDS",
        hide = true,
        allow_negative_numbers = true
    )]
    pub(crate) clock_shift_s: Option<i64>,
    /// What to log, e.g. info or weir_orchestrator=debug. Default: info
    #[arg(long, env = "WEIR_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Form of the log. Default: text on a terminal, json otherwise
    #[arg(long, env = "WEIR_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where facts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    PostgreSql,
}

/// The settings, checked. Made by [`load`] or, for the demo, by hand.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) database_url: String,
    pub(crate) backend: Backend,
    pub(crate) data_folder: Option<DataFolder>,
    pub(crate) listen: SocketAddr,
    /// `None`: `http://` and the address that was really bound.
    pub(crate) public_url: Option<String>,
    pub(crate) master_key: Option<SecretString>,
    pub(crate) admin_token: Option<SecretString>,
    pub(crate) orchestrator: weir_orchestrator::Settings,
    pub(crate) node: String,
    pub(crate) workers: usize,
    pub(crate) connectors: Option<PathBuf>,
    /// Added to the machine's clock.
    pub(crate) clock_shift_ms: i64,
    pub(crate) log: Option<String>,
    pub(crate) log_format: Option<LogFormat>,
}

/// Joins flags and environment (already in `given`) with the settings file, and checks the result.
pub(crate) fn load(file: Option<&Path>, given: SettingsSource) -> anyhow::Result<Config> {
    warn_about_misspelt_variables();
    let from_file = match file {
        Some(path) => read_file(path)?,
        None if Path::new(DEFAULT_FILE).is_file() => read_file(Path::new(DEFAULT_FILE))?,
        None => SettingsSource::default(),
    };
    check(given.or(from_file))
}

impl SettingsSource {
    /// Takes each setting from `self`, and where it is missing from `fallback`.
    fn or(self, fallback: SettingsSource) -> SettingsSource {
        SettingsSource {
            database_url: self.database_url.or(fallback.database_url),
            listen: self.listen.or(fallback.listen),
            public_url: self.public_url.or(fallback.public_url),
            data_folder: self.data_folder.or(fallback.data_folder),
            master_key: self.master_key.or(fallback.master_key),
            admin_token: self.admin_token.or(fallback.admin_token),
            egress_allow: self.egress_allow.or(fallback.egress_allow),
            trusted_proxies: self.trusted_proxies.or(fallback.trusted_proxies),
            max_body_bytes: self.max_body_bytes.or(fallback.max_body_bytes),
            max_backlog_runs: self.max_backlog_runs.or(fallback.max_backlog_runs),
            max_queued_runs: self.max_queued_runs.or(fallback.max_queued_runs),
            roles: self.roles.or(fallback.roles),
            node: self.node.or(fallback.node),
            workers: self.workers.or(fallback.workers),
            connectors: self.connectors.or(fallback.connectors),
            shutdown_grace_s: self.shutdown_grace_s.or(fallback.shutdown_grace_s),
            keep_runs_days: self.keep_runs_days.or(fallback.keep_runs_days),
            keep_failed_days: self.keep_failed_days.or(fallback.keep_failed_days),
            keep_refused_days: self.keep_refused_days.or(fallback.keep_refused_days),
            keep_audit_days: self.keep_audit_days.or(fallback.keep_audit_days),
            clock_shift_s: self.clock_shift_s.or(fallback.clock_shift_s),
            log: self.log.or(fallback.log),
            log_format: self.log_format.or(fallback.log_format),
        }
    }

    /// The names of all settings, as they stand in the file.
    fn names() -> Vec<String> {
        let command = <SettingsSource as Args>::augment_args(clap::Command::new("settings"));
        command
            .get_arguments()
            .map(|argument| argument.get_id().to_string())
            .collect()
    }
}

fn read_file(path: &Path) -> anyhow::Result<SettingsSource> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        anyhow::Error::new(error).context(Failure::usage(format!(
            "could not read the settings file {}",
            path.display()
        )))
    })?;
    parse_file(&text, path)
}

fn parse_file(text: &str, path: &Path) -> anyhow::Result<SettingsSource> {
    let table: toml::Table =
        toml::from_str(text).map_err(|error| Failure::usage(format!("{} is not TOML: {error}", path.display())))?;
    let names = SettingsSource::names();
    if let Some(key) = table.keys().find(|key| !names.contains(key)) {
        let failure = Failure::usage(format!("{}: there is no setting `{key}`", path.display()));
        return Err(match suggestion(key, names.iter().map(String::as_str)) {
            Some(name) => failure.fix(format!("did you mean `{name}`?")),
            None => failure.fix(format!("the settings are: {}", names.join(", "))),
        }
        .into());
    }
    toml::from_str(text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())).into())
}

/// The most alike of the known names, when one is alike enough.
fn suggestion<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::jaro_winkler(given, name), name))
        .filter(|(likeness, _)| *likeness >= SUGGESTION_LIKENESS)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, name)| name)
}

/// Variables are warned about, not refused: orchestrators set `WEIR_SERVICE_HOST` and the like without being asked.
fn warn_about_misspelt_variables() {
    let mut known: Vec<String> = SettingsSource::names()
        .iter()
        .map(|name| format!("WEIR_{}", name.to_uppercase()))
        .collect();
    known.extend(["WEIR_CONFIG", "WEIR_URL", "WEIR_TOKEN"].map(str::to_owned));
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("WEIR_")) else {
            continue;
        };
        if known.iter().any(|known| known == name) {
            continue;
        }
        let rest = |name: &str| name.trim_start_matches("WEIR_").to_owned();
        let bare: Vec<String> = known.iter().map(|known| rest(known)).collect();
        if let Some(close) = suggestion(&rest(name), bare.iter().map(String::as_str)) {
            crate::output::complain(
                "warning",
                &format!("the environment variable {name} means nothing here; did you mean WEIR_{close}?"),
            );
        }
    }
}

/// Checks settings that are complete.
pub(crate) fn check(source: SettingsSource) -> anyhow::Result<Config> {
    let database_url = source.database_url.unwrap_or_else(|| DEFAULT_DATABASE_URL.to_owned());
    let backend = backend_of(&database_url)?;
    let data_folder = match (source.data_folder, backend) {
        (Some(path), _) => Some(DataFolder::new(path)),
        (None, Backend::Sqlite) => sqlite_folder(&database_url).map(DataFolder::new),
        (None, Backend::PostgreSql) => None,
    };
    if let Some(token) = &source.admin_token {
        check_admin_token(token)?;
    }
    let defaults = weir_orchestrator::Settings::default();
    let listen = parse_listen(source.listen.as_deref().unwrap_or(DEFAULT_LISTEN))?;
    let public_url = source.public_url.map(|url| check_public_url(&url)).transpose()?;
    let trusted_proxies = source
        .trusted_proxies
        .unwrap_or_default()
        .iter()
        .map(|network| parse_network(network))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let roles = roles(source.roles.as_deref(), backend)?;
    let orchestrator = weir_orchestrator::Settings {
        roles,
        data_folder: data_folder.as_ref().map(|folder| folder.path().to_owned()),
        trusted_proxies,
        egress_allow: source
            .egress_allow
            .unwrap_or_default()
            .into_iter()
            .map(|entry| entry.trim().to_owned())
            .filter(|entry| !entry.is_empty())
            .collect(),
        max_body_bytes: source.max_body_bytes.unwrap_or(defaults.max_body_bytes),
        max_backlog_runs: source.max_backlog_runs.unwrap_or(defaults.max_backlog_runs),
        max_queued_runs: source.max_queued_runs.unwrap_or(defaults.max_queued_runs),
        shutdown_grace: Duration::from_secs(source.shutdown_grace_s.unwrap_or(DEFAULT_SHUTDOWN_GRACE_S)),
        retention: Retention {
            runs: kept(source.keep_runs_days, defaults.retention.runs),
            failed: kept(source.keep_failed_days, defaults.retention.failed),
            refused: kept(source.keep_refused_days, defaults.retention.refused),
            audit: kept(source.keep_audit_days, defaults.retention.audit),
        },
        ..defaults
    };
    Ok(Config {
        node: match (source.node, backend) {
            (Some(name), _) => name,
            // A file has one server at a time, whatever the machine is called today.
            (None, Backend::Sqlite) => "embedded".to_owned(),
            (None, Backend::PostgreSql) => host_name(),
        },
        database_url,
        backend,
        data_folder,
        listen,
        public_url,
        master_key: source.master_key,
        admin_token: source.admin_token,
        orchestrator,
        workers: source.workers.unwrap_or_else(cores).max(1),
        connectors: source.connectors,
        clock_shift_ms: source.clock_shift_s.unwrap_or_default().saturating_mul(1000),
        log: source.log,
        log_format: source.log_format,
    })
}

/// A span of days; 0 is for ever.
fn kept(days: Option<u32>, default: Option<Duration>) -> Option<Duration> {
    match days {
        None => default,
        Some(0) => None,
        Some(days) => Some(Duration::from_secs(u64::from(days) * 24 * 3600)),
    }
}

fn roles(given: Option<&[String]>, backend: Backend) -> anyhow::Result<Roles> {
    let Some(given) = given else { return Ok(Roles::ALL) };
    let known = || Role::ALL.map(Role::name).join(", ");
    let mut roles = Vec::new();
    for name in given.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        let role = Role::ALL.into_iter().find(|role| role.name() == name);
        roles.push(role.ok_or_else(|| {
            let failure = Failure::usage(format!("WEIR_ROLES holds `{name}`, which is no role"));
            match suggestion(name, Role::ALL.map(Role::name).into_iter()) {
                Some(close) => failure.fix(format!("did you mean `{close}`?")),
                None => failure.fix(format!("the roles are: {}", known())),
            }
        })?);
    }
    if roles.is_empty() {
        return Err(Failure::usage("WEIR_ROLES is empty: this server would do nothing")
            .fix(format!("name some of: {}", known()))
            .into());
    }
    let roles = Roles::of(&roles);
    if backend == Backend::Sqlite && roles != Roles::ALL {
        return Err(Failure::usage(format!(
            "this server has only the roles {roles}, and with SQLite there is no other one to do the rest"
        ))
        .fix("use PostgreSQL (WEIR_DATABASE_URL), or leave WEIR_ROLES out")
        .into());
    }
    Ok(roles)
}

/// Cores this process may use; it honours CPU affinity and container limits.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

fn backend_of(url: &str) -> anyhow::Result<Backend> {
    let scheme = url.split(':').next().unwrap_or_default();
    match scheme {
        "sqlite" => Ok(Backend::Sqlite),
        "postgres" | "postgresql" => Ok(Backend::PostgreSql),
        // The URL may hold a password: only its scheme is repeated.
        other => Err(Failure::usage(format!(
            "WEIR_DATABASE_URL starts with `{other}:`, which is no database Weir knows"
        ))
        .fix("use sqlite://PATH or postgres://USER@HOST/DATABASE")
        .into()),
    }
}

impl Config {
    /// The database file; `None` with PostgreSQL.
    pub(crate) fn sqlite_path(&self) -> Option<&Path> {
        match self.backend {
            Backend::Sqlite => sqlite_path(&self.database_url),
            Backend::PostgreSql => None,
        }
    }
}

fn sqlite_path(url: &str) -> Option<&Path> {
    let path = url.trim_start_matches("sqlite:").trim_start_matches("//");
    let path = path.split('?').next().unwrap_or(path);
    (!path.is_empty() && path != ":memory:").then(|| Path::new(path))
}

/// The folder of the database file; `None` for a database in memory.
fn sqlite_folder(url: &str) -> Option<PathBuf> {
    let parent = sqlite_path(url)?.parent()?;
    Some(if parent.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        parent.to_owned()
    })
}

/// Resolves `ADDRESS:PORT`; a host name takes its first address.
pub(crate) fn parse_listen(text: &str) -> anyhow::Result<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let mut found = std::net::ToSocketAddrs::to_socket_addrs(text).context(
        Failure::usage(format!("WEIR_LISTEN is `{text}`, which is not ADDRESS:PORT"))
            .fix("for example 127.0.0.1:8080, or 0.0.0.0:8080 for all interfaces"),
    )?;
    found
        .next()
        .with_context(|| Failure::usage(format!("WEIR_LISTEN is `{text}`, which has no address")))
}

fn check_public_url(text: &str) -> anyhow::Result<String> {
    let wrong = |why: &str| {
        Failure::usage(format!("WEIR_PUBLIC_URL is `{text}`: {why}"))
            .fix("give scheme and host only, e.g. https://hooks.example.com")
    };
    let url = url::Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("it is not an http or https address").into());
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(wrong("it holds more than scheme, host and path").into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn parse_network(text: &str) -> anyhow::Result<ipnet::IpNet> {
    let text = text.trim();
    if let Ok(network) = text.parse() {
        return Ok(network);
    }
    let address: std::net::IpAddr = text.parse().map_err(|_error| {
        Failure::usage(format!("WEIR_TRUSTED_PROXIES holds `{text}`, which is not a network"))
            .fix("for example 10.0.0.0/8")
    })?;
    Ok(address.into())
}

/// Shortest administrator's token that is taken; a guessable one would open everything.
const ADMIN_TOKEN_MIN_CHARS: usize = 16;

fn check_admin_token(token: &SecretString) -> anyhow::Result<()> {
    let token = token.expose_secret();
    if token.chars().count() < ADMIN_TOKEN_MIN_CHARS || token.chars().any(|character| !character.is_ascii_graphic()) {
        return Err(Failure::usage(format!(
            "WEIR_ADMIN_TOKEN must be at least {ADMIN_TOKEN_MIN_CHARS} printable ASCII characters without spaces"
        ))
        .fix("make one with `openssl rand -hex 32`")
        .into());
    }
    Ok(())
}

fn host_name() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_missing| std::fs::read_to_string("/etc/hostname"))
        .unwrap_or_default();
    let name = text.trim();
    if name.is_empty() {
        "weir".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        let error = parse_file(text, Path::new("weir.toml")).expect_err("must be refused");
        format!("{error}")
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = parse_file(
            "listen = \"127.0.0.1:9000\"\nnode = \"a\"\negress_allow = [\"10.0.0.0/8\"]",
            Path::new("weir.toml"),
        )
        .unwrap();
        let flags = SettingsSource {
            listen: Some("127.0.0.1:9001".into()),
            ..SettingsSource::default()
        };
        let config = check(flags.or(file)).unwrap();
        assert_eq!(config.listen.port(), 9001);
        assert_eq!(config.node, "a");
        assert_eq!(config.orchestrator.egress_allow, ["10.0.0.0/8"]);
    }

    #[test]
    fn unknown_and_ill_typed_settings_are_refused() {
        assert!(complaint("lisen = \"x\"").contains("no setting `lisen`"));
        assert!(complaint("max_body_bytes = \"big\"").contains("max_body_bytes"));
        assert_eq!(
            suggestion("lisen", SettingsSource::names().iter().map(String::as_str)),
            Some("listen")
        );
        assert_eq!(
            suggestion("colour", SettingsSource::names().iter().map(String::as_str)),
            None
        );
    }

    #[test]
    fn roles_are_checked() {
        let names = |text: &str| -> Vec<String> { text.split(',').map(str::to_owned).collect() };
        let check = |text: &str, backend| roles(Some(&names(text)), backend);
        let postgres = |text| check(text, Backend::PostgreSql);
        assert_eq!(postgres("ingest, api").unwrap(), Roles::of(&[Role::Api, Role::Ingest]));
        assert_eq!(roles(None, Backend::Sqlite).unwrap(), Roles::ALL);
        assert_eq!(check("worker,api,ingest", Backend::Sqlite).unwrap(), Roles::ALL);
        let complaint = |refused: anyhow::Result<Roles>| {
            let error = refused.expect_err("must be refused");
            let remedy = error.downcast_ref::<Failure>().and_then(Failure::remedy);
            format!("{error}; {}", remedy.unwrap_or_default())
        };
        assert!(complaint(postgres("workers")).contains("did you mean `worker`"));
        assert!(complaint(postgres("")).contains("empty"));
        assert!(complaint(check("ingest", Backend::Sqlite)).contains("PostgreSQL"));
    }

    #[test]
    fn the_password_in_a_database_url_is_never_repeated() {
        let source = SettingsSource {
            database_url: Some("mysql://weir:hunter2@db/weir".into()),
            ..SettingsSource::default()
        };
        let text = format!("{:?}", check(source).expect_err("must be refused"));
        assert!(text.contains("mysql") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn the_data_folder_is_the_folder_of_the_file() {
        for (url, folder) in [
            ("sqlite://./weir-data/weir.db", Some("./weir-data")),
            ("sqlite:///var/lib/weir/weir.db?mode=rwc", Some("/var/lib/weir")),
            ("sqlite://weir.db", Some(".")),
            ("sqlite::memory:", None),
        ] {
            assert_eq!(sqlite_folder(url).as_deref(), folder.map(Path::new), "{url}");
        }
    }

    #[test]
    fn a_weak_admin_token_is_refused() {
        for token in ["", "short", "sixteen chars no good"] {
            assert!(check_admin_token(&SecretString::from(token)).is_err(), "{token:?}");
        }
        assert!(check_admin_token(&SecretString::from("0123456789abcdef")).is_ok());
    }
}
