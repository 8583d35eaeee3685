//! The request allowance that a manifest states, as data for the host's rate limiter.

use serde_json::Value;

use crate::fields::{self, Fields};
use crate::problem::Problems;

/// How many requests a connection may send, and where the provider reports what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Requests allowed in one window, when stated.
    pub requests: Option<u64>,
    /// Length of the window, in seconds; 0 when `requests` is `None`.
    pub window_s: u64,
    /// Requests that may be open at the same time, when stated.
    pub concurrency: Option<u64>,
    /// Headers from which the real allowance is learned.
    pub learn: Option<LearnFrom>,
}

/// Families of allowance headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LearnFrom {
    /// `RateLimit-Remaining` and `RateLimit-Reset` (seconds to go), as in the IETF drafts.
    RateLimit,
    /// `X-RateLimit-Remaining` and `X-RateLimit-Reset` (Unix seconds, or seconds to go when small).
    XRateLimit,
}

pub(crate) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Budget> {
    let fields = Fields::open(value, place, &["window", "concurrency", "learn"], problems)?;
    let mut budget = Budget {
        requests: None,
        window_s: 0,
        concurrency: fields.number("concurrency", problems),
        learn: None,
    };
    if let Some(text) = fields.text("window", problems) {
        let parsed = text
            .split_once('/')
            .and_then(|(requests, window)| Some((requests.parse::<u64>().ok()?, fields::duration_s(window)?)));
        match parsed {
            Some((requests, window_s)) if requests > 0 && window_s > 0 => {
                budget.requests = Some(requests);
                budget.window_s = window_s;
            }
            Some(_) | None => problems.add(
                &fields.at("window"),
                "bad_value",
                format!("`{text}` is not an allowance such as 100/60s"),
            ),
        }
    }
    budget.learn = fields.choice(
        "learn",
        &[
            ("ratelimit", LearnFrom::RateLimit),
            ("x_ratelimit", LearnFrom::XRateLimit),
        ],
        problems,
    );
    Some(budget)
}
