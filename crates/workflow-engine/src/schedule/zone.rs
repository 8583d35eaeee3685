//! Cron lines on the clock of a time zone: what happens on the days on which that clock is put forward or back.
//!
//! 1. A line whose hours do not begin with `*` means times on the wall. A time that does not exist on a day fires right
//!    after the gap, so that a daily job misses no day; several times in one gap fire once. A time that comes twice
//!    fires the first time only.
//! 2. A line whose hours begin with `*` (or name all 24) means real hours: it fires whenever the wall shows a time that
//!    fits, twice in an hour that comes twice, and not for an hour that does not exist.
//!
//! So do Vixie cron and cronie (crontab(5), "Local time changes").

use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp as Instant, civil::DateTime};

use super::cron::Cron;
use crate::problem::nearest;
use crate::time::Timestamp;

/// A time zone with its IANA name.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    zone: TimeZone,
    name: String,
}

/// A name that is not one of the IANA database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ZoneError {
    pub(crate) near: Option<String>,
}

const SECOND: SignedDuration = SignedDuration::from_secs(1);

impl Zone {
    /// Finds a zone by its IANA name, written exactly.
    pub(crate) fn named(name: &str) -> Result<Self, ZoneError> {
        let zones = TimeZoneDatabase::bundled();
        let found = zones.get(name).ok().filter(|zone| zone.iana_name() == Some(name));
        match found {
            Some(zone) => Ok(Self {
                zone,
                name: name.to_owned(),
            }),
            None => {
                let known: Vec<String> = zones.available().map(|known| known.to_string()).collect();
                Err(ZoneError {
                    near: near(name, &known),
                })
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The first instant after `after` at which `cron` fires.
    pub(super) fn next_after(&self, cron: &Cron, after: Timestamp) -> Option<Timestamp> {
        let after = Instant::from_second(after.as_unix_ms().div_euclid(1000)).ok()?;
        let next = if cron.every_hour() {
            self.next_by_hours(cron, after)
        } else {
            self.next_on_the_wall(cron, after)
        }?;
        Some(Timestamp::from_unix_ms(next.as_millisecond()))
    }

    /// Times on the wall in their order: the instants they stand for never run backwards.
    fn next_on_the_wall(&self, cron: &Cron, after: Instant) -> Option<Instant> {
        let mut wall = self.zone.to_datetime(after);
        loop {
            wall = cron.next(wall)?;
            let at = self.first_instant(wall)?;
            if at > after {
                return Some(at);
            }
            wall = wall.checked_add(SECOND).ok()?;
        }
    }

    /// When the wall shows a time for the first time, or first shows a later one.
    fn first_instant(&self, wall: DateTime) -> Option<Instant> {
        match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
                offset.to_timestamp(wall).ok()
            }
            AmbiguousOffset::Gap { before, .. } => {
                let in_old_time = before.to_timestamp(wall).ok()?;
                let change = self.zone.preceding(in_old_time.checked_add(SECOND).ok()?).next()?;
                Some(change.timestamp())
            }
        }
    }

    /// Between two changes of the zone the wall and the instants go side by side.
    fn next_by_hours(&self, cron: &Cron, after: Instant) -> Option<Instant> {
        let mut from = after.checked_add(SECOND).ok()?;
        loop {
            let offset = self.zone.to_offset(from);
            let found = offset.to_timestamp(cron.next(offset.to_datetime(from))?).ok();
            let change = self.zone.following(from).next().map(|change| change.timestamp());
            match (found, change) {
                (Some(found), Some(change)) if found >= change => from = change,
                (found, None) => return found,
                (Some(found), Some(_)) => return Some(found),
                (None, Some(_)) => return None,
            }
        }
    }
}

/// The name most like `name`; its last part alone is enough, so that `Berlin` finds `Europe/Berlin`.
fn near(name: &str, known: &[String]) -> Option<String> {
    let same = known.iter().find(|known| known.eq_ignore_ascii_case(name));
    let by_city = || {
        known.iter().find(|known| {
            let city = known.rsplit('/').next().unwrap_or_default();
            known.contains('/') && city.eq_ignore_ascii_case(&name.replace(' ', "_"))
        })
    };
    same.or_else(by_city)
        .map(String::as_str)
        .or_else(|| nearest(name, known.iter().map(String::as_str)))
        .map(str::to_owned)
}
