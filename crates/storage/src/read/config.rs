//! The configuration as a whole, and versions of workflows.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use weir_workflow_engine::{ConnectionId, EndpointId, TokenId, VersionId, WorkflowId, WorkspaceId};

use super::{LIST_VALUES, Store, optional_time, page_limit, time};
use crate::codes;
use crate::config::{
    ApiTokenRow, ConfigRows, ConnectionRow, ConnectorManifestRow, CorrelationRow, EndpointRow, ScheduleRow,
    WorkflowRow, WorkflowVersionRow, WorkspaceRow,
};
use crate::entity::{
    api_token, config_state, connection, connector_manifest, correlation, endpoint, oauth_grant, registration,
    schedule, workflow, workflow_version, workspace,
};
use crate::error::ReadError;
use crate::grant::GrantedAccount;
use crate::page::Page;

/// How often the configuration is read again because it changed meanwhile.
const LOAD_TRIES: u32 = 10;
/// Versions that are looked at to name what stands in the way; more names would not be read.
const MAX_NAMED: u64 = 100;

impl Store {
    /// The revision of the configuration; for the node itself.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn config_revision(&self) -> Result<i64, ReadError> {
        let state = config_state::Entity::find_by_id(1_i16).one(&self.db).await?;
        state.map(|state| state.revision).ok_or_else(|| ReadError::Corrupt {
            row: "config_state 1".to_owned(),
            reason: "it is missing".to_owned(),
        })
    }

    /// The whole configuration of all tenants, all of it at one revision; for the node itself.
    ///
    /// # Errors
    /// [`ReadError`]; also when the configuration changed during each of ten attempts.
    pub async fn config_load(&self) -> Result<ConfigRows, ReadError> {
        let mut revision = self.config_revision().await?;
        for _ in 0..LOAD_TRIES {
            let rows = self.config_read(revision).await?;
            let now = self.config_revision().await?;
            if now == revision {
                return Ok(rows);
            }
            revision = now;
        }
        Err(ReadError::Unavailable(sea_orm::DbErr::Custom(
            "the configuration keeps changing".to_owned(),
        )))
    }

    async fn config_read(&self, revision: i64) -> Result<ConfigRows, ReadError> {
        let db = &self.db;
        let workflows: Vec<WorkflowRow> = workflow::Entity::find()
            .all(db)
            .await?
            .into_iter()
            .map(workflow_row)
            .collect::<Result<_, _>>()?;
        let mut versions = Vec::new();
        let current: Vec<i64> = workflows
            .iter()
            .flat_map(|workflow| [workflow.published_version, workflow.draft_version])
            .flatten()
            .map(|id| id.as_raw())
            .collect();
        for ids in current.chunks(LIST_VALUES) {
            let found = workflow_version::Entity::find()
                .filter(workflow_version::Column::Id.is_in(ids.iter().copied()))
                .all(db)
                .await?;
            for model in found {
                versions.push(version_row(model)?);
            }
        }
        Ok(ConfigRows {
            revision,
            workspaces: workspace::Entity::find()
                .all(db)
                .await?
                .into_iter()
                .map(workspace_row)
                .collect(),
            connections: connection::Entity::find()
                .all(db)
                .await?
                .into_iter()
                .map(connection_row)
                .collect(),
            endpoints: endpoint::Entity::find()
                .all(db)
                .await?
                .into_iter()
                .map(endpoint_row)
                .collect(),
            workflows,
            versions,
            schedules: schedule::Entity::find()
                .all(db)
                .await?
                .into_iter()
                .map(schedule_row)
                .collect(),
            manifests: connector_manifest::Entity::find()
                .all(db)
                .await?
                .into_iter()
                .map(manifest_row)
                .collect(),
            grants: oauth_grant::Entity::find()
                .select_only()
                .column(oauth_grant::Column::ConnectionId)
                .column(oauth_grant::Column::State)
                .column(oauth_grant::Column::Account)
                .column(oauth_grant::Column::InstanceUrl)
                .into_tuple::<(i64, i16, Option<String>, Option<String>)>()
                .all(db)
                .await?
                .into_iter()
                .map(granted_account)
                .collect::<Result<_, _>>()?,
            registrations: registration::Entity::find()
                .all(db)
                .await?
                .into_iter()
                .map(super::registration::row)
                .collect::<Result<_, _>>()?,
            tokens: api_token::Entity::find()
                .all(db)
                .await?
                .into_iter()
                .map(token_row)
                .collect::<Result<_, _>>()?,
            correlations: correlation::Entity::find()
                .all(db)
                .await?
                .into_iter()
                .map(|row| CorrelationRow {
                    workspace: WorkspaceId::from_raw(row.workspace_id),
                    connector: row.connector,
                    kind: row.kind,
                    key: row.key,
                })
                .collect(),
        })
    }

    /// Where the schedule of a workflow stands now. `None`: it has none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn schedule_load(
        &self,
        workspace: WorkspaceId,
        workflow: WorkflowId,
    ) -> Result<Option<ScheduleRow>, ReadError> {
        let found = schedule::Entity::find_by_id(workflow.as_raw())
            .filter(schedule::Column::WorkspaceId.eq(workspace.as_raw()))
            .one(&self.db)
            .await?;
        Ok(found.map(schedule_row))
    }

    /// One version of a workflow, also one that is no longer published: runs stay pinned to it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn version_load(
        &self,
        workspace: WorkspaceId,
        id: VersionId,
    ) -> Result<Option<WorkflowVersionRow>, ReadError> {
        let found = workflow_version::Entity::find_by_id(id.as_raw())
            .filter(workflow_version::Column::WorkspaceId.eq(workspace.as_raw()))
            .one(&self.db)
            .await?;
        found.map(version_row).transpose()
    }

    /// Names of the workflows with a version, published now or before, whose resolution holds this text, each once. Runs
    /// stay pinned to such a version, and may be replayed on it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn workflows_resolved_with(&self, workspace: WorkspaceId, text: &str) -> Result<Vec<String>, ReadError> {
        let found = workflow_version::Entity::find()
            .select_only()
            .column(workflow_version::Column::Definition)
            .filter(workflow_version::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(workflow_version::Column::Resolution.contains(text))
            .order_by_desc(workflow_version::Column::Id)
            .limit(MAX_NAMED)
            .into_tuple::<String>()
            .all(&self.db)
            .await?;
        let name = |definition: &String| {
            let definition: serde_json::Value = serde_json::from_str(definition).ok()?;
            Some(definition.get("name")?.as_str()?.to_owned())
        };
        let names: std::collections::BTreeSet<String> = found.iter().filter_map(name).collect();
        Ok(names.into_iter().collect())
    }

    /// The workflow that had this name last, by what its versions say: it may be deleted by now.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn workflow_once_named(
        &self,
        workspace: WorkspaceId,
        name: &str,
    ) -> Result<Option<WorkflowId>, ReadError> {
        let member = format!("\"name\":{}", serde_json::Value::from(name));
        let found = workflow_version::Entity::find()
            .select_only()
            .column(workflow_version::Column::WorkflowId)
            .column(workflow_version::Column::Definition)
            .filter(workflow_version::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(workflow_version::Column::Definition.contains(member))
            .order_by_desc(workflow_version::Column::Id)
            .limit(MAX_NAMED)
            .into_tuple::<(i64, String)>()
            .all(&self.db)
            .await?;
        // The text may stand deeper in, as the name of something else.
        let is_it = |definition: &str| {
            let definition: Option<serde_json::Value> = serde_json::from_str(definition).ok();
            definition.is_some_and(|definition| definition["name"] == name)
        };
        let found = found.into_iter().find(|(_, definition)| is_it(definition));
        Ok(found.map(|(workflow, _)| WorkflowId::from_raw(workflow)))
    }

    /// A page of the versions of a workflow, the highest number first; goes on before a number.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn version_page(
        &self,
        workspace: WorkspaceId,
        workflow: WorkflowId,
        before: Option<u32>,
        limit: u32,
    ) -> Result<Page<WorkflowVersionRow, u32>, ReadError> {
        let limit = page_limit(limit);
        let before = before.map_or(i32::MAX, |number| i32::try_from(number).unwrap_or(i32::MAX));
        let found = workflow_version::Entity::find()
            .filter(workflow_version::Column::WorkspaceId.eq(workspace.as_raw()))
            .filter(workflow_version::Column::WorkflowId.eq(workflow.as_raw()))
            .filter(workflow_version::Column::Number.lt(before))
            .order_by_desc(workflow_version::Column::Number)
            .limit(limit)
            .all(&self.db)
            .await?;
        let rows: Vec<WorkflowVersionRow> = found.into_iter().map(version_row).collect::<Result<_, _>>()?;
        let full = u64::try_from(rows.len()).unwrap_or(u64::MAX) >= limit;
        let next = rows.last().filter(|_| full).map(|row| row.number);
        Ok(Page { rows, next })
    }
}

