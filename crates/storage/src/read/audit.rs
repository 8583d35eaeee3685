//! The audit trail.

use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use weir_workflow_engine::{Timestamp, WorkspaceId};

use super::{SCAN_ROWS, Store, first_id_at, page_limit, time};
use crate::config::AuditEntry;
use crate::entity::audit;
use crate::error::ReadError;
use crate::page::Page;

/// Which entries a page shows; `None` = any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Written at this time or later.
    pub since: Option<Timestamp>,
    /// Written before this time.
    pub until: Option<Timestamp>,
    /// By one of these.
    pub actors: Option<Vec<String>>,
    /// An action such as `run.cancel`, or all that begin with it and a point: `run`.
    pub action: Option<String>,
    /// On this.
    pub subject: Option<String>,
}

impl Store {
    /// A page of the audit trail, newest first; goes on before a raw id. A filter by actor or action without a subject
    /// looks at so many entries per page, so that a page may be short and not the last one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn audit_page(
        &self,
        workspace: WorkspaceId,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<AuditEntry, i64>, ReadError> {
        let limit = page_limit(limit);
        let mut below = before.unwrap_or(i64::MAX);
        if let Some(until) = filter.until {
            below = below.min(first_id_at(until));
        }
        let mut within = audit::Entity::find()
            .filter(audit::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(audit::Column::Id.lt(below))
            .order_by_desc(audit::Column::Id);
        if let Some(since) = filter.since {
            within = within.filter(audit::Column::Id.gte(first_id_at(since)));
        }
        if let Some(subject) = &filter.subject {
            within = within.filter(audit::Column::Subject.eq(subject));
        }
        let mut matching = within.clone();
        if let Some(actors) = &filter.actors {
            matching = matching.filter(audit::Column::Actor.is_in(actors));
        }
        if let Some(action) = &filter.action {
            let all = Condition::any()
                .add(audit::Column::Action.eq(action))
                .add(audit::Column::Action.starts_with(format!("{action}.")));
            matching = matching.filter(all);
        }
        let mut floor = None;
        if filter.actors.is_some() || filter.action.is_some() {
            floor = within
                .select_only()
                .column(audit::Column::Id)
                .offset(SCAN_ROWS - 1)
                .limit(1)
                .into_tuple::<i64>()
                .one(&self.db)
                .await?;
        }
        if let Some(floor) = floor {
            matching = matching.filter(audit::Column::Id.gte(floor));
        }
        let found = matching.limit(limit).all(&self.db).await?;
        let rows: Vec<AuditEntry> = found.into_iter().map(row).collect();
        let full = u64::try_from(rows.len()).unwrap_or(u64::MAX) >= limit;
        let next = if full { rows.last().map(|row| row.id) } else { floor };
        Ok(Page { rows, next })
    }
}

fn row(model: audit::Model) -> AuditEntry {
    AuditEntry {
        id: model.id,
        workspace: WorkspaceId::from_raw(model.workspace_id),
        at: time(model.at),
        actor: model.actor,
        action: model.action,
        subject: model.subject,
        client_ip: model.client_ip,
        request_id: model.request_id,
        detail: model.detail,
    }
}
