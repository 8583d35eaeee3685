//! The only place that writes to the terminal. A closed pipe (`weir runs | head`) ends output quietly, never the process with a panic.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// Writes one line to standard output.
pub(crate) fn line(text: impl Display) {
    let mut out = std::io::stdout().lock();
    // The reader has gone away: there is nobody left to tell.
    let _closed = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Writes one line to standard error, for remarks that must not end up in a pipe.
pub(crate) fn remark(text: impl Display) {
    let _closed = writeln!(std::io::stderr().lock(), "{text}");
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
            "succeeded" | "done" | "confirmed" | "healthy" => self.green(state),
            "failed" | "unknown" | "canceled" | "gone" => self.red(state),
            "waiting" | "running" | "intended" | "skipped" => self.yellow(state),
            _ => state.to_owned(),
        }
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
