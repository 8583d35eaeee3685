//! What a node says and asks about itself: registration, heartbeat, takeover.
//!
//! A node is a row, and a run's `owner` is the row's slot. A process that registers under a name replaces the
//! incarnation in the row: that alone gives it all open runs of its predecessor and fences it. A node whose lease
//! has run out is fenced by whoever notices (incarnation 0), and its runs move in slices. Every batch proves its
//! incarnation under a lock on the row, so a fenced process commits nothing. Leases are judged by the time of the
//! database alone.

use weir_workflow_engine::{NODE_SLOTS, RunId, Timestamp};

use super::connection::{Connection, Dialect, Numbers};
use super::failure::Failure;
use crate::fact::Heartbeat;
use crate::node::{FREE_RUNS, Fence, LEASE, NOBODY, NodeIdentity};
use crate::outcome::{FactOutcome, HeartbeatReply};

/// Counts in a heartbeat stop here.
const COUNT_LIMIT: i64 = 1000;

fn lease_ms() -> i64 {
    i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn number(rows: &Numbers, row: usize, column: usize) -> Option<i64> {
    rows.get(row).and_then(|row| row.get(column)).copied().flatten()
}

/// What became of a registration.
#[derive(Debug)]
pub(crate) enum Registered {
    Node(NodeIdentity),
    /// All slots are taken.
    NoSlot,
    /// Another process has the name.
    Replaced,
}

/// Takes the node's row in a transaction of the caller's, which must lock out other registrations. With `before`, only
/// if no process came after that one.
pub(crate) async fn register(
    connection: &mut Connection,
    name: &str,
    incarnation: i64,
    before: Option<i64>,
) -> Result<Registered, Failure> {
    let dialect = connection.dialect();
    let now = dialect.now_ms();
    if dialect == Dialect::Sqlite {
        // The file lock proves that every other node is gone, whatever its lease says.
        connection
            .run(
                "UPDATE node SET incarnation = 0, lease_until = 0 WHERE name <> $1",
                vec![name.into()],
            )
            .await?;
    }
    let known = connection
        .numbers(
            "SELECT slot, id_high_water, incarnation FROM node WHERE name = $1",
            vec![name.into()],
            false,
        )
        .await?;
    if let (Some(before), Some(current)) = (before, number(&known, 0, 2))
        && current != 0
        && current != before
    {
        return Ok(Registered::Replaced);
    }
    let slot = match number(&known, 0, 0) {
        Some(slot) => slot,
        None => {
            let taken = connection
                .numbers("SELECT slot FROM node ORDER BY slot", Vec::new(), false)
                .await?;
            let free =
                (0..i64::from(NODE_SLOTS)).find(|slot| !taken.iter().any(|row| row.first() == Some(&Some(*slot))));
            let Some(slot) = free else {
                return Ok(Registered::NoSlot);
            };
            let text = "INSERT INTO node (slot, name, incarnation, started_at, lease_until, id_high_water) VALUES ($1, $2, 0, 0, 0, 0)";
            connection.run(text, vec![slot.into(), name.into()]).await?;
            slot
        }
    };
    if let Some(old) = number(&known, 0, 2) {
        end_sessions(connection, &[old]).await?;
    }
    // The largest id in any table closes the second between two heartbeats.
    let high_water = connection
        .numbers(
            "SELECT (SELECT max(id) FROM event), (SELECT max(id) FROM run), (SELECT max(id) FROM refused), (SELECT max(id) FROM audit)",
            Vec::new(),
            false,
        )
        .await?;
    let stored = high_water.iter().flatten().copied().flatten().max().unwrap_or(0);
    let high_water = stored.max(number(&known, 0, 1).unwrap_or(0));
    let text = format!(
        "UPDATE node SET incarnation = $1, started_at = {now}, lease_until = {now} + $2, id_high_water = $3 WHERE slot = $4 RETURNING started_at"
    );
    let values = vec![incarnation.into(), lease_ms().into(), high_water.into(), slot.into()];
    let rows = connection.numbers(&text, values, false).await?;
    Ok(Registered::Node(NodeIdentity {
        name: name.to_owned(),
        slot: u16::try_from(slot).unwrap_or_default(),
        incarnation,
        id_high_water: high_water,
        database_time: Timestamp::from_unix_ms(number(&rows, 0, 0).unwrap_or(0)),
        drives_runs: true,
    }))
}

/// What the writer's session on PostgreSQL is called, so that a successor can end it.
pub(crate) fn session_name(incarnation: i64) -> String {
    format!("weir writer {incarnation:x}")
}

/// Ends the sessions of fenced writers: one that hangs in a transaction would hold its locks.
async fn end_sessions(connection: &mut Connection, incarnations: &[i64]) -> Result<(), Failure> {
    if connection.dialect() == Dialect::Postgres {
        for incarnation in incarnations.iter().filter(|incarnation| **incarnation != 0) {
            let text = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE application_name = $1 AND usename = current_user AND pid <> pg_backend_pid()";
            connection
                .numbers(text, vec![session_name(*incarnation).as_str().into()], false)
                .await?;
        }
    }
    Ok(())
}

/// Renews the lease, and counts what there is to do, in one statement.
pub(crate) async fn heartbeat(
    connection: &mut Connection,
    node: &NodeIdentity,
    beat: Heartbeat,
) -> Result<FactOutcome, Failure> {
    let dialect = connection.dialect();
    let now = dialect.now_ms();
    let over = dialect.lease_over("other.lease_until");
    let greatest = match dialect {
        Dialect::Sqlite => "max",
        Dialect::Postgres => "greatest",
    };
    let text = format!(
        "UPDATE node SET lease_until = {now} + $1, id_high_water = {greatest}(id_high_water, $2), worker = $3 \
         WHERE slot = $4 AND incarnation = $5 \
         RETURNING lease_until, \
         (SELECT count(*) FROM (SELECT 1 FROM run WHERE owner = $4 AND due_at <= $6 LIMIT {COUNT_LIMIT}) AS due), \
         (SELECT count(*) FROM (SELECT 1 FROM run WHERE status < 2 AND owner IN \
            (SELECT slot FROM node AS other WHERE other.slot <> $4 AND (other.incarnation = 0 OR {over})) \
            LIMIT {COUNT_LIMIT}) AS unclaimed), \
         (SELECT count(*) FROM (SELECT 1 FROM run WHERE owner = {NOBODY} AND status < 2 LIMIT $7) AS free), \
         (SELECT count(*) FROM node AS other WHERE other.slot <> $4 AND other.incarnation <> 0 AND NOT {over}), \
         (SELECT count(*) FROM (SELECT 1 FROM inbox JOIN run ON run.id = inbox.run_id \
            WHERE run.owner = $4 AND run.status < 2 LIMIT {COUNT_LIMIT}) AS mail), \
         (SELECT revision FROM config_state WHERE id = 1), \
         (SELECT count(*) FROM (SELECT 1 FROM bulk WHERE status = 0 AND (owner = $4 OR owner NOT IN \
            (SELECT slot FROM node AS other WHERE other.incarnation <> 0 AND NOT {over})) LIMIT 1) AS bulk), \
         (SELECT count(*) FROM node AS other WHERE other.slot <> $4 AND other.incarnation <> 0 AND other.worker = 1 AND NOT {over}), \
         (SELECT count(*) FROM (SELECT 1 FROM backfill WHERE status = 0 AND retry_at <= {now} AND (owner IN (0, $5) OR owner NOT IN \
            (SELECT incarnation FROM node AS other WHERE other.incarnation <> 0 AND NOT {over})) LIMIT 1) AS backfill)"
    );
    let values = vec![
        lease_ms().into(),
        beat.id_high_water.into(),
        i64::from(node.drives_runs).into(),
        i64::from(node.slot).into(),
        node.incarnation.into(),
        beat.due_before.as_unix_ms().into(),
        i64::from(beat.free_limit).into(),
    ];
    let rows = connection.numbers(&text, values, true).await?;
    let Some(lease_until) = number(&rows, 0, 0) else {
        return Err(Failure::Fenced);
    };
    let count = |column| u32::try_from(number(&rows, 0, column).unwrap_or(0)).unwrap_or(u32::MAX);
    Ok(FactOutcome::Heartbeat(HeartbeatReply {
        due: count(1),
        unclaimed: count(2),
        free: count(3),
        others: count(4),
        other_workers: count(8),
        mail: count(5),
        config_revision: number(&rows, 0, 6).unwrap_or(0),
        bulk: count(7) > 0,
        backfill: count(9) > 0,
        database_time: Timestamp::from_unix_ms(lease_until - lease_ms()),
        lease_until: Timestamp::from_unix_ms(lease_until),
    }))
}

/// Proves inside a transaction that this process is still the node, and keeps it so until the commit.
pub(crate) async fn prove_lease(connection: &mut Connection, node: &NodeIdentity) -> Result<(), Failure> {
    let text = match connection.dialect() {
        Dialect::Sqlite => "SELECT 1 FROM node WHERE slot = $1 AND incarnation = $2",
        Dialect::Postgres => "SELECT 1 FROM node WHERE slot = $1 AND incarnation = $2 FOR SHARE",
    };
    let rows = connection
        .numbers(text, vec![i64::from(node.slot).into(), node.incarnation.into()], false)
        .await?;
    if rows.is_empty() { Err(Failure::Fenced) } else { Ok(()) }
}

/// Who has the place of a node that was fenced.
pub(crate) async fn successor(connection: &mut Connection, node: &NodeIdentity) -> Result<Fence, Failure> {
    let text = "SELECT incarnation FROM node WHERE name = $1";
    let rows = connection.numbers(text, vec![node.name.as_str().into()], false).await?;
    Ok(match number(&rows, 0, 0) {
        None | Some(0) => Fence::LeaseOver,
        Some(current) if current == node.incarnation => Fence::Unclear,
        Some(_) => Fence::NameTaken,
    })
}

/// Fences the nodes whose lease has run out and takes over a slice of their open runs. Inside a transaction.
pub(crate) async fn claim(
    connection: &mut Connection,
    node: &NodeIdentity,
    limit: u32,
) -> Result<FactOutcome, Failure> {
    let dialect = connection.dialect();
    prove_lease(connection, node).await?;
    let slot = i64::from(node.slot);
    let over = dialect.lease_over("lease_until");
    let gone = format!("slot <> $1 AND incarnation <> 0 AND {over}");
    let fenced = connection
        .numbers(
            &format!("SELECT incarnation FROM node WHERE {gone}"),
            vec![slot.into()],
            false,
        )
        .await?;
    if !fenced.is_empty() {
        let incarnations: Vec<i64> = fenced.iter().flatten().copied().flatten().collect();
        end_sessions(connection, &incarnations).await?;
        connection
            .run(
                &format!("UPDATE node SET incarnation = 0 WHERE {gone}"),
                vec![slot.into()],
            )
            .await?;
    }
    // SQLite has one writer and knows no row locks.
    let lock = match dialect {
        Dialect::Sqlite => "",
        Dialect::Postgres => " FOR UPDATE SKIP LOCKED",
    };
    let text = format!(
        "UPDATE run SET owner = $1 WHERE id IN (SELECT id FROM run WHERE status < 2 \
         AND owner IN (SELECT slot FROM node WHERE incarnation = 0) ORDER BY id LIMIT $2{lock}) RETURNING id"
    );
    let rows = connection
        .numbers(&text, vec![slot.into(), i64::from(limit).into()], false)
        .await?;
    let mut runs: Vec<RunId> = rows.iter().flatten().copied().flatten().map(RunId::from_raw).collect();
    runs.sort_unstable();
    if runs.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
        let text = "DELETE FROM node WHERE incarnation = 0 AND NOT EXISTS (SELECT 1 FROM run WHERE run.owner = node.slot AND run.status < 2)";
        connection.run(text, Vec::new()).await?;
    }
    Ok(FactOutcome::Claimed(runs))
}

