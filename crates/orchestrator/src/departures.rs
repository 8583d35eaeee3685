//! The flight recorder: which effect requests may have left this process.
//!
//! Right before the first byte of an effect request can reach the socket, one 32-byte record goes to a file with a single
//! `write`. There is no fsync: the page cache survives `kill -9`, and a power loss or reboot changes the boot id, after
//! which the file proves nothing. So after a crash on the same boot, an open intent **without** a record never left and
//! may be sent; everything else stays unknown. The file must never say "never left" of something that may have left:
//! whatever is missing, unreadable, from another boot or older than the file's start is not provable.
//!
//! Two generations bound the size. Each header says from which moment on its records are complete; rotating a generation
//! away moves that moment, never the meaning of a missing record.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use weir_workflow_engine::{EffectKey, Timestamp};

/// Size at which a generation is rotated: 131,000 records, 15 s of blind effects at full speed of one core, and 4 MiB of page cache.
pub const MAX_GENERATION_BYTES: u64 = 4 * 1024 * 1024;

const MAGIC: [u8; 8] = *b"WEIRDEP1";
const HEADER_BYTES: usize = 64;
/// Divides the page size, so that no record straddles two pages and a killed process leaves whole records only.
const RECORD_BYTES: usize = 32;
const CURRENT: &str = "departures.log";
const PREVIOUS: &str = "departures.old.log";
const LOCK: &str = "departures.lock";
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

const KIND_INTENDED: u32 = 1;
const KIND_DEPARTED: u32 = 2;
const KIND_REFUSED: u32 = 3;

/// Who else may send the effects of the same store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Senders {
    /// Nobody: the store is locked by this process, so a missing record is proof.
    ThisProcessOnly,
    /// Other nodes too. Each intent is recorded before it is committed, and proof needs that record:
    /// an intent this recorder never met may have been sent by another node.
    Several,
}

/// One effect, as the recorder knows it. Its attempts follow one another, so the latest record counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// First half of SHA-256 over the effect key's public form.
    key: [u8; 16],
    first_sent_at: Timestamp,
}

impl Departure {
    /// The effect `key` whose intent carries `first_sent_at`.
    #[must_use]
    pub fn new(key: &EffectKey, first_sent_at: Timestamp) -> Self {
        let digest = Sha256::digest(key.to_string());
        let mut half = [0; 16];
        for (to, from) in half.iter_mut().zip(digest) {
            *to = from;
        }
        Departure {
            key: half,
            first_sent_at,
        }
    }
}

/// What the recorder can say about an open intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// No byte of any attempt left, or the other side refused it before doing anything: sending is safe.
    NeverLeft,
    /// A record exists, or its absence proves nothing. The text completes "it cannot be proven that nothing was sent: …".
    Unproven(&'static str),
}

/// The recorder. One per process; the lock file keeps a second one out.
#[derive(Debug)]
pub struct Departures {
    folder: PathBuf,
    senders: Senders,
    boot: Option<[u8; 16]>,
    max_bytes: u64,
    state: Mutex<State>,
    /// Held for its lock, which the system releases however the process ends.
    _lock: File,
}

#[derive(Debug)]
struct State {
    file: File,
    header: Header,
    bytes: u64,
    /// Latest `first_sent_at` recorded in the current generation.
    latest_intent: Timestamp,
    /// Records of both generations, read when somebody asks and dropped at the next rotation.
    index: Option<Index>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    boot: [u8; 16],
    generation: u64,
    /// Departures of intents first sent after this moment, on this boot, are all in this generation or a later one.
    complete_after: Timestamp,
}

#[derive(Debug, Default)]
struct Index {
    /// Bytes of the current generation that `seen` covers.
    read_bytes: u64,
    complete_after: Timestamp,
    seen: HashMap<[u8; 16], Seen>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// `first_sent_at` of the latest intent that was about to be committed here.
    intended_at: Option<Timestamp>,
    departed: bool,
}

impl Departures {
    /// Opens the recorder in `folder`, which must exist, continuing the files of this boot.
    ///
    /// # Errors
    /// The files cannot be locked, read or written. The caller must then not send effects without keys at all:
    /// a process that sends without recording would make the next one believe that it never sent.
    pub fn open(folder: &Path, senders: Senders, now: Timestamp) -> io::Result<Self> {
        Self::open_on_boot(folder, senders, now, boot_id(), MAX_GENERATION_BYTES)
    }

