//! Backfills: a chosen past range of a provider's list, put through the same door as webhooks, at low priority.
//!
//! `range` says how a list is walked, without IO; `ask` is the door for people; `drive` reads and stores. A backfill is a
//! row: who reads it proves its incarnation with each move, which is written after the events of the page, so that a crash
//! anywhere reads a page again. The heartbeat tells that there is one to be taken up; idling asks nothing.

mod ask;
mod drive;
mod range;

pub use ask::{BackfillBound, BackfillPreview, BackfillRefusal, BackfillWorkflow, percent};
pub use drive::MAX_BACKFILLS_AT_ONCE;
pub use range::{MAX_BACKFILL_PAGES, NoRange};

pub(crate) use drive::work;
