//! A batch on PostgreSQL: one statement, one round trip, its own transaction.
//!
//! Each table gets its rows as arrays, one per column, so the text depends only on which tables take part and is
//! prepared once. The lease is proved by a row lock inside the statement, and nothing is inserted without it. The
//! event and runs of a key that was seen before are left out by the database. A value that offends fails the whole
//! statement; the task then splits the batch.
//!
//! Only a batch in which somebody waits for something has a transaction of several statements ([`mail`]).

mod columns;
pub(super) mod gates;
mod mail;

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row as _};
use weir_workflow_engine::{EventId, RunId};

use super::config::AUDIT;
use super::dedupe::KeyHash;
use super::failure::Failure;
use super::gates::{GateWork, Moved};
use super::prepare::{AcceptRow, Row};
use super::task::{Verdict, Written};
use crate::config::AuditEntry;
use crate::node::NodeIdentity;
use crate::outcome::AcceptOutcome;
use columns::{Answer, Columns};
use mail::MailColumns;

/// Writes the rows and commits; a verdict for each.
pub(crate) async fn write(
    connection: &mut PgConnection,
    node: &NodeIdentity,
    rows: &[&Row],
) -> Result<Written, Failure> {
    let known = seen_before(connection, rows).await?;
    let fresh = fresh_accepts(rows, &known);
    let ids: HashSet<EventId> = fresh.values().map(|row| row.id()).collect();
    if ids.len() < fresh.len() {
        // Two different events with one id would count each other's guards: let them come one by one.
        return Err(Failure::taken_id());
    }
    let columns = Columns::collect(rows, &fresh, node);
    let mail = MailColumns::collect(rows, &fresh);
    let waits = !GateWork::collect(rows, |_, _| true).is_empty() || rows.iter().any(|row| audited(row).is_some());
    let Done { answer, mailed, moved } = if mail.is_none() && !waits {
        let answer = columns.write(connection, node, true).await?;
        Done {
            answer,
            ..Done::default()
        }
    } else {
        together(columns, mail.unwrap_or_default(), rows, connection, node).await?
    };
    // Keys that another node wrote between the two statements.
    let lost: Vec<&AcceptRow> = fresh
        .values()
        .copied()
        .filter(|row| row.routed_by >= answer.revision && !answer.new.contains(&row.id().as_raw()))
        .collect();
    let elsewhere = if lost.is_empty() {
        HashMap::new()
    } else {
        settle_lost(connection, &lost).await
    };
    let verdict = |row: &Row| match row {
        Row::Accept(row) => {
            let hash = &row.key.hash;
            let first = known.get(hash).or_else(|| elsewhere.get(hash)).copied();
            if first.is_none() && row.routed_by < answer.revision {
                return Verdict::Outdated(answer.revision);
            }
            let first = first
                .or_else(|| fresh.get(hash).map(|first| first.id()))
                .unwrap_or_else(|| row.id());
            let stored = first == row.id() && answer.new.contains(&row.id().as_raw());
            Verdict::Accepted(if stored {
                AcceptOutcome::New
            } else {
                AcceptOutcome::Duplicate { of: first }
            })
        }
        Row::Start(_) => Verdict::Started,
        Row::Run(_) | Row::Refused(_) | Row::Turn(_) => Verdict::Written,
    };
    Ok(Written {
        verdicts: rows.iter().copied().map(verdict).collect(),
        mailed,
        moved,
    })
}

/// What a batch did.
#[derive(Default)]
struct Done {
    answer: Answer,
    /// Runs of this node that got mail.
    mailed: Vec<RunId>,
    moved: Moved,
}

/// Writes the batch and what it changes about waiting, in one transaction.
async fn together(
    columns: Columns,
    mail: MailColumns,
    rows: &[&Row],
    connection: &mut PgConnection,
    node: &NodeIdentity,
) -> Result<Done, Failure> {
    let begun = connection.execute("BEGIN").await;
    begun.map_err(|error| Failure::of_postgres(&error, false))?;
    let inside = async {
        // Locks come first and in one order: a run's row is not touched before them.
        mail.lock(connection).await?;
        let tails = gates::lock(connection, &GateWork::collect(rows, |_, _| true)).await?;
        let answer = columns.write(connection, node, false).await?;
        let work = GateWork::collect(rows, |_, row| match row {
            Row::Accept(row) => answer.new.contains(&row.id().as_raw()),
            Row::Start(_) | Row::Run(_) | Row::Refused(_) | Row::Turn(_) => true,
        });
        let moved = if work.is_empty() {
            Moved::default()
        } else {
            gates::settle(connection, node, &work, tails).await?
        };
        let mailed = mail.write(connection, node, &answer.new).await?;
        for (id, entry) in rows.iter().filter_map(|row| audited(row)) {
            if answer.new.contains(&id.as_raw()) {
                audit(connection, entry).await?;
            }
        }
        Ok(Done { answer, mailed, moved })
    };
    match inside.await {
        Ok(done) => {
            let committed = connection.execute("COMMIT").await;
            committed.map_err(|error| Failure::Unknown(error.to_string()))?;
            Ok(done)
        }
        Err(failure) => match connection.execute("ROLLBACK").await {
            Ok(_) => Err(failure),
            Err(error) => Err(Failure::NotWritten(error.to_string())),
        },
    }
}

