//! How a run's turn is stored: the gates it has to pass, as bytes.

use weir_workflow_engine::{Ask, GateKey, GateKind, Rules};

/// Bytes of a gate before its name: kind, flags, two numbers, key, length of the name.
const HEAD_BYTES: usize = 1 + 1 + 8 + 8 + 16 + 2;
const MERGE: u8 = 1;
const HOLD: u8 = 2;
const HAS_MAX: u8 = 4;

pub(crate) fn gate_kind_code(kind: GateKind) -> i16 {
    match kind {
        GateKind::Lane => 0,
        GateKind::Concurrency => 1,
        GateKind::Throttle => 2,
        GateKind::Debounce => 3,
        GateKind::Batch => 4,
        GateKind::Pause => 5,
    }
}

pub(crate) fn gate_kind(code: i64) -> Option<GateKind> {
    match code {
        0 => Some(GateKind::Lane),
        1 => Some(GateKind::Concurrency),
        2 => Some(GateKind::Throttle),
        3 => Some(GateKind::Debounce),
        4 => Some(GateKind::Batch),
        5 => Some(GateKind::Pause),
        _ => None,
    }
}

/// Flags and two numbers.
fn numbers(rules: &Rules) -> (u8, i64, i64) {
    match rules {
        Rules::Lane {
            merge,
            max_waiting,
            hold,
        } => {
            let merge = if *merge { MERGE } else { 0 };
            let hold = if *hold { HOLD } else { 0 };
            (merge | hold, i64::from(*max_waiting), 0)
        }
        Rules::Concurrency { limit } => (0, i64::from(*limit), 0),
        Rules::Throttle { limit, per_ms } => (0, i64::from(*limit), *per_ms),
        Rules::Debounce { quiet_ms, max_ms } => match max_ms {
            Some(max_ms) => (HAS_MAX, *quiet_ms, *max_ms),
            None => (0, *quiet_ms, 0),
        },
        Rules::Batch { size, within_ms } => (0, i64::from(*size), *within_ms),
        Rules::Pause { open } => (0, i64::from(*open), 0),
    }
}

fn rules(kind: GateKind, flags: u8, first: i64, second: i64) -> Option<Rules> {
    let count = u32::try_from(first);
    Some(match kind {
        GateKind::Pause => Rules::Pause { open: first != 0 },
        GateKind::Lane => Rules::Lane {
            merge: flags & MERGE != 0,
            max_waiting: count.ok()?,
            hold: flags & HOLD != 0,
        },
        GateKind::Concurrency => Rules::Concurrency { limit: count.ok()? },
        GateKind::Throttle => Rules::Throttle {
            limit: count.ok()?,
            per_ms: second,
        },
        GateKind::Debounce => Rules::Debounce {
            quiet_ms: first,
            max_ms: (flags & HAS_MAX != 0).then_some(second),
        },
        GateKind::Batch => Rules::Batch {
            size: count.ok()?,
            within_ms: second,
        },
    })
}

/// The gates in their order.
pub(crate) fn encode(gates: &[Ask]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(gates.len() * (HEAD_BYTES + 32));
    for ask in gates {
        let (flags, first, second) = numbers(&ask.rules);
        let kind = u8::try_from(gate_kind_code(ask.rules.kind())).unwrap_or(u8::MAX);
        bytes.extend([kind, flags]);
        bytes.extend(first.to_be_bytes());
        bytes.extend(second.to_be_bytes());
        bytes.extend(ask.key.bytes());
        bytes.extend(u16::try_from(ask.name.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(ask.name.as_bytes());
    }
    bytes
}

/// The gates of [`encode`]; `None` when the bytes are something else.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<Ask>> {
    let mut gates = Vec::new();
    while !bytes.is_empty() {
        let (kind, rest) = bytes.split_first()?;
        let (flags, rest) = rest.split_first()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (second, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let kind = gate_kind(i64::from(*kind))?;
        gates.push(Ask {
            key: GateKey::from_bytes(*key),
            name: String::from_utf8(name.to_vec()).ok()?,
            rules: rules(kind, *flags, i64::from_be_bytes(*first), i64::from_be_bytes(*second))?,
        });
        bytes = rest;
    }
    Some(gates)
}

/// Times as they are stored.
pub(crate) fn encode_times(times: &[i64]) -> Option<Vec<u8>> {
    (!times.is_empty()).then(|| times.iter().flat_map(|time| time.to_be_bytes()).collect())
}

/// The times of [`encode_times`].
pub(crate) fn decode_times(bytes: &[u8]) -> Vec<i64> {
    let (times, _) = bytes.as_chunks();
    times.iter().map(|time| i64::from_be_bytes(*time)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_workflow_engine::WorkflowId;

    #[test]
    fn gates_come_back_as_they_were() {
        let ask = |name: &str, rules: Rules| Ask {
            key: GateKey::new(WorkflowId::from_raw(1), rules.kind(), name),
            name: name.to_owned(),
            rules,
        };
        let lane = |merge, hold| Rules::Lane {
            merge,
            max_waiting: 70_000,
            hold,
        };
        let gates = vec![
            ask("deal/é", lane(true, false)),
            ask("", lane(false, true)),
            ask("x", Rules::Concurrency { limit: 1000 }),
            ask("", Rules::Pause { open: false }),
            ask("", Rules::Pause { open: true }),
            ask(
                "",
                Rules::Throttle {
                    limit: 3,
                    per_ms: 60_000,
                },
            ),
            ask(
                "b",
                Rules::Debounce {
                    quiet_ms: 5,
                    max_ms: None,
                },
            ),
            ask(
                "b",
                Rules::Debounce {
                    quiet_ms: 5,
                    max_ms: Some(9),
                },
            ),
            ask("", Rules::Batch { size: 10, within_ms: 7 }),
        ];
        let bytes = encode(&gates);
        assert_eq!(decode(&bytes), Some(gates));
        assert_eq!(decode(&[]), Some(Vec::new()));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode_times(&encode_times(&[1, -2]).unwrap()), [1, -2]);
    }
}
