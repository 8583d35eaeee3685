//! The simulated providers, in a process of their own: they keep their books while `weir` is killed and started again.
//!
//! `simulator.json` in the demo's folder names the process. The providers stop when that file goes away (a clean stop, or
//! the folder was deleted) or when no server has been there for a quarter of an hour.

use crate::arguments::SimulatorArguments;
use crate::client;
use crate::data_folder;
use crate::demo::folder::{DemoFolder, Stream};
use crate::failure::Failure;
use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use weir_simulator::{
    ApiKeys, CUSTOMERS, Direction, Fault, FaultRule, Provider, RetryPolicy, Scenario, Simulator, SimulatorOptions,
    StreamOptions,
};

/// How long the providers wait for a server before they give up.
const LONELY_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How often they look whether they are still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often they look whether the server is there.
const KNOCK_EVERY: Duration = Duration::from_secs(5);
/// How long a start may take.
const START_LIMIT: Duration = Duration::from_secs(10);
/// A provider tries again each second, for a quarter of an hour: real ones do so for days, in longer steps.
const RETRY_MS: u64 = 1_000;
const RETRIES: usize = 900;
/// How long a provider waits for an answer to a webhook.
const ANSWER_LIMIT_MS: u64 = 5_000;
/// Deals are won half as often as payments succeed.
const DEALS_PER_PAYMENT: f64 = 0.5;

/// Reads take about as long as at real providers. Writes answer at once: what is cut off in the middle is a question of
/// luck, and the demo tells one story at a time.
const SLOW_READS: &[&str] = &[
    "stripe.payment_intents.get",
    "stripe.customers.get",
    "hubspot.contacts.get",
    "hubspot.contacts.search",
    "hubspot.deals.get",
    "hubspot.associations.list",
    "hubspot.line_items.search",
];
const READ_MS: u64 = 100;

/// What `simulator.json` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Papers {
    pid: u32,
    /// Address of the control calls, and of all providers together.
    pub(crate) url: String,
}

/// `weir simulator`: runs until nobody wants it any more.
pub(crate) fn main(arguments: &SimulatorArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(Box::pin(provide(&DemoFolder::new(&arguments.folder))))
}

async fn provide(folder: &DemoFolder) -> anyhow::Result<ExitCode> {
    let options = SimulatorOptions {
        seed: folder.identity()?.seed,
        own_ports: true,
        api_keys: ApiKeys {
            stripe: folder.secret("stripe-key")?,
            hubspot: folder.secret("hubspot-token")?,
            slack: folder.secret("slack-token")?,
            ..ApiKeys::default()
        },
        ..SimulatorOptions::default()
    };
    let simulator = Simulator::start(options)
        .await
        .context("the simulated providers did not start")?;
    for route in SLOW_READS {
        let rule = FaultRule::new(Direction::Api, *route, Fault::Delay { ms: READ_MS });
        simulator
            .faults()
            .add(rule)
            .context("the simulated providers could not be slowed down")?;
    }
    let papers = Papers {
        pid: std::process::id(),
        url: simulator.base_url(),
    };
    data_folder::write_whole(&folder.simulator_papers(), &serde_json::to_string(&papers)?)?;
    watch(folder, &papers).await;
    simulator.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Returns when the providers are not wanted any more.
async fn watch(folder: &DemoFolder, own: &Papers) {
    let mut alone = Duration::ZERO;
    let mut since_knock = Duration::ZERO;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if !papers(folder).is_ok_and(|found| found.is_some_and(|found| found.pid == own.pid)) {
            return;
        }
        since_knock += LOOK_EVERY;
        if since_knock < KNOCK_EVERY {
            continue;
        }
        since_knock = Duration::ZERO;
        let url = folder.data.url_load().ok().flatten().unwrap_or_default();
        let address = url.strip_prefix("http://").unwrap_or_default();
        match tokio::net::TcpStream::connect(address).await {
            Ok(_there) => alone = Duration::ZERO,
            Err(_nobody) => alone += KNOCK_EVERY,
        }
        if alone >= LONELY_LIMIT {
            // The papers describe nobody now; a file that is gone already is as good.
            let _gone = std::fs::remove_file(folder.simulator_papers());
            return;
        }
    }
}

