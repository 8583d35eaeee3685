//! Deleting what has had its time, one small slice per transaction.
//!
//! An event goes with everything that came of it: its runs and their replays, journals, large values. In one
//! transaction they stop being there; what a slice has no room for is noted in `dropped` and deleted by later slices.
//! An event with an open run, or one that is still in somebody's inbox, stays, whatever the caller believed; so does one whose
//! run keeps a lane, or is part of an open run's batch. One node at
//! a time deletes: the others find the lock taken and have nothing to do.

use std::collections::BTreeSet;

use weir_workflow_engine::Timestamp;

use super::connection::{Connection, Dialect};
use super::control::{number, prove_lease};
use super::dedupe;
use super::failure::Failure;
use crate::fact::{History, Prune};
use crate::node::NodeIdentity;
use crate::outcome::{FactOutcome, Removed};

/// Rows that one slice deletes: a few milliseconds.
const SLICE_ROWS: i64 = 1000;
/// Large values, of more than 64 KiB each, that one slice deletes.
const SLICE_PAYLOADS: i64 = 32;
/// Owners with rows left over that one slice looks at.
const SLICE_OWNERS: i64 = 100;
/// Refused requests kept in detail.
///
/// Limit: refused requests that are kept in detail | counted only, and the oldest go | `refusals_are_counted_and_bounded` | `weir_webhooks_refused_total`
pub(super) const REFUSED_MAX_ROWS: i64 = 10_000;
/// Bytes of them.
///
/// Limit: bytes of refused requests that are kept | the oldest go | `refusals_are_counted_and_bounded`
const REFUSED_MAX_BYTES: i64 = 32 << 20;
/// Number of the lock on PostgreSQL that the deleting node holds.
const LOCK: i64 = 1_466_263_924;

/// Deletes one slice. Inside a transaction.
pub(crate) async fn prune(
    connection: &mut Connection,
    node: &NodeIdentity,
    prune: &Prune,
) -> Result<FactOutcome, Failure> {
    prove_lease(connection, node).await?;
    if connection.dialect() == Dialect::Postgres {
        let text = format!("SELECT CASE WHEN pg_try_advisory_xact_lock({LOCK}) THEN 1 ELSE 0 END");
        let locked = connection.numbers(&text, Vec::new(), false).await?;
        if number(&locked, 0, 0) != Some(1) {
            return Ok(FactOutcome::Pruned(Removed::default()));
        }
    }
    let rows = match prune {
        Prune::Refused { before } => {
            let text = format!(
                "DELETE FROM refused WHERE id IN (SELECT id FROM (SELECT id, received_at, \
                 row_number() OVER (ORDER BY id DESC) AS place, sum(stored_bytes) OVER (ORDER BY id DESC) AS bytes FROM refused) AS kept \
                 WHERE received_at < $1 OR place > {REFUSED_MAX_ROWS} OR bytes > {REFUSED_MAX_BYTES} ORDER BY id LIMIT {SLICE_ROWS}) \
                 RETURNING stored_bytes"
            );
            let gone = connection
                .numbers(&text, vec![before.as_unix_ms().into()], false)
                .await?;
            return Ok(FactOutcome::Pruned(Removed::of(&gone)));
        }
        Prune::RefusedCounts { before } => {
            let hour = before.as_unix_ms().div_euclid(3_600_000);
            connection
                .run("DELETE FROM refused_count WHERE hour < $1", vec![hour.into()])
                .await?
        }
        Prune::Coverage { before } => {
            let hour = before.as_unix_ms().div_euclid(3_600_000);
            connection
                .run("DELETE FROM coverage WHERE hour < $1", vec![hour.into()])
                .await?
        }
        Prune::Dedupe { now } => {
            let text = format!(
                "DELETE FROM dedupe WHERE (day, hash) IN (SELECT day, hash FROM dedupe WHERE day < $1 ORDER BY day, hash LIMIT {SLICE_ROWS})"
            );
            connection.run(&text, vec![dedupe::first_day_kept(*now).into()]).await?
        }
        Prune::Gates { now } => {
            let text = format!(
                "DELETE FROM gate WHERE id IN (SELECT id FROM gate WHERE idle_at < $1 AND waiting = 0 AND inside = 0 LIMIT {SLICE_ROWS})"
            );
            connection.run(&text, vec![now.as_unix_ms().into()]).await?
        }
        Prune::Audit { before } => older(connection, "audit", *before).await? + operations(connection, *before).await?,
        Prune::Outgoing { before } => older(connection, "outgoing", *before).await?,
        Prune::History(wanted) => return history(connection, wanted).await.map(FactOutcome::Pruned),
        Prune::Leftovers => return leftovers(connection).await.map(FactOutcome::Pruned),
    };
    Ok(FactOutcome::Pruned(Removed { rows, bytes: 0 }))
}

