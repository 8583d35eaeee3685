//! XML as JSON values, both ways, by one mapping.
//!
//! | XML | JSON |
//! |---|---|
//! | `<a>text</a>` | `"a": "text"` |
//! | `<a/>`, `<a xsi:nil="true"/>` | `"a": null` |
//! | `<a k="v">text</a>` | `"a": { "@k": "v", "#text": "text" }` |
//! | `<a><b>1</b><b>2</b></a>` | `"a": { "b": ["1", "2"] }` |
//!
//! Values read are texts. Read names lose their prefix, and namespace declarations are left out, because senders choose
//! prefixes as they like. Written names keep theirs. Comments and instructions are skipped; the order between elements
//! of different names is not kept when text stands between them.
//!
//! No document type is read and no entity but the five of XML itself is known, so nothing expands.

mod read;
mod write;

pub(crate) use read::read;
pub(crate) use write::write;

/// Prefix of the keys that are attributes.
const ATTRIBUTE: char = '@';

/// Key of the text of an element that has attributes or elements too.
pub(crate) const TEXT: &str = "#text";
