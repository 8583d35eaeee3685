//! The next tries of calls, earlier than planned: what a person asks for when the other side is back.
//!
//! Only pauses between tries are cut. What a `sleep` promises stands, and so does the time after which a request that may
//! be under way is sure to be over: a look before that could miss it.

use std::sync::Arc;

use super::state::{OpenCall, Phase};
use super::walk::Walk;
use crate::command::SendMode;
use crate::effect::EffectClass;
use crate::journal::{Entry, Hurried, HurriedCall};
use crate::time::Timestamp;

impl Walk<'_> {
    /// Makes the next tries of all calls that wait for them as early as they may be.
    pub(super) fn hurry(&mut self, by: &str) {
        let earlier = |open: &OpenCall| {
            let Phase::Wait { until, mode } = open.phase else {
                return None;
            };
            let earliest = self.earliest(open, mode)?.max(self.now);
            (earliest < until).then_some(earliest)
        };
        let calls: Vec<HurriedCall> = self
            .run
            .calls
            .iter()
            .filter_map(|(call, open)| {
                Some(HurriedCall {
                    call: *call,
                    of: open.of.clone(),
                    until: earlier(open)?,
                })
            })
            .collect();
        if !calls.is_empty() {
            let at = self.now;
            self.push(Entry::Hurried(Hurried {
                by: Arc::from(by),
                at,
                calls,
            }));
        }
    }

    /// Before when the next try may not be made. `None`: it is made when it was planned.
    fn earliest(&self, open: &OpenCall, mode: Option<SendMode>) -> Option<Timestamp> {
        let looks = match mode {
            None | Some(SendMode::First | SendMode::Resend | SendMode::IfNeverSent) => return Some(self.now),
            Some(SendMode::LookFirst | SendMode::LookOnly) => open.intent.as_ref()?.class,
        };
        let over = open.failed_at?.plus(self.timeout(open));
        match looks {
            EffectClass::FindBy { consistent: true, .. } => Some(over),
            EffectClass::FindBy {
                consistent: false,
                settle,
            } => Some(over.plus(settle)),
            EffectClass::Keyed { .. } | EffectClass::Repeatable | EffectClass::Read | EffectClass::Blind => None,
        }
    }
}
