//! Sends webhooks: signs them as the manifest says, disturbs them as the faults say, retries as the
//! provider does, and records what became of each.
//!
//! It sends to loopback only, unless a host was allowed by name, and never follows a redirect.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use url::{Host, Url};

use crate::clock::now_unix_ms;
use crate::delivery::{Delivery, DeliveryAttempt, DeliveryOutcome, Forge, RetryPolicy};
use crate::fault::{Direction, Fault};
use crate::sign::{Signature, Signer, SignerError, Unsigned, with_query};
use crate::simulator::StartError;
use crate::world::World;

/// Retries of a delivery without a policy of its own end within this time.
const RETRIES_COMPRESSED_TO: Duration = Duration::from_secs(30);

/// Bytes of an answer that are kept.
const ANSWER_BYTES_MAX: usize = 2048;

/// Why a webhook cannot be sent at all.
#[derive(Debug, Error)]
pub enum SendError {
    /// It cannot be signed.
    #[error("cannot sign the delivery {id}")]
    Sign {
        /// The event's id.
        id: String,
        /// Why.
        #[source]
        source: SignerError,
    },
    /// The URL is none, or leads to a host that is not allowed.
    #[error("the simulator does not send to `{0}`; allow the host first")]
    Destination(String),
}

pub(crate) struct Sender {
    client: reqwest::Client,
    allow_hosts: Vec<String>,
    signers: Mutex<BTreeMap<String, Arc<Signer>>>,
    /// Rung after each delivery; a reordered one waits for it.
    delivered: Notify,
}

impl Sender {
    pub(crate) fn new(allow_hosts: Vec<String>) -> Result<Self, StartError> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(256)
            .build()
            .map_err(StartError::Client)?;
        Ok(Self {
            client,
            allow_hosts,
            signers: Mutex::new(BTreeMap::new()),
            delivered: Notify::new(),
        })
    }

    /// Registers the scheme of a connector that is not built in, or replaces a built-in one.
    pub(crate) fn set_signer(&self, connector: &str, signer: Signer) {
        let mut signers = self.signers.lock().unwrap_or_else(PoisonError::into_inner);
        signers.insert(connector.to_owned(), Arc::new(signer));
    }

    fn signer(&self, connector: &str) -> Result<Arc<Signer>, SignerError> {
        let mut signers = self.signers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signer) = signers.get(connector) {
            return Ok(Arc::clone(signer));
        }
        let signer = Arc::new(Signer::for_connector(connector)?);
        signers.insert(connector.to_owned(), Arc::clone(&signer));
        Ok(signer)
    }

    /// Checks that a connector can be signed and a URL may be sent to.
    pub(crate) fn check(&self, connector: &str, url: &str, id: &str) -> Result<Arc<Signer>, SendError> {
        self.check_destination(url)?;
        self.signer(connector).map_err(|source| SendError::Sign {
            id: id.to_owned(),
            source,
        })
    }

    fn check_destination(&self, url: &str) -> Result<(), SendError> {
        let refused = || SendError::Destination(url.to_owned());
        let parsed = Url::parse(url).map_err(|_cause| refused())?;
        let is_loopback = match parsed.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        let is_allowed = parsed
            .host_str()
            .is_some_and(|host| self.allow_hosts.iter().any(|allowed| allowed == host));
        if is_loopback || is_allowed {
            Ok(())
        } else {
            Err(refused())
        }
    }

    pub(crate) async fn send(&self, world: &World, delivery: &Delivery) -> Result<DeliveryOutcome, SendError> {
        let signer = self.check(&delivery.connector, &delivery.url, &delivery.id)?;
        let kind = format!("{}.{}", delivery.connector, delivery.kind);
        let mut outcome = DeliveryOutcome {
            id: delivery.id.clone(),
            kind: kind.clone(),
            url: delivery.url.clone(),
            attempts: Vec::new(),
            acknowledged: false,
            dropped: false,
            forged: delivery.forge,
        };
        let retry = delivery
            .retry
            .clone()
            .unwrap_or_else(|| RetryPolicy::of(&delivery.connector).compressed(RETRIES_COMPRESSED_TO));
        let mut number = 0_usize;
        loop {
            let fault = world.faults.decide(Direction::Webhook, &kind, &kind);
            let mut copies = 1;
            match &fault {
                Some(Fault::Drop) => {
                    outcome.dropped = true;
                    break;
                }
                Some(Fault::Reorder { hold_ms }) => {
                    // Too late or overtaken: either way it goes out now.
                    let _overtaken =
                        tokio::time::timeout(Duration::from_millis(*hold_ms), self.delivered.notified()).await;
                }
                Some(Fault::Delay { ms }) => tokio::time::sleep(Duration::from_millis(*ms)).await,
                Some(Fault::Duplicate { times }) => copies += times,
                Some(
                    Fault::TimeOut { .. }
                    | Fault::HangUp { .. }
                    | Fault::RateLimited { .. }
                    | Fault::Status { .. }
                    | Fault::Refuse,
                )
                | None => {}
            }
            for _ in 0..copies {
                let signed = sign(&signer, delivery)?;
                let attempt = match &fault {
                    Some(Fault::HangUp { .. }) => hang_up(&signed, Duration::ZERO).await,
                    Some(Fault::TimeOut { hold_ms, .. }) => hang_up(&signed, Duration::from_millis(*hold_ms)).await,
                    Some(_) | None => self.attempt(&signed, retry.timeout_ms).await,
                };
                outcome.acknowledged |= attempt.status.is_some_and(|status| (200..300).contains(&status));
                outcome.attempts.push(attempt);
                self.delivered.notify_waiters();
            }
            if outcome.acknowledged || delivery.forge.is_some() {
                break;
            }
            let Some(delay_ms) = retry.delays_ms.get(number) else {
                break;
            };
            number += 1;
            tokio::time::sleep(Duration::from_millis(*delay_ms)).await;
        }
        world.deliveries.record(outcome.clone());
        Ok(outcome)
    }

    async fn attempt(&self, signed: &Signed, timeout_ms: u64) -> DeliveryAttempt {
        let at_unix_ms = now_unix_ms();
        let mut request = self
            .client
            .post(&signed.url)
            .timeout(Duration::from_millis(timeout_ms))
            .body(signed.body.clone());
        for (name, value) in &signed.headers {
            request = request.header(name, value);
        }
        let (status, error, answer) = match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                let text = response.text().await.unwrap_or_default();
                (Some(status), None, text.chars().take(ANSWER_BYTES_MAX).collect())
            }
            Err(error) => (None, Some(reason(&error)), String::new()),
        };
        DeliveryAttempt {
            at_unix_ms,
            duration_ms: since(at_unix_ms),
            status,
            error,
            answer,
        }
    }
}

