//! How much a workflow may ask for, and what it gets when it does not say.

use std::time::Duration;

/// How many steps a workflow may have, nested ones included: the state of a run is walked on every outcome.
///
/// Limit: steps of a workflow, nested ones included | refused at publish, `too_many_steps` | `definitions_stop_at_their_bounds`
pub const MAX_STEPS: usize = 500;
/// How deeply steps may be nested: code that walks steps recurses.
///
/// Limit: levels of steps below the first | refused at publish, `nested_too_deeply` | `definitions_stop_at_their_bounds`
pub const MAX_STEP_DEPTH: usize = 8;
/// How many cases a `switch` may have.
///
/// Limit: cases of a `switch` | refused at publish, `out_of_bounds` | `definitions_stop_at_their_bounds`
pub const MAX_CASES: usize = 100;
/// How many branches a `parallel` may have: as many as items of a `for_each` run side by side.
///
/// Limit: branches of a `parallel` | refused at publish, `out_of_bounds` | `definitions_stop_at_their_bounds`
pub const MAX_BRANCHES: usize = 32;
/// The largest `concurrency` of a `for_each`: more would starve other runs of their connection's budget.
///
/// Limit: `concurrency` of a `for_each` | refused at publish, `out_of_bounds` | `definitions_stop_at_their_bounds`
pub const MAX_CONCURRENCY: u32 = 32;
/// The longest `timeout` of a workflow: 90 days, the longest that journals are sure to be kept.
///
/// Limit: `timeout` of a workflow; pauses of a `retry` | refused at publish, `out_of_bounds` | `definitions_stop_at_their_bounds`
pub const MAX_WORKFLOW_TIMEOUT: Duration = Duration::from_secs(90 * 86_400);
/// The longest `timeout` of one try of a call.
///
/// Limit: `timeout` of one try of a call | refused at publish, `out_of_bounds` | `definitions_stop_at_their_bounds`
pub const MAX_CALL_TIMEOUT: Duration = Duration::from_secs(600);
/// The most items that a call may gather over all pages of a list.
///
/// Limit: `all: { max }` of a call | refused at publish, `out_of_bounds` | `definitions_stop_at_their_bounds`
pub const MAX_ALL_ITEMS: u32 = 100_000;
/// The `timeout` of one try of a call, when none is given.
///
/// Limit: one try of a call whose `timeout` says nothing | the try fails, `timeout` | `what_says_nothing_waits_so_long` | `weir_calls_total`
pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a step waits for an event, a person or a run, when its `timeout` says nothing.
///
/// Limit: a step that waits whose `timeout` says nothing | the step fails, `wait_timeout`; `on_timeout` | `what_says_nothing_waits_so_long`
pub const DEFAULT_WAIT: Duration = Duration::from_secs(30 * 86_400);
/// The longest `timeout` of a step that waits: a year and a day, as long as a `sleep`.
///
/// Limit: `timeout` of a step that waits | refused at publish, `out_of_bounds` | `definitions_stop_at_their_bounds`
pub const MAX_WAIT: Duration = crate::run::MAX_SLEEP;
/// How many names `by` of an `approve` may have.
///
/// Limit: names in `by` of an `approve` | refused at publish, `out_of_bounds` | `definitions_stop_at_their_bounds`
pub const MAX_APPROVERS: usize = 100;
/// How long the sender of an event waits for a `respond`, when its `within` says nothing.
///
/// Limit: a sender that waits for a `respond` whose `within` says nothing | 202 with the address of the answer | `what_says_nothing_waits_so_long`
pub const DEFAULT_RESPOND_WITHIN: Duration = Duration::from_secs(10);
/// The longest that the sender of an event is kept waiting: proxies in between give up after a minute.
///
/// Limit: `within` of a `respond` | refused at publish, `out_of_bounds` | `definitions_stop_at_their_bounds`
pub const MAX_RESPOND_WITHIN: Duration = Duration::from_secs(55);
/// The largest number of tries of a call.
///
/// Limit: `tries` of a call | refused at publish, `out_of_bounds` | `definitions_stop_at_their_bounds`
pub const MAX_TRIES: u32 = 100;

/// The `max_waiting` of a lane when none is given.
pub const DEFAULT_MAX_WAITING: u32 = 1000;
/// The largest `max_waiting` of a lane: one object with more open events than this is a fault somewhere.
///
/// Limit: `max_waiting` of a `lane`; by default 1,000 | refused at publish, `out_of_bounds`; the run of a further event fails, `lane_full` | `turns_stop_at_their_bounds` | `weir_runs_lane_full_total`
pub const MAX_MAX_WAITING: u32 = 10_000;
/// The largest `limit` of runs in progress: more is no limit on any machine.
///
/// Limit: `limit` of `concurrency` and `throttle` | refused at publish, `out_of_bounds` | `turns_stop_at_their_bounds`
pub const MAX_LIMIT: u32 = 1000;
/// The longest `per` of a throttle: a day, so that what must be remembered of it stays small.
///
/// Limit: `per` of a `throttle` | refused at publish, `out_of_bounds` | `turns_stop_at_their_bounds`
pub const MAX_PERIOD: Duration = Duration::from_secs(86_400);
/// The longest `for` and `max` of a debounce and of a batch: a week.
///
/// Limit: `for` and `max` of a `debounce`, `for` of a `batch` | refused at publish, `out_of_bounds` | `turns_stop_at_their_bounds`
pub const MAX_GATHERING: Duration = Duration::from_secs(7 * 86_400);
/// The largest `size` of a batch: all its events are in memory while its run is.
///
/// Limit: `size` of a `batch` | refused at publish, `out_of_bounds` | `turns_stop_at_their_bounds`
pub const MAX_BATCH: u32 = 100;
/// The largest `priority`, and its negative the smallest.
///
/// Limit: `priority`, and its negative | refused at publish, `out_of_bounds`; what an expression gives counts as the bound | `turns_stop_at_their_bounds`
pub const MAX_PRIORITY: i32 = 100;
