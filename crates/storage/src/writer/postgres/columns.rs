//! The rows of a batch by table and column, and the one statement that writes them.
//!
//! The forms `(x IN (SELECT …)) IS TRUE` keep PostgreSQL from turning the tests into joins: its guess of an array's
//! length is 10, which makes it choose nested loops.

use std::collections::{BTreeMap, HashSet};

use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::{Arguments, AssertSqlSafe, Encode, Executor, Postgres, Row as _, Type};
use weir_workflow_engine::{RunId, Timestamp};

use crate::codes::{event_source_code, run_status_code};
use crate::fact::{NewRun, RunOwner, RunUpdate};
use crate::node::{FREE_RUNS, NOBODY, NodeIdentity};
use crate::writer::dedupe::KeyHash;
use crate::writer::failure::Failure;
use crate::writer::prepare::{AcceptRow, RefusedRow, Row};

/// The answer's row that stands for the lease.
const LEASE_PROVED: i64 = -1;
/// The one that stands for having told the others of runs that belong to nobody.
const TOLD: i64 = -2;

/// What the statement says.
#[derive(Default)]
pub(super) struct Answer {
    /// The ids of the events that were new.
    pub(super) new: HashSet<i64>,
    /// The revision of the configuration in force.
    pub(super) revision: i64,
}

/// One column of one table.
macro_rules! columns {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        struct $name { $($field: Vec<$kind>,)* }

        impl $name {
            fn bind(self, arguments: &mut Binder) {
                $(arguments.add(self.$field);)*
            }
        }
    };
}

columns!(Guards { day: i32, hash: Vec<u8>, event_id: i64, routed_by: i64, });
columns!(Events {
    id: i64, guards: i64, workspace_id: i64, endpoint_id: Option<i64>, connection_id: Option<i64>, source: i16,
    received_at: i64, occurred_at: Option<i64>, scheduled_for: Option<i64>, connector: String, kind: String,
    external_id: String, dedupe_scope: String, dedupe_key: Option<String>, account: Option<String>,
    ref_kind: Option<String>, ref_id: Option<String>, ref_version: Option<String>, data_pointer: String,
    traceparent: Option<String>, run_ids: Option<Vec<u8>>, headers: String, body_bytes: i32, body_codec: i16,
    body: Option<Vec<u8>>,
});
columns!(
    /// `gate` names the event that must be new; null for runs of events that are stored.
    Runs {
        gate: Option<i64>, id: i64, workspace_id: i64, workflow_id: i64, version_id: i64, event_id: i64, root_id: i64,
        replay_of: Option<i64>, started_at: i64, owner: i16,
    }
);
columns!(
    /// `gate` names the event that must be new.
    Fires { gate: i64, workflow_id: i64, at: i64, }
);
columns!(Journals { run_id: i64, seq: i32, codec: i16, body: Option<Vec<u8>>, });
columns!(Updates {
    id: i64, status: i16, due_at: Option<i64>, finished_at: Option<i64>, error_code: Option<String>,
    error_step: Option<String>,
});
columns!(DeadLetters {
    id: i64, cause: i64, code: String, step: Option<String>, message: String, failed_at: i64,
});
columns!(Payloads { gate: Option<i64>, owner_id: i64, seq: i32, codec: i16, body: Vec<u8>, });
columns!(Refusals {
    id: i64, workspace_id: i64, endpoint_id: Option<i64>, received_at: i64, reason: String, detail: String,
    client_ip: Option<String>, headers: String, body_bytes: i64, stored_bytes: i32, body: Vec<u8>,
});
columns!(RefusalCounts {
    workspace_id: i64,
    endpoint_id: i64,
    hour: i32,
    reason: String,
    count: i64,
});

/// The rows of a batch by table.
#[derive(Default)]
pub(super) struct Columns {
    guards: Guards,
    events: Events,
    runs: Runs,
    fires: Fires,
    journals: Journals,
    updates: Updates,
    dead_letters: DeadLetters,
    payloads: Payloads,
    refusals: Refusals,
    refusal_counts: RefusalCounts,
    owner: i16,
}

fn time(value: Option<Timestamp>) -> Option<i64> {
    value.map(Timestamp::as_unix_ms)
}

