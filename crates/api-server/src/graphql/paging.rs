//! Keyset paging: cursors, page sizes, and the shape of a page.
//!
//! A cursor is the last id of a page and a fingerprint of the list it came from. It opens nothing by itself: every page is
//! read inside the caller's workspace.

use super::errors::{ApiError, ApiResult};
use super::types::approval::Approval;
use super::types::audit::AuditEntry;
use super::types::bulk::BulkOperation;
use super::types::event::Event;
use super::types::lane::HeldLane;
use super::types::outgoing::OutgoingEvent;
use super::types::refused_request::RefusedRequest;
use super::types::run::Run;
use crate::problem::Code;
use async_graphql::{OutputType, SimpleObject};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Page size when `first` is left out.
pub(crate) const DEFAULT_PAGE: u32 = 25;
/// Largest page.
///
/// Limit: rows of a page | `BAD_REQUEST` | `pages_stop_at_their_bound`
pub(crate) const MAX_PAGE: u32 = 100;
const FINGERPRINT_BYTES: usize = 8;

/// Where a page ends, and whether there is more.
#[derive(Debug, Clone, SimpleObject)]
pub(crate) struct PageInfo {
    /// Whether more may follow. A page can be short, even empty, and still have a next one.
    has_next_page: bool,
    /// Pass it as `after` to get the next page of the same list with the same filter. Null when there is none.
    end_cursor: Option<String>,
}

/// One page of a list, newest first.
#[derive(Debug, SimpleObject)]
#[graphql(concrete(name = "RunConnection", params(Run)))]
#[graphql(concrete(name = "EventConnection", params(Event)))]
#[graphql(concrete(name = "BulkOperationConnection", params(BulkOperation)))]
#[graphql(concrete(name = "RefusedRequestConnection", params(RefusedRequest)))]
#[graphql(concrete(name = "ApprovalConnection", params(Approval)))]
#[graphql(concrete(name = "HeldLaneConnection", params(HeldLane)))]
#[graphql(concrete(name = "OutgoingEventConnection", params(OutgoingEvent)))]
#[graphql(concrete(name = "AuditEntryConnection", params(AuditEntry)))]
pub(crate) struct Page<T: OutputType> {
    /// The things on this page.
    nodes: Vec<T>,
    /// Where the page ends.
    page_info: PageInfo,
}

/// The list being paged: its name and everything that selects its rows.
pub(crate) struct Listing([u8; FINGERPRINT_BYTES]);

impl Listing {
    /// `filter` must be the same text for the same filter, and another for another.
    pub(crate) fn new(list: &str, filter: &str) -> Self {
        let digest = Sha256::digest(format!("{list}\n{filter}").as_bytes());
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        fingerprint.copy_from_slice(&digest[..FINGERPRINT_BYTES]);
        Listing(fingerprint)
    }

    /// The page size that `first` asks for.
    pub(crate) fn limit(first: Option<i32>) -> ApiResult<u32> {
        match first.map(u32::try_from) {
            None => Ok(DEFAULT_PAGE),
            Some(Ok(first)) if (1..=MAX_PAGE).contains(&first) => Ok(first),
            Some(_) => Err(ApiError::new(
                Code::BadRequest,
                format!("first must be between 1 and {MAX_PAGE}"),
            )),
        }
    }

    /// The raw id after which the page starts.
    pub(crate) fn after(&self, cursor: Option<&str>) -> ApiResult<Option<i64>> {
        let Some(cursor) = cursor else { return Ok(None) };
        let refused = || {
            ApiError::new(
                Code::InvalidCursor,
                "after is not a cursor of this list with this filter",
            )
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_error| refused())?;
        let (id, fingerprint) = bytes.split_first_chunk::<8>().ok_or_else(refused)?;
        if *fingerprint != self.0 {
            return Err(refused());
        }
        Ok(Some(i64::from_be_bytes(*id)))
    }

    /// Makes the page from the store's.
    pub(crate) fn page<R, I, T: OutputType>(
        &self,
        stored: weir_storage::Page<R, I>,
        raw: impl FnOnce(I) -> i64,
        node: impl FnMut(R) -> T,
    ) -> Page<T> {
        let end_cursor = stored.next.map(|next| self.cursor(raw(next)));
        let page_info = PageInfo {
            has_next_page: end_cursor.is_some(),
            end_cursor,
        };
        Page {
            nodes: stored.rows.into_iter().map(node).collect(),
            page_info,
        }
    }

    fn cursor(&self, id: i64) -> String {
        URL_SAFE_NO_PAD.encode([&id.to_be_bytes()[..], &self.0].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_belong_to_one_list_and_filter() {
        let runs = Listing::new("runs", "status=FAILED");
        let cursor = runs.cursor(-7);
        assert_eq!(runs.after(Some(&cursor)).unwrap(), Some(-7));
        assert_eq!(runs.after(None).unwrap(), None);
        for other in [Listing::new("runs", ""), Listing::new("events", "status=FAILED")] {
            assert!(other.after(Some(&cursor)).is_err());
        }
        for broken in ["", "x", "!!", "AAAA", cursor.get(1..).unwrap()] {
            assert!(runs.after(Some(broken)).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn page_sizes_are_bounded() {
        assert_eq!(Listing::limit(None).unwrap(), 25);
        assert_eq!(Listing::limit(Some(100)).unwrap(), 100);
        for wrong in [0, -1, 101, i32::MAX, i32::MIN] {
            assert!(Listing::limit(Some(wrong)).is_err(), "{wrong}");
        }
        let list = Listing::new("runs", "");
        let page = |next| {
            list.page(
                weir_storage::Page { rows: vec![9, 8], next },
                |id: i64| id,
                |row: i64| row.to_string(),
            )
        };
        let full = page(Some(8));
        assert!(full.page_info.has_next_page && full.nodes == ["9", "8"]);
        assert_eq!(list.after(full.page_info.end_cursor.as_deref()).unwrap(), Some(8));
        let last = page(None);
        assert!(!last.page_info.has_next_page && last.page_info.end_cursor.is_none());
    }
}
