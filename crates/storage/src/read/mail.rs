//! Inboxes, as their owners read them, and the questions that people are asked.

use std::collections::BTreeMap;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use weir_workflow_engine::{EventId, RunId, WorkspaceId};

use super::{LIST_VALUES, Store, optional_time, page_limit, time};
use crate::codes;
use crate::entity::{event_key, inbox, run, wait};
use crate::error::ReadError;
use crate::mail::{ApprovalRow, Mail, WaitKey};
use crate::node::NodeIdentity;
use crate::page::Page;

/// Pieces of mail that are read at once, on average per run; the rest is found when these are taken in.
const MAIL_PER_RUN: u64 = 100;

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
        rows.into_iter().map(mail).collect()
    }

    /// The inboxes of these runs, each oldest first; runs without mail are left out. Over all tenants.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn mail_of(&self, runs: &[RunId]) -> Result<BTreeMap<RunId, Vec<Mail>>, ReadError> {
        let mut found: BTreeMap<RunId, Vec<Mail>> = BTreeMap::new();
        for runs in runs.chunks(LIST_VALUES) {
            let rows = inbox::Entity::find()
                .filter(inbox::Column::RunId.is_in(runs.iter().map(|run| run.as_raw())))
                .order_by_asc(inbox::Column::RunId)
                .order_by_asc(inbox::Column::Id)
                .limit(u64::try_from(runs.len()).unwrap_or(u64::MAX) * MAIL_PER_RUN)
                .all(&self.db)
                .await?;
            for row in rows {
                found.entry(RunId::from_raw(row.run_id)).or_default().push(mail(row)?);
            }
        }
        Ok(found)
    }

    /// Stored events that a step with this key would find, oldest first: with raw ids of at least `since`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn events_with_key(&self, key: WaitKey, since: i64, limit: u32) -> Result<Vec<EventId>, ReadError> {
        let ids = event_key::Entity::find()
            .select_only()
            .column(event_key::Column::EventId)
            .filter(event_key::Column::Key.eq(key.bytes()))
            .filter(event_key::Column::EventId.gte(since))
            .order_by_asc(event_key::Column::EventId)
            .limit(u64::from(limit))
            .into_tuple::<i64>()
            .all(&self.db)
            .await?;
        Ok(ids.into_iter().map(EventId::from_raw).collect())
    }

    /// The decision that a step asks for, if it does.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn approval_load(
        &self,
        workspace: WorkspaceId,
        run: RunId,
        step: &str,
    ) -> Result<Option<ApprovalRow>, ReadError> {
        let asked = wait::Entity::find_by_id((run.as_raw(), step.to_owned()))
            .filter(wait::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(Expr::cust("kind = 1"));
        Ok(asked.one(&self.db).await?.map(approval))
    }

    /// A page of the decisions that people are asked for, those of the newest runs first. All of one run stand on one
    /// page.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn approval_page(
        &self,
        workspace: WorkspaceId,
        before: Option<RunId>,
        limit: u32,
    ) -> Result<Page<ApprovalRow, RunId>, ReadError> {
        let limit = page_limit(limit);
        let asked = || {
            wait::Entity::find()
                .filter(wait::Column::WorkspaceId.eq(workspace.as_raw()))
                .filter(Expr::cust("kind = 1"))
                .order_by_desc(wait::Column::RunId)
                .order_by_asc(wait::Column::Step)
        };
        let below = wait::Column::RunId.lt(before.map_or(i64::MAX, RunId::as_raw));
        let mut rows = asked().filter(below).limit(limit).all(&self.db).await?;
        let full = u64::try_from(rows.len()).unwrap_or(u64::MAX) >= limit;
        let last = rows
            .last()
            .filter(|_| full)
            .map(|last| (last.run_id, last.step.clone()));
        if let Some((run, step)) = &last {
            let rest = Condition::all()
                .add(wait::Column::RunId.eq(*run))
                .add(wait::Column::Step.gt(step.as_str()));
            rows.extend(asked().filter(rest).all(&self.db).await?);
        }
        Ok(Page {
            rows: rows.into_iter().map(approval).collect(),
            next: last.map(|(run, _)| RunId::from_raw(run)),
        })
    }
}

pub(crate) fn mail(row: inbox::Model) -> Result<Mail, ReadError> {
    Ok(Mail {
        id: row.id,
        kind: codes::mail_kind(row.kind, || {
            format!("mail {} of {}", row.id, RunId::from_raw(row.run_id))
        })?,
        body: row.body,
        created_at: time(row.created_at),
    })
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
