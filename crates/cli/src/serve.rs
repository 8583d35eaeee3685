//! `weir serve`: opens the database, starts the orchestrator, listens, and stops cleanly when told to.
//!
//! `weir demo` starts the same server through [`start`]. The order matters: the port is tried before the database is
//! opened, so a second server by mistake fails before it can touch anything; the token is known before anything listens.

use crate::arguments::ServeArguments;
use crate::config::{self, Backend, Config};
use crate::data_folder::{DataFolder, make_private_files};
use crate::failure::Failure;
use crate::output;
use crate::scheduling;
use crate::telemetry::{self, LogTarget};
use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use std::future::Future;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use weir_api_server::{Server, ServerOptions};
use weir_orchestrator::clock::{Clock as _, DatabaseClock};
use weir_orchestrator::registry::Registry;
use weir_orchestrator::{Options, Orchestrator};
use weir_storage::{
    Database, DatabaseOptions, MasterKey, MasterKeyError, NodeIdentity, OpenError, SecretBox, Store, WriterSeed,
};

/// How long a node that lost its place may take to let go of its files.
const RELEASE_LIMIT: Duration = Duration::from_secs(10);
/// How long the system may take to free the address of a server that was killed.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether it is free.
const PORT_LOOK: Duration = Duration::from_millis(50);

/// Text of `/metrics`, made when asked for.
pub(crate) type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// A server that is ready to take requests and has not begun yet.
pub(crate) struct Started {
    pub(crate) orchestrator: Orchestrator,
    pub(crate) server: Server,
    pub(crate) url: String,
    /// The administrator's token, if there is one.
    pub(crate) admin_token: Option<SecretString>,
    /// Whether this start made it.
    pub(crate) admin_token_made_now: bool,
}

/// `weir serve`.
pub(crate) fn main(arguments: Box<ServeArguments>) -> anyhow::Result<ExitCode> {
    let config = config::load(arguments.config.as_deref(), arguments.settings)?;
    make_private_files();
    let batch = scheduling::as_batch();
    let runtime = runtime()?;
    let code = runtime.block_on(Box::pin(serve(config, batch)));
    // Nothing may hold the exit up: what matters is on disk.
    runtime.shutdown_background();
    code
}

/// The runtime of a server.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config::cores())
        .enable_all()
        .build()
        .context("could not start the runtime")
}

async fn serve(config: Config, batch: std::io::Result<bool>) -> anyhow::Result<ExitCode> {
    let telemetry = telemetry::start(config.log.as_deref(), config.log_format, &LogTarget::StandardError)?;
    if let Err(error) = batch {
        tracing::info!("the system keeps its ordinary scheduling for this server: {error}");
    }
    let render_metrics = telemetry::start_metrics()?;
    // Before anybody can know of this process: from then on it is stopped politely.
    let stop = stop_signal()?;
    let started = start(&config, Arc::clone(&render_metrics)).await?;
    if let Some(folder) = &config.data_folder {
        folder.announce(&started.url)?;
    }
    say_first_words(&config, &started);
    tracing::info!(url = %started.url, version = env!("CARGO_PKG_VERSION"), "listening on {}", started.url);
    let outcome = serve_on(&config, started, render_metrics, stop).await;
    if let Some(folder) = &config.data_folder {
        folder.withdraw();
    }
    // Flushing blocks; the runtime must keep running meanwhile, it carries the export.
    tokio::task::spawn_blocking(move || telemetry.flush())
        .await
        .context("could not flush the telemetry")?;
    outcome.map(|()| ExitCode::SUCCESS)
}

fn say_first_words(config: &Config, started: &Started) {
    match (&started.admin_token, &config.data_folder) {
        (Some(token), Some(folder)) if started.admin_token_made_now => {
            output::remark(format!(
                "made an administrator's token; it is kept in {} and shown only now:\n  WEIR_TOKEN={}",
                folder.admin_token().display(),
                token.expose_secret()
            ));
        }
        (None, _) => tracing::warn!("no WEIR_ADMIN_TOKEN is set: only API tokens made before can use GraphQL"),
        (Some(_), _) => {}
    }
}

/// Opens the database, starts the orchestrator and binds the address. Nothing is served before [`run`].
pub(crate) async fn start(config: &Config, render_metrics: RenderMetrics) -> anyhow::Result<Started> {
    let listen = port_in_time(config.listen).await?;
    if let Some(folder) = &config.data_folder {
        folder.create()?;
    }
    let connectors = connectors(config.connectors.as_deref())?;
    let clock = DatabaseClock::new(config.clock_shift_ms);
    let mut opened = open(config).await?;
    if let Some(folder) = &config.data_folder {
        folder.occupy().await?;
    }
    let asked_at = clock.now();
    let node = opened
        .writer
        .register(&config.node)
        .await
        .context("could not register this server in the database")?;
    clock.learn(node.database_time, asked_at, clock.now());
    start_as(config, (render_metrics, listen), (opened, connectors), (clock, node)).await
}

