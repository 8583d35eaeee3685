//! The tables as sea-orm sees them, for reading. No logic. Columns that no list shows are left out of the
//! `select`s in [`read`](crate::read), not here.

/// A row read without sea-orm.
#[cfg(feature = "simulation")]
pub(crate) trait OfSqlite: Sized {
    /// Its table.
    const TABLE: &'static str;
    /// The row, all columns of which were selected.
    fn of_sqlite(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self>;
}

macro_rules! entity {
    ($module:ident, $table:literal { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* }) => {
        pub(crate) mod $module {
            use sea_orm::entity::prelude::*;

            #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
            #[sea_orm(table_name = $table)]
            pub(crate) struct Model {
                $($(#[$attribute])* pub(crate) $field: $kind,)*
            }

            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub(crate) enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}

            #[cfg(feature = "simulation")]
            impl super::OfSqlite for Model {
                const TABLE: &'static str = $table;
                fn of_sqlite(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
                    Ok(Self { $($field: row.get(stringify!($field))?,)* })
                }
            }
        }
    };
}

entity!(event, "event" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    endpoint_id: Option<i64>,
    connection_id: Option<i64>,
    source: i16,
    received_at: i64,
    occurred_at: Option<i64>,
    scheduled_for: Option<i64>,
    connector: String,
    kind: String,
    external_id: String,
    dedupe_scope: String,
    dedupe_key: Option<String>,
    account: Option<String>,
    ref_kind: Option<String>,
    ref_id: Option<String>,
    ref_version: Option<String>,
    data_pointer: String,
    traceparent: Option<String>,
    run_ids: Option<Vec<u8>>,
    headers: String,
    body_bytes: i32,
    body_codec: i16,
    body: Option<Vec<u8>>,
});

entity!(run, "run" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    workflow_id: i64,
    version_id: i64,
    event_id: i64,
    root_id: i64,
    replay_of: Option<i64>,
    owner: i16,
    status: i16,
    started_at: i64,
    due_at: Option<i64>,
    finished_at: Option<i64>,
    error_code: Option<String>,
    error_step: Option<String>,
});

entity!(journal, "journal" {
    #[sea_orm(primary_key, auto_increment = false)]
    run_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    seq: i32,
    codec: i16,
    body: Option<Vec<u8>>,
});

entity!(payload, "payload" {
    #[sea_orm(primary_key, auto_increment = false)]
    owner_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    seq: i32,
    codec: i16,
    body: Vec<u8>,
});

entity!(refused, "refused" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    endpoint_id: Option<i64>,
    received_at: i64,
    reason: String,
    detail: String,
    client_ip: Option<String>,
    headers: String,
    body_bytes: i64,
    body: Vec<u8>,
});

entity!(refused_count, "refused_count" {
    #[sea_orm(primary_key, auto_increment = false)]
    workspace_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    endpoint_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    hour: i32,
    #[sea_orm(primary_key, auto_increment = false)]
    reason: String,
    count: i64,
});

entity!(inbox, "inbox" {
    #[sea_orm(primary_key, auto_increment = false)]
    run_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    kind: i16,
    body: Option<String>,
    created_at: i64,
});

entity!(wait, "wait" {
    #[sea_orm(primary_key, auto_increment = false)]
    run_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    step: String,
    workspace_id: i64,
    kind: i16,
    key: Option<Vec<u8>>,
    since: i64,
    title: Option<String>,
    detail: Option<String>,
    created_at: i64,
    due_at: Option<i64>,
});

entity!(correlation, "correlation" {
    #[sea_orm(primary_key, auto_increment = false)]
    workspace_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    connector: String,
    #[sea_orm(primary_key, auto_increment = false)]
    kind: String,
    #[sea_orm(primary_key, auto_increment = false)]
    key: String,
});

entity!(event_key, "event_key" {
    #[sea_orm(primary_key, auto_increment = false)]
    key: Vec<u8>,
    #[sea_orm(primary_key, auto_increment = false)]
    event_id: i64,
});

entity!(outgoing, "outgoing" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    effect_key: Vec<u8>,
    kind: String,
    order_key: Option<String>,
    run_id: i64,
    step: String,
    created_at: i64,
    codec: i16,
    body: Vec<u8>,
});

entity!(gate, "gate" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: Vec<u8>,
    workspace_id: i64,
    workflow_id: i64,
    kind: i16,
    name: String,
    max_inside: i32,
    inside: i32,
    waiting: i32,
    holder: Option<i64>,
    since: Option<i64>,
});

entity!(turn, "turn" {
    #[sea_orm(primary_key, auto_increment = false)]
    run_id: i64,
    root_id: i64,
    workspace_id: i64,
    workflow_id: i64,
    is_replay: i16,
    priority: i32,
    position: i64,
    stage: i16,
    gate_id: Option<Vec<u8>>,
    place: i64,
    gates: Vec<u8>,
});

entity!(merged, "merged" {
    #[sea_orm(primary_key, auto_increment = false)]
    run_id: i64,
    into_id: i64,
    place: i64,
});

entity!(dead_letter, "dead_letter" {
    #[sea_orm(primary_key, auto_increment = false)]
    run_id: i64,
    workspace_id: i64,
    workflow_id: i64,
    cause: i64,
    code: String,
    step: Option<String>,
    message: String,
    failed_at: i64,
    state: i16,
});

