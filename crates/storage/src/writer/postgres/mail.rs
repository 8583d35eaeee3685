//! Waiting and inboxes on PostgreSQL: a few statements around the one that writes the batch, in one transaction.
//!
//! An event that arrives and a step that begins to wait for it may be written by two nodes at the same time, and
//! neither would see the other. So both first lock the key, in one order for all, and look only then: the second one
//! sees what the first one committed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{Arguments, AssertSqlSafe, Encode, Executor, Postgres, Row as _, Type};
use weir_workflow_engine::{RunId, Timestamp};

use crate::codes::{mail_kind_code, wait_kind_code};
use crate::mail::{MailKind, WaitKey, WaitKind};
use crate::node::NodeIdentity;
use crate::writer::dedupe::KeyHash;
use crate::writer::failure::Failure;
use crate::writer::prepare::{AcceptRow, Row};

/// What a batch changes about waiting and inboxes.
#[derive(Default)]
pub(super) struct MailColumns {
    locks: BTreeSet<i64>,
    taken: (Vec<i64>, Vec<i64>),
    closed: (Vec<i64>, Vec<String>),
    opened: Opened,
    /// Keys of arriving events, and the events.
    keys: Vec<(WaitKey, i64, i64)>,
    /// Steps that look back for events: key, run, lowest id, time.
    looks: Vec<(WaitKey, i64, i64, i64)>,
    /// Steps that wait for the end of a run: run that waits, run waited for, time.
    watches: Vec<(i64, i64, i64)>,
    sends: Sends,
    /// Runs that end: key, run, time.
    ends: Vec<(WaitKey, i64, i64)>,
}

/// Requests to other runs.
#[derive(Default)]
struct Sends {
    id: Vec<i64>,
    run: Vec<i64>,
    workspace: Vec<i64>,
    at: Vec<i64>,
    body: Vec<String>,
}

#[derive(Default)]
struct Opened {
    run: Vec<i64>,
    step: Vec<String>,
    workspace: Vec<i64>,
    kind: Vec<i16>,
    key: Vec<Option<Vec<u8>>>,
    since: Vec<i64>,
    title: Vec<Option<String>>,
    detail: Vec<Option<String>>,
    created_at: Vec<i64>,
    due_at: Vec<Option<i64>>,
}

impl MailColumns {
    /// `None` when the batch has nothing to do with mail.
    pub(super) fn collect(rows: &[&Row], fresh: &BTreeMap<KeyHash, &AcceptRow>) -> Option<Self> {
        let mut columns = Self::default();
        for row in rows {
            match row {
                Row::Accept(row) if fresh.get(&row.key.hash).is_some_and(|first| first.id() == row.id()) => {
                    let at = row.event.received_at.as_unix_ms();
                    for key in &row.keys {
                        columns.locks.insert(key.lock());
                        columns.keys.push((*key, row.id().as_raw(), at));
                    }
                }
                Row::Run(row) => {
                    let Some(change) = &row.mail else { continue };
                    let run = row.run.as_raw();
                    for id in &change.taken {
                        columns.taken.0.push(run);
                        columns.taken.1.push(*id);
                    }
                    for step in &change.closed {
                        columns.closed.0.push(run);
                        columns.closed.1.push(step.clone());
                    }
                    for wait in &change.opened {
                        columns.open(run, change.workspace.as_raw(), wait);
                    }
                    for request in &change.sends {
                        columns.sends.id.push(request.id);
                        columns.sends.run.push(request.run.as_raw());
                        columns.sends.workspace.push(request.workspace.as_raw());
                        columns.sends.at.push(request.at.as_unix_ms());
                        columns.sends.body.push(request.body.clone());
                    }
                    if let Some(root) = change.ends {
                        let key = WaitKey::end_of(root);
                        let at = row.update.as_ref().and_then(|update| update.finished_at);
                        columns.locks.insert(key.lock());
                        columns.ends.push((key, run, at.map_or(0, Timestamp::as_unix_ms)));
                    }
                }
                Row::Accept(_) | Row::Start(_) | Row::Refused(_) | Row::Turn(_) => {}
            }
        }
        let idle = columns.locks.is_empty()
            && columns.taken.0.is_empty()
            && columns.closed.0.is_empty()
            && columns.sends.id.is_empty()
            && columns.opened.run.is_empty();
        (!idle).then_some(columns)
    }