impl Columns {
    pub(super) fn collect(rows: &[&Row], fresh: &BTreeMap<KeyHash, &AcceptRow>, node: &NodeIdentity) -> Self {
        let mut columns = Self {
            owner: i16::try_from(node.slot).unwrap_or(i16::MAX),
            ..Self::default()
        };
        columns.guards(fresh);
        let mut updates: BTreeMap<RunId, &RunUpdate> = BTreeMap::new();
        let mut refusals: BTreeMap<(i64, i64, i32, &str), i64> = BTreeMap::new();
        for row in rows {
            match row {
                Row::Accept(row) => {
                    if fresh.get(&row.key.hash).is_some_and(|first| first.id() == row.id()) {
                        columns.event(row);
                        row.runs
                            .iter()
                            .for_each(|run| columns.run(run, Some(row.id().as_raw())));
                        if let Some((workflow, at)) = row.fires {
                            columns.fires.gate.push(row.id().as_raw());
                            columns.fires.workflow_id.push(workflow.as_raw());
                            columns.fires.at.push(at.as_unix_ms());
                        }
                    }
                }
                Row::Start(runs) => runs.iter().for_each(|run| columns.run(run, None)),
                Row::Run(row) => {
                    let (codec, body) = row.body.inline();
                    columns.journals.run_id.push(row.run.as_raw());
                    columns.journals.seq.push(row.seq);
                    columns.journals.codec.push(codec);
                    columns.journals.body.push(body.map(<[u8]>::to_vec));
                    if row.body.is_apart() {
                        columns.payload(None, row.run.as_raw(), row.seq, row.body.codec, &row.body.bytes);
                    }
                    // The last word counts.
                    if let Some(update) = &row.update {
                        updates.insert(row.run, update);
                    }
                }
                Row::Turn(_) => {}
                Row::Refused(row) => {
                    let request = &row.request;
                    let endpoint = request.endpoint.map(|id| id.as_raw());
                    if row.in_detail {
                        columns.refusal(row);
                    }
                    let key = (
                        request.workspace.as_raw(),
                        endpoint.unwrap_or(0),
                        row.hour,
                        request.reason.as_str(),
                    );
                    *refusals.entry(key).or_default() += row.count;
                }
            }
        }
        for (run, update) in updates {
            let table = &mut columns.updates;
            table.id.push(run.as_raw());
            table.status.push(run_status_code(update.status));
            table.due_at.push(time(update.due_at));
            table.finished_at.push(time(update.finished_at));
            table.error_code.push(update.error_code.clone());
            table.error_step.push(update.error_step.clone());
            if let Some(letter) = &update.dead_letter {
                let table = &mut columns.dead_letters;
                table.id.push(run.as_raw());
                table.cause.push(letter.cause);
                table.code.push(letter.code.clone());
                table.step.push(letter.step.clone());
                table.message.push(letter.message.clone());
                table.failed_at.push(time(update.finished_at).unwrap_or(0));
            }
        }
        for ((workspace, endpoint, hour, reason), count) in refusals {
            let table = &mut columns.refusal_counts;
            table.workspace_id.push(workspace);
            table.endpoint_id.push(endpoint);
            table.hour.push(hour);
            table.reason.push(reason.to_owned());
            table.count.push(count);
        }
        columns
    }

    /// All nodes insert keys in one order, so that two batches with the same keys wait for each other instead of
    /// locking each other out.
    fn guards(&mut self, fresh: &BTreeMap<KeyHash, &AcceptRow>) {
        let mut guards: Vec<(i32, &KeyHash, i64, i64)> = Vec::with_capacity(fresh.len());
        for (hash, row) in fresh {
            let days = row.key.guards.clone();
            guards.extend(days.map(|day| (day, hash, row.id().as_raw(), row.routed_by)));
        }
        guards.sort_unstable();
        for (day, hash, event_id, routed_by) in guards {
            self.guards.day.push(day);
            self.guards.hash.push(hash.to_vec());
            self.guards.event_id.push(event_id);
            self.guards.routed_by.push(routed_by);
        }
    }

    fn event(&mut self, row: &AcceptRow) {
        let event = &row.event;
        let (codec, body) = row.body.inline();
        let table = &mut self.events;
        table.id.push(event.id.as_raw());
        table
            .guards
            .push(i64::from(row.key.guards.end() - row.key.guards.start()) + 1);
        table.workspace_id.push(event.workspace.as_raw());
        table.endpoint_id.push(event.endpoint.map(|id| id.as_raw()));
        table.connection_id.push(event.connection.map(|id| id.as_raw()));
        table.source.push(event_source_code(event.source));
        table.received_at.push(event.received_at.as_unix_ms());
        table.occurred_at.push(time(event.occurred_at));
        table.scheduled_for.push(time(event.scheduled_for));
        table.connector.push(event.connector.clone());
        table.kind.push(event.kind.clone());
        table.external_id.push(event.external_id.clone());
        table.dedupe_scope.push(row.scope.clone());
        table.dedupe_key.push(row.key_text.clone());
        table.account.push(event.account.clone());
        table.ref_kind.push(event.ref_kind.clone());
        table.ref_id.push(event.ref_id.clone());
        table.ref_version.push(event.ref_version.clone());
        table.data_pointer.push(event.data_pointer.clone());
        table.traceparent.push(event.traceparent.clone());
        table.run_ids.push(row.run_ids.clone());
        table.headers.push(event.headers.clone());
        table.body_bytes.push(row.body_bytes);
        table.body_codec.push(codec);
        table.body.push(body.map(<[u8]>::to_vec));
        if row.body.is_apart() {
            self.payload(
                Some(event.id.as_raw()),
                event.id.as_raw(),
                0,
                row.body.codec,
                &row.body.bytes,
            );
        }
    }

