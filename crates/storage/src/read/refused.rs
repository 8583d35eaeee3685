//! Requests that were turned away, and how many there were.

use bytes::Bytes;
use sea_orm::{ColumnTrait, DerivePartialModel, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use weir_workflow_engine::{EndpointId, RefusalId, Timestamp, WorkspaceId};

use super::{Store, page_limit, time};
use crate::entity::{refused, refused_count};
use crate::error::ReadError;
use crate::page::Page;

/// Counters read at once: a week of hours for every endpoint of a large workspace.
const MAX_COUNTS: u64 = 50_000;

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// Its id.
    pub id: RefusalId,
    /// The endpoint; `None` when none was found.
    pub endpoint: Option<EndpointId>,
    /// When it came.
    pub received_at: Timestamp,
    /// Stable code of the reason.
    pub reason: String,
    /// The reason in words.
    pub detail: String,
    /// Address of the sender.
    pub client_ip: Option<String>,
    /// The headers, a JSON object.
    pub headers: String,
    /// Size of the body as it came.
    pub body_bytes: u64,
    /// The first bytes of the body.
    pub body: Bytes,
}

/// How many requests were refused for one reason in one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCount {
    /// The endpoint; `None` when none was found.
    pub endpoint: Option<EndpointId>,
    /// Start of the hour.
    pub hour: Timestamp,
    /// Stable code of the reason.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// Which refused requests a page shows; `None` = any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedFilter {
    /// Of this endpoint.
    pub endpoint: Option<EndpointId>,
    /// For this reason.
    pub reason: Option<String>,
}

#[derive(DerivePartialModel)]
#[sea_orm(entity = "refused::Entity")]
struct StoredRow {
    id: i64,
    endpoint_id: Option<i64>,
    received_at: i64,
    reason: String,
    detail: String,
    client_ip: Option<String>,
    headers: String,
    body_bytes: i64,
    body: Vec<u8>,
}

impl Store {
    /// A page of refused requests, newest first. The table is bounded, so every filter is answered in full.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn refused_page(
        &self,
        workspace: WorkspaceId,
        filter: &RefusedFilter,
        before: Option<RefusalId>,
        limit: u32,
    ) -> Result<Page<RefusedRow, RefusalId>, ReadError> {
        let limit = page_limit(limit);
        let mut matching = refused::Entity::find()
            .filter(refused::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(refused::Column::Id.lt(before.map_or(i64::MAX, RefusalId::as_raw)))
            .order_by_desc(refused::Column::Id);
        if let Some(endpoint) = filter.endpoint {
            matching = matching.filter(refused::Column::EndpointId.eq(endpoint.as_raw()));
        }
        if let Some(reason) = &filter.reason {
            matching = matching.filter(refused::Column::Reason.eq(reason.as_str()));
        }
        let rows = matching
            .limit(limit)
            .into_partial_model::<StoredRow>()
            .all(&self.db)
            .await?;
        let full = u64::try_from(rows.len()).unwrap_or(u64::MAX) >= limit;
        let next = rows.last().filter(|_| full).map(|row| RefusalId::from_raw(row.id));
        let row = |row: StoredRow| RefusedRow {
            id: RefusalId::from_raw(row.id),
            endpoint: row.endpoint_id.map(EndpointId::from_raw),
            received_at: time(row.received_at),
            reason: row.reason,
            detail: row.detail,
            client_ip: row.client_ip,
            headers: row.headers,
            body_bytes: u64::try_from(row.body_bytes).unwrap_or(0),
            body: Bytes::from(row.body),
        };
        Ok(Page {
            rows: rows.into_iter().map(row).collect(),
            next,
        })
    }

    /// How many requests were refused, by endpoint, hour and reason, since the hour of a time; the newest hour first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn refused_counts(
        &self,
        workspace: WorkspaceId,
        since: Timestamp,
    ) -> Result<Vec<RefusedCount>, ReadError> {
        let hour = since.as_unix_ms().div_euclid(3_600_000);
        let rows = refused_count::Entity::find()
            .filter(refused_count::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(refused_count::Column::Hour.gte(hour))
            .order_by_desc(refused_count::Column::Hour)
            .limit(MAX_COUNTS)
            .all(&self.db)
            .await?;
        let count = |row: refused_count::Model| RefusedCount {
            endpoint: Some(row.endpoint_id).filter(|id| *id != 0).map(EndpointId::from_raw),
            hour: time(i64::from(row.hour) * 3_600_000),
            reason: row.reason,
            count: u64::try_from(row.count).unwrap_or(0),
        };
        Ok(rows.into_iter().map(count).collect())
    }
}
