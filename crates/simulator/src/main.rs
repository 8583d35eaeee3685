//! `weir-simulator`: the fake providers as a process of their own.
//!
//! For the crash proofs (its ledger must outlive the process under test) and for playing by hand. `serve`
//! prints one line of JSON when it is ready; `send` and `stream` talk to a running one.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use weir_simulator::{ApiKeys, Behaviour, FaultRule, Forge, Scenario, Simulator, SimulatorOptions, StreamOptions};

/// Fake Stripe, HubSpot, Slack, GitHub and CRM, with faults, on loopback.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the fake providers until interrupted.
    Serve(Serve),
    /// Lets something happen at a running simulator and sends its webhook once.
    Send(Send),
    /// Sends a steady stream from a running simulator, waits for its end, prints the balance.
    Stream(Stream),
}

#[derive(Args)]
struct Serve {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 9700)]
    port: u16,
    /// Decides ids, amounts and faults.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Gives each provider a port of its own too, which can be closed for real.
    #[arg(long)]
    own_ports: bool,
    /// Threads per port.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// The CRM ignores idempotency keys.
    #[arg(long)]
    no_crm_keys: bool,
    /// Stripe ignores idempotency keys.
    #[arg(long)]
    no_stripe_keys: bool,
    /// The CRM asks for this bearer token.
    #[arg(long)]
    crm_key: Option<String>,
    /// The key that Stripe asks for.
    #[arg(long)]
    stripe_key: Option<String>,
    /// A fault rule as JSON: {"direction":"api","route":"crm.*","fault":{"kind":"status"},"probability":0.1}.
    #[arg(long = "fault")]
    faults: Vec<String>,
    /// A host beyond loopback that webhooks may be sent to.
    #[arg(long = "allow-host")]
    allow_hosts: Vec<String>,
}

#[derive(Args)]
struct Target {
    /// The running simulator.
    #[arg(long, default_value = "http://127.0.0.1:9700")]
    simulator: String,
    /// payment, deal-won, issue-opened, mention, standard-payment.
    #[arg(long, default_value = "payment", value_parser = scenario)]
    scenario: Scenario,
    /// Where the webhooks go.
    #[arg(long)]
    url: String,
    /// Signing secret; several for a rotation.
    #[arg(long = "secret", required = true)]
    secrets: Vec<String>,
    /// The URL that is signed, when the receiver is known by another one.
    #[arg(long)]
    signed_url: Option<String>,
    /// Number of the first occurrence.
    #[arg(long, default_value_t = 0)]
    number: u64,
}

#[derive(Args)]
struct Send {
    #[command(flatten)]
    target: Target,
    /// wrong-secret, tampered-body, stale, unsigned.
    #[arg(long, value_parser = forge)]
    forge: Option<Forge>,
}

#[derive(Args)]
struct Stream {
    #[command(flatten)]
    target: Target,
    /// Occurrences per second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// How many.
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Every n-th is preceded by a forged one; 0 is never.
    #[arg(long, default_value_t = 0)]
    forge_every: u64,
}

fn scenario(name: &str) -> Result<Scenario, String> {
    Scenario::from_name(name).ok_or_else(|| format!("there is no scenario `{name}`"))
}

fn forge(name: &str) -> Result<Forge, String> {
    serde_json::from_value(Value::String(name.replace('-', "_")))
        .map_err(|_cause| format!("there is no forgery `{name}`"))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Serve(arguments) => serve(arguments).await,
        Command::Send(arguments) => send(arguments).await,
        Command::Stream(arguments) => stream(arguments).await,
    }
}

#[expect(
    clippy::print_stdout,
    reason = "a command line tool says on stdout what a script reads"
)]
fn say(value: &Value) {
    println!("{value}");
}

async fn serve(arguments: Serve) -> anyhow::Result<()> {
    let mut api_keys = ApiKeys {
        crm: arguments.crm_key,
        ..ApiKeys::default()
    };
    if let Some(key) = arguments.stripe_key {
        api_keys.stripe = key;
    }
    let behaviour = Behaviour {
        stripe_keys: !arguments.no_stripe_keys,
        crm_keys: !arguments.no_crm_keys,
        ..Behaviour::default()
    };
    let simulator = Simulator::start(SimulatorOptions {
        port: arguments.port,
        seed: arguments.seed,
        own_ports: arguments.own_ports,
        workers: arguments.workers,
        api_keys,
        behaviour,
        allow_hosts: arguments.allow_hosts,
    })
    .await?;
    for text in &arguments.faults {
        let rule: FaultRule = serde_json::from_str(text).with_context(|| format!("fault rule {text}"))?;
        simulator.faults().add(rule)?;
    }
    say(
        &json!({ "ready": true, "base_url": simulator.base_url(), "control": format!("{}/_sim", simulator.base_url()) }),
    );
    tokio::signal::ctrl_c().await?;
    simulator.stop().await;
    Ok(())
}

async fn send(arguments: Send) -> anyhow::Result<()> {
    let target = arguments.target;
    let body = json!({
        "scenario": target.scenario, "number": target.number, "url": target.url, "signed_url": target.signed_url,
        "secrets": target.secrets, "forge": arguments.forge,
    });
    let outcome = call(&target.simulator, "POST", "send", Some(&body)).await?;
    say(&outcome);
    let acknowledged = outcome["acknowledged"] == true;
    if acknowledged == arguments.forge.is_some() {
        bail!(if acknowledged {
            "the forged webhook was accepted"
        } else {
            "the webhook was not acknowledged"
        });
    }
    Ok(())
}

async fn stream(arguments: Stream) -> anyhow::Result<()> {
    let target = arguments.target;
    let options = StreamOptions {
        scenario: target.scenario,
        url: target.url,
        signed_url: target.signed_url,
        secrets: target.secrets,
        rate_per_s: arguments.rate,
        first: target.number,
        count: Some(arguments.count),
        forge_every: arguments.forge_every,
        retry: None,
    };
    let started = call(
        &target.simulator,
        "POST",
        "streams",
        Some(&serde_json::to_value(options)?),
    )
    .await?;
    let path = format!("streams/{}", started["id"]);
    loop {
        let status = call(&target.simulator, "GET", &path, None).await?;
        if status["done"] == true {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let deliveries = call(&target.simulator, "GET", "deliveries?limit=0", None).await?;
    let balance = call(&target.simulator, "GET", "balance", None).await?;
    say(&json!({ "deliveries": deliveries["summary"], "balance": balance }));
    Ok(())
}

/// One call to a running simulator's control API.
async fn call(simulator: &str, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let url = format!("{}/_sim/{path}", simulator.trim_end_matches('/'));
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut request = client.request(reqwest::Method::from_bytes(method.as_bytes())?, &url);
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request
        .send()
        .await
        .with_context(|| format!("no simulator answers at {simulator}; start one with `serve`"))?;
    let status = response.status();
    let answer: Value = response.json().await?;
    if !status.is_success() {
        bail!(
            "the simulator refused: {}",
            answer["error"].as_str().unwrap_or("no reason given")
        );
    }
    Ok(answer)
}
