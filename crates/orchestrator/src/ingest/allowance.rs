//! How often each endpoint may cause something within a minute, so that whoever sends requests cannot make the server do
//! or store without end.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use weir_workflow_engine::EndpointId;

/// So many times per endpoint and minute.
#[derive(Debug)]
pub(crate) struct Allowance {
    per_minute: u32,
    spent: Mutex<Spent>,
}

/// What was taken in the minute that was asked about last.
#[derive(Debug, Default)]
struct Spent {
    minute: i64,
    by: BTreeMap<EndpointId, u32>,
}

impl Allowance {
    pub(crate) fn per_minute(per_minute: u32) -> Self {
        Self {
            per_minute,
            spent: Mutex::default(),
        }
    }

    /// Whether this endpoint may once more, by a clock of whose milliseconds only the differences count.
    pub(super) fn take(&self, endpoint: EndpointId, now_ms: i64) -> bool {
        let minute = now_ms.div_euclid(60_000);
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.minute != minute {
            *spent = Spent {
                minute,
                by: BTreeMap::new(),
            };
        }
        let count = spent.by.entry(endpoint).or_insert(0);
        let may = *count < self.per_minute;
        *count += u32::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_has_its_own_and_each_minute_a_new_one() {
        let allowance = Allowance::per_minute(60);
        let (a, b) = (EndpointId::from_raw(1), EndpointId::from_raw(2));
        let now_ms = 1_767_225_600_000;
        let taken = (0..1_000).filter(|_| allowance.take(a, now_ms)).count();
        assert_eq!(taken, 60);
        assert!(allowance.take(b, now_ms));
        assert!(!allowance.take(a, now_ms + 59_999));
        assert!(allowance.take(a, now_ms + 60_000));
        assert_eq!(allowance.spent.lock().unwrap().by.len(), 1, "old minutes are forgotten");
    }
}