    fn run(&mut self, run: &NewRun, gate: Option<i64>) {
        let table = &mut self.runs;
        table.gate.push(gate);
        table.id.push(run.id.as_raw());
        table.workspace_id.push(run.workspace.as_raw());
        table.workflow_id.push(run.workflow_id.as_raw());
        table.version_id.push(run.version_id.as_raw());
        table.event_id.push(run.event_id.as_raw());
        table.root_id.push(run.root_id.as_raw());
        table.replay_of.push(run.replay_of.map(|id| id.as_raw()));
        table.started_at.push(run.started_at.as_unix_ms());
        table.owner.push(match run.owner {
            RunOwner::ThisNode => self.owner,
            RunOwner::Anyone => NOBODY,
        });
    }

    fn refusal(&mut self, row: &RefusedRow) {
        let request = &row.request;
        let table = &mut self.refusals;
        table.id.push(request.id.as_raw());
        table.workspace_id.push(request.workspace.as_raw());
        table.endpoint_id.push(request.endpoint.map(|id| id.as_raw()));
        table.received_at.push(request.received_at.as_unix_ms());
        table.reason.push(request.reason.clone());
        table.detail.push(request.detail.clone());
        table.client_ip.push(request.client_ip.clone());
        table.headers.push(request.headers.clone());
        table.body_bytes.push(row.body_bytes);
        table.stored_bytes.push(row.stored_bytes());
        table.body.push(request.body.to_vec());
    }

    fn payload(&mut self, gate: Option<i64>, owner: i64, seq: i32, codec: i16, body: &[u8]) {
        let table = &mut self.payloads;
        table.gate.push(gate);
        table.owner_id.push(owner);
        table.seq.push(seq);
        table.codec.push(codec);
        table.body.push(body.to_vec());
    }

