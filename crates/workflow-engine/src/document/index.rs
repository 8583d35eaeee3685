//! The index of a valid JSON text: where each value begins and ends.
//!
//! Built in one pass over the bytes, without copying any of them. It relies on the text being valid JSON and must
//! never be built over anything else.

use std::borrow::Cow;
use std::ops::Range;

use super::{PathPart, lenient};

/// One value: its bytes, the bytes of its key inside the quotes, and where its next sibling stands.
struct Node {
    start: u32,
    end: u32,
    key_start: u32,
    key_end: u32,
    next: u32,
}

/// All values of a document in the order in which they begin; children stand right behind their parent.
pub(super) struct Index {
    nodes: Vec<Node>,
}

fn offset(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

fn place(offset: u32) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// The position of the quote that closes the string whose opening quote stands at `open`.
fn string_end(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Where arrays and objects of `text` are first nested deeper than `limit`: the position of the bracket, in bytes.
pub(super) fn too_deep(text: &str, limit: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut open) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                open += 1;
                if open > limit {
                    return Some(at);
                }
            }
            b'}' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
}

impl Index {
    pub(super) fn build(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut nodes: Vec<Node> = Vec::with_capacity(bytes.len() / 24 + 1);
        let mut open: Vec<(usize, bool)> = Vec::new();
        let mut key = (0, 0);
        // Inside an object the next string is a key until its colon was seen.
        let mut expects_key = false;
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let start = at;
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => at += 1,
                b':' => {
                    expects_key = false;
                    at += 1;
                }
                b',' => {
                    expects_key = open.last().is_some_and(|(_, object)| *object);
                    at += 1;
                }
                b'}' | b']' => {
                    at += 1;
                    if let Some((node, _)) = open.pop() {
                        let next = offset(nodes.len());
                        if let Some(node) = nodes.get_mut(node) {
                            node.end = offset(at);
                            node.next = next;
                        }
                    }
                    expects_key = false;
                }
                b'"' if expects_key => {
                    at = string_end(bytes, at) + 1;
                    key = (offset(start + 1), offset(at - 1));
                }
                b'{' | b'[' => {
                    at += 1;
                    expects_key = *byte == b'{';
                    open.push((nodes.len(), expects_key));
                    nodes.push(Node {
                        start: offset(start),
                        end: 0,
                        key_start: key.0,
                        key_end: key.1,
                        next: 0,
                    });
                }
                scalar => {
                    if *scalar == b'"' {
                        at = string_end(bytes, at) + 1;
                    } else {
                        while bytes.get(at).is_some_and(|byte| !b",]} \t\n\r".contains(byte)) {
                            at += 1;
                        }
                    }
                    let (start, end) = (offset(start), offset(at));
                    let next = offset(nodes.len() + 1);
                    nodes.push(Node {
                        start,
                        end,
                        key_start: key.0,
                        key_end: key.1,
                        next,
                    });
                }
            }
        }
        Self { nodes }
    }

    fn kind(&self, text: &str, node: usize) -> u8 {
        self.nodes
            .get(node)
            .and_then(|node| text.as_bytes().get(place(node.start)))
            .copied()
            .unwrap_or(b'n')
    }

    fn children(&self, node: usize) -> impl Iterator<Item = (usize, &Node)> {
        let end = self.nodes.get(node).map_or(0, |node| place(node.next));
        let mut at = node + 1;
        std::iter::from_fn(move || {
            let child = self.nodes.get(at).filter(|_| at < end)?;
            let found = (at, child);
            at = place(child.next);
            Some(found)
        })
    }

    fn member(&self, text: &str, node: usize, name: &str) -> Option<usize> {
        if self.kind(text, node) != b'{' {
            return None;
        }
        let is_name = |child: &Node| {
            let key = text
                .get(place(child.key_start)..place(child.key_end))
                .unwrap_or_default();
            key == name || key.contains('\\') && lenient::string(&format!("\"{key}\"")) == name
        };
        // As in every parser, the last of several members with one name counts.
        self.children(node)
            .filter(|(_, child)| is_name(child))
            .last()
            .map(|(at, _)| at)
    }

    fn element(&self, text: &str, node: usize, index: usize) -> Option<usize> {
        if self.kind(text, node) != b'[' {
            return None;
        }
        self.children(node).nth(index).map(|(at, _)| at)
    }

    fn range(&self, node: usize) -> Option<Range<usize>> {
        self.nodes.get(node).map(|node| place(node.start)..place(node.end))
    }

    pub(super) fn find<'t>(&self, text: &'t str, path: &[PathPart]) -> Option<&'t str> {
        let mut node = 0;
        for part in path {
            node = match part {
                PathPart::Key(name) => self.member(text, node, name)?,
                PathPart::Index(index) => self.element(text, node, *index)?,
            };
        }
        text.get(self.range(node)?)
    }

    pub(super) fn range_of_pointer(&self, text: &str, pointer: &str) -> Option<Range<usize>> {
        let mut node = 0;
        for token in pointer.strip_prefix('/')?.split('/') {
            let token: Cow<'_, str> = match token.contains('~') {
                true => Cow::Owned(token.replace("~1", "/").replace("~0", "~")),
                false => Cow::Borrowed(token),
            };
            node = match self.kind(text, node) {
                b'[' => self.element(text, node, token.parse().ok()?)?,
                _ => self.member(text, node, &token)?,
            };
        }
        self.range(node)
    }

    pub(super) fn find_pointer<'t>(&self, text: &'t str, pointer: &str) -> Option<&'t str> {
        text.get(self.range_of_pointer(text, pointer)?)
    }

    pub(super) fn elements<'t>(&self, text: &'t str) -> Option<Vec<&'t str>> {
        if self.kind(text, 0) != b'[' {
            return None;
        }
        Some(
            self.children(0)
                .filter_map(|(at, _)| text.get(self.range(at)?))
                .collect(),
        )
    }
}
