//! The running orchestrator: one value that owns the writer, the memory and the loops, and a handle to it.

use crate::answers::Callers;
use crate::budget::BudgetFigures;
use crate::clock::{CLOCK_SKEW_LIMIT, Clock};
use crate::configure::{Looks, Reloading};
use crate::departures::Senders;
use crate::driver::ActiveRun;
use crate::egress::{EgressConfigError, EgressPolicy};
use crate::grants::GrantsSeed;
use crate::ingest::{Allowance, FurtherRefusals, IntakeLoad, KeyDocumentCache, MAX_REFUSED_PER_MINUTE};
use crate::lease::Lease;
use crate::perform::{Performer, PerformerOptions};
use crate::queued::Queued;
use crate::reading::Reading;
use crate::recovery::HEARTBEAT;
use crate::registry::Registry;
use crate::runs::Runs;
use crate::settings::{Role, Roles, Settings};
use crate::snapshot::{Snapshot, SnapshotError, Workflow};
use arc_swap::ArcSwap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_storage::{
    DatabaseKind, Fact, Fence, Heartbeat, NodeIdentity, SecretBox, Store, WriteError, Writer, WriterHealth,
    WriterLimits, WriterSeed,
};
use weir_workflow_engine::Status;
use weir_workflow_engine::Timestamp;
use weir_workflow_engine::{IdGenerator, WorkflowId, WorkspaceId};

/// How long the last writes may take at shutdown.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
/// Time between two looks whether the orchestrator is let go of.
const GONE_LOOK: Duration = Duration::from_millis(10);

/// The workspace that exists from the first start.
pub const DEFAULT_WORKSPACE: &str = "main";