    /// Runs the statement, which is its own transaction if `committing`.
    ///
    /// # Errors
    /// [`Failure::Fenced`]: the lease is not proved.
    pub(super) async fn write(
        self,
        connection: &mut PgConnection,
        node: &NodeIdentity,
        committing: bool,
    ) -> Result<Answer, Failure> {
        let mut statement = Statement::new(node);
        let accepts = !self.guards.day.is_empty();
        if accepts {
            statement.part(
                "guard AS (INSERT INTO dedupe (day, hash, event_id) SELECT day, hash, event_id \
                 FROM UNNEST({int[]}, {bytea[]}, {bigint[]}, {bigint[]}) AS g (day, hash, event_id, routed_by) \
                 WHERE routed_by >= (SELECT revision FROM lease) ON CONFLICT DO NOTHING RETURNING event_id)",
            );
            self.guards.bind(&mut statement.arguments);
            statement.part(
                "arrived AS (SELECT * FROM UNNEST({bigint[]}, {bigint[]}, {bigint[]}, {bigint[]}, {bigint[]}, {smallint[]}, \
                 {bigint[]}, {bigint[]}, {bigint[]}, {text[]}, {text[]}, {text[]}, {text[]}, {text[]}, {text[]}, {text[]}, {text[]}, \
                 {text[]}, {text[]}, {text[]}, {bytea[]}, {text[]}, {int[]}, {smallint[]}, {bytea[]}) \
                 AS e (id, guards, workspace_id, endpoint_id, connection_id, source, received_at, occurred_at, scheduled_for, \
                 connector, kind, external_id, dedupe_scope, dedupe_key, account, ref_kind, ref_id, ref_version, data_pointer, \
                 traceparent, run_ids, headers, body_bytes, body_codec, body) \
                 WHERE ((id, guards) IN (SELECT event_id, count(*) FROM guard GROUP BY event_id)) IS TRUE), \
                 fresh AS (INSERT INTO event (id, workspace_id, endpoint_id, connection_id, source, received_at, occurred_at, \
                 scheduled_for, connector, kind, external_id, dedupe_scope, dedupe_key, account, ref_kind, ref_id, ref_version, \
                 data_pointer, traceparent, run_ids, headers, body_bytes, body_codec, body) \
                 SELECT id, workspace_id, endpoint_id, connection_id, source, received_at, occurred_at, \
                 scheduled_for, connector, kind, external_id, dedupe_scope, dedupe_key, account, ref_kind, ref_id, ref_version, \
                 data_pointer, traceparent, run_ids, headers, body_bytes, body_codec, body FROM arrived RETURNING id)",
            );
            self.events.bind(&mut statement.arguments);
        }
        // What belongs to no event of this batch only needs the lease.
        let gate = if accepts {
            "((gate IS NULL AND EXISTS (SELECT FROM lease)) OR gate IN (SELECT id FROM fresh))"
        } else {
            "EXISTS (SELECT FROM lease)"
        };
        if !self.runs.id.is_empty() {
            statement.part(&format!(
                "started AS (INSERT INTO run (id, workspace_id, workflow_id, version_id, event_id, root_id, replay_of, owner, status, started_at) \
                 SELECT id, workspace_id, workflow_id, version_id, event_id, root_id, replay_of, owner, 0, started_at \
                 FROM UNNEST({{bigint[]}}, {{bigint[]}}, {{bigint[]}}, {{bigint[]}}, {{bigint[]}}, {{bigint[]}}, {{bigint[]}}, {{bigint[]}}, {{bigint[]}}, {{smallint[]}}) \
                 AS r (gate, id, workspace_id, workflow_id, version_id, event_id, root_id, replay_of, started_at, owner) WHERE {gate})",
            ));
            statement.tells = self.runs.owner.contains(&NOBODY);
            self.runs.bind(&mut statement.arguments);
        }
        if !self.fires.gate.is_empty() {
            // The rows are locked in one order, so that two nodes' batches wait for each other.
            statement.part(
                "fired AS (SELECT workflow_id, max(at) AS at FROM UNNEST({bigint[]}, {bigint[]}, {bigint[]}) \
                 AS f (gate, workflow_id, at) WHERE gate IN (SELECT id FROM fresh) GROUP BY workflow_id), \
                 held AS MATERIALIZED (SELECT workflow_id FROM schedule WHERE workflow_id IN (SELECT workflow_id FROM fired) \
                 ORDER BY workflow_id FOR UPDATE), \
                 moved AS (UPDATE schedule SET fired_for = fired.at FROM fired WHERE schedule.workflow_id = fired.workflow_id \
                 AND schedule.workflow_id IN (SELECT workflow_id FROM held) \
                 AND coalesce(schedule.fired_for, schedule.begins_at) < fired.at)",
            );
            self.fires.bind(&mut statement.arguments);
        }
        if !self.journals.run_id.is_empty() {
            statement.part(
                "written AS (INSERT INTO journal (run_id, seq, codec, body) \
                 SELECT * FROM UNNEST({bigint[]}, {int[]}, {smallint[]}, {bytea[]}) WHERE EXISTS (SELECT FROM lease))",
            );
            self.journals.bind(&mut statement.arguments);
        }
        if !self.updates.id.is_empty() {
            statement.part(
                "updated AS (UPDATE run SET status = u.status, due_at = u.due_at, finished_at = u.finished_at, \
                 error_code = u.error_code, error_step = u.error_step \
                 FROM UNNEST({bigint[]}, {smallint[]}, {bigint[]}, {bigint[]}, {text[]}, {text[]}) \
                 AS u (id, status, due_at, finished_at, error_code, error_step) WHERE run.id = u.id AND EXISTS (SELECT FROM lease))",
            );
            self.updates.bind(&mut statement.arguments);
        }
        if !self.dead_letters.id.is_empty() {
            statement.part(
                "died AS (INSERT INTO dead_letter (run_id, workspace_id, workflow_id, cause, code, step, message, failed_at, state) \
                 SELECT run.id, run.workspace_id, run.workflow_id, d.cause, d.code, d.step, d.message, d.failed_at, 0 \
                 FROM UNNEST({bigint[]}, {bigint[]}, {text[]}, {text[]}, {text[]}, {bigint[]}) \
                 AS d (id, cause, code, step, message, failed_at) JOIN run ON run.id = d.id \
                 WHERE EXISTS (SELECT FROM lease) ON CONFLICT DO NOTHING)",
            );
            self.dead_letters.bind(&mut statement.arguments);
        }
        if !self.payloads.owner_id.is_empty() {
            statement.part(&format!(
                "kept AS (INSERT INTO payload (owner_id, seq, codec, body) SELECT owner_id, seq, codec, body \
                 FROM UNNEST({{bigint[]}}, {{bigint[]}}, {{int[]}}, {{smallint[]}}, {{bytea[]}}) AS p (gate, owner_id, seq, codec, body) WHERE {gate})",
            ));
            self.payloads.bind(&mut statement.arguments);
        }
        if !self.refusals.id.is_empty() {
            statement.part(
                "refusal AS (INSERT INTO refused (id, workspace_id, endpoint_id, received_at, reason, detail, client_ip, headers, \
                 body_bytes, stored_bytes, body) SELECT * FROM UNNEST({bigint[]}, {bigint[]}, {bigint[]}, {bigint[]}, {text[]}, \
                 {text[]}, {text[]}, {text[]}, {bigint[]}, {int[]}, {bytea[]}) WHERE EXISTS (SELECT FROM lease))",
            );
            self.refusals.bind(&mut statement.arguments);
        }
        if !self.refusal_counts.hour.is_empty() {
            statement.part(
                "counted AS (INSERT INTO refused_count AS c (workspace_id, endpoint_id, hour, reason, count) \
                 SELECT * FROM UNNEST({bigint[]}, {bigint[]}, {int[]}, {text[]}, {bigint[]}) WHERE EXISTS (SELECT FROM lease) \
                 ON CONFLICT (workspace_id, endpoint_id, hour, reason) DO UPDATE SET count = c.count + excluded.count)",
            );
            self.refusal_counts.bind(&mut statement.arguments);
        }
        statement.run(connection, accepts, committing).await
    }
}