    fn open(&mut self, run: i64, workspace: i64, wait: &crate::mail::NewWait) {
        let at = wait.created_at.as_unix_ms();
        let (key, since) = match wait.kind {
            WaitKind::Event { key, since } => {
                self.looks.push((key, run, since, at));
                (Some(key), since)
            }
            WaitKind::Approval => (None, 0),
            WaitKind::Run(child) => {
                self.watches.push((run, child.as_raw(), at));
                (Some(WaitKey::end_of(child)), 0)
            }
        };
        self.locks.extend(key.map(|key| key.lock()));
        let table = &mut self.opened;
        table.run.push(run);
        table.step.push(wait.step.clone());
        table.workspace.push(workspace);
        table.kind.push(wait_kind_code(&wait.kind));
        table.key.push(key.map(|key| key.bytes()));
        table.since.push(since);
        table.title.push(wait.title.clone());
        table.detail.push(wait.detail.clone());
        table.created_at.push(at);
        table.due_at.push(wait.due_at.map(Timestamp::as_unix_ms));
    }

    /// Waits until no other transaction looks at one of the keys.
    pub(super) async fn lock(&self, connection: &mut PgConnection) -> Result<(), Failure> {
        if self.locks.is_empty() {
            return Ok(());
        }
        let keys: Vec<i64> = self.locks.iter().copied().collect();
        let text = "SELECT count(pg_advisory_xact_lock(k)) FROM (SELECT k FROM UNNEST($1::bigint[]) AS l (k) ORDER BY k) AS sorted";
        run(connection, text, Binds::new().add(keys)).await.map(drop)
    }

    /// Writes everything; runs of this node that got mail. `stored` are the events of the batch that were new.
    pub(super) async fn write(
        self,
        connection: &mut PgConnection,
        node: &NodeIdentity,
        stored: &HashSet<i64>,
    ) -> Result<Vec<RunId>, Failure> {
        let slot = i16::try_from(node.slot).unwrap_or(i16::MAX);
        let mut mailed = Vec::new();
        if !self.taken.0.is_empty() {
            let text = "DELETE FROM inbox USING UNNEST($1::bigint[], $2::bigint[]) AS t (run_id, id) \
                WHERE inbox.run_id = t.run_id AND inbox.id = t.id";
            run(connection, text, Binds::new().add(self.taken.0).add(self.taken.1)).await?;
        }
        if !self.closed.0.is_empty() {
            let text = "DELETE FROM wait USING UNNEST($1::bigint[], $2::text[]) AS c (run_id, step) \
                WHERE wait.run_id = c.run_id AND wait.step = c.step";
            run(connection, text, Binds::new().add(self.closed.0).add(self.closed.1)).await?;
        }
        if !self.opened.run.is_empty() {
            let table = self.opened;
            let text = "INSERT INTO wait (run_id, step, workspace_id, kind, key, since, title, detail, created_at, due_at) \
                SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::bigint[], $4::smallint[], $5::bytea[], $6::bigint[], \
                $7::text[], $8::text[], $9::bigint[], $10::bigint[]) ON CONFLICT DO NOTHING";
            let binds = Binds::new()
                .add(table.run)
                .add(table.step)
                .add(table.workspace)
                .add(table.kind)
                .add(table.key)
                .add(table.since)
                .add(table.title)
                .add(table.detail)
                .add(table.created_at)
                .add(table.due_at);
            run(connection, text, binds).await?;
        }
        let arrived: Vec<_> = self.keys.into_iter().filter(|(_, id, _)| stored.contains(id)).collect();
        if !arrived.is_empty() {
            let text = "INSERT INTO event_key (key, event_id) SELECT * FROM UNNEST($1::bytea[], $2::bigint[]) ON CONFLICT DO NOTHING";
            let (keys, ids): (Vec<Vec<u8>>, Vec<i64>) = arrived.iter().map(|(key, id, _)| (key.bytes(), *id)).unzip();
            run(connection, text, Binds::new().add(keys).add(ids)).await?;
            mailed.extend(tell(connection, slot, MailKind::Event, &arrived).await?);
        }
        if !self.looks.is_empty() {
            let text = told(
                "SELECT l.run_id, k.event_id, $1::smallint, l.at \
                 FROM UNNEST($3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[]) AS l (key, run_id, since, at) \
                 JOIN event_key AS k ON k.key = l.key AND k.event_id >= l.since",
            );
            let binds = Binds::new()
                .add(mail_kind_code(MailKind::Event))
                .add(slot)
                .add(self.looks.iter().map(|look| look.0.bytes()).collect::<Vec<_>>())
                .add(self.looks.iter().map(|look| look.1).collect::<Vec<_>>())
                .add(self.looks.iter().map(|look| look.2).collect::<Vec<_>>())
                .add(self.looks.iter().map(|look| look.3).collect::<Vec<_>>());
            mailed.extend(run(connection, &text, binds).await?);
        }
        if !self.watches.is_empty() {
            let text = told(
                "SELECT w.run_id, f.id, $1::smallint, w.at FROM UNNEST($3::bigint[], $4::bigint[], $5::bigint[]) \
                 AS w (run_id, child, at) CROSS JOIN LATERAL (SELECT id, status FROM \
                 (SELECT id, status FROM run WHERE id = w.child \
                 UNION ALL SELECT id, status FROM run WHERE root_id = w.child AND replay_of IS NOT NULL) AS family \
                 ORDER BY status = 2 DESC, status < 2 DESC, id DESC LIMIT 1) AS f WHERE f.status >= 2",
            );
            let binds = Binds::new()
                .add(mail_kind_code(MailKind::RunEnded))
                .add(slot)
                .add(self.watches.iter().map(|watch| watch.0).collect::<Vec<_>>())
                .add(self.watches.iter().map(|watch| watch.1).collect::<Vec<_>>())
                .add(self.watches.iter().map(|watch| watch.2).collect::<Vec<_>>());
            mailed.extend(run(connection, &text, binds).await?);
        }
        if !self.sends.id.is_empty() {
            // Their rows stay as they are until our commit, so none of them ends in between.
            let text = "WITH open AS (SELECT run.id AS run_id, s.id, s.at, s.body \
                FROM UNNEST($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[]) AS s (id, run, workspace, at, body) \
                JOIN run ON run.id = s.run AND run.workspace_id = s.workspace AND run.status < 2 FOR SHARE OF run), \
                told AS (INSERT INTO inbox (run_id, id, kind, body, created_at) \
                SELECT run_id, id, $1::smallint, body, at FROM open RETURNING run_id) \
                SELECT run.id FROM run WHERE run.owner = $2 AND run.id IN (SELECT run_id FROM told)";
            let sends = self.sends;
            let binds = Binds::new()
                .add(mail_kind_code(MailKind::Request))
                .add(slot)
                .add(sends.id)
                .add(sends.run)
                .add(sends.workspace)
                .add(sends.at)
                .add(sends.body);
            mailed.extend(run(connection, text, binds).await?);
        }
        if !self.ends.is_empty() {
            mailed.extend(tell(connection, slot, MailKind::RunEnded, &self.ends).await?);
        }
        Ok(mailed)
    }
}