/// Everything the orchestrator is made of.
pub struct Options {
    /// Bounds and addresses.
    pub settings: Settings,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Reads.
    pub store: Store,
    /// Writes. The master key has been checked against it.
    pub writer: WriterSeed,
    /// Who this process is among the nodes, as [`WriterSeed::register`] gave it.
    pub node: NodeIdentity,
    /// Opens and seals secrets.
    pub secrets: SecretBox,
    /// Built-ins and those of a directory.
    pub connectors: Registry,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Why the orchestrator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration in the database cannot be used.
    #[error("cannot load the configuration")]
    Snapshot(#[from] SnapshotError),
    /// An entry of the egress setting is no host and no network.
    #[error("the egress setting is wrong")]
    Egress(#[from] EgressConfigError),
    /// The part that calls out cannot be built.
    #[error("cannot prepare outgoing calls")]
    Performer(#[from] crate::perform::PerformerError),
    /// A write that a start needs failed.
    #[error("cannot write to the database at start")]
    Write(#[from] weir_storage::WriteError),
    /// A read that a start needs failed.
    #[error("cannot read from the database at start")]
    Read(#[from] weir_storage::ReadError),
}

/// What tasks share. Private to the crate: the outside holds an [`Orchestrator`].
pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    pub(crate) secrets: SecretBox,
    pub(crate) registry: Registry,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) node: NodeIdentity,
    pub(crate) ids: IdGenerator,
    pub(crate) performer: Performer,
    /// Runs whose task panicked.
    pub(crate) panics: crate::panics::Panics,
    pub(crate) runs: Runs,
    /// Whoever waits for the answer of a run.
    pub(crate) callers: Callers,
    pub(crate) schedules: crate::schedules::Schedules,
    pub(crate) sweeps: crate::sweeps::Sweeps,
    pub(crate) registrations: crate::registrations::Registrations,
    /// What arrived and is not in the coverage ledger yet.
    pub(crate) ledger: crate::sweeps::Ledger,
    pub(crate) refusals: Allowance,
    /// Refusals beyond it, until they are added to the stored counts.
    pub(crate) refused_further: FurtherRefusals,
    /// What proofs of webhooks rest on besides secrets.
    pub(crate) key_documents: KeyDocumentCache,
    pub(crate) intake: IntakeLoad,
    /// This node's lease by its own clock.
    pub(crate) lease: Arc<Lease>,
    /// Bounds how often bad signatures make us look for a newer configuration.
    pub(crate) looks: Looks,
    /// The same for addresses of endpoints that are not known.
    pub(crate) strangers_looks: Looks,
    /// Reads of the changed configuration.
    pub(crate) reloading: Reloading,
    pub(crate) reading: Reading,
    /// The configuration is another one now: a workflow may have been resumed.
    pub(crate) resumed: tokio::sync::Notify,
    /// One replay is started at a time.
    pub(crate) replaying: tokio::sync::Mutex<()>,
    /// Runs that wait at gates.
    pub(crate) queued: Queued,
    /// Asks for a look at operations on many runs.
    pub(crate) bulk: tokio::sync::Notify,
    /// The same for those that ask something of open runs.
    pub(crate) bulk_requests: tokio::sync::Notify,
    /// The same for those that say what became of effects.
    pub(crate) bulk_decisions: tokio::sync::Notify,
    /// Asks for a look at backfills.
    pub(crate) backfills: tokio::sync::Notify,
    /// One change of configuration at a time.
    pub(crate) configuring: tokio::sync::Mutex<()>,
    /// No new work; work under way may come to its end.
    pub(crate) stopping: CancellationToken,
    /// Nothing more may be waited for.
    pub(crate) halted: CancellationToken,
    /// The runtime that the orchestrator was started on.
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) tasks: TaskTracker,
    /// The writer's task alone: it outlives all others.
    writing: TaskTracker,
    pub(crate) loops: TaskTracker,
    /// Asks for a scan "mine, open, not in memory": a commit may have gone through unseen.
    pub(crate) rescan: tokio::sync::Notify,
    /// Says that there may be runs that belong to no node.
    pub(crate) free: tokio::sync::Notify,
    pub(crate) lost: OnceLock<String>,
    pub(crate) lost_signal: CancellationToken,
    pub(crate) workspace: WorkspaceId,
}

impl Core {
    pub(crate) fn new_event_id(&self, now: Timestamp) -> weir_workflow_engine::EventId {
        weir_workflow_engine::EventId::from_raw(self.new_id(now))
    }

    pub(crate) fn new_id(&self, now: Timestamp) -> i64 {
        self.ids.next_raw(now)
    }

    /// The node is no longer ours, or cannot go on: everything stops, and the process should end.
    pub(crate) fn lose(&self, reason: &str) {
        if self.lost.set(reason.to_owned()).is_ok() {
            tracing::error!("this node stops: {reason}");
        }
        self.stopping.cancel();
        self.halted.cancel();
        self.lost_signal.cancel();
    }

    /// The database knows this node no longer.
    pub(crate) fn lose_place(&self) {
        let why = match self.writer.health() {
            WriterHealth::Fenced { why } => why,
            WriterHealth::Healthy | WriterHealth::Failing { .. } => Fence::Unclear,
        };
        self.lose(&why.to_string());
    }

    pub(crate) fn note_finished(&self, run: &ActiveRun, status: &Status, now: Timestamp) {
        let outcome = match status {
            Status::Succeeded => "succeeded",
            Status::Failed { code, .. } if code == "effect_unknown" => "unknown",
            Status::Failed { .. } => "failed",
            Status::Canceled => "canceled",
            Status::Running | Status::Waiting | Status::Paused => return,
        };
        self.panics.forget(run.state.head().id);
        metrics::counter!("weir_runs_finished_total", "outcome" => outcome).increment(1);
        let since_accept = now.since(run.state.event().received_at);
        metrics::histogram!("weir_run_duration_seconds").record(since_accept.as_secs_f64());
    }
}

/// A handle to the running orchestrator; clones are cheap and mean the same one.
#[derive(Clone)]
pub struct Orchestrator {
    pub(crate) core: Arc<Core>,
}

impl std::fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orchestrator").finish_non_exhaustive()
    }
}

/// Where somebody looks for runs that are queued.
const QUEUED_WHERE: &str =
    "`weir workflows` shows paused workflows, `weir lanes` held lanes, `weir runs --status queued` the runs";
