//! Journals: the encoded entries of a run, as they were committed.

use std::collections::{BTreeMap, HashMap};

use sea_orm::{ColumnTrait, EntityTrait, Order, QueryFilter, QueryOrder, QuerySelect, QueryTrait};
use weir_workflow_engine::{RunId, WorkspaceId};

use super::{LIST_VALUES, Store};
use crate::blob;
use crate::entity::{journal, payload, run};
use crate::error::ReadError;

impl Store {
    /// The rows of a run's journal in their order; empty when the run is not this workspace's.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn journal_load(&self, workspace: WorkspaceId, id: RunId) -> Result<Vec<(i32, Vec<u8>)>, ReadError> {
        if self.run_load(workspace, id).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut journals = self.journals(&[id.as_raw()]).await?;
        Ok(journals.remove(&id.as_raw()).unwrap_or_default())
    }

    /// The last rows of a run's journal in their order, at most so many; empty when the run is not this workspace's. How
    /// a run ended stands there, however long its journal is.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn journal_end(
        &self,
        workspace: WorkspaceId,
        id: RunId,
        count: u32,
    ) -> Result<Vec<(i32, Vec<u8>)>, ReadError> {
        let rows = self.journal_edge((workspace, id), Order::Desc, count).await?;
        Ok(rows.into_iter().rev().collect())
    }

    /// The first rows of a run's journal, as [`Store::journal_end`] gives the last.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn journal_begin(
        &self,
        workspace: WorkspaceId,
        id: RunId,
        count: u32,
    ) -> Result<Vec<(i32, Vec<u8>)>, ReadError> {
        self.journal_edge((workspace, id), Order::Asc, count).await
    }

    async fn journal_edge(
        &self,
        (workspace, id): (WorkspaceId, RunId),
        order: Order,
        count: u32,
    ) -> Result<Vec<(i32, Vec<u8>)>, ReadError> {
        let owned = run::Entity::find_by_id(id.as_raw())
            .filter(run::Column::WorkspaceId.eq(workspace.as_raw()))
            .select_only()
            .column(run::Column::Id)
            .into_query();
        let rows = journal::Entity::find()
            .filter(journal::Column::RunId.in_subquery(owned))
            .order_by(journal::Column::Seq, order)
            .limit(u64::from(count))
            .all(&self.db)
            .await?;
        let mut journals = self.with_bodies(rows).await?;
        Ok(journals.remove(&id.as_raw()).unwrap_or_default())
    }

    /// The journals of a run's whole family (the root and its replays), oldest run first: what a replay's ledger is
    /// folded from.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn family_journals(
        &self,
        workspace: WorkspaceId,
        root: RunId,
    ) -> Result<Vec<(RunId, Vec<(i32, Vec<u8>)>)>, ReadError> {
        let runs = self.families(workspace, &[root]).await?;
        let ids: Vec<i64> = runs.iter().map(|run| run.id.as_raw()).collect();
        let mut journals = self.journals(&ids).await?;
        Ok(runs
            .iter()
            .map(|run| (run.id, journals.remove(&run.id.as_raw()).unwrap_or_default()))
            .collect())
    }

    /// Journals by run, over all tenants.
    pub(super) async fn journals(&self, runs: &[i64]) -> Result<HashMap<i64, Vec<(i32, Vec<u8>)>>, ReadError> {
        let mut journals: HashMap<i64, Vec<(i32, Vec<u8>)>> = HashMap::with_capacity(runs.len());
        for runs in runs.chunks(LIST_VALUES) {
            let rows = journal::Entity::find()
                .filter(journal::Column::RunId.is_in(runs.iter().copied()))
                .order_by_asc(journal::Column::RunId)
                .order_by_asc(journal::Column::Seq)
                .all(&self.db)
                .await?;
            journals.extend(self.with_bodies(rows).await?);
        }
        Ok(journals)
    }

    /// Rows by run, in their order, with bodies that are stored apart.
    async fn with_bodies(&self, rows: Vec<journal::Model>) -> Result<HashMap<i64, Vec<(i32, Vec<u8>)>>, ReadError> {
        let mut journals: HashMap<i64, Vec<(i32, Vec<u8>)>> = HashMap::new();
        let mut apart: BTreeMap<(i64, i32), payload::Model> = BTreeMap::new();
        if rows.iter().any(|row| row.codec == blob::APART) {
            let owners = rows.iter().filter(|row| row.codec == blob::APART).map(|row| row.run_id);
            let payloads = payload::Entity::find()
                .filter(payload::Column::OwnerId.is_in(owners))
                .all(&self.db)
                .await?;
            apart.extend(
                payloads
                    .into_iter()
                    .map(|payload| ((payload.owner_id, payload.seq), payload)),
            );
        }
        for row in rows {
            let name = || format!("journal {}/{}", RunId::from_raw(row.run_id), row.seq);
            let (codec, body) = match (apart.remove(&(row.run_id, row.seq)), row.body) {
                (Some(payload), _) => (payload.codec, payload.body),
                (None, Some(body)) => (row.codec, body),
                (None, None) => {
                    return Err(ReadError::Corrupt {
                        row: name(),
                        reason: "its body is missing".to_owned(),
                    });
                }
            };
            let body = blob::decode(codec, body, name)?;
            journals.entry(row.run_id).or_default().push((row.seq, body));
        }
        Ok(journals)
    }
}
