//! Sends the webhooks: closed loop, open loop, cold start; then waits until the flows are through.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use weir_bench::clock::{nanoseconds, unix_ms};
use weir_bench::{documents, signature};

use crate::arguments::{Arguments, Mode, Target};
use crate::client::Connection;
use crate::process::{self, Usage};
use crate::record::{NoAnswer, Record};

/// How long a sender waits for an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pause after a failed connection, and between two webhooks of a cold start.
const PAUSE: Duration = Duration::from_millis(10);
/// How often memory is read.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// How long duplicates are waited for after the last flow.
const SETTLE: Duration = Duration::from_secs(1);

/// What is known beside the record itself.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub first_ns: u64,
    pub window_from_ns: u64,
    pub window_to_ns: u64,
    pub idle: Option<Usage>,
    /// One reading each half second, from the first webhook to the end of the window.
    pub samples: Vec<Usage>,
    pub server_cpu_s: Option<f64>,
    pub database_cpu_s: Option<f64>,
    pub own_cpu_s: f64,
    /// When `--run` began and ended.
    pub run_ns: Option<(u64, u64)>,
    pub drained: bool,
}

pub(crate) async fn measure(record: &Arc<Record>, arguments: &Arc<Arguments>) -> anyhow::Result<Measured> {
    ensure!(
        arguments.rate > 0.0 && arguments.rate <= 200_000.0,
        "--rate must be between 0 and 200000"
    );
    if arguments.mode == Mode::ColdStart {
        return cold_start(record, arguments).await;
    }
    let idle = process::tree_usage(arguments.pid_file.as_deref());
    let first_ns = record.clock.now_ns();
    let from = first_ns + nanoseconds(arguments.warm_up());
    let to = from + nanoseconds(arguments.duration());
    record.stop_at.store(to, Relaxed);

    let window = tokio::spawn(watch_window(Arc::clone(record), Arc::clone(arguments), from, to));
    let run = arguments
        .run
        .clone()
        .map(|command| tokio::spawn(disturb(Arc::clone(record), command, arguments.run_at_s)));
    match arguments.mode {
        Mode::Open => open_loop(record, arguments).await?,
        Mode::Closed | Mode::ColdStart | Mode::Upstreams => closed_loop(record, arguments).await?,
    }
    // The window ends with the sending, also when --max-flows ended it.
    record.stop_at.fetch_min(record.clock.now_ns(), Relaxed);
    let run_ns = match run {
        Some(run) => Some(run.await??),
        None => None,
    };
    let mut measured = window.await?;
    measured.first_ns = first_ns;
    measured.window_from_ns = from;
    measured.window_to_ns = to.min(record.stop_at.load(Relaxed));
    measured.idle = idle;
    measured.run_ns = run_ns;
    measured.drained = arguments.ack_only || drain(record, arguments).await;
    Ok(measured)
}

/// Reads CPU at both ends of the window and memory in between.
async fn watch_window(record: Arc<Record>, arguments: Arc<Arguments>, from: u64, to: u64) -> Measured {
    let cpu = |file: Option<&std::path::Path>| process::tree_usage(file).map(|usage| usage.cpu_s);
    let read = || {
        (
            cpu(arguments.pid_file.as_deref()),
            cpu(arguments.database_pid_file.as_deref()),
            process::own_cpu_s(),
        )
    };
    let difference = |before: Option<f64>, after: Option<f64>| Some(after? - before?).filter(|seconds| *seconds >= 0.0);
    sleep_until(&record, from).await;
    let before = read();
    let mut samples = Vec::new();
    while record.clock.now_ns() < to.min(record.stop_at.load(Relaxed)) {
        samples.extend(process::tree_usage(arguments.pid_file.as_deref()));
        let next = record.clock.now_ns() + nanoseconds(SAMPLE_EVERY);
        sleep_until(&record, next.min(to)).await;
    }
    let after = read();
    Measured {
        samples,
        // After a restart the process ids differ and the sums cannot be compared.
        server_cpu_s: difference(before.0, after.0).filter(|_| arguments.run.is_none()),
        database_cpu_s: difference(before.1, after.1),
        own_cpu_s: after.2 - before.2,
        ..Measured::default()
    }
}

/// Runs the command that kills and restarts the server, and ends the load half a second after it began.
async fn disturb(record: Arc<Record>, command: String, at_s: f64) -> anyhow::Result<(u64, u64)> {
    tokio::time::sleep(Duration::from_secs_f64(at_s)).await;
    let began = record.clock.now_ns();
    record
        .stop_at
        .fetch_min(began + nanoseconds(Duration::from_millis(500)), Relaxed);
    shell(&command).await?;
    Ok((began, record.clock.now_ns()))
}

async fn shell(command: &str) -> anyhow::Result<()> {
    let status = Command::new("sh")
        .arg("-c")
        .arg(command)
        .status()
        .await
        .context("cannot run a shell")?;
    ensure!(status.success(), "`{command}` ended with {status}");
    Ok(())
}

async fn sleep_until(record: &Record, at_ns: u64) {
    let left = at_ns.saturating_sub(record.clock.now_ns());
    tokio::time::sleep(Duration::from_nanos(left)).await;
}

