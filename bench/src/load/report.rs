//! Turns the record of one run into one JSON object.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use serde_json::{Value, json};

use crate::arguments::{Arguments, Mode};
use crate::generator::Measured;
use crate::process::Usage;
use crate::record::{Flow, NoAnswer, Record};

/// Nearest-rank percentiles in milliseconds.
#[derive(Debug, PartialEq, Serialize)]
struct Percentiles {
    count: usize,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Percentiles {
    fn of(mut nanoseconds: Vec<u64>) -> Option<Self> {
        nanoseconds.sort_unstable();
        let last = *nanoseconds.last()?;
        let count = nanoseconds.len();
        let rank = |percent: usize| {
            nanoseconds
                .get((count * percent).div_ceil(100).saturating_sub(1))
                .copied()
                .unwrap_or(last)
        };
        Some(Self {
            count,
            p50: milliseconds(rank(50)),
            p90: milliseconds(rank(90)),
            p99: milliseconds(rank(99)),
            max: milliseconds(last),
        })
    }
}

/// What the flows add up to.
#[derive(Default)]
struct Totals {
    answers: BTreeMap<String, u64>,
    accepted: u64,
    accepted_in_window: u64,
    completed_in_window: u64,
    lost: u64,
    doubled: u64,
    surplus_writes: u64,
    surplus_gets: u64,
    unanswered_but_done: u64,
    acks: Vec<u64>,
    ends: Vec<u64>,
    late: Vec<u64>,
}

impl Totals {
    fn add(&mut self, flow: &Flow, measured: &Measured, ack_only: bool) {
        let inside = |at: u64| (measured.window_from_ns..measured.window_to_ns).contains(&at);
        let (due, sent, answered) = (
            flow.due.load(Relaxed),
            flow.sent.load(Relaxed),
            flow.answered.load(Relaxed),
        );
        let (writes, gets, done) = (
            flow.writes.load(Relaxed),
            flow.gets.load(Relaxed),
            flow.first_write.load(Relaxed),
        );
        *self.answers.entry(answer_name(flow.answer.load(Relaxed))).or_default() += 1;
        if inside(due) {
            self.late.push(sent.saturating_sub(due));
        }
        if flow.accepted() {
            self.accepted += 1;
            self.accepted_in_window += u64::from(inside(answered));
            if inside(due) {
                self.acks.push(answered.saturating_sub(due));
            }
            self.lost += u64::from(writes == 0 && !ack_only);
        } else {
            self.unanswered_but_done += u64::from(writes > 0);
        }
        if done > 0 {
            self.completed_in_window += u64::from(inside(done));
            if inside(due) {
                self.ends.push(done.saturating_sub(due));
            }
        }
        self.doubled += u64::from(writes > 1);
        self.surplus_writes += u64::from(writes.saturating_sub(1));
        self.surplus_gets += u64::from(gets.saturating_sub(1));
    }
}

pub(crate) fn report(record: &Record, arguments: &Arguments, measured: &Measured) -> Value {
    let mut totals = Totals::default();
    for flow in record.taken() {
        totals.add(flow, measured, arguments.ack_only);
    }
    let window_s = seconds(measured.window_to_ns.saturating_sub(measured.window_from_ns));
    let per_second = |count: u64| round(count_f64(count) / window_s.max(1e-9));
    let flows_in_window = if arguments.ack_only {
        totals.accepted_in_window
    } else {
        totals.completed_in_window
    };
    let us_per_flow = |cpu_s: Option<f64>| {
        cpu_s
            .filter(|_| flows_in_window > 0)
            .map(|cpu_s| round(cpu_s * 1e6 / count_f64(flows_in_window)))
    };
    let mut report = json!({
        "label": arguments.label,
        "mode": format!("{:?}", arguments.mode),
        "connections": arguments.connections,
        "rate": (arguments.mode == Mode::Open).then_some(arguments.rate),
        "signed": arguments.secret.is_some(),
        "get_held_ms": round(count_f64(record.held_us.load(Relaxed)) / 1e3 / count_f64(record.held.load(Relaxed).max(1))),
        "window_s": round(window_s),
        "sent": record.taken().len(),
        "answers": totals.answers,
        "accepted": totals.accepted,
        "accepted_per_s": per_second(totals.accepted_in_window),
        "completed": record.completed.load(Relaxed),
        "flows_per_s": per_second(totals.completed_in_window),
        "ack_ms": Percentiles::of(totals.acks),
        "end_to_end_ms": Percentiles::of(totals.ends),
        "lost": totals.lost,
        "doubled": totals.doubled,
        "surplus_writes": totals.surplus_writes,
        "surplus_gets": totals.surplus_gets,
        "unanswered_but_done": totals.unanswered_but_done,
        "keyed_repeats": record.keyed_repeats.load(Relaxed),
        "keyless_writes": record.keyless_writes.load(Relaxed),
        "wrong_bodies": record.wrong_bodies.load(Relaxed),
        "foreign_calls": record.foreign_calls.load(Relaxed),
        "unknown_paths": record.unknown_paths.load(Relaxed),
        "drained": measured.drained,
        "memory": memory(measured),
        "server_cpu_us_per_flow": us_per_flow(measured.server_cpu_s),
        "database_cpu_us_per_flow": us_per_flow(measured.database_cpu_s),
        "load_cpu_percent": round(measured.own_cpu_s / window_s.max(1e-9) * 100.0),
        "late_ms": Percentiles::of(totals.late),
    });
    if let Some((began, ended)) = measured.run_ns {
        report["run_ms"] = json!(milliseconds(ended - began));
    }
    if arguments.mode == Mode::ColdStart {
        report["cold_start"] = cold_start(record, measured.first_ns);
    }
    report
}

fn memory(measured: &Measured) -> Value {
    let peak = |value: fn(&Usage) -> f64| round(measured.samples.iter().map(value).fold(0.0, f64::max));
    json!({
        "idle_rss_mb": measured.idle.map(|usage| round(usage.rss_mb)),
        "idle_pss_mb": measured.idle.map(|usage| round(usage.pss_mb)),
        "load_rss_mb": peak(|usage| usage.rss_mb),
        "load_pss_mb": peak(|usage| usage.pss_mb),
        "rss_mb_each_half_second": measured.samples.iter().map(|usage| usage.rss_mb.round()).collect::<Vec<_>>(),
    })
}

/// Milliseconds from the start command to the first 2xx and to the first completed flow.
fn cold_start(record: &Record, began: u64) -> Value {
    let first = |time: fn(&Flow) -> u64| {
        let times = record
            .taken()
            .iter()
            .filter(|flow| flow.accepted())
            .map(time)
            .filter(|at| *at > 0);
        times.min().map(|at| milliseconds(at.saturating_sub(began)))
    };
    json!({
        "first_2xx_ms": first(|flow| flow.answered.load(Relaxed)),
        "first_flow_ms": first(|flow| flow.first_write.load(Relaxed)),
    })
}

fn answer_name(answer: u32) -> String {
    const NAMES: [(NoAnswer, &str); 3] = [
        (NoAnswer::NotConnected, "not_connected"),
        (NoAnswer::Broken, "broken"),
        (NoAnswer::TimedOut, "timed_out"),
    ];
    match NAMES.iter().find(|(code, _)| *code as u32 == answer) {
        Some((_, name)) => (*name).to_owned(),
        None if answer == 0 => "open".to_owned(),
        None => answer.to_string(),
    }
}

/// Exact below 2^53, far above any count of a run.
fn count_f64(count: u64) -> f64 {
    count as f64
}

fn seconds(nanoseconds: u64) -> f64 {
    count_f64(nanoseconds) / 1e9
}

fn milliseconds(nanoseconds: u64) -> f64 {
    (count_f64(nanoseconds) / 1e3).round() / 1e3
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let values = (1..=200).map(|ms| ms * 1_000_000).collect();
        let expected = Percentiles {
            count: 200,
            p50: 100.0,
            p90: 180.0,
            p99: 198.0,
            max: 200.0,
        };
        assert_eq!(Percentiles::of(values), Some(expected));
        assert_eq!(Percentiles::of(vec![]), None);
    }
}