/// An event about which the audit trail is to tell something.
fn audited(row: &Row) -> Option<(EventId, &AuditEntry)> {
    match row {
        Row::Accept(row) => Some((row.id(), row.audit.as_deref()?)),
        Row::Start(_) | Row::Run(_) | Row::Refused(_) | Row::Turn(_) => None,
    }
}

async fn audit(connection: &mut PgConnection, entry: &AuditEntry) -> Result<(), Failure> {
    let statement = sqlx::query(AUDIT)
        .bind(entry.id)
        .bind(entry.workspace.as_raw())
        .bind(entry.at.as_unix_ms())
        .bind(&entry.actor)
        .bind(&entry.action)
        .bind(&entry.subject)
        .bind(&entry.client_ip)
        .bind(&entry.request_id)
        .bind(&entry.detail);
    let written = statement.execute(connection).await;
    written.map(drop).map_err(|error| Failure::of_postgres(&error, false))
}

/// Keys that stand on another day than the one the insert will ask.
async fn seen_before(connection: &mut PgConnection, rows: &[&Row]) -> Result<HashMap<KeyHash, EventId>, Failure> {
    let mut oldest = None;
    let (mut days, mut hashes) = (Vec::new(), Vec::new());
    for row in rows {
        let Row::Accept(row) = row else { continue };
        let oldest = match (row.key.look_back_from, oldest) {
            (None, _) => i32::MAX,
            (Some(_), Some(oldest)) => oldest,
            (Some(_), None) => *oldest.insert(oldest_day(connection).await?),
        };
        for day in row.key.days_to_ask(oldest).into_iter().flatten() {
            days.push(day);
            hashes.push(row.key.hash.to_vec());
        }
    }
    if days.is_empty() {
        return Ok(HashMap::new());
    }
    find(connection, days, hashes).await
}

async fn oldest_day(connection: &mut PgConnection) -> Result<i32, Failure> {
    let row = connection.fetch_one("SELECT min(day) FROM dedupe").await;
    let oldest: Result<Option<i32>, sqlx::Error> = row.and_then(|row| row.try_get(0));
    oldest
        .map(|oldest| oldest.unwrap_or(i32::MAX))
        .map_err(|error| Failure::of_postgres(&error, false))
}

async fn find(
    connection: &mut PgConnection,
    days: Vec<i32>,
    hashes: Vec<Vec<u8>>,
) -> Result<HashMap<KeyHash, EventId>, Failure> {
    let text = "SELECT asked.hash, dedupe.event_id FROM UNNEST($1::int[], $2::bytea[]) AS asked (day, hash) \
        JOIN dedupe ON dedupe.day = asked.day AND dedupe.hash = asked.hash";
    let query = sqlx::query(text).bind(days).bind(hashes);
    let rows = connection
        .fetch_all(query)
        .await
        .map_err(|error| Failure::of_postgres(&error, false))?;
    let mut found: HashMap<KeyHash, EventId> = HashMap::with_capacity(rows.len());
    for row in rows {
        let (hash, id) = (row.get::<Vec<u8>, _>(0), EventId::from_raw(row.get(1)));
        let hash = KeyHash::try_from(hash).expect("the column holds what was compared with it");
        found
            .entry(hash)
            .and_modify(|first| *first = (*first).min(id))
            .or_insert(id);
    }
    Ok(found)
}

/// One row of each key that is not known, in the order of their hashes: the first of those that were routed last.
fn fresh_accepts<'a>(rows: &[&'a Row], known: &HashMap<KeyHash, EventId>) -> BTreeMap<KeyHash, &'a AcceptRow> {
    let mut fresh = BTreeMap::new();
    for row in rows {
        if let Row::Accept(row) = row
            && !known.contains_key(&row.key.hash)
        {
            let kept = fresh.entry(row.key.hash).or_insert(&**row);
            if kept.routed_by < row.routed_by {
                *kept = &**row;
            }
        }
    }
    fresh
}

/// Finds who was first, and corrects guards that were written for an event that lost on its other day. Failing
/// here changes nothing that was promised: the events are duplicates.
async fn settle_lost(connection: &mut PgConnection, lost: &[&AcceptRow]) -> HashMap<KeyHash, EventId> {
    let (mut days, mut hashes, mut own) = (Vec::new(), Vec::new(), HashSet::new());
    for row in lost {
        own.insert(row.id());
        for day in row.key.guards.clone() {
            days.push(day);
            hashes.push(row.key.hash.to_vec());
        }
    }
    let Ok(found) = find(connection, days, hashes).await else {
        return HashMap::new();
    };
    let text = "UPDATE dedupe SET event_id = $1 WHERE day BETWEEN $2 AND $3 AND hash = $4 AND event_id = $5";
    let mut first_of = HashMap::new();
    for row in lost {
        let Some(first) = found.get(&row.key.hash).filter(|first| !own.contains(first)) else {
            continue;
        };
        first_of.insert(row.key.hash, *first);
        if row.key.guards.start() != row.key.guards.end() {
            let (start, end) = (*row.key.guards.start(), *row.key.guards.end());
            let query = sqlx::query(text)
                .bind(first.as_raw())
                .bind(start)
                .bind(end)
                .bind(row.key.hash.to_vec())
                .bind(row.id().as_raw());
            if let Err(error) = connection.execute(query).await {
                tracing::warn!(%error, "a dedupe row keeps the id of an event that was not stored");
            }
        }
    }
    first_of
}
