//! What the process was told at start. Parsed and checked by the executable; every bound has its name and reason here.

use crate::retention::Retention;
use ipnet::IpNet;
use std::path::PathBuf;
use std::time::Duration;

/// One kind of work that a server can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves the admin API and its explorer.
    Api,
    /// Takes webhooks.
    Ingest,
    /// Drives runs.
    Worker,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 3] = [Role::Api, Role::Ingest, Role::Worker];

    /// Its name in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Api => "api",
            Role::Ingest => "ingest",
            Role::Worker => "worker",
        }
    }
}

/// What a server does. Health and metrics belong to every server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    api: bool,
    ingest: bool,
    worker: bool,
}

impl Roles {
    /// All of it.
    pub const ALL: Roles = Roles {
        api: true,
        ingest: true,
        worker: true,
    };

    /// These and no others.
    #[must_use]
    pub fn of(roles: &[Role]) -> Self {
        Roles {
            api: roles.contains(&Role::Api),
            ingest: roles.contains(&Role::Ingest),
            worker: roles.contains(&Role::Worker),
        }
    }

    /// Whether `role` is among them.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        match role {
            Role::Api => self.api,
            Role::Ingest => self.ingest,
            Role::Worker => self.worker,
        }
    }
}

impl std::fmt::Display for Roles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = Role::ALL
            .into_iter()
            .filter(|role| self.has(*role))
            .map(Role::name)
            .collect();
        f.write_str(&names.join(", "))
    }
}

/// Settings of the orchestrator. Public fields: any combination is valid.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What this server does. Anything but all of it needs PostgreSQL and other servers that do the rest.
    pub roles: Roles,
    /// Where the departures file lives. `None` (no data folder): an effect without a key whose answer was lost is always `unknown`.
    pub data_folder: Option<PathBuf>,
    /// Scheme and authority under which providers reach this server, without a trailing slash.
    /// Signatures that cover the URL are checked against it, never against the `Host` header.
    pub public_url: String,
    /// Whether somebody said so. Otherwise it is guessed from where the server listens, and no provider is told.
    pub public_url_is_set: bool,
    /// Networks whose `X-Forwarded-For` is believed. Empty: the peer address is the client address.
    pub trusted_proxies: Vec<IpNet>,
    /// Hosts and networks that may be called though they are private (`WEIR_EGRESS_ALLOW`).
    pub egress_allow: Vec<String>,
    /// Largest webhook body, bytes. Larger ones get 413 before they are read.
    ///
    /// Limit: a webhook | 413 | `refusals_say_what_is_wrong_and_what_to_do` | `weir_webhooks_refused_total`
    pub max_body_bytes: usize,
    /// Runs held in memory at once. More are left on disk and loaded as others finish, so a slow upstream never costs an acknowledgement.
    ///
    /// Limit: runs in memory | further runs wait on disk | `webhooks_wait_outside_when_the_backlog_is_full` | `weir_runs_in_memory`
    pub max_runs_in_memory: usize,
    /// Bytes of event bodies held in memory at once, for the same reason.
    ///
    /// Limit: bytes of events and outputs that runs in memory hold | further runs wait on disk | `runs_beyond_the_bytes_wait_on_disk`
    pub max_run_bytes_in_memory: usize,
    /// Accepted runs that wait on disk for their turn. Above it webhooks get 503 with `Retry-After`.
    ///
    /// Limit: runs that wait on disk for their turn | 503 with `Retry-After`, `BACKLOG_FULL` | `webhooks_wait_outside_when_the_backlog_is_full` | `weir_runs_backlog`
    pub max_backlog_runs: usize,
    /// Accepted runs that wait at gates: in lanes, for limits, for workflows that are paused. Above it webhooks get 503
    /// with `Retry-After`, so that a forgotten pause does not fill the disk.
    ///
    /// Limit: runs that wait at gates | 503 with `Retry-After`, `BACKLOG_FULL` | `webhooks_wait_outside_when_too_many_runs_are_queued` | `weir_runs_queued`
    pub max_queued_runs: usize,
    /// How long `shutdown` lets calls that have left come back before it parks the rest.
    pub shutdown_grace: Duration,
    /// How long what is over is kept.
    pub retention: Retention,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            roles: Roles::ALL,
            data_folder: None,
            public_url: "http://127.0.0.1:8080".to_owned(),
            public_url_is_set: false,
            trusted_proxies: Vec::new(),
            egress_allow: Vec::new(),
            max_body_bytes: 1024 * 1024,
            max_runs_in_memory: 2048,
            max_run_bytes_in_memory: 64 * 1024 * 1024,
            max_backlog_runs: 100_000,
            max_queued_runs: 1_000_000,
            shutdown_grace: Duration::from_secs(10),
            retention: Retention::default(),
        }
    }
}
