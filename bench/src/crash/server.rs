//! `weir serve` as a child process: started, killed without warning, started again on the same data.
//!
//! Only processes started here are ever killed, by their own handle.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long a start may take until the server says that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Time between two questions whether it is.
const READY_EVERY: Duration = Duration::from_millis(10);
pub(crate) const TOKEN: &str = "weir-crash-administrator-token-0001";
/// 32 bytes, base64. A key of a throw-away database.
const MASTER_KEY: &str = "d2Vpci1jcmFzaC13ZWlyLWNyYXNoLXdlaXItY3Jhc2g=";

/// What stays the same over restarts.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    pub weir: PathBuf,
    pub database_url: String,
    /// Holds the departures file; must survive the crash.
    pub folder: PathBuf,
    pub address: SocketAddr,
    pub connectors: Option<PathBuf>,
    /// Its name among the nodes.
    pub node: String,
    /// How far its clock is off, in seconds.
    pub clock_shift_s: i64,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Installation {
    /// An installation in `folder` that listens on a port which was free a moment ago.
    pub(crate) fn new(weir: &Path, database_url: String, folder: PathBuf) -> anyhow::Result<Self> {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self {
            weir: weir.to_owned(),
            database_url,
            folder,
            address: free,
            connectors: None,
            node: "crash".to_owned(),
            clock_shift_s: 0,
        })
    }

    /// Starts the server; it is not ready yet.
    pub(crate) fn start(&self) -> anyhow::Result<Server> {
        let mut command = self.command();
        command
            .arg("serve")
            .env("WEIR_DATABASE_URL", &self.database_url)
            .env("WEIR_LISTEN", self.address.to_string())
            .env("WEIR_DATA_FOLDER", &self.folder)
            .env("WEIR_NODE", &self.node)
            .env("WEIR_CLOCK_SHIFT_S", self.clock_shift_s.to_string())
            .env("WEIR_ADMIN_TOKEN", TOKEN)
            .env("WEIR_MASTER_KEY", MASTER_KEY)
            .env("WEIR_EGRESS_ALLOW", "127.0.0.0/8")
            .env("WEIR_LOG_FORMAT", "text")
            .stdin(Stdio::null())
            .stdout(self.log()?)
            .stderr(self.log()?)
            .kill_on_drop(true);
        if let Some(connectors) = &self.connectors {
            command.env("WEIR_CONNECTORS", connectors);
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.weir.display()))?;
        Ok(Server {
            child,
            address: self.address,
        })
    }

    /// Applies the documents in `file`.
    pub(crate) async fn apply(&self, file: &Path) -> anyhow::Result<()> {
        let output = self
            .command()
            .arg("apply")
            .arg("-f")
            .arg(file)
            .env("WEIR_URL", format!("http://{}", self.address))
            .env("WEIR_TOKEN", TOKEN)
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "weir apply -f {} ended with {}:\n{}{}",
            file.display(),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.join("weir.log")
    }

    fn log(&self) -> anyhow::Result<File> {
        let path = self.log_file();
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Without the settings that the caller's environment may hold.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.weir);
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("WEIR_") || name.starts_with("OTEL_"))
            {
                command.env_remove(name);
            }
        }
        command.current_dir(&self.folder);
        command
    }
}

impl Server {
    /// Waits until the server accepts webhooks.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let asking = async {
            while !matches!(get(self.address, "/readyz").await, Ok(200)) {
                if let Some(status) = self.child.try_wait()? {
                    bail!("weir ended with {status} instead of getting ready");
                }
                tokio::time::sleep(READY_EVERY).await;
            }
            Ok(())
        };
        tokio::time::timeout(READY_LIMIT, asking)
            .await
            .context("weir does not get ready")?
    }

    /// `kill -9`, and the certainty that it is gone.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.start_kill().context("cannot kill weir")?;
        self.child.wait().await?;
        Ok(())
    }

    /// How it ended, if it ended by itself.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Process id; `None` once it has ended.
    pub(crate) fn process_id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until somebody else has killed it.
    pub(crate) async fn gone(mut self) -> anyhow::Result<()> {
        self.child.wait().await?;
        Ok(())
    }
}

/// Status of a GET, without a client that would cost more than the question.
async fn get(address: SocketAddr, path: &str) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    String::from_utf8_lossy(&answer)
        .split(' ')
        .nth(1)
        .context("no status line")?
        .parse()
        .context("no status")
}

/// Runs a shell command of the caller, which controls PostgreSQL.
pub(crate) async fn shell(command: &str) -> anyhow::Result<()> {
    let output = Command::new("sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .output()
        .await
        .context("cannot run a shell")?;
    ensure!(
        output.status.success(),
        "`{command}` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