/// Leaves mail with every run that waits for one of the keys: key, the mail's id, time.
async fn tell(
    connection: &mut PgConnection,
    slot: i16,
    kind: MailKind,
    news: &[(WaitKey, i64, i64)],
) -> Result<Vec<RunId>, Failure> {
    let text = told(
        "SELECT DISTINCT wait.run_id, n.id, $1::smallint, n.at FROM UNNEST($3::bytea[], $4::bigint[], $5::bigint[]) AS n (key, id, at) \
         JOIN wait ON wait.key = n.key AND wait.since <= n.id",
    );
    let binds = Binds::new()
        .add(mail_kind_code(kind))
        .add(slot)
        .add(news.iter().map(|news| news.0.bytes()).collect::<Vec<_>>())
        .add(news.iter().map(|news| news.1).collect::<Vec<_>>())
        .add(news.iter().map(|news| news.2).collect::<Vec<_>>());
    run(connection, &text, binds).await
}

/// Inserts what `select` finds; answers with the runs of this node.
fn told(select: &str) -> String {
    format!(
        "WITH told AS (INSERT INTO inbox (run_id, id, kind, created_at) {select} ON CONFLICT DO NOTHING RETURNING run_id) \
         SELECT run.id FROM run WHERE run.owner = $2 AND run.id IN (SELECT run_id FROM told)"
    )
}

struct Binds(PgArguments, Option<sqlx::Error>);

impl Binds {
    fn new() -> Self {
        Self(PgArguments::default(), None)
    }

    fn add<T: for<'q> Encode<'q, Postgres> + Type<Postgres>>(mut self, value: T) -> Self {
        if let Err(error) = self.0.add(value) {
            self.1.get_or_insert(sqlx::Error::Encode(error));
        }
        self
    }
}

async fn run(connection: &mut PgConnection, text: &str, binds: Binds) -> Result<Vec<RunId>, Failure> {
    let Binds(arguments, error) = binds;
    if let Some(error) = error {
        return Err(Failure::of_postgres(&error, false));
    }
    let rows = connection
        .fetch_all(sqlx::query_with(AssertSqlSafe(text), arguments))
        .await
        .map_err(|error| Failure::of_postgres(&error, false))?;
    Ok(rows.iter().map(|row| RunId::from_raw(row.get(0))).collect())
}
