//! Inboxes, as their owners read them, and the questions that people are asked.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use weir_workflow_engine::{RunId, WorkspaceId};

use super::{Store, optional_time, page_limit, time};
use crate::codes;
use crate::entity::{inbox, run, wait};
use crate::error::ReadError;
use crate::mail::{ApprovalRow, Mail};
use crate::node::NodeIdentity;
use crate::page::Page;

impl Store {
    /// Open runs of this node that have mail, in the order of their ids, after the given one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_ids_with_mail(
        &self,
        node: &NodeIdentity,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<RunId>, ReadError> {
        let own = run::Entity::find()
            .select_only()
            .column(run::Column::Id)
            .filter(run::Column::Owner.eq(i32::from(node.slot)))
            .filter(Expr::cust("status < 2"));
        let ids = inbox::Entity::find()
            .select_only()
            .column(inbox::Column::RunId)
            .distinct()
            .filter(inbox::Column::RunId.gt(after.map_or(0, RunId::as_raw)))
            .filter(inbox::Column::RunId.in_subquery(sea_orm::QueryTrait::into_query(own)))
            .order_by_asc(inbox::Column::RunId)
            .limit(u64::from(limit))
            .into_tuple::<i64>()
            .all(&self.db)
            .await?;
        Ok(ids.into_iter().map(RunId::from_raw).collect())
    }

    /// The inbox of a run, oldest first. For its owner; over all tenants.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run_mail(&self, run: RunId, limit: u32) -> Result<Vec<Mail>, ReadError> {
        let rows = inbox::Entity::find()
            .filter(inbox::Column::RunId.eq(run.as_raw()))
            .order_by_asc(inbox::Column::Id)
            .limit(u64::from(limit))
            .all(&self.db)
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Mail {
                    id: row.id,
                    kind: codes::mail_kind(row.kind, || format!("mail {} of {run}", row.id))?,
                    body: row.body,
                    created_at: time(row.created_at),
                })
            })
            .collect()
    }

    /// A page of the decisions that people are asked for, those of the newest runs first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn approval_page(
        &self,
        workspace: WorkspaceId,
        after: Option<(RunId, String)>,
        limit: u32,
    ) -> Result<Page<ApprovalRow, (RunId, String)>, ReadError> {
        let limit = page_limit(limit);
        let mut asked = wait::Entity::find()
            .filter(wait::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(Expr::cust("kind = 1"))
            .order_by_desc(wait::Column::RunId)
            .order_by_asc(wait::Column::Step)
            .limit(limit);
        if let Some((run, step)) = after {
            let same = Condition::all()
                .add(wait::Column::RunId.eq(run.as_raw()))
                .add(wait::Column::Step.gt(step));
            let older = wait::Column::RunId.lt(run.as_raw());
            asked = asked.filter(Condition::any().add(older).add(same));
        }
        let rows: Vec<ApprovalRow> = asked.all(&self.db).await?.into_iter().map(approval).collect();
        let full = u64::try_from(rows.len()).unwrap_or(u64::MAX) >= limit;
        let next = rows.last().filter(|_| full).map(|row| (row.run, row.step.clone()));
        Ok(Page { rows, next })
    }
}

fn approval(model: wait::Model) -> ApprovalRow {
    ApprovalRow {
        run: RunId::from_raw(model.run_id),
        step: model.step,
        title: model.title.unwrap_or_default(),
        detail: model.detail.unwrap_or_else(|| "{}".to_owned()),
        created_at: time(model.created_at),
        due_at: optional_time(model.due_at),
    }
}
