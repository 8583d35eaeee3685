//! Counts answers by route and status. One array look-up and one atomic add per request; nothing is allocated.

use metrics::{Counter, counter};
use std::sync::OnceLock;

/// The routes that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Webhooks.
    Hooks,
    /// The admin API.
    Graphql,
    /// `GraphiQL` and its assets.
    Graphiql,
    /// Health, readiness, metrics.
    Health,
    /// Everything else.
    Other,
}

const ROUTES: usize = 5;
/// Statuses with a counter of their own; all others share the last place.
const STATUSES: [u16; 21] = [
    200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 406, 408, 409, 413, 415, 422, 429, 500, 502, 503, 504,
];

/// All counters of answers. A counter appears in `/metrics` once it has counted something.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    counters: [[OnceLock<Counter>; STATUSES.len() + 1]; ROUTES],
}

impl Answers {
    /// Counts one answer.
    pub(crate) fn count(&self, route: Route, status: u16) {
        let place = STATUSES
            .iter()
            .position(|known| *known == status)
            .unwrap_or(STATUSES.len());
        self.counters[route as usize][place]
            .get_or_init(|| {
                let status = STATUSES.get(place).map_or_else(|| "other".to_owned(), u16::to_string);
                counter!("weir_http_answers_total", "route" => route.name(), "status" => status)
            })
            .increment(1);
    }
}

impl Route {
    const fn name(self) -> &'static str {
        match self {
            Route::Hooks => "hooks",
            Route::Graphql => "graphql",
            Route::Graphiql => "graphiql",
            Route::Health => "health",
            Route::Other => "other",
        }
    }
}