/// What to say when nobody drives runs.
const NO_WORKER: &str = "no server with the role `worker` is up: runs are accepted and wait (WEIR_ROLES)";

/// Whether the process can do its work now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// True when webhooks are accepted and runs move.
    pub ready: bool,
    /// What stands in the way, one sentence each.
    pub reasons: Vec<String>,
    /// What somebody should see to although the process works, one sentence each.
    pub warnings: Vec<String>,
}

impl Orchestrator {
    /// Registers the node, loads the configuration, takes back open runs and starts the loops.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left running after an error.
    pub async fn start(options: Options) -> Result<Orchestrator, StartError> {
        let Options {
            settings,
            clock,
            store,
            writer,
            mut node,
            secrets,
            connectors,
        } = options;
        node.drives_runs = settings.roles.has(Role::Worker);
        let egress = EgressPolicy::new(&settings.egress_allow)?;
        let senders = match store.kind() {
            DatabaseKind::Sqlite => Senders::ThisProcessOnly,
            DatabaseKind::Postgres => Senders::Several,
        };
        let ids = IdGenerator::new(node.slot, node.id_high_water);
        let (writer, writer_task) = writer.start(node.clone(), WriterLimits::default());
        let writing = TaskTracker::new();
        writing.spawn(writer_task.run());
        let renewing = renew(writer.clone(), node.id_high_water);
        let starting = Box::pin(async move {
            let workspace =
                crate::configure::ensure_workspace(&store, &writer, &ids, clock.now(), DEFAULT_WORKSPACE).await?;
            let snapshot = Snapshot::load(&store, &secrets, &connectors, None).await?;
            let lease = Arc::new(match senders {
                Senders::ThisProcessOnly => Lease::exclusive(Arc::clone(&clock)),
                Senders::Several => Lease::shared(Arc::clone(&clock)),
            });
            let tasks = TaskTracker::new();
            let grants = GrantsSeed {
                store: store.clone(),
                writer: writer.clone(),
                secrets: secrets.clone(),
                node: node.clone(),
                tasks: tasks.clone(),
                runtime: tokio::runtime::Handle::current(),
            };
            let performer = Performer::new(PerformerOptions {
                grants: Some(grants),
                clock: Arc::clone(&clock),
                lease: Arc::clone(&lease),
                egress,
                departures: settings.data_folder.clone(),
                senders,
                user_agent: concat!("weir/", env!("CARGO_PKG_VERSION")).to_owned(),
            })?;
            let core = Arc::new(Core {
                panics: crate::panics::Panics::default(),
                runs: Runs::new(
                    settings.max_runs_in_memory,
                    settings.max_run_bytes_in_memory,
                    settings.max_backlog_runs,
                ),
                queued: Queued::new(settings.max_queued_runs),
                schedules: crate::schedules::Schedules::default(),
                sweeps: crate::sweeps::Sweeps::default(),
                registrations: crate::registrations::Registrations::default(),
                ledger: crate::sweeps::Ledger::default(),
                settings,
                clock,
                store,
                writer,
                secrets,
                registry: connectors,
                snapshot: ArcSwap::from_pointee(snapshot),
                node,
                ids,
                performer,
                callers: Callers::default(),
                refusals: Allowance::per_minute(MAX_REFUSED_PER_MINUTE),
                refused_further: FurtherRefusals::default(),
                key_documents: KeyDocumentCache::default(),
                intake: IntakeLoad::default(),
                lease,
                looks: Looks::default(),
                strangers_looks: Looks::default(),
                reloading: Reloading::default(),
                reading: Reading::default(),
                resumed: tokio::sync::Notify::new(),
                replaying: tokio::sync::Mutex::new(()),
                bulk: tokio::sync::Notify::new(),
                bulk_requests: tokio::sync::Notify::new(),
                bulk_decisions: tokio::sync::Notify::new(),
                backfills: tokio::sync::Notify::new(),
                configuring: tokio::sync::Mutex::new(()),
                stopping: CancellationToken::new(),
                halted: CancellationToken::new(),
                runtime: tokio::runtime::Handle::current(),
                tasks,
                writing,
                loops: TaskTracker::new(),
                rescan: tokio::sync::Notify::new(),
                free: tokio::sync::Notify::new(),
                lost: OnceLock::new(),
                lost_signal: CancellationToken::new(),
                workspace,
            });
            let runs = Arc::downgrade(&core);
            core.writer.on_mail(move |mailed| {
                if let Some(core) = runs.upgrade() {
                    core.runs.mailed(mailed);
                }
            });
            crate::turns::listen(&core);
            crate::recovery::take_back(&core).await?;
            crate::recovery::spawn_loops(&core);
            Ok(Orchestrator { core })
        });
        tokio::select! {
            started = starting => started,
            never = renewing => match never {},
        }
    }