/// The whole HTTP request of webhook `number`.
fn request(record: &Record, arguments: &Arguments, target: &Target, number: usize) -> Vec<u8> {
    let unix_s = unix_ms() / 1000;
    let body = documents::event_body(&record.ids, number, unix_s);
    let mut head = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json; charset=utf-8\r\nuser-agent: Stripe/1.0\r\ncontent-length: {}\r\n",
        target.path,
        target.address,
        body.len(),
    );
    if let Some(secret) = &arguments.secret {
        let signature = signature::sign(secret, unix_s, &body);
        write!(head, "stripe-signature: {signature}\r\n").expect("a String takes every write");
    }
    head.push_str("\r\n");
    let mut request = head.into_bytes();
    request.extend_from_slice(&body);
    request
}

/// Sends one webhook; gives the connection back if it can be used again.
async fn send(
    record: &Record,
    arguments: &Arguments,
    (target, kept): (&Target, Option<Connection>),
    number: usize,
    due: u64,
) -> Option<Connection> {
    let flow = record.flow(number)?;
    let request = request(record, arguments, target, number);
    flow.due.store(due, Relaxed);
    flow.sent.store(record.clock.now_ns(), Relaxed);
    let connection = match kept {
        Some(connection) => Ok(connection),
        None => Connection::open(target.address).await,
    };
    let Ok(mut connection) = connection else {
        record.answered(number, Err(NoAnswer::NotConnected));
        return None;
    };
    match tokio::time::timeout(PATIENCE, connection.send(&request)).await {
        Ok(Ok((status, reusable))) => {
            record.answered(number, Ok(status));
            reusable.then_some(connection)
        }
        Ok(Err(_)) => {
            record.answered(number, Err(NoAnswer::Broken));
            None
        }
        Err(_) => {
            record.answered(number, Err(NoAnswer::TimedOut));
            None
        }
    }
}

async fn closed_loop(record: &Arc<Record>, arguments: &Arc<Arguments>) -> anyhow::Result<()> {
    let senders: Vec<JoinHandle<()>> = (0..arguments.connections as usize)
        .map(|connection| {
            let (record, arguments) = (Arc::clone(record), Arc::clone(arguments));
            tokio::spawn(async move {
                let (target, mut kept) = (arguments.target(connection), None);
                while let Some(number) = record.take() {
                    let now = record.clock.now_ns();
                    kept = send(&record, &arguments, (target, kept), number, now).await;
                    if kept.is_none() {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await?;
    }
    Ok(())
}

async fn open_loop(record: &Arc<Record>, arguments: &Arc<Arguments>) -> anyhow::Result<()> {
    let (due_sender, mut due_receiver) = mpsc::unbounded_channel();
    let pacer = {
        let (record, rate) = (Arc::clone(record), arguments.rate);
        // The operating system's sleep is far finer than the runtime's timer of one millisecond.
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(move || pace(&record, rate, &due_sender))
    };
    pacer.context("cannot start the pacer")?;

    let kept: Arc<Mutex<Vec<Connection>>> = Arc::default();
    let gate = Arc::new(Semaphore::new(arguments.connections as usize));
    while let Some(due) = due_receiver.recv().await {
        let permit = Arc::clone(&gate).acquire_owned().await?;
        let Some(number) = record.take() else { break };
        let (record, arguments, kept) = (Arc::clone(record), Arc::clone(arguments), Arc::clone(&kept));
        tokio::spawn(async move {
            let connection = kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = send(&record, &arguments, (arguments.target(0), connection), number, due).await;
            kept.lock().unwrap_or_else(PoisonError::into_inner).extend(connection);
            drop(permit);
        });
    }
    // All permits back: every webhook has been answered.
    drop(gate.acquire_many(arguments.connections).await?);
    Ok(())
}

fn pace(record: &Record, rate: f64, due_sender: &mpsc::UnboundedSender<u64>) {
    let began = record.clock.now_ns();
    for number in 0_u32.. {
        let due = began + nanoseconds(Duration::from_secs_f64(f64::from(number) / rate));
        if due >= record.stop_at.load(Relaxed) {
            return;
        }
        let ahead = due.saturating_sub(record.clock.now_ns());
        if ahead > 0 {
            std::thread::sleep(Duration::from_nanos(ahead));
        }
        if due_sender.send(due).is_err() {
            return;
        }
    }
}

/// Waits until every accepted flow reached the CRM; `false` when nothing came for too long.
async fn drain(record: &Record, arguments: &Arguments) -> bool {
    let idle_limit = nanoseconds(Duration::from_secs_f64(arguments.drain_idle_s));
    let began = record.clock.now_ns();
    loop {
        if record.complete() {
            tokio::time::sleep(SETTLE).await;
            return true;
        }
        let quiet_since = record.last_write.load(Relaxed).max(began);
        if record.clock.now_ns().saturating_sub(quiet_since) > idle_limit {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn cold_start(record: &Arc<Record>, arguments: &Arc<Arguments>) -> anyhow::Result<Measured> {
    let command = arguments
        .run
        .clone()
        .context("cold-start needs --run, the command that starts the server")?;
    let began = record.clock.now_ns();
    record.stop_at.store(began + nanoseconds(arguments.duration()), Relaxed);
    let started = tokio::spawn(async move { shell(&command).await });
    let mut kept = None;
    while record.completed.load(Relaxed) == 0 {
        let Some(number) = record.take() else { break };
        let now = record.clock.now_ns();
        kept = send(record, arguments, (arguments.target(0), kept), number, now).await;
        tokio::time::sleep(PAUSE).await;
    }
    let drained = drain(record, arguments).await;
    started.await??;
    let now = record.clock.now_ns();
    Ok(Measured {
        first_ns: began,
        window_from_ns: began,
        window_to_ns: now,
        drained,
        ..Measured::default()
    })
}