/// Takes runs that belong to nobody, in one statement. A node that was fenced gets none; its heartbeat tells it why.
pub(crate) async fn claim_free(
    connection: &mut Connection,
    node: &NodeIdentity,
    limit: u32,
) -> Result<FactOutcome, Failure> {
    let (share, lock) = match connection.dialect() {
        Dialect::Sqlite => ("", ""),
        Dialect::Postgres => (" FOR SHARE", " FOR UPDATE SKIP LOCKED"),
    };
    let text = format!(
        "WITH lease AS MATERIALIZED (SELECT 1 FROM node WHERE slot = $1 AND incarnation = $2{share}), \
         free AS MATERIALIZED (SELECT id FROM run WHERE owner = {NOBODY} AND status < 2 \
         AND EXISTS (SELECT 1 FROM lease) ORDER BY id LIMIT $3{lock}) \
         UPDATE run SET owner = $1 WHERE id IN (SELECT id FROM free) RETURNING id"
    );
    let values = vec![
        i64::from(node.slot).into(),
        node.incarnation.into(),
        i64::from(limit).into(),
    ];
    let rows = connection.numbers(&text, values, true).await?;
    let mut runs: Vec<RunId> = rows.iter().flatten().copied().flatten().map(RunId::from_raw).collect();
    runs.sort_unstable();
    Ok(FactOutcome::Claimed(runs))
}

/// Gives a slice of this node's open runs to whoever claims them. Inside a transaction.
pub(crate) async fn release(
    connection: &mut Connection,
    node: &NodeIdentity,
    limit: u32,
) -> Result<FactOutcome, Failure> {
    prove_lease(connection, node).await?;
    let text = format!(
        "UPDATE run SET owner = {NOBODY} WHERE id IN (SELECT id FROM run WHERE owner = $1 AND status < 2 ORDER BY id LIMIT $2)"
    );
    let values = vec![i64::from(node.slot).into(), i64::from(limit).into()];
    let released = connection.run(&text, values).await?;
    if released > 0 {
        tell(connection).await?;
    }
    Ok(FactOutcome::Released(released))
}

/// Tells every worker that there are runs which belong to nobody, once the transaction is committed. SQLite has no others.
pub(crate) async fn tell(connection: &mut Connection) -> Result<(), Failure> {
    if connection.dialect() == Dialect::Postgres {
        let text = format!("SELECT count(pg_notify('{FREE_RUNS}', ''))");
        connection.numbers(&text, Vec::new(), false).await?;
    }
    Ok(())
}
