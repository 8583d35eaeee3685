//! What is the same in every world: the provider's connector, the connection, and how workflows become a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use weir_storage::{
    ConfigRows, ConnectionRow, CorrelationRow, MasterKey, SecretBox, VersionState, WorkflowRow, WorkflowState,
    WorkflowVersionRow, WorkspaceRow,
};
use weir_workflow_engine::{ConnectionId, Definition, VersionId, WorkflowId, check};

use super::definitions::Written;
use super::provider::MANIFEST;
use super::world::{BEGIN, WORKSPACE};
use crate::configure::catalogue::{Callee, Prospect};
use crate::published::Connectors;
use crate::registry::Registry;
use crate::snapshot::Snapshot;

/// The connection that everything goes over.
pub(super) const CONNECTION: ConnectionId = ConnectionId::from_raw(2);

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let mut registry = Registry::default();
        registry
            .add("shop", MANIFEST, &|_| None)
            .expect("the manifest of the simulation is right");
        registry
    })
}

/// The configuration with these workflows published.
pub(super) fn snapshot(workflows: &[Written]) -> Result<Snapshot, String> {
    let prospect = Prospect {
        connectors: Connectors::of_process(registry()),
        connections: BTreeMap::from([("shop".to_owned(), "shop".to_owned())]),
        workflows: workflows
            .iter()
            .map(|workflow| (workflow.name.clone(), Callee::default()))
            .collect(),
    };
    let mut rows = ConfigRows {
        revision: 1,
        workspaces: vec![WorkspaceRow {
            id: WORKSPACE,
            name: "main".to_owned(),
            created_at: BEGIN,
        }],
        connections: vec![ConnectionRow {
            id: CONNECTION,
            workspace: WORKSPACE,
            name: "shop".to_owned(),
            connector: "shop".to_owned(),
            config: "{}".to_owned(),
            credential: None,
            revision: 1,
            created_at: BEGIN,
            updated_at: BEGIN,
        }],
        ..ConfigRows::default()
    };
    let mut correlations = BTreeSet::new();
    for (number, workflow) in (100..).zip(workflows) {
        let wrong = |problems: Vec<weir_workflow_engine::Problem>| format!("{problems:#?} in {:#}", workflow.document);
        let parsed = Definition::parse(&workflow.document).map_err(wrong)?;
        let resolution = check(&parsed, &prospect).map_err(wrong)?;
        // Runs of earlier versions may still wait for something.
        let earlier = workflow.earlier.iter().map(Definition::parse);
        let earlier = earlier.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        for correlation in earlier.iter().chain([&parsed]).flat_map(Definition::correlations) {
            correlations.insert(CorrelationRow {
                workspace: WORKSPACE,
                connector: correlation.connector,
                kind: correlation.kind,
                key: correlation.key,
            });
        }
        let before = u32::try_from(workflow.earlier.len()).unwrap_or_default();
        let id = WorkflowId::from_raw(number);
        let version = VersionId::from_raw(number + 100 * i64::from(before + 1));
        rows.workflows.push(WorkflowRow {
            id,
            workspace: WORKSPACE,
            name: workflow.name.clone(),
            state: WorkflowState::Active,
            published_version: Some(version),
            draft_version: None,
            revision: 1,
            created_at: BEGIN,
            updated_at: BEGIN,
        });
        rows.versions.push(WorkflowVersionRow {
            id: version,
            workspace: WORKSPACE,
            workflow: id,
            number: before + 1,
            state: VersionState::Published,
            definition: workflow.document.to_string(),
            resolution: serde_json::to_string(&resolution).map_err(|error| error.to_string())?,
            checksum: String::new(),
            created_at: BEGIN,
        });
    }
    rows.correlations = correlations.into_iter().collect();
    let secrets = SecretBox::new(MasterKey::new([7; 32]));
    Snapshot::build(rows, &secrets, registry(), None).map_err(|error| format!("{error}: {error:?}"))
}
