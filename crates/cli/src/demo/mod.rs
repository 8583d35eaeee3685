//! `weir demo`: a server with simulated providers and two flows that really run.
//!
//! Nothing shown is made up: the lines are read from the running server over its public API, the providers are another
//! process with books of their own, and the documents are files that can be changed and applied.

mod books;
mod crm;
mod folder;
mod follow;
mod forge;
pub(crate) mod simulator;
mod welcome;

use crate::arguments::{DemoArguments, DemoCommand};
use crate::client::Client;
use crate::commands::apply;
use crate::commands::documents;
use crate::config::{self, Config, SettingsSource};
use crate::data_folder::make_private_files;
use crate::demo::folder::{DemoFolder, RATE_MAX};
use crate::demo::follow::Follower;
use crate::demo::simulator::Providers;
use crate::failure::Failure;
use crate::output;
use crate::serve;
use crate::telemetry::{self, LogTarget};
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};
use weir_simulator::Provider;

/// Ports that are tried after the wished one.
const PORTS_TO_TRY: u16 = 50;
/// Networks the demo may call: its own simulated providers.
const LOOPBACK: &str = "127.0.0.0/8";
/// How long a stop waits for runs under way.
const FINISH_LIMIT: Duration = Duration::from_secs(5);

/// `weir demo` and its sub-commands.
pub(crate) fn main(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    make_private_files();
    let folder = DemoFolder::new(&arguments.folder.folder);
    let runtime = serve::runtime()?;
    let code = match arguments.command {
        None => runtime.block_on(Box::pin(demo(&arguments, &folder))),
        Some(DemoCommand::Forge) => runtime.block_on(forge::run(&folder)),
        Some(DemoCommand::Crm { action }) => runtime.block_on(crm::run(&folder, action)),
        Some(DemoCommand::Ledger { json }) => runtime.block_on(books::run(&folder, json)),
    };
    runtime.shutdown_background();
    code
}

async fn demo(arguments: &DemoArguments, folder: &DemoFolder) -> anyhow::Result<ExitCode> {
    if !(arguments.rate > 0.0 && arguments.rate <= RATE_MAX) {
        return Err(Failure::usage(format!("--rate must be above 0 and at most {RATE_MAX}")).into());
    }
    let began = DateTime::<Utc>::from(UNIX_EPOCH + UNIX_EPOCH.elapsed().unwrap_or_default());
    folder.prepare()?;
    let telemetry = telemetry::start(None, None, &LogTarget::File(&folder.log()))?;
    let render_metrics = telemetry::start_metrics()?;
    let stop = serve::stop_signal()?;

    let config = config_of(arguments, folder)?;
    let started = serve::start(&config, render_metrics).await?;
    folder.data.announce(&started.url)?;
    let token = started
        .admin_token
        .clone()
        .context("an embedded server has an administrator's token")?;
    let client = Client::new(&started.url, token)?;

    let (end_server, server_ends) = tokio::sync::oneshot::channel::<()>();
    let until_told = async move {
        // Dropped or sent: either way the story has ended.
        let _ended = server_ends.await;
    };
    let story = async {
        let told = tell(arguments, folder, &client, began, stop).await;
        if told.is_err() {
            // A story that broke off has nothing to go on with; the providers must not be left alone.
            Providers::dismiss(folder);
        }
        drop(end_server);
        told
    };
    let (served, told) = tokio::join!(serve::run(started, until_told), story);
    folder.data.withdraw();
    tokio::task::spawn_blocking(move || telemetry.flush())
        .await
        .context("could not flush the telemetry")?;
    told?;
    served?;
    Ok(ExitCode::SUCCESS)
}

/// Brings the providers, applies the flows, shows what happens, and tidies up.
async fn tell(
    arguments: &DemoArguments,
    folder: &DemoFolder,
    client: &Client,
    began: DateTime<Utc>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (providers, were_there) = match Providers::find(folder).await? {
        Some(providers) => (providers, true),
        None => (Providers::start(folder).await?, false),
    };
    for provider in [Provider::Stripe, Provider::Hubspot, Provider::Slack] {
        folder.address_write(provider.as_str(), &providers.address_of(provider).await?)?;
    }
    let documents = documents::read(&[folder.flows()])?;
    apply::send(client, &documents, false).await?;

    let mut follower = Follower::start(client, began).await?;
    welcome::print(folder, client, &providers)?;
    if were_there {
        welcome::print_return(&providers).await?;
    }
    providers.open_crm().await?;
    providers.send_events(folder, client.url(), arguments.rate).await?;

    let limit = async {
        match arguments.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        followed = follower.follow() => followed?,
        () = stop => {}
        () = limit => {}
    }
    // What is under way should end well: nothing new comes, and a stopped CRM is started.
    providers.open_crm().await?;
    providers.stop_events().await?;
    let open = follower.finish(FINISH_LIMIT).await?;
    books::keep(folder, &providers, client).await?;
    Providers::dismiss(folder);
    welcome::print_farewell(open);
    Ok(())
}

fn config_of(arguments: &DemoArguments, folder: &DemoFolder) -> anyhow::Result<Config> {
    let listen = free_address(arguments, folder)?;
    config::check(SettingsSource {
        database_url: Some(format!("sqlite://{}", folder.data.path().join("weir.db").display())),
        listen: Some(listen.to_string()),
        egress_allow: Some(vec![LOOPBACK.to_owned()]),
        ..SettingsSource::default()
    })
}

/// The wished address, or the next free port. After a crash the port of last time comes first: the providers knock there.
fn free_address(arguments: &DemoArguments, folder: &DemoFolder) -> anyhow::Result<SocketAddr> {
    let wished = config::parse_listen(&arguments.listen)?;
    let last = folder
        .data
        .url_load()?
        .and_then(|url| url.strip_prefix("http://").and_then(|address| address.parse().ok()));
    if let Some(last) = last.filter(|last: &SocketAddr| last.ip() == wished.ip())
        && let Ok(address) = serve::try_port(last)
    {
        return Ok(address);
    }
    if let Ok(address) = serve::try_port(wished) {
        return Ok(address);
    }
    for step in 1..=PORTS_TO_TRY {
        let Some(port) = wished.port().checked_add(step) else {
            break;
        };
        if let Ok(address) = serve::try_port(SocketAddr::new(wished.ip(), port)) {
            output::line(format!("Port {} is taken; using {port}.", wished.port()));
            return Ok(address);
        }
    }
    // None is free: the first complaint says best why.
    serve::try_port(wished)
}
