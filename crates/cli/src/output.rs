//! The only place that writes to the terminal. A closed pipe (`weir runs | head`) ends output quietly, never the process with a panic.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// Writes lines to standard output for people: what providers wrote cannot steer the terminal.
pub(crate) fn line(text: impl Display) {
    document(printable(&text.to_string()));
}

/// Writes a document to standard output as it is, for programs: JSON or YAML, which have escapes of their own.
pub(crate) fn document(text: impl Display) {
    let mut out = std::io::stdout().lock();
    // The reader has gone away: there is nobody left to tell.
    let _closed = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Writes one line to standard error, for remarks that must not end up in a pipe.
pub(crate) fn remark(text: impl Display) {
    let _closed = writeln!(std::io::stderr().lock(), "{}", printable(&text.to_string()));
}

/// Tells what a command changed: the id alone on standard output, for programs; on standard error what became of it
/// and the command that shows it.
pub(crate) fn changed(id: &str, what: &str, look: &str) {
    line(id);
    remark(format!("{what}; `{look}` shows it"));
}

/// The colour codes of [`Style`], and the end of each.
const COLOURS: [&str; 7] = ["0", "1", "2", "31", "32", "33", "36"];

/// Whether a character moves the cursor, rings, or turns the direction of what follows.
fn steers(character: char) -> bool {
    let is_line = matches!(character, '\n' | '\t');
    let is_bidi =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !is_line && (character.is_control() || is_bidi || matches!(character, '\u{2028}' | '\u{2029}'))
}

/// The text with every character that would steer a terminal written as `\u{…}`; our own colours stay.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(steers) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let colour = from.strip_prefix("\u{1b}[").and_then(|code| code.split_once('m'));
        match (colour, from.chars().next()) {
            (Some((code, after)), _) if COLOURS.contains(&code) => {
                out.push_str("\u{1b}[");
                out.push_str(code);
                out.push('m');
                rest = after;
            }
            (_, Some(character)) => {
                out.extend(character.escape_unicode());
                rest = from.get(character.len_utf8()..).unwrap_or_default();
            }
            (_, None) => rest = "",
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Writes `label: text` to standard error, the following lines indented.
pub(crate) fn complain(label: &str, text: &str) {
    let style = Style::of(&std::io::stderr());
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let label = if label == "error" {
        style.red(label)
    } else {
        style.bold(label)
    };
    remark(format!("{label}: {first}"));
    for rest in lines {
        remark(format!("  {rest}"));
    }
}

/// Colours, or none: only a terminal gets them, and none of them when `NO_COLOR` is set (<https://no-color.org>).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    coloured: bool,
}

impl Style {
    /// The style that fits a stream.
    #[expect(
        clippy::disallowed_methods,
        reason = "NO_COLOR is a convention of terminals, not a setting of ours"
    )]
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Style {
            coloured: stream.is_terminal() && !refused,
        }
    }

    /// No colours, whoever reads.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Style { coloured: false }
    }

    /// The style that fits standard output.
    pub(crate) fn stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    fn paint(self, code: &str, text: impl Display) -> String {
        if self.coloured {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_string()
        }
    }

    pub(crate) fn bold(self, text: impl Display) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: impl Display) -> String {
        self.paint("2", text)
    }

    pub(crate) fn red(self, text: impl Display) -> String {
        self.paint("31", text)
    }

    pub(crate) fn green(self, text: impl Display) -> String {
        self.paint("32", text)
    }

    pub(crate) fn yellow(self, text: impl Display) -> String {
        self.paint("33", text)
    }

    pub(crate) fn cyan(self, text: impl Display) -> String {
        self.paint("36", text)
    }

    /// The colour of a run's or step's state, given in any letter case.
    pub(crate) fn state(self, state: &str) -> String {
        match state.to_ascii_lowercase().as_str() {
            "succeeded" | "done" | "confirmed" | "healthy" | "active" => self.green(state),
            "failed" | "unknown" | "canceled" | "gone" | "failing" => self.red(state),
            "waiting" | "running" | "intended" | "skipped" | "pending" | "removing" => self.yellow(state),
            _ => state.to_owned(),
        }
    }
}

/// So many of something: `1 run`, `2 runs`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

/// Prints rows under a heading, columns padded to their widest cell. Cells hold no colour codes.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let style = Style::stdout();
    let render = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.trim_end().to_owned()
    };
    line(style.dim(render(&mut heading.iter().copied())));
    for row in rows {
        line(render(&mut row.iter().map(String::as_str)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        let check = |text: &str, expected: &str| assert_eq!(printable(text), expected, "{text:?}");
        check("evt_1\tümläut 日本\nnext", "evt_1\tümläut 日本\nnext");
        check("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}");
        check("\u{1b}[2J\u{1b}[8mhidden", "\\u{1b}[2J\\u{1b}[8mhidden");
        check("paid\rfailed", "paid\\u{d}failed");
        check("a\u{202e}b\u{2066}c\u{9b}d", "a\\u{202e}b\\u{2066}c\\u{9b}d");
        check("half \u{1b}[31", "half \\u{1b}[31");
        let red = Style { coloured: true }.red("failed");
        assert_eq!(printable(&red), red);
    }
}
