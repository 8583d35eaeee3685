//! Time: the only module that asks the machine for it.
//!
//! Everything else takes a [`Clock`] or a [`Timestamp`], so that a test can hold time still.
//! Nothing here may be used to order facts of different nodes; the database's own time does that.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir_workflow_engine::Timestamp;

/// Where "now" comes from.
pub trait Clock: Send + Sync {
    /// Wall-clock time, to the millisecond. May step when the machine's clock is corrected.
    fn now(&self) -> Timestamp;

    /// Milliseconds since some fixed moment, by a clock that never steps. Only differences mean anything.
    fn monotonic_ms(&self) -> i64 {
        self.now().as_unix_ms()
    }

    /// Hears what time the database has, and when it was asked and answered by this clock. A clock may follow it.
    fn learn(&self, _database_time: Timestamp, _asked_at: Timestamp, _answered_at: Timestamp) {}

    /// How far the machine's clock is ahead of the database's, milliseconds; negative: behind.
    fn skew_ms(&self) -> i64 {
        0
    }
}

/// How far a machine's clock may be off before `/readyz` and `weir doctor` say so. Half a minute would be noticed by
/// providers; time servers keep machines within milliseconds.
pub const CLOCK_SKEW_LIMIT: Duration = Duration::from_secs(5);
/// Up to here the machine's clock is believed: an answer of the database tells its time no better than this.
const TOLERANCE_MS: i64 = 1_000;
/// How far the clocks of two servers are apart at most, each of them believed or corrected.
pub(crate) const CLOCKS_APART: Duration = Duration::from_secs(3);
/// A clock that follows the database's goes back to its own time below this.
const BACK_TO_OWN_MS: i64 = 500;
/// Smaller corrections are not worth a step.
const STEP_MS: i64 = 100;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the machine's clock"
    )]
    fn now(&self) -> Timestamp {
        let unix_ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            // A clock before 1970 is a machine without a battery; zero keeps every later comparison sane.
            Err(_) => 0,
        };
        Timestamp::from_unix_ms(unix_ms)
    }

    /// Also runs while the machine sleeps: a lease does.
    #[cfg(target_os = "linux")]
    fn monotonic_ms(&self) -> i64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
    }

    #[cfg(not(target_os = "linux"))]
    fn monotonic_ms(&self) -> i64 {
        static FIRST_USE: std::sync::OnceLock<Stopwatch> = std::sync::OnceLock::new();
        let elapsed = FIRST_USE.get_or_init(Stopwatch::start).elapsed();
        i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
    }
}

/// The machine's clock, corrected by the database's: all nodes of one database have one time, so a run that moves to
/// another node wakes when it was meant to, and a clock that is minutes off makes no signature stale.
#[derive(Debug, Default)]
pub struct DatabaseClock {
    /// Set on purpose, to rehearse a wrong clock.
    shift_ms: i64,
    skew_ms: AtomicI64,
    applied_ms: AtomicI64,
}

impl DatabaseClock {
    /// A clock on a machine whose own is ahead by `shift_ms` milliseconds of what the system says; 0 outside rehearsals.
    #[must_use]
    pub fn new(shift_ms: i64) -> Self {
        DatabaseClock {
            shift_ms,
            ..Self::default()
        }
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        let own_ms = SystemClock.now().as_unix_ms() + self.shift_ms;
        Timestamp::from_unix_ms(own_ms + self.applied_ms.load(Ordering::Relaxed))
    }

    fn monotonic_ms(&self) -> i64 {
        SystemClock.monotonic_ms()
    }

    fn learn(&self, database_time: Timestamp, asked_at: Timestamp, answered_at: Timestamp) {
        let took_ms = answered_at.as_unix_ms() - asked_at.as_unix_ms();
        if took_ms < 0 {
            return;
        }
        let applied_ms = self.applied_ms.load(Ordering::Relaxed);
        let own_ms = asked_at.as_unix_ms() + took_ms / 2 - applied_ms;
        let skew_ms = own_ms - database_time.as_unix_ms();
        // An answer that took long tells little, unless the clock is further off than that: then it is, whatever the rest.
        if took_ms > TOLERANCE_MS && skew_ms.abs() <= TOLERANCE_MS + took_ms / 2 {
            return;
        }
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
        let believed_ms = if applied_ms == 0 { TOLERANCE_MS } else { BACK_TO_OWN_MS };
        let wanted_ms = if skew_ms.abs() > believed_ms { -skew_ms } else { 0 };
        if (wanted_ms - applied_ms).abs() > STEP_MS {
            self.applied_ms.store(wanted_ms, Ordering::Relaxed);
        }
    }