/// The statement being put together; each `{type}` becomes the next placeholder.
struct Statement {
    text: String,
    arguments: Binder,
    placeholders: usize,
    /// Whether the batch holds runs that belong to nobody.
    tells: bool,
}

/// Collects arguments and the first error.
#[derive(Default)]
struct Binder {
    arguments: PgArguments,
    error: Option<sqlx::Error>,
}

impl Binder {
    fn add<T: for<'q> Encode<'q, Postgres> + Type<Postgres>>(&mut self, value: T) {
        if let Err(error) = self.arguments.add(value) {
            self.error.get_or_insert(sqlx::Error::Encode(error));
        }
    }
}

impl Statement {
    fn new(node: &NodeIdentity) -> Self {
        let mut arguments = Binder::default();
        arguments.add(i16::try_from(node.slot).unwrap_or(i16::MAX));
        arguments.add(node.incarnation);
        let text = "WITH lease AS MATERIALIZED (SELECT (SELECT revision FROM config_state WHERE id = 1) AS revision \
            FROM node WHERE slot = $1 AND incarnation = $2 FOR SHARE)";
        Self {
            text: text.to_owned(),
            arguments,
            placeholders: 2,
            tells: false,
        }
    }

    fn part(&mut self, part: &str) {
        self.text.push_str(", ");
        let mut rest = part;
        while let Some((before, after)) = rest.split_once('{') {
            let (kind, after) = after.split_once('}').expect("every brace of our own texts is closed");
            self.placeholders += 1;
            self.text.push_str(before);
            self.text.push_str(&format!("${}::{kind}", self.placeholders));
            rest = after;
        }
        self.text.push_str(rest);
    }

    async fn run(mut self, connection: &mut PgConnection, accepts: bool, committing: bool) -> Result<Answer, Failure> {
        if let Some(error) = self.arguments.error {
            return Err(Failure::of_postgres(&error, false));
        }
        self.text
            .push_str(&format!(" SELECT {LEASE_PROVED}::bigint, revision FROM lease"));
        if self.tells {
            // Who listens hears it once the batch is committed.
            self.text.push_str(&format!(
                " UNION ALL SELECT {TOLD}::bigint, NULL FROM pg_notify('{FREE_RUNS}', '')"
            ));
        }
        if accepts {
            self.text.push_str(" UNION ALL SELECT id, NULL FROM fresh");
        }
        let query = sqlx::query_with(AssertSqlSafe(self.text), self.arguments.arguments);
        let rows = connection
            .fetch_all(query)
            .await
            .map_err(|error| Failure::of_postgres(&error, committing))?;
        let mut answer = Answer::default();
        let mut proved = false;
        for row in &rows {
            match row.get(0) {
                LEASE_PROVED => {
                    proved = true;
                    answer.revision = row.get::<Option<i64>, _>(1).unwrap_or(0);
                }
                TOLD => {}
                id => {
                    answer.new.insert(id);
                }
            }
        }
        if proved { Ok(answer) } else { Err(Failure::Fenced) }
    }
}
