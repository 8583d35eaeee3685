//! The file: one line that names the format, then one zstd stream of records.
//!
//! A record is a letter, a length (32 bits, little endian) and that many bytes: `M` the manifest (JSON, first), `T` a
//! table with its columns (JSON), `R` a row of the table before it, `E` the number of rows of each table (JSON), `H` the
//! SHA-256 of everything from `M` to `E`, which ends the stream. A row is its values in the order of the columns: a
//! byte for the type (0 null, 1 integer, 2 text, 3 bytes), then 8 bytes little endian, or a length and that many bytes.
//! A file that was cut off has no `H`, so it is never taken for a whole one.

use std::io::{BufRead, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use weir_workflow_engine::Timestamp;
use zstd::stream::{read::Decoder, write::Encoder};

use super::BackupSummary;

/// The version of the format; a change that older programs cannot read raises it.
const FORMAT: u32 = 1;
const NAME: &str = "weir-backup";
/// The longest first line that is looked for.
const MAX_FIRST_LINE: u64 = 64;
/// The longest record: above every limit on what is stored, and far below what a damaged length could claim.
const MAX_RECORD_BYTES: u32 = 512 << 20;
/// The default level of zstd: three times smaller than what is stored, as fast as a disk.
const LEVEL: i32 = 3;

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file could not be read.
    #[error("cannot read the archive")]
    Read(#[source] std::io::Error),
    /// It is another kind of file.
    #[error("this is no backup of Weir")]
    NotABackup,
    /// A newer program wrote it in another way.
    #[error("the backup has the format {found}, and this Weir reads {FORMAT}")]
    Format {
        /// What the file says.
        found: String,
    },
    /// It is not what was written.
    #[error("the backup is damaged: {reason}")]
    Damaged {
        /// What does not fit.
        reason: String,
    },
}

/// From where and when an archive is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program that made it.
    pub weir: String,
    /// Name of the newest migration of its schema.
    pub schema: String,
    /// `sqlite` or `postgres`.
    pub database: String,
    /// The instant of the snapshot, by the clock of the database.
    pub taken_at: Timestamp,
    /// Ids of the master keys that its secrets need. The keys themselves are never in it.
    pub key_ids: Vec<String>,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ColumnKind {
    Integer,
    Text,
    Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: ColumnKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

pub(super) struct ArchiveWriter<W: Write> {
    out: Encoder<'static, W>,
    hash: Sha256,
    manifest: Manifest,
    rows: Vec<(String, u64)>,
    row: Vec<u8>,
}

impl<W: Write> ArchiveWriter<W> {
    pub(super) fn new(mut out: W, manifest: Manifest) -> std::io::Result<Self> {
        writeln!(out, "{NAME} {FORMAT}")?;
        let mut encoder = Encoder::new(out, LEVEL)?;
        encoder.include_checksum(true)?;
        let mut writer = Self {
            out: encoder,
            hash: Sha256::new(),
            manifest,
            rows: Vec::new(),
            row: Vec::new(),
        };
        let manifest = serde_json::to_vec(&writer.manifest)?;
        writer.record(b'M', &manifest)?;
        Ok(writer)
    }

    pub(super) fn table(&mut self, table: &Table) -> std::io::Result<()> {
        self.rows.push((table.name.clone(), 0));
        self.record(b'T', &serde_json::to_vec(table)?)
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) -> std::io::Result<()> {
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        for cell in cells {
            encode(&mut row, &cell)?;
        }
        self.record(b'R', &row)?;
        self.row = row;
        if let Some((_, rows)) = self.rows.last_mut() {
            *rows += 1;
        }
        Ok(())
    }

    /// Ends the archive; the caller makes the file durable.
    pub(super) fn finish(mut self) -> std::io::Result<(W, BackupSummary)> {
        let rows = serde_json::to_vec(&self.rows)?;
        self.record(b'E', &rows)?;
        let hash = self.hash.clone().finalize();
        self.record(b'H', &hash)?;
        let mut out = self.out.finish()?;
        out.flush()?;
        Ok((
            out,
            BackupSummary {
                manifest: self.manifest,
                rows: self.rows,
            },
        ))
    }

    fn record(&mut self, kind: u8, bytes: &[u8]) -> std::io::Result<()> {
        let mut head = [kind, 0, 0, 0, 0];
        head[1..].copy_from_slice(&length(bytes)?);
        self.hash.update(head);
        self.hash.update(bytes);
        self.out.write_all(&head)?;
        self.out.write_all(bytes)
    }
}

fn length(bytes: &[u8]) -> std::io::Result<[u8; 4]> {
    match u32::try_from(bytes.len()) {
        Ok(length) if length <= MAX_RECORD_BYTES => Ok(length.to_le_bytes()),
        Ok(_) | Err(_) => Err(std::io::Error::other(format!(
            "a value of {} bytes is too large",
            bytes.len()
        ))),
    }
}

fn encode(row: &mut Vec<u8>, cell: &Cell) -> std::io::Result<()> {
    match cell {
        Cell::Null => row.push(0),
        Cell::Integer(value) => {
            row.push(1);
            row.extend(value.to_le_bytes());
        }
        Cell::Text(value) => {
            row.push(2);
            row.extend(length(value.as_bytes())?);
            row.extend(value.as_bytes());
        }
        Cell::Bytes(value) => {
            row.push(3);
            row.extend(length(value)?);
            row.extend(value);
        }
    }
    Ok(())
}

/// What follows the manifest.
#[derive(Debug)]
pub(super) enum Record {
    Table(Table),
    Row(Vec<Cell>),
}

pub(super) struct ArchiveReader<R: BufRead> {
    input: Decoder<'static, R>,
    hash: Sha256,
    pub(super) manifest: Manifest,
    columns: usize,
    rows: Vec<(String, u64)>,
}

fn damaged(reason: impl Into<String>) -> ArchiveError {
    ArchiveError::Damaged { reason: reason.into() }
}

impl<R: BufRead> ArchiveReader<R> {
    pub(super) fn open(mut input: R) -> Result<Self, ArchiveError> {
        let mut line = Vec::new();
        let mut start = Read::take(&mut input, MAX_FIRST_LINE);
        start.read_until(b'\n', &mut line).map_err(ArchiveError::Read)?;
        let line = String::from_utf8_lossy(&line);
        let found = match line.trim_end().split_once(' ') {
            Some((NAME, found)) => found.to_owned(),
            Some(_) | None => return Err(ArchiveError::NotABackup),
        };
        if found != FORMAT.to_string() {
            return Err(ArchiveError::Format { found });
        }
        let input = Decoder::with_buffer(input).map_err(ArchiveError::Read)?.single_frame();
        let nothing = Manifest {
            weir: String::new(),
            schema: String::new(),
            database: String::new(),
            taken_at: Timestamp::from_unix_ms(0),
            key_ids: Vec::new(),
        };
        let mut reader = Self {
            input,
            hash: Sha256::new(),
            manifest: nothing,
            columns: 0,
            rows: Vec::new(),
        };
        match reader.record()? {
            (b'M', bytes) => reader.manifest = json(&bytes)?,
            (kind, _) => return Err(damaged(format!("it begins with a record {:?}", char::from(kind)))),
        }
        Ok(reader)
    }

    /// The next record; `None` after the last, when numbers of rows and checksum were right.
    pub(super) fn next(&mut self) -> Result<Option<Record>, ArchiveError> {
        match self.record()? {
            (b'T', bytes) => {
                let table: Table = json(&bytes)?;
                self.columns = table.columns.len();
                self.rows.push((table.name.clone(), 0));
                Ok(Some(Record::Table(table)))
            }
            (b'R', bytes) => {
                let Some((_, rows)) = self.rows.last_mut() else {
                    return Err(damaged("a row belongs to no table"));
                };
                *rows += 1;
                decode(&bytes, self.columns).map(Record::Row).map(Some)
            }
            (b'E', bytes) => {
                let rows: Vec<(String, u64)> = json(&bytes)?;
                if rows != self.rows {
                    return Err(damaged("the numbers of rows do not fit"));
                }
                let expected = self.hash.clone().finalize();
                match self.record()? {
                    (b'H', found) if found == expected.as_slice() => {}
                    _ => return Err(damaged("the checksum does not fit")),
                }
                match self.input.read(&mut [0]) {
                    Ok(0) => Ok(None),
                    Ok(_) => Err(damaged("something follows its end")),
                    Err(error) => Err(damaged(error.to_string())),
                }
            }
            (kind, _) => Err(damaged(format!("a record {:?} is not known", char::from(kind)))),
        }
    }

    /// Rows by table, so far.
    pub(super) fn into_summary(self) -> BackupSummary {
        BackupSummary {
            manifest: self.manifest,
            rows: self.rows,
        }
    }

    fn record(&mut self) -> Result<(u8, Vec<u8>), ArchiveError> {
        let cut = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged("it is cut off"),
            _ => damaged(error.to_string()),
        };
        let mut head = [0; 5];
        self.input.read_exact(&mut head).map_err(cut)?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        if length > MAX_RECORD_BYTES {
            return Err(damaged(format!("a record claims {length} bytes")));
        }
        let mut bytes = Vec::new();
        let read = Read::take(&mut self.input, u64::from(length)).read_to_end(&mut bytes);
        if read.map_err(cut)? < usize::try_from(length).unwrap_or(usize::MAX) {
            return Err(damaged("it is cut off"));
        }
        self.hash.update(head);
        self.hash.update(&bytes);
        Ok((kind, bytes))
    }
}

fn json<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))
}