    pub(crate) fn open_on_boot(
        folder: &Path,
        senders: Senders,
        now: Timestamp,
        boot: Option<[u8; 16]>,
        max_bytes: u64,
    ) -> io::Result<Self> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another process records departures in this folder",
            ),
            fs::TryLockError::Error(error) => error,
        })?;
        let found = boot.and_then(|boot| {
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .open(folder.join(CURRENT))
                .ok()?;
            let (header, bytes, latest) = survey(&file, boot)?;
            Some(State {
                file,
                header,
                bytes,
                latest_intent: latest.max(header.complete_after),
                index: None,
            })
        });
        let state = match found {
            Some(state) => state,
            None => {
                // A crash between the two steps of a rotation leaves only the previous generation: it is continued.
                let before = boot.and_then(|boot| {
                    if fs::exists(folder.join(CURRENT)).unwrap_or(true) {
                        return None;
                    }
                    survey(&File::open(folder.join(PREVIOUS)).ok()?, boot)
                });
                let header = Header {
                    boot: boot.unwrap_or_default(),
                    generation: before.map_or(1, |(header, ..)| header.generation + 1),
                    complete_after: before.map_or(now, |(_, _, latest)| latest.max(now)),
                };
                start_generation(&folder.join(CURRENT), header)?
            }
        };
        Ok(Departures {
            folder: folder.to_owned(),
            senders,
            boot,
            max_bytes,
            state: Mutex::new(state),
            _lock: lock,
        })
    }

    /// Notes an intent that this process is about to commit. Free when it is the only sender.
    ///
    /// Before the commit, not after it: an intent that is on disk without this note could be another node's.
    ///
    /// # Errors
    /// The record could not be written; proof after a crash is then impossible, sending is still allowed.
    pub fn intended(&self, departure: &Departure, now: Timestamp) -> io::Result<()> {
        match self.senders {
            Senders::ThisProcessOnly => Ok(()),
            Senders::Several => self.append(KIND_INTENDED, departure, now),
        }
    }

    /// Notes that the first byte is about to leave. Costs one `write` into the page cache.
    ///
    /// # Errors
    /// The record could not be written; the request must then not be sent.
    pub fn departed(&self, departure: &Departure, now: Timestamp) -> io::Result<()> {
        self.append(KIND_DEPARTED, departure, now)
    }

    /// Notes that a departed request was refused before anything was done, which makes the next attempt provable again.
    ///
    /// # Errors
    /// The record could not be written; the effect then stays unprovable after a crash.
    pub fn refused(&self, departure: &Departure, now: Timestamp) -> io::Result<()> {
        self.append(KIND_REFUSED, departure, now)
    }

    /// What can be said about an open intent after its process is gone.
    /// Reads both files once, and later only what was added since.
    #[must_use]
    pub fn proof(&self, departure: &Departure) -> Proof {
        if self.boot.is_none() {
            return Proof::Unproven("this system does not tell one boot from the next");
        }
        let mut state = self.lock();
        let Ok(index) = self.index(&mut state) else {
            return Proof::Unproven("the record of departures cannot be read");
        };
        let seen = index.seen.get(&departure.key).copied().unwrap_or_default();
        if seen.departed {
            return Proof::Unproven("the request was about to leave when the process ended");
        }
        if departure.first_sent_at <= index.complete_after {
            return Proof::Unproven("the record of departures begins after this attempt");
        }
        // An intent with the same key and another time was decided by another node.
        if self.senders == Senders::Several && seen.intended_at != Some(departure.first_sent_at) {
            return Proof::Unproven("another node may have sent it");
        }
        Proof::NeverLeft
    }

    fn append(&self, kind: u32, departure: &Departure, now: Timestamp) -> io::Result<()> {
        if self.boot.is_none() {
            return Ok(());
        }
        let mut state = self.lock();
        if state.bytes + RECORD_BYTES as u64 > self.max_bytes {
            self.rotate(&mut state, now)?;
        }
        let written = state.file.write(&encode_record(kind, departure))?;
        if written != RECORD_BYTES {
            // Half a record (full disk) would shift all that follow.
            let end = state.bytes;
            state.file.set_len(end)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.bytes += RECORD_BYTES as u64;
        state.latest_intent = state.latest_intent.max(departure.first_sent_at);
        Ok(())
    }

    fn rotate(&self, state: &mut State, now: Timestamp) -> io::Result<()> {
        let header = Header {
            boot: state.header.boot,
            generation: state.header.generation + 1,
            // Later than every recorded intent even if the wall clock was set back meanwhile.
            complete_after: state.latest_intent.max(now),
        };
        fs::rename(self.folder.join(CURRENT), self.folder.join(PREVIOUS))?;
        *state = start_generation(&self.folder.join(CURRENT), header)?;
        Ok(())
    }

    fn index<'s>(&self, state: &'s mut State) -> io::Result<&'s Index> {
        if state.index.is_none() {
            let mut index = Index {
                read_bytes: HEADER_BYTES as u64,
                complete_after: state.header.complete_after,
                seen: HashMap::new(),
            };
            if let Some(previous) = self.previous_generation(state.header)? {
                index.complete_after = previous.0.complete_after;
                index.add(&previous.1);
            }
            state.index = Some(index);
        }
        let end = state.bytes;
        let index = state.index.get_or_insert_default();
        if index.read_bytes < end {
            let mut file = File::open(self.folder.join(CURRENT))?;
            file.seek(SeekFrom::Start(index.read_bytes))?;
            let mut added = Vec::new();
            file.take(end - index.read_bytes).read_to_end(&mut added)?;
            index.add(&added);
            index.read_bytes = end;
        }
        Ok(index)
    }

    /// Header and records of the generation before `current`, when it joins on without a gap.
    fn previous_generation(&self, current: Header) -> io::Result<Option<(Header, Vec<u8>)>> {
        let mut file = match File::open(self.folder.join(PREVIOUS)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some((header, ..)) = survey(&file, current.boot) else {
            return Ok(None);
        };
        if header.generation + 1 != current.generation {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
        let mut records = Vec::new();
        file.read_to_end(&mut records)?;
        Ok(Some((header, records)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves at worst a missing count; the file itself stays whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn add(&mut self, records: &[u8]) {
        for record in records.chunks_exact(RECORD_BYTES) {
            let (kind, departure) = decode_record(record);
            let seen = self.seen.entry(departure.key).or_default();
            match kind {
                KIND_INTENDED => seen.intended_at = Some(departure.first_sent_at),
                KIND_REFUSED => seen.departed = false,
                // Also a kind this version does not know: it must not read as "never left".
                _ => seen.departed = true,
            }
        }
    }
}

/// Reads a whole generation: header, length and the latest intent. `None` when it proves nothing on this boot.
fn survey(mut file: &File, boot: [u8; 16]) -> Option<(Header, u64, Timestamp)> {
    let mut content = Vec::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_end(&mut content).ok()?;
    let (head, records) = content.split_at_checked(HEADER_BYTES)?;
    let header = Header::decode(head)?;
    if header.boot != boot || records.len() % RECORD_BYTES != 0 {
        return None;
    }
    let latest = records
        .chunks_exact(RECORD_BYTES)
        .map(|record| decode_record(record).1.first_sent_at)
        .max()
        .unwrap_or(header.complete_after);
    Some((header, content.len() as u64, latest))
}

fn start_generation(path: &Path, header: Header) -> io::Result<State> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    file.write_all(&header.encode())?;
    // From here on in append mode: truncation and append exclude each other when a file is opened.
    let file = OpenOptions::new().append(true).open(path)?;
    Ok(State {
        file,
        header,
        bytes: HEADER_BYTES as u64,
        latest_intent: header.complete_after,
        index: None,
    })
}

impl Header {
    fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let fields = MAGIC
            .into_iter()
            .chain(self.boot)
            .chain(self.generation.to_le_bytes())
            .chain(self.complete_after.as_unix_ms().to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        if take::<8>(&mut rest)? != MAGIC {
            return None;
        }
        Some(Header {
            boot: take(&mut rest)?,
            generation: u64::from_le_bytes(take(&mut rest)?),
            complete_after: Timestamp::from_unix_ms(i64::from_le_bytes(take(&mut rest)?)),
        })
    }
}

fn encode_record(kind: u32, departure: &Departure) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    let fields = departure
        .key
        .into_iter()
        .chain(kind.to_le_bytes())
        .chain([0; 4])
        .chain(departure.first_sent_at.as_unix_ms().to_le_bytes());
    for (to, from) in bytes.iter_mut().zip(fields) {
        *to = from;
    }
    bytes
}

fn decode_record(record: &[u8]) -> (u32, Departure) {
    let mut rest = record;
    let mut fields = || {
        let key = take(&mut rest)?;
        let kind = u32::from_le_bytes(take(&mut rest)?);
        let _reserved: [u8; 4] = take(&mut rest)?;
        let first_sent_at = Timestamp::from_unix_ms(i64::from_le_bytes(take(&mut rest)?));
        Some((kind, Departure { key, first_sent_at }))
    };
    fields().expect("records are cut into pieces of RECORD_BYTES")
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, others) = rest.split_first_chunk::<N>()?;
    *rest = others;
    Some(*first)
}

/// The id that the kernel drew at boot; `None` where there is none (other systems than Linux).
fn boot_id() -> Option<[u8; 16]> {
    let text = fs::read_to_string(BOOT_ID_FILE).ok()?;
    let digits: String = text.trim().chars().filter(|&c| c != '-').collect();
    let mut id = [0; 16];
    hex::decode_to_slice(digits, &mut id).ok()?;
    Some(id)
}

#[cfg(test)]
mod tests;
