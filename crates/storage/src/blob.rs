//! How bodies are stored: raw when small, compressed from 512 bytes on, in a table of their own above 64 KiB.

use std::cell::RefCell;

use crate::error::ReadError;

/// Below this, compressing costs more than it saves.
const COMPRESS_FROM_BYTES: usize = 512;
/// Stored values above this live in `payload`, so that no list ever walks over their pages.
const APART_ABOVE_BYTES: usize = 64 << 10;
/// Level 1: the fastest, and within a few percent of the others on bodies of a kilobyte.
const LEVEL: i32 = 1;
/// What a stored value may grow to when it is read: above every limit on what comes in.
const MAX_RAW_BYTES: usize = 256 << 20;

/// The bytes are stored as they are.
const RAW: i16 = 0;
/// The bytes are a zstd frame.
const ZSTD: i16 = 1;
/// The bytes stand in `payload`, whose own codec counts.
pub(crate) const APART: i16 = 2;

/// A value in its stored form.
#[derive(Debug)]
pub(crate) struct Blob {
    /// Codec of `bytes`.
    pub(crate) codec: i16,
    pub(crate) bytes: Vec<u8>,
}

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

impl Blob {
    pub(crate) fn encode(raw: &[u8]) -> Self {
        if raw.len() >= COMPRESS_FROM_BYTES
            && let Some(bytes) = compress(raw)
            && bytes.len() < raw.len()
        {
            return Self { codec: ZSTD, bytes };
        }
        Self {
            codec: RAW,
            bytes: raw.to_vec(),
        }
    }

    pub(crate) fn is_apart(&self) -> bool {
        self.bytes.len() > APART_ABOVE_BYTES
    }

    /// What the row itself holds: codec and body.
    pub(crate) fn inline(&self) -> (i16, Option<&[u8]>) {
        if self.is_apart() {
            (APART, None)
        } else {
            (self.codec, Some(&self.bytes))
        }
    }
}

fn compress(raw: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            *compressor = zstd::bulk::Compressor::new(LEVEL).ok();
        }
        compressor.as_mut()?.compress(raw).ok()
    })
}

/// The raw bytes of a stored value; `row` names it in errors.
pub(crate) fn decode(codec: i16, bytes: Vec<u8>, row: impl FnOnce() -> String) -> Result<Vec<u8>, ReadError> {
    match codec {
        RAW => Ok(bytes),
        ZSTD => {
            let size = zstd::zstd_safe::get_frame_content_size(&bytes).ok().flatten();
            let capacity = size
                .and_then(|size| usize::try_from(size).ok())
                .unwrap_or(MAX_RAW_BYTES)
                .min(MAX_RAW_BYTES);
            zstd::bulk::decompress(&bytes, capacity).map_err(|error| ReadError::Corrupt {
                row: row(),
                reason: error.to_string(),
            })
        }
        other => Err(ReadError::Corrupt {
            row: row(),
            reason: format!("codec {other} is not known"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_comes_back() {
        for size in [0, 1, 511, 512, 5000, 3 << 20] {
            let text: Vec<u8> = (0..size).map(|n: usize| b"abcdefgh"[n * n % 7]).collect();
            let blob = Blob::encode(&text);
            assert_eq!(blob.codec == ZSTD, size >= 512, "{size}");
            assert_eq!(decode(blob.codec, blob.bytes, String::new).unwrap(), text);
        }
    }

    #[test]
    fn what_does_not_shrink_stays_raw() {
        let noise: Vec<u8> = (0..2000_u32)
            .map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap())
            .collect();
        let blob = Blob::encode(&noise);
        assert!(blob.bytes.len() <= noise.len());
        assert_eq!(decode(blob.codec, blob.bytes, String::new).unwrap(), noise);
    }

    #[test]
    fn a_damaged_value_names_its_row() {
        let error = decode(ZSTD, vec![1, 2, 3], || "event 7".to_owned()).unwrap_err();
        assert!(error.to_string().contains("event 7"), "{error}");
        assert!(
            decode(9, vec![], || "event 7".to_owned())
                .unwrap_err()
                .to_string()
                .contains("codec 9")
        );
    }
}