fn workspace_row(model: workspace::Model) -> WorkspaceRow {
    WorkspaceRow {
        id: WorkspaceId::from_raw(model.id),
        name: model.name,
        created_at: time(model.created_at),
    }
}

fn connection_row(model: connection::Model) -> ConnectionRow {
    ConnectionRow {
        id: ConnectionId::from_raw(model.id),
        workspace: WorkspaceId::from_raw(model.workspace_id),
        name: model.name,
        connector: model.connector,
        config: model.config,
        credential: model.credential,
        revision: model.revision,
        created_at: time(model.created_at),
        updated_at: time(model.updated_at),
    }
}

fn endpoint_row(model: endpoint::Model) -> EndpointRow {
    EndpointRow {
        id: EndpointId::from_raw(model.id),
        workspace: WorkspaceId::from_raw(model.workspace_id),
        name: model.name,
        connector: model.connector,
        connection: model.connection_id.map(ConnectionId::from_raw),
        verify: model.verify,
        allow: model.allow,
        context: model.context,
        sweep: model.sweep,
        secrets: model.secrets,
        revision: model.revision,
        created_at: time(model.created_at),
        updated_at: time(model.updated_at),
    }
}

fn workflow_row(model: workflow::Model) -> Result<WorkflowRow, ReadError> {
    let id = WorkflowId::from_raw(model.id);
    Ok(WorkflowRow {
        id,
        workspace: WorkspaceId::from_raw(model.workspace_id),
        name: model.name,
        state: codes::workflow_state(model.paused, || format!("workflow {id}"))?,
        published_version: model.published_version_id.map(VersionId::from_raw),
        draft_version: model.draft_version_id.map(VersionId::from_raw),
        revision: model.revision,
        created_at: time(model.created_at),
        updated_at: time(model.updated_at),
    })
}

