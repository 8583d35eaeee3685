//! The folder of an embedded server: database, master key, administrator's token, and where the server can be reached.
//!
//! Secrets in it are readable by their owner only. `weir.pid` and `weir.url` describe the process that runs now; they are
//! hints for people and for the commands beside it, never a lock: that is `server.lock`.

use crate::failure::Failure;
use crate::output;
use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of randomness in a generated administrator's token.
const TOKEN_BYTES: usize = 32;

/// How long a server waits for the one before it that still finishes what it was at.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks whether it has ended.
const PREDECESSOR_LOOK: Duration = Duration::from_millis(100);

/// One data folder. Cheap to make; touches nothing until asked.
#[derive(Debug, Clone)]
pub(crate) struct DataFolder {
    path: PathBuf,
}

/// The administrator's token of an embedded server, and whether this start made it.
#[derive(Debug)]
pub(crate) struct AdminToken {
    pub(crate) token: SecretString,
    pub(crate) made_now: bool,
}

impl DataFolder {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        DataFolder { path: path.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn master_key(&self) -> PathBuf {
        self.path.join("master.key")
    }

    pub(crate) fn admin_token(&self) -> PathBuf {
        self.path.join("admin.token")
    }

    pub(crate) fn pid(&self) -> PathBuf {
        self.path.join("weir.pid")
    }

    pub(crate) fn url(&self) -> PathBuf {
        self.path.join("weir.url")
    }

    /// Makes the folder, for its owner only. Fine when it is there already.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        create_private(&self.path)
    }

    /// Makes this process the only server of the folder, until it ends. Waits for one that is about to end.
    ///
    /// Before the process takes its name among the nodes: whoever comes second must not push the first one out.
    pub(crate) async fn occupy(&self) -> anyhow::Result<()> {
        let path = self.path.join("server.lock");
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("could not open {}", path.display()))?;
        let began = Instant::now();
        let mut told = false;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("could not lock {}", path.display()));
                }
                Err(fs::TryLockError::WouldBlock) if began.elapsed() < PREDECESSOR_PATIENCE => {
                    if !told {
                        told = true;
                        tracing::info!("waiting for {} to end", self.occupant());
                    }
                    tokio::time::sleep(PREDECESSOR_LOOK).await;
                }
                Err(fs::TryLockError::WouldBlock) => {
                    let failure = Failure::new(format!("{} does not end", self.occupant()))
                        .fix("stop it, or give this server a WEIR_DATA_FOLDER and a WEIR_NODE of its own");
                    return Err(failure.into());
                }
            }
        }
        // Held as long as the process lives, whatever becomes of its node meanwhile.
        Box::leak(Box::new(lock));
        Ok(())
    }

    /// Whoever runs on the folder, in words.
    fn occupant(&self) -> String {
        let pid = read_if_present(&self.pid()).ok().flatten();
        let process = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
        format!("the server{process} that runs on {}", self.path.display())
    }

    /// Takes back a folder that was made for nothing. One that holds more than the lock of its database stays and is
    /// named.
    pub(crate) fn give_up(&self) {
        let locks = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut locks = locks.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "lock"));
        let removed = locks
            .try_for_each(|lock| fs::remove_file(lock.path()))
            .and_then(|()| fs::remove_dir(&self.path));
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                output::remark(format!("the folder {} is left over: {error}", self.path.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Reads the administrator's token, or makes one.
    pub(crate) fn admin_token_load_or_create(&self) -> anyhow::Result<AdminToken> {
        if let Some(token) = self.admin_token_load()? {
            return Ok(AdminToken { token, made_now: false });
        }
        let token = SecretString::from(format!("weir_admin_{}", random_text(TOKEN_BYTES)?));
        write_private(&self.admin_token(), token.expose_secret())?;
        Ok(AdminToken { token, made_now: true })
    }

    /// The administrator's token, if this folder has one.
    pub(crate) fn admin_token_load(&self) -> anyhow::Result<Option<SecretString>> {
        let text = read_if_present(&self.admin_token())?;
        Ok(text.filter(|token| !token.is_empty()).map(SecretString::from))
    }

    /// The address of the server that runs, or ran last, on this folder.
    pub(crate) fn url_load(&self) -> anyhow::Result<Option<String>> {
        read_if_present(&self.url())
    }

    /// Says who runs on this folder and where it listens.
    pub(crate) fn announce(&self, url: &str) -> anyhow::Result<()> {
        write_whole(&self.pid(), &std::process::id().to_string())?;
        write_whole(&self.url(), url)
    }

    /// Takes back what [`DataFolder::announce`] said, after a clean stop.
    pub(crate) fn withdraw(&self) {
        if let Err(error) = fs::remove_file(self.pid()) {
            tracing::debug!(%error, "no pid file to remove");
        }
    }
}

/// Text of `bytes` random bytes in lower-case hex, from the operating system.
pub(crate) fn random_text(bytes: usize) -> anyhow::Result<String> {
    let mut buffer = vec![0_u8; bytes];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut buffer)
        .map_err(|error| anyhow::anyhow!("the operating system gave no random bytes: {error:?}"))?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What this process makes from now on is for its owner only: databases hold contents of events, and SQLite makes its files
/// as everybody does.
pub(crate) fn make_private_files() {
    #[cfg(unix)]
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Makes a folder and its parents; what it makes is for the owner only.
pub(crate) fn create_private(path: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder
        .create(path)
        .with_context(|| format!("could not make the folder {}", path.display()))
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    write_with(path, text, true)
}

/// Writes a file whole or not at all: readers never see half of it.
pub(crate) fn write_whole(path: &Path, text: &str) -> anyhow::Result<()> {
    write_with(path, text, false)
}

fn write_with(path: &Path, text: &str, private: bool) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        if private {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        let mut file = options.open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("could not write {}", path.display()))
}

/// The trimmed text of a file; `None` when there is none.
pub(crate) fn read_if_present(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
    }
}