entity!(dead_letter_mark, "dead_letter_mark" {
    #[sea_orm(primary_key, auto_increment = false)]
    workspace_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    workflow_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    cause: i64,
    state: i16,
    up_to: i64,
    note: String,
    actor: String,
    at: i64,
});

entity!(bulk, "bulk" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    status: i16,
    owner: i16,
    actor: String,
    filter: String,
    options: String,
    total: i32,
    created_at: i64,
    finished_at: Option<i64>,
});

entity!(bulk_item, "bulk_item" {
    #[sea_orm(primary_key, auto_increment = false)]
    bulk_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    run_id: i64,
    confirm: String,
    state: i16,
    started_run: Option<i64>,
    reason: Option<String>,
});

entity!(config_state, "config_state" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i16,
    revision: i64,
});

entity!(workspace, "workspace" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    name: String,
    created_at: i64,
});

entity!(connection, "connection" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    name: String,
    connector: String,
    config: String,
    credential: Option<Vec<u8>>,
    revision: i64,
    created_at: i64,
    updated_at: i64,
});

entity!(endpoint, "endpoint" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    name: String,
    connector: String,
    connection_id: Option<i64>,
    verify: Option<String>,
    allow: String,
    context: Option<String>,
    sweep: Option<String>,
    secrets: Option<Vec<u8>>,
    revision: i64,
    created_at: i64,
    updated_at: i64,
});

entity!(workflow, "workflow" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    name: String,
    paused: i16,
    published_version_id: Option<i64>,
    draft_version_id: Option<i64>,
    revision: i64,
    created_at: i64,
    updated_at: i64,
});

entity!(schedule, "schedule" {
    #[sea_orm(primary_key, auto_increment = false)]
    workflow_id: i64,
    workspace_id: i64,
    begins_at: i64,
    fired_for: Option<i64>,
});

entity!(sweep, "sweep" {
    #[sea_orm(primary_key, auto_increment = false)]
    endpoint_id: i64,
    workspace_id: i64,
    owner: i64,
    cursor: Option<String>,
    covered_until: Option<i64>,
    lost_from: Option<i64>,
    lost_until: Option<i64>,
    cause: String,
    started_at: i64,
    finished_at: Option<i64>,
    outcome: Option<String>,
    error: Option<String>,
    pages: i32,
    recovered: i64,
    duplicates: i64,
    failures: i32,
});

entity!(oauth_grant, "oauth_grant" {
    #[sea_orm(primary_key, auto_increment = false)]
    connection_id: i64,
    workspace_id: i64,
    state: i16,
    tokens: Option<Vec<u8>>,
    generation: i64,
    owner: i64,
    lease_until: i64,
    refreshing_since: Option<i64>,
    refreshing_by: Option<String>,
    expires_at: Option<i64>,
    account: Option<String>,
    label: Option<String>,
    scopes: Option<String>,
    instance_url: Option<String>,
    error: Option<String>,
    failures: i32,
    retry_at: i64,
    state_since: i64,
    connected_at: Option<i64>,
    refreshed_at: Option<i64>,
});

entity!(registration, "registration" {
    #[sea_orm(primary_key, auto_increment = false)]
    endpoint_id: i64,
    workspace_id: i64,
    connection_id: i64,
    place: String,
    provider_id: Option<String>,
    url: Option<String>,
    events: String,
    secrets: Option<Vec<u8>>,
    secrets_until: Option<i64>,
    expires_at: Option<i64>,
    created_at: Option<i64>,
    renewed_at: Option<i64>,
    checked_at: Option<i64>,
    drift: Option<String>,
    drifted_at: Option<i64>,
    error: Option<String>,
    failures: i32,
    retry_at: i64,
    generation: i64,
    owner: i64,
    lease_until: i64,
});

entity!(oauth_attempt, "oauth_attempt" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    connection_id: i64,
    sealed: Vec<u8>,
    expires_at: i64,
});

entity!(coverage, "coverage" {
    #[sea_orm(primary_key, auto_increment = false)]
    endpoint_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    hour: i32,
    workspace_id: i64,
    received: i64,
    recovered: i64,
    duplicates: i64,
    backfilled: i64,
});

entity!(backfill, "backfill" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    endpoint_id: i64,
    status: i16,
    owner: i64,
    actor: String,
    since: i64,
    until: i64,
    place: Option<String>,
    reached: Option<i64>,
    pages: i32,
    listed: i64,
    recovered: i64,
    duplicates: i64,
    passed_over: i64,
    failures: i32,
    error: Option<String>,
    created_at: i64,
    retry_at: i64,
    finished_at: Option<i64>,
});

entity!(workflow_version, "workflow_version" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    workflow_id: i64,
    number: i32,
    state: i16,
    definition: String,
    resolution: String,
    checksum: String,
    created_at: i64,
});

entity!(connector_manifest, "connector_manifest" {
    #[sea_orm(primary_key, auto_increment = false)]
    workspace_id: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    name: String,
    #[sea_orm(primary_key, auto_increment = false)]
    version: String,
    document: String,
    created_at: i64,
});

entity!(api_token, "api_token" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    name: String,
    hash: Vec<u8>,
    scopes: String,
    created_at: i64,
    expires_at: Option<i64>,
});

entity!(audit, "audit" {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    workspace_id: i64,
    at: i64,
    actor: String,
    action: String,
    subject: String,
    client_ip: Option<String>,
    request_id: Option<String>,
    detail: String,
});