fn decode(mut bytes: &[u8], columns: usize) -> Result<Vec<Cell>, ArchiveError> {
    let misfit = || damaged("a row does not fit its table");
    let mut cells = Vec::with_capacity(columns);
    while let Some((kind, rest)) = bytes.split_first() {
        let (cell, rest) = match kind {
            0 => (Cell::Null, rest),
            1 => {
                let (value, rest) = rest.split_first_chunk::<8>().ok_or_else(misfit)?;
                (Cell::Integer(i64::from_le_bytes(*value)), rest)
            }
            2 | 3 => {
                let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(misfit)?;
                let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
                let (value, rest) = rest.split_at_checked(length).ok_or_else(misfit)?;
                let cell = if *kind == 3 {
                    Cell::Bytes(value.to_vec())
                } else {
                    Cell::Text(String::from_utf8(value.to_vec()).map_err(|_not_text| misfit())?)
                };
                (cell, rest)
            }
            _ => return Err(misfit()),
        };
        cells.push(cell);
        bytes = rest;
    }
    if cells.len() == columns {
        Ok(cells)
    } else {
        Err(misfit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let manifest = Manifest {
            weir: "0.1.0".to_owned(),
            schema: "m1".to_owned(),
            database: "sqlite".to_owned(),
            taken_at: Timestamp::from_unix_ms(5),
            key_ids: vec!["k1".to_owned()],
        };
        let mut writer = ArchiveWriter::new(Vec::new(), manifest).unwrap();
        let column = |name: &str, kind| Column {
            name: name.to_owned(),
            kind,
        };
        let columns = vec![column("id", ColumnKind::Integer), column("body", ColumnKind::Bytes)];
        writer
            .table(&Table {
                name: "event".to_owned(),
                columns,
            })
            .unwrap();
        writer
            .row([Cell::Integer(i64::MIN), Cell::Bytes(vec![0; 3000])])
            .unwrap();
        writer.row([Cell::Text("ü".to_owned()), Cell::Null]).unwrap();
        writer.finish().unwrap().0
    }

    fn read(bytes: &[u8]) -> Result<Vec<Vec<Cell>>, ArchiveError> {
        let mut reader = ArchiveReader::open(bytes)?;
        let mut rows = Vec::new();
        while let Some(record) = reader.next()? {
            if let Record::Row(row) = record {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    #[test]
    fn what_goes_in_comes_out() {
        let rows = read(&archive()).unwrap();
        let expected = [
            vec![Cell::Integer(i64::MIN), Cell::Bytes(vec![0; 3000])],
            vec![Cell::Text("ü".to_owned()), Cell::Null],
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let whole = archive();
        for length in 0..whole.len() {
            read(&whole[..length]).expect_err(&format!("cut to {length}"));
        }
        for position in 0..whole.len() {
            let mut changed = whole.clone();
            changed[position] ^= 0x10;
            // A header of zstd has bits without meaning; whatever is read must be what was written.
            if let Ok(rows) = read(&changed) {
                assert_eq!(rows, read(&whole).unwrap(), "byte {position} was changed");
            }
        }
    }

    #[test]
    fn other_files_and_formats_are_named() {
        assert!(matches!(read(b"SQLite format 3\0"), Err(ArchiveError::NotABackup)));
        assert!(matches!(read(b""), Err(ArchiveError::NotABackup)));
        assert!(matches!(read(b"weir-backup 2\nabc"), Err(ArchiveError::Format { found }) if found == "2"));
    }
}