/// Takes a node whose lease ran out back into service, on the address it had. `None`: another process has its name.
async fn rejoin(config: &Config, render_metrics: RenderMetrics, lost: &Lost) -> anyhow::Result<Option<Started>> {
    let listen = port_in_time(lost.address).await?;
    let connectors = connectors(config.connectors.as_deref())?;
    let clock = DatabaseClock::new(config.clock_shift_ms);
    let mut opened = open(config).await?;
    let asked_at = clock.now();
    let rejoined = opened.writer.rejoin(&lost.node).await;
    let Some(node) = rejoined.context("could not register this server in the database again")? else {
        return Ok(None);
    };
    clock.learn(node.database_time, asked_at, clock.now());
    start_as(config, (render_metrics, listen), (opened, connectors), (clock, node))
        .await
        .map(Some)
}

async fn start_as(
    config: &Config,
    (render_metrics, listen): (RenderMetrics, SocketAddr),
    (opened, connectors): (Opened, Registry),
    (clock, node): (DatabaseClock, NodeIdentity),
) -> anyhow::Result<Started> {
    let Opened { store, writer, secrets } = opened;
    let (admin_token, admin_token_made_now) = admin_token(config)?;
    let mut settings = config.orchestrator.clone();
    settings.public_url_is_set = config.public_url.is_some();
    settings.public_url = config
        .public_url
        .clone()
        .unwrap_or_else(|| format!("http://{}", reachable(listen)));
    let orchestrator = Orchestrator::start(Options {
        settings,
        clock: Arc::new(clock),
        store,
        writer,
        node,
        secrets,
        connectors,
    })
    .await
    .context("could not start")?;
    let options = ServerOptions {
        listen,
        admin_token: admin_token.clone(),
        render_metrics,
        workers: config.workers,
    };
    let server = match Server::bind(orchestrator.clone(), options) {
        Ok(server) => server,
        Err(error) => {
            orchestrator.shutdown().await;
            return Err(anyhow::Error::new(error).context(format!("could not listen on {listen}")));
        }
    };
    let url = format!("http://{}", reachable(server.local_addr()));
    Ok(Started {
        orchestrator,
        server,
        url,
        admin_token,
        admin_token_made_now,
    })
}

/// A database that is open, with the key that fits it.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) writer: WriterSeed,
    pub(crate) secrets: SecretBox,
}

/// Opens the database, which brings its schema up to date, and proves that the master key fits.
pub(crate) async fn open(config: &Config) -> anyhow::Result<Opened> {
    let (store, mut writer) = open_database(config).await?;
    // No key is made up while there are secrets that only a lost one opens.
    let sealed_rows_exist = writer
        .sealed_rows_exist()
        .await
        .context("could not look for stored secrets")?;
    let secrets = SecretBox::new(master_key(config, sealed_rows_exist)?);
    writer.check_key(&secrets).await.map_err(|error| {
        let key_file = config.data_folder.as_ref().map(DataFolder::master_key);
        let place = match (&config.master_key, key_file) {
            (None, Some(path)) => format!(
                "put the key it was made with into {}, or set WEIR_MASTER_KEY to it",
                path.display()
            ),
            (Some(_), _) | (None, None) => "set WEIR_MASTER_KEY to the key it was made with".to_owned(),
        };
        let failure = Failure::new("the master key does not fit this database").fix(place);
        anyhow::Error::new(error).context(failure)
    })?;
    Ok(Opened { store, writer, secrets })
}

/// Whether SQLite says that the file is not, or no longer, a database.
fn is_damaged(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let text = error.to_string();
        text.contains("disk image is malformed") || text.contains("file is not a database")
    })
}

