//! What events and the clock set going: workflows that listen, steps that wait, schedules.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use weir_storage::{ScheduleRow, WaitKey, WorkflowState};
use weir_workflow_engine::{Event, Trigger, WorkflowId, WorkspaceId};

use super::{ANY_TYPE, Listener, Snapshot, Version, Workflow};
use crate::mail::event_key;

impl Snapshot {
    /// The event types of a connector that published workflows begin with, for one of its connections.
    pub(crate) fn triggering(&self, workspace: WorkspaceId, connector: &str, connection: &str) -> BTreeSet<String> {
        let kinds = self
            .tenants
            .get(&workspace)
            .and_then(|tenant| tenant.listeners.get(connector));
        let is_meant = |(_, version): &Listener| match version.plan.trigger() {
            Trigger::Event { connection: of, .. } => of.as_deref().is_none_or(|of| of == connection),
            Trigger::Manual { .. } | Trigger::Schedule(_) => false,
        };
        let taken = kinds.into_iter().flatten().filter(|(_, all)| all.iter().any(is_meant));
        taken.map(|(kind, _)| kind.clone()).collect()
    }

    /// The event types of a connector that steps of workflows wait for.
    pub(crate) fn awaited(&self, workspace: WorkspaceId, connector: &str) -> BTreeSet<String> {
        let kinds = self
            .tenants
            .get(&workspace)
            .and_then(|tenant| tenant.correlations.get(connector));
        kinds.into_iter().flat_map(HashMap::keys).cloned().collect()
    }

    /// Workflows that take events of this type, and those that take every type of a connector that declares `*`.
    pub(crate) fn listeners(
        &self,
        workspace: WorkspaceId,
        connector: &str,
        kind: &str,
    ) -> impl Iterator<Item = &Listener> {
        let kinds = self
            .tenants
            .get(&workspace)
            .and_then(|tenant| tenant.listeners.get(connector));
        let of = |kind: &str| kinds.and_then(|kinds| kinds.get(kind)).map_or(&[][..], Vec::as_slice);
        of(kind).iter().chain(of(ANY_TYPE))
    }

    /// What steps that wait for this event find it by.
    pub(crate) fn wait_keys(&self, workspace: WorkspaceId, event: &Event) -> Vec<WaitKey> {
        let tenant = self.tenants.get(&workspace);
        let kinds = tenant.and_then(|tenant| tenant.correlations.get(&event.connector));
        let Some(correlations) = kinds.and_then(|kinds| kinds.get(&event.kind)) else {
            return Vec::new();
        };
        let found = correlations.iter().filter_map(|(key, correlator)| {
            let value = correlator.value(event)?;
            Some(event_key(workspace, &event.connector, &event.kind, key, &value))
        });
        found.collect()
    }

    /// Published workflows that the clock starts, also those that are paused, in all workspaces.
    pub(crate) fn scheduled(&self) -> impl Iterator<Item = (&Arc<Workflow>, &Arc<Version>)> {
        let all = self.tenants.values().flat_map(|tenant| tenant.workflows.values());
        all.filter_map(|workflow| {
            let version = workflow.published.as_ref()?;
            matches!(version.plan.trigger(), Trigger::Schedule(_)).then_some((workflow, version))
        })
    }

    /// Workflows that were resumed, and whose runs that waited are let through.
    pub(crate) fn resuming(&self) -> impl Iterator<Item = &Arc<Workflow>> {
        let all = self.tenants.values().flat_map(|tenant| tenant.workflows.values());
        all.filter(|workflow| workflow.row.state == WorkflowState::Resuming)
    }

    /// Where the schedule of a workflow stood when the configuration was read.
    pub(crate) fn schedule_row(&self, workflow: WorkflowId) -> Option<&ScheduleRow> {
        self.schedules.get(&workflow)
    }
}