    /// Stops taking work, lets what has left come back for at most `shutdown_grace`, and flushes the writer.
    /// Runs that are not finished by then go on at the next start.
    pub async fn shutdown(&self) {
        self.core.stopping.cancel();
        self.core.tasks.close();
        let finished = tokio::time::timeout(self.core.settings.shutdown_grace, self.core.tasks.wait()).await;
        if finished.is_err() {
            tracing::warn!(
                runs = self.core.tasks.len(),
                "calls did not come back in time; their runs go on at the next start"
            );
        }
        self.core.halted.cancel();
        self.core.loops.close();
        self.core.loops.wait().await;
        // Behind everything that was queued: when this one is answered, all is on disk.
        let last = Heartbeat {
            id_high_water: self.core.new_id(self.core.clock.now()),
            due_before: self.core.clock.now(),
            free_limit: 0,
        };
        let flushed = async {
            let last = match self.core.writer.submit(Fact::Heartbeat(last)) {
                Ok(pending) => pending.await.map(drop),
                Err(_full) => Err(WriteError::Unavailable),
            };
            self.core.writer.close();
            self.core.writing.close();
            self.core.writing.wait().await;
            last
        };
        match tokio::time::timeout(FLUSH_LIMIT, flushed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("the last writes may be missing; runs go on from what is stored: {error}"),
            Err(_) => tracing::warn!(
                "the database did not take the last writes within {} s; runs go on from what is stored",
                FLUSH_LIMIT.as_secs()
            ),
        }
    }

    /// Waits until nobody holds the orchestrator any more, and with it its files. Only after [`Orchestrator::shutdown`].
    pub async fn gone(self) {
        let core = Arc::downgrade(&self.core);
        drop(self);
        while core.strong_count() > 0 {
            tokio::time::sleep(GONE_LOOK).await;
        }
    }

    /// Resolves when this node can no longer do its work, with the reason; the process should end then.
    pub fn stopped(&self) -> impl Future<Output = String> + Send + use<> {
        let core = Arc::clone(&self.core);
        async move {
            core.lost_signal.cancelled().await;
            core.lost.get().cloned().unwrap_or_default()
        }
    }