/// Opens the database, which brings its schema up to date.
pub(crate) async fn open_database(config: &Config) -> anyhow::Result<(Store, WriterSeed)> {
    Database::open(&config.database_url, DatabaseOptions::default())
        .await
        .map_err(|error| {
            let fix = match (&error, config.backend) {
                (OpenError::Locked { .. }, _) => {
                    "stop the other process, or give this one another folder (WEIR_DATABASE_URL)"
                }
                (OpenError::Newer { .. }, _) => "start that release, or restore a backup from before the upgrade",
                (OpenError::Unreachable { .. }, _) => "start PostgreSQL, or check host and port in WEIR_DATABASE_URL",
                (OpenError::Denied { .. }, _) => "check user and password in WEIR_DATABASE_URL",
                (OpenError::NoDatabase { .. }, _) => {
                    "create it (createdb), or check the name at the end of WEIR_DATABASE_URL"
                }
                (error, Backend::Sqlite) if is_damaged(error) => {
                    "restore the file from a backup; keep the damaged one, its rows may be recoverable with `sqlite3 FILE .recover`"
                }
                (_, Backend::Sqlite) => "check the path in WEIR_DATABASE_URL and the permissions of its folder",
                (_, Backend::PostgreSql) => "check WEIR_DATABASE_URL",
            };
            let failure = Failure::new("could not open the database").fix(fix);
            anyhow::Error::new(error).context(failure)
        })
}

/// Serves until `stop` resolves or the node loses its place; then finishes or parks what is going on.
pub(crate) async fn run(started: Started, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    match run_once(started, stop).await? {
        None => Ok(()),
        Some(lost) => Err(lost.failure().into()),
    }
}

/// Serves until `stop` resolves. A node that was only slow comes back by itself: others have taken its runs over, and it
/// begins anew. One whose name another process has taken stops.
async fn serve_on(
    config: &Config,
    mut started: Started,
    render_metrics: RenderMetrics,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut stop = std::pin::pin!(stop);
    while let Some(lost) = run_once(started, stop.as_mut()).await? {
        started = rejoin(config, Arc::clone(&render_metrics), &lost)
            .await?
            .ok_or_else(|| lost.failure())?;
        tracing::warn!("this server is back; its lease had run out, and what it had begun is with others");
    }
    Ok(())
}

/// A node that lost its place.
struct Lost {
    why: String,
    node: NodeIdentity,
    address: SocketAddr,
}

impl Lost {
    fn failure(&self) -> Failure {
        Failure::new(format!("the server stopped itself: {}", self.why))
            .fix("start it again; if another server runs under the same WEIR_NODE, give each a name of its own")
    }
}

/// Serves until `stop` resolves, or until the node loses its place.
async fn run_once(started: Started, stop: impl Future<Output = ()>) -> anyhow::Result<Option<Lost>> {
    let Started {
        orchestrator, server, ..
    } = started;
    let address = server.local_addr();
    let taken = orchestrator.stopped();
    let mut reason = None;
    let ended = async {
        tokio::select! {
            () = stop => tracing::info!("stopping"),
            why = taken => reason = Some(why),
        }
    };
    let served = server.run(ended).await;
    orchestrator.shutdown().await;
    served.context("the HTTP server failed")?;
    let Some(why) = reason else {
        tracing::info!("stopped");
        return Ok(None);
    };
    let node = orchestrator.node().clone();
    // What comes next opens the same files.
    drop(tokio::time::timeout(RELEASE_LIMIT, orchestrator.gone()).await);
    Ok(Some(Lost { why, node, address }))
}

/// Resolves at the first SIGTERM or SIGINT; the second one ends the process at once.
///
/// A thread of its own watches, so that a person is heard however busy the workers are.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let watch = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("could not watch for signals")?;
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        let _inside = watch.enter();
        let terminate = signal(SignalKind::terminate()).context("could not watch for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("could not watch for SIGINT")?;
        (terminate, interrupt)
    };
    let (told, stop) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("weir-signals".to_owned())
        .spawn(move || watch.block_on(watch_signals(signals, told)))
        .context("could not watch for signals")?;
    Ok(async move {
        // The sender is dropped only after it was used.
        let _told = stop.await;
    })
}

async fn watch_signals(
    (mut terminate, mut interrupt): (tokio::signal::unix::Signal, tokio::signal::unix::Signal),
    told: tokio::sync::oneshot::Sender<()>,
) {
    let mut told = Some(told);
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        match told.take() {
            // Nobody waits any more when the server has ended by itself.
            Some(told) => drop(told.send(())),
            None => {
                output::remark("stopping at once; what was under way is taken up at the next start");
                std::process::exit(i32::from(crate::failure::EXIT_FAILURE));
            }
        }
    }
}

/// Like [`try_port`], but gives a predecessor that was just killed the time to let go of the address.
async fn port_in_time(listen: SocketAddr) -> anyhow::Result<SocketAddr> {
    let began = Instant::now();
    while began.elapsed() < PORT_PATIENCE
        && matches!(bind_once(listen), Err(error) if error.kind() == ErrorKind::AddrInUse)
    {
        tokio::time::sleep(PORT_LOOK).await;
    }
    try_port(listen)
}