fn papers(folder: &DemoFolder) -> anyhow::Result<Option<Papers>> {
    let Some(text) = data_folder::read_if_present(&folder.simulator_papers())? else {
        return Ok(None);
    };
    Ok(serde_json::from_str(&text).ok())
}

/// The running simulated providers, as `weir demo` and its sub-commands see them.
#[derive(Debug, Clone)]
pub(crate) struct Providers {
    http: reqwest::Client,
    pub(crate) url: String,
}

impl Providers {
    /// The providers that run for this folder, if any do.
    pub(crate) async fn find(folder: &DemoFolder) -> anyhow::Result<Option<Self>> {
        let Some(papers) = papers(folder)? else {
            return Ok(None);
        };
        let providers = Providers {
            http: client::http()?,
            url: papers.url,
        };
        Ok(providers.get::<Value>("").await.is_ok().then_some(providers))
    }

    /// The same, for commands that make no sense without them.
    pub(crate) async fn find_running(folder: &DemoFolder) -> anyhow::Result<Self> {
        Self::find(folder).await?.ok_or_else(|| {
            Failure::new("the simulated providers do not run")
                .fix("start them with `weir demo`, in another terminal")
                .into()
        })
    }

    /// Starts them as a process that outlives this one.
    pub(crate) async fn start(folder: &DemoFolder) -> anyhow::Result<Self> {
        let stale = folder.simulator_papers();
        if stale.exists() {
            std::fs::remove_file(&stale).with_context(|| format!("could not remove {}", stale.display()))?;
        }
        let log = folder.simulator_log();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("could not open {}", log.display()))?;
        let program = std::env::current_exe().context("could not find this executable")?;
        let mut child = Command::new(program)
            .arg("simulator")
            .arg("--folder")
            .arg(folder.data.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("could not share the simulator's log")?)
            .stderr(log)
            // Ctrl-C in the terminal is for the server, which says good-bye to the providers itself.
            .process_group(0)
            .spawn()
            .context("could not start the simulated providers")?;
        let mut waited = Duration::ZERO;
        loop {
            if let Some(found) = Self::find(folder).await? {
                return Ok(found);
            }
            let ended = child.try_wait().context("could not watch the simulated providers")?;
            if ended.is_some() || waited >= START_LIMIT {
                return Err(Failure::new("the simulated providers did not start")
                    .fix(format!("see {}", folder.simulator_log().display()))
                    .into());
            }
            tokio::time::sleep(LOOK_EVERY / 10).await;
            waited += LOOK_EVERY / 10;
        }
    }

    /// Lets them stop; they notice within a moment.
    pub(crate) fn dismiss(folder: &DemoFolder) {
        if let Err(error) = std::fs::remove_file(folder.simulator_papers()) {
            tracing::debug!(%error, "the simulated providers had no papers");
        }
    }

    /// Address of one provider.
    pub(crate) async fn address_of(&self, provider: Provider) -> anyhow::Result<String> {
        let overview: Value = self.get("").await?;
        let url = overview["providers"][provider.as_str()].as_str();
        Ok(url
            .context("the simulated providers do not say where they are")?
            .to_owned())
    }

    /// Sends payments at this rate to one endpoint and won deals at half of it to the other. Earlier streams end.
    pub(crate) async fn send_events(&self, folder: &DemoFolder, server: &str, rate_per_s: f64) -> anyhow::Result<()> {
        self.stop_events().await?;
        self.stream(folder, server, Scenario::Payment, rate_per_s).await?;
        let deals = self
            .stream(folder, server, Scenario::DealWon, rate_per_s * DEALS_PER_PAYMENT)
            .await?;
        folder.stream_write(&Stream { deals, rate_per_s })
    }

    /// A CRM that is stopped refuses calls, and reports no deals either.
    pub(crate) async fn stop_crm(&self, folder: &DemoFolder) -> anyhow::Result<()> {
        self.set_listening(Provider::Hubspot, false).await?;
        self.stop_deals(folder).await
    }

    /// The CRM answers again, and goes on reporting deals.
    pub(crate) async fn start_crm(&self, folder: &DemoFolder, server: &str) -> anyhow::Result<()> {
        self.open_crm().await?;
        self.stop_deals(folder).await?;
        let Some(stream) = folder.stream()? else { return Ok(()) };
        let deals = self
            .stream(folder, server, Scenario::DealWon, stream.rate_per_s * DEALS_PER_PAYMENT)
            .await?;
        folder.stream_write(&Stream { deals, ..stream })
    }

    /// The CRM answers, if it did not.
    pub(crate) async fn open_crm(&self) -> anyhow::Result<()> {
        self.set_listening(Provider::Hubspot, true).await
    }

    async fn stop_deals(&self, folder: &DemoFolder) -> anyhow::Result<()> {
        match folder.stream()? {
            Some(stream) => self.end_stream(stream.deals).await,
            None => Ok(()),
        }
    }

    async fn stream(
        &self,
        folder: &DemoFolder,
        server: &str,
        scenario: Scenario,
        rate_per_s: f64,
    ) -> anyhow::Result<u64> {
        // Deals are won with other customers than those who pay at the same moment.
        let (endpoint, secret, apart) = match scenario {
            Scenario::DealWon => ("hubspot", "hubspot-app-secret", CUSTOMERS / 2),
            Scenario::Payment | Scenario::IssueOpened | Scenario::Mention | Scenario::StandardPayment => {
                ("stripe", "stripe-webhook-secret", 0)
            }
        };
        let options = StreamOptions {
            scenario,
            url: format!("{server}/hooks/main/{endpoint}"),
            signed_url: None,
            secrets: vec![folder.secret(secret)?],
            rate_per_s,
            first: folder.identity()?.next_number() + apart,
            count: None,
            forge_every: 0,
            retry: Some(RetryPolicy {
                delays_ms: vec![RETRY_MS; RETRIES],
                timeout_ms: ANSWER_LIMIT_MS,
            }),
        };
        let started: Value = self
            .call(reqwest::Method::POST, "streams", &serde_json::to_value(options)?)
            .await?;
        started["id"]
            .as_u64()
            .context("the simulated providers started a stream without a number")
    }

    /// Ends one stream, if it still runs.
    async fn end_stream(&self, id: u64) -> anyhow::Result<()> {
        let streams: Vec<Value> = self.get("streams").await?;
        if streams.iter().any(|stream| stream["id"].as_u64() == Some(id)) {
            let _stopped: Value = self
                .call(reqwest::Method::DELETE, &format!("streams/{id}"), &Value::Null)
                .await?;
        }
        Ok(())
    }

    /// Ends the sending of new events.
    pub(crate) async fn stop_events(&self) -> anyhow::Result<()> {
        let _stopped: Value = self.call(reqwest::Method::DELETE, "streams", &Value::Null).await?;
        Ok(())
    }

    /// Opens or closes the port of a provider.
    async fn set_listening(&self, provider: Provider, listening: bool) -> anyhow::Result<()> {
        let _done: Value = self
            .call(
                reqwest::Method::PUT,
                &format!("listening/{}", provider.as_str()),
                &json!(listening),
            )
            .await?;
        Ok(())
    }

    /// One control call that reads.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(reqwest::Method::GET, path, &Value::Null).await
    }

    /// One control call.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: reqwest::Method,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<T> {
        let address = format!("{}/_sim/{path}", self.url);
        let mut request = self.http.request(method, &address);
        if !body.is_null() {
            request = request.json(body);
        }
        let response = request.send().await.context("the simulated providers do not answer")?;
        let status = response.status();
        let text = response.text().await.context("the simulated providers broke off")?;
        if !status.is_success() {
            return Err(Failure::new(format!(
                "the simulated providers answered {address} with {status}: {text}"
            ))
            .into());
        }
        serde_json::from_str(&text)
            .with_context(|| format!("could not read what the simulated providers answered to {address}"))
    }
}
