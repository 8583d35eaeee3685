//! Pages of lists: always from newest to oldest, always by id.

/// The most rows a page holds.
pub const MAX_PAGE: u32 = 200;

/// One page.
///
/// A filter that few rows pass is not chased through the whole table: a page may hold fewer rows than asked for
/// (even none) and still have a `next`. The list ends where `next` is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<Row, Id> {
    /// The rows, newest first.
    pub rows: Vec<Row>,
    /// Where to go on: pass it as `before`.
    pub next: Option<Id>,
}
