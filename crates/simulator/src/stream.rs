//! A steady stream of webhooks: open loop, N per second, numbered from a start.
//!
//! The rate is kept against the clock: a slow receiver makes deliveries overlap, up to a bound, and does not
//! slow the sender down before that. Beyond the bound the sender waits and says how late it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::delivery::{Delivery, Forge, RetryPolicy};
use crate::scenario::Scenario;
use crate::sender::SendError;
use crate::simulator::Inner;

/// Deliveries in flight at the same time; a receiver that holds this many is too slow for the rate.
pub const IN_FLIGHT_MAX: usize = 1024;

/// How a stream is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// What happens.
    pub scenario: Scenario,
    /// Where the webhooks go.
    pub url: String,
    /// The URL that is signed, when it differs.
    #[serde(default)]
    pub signed_url: Option<String>,
    /// Signing secrets.
    pub secrets: Vec<String>,
    /// Occurrences per second, above 0.
    pub rate_per_s: f64,
    /// Number of the first occurrence. Default 0.
    #[serde(default)]
    pub first: u64,
    /// How many; without it the stream runs until it is stopped.
    #[serde(default)]
    pub count: Option<u64>,
    /// Every n-th delivery is preceded by a forged one, each in another way; 0 is never. Default 0.
    #[serde(default)]
    pub forge_every: u64,
    /// How to retry; the provider's way, compressed, when absent.
    #[serde(default)]
    pub retry: Option<RetryPolicy>,
}

/// A stream's progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamStatus {
    /// Occurrences so far.
    pub happened: u64,
    /// Deliveries finished, acknowledged or not.
    pub finished: u64,
    /// Whether all occurrences were sent, or the stream was stopped, and nothing is in flight.
    pub done: bool,
    /// The most that the sender was behind its schedule, in milliseconds.
    pub late_ms_max: u64,
}

#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    happened: AtomicU64,
    finished: AtomicU64,
    late_ms_max: AtomicU64,
    done: AtomicBool,
    ended: tokio::sync::Notify,
}

/// A running stream. Dropping the handle does not stop it.
#[derive(Clone)]
pub struct StreamHandle {
    /// Number of the stream.
    pub id: u64,
    progress: Arc<Progress>,
}

impl StreamHandle {
    /// Lets nothing more happen; deliveries in flight end in their own time.
    pub fn stop(&self) {
        self.progress.stop.store(true, Ordering::Relaxed);
    }

    /// Progress so far.
    pub fn status(&self) -> StreamStatus {
        let progress = &self.progress;
        StreamStatus {
            happened: progress.happened.load(Ordering::Relaxed),
            finished: progress.finished.load(Ordering::Relaxed),
            done: progress.done.load(Ordering::Acquire),
            late_ms_max: progress.late_ms_max.load(Ordering::Relaxed),
        }
    }

    /// Waits until everything was sent and answered or given up.
    pub async fn finished(&self) -> StreamStatus {
        loop {
            let ended = self.progress.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.progress.done.load(Ordering::Acquire) {
                return self.status();
            }
            ended.await;
        }
    }
}

pub(crate) fn start(inner: &Arc<Inner>, options: StreamOptions) -> Result<StreamHandle, SendError> {
    let probe = options.scenario.happen(&inner.world, options.first);
    inner.sender.check(probe.connector, &options.url, &probe.id)?;
    if !(options.rate_per_s.is_finite() && options.rate_per_s > 0.0) {
        return Err(SendError::Destination(format!(
            "{} at {} per second",
            options.url, options.rate_per_s
        )));
    }
    let id = inner.world.next_number();
    let handle = StreamHandle {
        id,
        progress: Arc::default(),
    };
    let mut streams = inner.streams.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    streams.insert(id, handle.clone());
    let task = run(Arc::clone(inner), options, Arc::clone(&handle.progress));
    // The handle reports its end; `Simulator::stop` tells it to end.
    let _task = tokio::spawn(task);
    Ok(handle)
}

async fn run(inner: Arc<Inner>, options: StreamOptions, progress: Arc<Progress>) {
    let options = Arc::new(options);
    let slots = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut deliveries = JoinSet::new();
    // tokio's clock: a schedule, not a fact.
    let started = Instant::now();
    let mut number = 0_u64;
    while options.count.is_none_or(|count| number < count) && !progress.stop.load(Ordering::Relaxed) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "occurrences of one stream stay far below 2^52"
        )]
        let due = started + Duration::from_secs_f64(number as f64 / options.rate_per_s);
        tokio::time::sleep_until(due).await;
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            break;
        };
        let late = Instant::now().saturating_duration_since(due).as_millis();
        progress
            .late_ms_max
            .fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
        let (inner, options, progress_of_one) = (Arc::clone(&inner), Arc::clone(&options), Arc::clone(&progress));
        progress.happened.fetch_add(1, Ordering::Relaxed);
        deliveries.spawn(async move {
            deliver(&inner, &options, number).await;
            progress_of_one.finished.fetch_add(1, Ordering::Relaxed);
            drop(slot);
        });
        while deliveries.try_join_next().is_some() {}
        number += 1;
    }
    while deliveries.join_next().await.is_some() {}
    progress.done.store(true, Ordering::Release);
    progress.ended.notify_waiters();
}

async fn deliver(inner: &Inner, options: &StreamOptions, number: u64) {
    let occurrence = options.scenario.happen(&inner.world, options.first + number);
    let genuine = Delivery {
        connector: occurrence.connector.to_owned(),
        url: options.url.clone(),
        signed_url: options.signed_url.clone(),
        secrets: options.secrets.clone(),
        id: occurrence.id,
        kind: occurrence.kind,
        headers: occurrence.headers,
        body: occurrence.body,
        forge: None,
        retry: options.retry.clone(),
    };
    if options.forge_every > 0 && number % options.forge_every == options.forge_every - 1 {
        let turn = usize::try_from(number / options.forge_every).unwrap_or_default() % Forge::ALL.len();
        let forged = Delivery {
            forge: Some(Forge::ALL[turn]),
            ..genuine.clone()
        };
        send(inner, &forged).await;
    }
    send(inner, &genuine).await;
}

async fn send(inner: &Inner, delivery: &Delivery) {
    // Connector and destination were checked when the stream started; what is left is logged.
    if let Err(error) = inner.sender.send(&inner.world, delivery).await {
        tracing::warn!(event.id = %delivery.id, %error, "a webhook of the stream could not be sent");
    }
}