fn bind_once(listen: SocketAddr) -> std::io::Result<SocketAddr> {
    TcpListener::bind(listen).and_then(|listener| listener.local_addr())
}

/// Fails early and clearly when the address cannot be listened on. Port 0 becomes a free one.
pub(crate) fn try_port(listen: SocketAddr) -> anyhow::Result<SocketAddr> {
    match bind_once(listen) {
        Ok(address) => Ok(address),
        Err(error) => {
            let (message, fix) = match error.kind() {
                ErrorKind::AddrInUse => (
                    format!("the address {listen} is taken by another program"),
                    "set WEIR_LISTEN (or --listen, or `listen` in weir.toml) to another port, or stop the other program",
                ),
                ErrorKind::PermissionDenied => (
                    format!("this user may not listen on {listen}"),
                    "ports below 1024 need privileges: set WEIR_LISTEN (or --listen) to a higher port",
                ),
                ErrorKind::AddrNotAvailable => (
                    format!("this machine has no address {}", listen.ip()),
                    "set WEIR_LISTEN (or --listen) to an address of this machine; 0.0.0.0 is all of them",
                ),
                _ => {
                    return Err(
                        anyhow::Error::new(error).context(Failure::usage(format!("could not listen on {listen}")))
                    );
                }
            };
            Err(Failure::usage(message).fix(fix).into())
        }
    }
}

/// The address as one on this machine reaches it: "all interfaces" is no destination.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}

/// The key that seals stored secrets: given, or kept in the data folder of an embedded database.
pub(crate) fn master_key(config: &Config, sealed_rows_exist: bool) -> anyhow::Result<MasterKey> {
    if let Some(text) = &config.master_key {
        return MasterKey::from_base64(text.expose_secret()).context(
            Failure::usage("WEIR_MASTER_KEY is not 32 bytes in base64").fix("make one with `openssl rand -base64 32`"),
        );
    }
    let failure = match (&config.data_folder, config.backend) {
        (Some(folder), Backend::Sqlite) => {
            let path = folder.master_key();
            return MasterKey::load_or_create(&path, sealed_rows_exist).map_err(|error| {
                let fix = match &error {
                    MasterKeyError::Lost { .. } => {
                        "put the file back, or set WEIR_MASTER_KEY to what it held; a backup of the database does not hold it"
                    }
                    MasterKeyError::Malformed | MasterKeyError::MalformedFile { .. } => {
                        "put the right file back; if nothing was sealed yet, remove it and a new one is made"
                    }
                    MasterKeyError::File { .. } => "give this user the right to read and write it",
                };
                let failure = Failure::new(format!("could not use the master key {}", path.display())).fix(fix);
                anyhow::Error::new(error).context(failure)
            });
        }
        (None, Backend::Sqlite) | (_, Backend::PostgreSql) => Failure::usage("WEIR_MASTER_KEY is not set"),
    };
    let fix = if sealed_rows_exist {
        "this database holds secrets: set it to the key that they were sealed with, the same on every server"
    } else {
        "with PostgreSQL every server must be given the same key: make one with `openssl rand -base64 32` and keep it safe"
    };
    Err(failure.fix(fix).into())
}

/// The administrator's token and whether it was made just now.
fn admin_token(config: &Config) -> anyhow::Result<(Option<SecretString>, bool)> {
    if let Some(token) = &config.admin_token {
        return Ok((Some(token.clone()), false));
    }
    match (&config.data_folder, config.backend) {
        (Some(folder), Backend::Sqlite) => {
            let token = folder.admin_token_load_or_create()?;
            Ok((Some(token.token), token.made_now))
        }
        (None, Backend::Sqlite) | (_, Backend::PostgreSql) => Ok((None, false)),
    }
}

/// The built-in connectors, and those of a folder beside them. A manifest with problems stops the start.
pub(crate) fn connectors(folder: Option<&Path>) -> anyhow::Result<Registry> {
    let mut registry = Registry::default();
    for manifest in weir_connectors::builtin() {
        registry.add(manifest.name, manifest.yaml, &|name| {
            manifest.file(name).map(str::to_owned)
        })?;
    }
    if let Some(folder) = folder {
        let added = registry.add_directory(folder).map_err(|error| {
            let fix = format!("run `weir connector check {}`", folder.display());
            anyhow::Error::new(error).context(Failure::usage("a connector manifest cannot be used").fix(fix))
        })?;
        tracing::info!(folder = %folder.display(), added, "loaded {added} connectors from {}", folder.display());
    }
    Ok(registry)
}