/// A slice of a table whose ids tell the time.
async fn older(connection: &mut Connection, table: &str, before: Timestamp) -> Result<u64, Failure> {
    let text = format!(
        "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE id < $1 ORDER BY id LIMIT {SLICE_ROWS})"
    );
    let below = crate::read::first_id_at(before);
    connection.run(&text, vec![below.into()]).await
}

/// One operation on many runs that is over, with its runs.
async fn operations(connection: &mut Connection, before: Timestamp) -> Result<u64, Failure> {
    let oldest = "SELECT id FROM bulk WHERE id < $1 AND status <> 0 ORDER BY id LIMIT 1";
    let below = crate::read::first_id_at(before);
    let mut rows = 0;
    for (table, key) in [("bulk_item", "bulk_id"), ("bulk", "id")] {
        let text = format!("DELETE FROM {table} WHERE {key} IN ({oldest})");
        rows += connection.run(&text, vec![below.into()]).await?;
    }
    Ok(rows)
}

/// Ids as one parameter, `$1`, and the comparison with it.
struct Ids {
    text: String,
    within: &'static str,
}

impl Ids {
    fn new(dialect: Dialect, ids: impl IntoIterator<Item = i64>) -> Self {
        let ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
        match dialect {
            Dialect::Sqlite => Self {
                text: format!("[{}]", ids.join(",")),
                within: "IN (SELECT value FROM json_each($1))",
            },
            Dialect::Postgres => Self {
                text: ids.join(","),
                within: "= ANY(CAST(string_to_array($1, ',') AS bigint[]))",
            },
        }
    }

    /// Runs a statement in which `{ids}` stands for the comparison.
    async fn numbers(&self, connection: &mut Connection, text: &str) -> Result<super::connection::Numbers, Failure> {
        let text = text.replace("{ids}", self.within);
        connection.numbers(&text, vec![self.text.as_str().into()], false).await
    }

    async fn run(&self, connection: &mut Connection, text: &str) -> Result<u64, Failure> {
        let text = text.replace("{ids}", self.within);
        connection.run(&text, vec![self.text.as_str().into()]).await
    }
}