fn schedule_row(model: schedule::Model) -> ScheduleRow {
    ScheduleRow {
        workflow: WorkflowId::from_raw(model.workflow_id),
        workspace: WorkspaceId::from_raw(model.workspace_id),
        begins_at: time(model.begins_at),
        fired_for: optional_time(model.fired_for),
    }
}

fn version_row(model: workflow_version::Model) -> Result<WorkflowVersionRow, ReadError> {
    let id = VersionId::from_raw(model.id);
    Ok(WorkflowVersionRow {
        id,
        workspace: WorkspaceId::from_raw(model.workspace_id),
        workflow: WorkflowId::from_raw(model.workflow_id),
        number: u32::try_from(model.number).unwrap_or(0),
        state: codes::version_state(model.state, || format!("workflow_version {id}"))?,
        definition: model.definition,
        resolution: model.resolution,
        checksum: model.checksum,
        created_at: time(model.created_at),
    })
}

fn manifest_row(model: connector_manifest::Model) -> ConnectorManifestRow {
    ConnectorManifestRow {
        workspace: WorkspaceId::from_raw(model.workspace_id),
        name: model.name,
        version: model.version,
        document: model.document,
        created_at: time(model.created_at),
    }
}

fn granted_account(
    (id, state, account, instance_url): (i64, i16, Option<String>, Option<String>),
) -> Result<GrantedAccount, ReadError> {
    let connection = ConnectionId::from_raw(id);
    Ok(GrantedAccount {
        connection,
        state: codes::grant_state(state, || format!("oauth_grant {connection}"))?,
        account,
        instance_url,
    })
}

fn token_row(model: api_token::Model) -> Result<ApiTokenRow, ReadError> {
    let id = TokenId::from_raw(model.id);
    let hash = <[u8; 32]>::try_from(model.hash).map_err(|hash| ReadError::Corrupt {
        row: format!("api_token {id}"),
        reason: format!("its hash has {} bytes", hash.len()),
    })?;
    Ok(ApiTokenRow {
        id,
        workspace: WorkspaceId::from_raw(model.workspace_id),
        name: model.name,
        hash,
        scopes: model.scopes,
        created_at: time(model.created_at),
        expires_at: optional_time(model.expires_at),
    })
}