fn since(at_unix_ms: i64) -> u64 {
    u64::try_from(now_unix_ms() - at_unix_ms).unwrap_or_default()
}

fn reason(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "could not connect"
    } else {
        "connection broke"
    };
    kind.to_owned()
}

/// A request as it goes out.
struct Signed {
    url: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// Signs a delivery at this moment, or forges it.
fn sign(signer: &Signer, delivery: &Delivery) -> Result<Signed, SendError> {
    const HOUR_MS: i64 = 60 * 60 * 1000;
    let now_unix_ms = match delivery.forge {
        Some(Forge::Stale) => now_unix_ms() - HOUR_MS,
        Some(Forge::WrongSecret | Forge::TamperedBody | Forge::Unsigned) | None => now_unix_ms(),
    };
    let request = Unsigned {
        method: "POST",
        url: delivery.signed_url.as_deref().unwrap_or(&delivery.url),
        headers: &delivery.headers,
        body: delivery.body.as_bytes(),
        id: &delivery.id,
        now_unix_ms,
    };
    let foreign: Vec<String> = delivery.secrets.iter().map(|secret| foreign_secret(secret)).collect();
    let secrets = if delivery.forge == Some(Forge::WrongSecret) {
        &foreign
    } else {
        &delivery.secrets
    };
    let signature = signer.sign(&request, secrets).map_err(|source| SendError::Sign {
        id: delivery.id.clone(),
        source,
    })?;
    let signature = if delivery.forge == Some(Forge::Unsigned) {
        Signature::default()
    } else {
        signature
    };
    let mut body = delivery.body.clone();
    if delivery.forge == Some(Forge::TamperedBody) {
        // Still JSON, and one space longer than what was signed.
        body.push(' ');
    }
    let mut headers = delivery.headers.clone();
    headers.extend(signature.headers);
    Ok(Signed {
        url: with_query(&delivery.url, &signature.query),
        headers,
        body,
    })
}

/// A secret of the same form that is not the secret: letters and digits are turned round, a `whsec_` stays.
fn foreign_secret(secret: &str) -> String {
    let (prefix, rest) = match secret.strip_prefix("whsec_") {
        Some(rest) => ("whsec_", rest),
        None => ("", secret),
    };
    let turned = rest.chars().map(|character| match character {
        'a'..='z' | 'A'..='Z' if character.eq_ignore_ascii_case(&'a') => 'b',
        'a'..='z' | 'A'..='Z' => 'a',
        '0' => '1',
        '1'..='9' => '0',
        other => other,
    });
    // The last character of a base64 text before its padding must keep its low bits clear: `A` always fits.
    let mut turned: String = turned.collect();
    if let Some(end) = turned
        .trim_end_matches('=')
        .char_indices()
        .next_back()
        .map(|(place, _)| place)
        && !prefix.is_empty()
    {
        turned.replace_range(end..=end, "A");
    }
    format!("{prefix}{turned}")
}

/// Writes the whole request, waits without reading, and closes.
async fn hang_up(signed: &Signed, hold: Duration) -> DeliveryAttempt {
    let at_unix_ms = now_unix_ms();
    let error = match write_and_leave(signed, hold).await {
        Ok(()) => "closed without reading the answer".to_owned(),
        Err(_) => "could not connect".to_owned(),
    };
    DeliveryAttempt {
        at_unix_ms,
        duration_ms: since(at_unix_ms),
        status: None,
        error: Some(error),
        answer: String::new(),
    }
}

async fn write_and_leave(signed: &Signed, hold: Duration) -> std::io::Result<()> {
    let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
    let url = Url::parse(&signed.url).map_err(|_cause| invalid())?;
    let address = url.socket_addrs(|| None)?.into_iter().next().ok_or_else(invalid)?;
    let mut stream = TcpStream::connect(address).await?;
    let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
    let mut head = format!(
        "POST {}{query} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n",
        url.path(),
        signed.body.len()
    );
    for (name, value) in &signed.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(signed.body.as_bytes()).await?;
    stream.flush().await?;
    tokio::time::sleep(hold).await;
    Ok(())
}
