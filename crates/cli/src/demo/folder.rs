//! The demo's folder: the server's data, the flows as files to read and change, the simulated providers' papers.

use crate::data_folder::{self, DataFolder};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The documents as they are shipped: file name and text.
const DOCUMENTS: [(&str, &str); 3] = [
    ("connections.yaml", include_str!("../../demo/connections.yaml")),
    ("payment-to-crm.yaml", include_str!("../../demo/payment-to-crm.yaml")),
    ("deal-to-invoice.yaml", include_str!("../../demo/deal-to-invoice.yaml")),
];
/// The files of the two flows, in the order in which they are shown.
pub(crate) const FLOW_FILES: [&str; 2] = ["payment-to-crm.yaml", "deal-to-invoice.yaml"];
/// Secrets that the demo makes for itself: the keys its simulated providers ask for, and those they sign with.
const SECRETS: [&str; 5] = [
    "stripe-key",
    "hubspot-token",
    "slack-token",
    "stripe-webhook-secret",
    "hubspot-app-secret",
];
/// Most events a second; numbers of events are spaced so that a restart never gives one out twice.
pub(crate) const RATE_MAX: f64 = 1_000.0;
const NUMBERS_PER_SECOND: u64 = 1_000;

/// The demo's folder.
#[derive(Debug, Clone)]
pub(crate) struct DemoFolder {
    pub(crate) data: DataFolder,
}

/// What stays the same over all starts of one demo folder.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Seed of the simulated providers: the same seed knows the same payments.
    pub(crate) seed: u32,
    /// When the folder was made, seconds since the Unix epoch.
    pub(crate) made_at_unix_s: u64,
}

/// The running stream of deals, and the rate of payments it goes with.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Stream {
    /// Number of the stream at the simulated providers.
    pub(crate) deals: u64,
    /// Payments per second.
    pub(crate) rate_per_s: f64,
}

impl DemoFolder {
    pub(crate) fn new(path: &Path) -> Self {
        DemoFolder {
            data: DataFolder::new(path),
        }
    }

    fn path(&self) -> &Path {
        self.data.path()
    }

    /// The folder of the documents.
    pub(crate) fn flows(&self) -> PathBuf {
        self.path().join("flows")
    }

    /// The server's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.path().join("weir.log")
    }

    /// Output of the simulated providers' process.
    pub(crate) fn simulator_log(&self) -> PathBuf {
        self.path().join("simulator.log")
    }

    /// Where the simulated providers say that they run. Without it they stop.
    pub(crate) fn simulator_papers(&self) -> PathBuf {
        self.path().join("simulator.json")
    }

    /// The last state of the providers' books, kept when they stop.
    pub(crate) fn books(&self) -> PathBuf {
        self.path().join("ledger.json")
    }

    fn local(&self, name: &str) -> PathBuf {
        self.flows().join("local").join(name)
    }

    /// Makes folder, secrets and documents; what is there already stays, changed documents too.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        self.data.create()?;
        data_folder::create_private(&self.flows().join("local"))?;
        for name in SECRETS {
            let path = self.local(name);
            if data_folder::read_if_present(&path)?.is_none() {
                let prefix = if name == "stripe-webhook-secret" { "whsec_" } else { "" };
                data_folder::write_private(&path, &format!("{prefix}{}", data_folder::random_text(24)?))?;
            }
        }
        for (name, text) in DOCUMENTS {
            let path = self.flows().join(name);
            if !path.exists() {
                std::fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// One of the demo's own secrets.
    pub(crate) fn secret(&self, name: &str) -> anyhow::Result<String> {
        let path = self.local(name);
        data_folder::read_if_present(&path)?
            .with_context(|| format!("there is no {}; has `weir demo` been started here?", path.display()))
    }

    /// Writes where a simulated provider can be reached, for the documents to refer to.
    pub(crate) fn address_write(&self, provider: &str, url: &str) -> anyhow::Result<()> {
        data_folder::write_whole(&self.local(&format!("{provider}-address")), url)
    }

    /// Where the running stream of deals is noted; it means nothing to providers started later.
    pub(crate) fn stream_papers(&self) -> PathBuf {
        self.path().join("stream.json")
    }

    /// The stream of deals that was started last.
    pub(crate) fn stream(&self) -> anyhow::Result<Option<Stream>> {
        let path = self.stream_papers();
        let Some(text) = data_folder::read_if_present(&path)? else {
            return Ok(None);
        };
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("could not read {}", path.display()))
    }

    /// Remembers the stream of deals.
    pub(crate) fn stream_write(&self, stream: &Stream) -> anyhow::Result<()> {
        data_folder::write_whole(&self.stream_papers(), &serde_json::to_string(stream)?)
    }

    /// What stays the same over all starts; made at the first.
    pub(crate) fn identity(&self) -> anyhow::Result<Identity> {
        let path = self.path().join("demo.json");
        if let Some(text) = data_folder::read_if_present(&path)? {
            return serde_json::from_str(&text).with_context(|| format!("could not read {}", path.display()));
        }
        let seed = u32::from_str_radix(&data_folder::random_text(4)?, 16).context("random text is hexadecimal")?;
        let identity = Identity {
            seed,
            made_at_unix_s: now_unix_s(),
        };
        data_folder::write_whole(&path, &serde_json::to_string(&identity)?)?;
        Ok(identity)
    }
}

impl Identity {
    /// A number for the next occurrence that no earlier start of this folder has used.
    pub(crate) fn next_number(self) -> u64 {
        now_unix_s().saturating_sub(self.made_at_unix_s) * NUMBERS_PER_SECOND + 1
    }
}

fn now_unix_s() -> u64 {
    UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}
