//! Keeps SQLite's write-ahead log short: a second thread copies it back while the writer goes on.
//!
//! The copying never blocks the writer (`PASSIVE`). But a log can only start again from its beginning when every
//! page of it is copied and nobody writes, which under load never happens by itself. So once the log is long, the
//! writer makes the last step between two batches, when little is left to copy (`RESTART`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::seed::SqliteTarget;

/// The log never stays longer than this: opening after a crash reads it whole (64 MB take 29 ms).
pub(crate) const LOG_CAP_BYTES: u64 = 64 << 20;
/// From here on the writer helps.
const LOG_LONG_BYTES: u64 = LOG_CAP_BYTES / 4;
/// Commits after which there is something to copy.
const COMMITS: u32 = 32;
/// What few commits left is copied after this pause.
const QUIET: Duration = Duration::from_secs(20);
/// Rest between two passes, so that pages written often are copied once.
const REST: Duration = Duration::from_millis(100);
/// How long the writer waits for readers of the old log.
const READER_WAIT: Duration = Duration::from_millis(50);
/// How long the writer lets a long log be after readers kept it from starting again: a backup reads for minutes, and
/// waiting for it after every pass would cost intake a third of its time.
const READER_PAUSE: Duration = Duration::from_secs(2);
/// How long the end of the writer waits for readers and for a pass that is under way.
const FOLD_WAIT: Duration = Duration::from_secs(2);

/// The writer's side.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    wake: SyncSender<()>,
    long: Arc<AtomicBool>,
    commits: u32,
    /// When the log may next be started again.
    not_before: Option<Instant>,
}

impl Checkpoints {
    /// Starts the thread; it ends when this is dropped. `None` when it cannot be started: then SQLite copies the log
    /// itself within commits, which is slower and just as safe.
    pub(crate) fn start(target: &SqliteTarget) -> Option<Self> {
        let connection = match target.open() {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "the write-ahead log is copied within commits: its thread has no connection");
                return None;
            }
        };
        let (wake, woken) = sync_channel(1);
        let long = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&long);
        let thread = std::thread::Builder::new().name("weir-checkpoint".to_owned());
        match thread.spawn(move || serve(&connection, &woken, &seen)) {
            Ok(_) => Some(Self {
                wake,
                long,
                commits: 0,
                not_before: None,
            }),
            Err(error) => {
                tracing::warn!(%error, "the write-ahead log is copied within commits: its thread cannot be started");
                None
            }
        }
    }

    pub(crate) fn committed(&mut self) {
        self.commits += 1;
        // A full channel means that the thread has not begun the pass that was asked for before.
        if self.commits >= COMMITS && self.wake.try_send(()).is_ok() {
            self.commits = 0;
        }
    }

    /// Starts the log again from its beginning, if it is long.
    pub(crate) fn between_batches(&mut self, connection: &mut Connection) {
        let now = Instant::now();
        if self.not_before.is_some_and(|at| now < at) || !self.long.swap(false, Ordering::AcqRel) {
            return;
        }
        let usual = super::seed::BUSY_TIMEOUT;
        let restarted = connection
            .busy_timeout(READER_WAIT)
            .and_then(|()| pass(connection, "PRAGMA wal_checkpoint(RESTART)"))
            .and_then(|done| connection.busy_timeout(usual).map(|()| done));
        match restarted {
            Ok(done) => self.not_before = done.kept_by_readers.then_some(now + READER_PAUSE),
            Err(error) => tracing::warn!(%error, "the write-ahead log could not be started again"),
        }
    }
}

/// Empties the log at the end of a clean stop, so that the file alone is the whole database: it can be copied, and the
/// next start reads no log. What a reader still holds stays in the log, which is just as safe.
pub(crate) fn fold_in(connection: &mut Connection) {
    let folded = connection
        .busy_timeout(FOLD_WAIT)
        .and_then(|()| pass(connection, "PRAGMA wal_checkpoint(TRUNCATE)"));
    if let Err(error) = folded {
        tracing::warn!(%error, "the write-ahead log stays beside the database");
    }
}

fn serve(connection: &Connection, woken: &Receiver<()>, long: &AtomicBool) {
    loop {
        match woken.recv_timeout(QUIET) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        match pass(connection, "PRAGMA wal_checkpoint(PASSIVE)") {
            Ok(done) => {
                if done.log_bytes > LOG_LONG_BYTES {
                    long.store(true, Ordering::Release);
                }
            }
            Err(error) => tracing::warn!(%error, "the write-ahead log could not be copied back"),
        }
        std::thread::sleep(REST);
    }
}

/// What a pass found.
struct Pass {
    /// Whether it stopped at what somebody still reads.
    kept_by_readers: bool,
    log_bytes: u64,
}

fn pass(connection: &Connection, text: &str) -> rusqlite::Result<Pass> {
    let (busy, frames): (i64, i64) = connection.query_row(text, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Pass {
        kept_by_readers: busy != 0,
        log_bytes: u64::try_from(frames).unwrap_or(0) * u64::from(super::seed::PAGE_BYTES),
    })
}
