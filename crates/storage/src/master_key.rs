//! The master key: the one secret that opens the others.
//!
//! It comes from the settings, or on the embedded default from a file made at the first start. The file is durable
//! (its bytes and its name) before the first row is sealed with it, and no key is ever invented while sealed rows
//! exist: a lost key must be an error at start, not a database that nobody can read later.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Generate, Key};
use secrecy::{ExposeSecret, SecretBox as Secret};
use sha2::{Digest, Sha256};

/// Length of the key.
const KEY_BYTES: usize = 32;
/// A key file that is longer than this is something else.
const MAX_FILE_BYTES: u64 = 4096;

/// 256 random bits with a name, so that a sealed row says which key it wants.
#[derive(Clone)]
pub struct MasterKey {
    id: String,
    bytes: Arc<Secret<[u8; KEY_BYTES]>>,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "MasterKey({}, [redacted])", self.id)
    }
}

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The text is not 32 bytes in base 64.
    #[error("the master key must be 32 bytes in base64")]
    Malformed,
    /// The file could not be read or made.
    #[error("cannot use the master key file {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("the master key file {path} does not hold 32 bytes in base64")]
    MalformedFile {
        /// Which file.
        path: PathBuf,
    },
    /// The file is gone, and the database holds secrets that only its key opens.
    #[error("the master key file {path} is missing, and the database holds secrets that were sealed with it")]
    Lost {
        /// Which file.
        path: PathBuf,
    },
}

impl MasterKey {
    /// The key with these bytes. Its id is a hash of them.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"weir master key id");
        hash.update(bytes);
        let id = hex::encode(&hash.finalize()[..8]);
        Self {
            id,
            bytes: Arc::new(Secret::new(Box::new(bytes))),
        }
    }

    /// A new random key.
    pub fn generate() -> Self {
        Self::new(Key::<XChaCha20Poly1305>::generate().into())
    }

    /// Reads the form of the settings: 32 bytes in base 64.
    ///
    /// # Errors
    /// [`MasterKeyError::Malformed`].
    pub fn from_base64(text: &str) -> Result<Self, MasterKeyError> {
        let bytes = STANDARD
            .decode(text.trim())
            .ok()
            .and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
        bytes.map(Self::new).ok_or(MasterKeyError::Malformed)
    }

    /// Reads the key from a file, or makes the file if nothing depends on it yet.
    ///
    /// `sealed_rows_exist` is [`WriterSeed::sealed_rows_exist`](crate::WriterSeed::sealed_rows_exist). When this
    /// returns, the file and its name are on disk.
    ///
    /// # Errors
    /// [`MasterKeyError::Lost`] when the file is missing and secrets exist, the other variants when the file cannot
    /// be used.
    pub fn load_or_create(path: &Path, sealed_rows_exist: bool) -> Result<Self, MasterKeyError> {
        let file_error = |source| MasterKeyError::File {
            path: path.to_owned(),
            source,
        };
        match File::open(path) {
            Ok(file) => {
                let mut text = String::new();
                file.take(MAX_FILE_BYTES)
                    .read_to_string(&mut text)
                    .map_err(file_error)?;
                Self::from_base64(&text).map_err(|_malformed| MasterKeyError::MalformedFile { path: path.to_owned() })
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(error)),
            Err(_) if sealed_rows_exist => Err(MasterKeyError::Lost { path: path.to_owned() }),
            Err(_) => {
                let key = Self::generate();
                key.create_file(path).map_err(file_error)?;
                Ok(key)
            }
        }
    }

    /// The key's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        self.bytes.expose_secret()
    }

    /// A file written beside and moved into place is either whole or not there.
    fn create_file(&self, path: &Path) -> io::Result<()> {
        let folder = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(folder)?;
        let beside = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&beside)?;
        writeln!(file, "{}", STANDARD.encode(self.bytes()))?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_made_once_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys").join("master.key");
        let made = MasterKey::load_or_create(&path, false).unwrap();
        let read = MasterKey::load_or_create(&path, true).unwrap();
        assert_eq!(made.bytes(), read.bytes());
        assert_eq!(made.id(), read.id());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }

        std::fs::write(&path, "not a key").unwrap();
        assert!(matches!(
            MasterKey::load_or_create(&path, false),
            Err(MasterKeyError::MalformedFile { .. })
        ));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            MasterKey::load_or_create(&path, true),
            Err(MasterKeyError::Lost { .. })
        ));
        assert!(!path.exists());
    }

    #[test]
    fn a_key_never_prints() {
        let key = MasterKey::new([7; 32]);
        assert_eq!(format!("{key:?}"), format!("MasterKey({}, [redacted])", key.id()));
        assert_eq!(key.id().len(), 16);
    }
}