    fn skew_ms(&self) -> i64 {
        self.skew_ms.load(Ordering::Relaxed)
    }
}

/// A clock that moves only when it is told to. For tests and rehearsals.
#[derive(Debug)]
pub struct ManualClock {
    unix_ms: AtomicI64,
    monotonic_ms: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        ManualClock {
            unix_ms: AtomicI64::new(start.as_unix_ms()),
            monotonic_ms: AtomicI64::new(0),
        }
    }

    /// Puts the clock to `now`, forwards or backwards, like an administrator: the monotonic clock does not notice.
    pub fn set(&self, now: Timestamp) {
        self.unix_ms.store(now.as_unix_ms(), Ordering::SeqCst);
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.set(self.now().plus(by));
        self.monotonic_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.unix_ms.load(Ordering::SeqCst))
    }

    fn monotonic_ms(&self) -> i64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }
}

/// Measures how long something took, by the monotonic clock, which never steps.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    started: Instant,
}

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the monotonic clock"
    )]
    pub fn start() -> Self {
        Stopwatch {
            started: Instant::now(),
        }
    }

    /// Time since [`Stopwatch::start`].
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// [`Stopwatch::elapsed`] in whole milliseconds, capped at `u32::MAX` (49 days).
    #[must_use]
    pub fn elapsed_ms(&self) -> u32 {
        u32::try_from(self.elapsed().as_millis()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The database says, `behind_ms` before what this clock says now.
    fn told(clock: &DatabaseClock, behind_ms: i64) {
        let now = SystemClock.now().as_unix_ms();
        let by_clock = clock.now();
        clock.learn(Timestamp::from_unix_ms(now - behind_ms), by_clock, by_clock);
    }

    fn off_by_ms(clock: &DatabaseClock) -> i64 {
        clock.now().as_unix_ms() - SystemClock.now().as_unix_ms()
    }

    #[test]
    fn a_wrong_clock_follows_the_database() {
        for shift_ms in [360_000, -360_000] {
            let clock = DatabaseClock::new(shift_ms);
            assert!((off_by_ms(&clock) - shift_ms).abs() < 50);
            told(&clock, 0);
            assert!(off_by_ms(&clock).abs() < 50, "{}", off_by_ms(&clock));
            assert!((clock.skew_ms() - shift_ms).abs() < 50, "{}", clock.skew_ms());
            told(&clock, 0);
            assert!(off_by_ms(&clock).abs() < 50, "told twice it stays");
        }
    }

    #[test]
    fn a_clock_that_is_right_enough_keeps_its_own_time() {
        let clock = DatabaseClock::new(0);
        told(&clock, 900);
        assert!(off_by_ms(&clock).abs() < 50);
        assert!((clock.skew_ms() - 900).abs() < 50);
        told(&clock, 60_000);
        assert!((off_by_ms(&clock) + 60_000).abs() < 50);
        told(&clock, 100);
        assert!(off_by_ms(&clock).abs() < 50, "back to its own");
    }

    #[test]
    fn an_answer_that_took_long_says_no_more_than_it_can() {
        let slowly = |shift_ms: i64| {
            let clock = DatabaseClock::new(shift_ms);
            let (asked, now) = (clock.now(), SystemClock.now());
            clock.learn(now, asked, asked.plus(Duration::from_secs(30)));
            clock
        };
        let clock = slowly(0);
        assert_eq!((off_by_ms(&clock).abs() < 50, clock.skew_ms()), (true, 0));
        // A clock that is further off than the answer can be is off nevertheless.
        let clock = slowly(90_000);
        assert!(off_by_ms(&clock).abs() <= 15_050, "{}", off_by_ms(&clock));
    }
}