    /// Reads of everything stored.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.core.store
    }

    /// The configuration as it is in force now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.core.snapshot.load_full()
    }

    /// Wall-clock time by the clock of the whole process.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.core.clock.now()
    }

    /// Scheme and authority under which providers reach this server, without a trailing slash.
    #[must_use]
    pub fn public_url(&self) -> &str {
        &self.core.settings.public_url
    }

    /// The workspace that exists from the first start.
    #[must_use]
    pub fn default_workspace(&self) -> WorkspaceId {
        self.core.workspace
    }

    /// Whether the process can do its work now.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        if self.core.stopping.is_cancelled() {
            reasons.push("the server is stopping".to_owned());
        }
        match self.core.writer.health() {
            WriterHealth::Healthy => {}
            WriterHealth::Failing { since, reason } => reasons.push(format!(
                "the database cannot be written for {} s: {reason}",
                since.as_secs()
            )),
            WriterHealth::Fenced { why } => reasons.push(why.to_string()),
        }
        if let Some(since) = self.core.reading.failing(self.core.clock.monotonic_ms()) {
            reasons.push(format!(
                "what waits cannot be read from the database for {} s, so its runs stand still",
                since.as_secs()
            ));
        }
        if let Some(reason) = self.core.reloading.failing() {
            reasons.push(format!("the changed configuration cannot be loaded: {reason}"));
        }
        if self.core.runs.backlog_is_full() {
            reasons.push(format!(
                "{} accepted runs wait for their turn",
                self.core.settings.max_backlog_runs
            ));
        }
        let (queued, max_queued) = (self.core.queued.seen(), self.core.settings.max_queued_runs);
        let mut warnings = Vec::new();
        if self.core.queued.is_full() {
            reasons.push(format!(
                "{queued} accepted runs are queued, and {max_queued} may be: {QUEUED_WHERE}"
            ));
        } else if self.core.queued.is_half_full() {
            warnings.push(format!(
                "{queued} accepted runs are queued, of {max_queued} that may be: {QUEUED_WHERE}"
            ));
        }
        let skew_ms = self.core.clock.skew_ms();
        if skew_ms.unsigned_abs() > u64::try_from(CLOCK_SKEW_LIMIT.as_millis()).unwrap_or(u64::MAX) {
            warnings.push(skew_warning(skew_ms));
        }
        if !self.has_workers() {
            warnings.push(NO_WORKER.to_owned());
        }
        Readiness {
            ready: reasons.is_empty(),
            reasons,
            warnings,
        }
    }

    /// What a connection may send and how its provider answers, as this server counts it. `None`: there is no such
    /// connection that can be used.
    #[must_use]
    pub fn budget(&self, workspace: WorkspaceId, connection: &str) -> Option<BudgetFigures> {
        let snapshot = self.core.snapshot.load();
        let connection = snapshot.connection(workspace, connection)?;
        Some(self.core.performer.budgets().gate(connection).figures())
    }

    /// The next planned instants of a published workflow's schedule, at most `count`. None while it is paused, or when
    /// it has no schedule.
    #[must_use]
    pub fn next_runs(&self, workflow: &Workflow, count: usize) -> Vec<Timestamp> {
        crate::schedules::upcoming(&self.core, workflow, count)
    }

    /// The planned instant for which a workflow's schedule fired last. `None`: it has not fired with these times.
    #[must_use]
    pub fn fired_for(&self, workflow: WorkflowId) -> Option<Timestamp> {
        self.core.schedules.fired_for(workflow)
    }

    /// Whether a server is there that drives runs, as the last heartbeat found.
    #[must_use]
    pub fn has_workers(&self) -> bool {
        self.core.settings.roles.has(Role::Worker) || self.core.runs.has_other_workers()
    }

    /// What this server does.
    #[must_use]
    pub fn roles(&self) -> Roles {
        self.core.settings.roles
    }

    /// Who this process is among the nodes.
    #[must_use]
    pub fn node(&self) -> &NodeIdentity {
        &self.core.node
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.core.stopping.is_cancelled()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.core.settings
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.core.clock
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.core.runs
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.core.writer
    }
}

/// Keeps the lease while a start takes long, until the heartbeat begins.
async fn renew(writer: Writer, id_high_water: i64) -> Infallible {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    loop {
        ticks.tick().await;
        let beat = Heartbeat {
            id_high_water,
            due_before: Timestamp::from_unix_ms(0),
            free_limit: 0,
        };
        if let Ok(pending) = writer.submit(Fact::Heartbeat(beat))
            && let Err(error) = pending.await
        {
            tracing::debug!("the lease was not renewed during the start: {error}");
        }
    }
}

/// What to say of a clock that is further off than [`CLOCK_SKEW_LIMIT`]; positive: ahead.
#[must_use]
pub fn skew_warning(skew_ms: i64) -> String {
    let (seconds, direction) = (
        (skew_ms.unsigned_abs() + 500) / 1_000,
        if skew_ms > 0 { "ahead of" } else { "behind" },
    );
    format!("this machine's clock is {seconds} s {direction} the database's: let both follow a time server")
}