async fn history(connection: &mut Connection, wanted: &[History]) -> Result<Removed, Failure> {
    let dialect = connection.dialect();
    let roots = Ids::new(dialect, wanted.iter().flat_map(|one| &one.runs).map(|run| run.as_raw()));
    // A replay with an edited event has a copy of it, and belongs to the event of the first run all the same.
    let text = "SELECT run.id, coalesce(root.event_id, run.event_id), run.status, run.event_id FROM run \
        LEFT JOIN run AS root ON root.id = run.root_id WHERE run.id {ids} \
        UNION SELECT run.id, coalesce(root.event_id, run.event_id), run.status, run.event_id FROM run \
        LEFT JOIN run AS root ON root.id = run.root_id WHERE run.root_id {ids} AND run.replay_of IS NOT NULL";
    let runs = roots.numbers(connection, text).await?;
    let events = Ids::new(dialect, wanted.iter().map(|one| one.event.as_raw()));
    let needed = events
        .numbers(connection, "SELECT id FROM inbox WHERE id {ids}")
        .await?;
    let mut kept: Vec<i64> = needed.iter().filter_map(|row| row.first().copied().flatten()).collect();
    for (place, _) in runs.iter().enumerate() {
        if number(&runs, place, 2).is_some_and(|status| status < 2) {
            kept.extend(number(&runs, place, 1));
        }
    }
    let all = Ids::new(dialect, (0..runs.len()).filter_map(|place| number(&runs, place, 0)));
    // A failed run that keeps its lane, and events for which the run of another one stands that is not over.
    let text = "SELECT coalesce(root.event_id, run.event_id) FROM turn JOIN run ON run.id = turn.run_id \
        LEFT JOIN run AS root ON root.id = run.root_id WHERE turn.run_id {ids} \
        UNION SELECT coalesce(root.event_id, run.event_id) FROM merged JOIN run ON run.id = merged.run_id \
        LEFT JOIN run AS root ON root.id = run.root_id JOIN run AS other ON other.id = merged.into_id \
        WHERE merged.run_id {ids} AND other.status < 2";
    let held = all.numbers(connection, text).await?;
    kept.extend(held.iter().filter_map(|row| row.first().copied().flatten()));
    let gone = |id: Option<i64>| id.is_some_and(|id| !kept.contains(&id));
    let leaving: Vec<usize> = (0..runs.len()).filter(|place| gone(number(&runs, *place, 1))).collect();
    let mut events: BTreeSet<i64> = wanted
        .iter()
        .map(|one| one.event.as_raw())
        .filter(|id| gone(Some(*id)))
        .collect();
    events.extend(leaving.iter().filter_map(|place| number(&runs, *place, 3)));
    let runs: Vec<i64> = leaving.iter().filter_map(|place| number(&runs, *place, 0)).collect();

    let mut removed = Removed::default();
    let owners = Ids::new(dialect, runs.iter().chain(&events).copied());
    let of_events = Ids::new(dialect, events);
    let of_runs = Ids::new(dialect, runs);
    removed.rows += of_events
        .run(connection, "DELETE FROM event_key WHERE event_id {ids}")
        .await?;
    for table in ["wait", "inbox", "merged", "dead_letter"] {
        let text = format!("DELETE FROM {table} WHERE run_id {{ids}}");
        removed.rows += of_runs.run(connection, &text).await?;
    }
    removed.rows += of_runs.run(connection, "DELETE FROM run WHERE id {ids}").await?;
    let text = "DELETE FROM event WHERE id {ids} RETURNING coalesce(length(body), 0)";
    removed += Removed::of(&of_events.numbers(connection, text).await?);
    removed += bodies(connection, &owners).await?;
    let text = "INSERT INTO dropped (owner_id) SELECT run_id FROM journal WHERE run_id {ids} \
        UNION SELECT owner_id FROM payload WHERE owner_id {ids}";
    owners.run(connection, text).await?;
    Ok(removed)
}

/// A slice of the journal rows and large values of these runs and events.
async fn bodies(connection: &mut Connection, owners: &Ids) -> Result<Removed, Failure> {
    let mut removed = Removed::default();
    for (table, owner, rows) in [
        ("journal", "run_id", SLICE_ROWS),
        ("payload", "owner_id", SLICE_PAYLOADS),
    ] {
        // By the place of the row, so that no plan ever walks the whole table.
        let chosen = match connection.dialect() {
            Dialect::Sqlite => format!("rowid IN (SELECT rowid FROM {table} WHERE {owner} {{ids}} LIMIT {rows})"),
            Dialect::Postgres => {
                format!("ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {owner} {{ids}} LIMIT {rows}))")
            }
        };
        let text = format!("DELETE FROM {table} WHERE {chosen} RETURNING coalesce(length(body), 0)");
        removed += Removed::of(&owners.numbers(connection, &text).await?);
    }
    Ok(removed)
}

/// What earlier slices had no room for.
async fn leftovers(connection: &mut Connection) -> Result<Removed, Failure> {
    let text = format!("SELECT owner_id FROM dropped ORDER BY owner_id LIMIT {SLICE_OWNERS}");
    let owners = connection.numbers(&text, Vec::new(), false).await?;
    if owners.is_empty() {
        return Ok(Removed::default());
    }
    let owners = Ids::new(connection.dialect(), owners.iter().flatten().copied().flatten());
    let mut removed = bodies(connection, &owners).await?;
    let text = "DELETE FROM dropped WHERE owner_id {ids} AND NOT EXISTS (SELECT 1 FROM journal WHERE run_id = owner_id) \
        AND NOT EXISTS (SELECT 1 FROM payload WHERE payload.owner_id = dropped.owner_id)";
    removed.rows += owners.run(connection, text).await?;
    Ok(removed)
}
