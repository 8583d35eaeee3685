//! Whether an effect may be sent that was looked for and not found. A pure rule: the look itself is made in `effect`.

use std::time::Duration;

use weir_workflow_engine::{CallFailure, EffectCommand, SendMode, Timestamp};

use super::failure::{not_settled, unproven};

/// What a look at the provider is sure to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sees {
    /// An effect right after it was carried out.
    pub(crate) consistent: bool,
    /// When it is not consistent: an effect that was carried out this long ago, mostly.
    pub(crate) settle: Duration,
}

/// `Ok` when the effect may be sent although an earlier attempt may have left, since it was not found; otherwise what
/// stands in the way. `proven`: whether it is proven that no byte of an earlier attempt left.
pub(crate) fn unseen(
    effect: &EffectCommand,
    sees: Sees,
    timeout: Duration,
    proven: impl FnOnce() -> bool,
    now: Timestamp,
) -> Result<(), CallFailure> {
    if effect.mode == SendMode::LookOnly {
        return Err(unproven(
            "it was looked for and not found, which this provider does not guarantee to mean that it was not done",
        ));
    }
    if proven() {
        return Ok(());
    }
    // An earlier request may be under way at the provider until its timeout, and invisible for the settle time after that.
    let settle = if sees.consistent { Duration::ZERO } else { sees.settle };
    let settled_at = effect.first_sent_at.plus(timeout).plus(settle);
    let remaining = settled_at.since(now);
    if !remaining.is_zero() {
        Err(not_settled(remaining))
    } else if sees.consistent {
        Ok(())
    } else {
        Err(unproven(
            "it was looked for after the provider's settle time and not found",
        ))
    }
}
