//! Finds every name in an expression and replaces each path by a slot.
//!
//! Expressions have no local names (there are no statements and no comprehensions), so a scan over the tokens sees
//! exactly the paths that the compiled form will read.

use super::token::{KEYWORDS, Kind, plain_text, tokens};
use super::vocabulary;
use crate::document::PathPart;
use crate::problem::{Problem, nearest};

/// One path that an expression reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) root: String,
    pub(crate) parts: Vec<PathPart>,
    /// Followed by `default` or asked for with `is defined`: it may be missing.
    pub(crate) guarded: bool,
}

impl Use {
    /// The path as it is written.
    pub(crate) fn text(&self) -> String {
        let mut text = self.root.clone();
        for part in &self.parts {
            match part {
                PathPart::Key(key) => {
                    text.push('.');
                    text.push_str(key);
                }
                PathPart::Index(index) => text.push_str(&format!("[{index}]")),
            }
        }
        text
    }

    /// The first member below the root, when the path names one.
    pub(crate) fn first_key(&self) -> Option<&str> {
        match self.parts.first() {
            Some(PathPart::Key(key)) => Some(key),
            Some(PathPart::Index(_)) | None => None,
        }
    }
}

/// What a scan found.
pub(super) struct Scan {
    pub(super) uses: Vec<Use>,
    /// The expression with slots for paths; `None` when the whole expression is one path.
    pub(super) rewritten: Option<String>,
}

/// The name of the slot with this number.
pub(super) fn slot(number: usize) -> String {
    format!("slot{number}")
}

/// Scans an expression whose syntax was checked.
pub(super) fn scan(source: &str, pointer: &str) -> Result<Scan, Problem> {
    let tokens = tokens(source);
    let sign = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.is(text));
    let name = |at: usize, text: &str| {
        tokens
            .get(at)
            .is_some_and(|token| token.kind == Kind::Name && token.text == text)
    };
    let mut uses: Vec<Use> = Vec::new();
    let mut rewritten = String::with_capacity(source.len());
    let mut copied = 0;
    let mut whole = false;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let here = at;
        at += 1;
        if token.kind != Kind::Name {
            continue;
        }
        let before = here.checked_sub(1);
        let after_sign = |text: &str| before.is_some_and(|before| sign(before, text));
        let after_is = before.is_some_and(|before| {
            name(before, "is") || name(before, "not") && before.checked_sub(1).is_some_and(|first| name(first, "is"))
        });
        let unknown = |what: &str, known: &[&str]| {
            let message = format!("there is no {what} `{}`", token.text);
            let problem = Problem::new(pointer, "unknown_name", message);
            match nearest(token.text, known.iter().copied()) {
                Some(near) => problem.suggest(format!("did you mean `{near}`?")),
                None => problem.suggest(format!("known: {}", known.join(", "))),
            }
        };
        if after_sign(".") {
            if sign(at, "(") {
                return Err(no_methods(token.text, pointer));
            }
            continue;
        }
        if after_sign("|") {
            if !vocabulary::FILTERS.contains(&token.text) {
                return Err(unknown("filter", &vocabulary::FILTERS));
            }
            continue;
        }
        if KEYWORDS.contains(&token.text) {
            continue;
        }
        if after_is {
            if !vocabulary::TESTS.contains(&token.text) {
                return Err(unknown("test", &vocabulary::TESTS));
            }
            continue;
        }
        if sign(at, "(") {
            if !vocabulary::FUNCTIONS.contains(&token.text) {
                return Err(unknown("function", &vocabulary::FUNCTIONS));
            }
            continue;
        }
        if sign(at, "=") {
            continue;
        }
        let mut parts = Vec::new();
        let mut end = token.end();
        loop {
            let next = tokens.get(at + 1);
            if sign(at, ".") && next.is_some_and(|next| next.kind == Kind::Name) {
                let Some(member) = next else { break };
                if sign(at + 2, "(") {
                    return Err(no_methods(member.text, pointer));
                }
                parts.push(PathPart::Key(member.text.to_owned()));
                end = member.end();
                at += 2;
            } else if sign(at, "[") && sign(at + 2, "]") {
                let part = next.and_then(|next| match next.kind {
                    Kind::Number => next.text.parse().ok().map(PathPart::Index),
                    Kind::Text => plain_text(next).map(|key| PathPart::Key(key.to_owned())),
                    Kind::Name | Kind::Sign => None,
                });
                let (Some(part), Some(close)) = (part, tokens.get(at + 2)) else {
                    break;
                };
                parts.push(part);
                end = close.end();
                at += 3;
            } else {
                break;
            }
        }
        let defaulted = sign(at, "|") && (name(at + 1, "default") || name(at + 1, "d"));
        let test = if name(at + 1, "not") { at + 2 } else { at + 1 };
        let asked = name(at, "is") && (name(test, "defined") || name(test, "undefined"));
        whole = here == 0 && at == tokens.len();
        rewritten.push_str(source.get(copied..token.start).unwrap_or_default());
        rewritten.push_str(&slot(uses.len()));
        copied = end;
        uses.push(Use {
            root: token.text.to_owned(),
            parts,
            guarded: defaulted || asked,
        });
    }
    rewritten.push_str(source.get(copied..).unwrap_or_default());
    Ok(Scan {
        uses,
        rewritten: (!whole).then_some(rewritten),
    })
}

fn no_methods(method: &str, pointer: &str) -> Problem {
    let problem = Problem::new(
        pointer,
        "no_methods",
        format!("values have no methods, so `.{method}(…)` cannot be called"),
    );
    match vocabulary::FILTERS.contains(&method) {
        true => problem.suggest(format!("use the filter: `… | {method}`")),
        false => problem.did_you_mean(method, vocabulary::FILTERS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, uses: &[&str], rewritten: Option<&str>) {
        let scan = scan(source, "").unwrap_or_else(|problem| panic!("{source}: {problem}"));
        let found: Vec<String> = scan
            .uses
            .iter()
            .map(|used| format!("{}{}", used.text(), if used.guarded { "?" } else { "" }))
            .collect();
        assert_eq!(found, uses, "{source}");
        assert_eq!(scan.rewritten.as_deref(), rewritten, "{source}");
    }

    #[test]
    fn every_path_is_found_and_nothing_else() {
        check("event.data.object.id", &["event.data.object.id"], None);
        check("steps.contact.results[0].id", &["steps.contact.results[0].id"], None);
        check("event [ 'data' ]. object", &["event.data.object"], None);
        check("steps.contact.total > 0", &["steps.contact.total"], Some("slot0 > 0"));
        check(
            "steps.a.b | default('x.y') | upper",
            &["steps.a.b?"],
            Some("slot0 | default('x.y') | upper"),
        );
        check(
            "steps.a.b is not defined or true",
            &["steps.a.b?"],
            Some("slot0 is not defined or true"),
        );
        check(
            "money(event.a, event.b)",
            &["event.a", "event.b"],
            Some("money(slot0, slot1)"),
        );
        check("items[index].id", &["items", "index"], Some("slot0[slot1].id"));
        check(
            "a|map(attribute='x')|join(', ')",
            &["a"],
            Some("slot0|map(attribute='x')|join(', ')"),
        );
        check(
            "1.5 * a.b if c == 'é' else d[-1]",
            &["a.b", "c", "d"],
            Some("1.5 * slot0 if slot1 == 'é' else slot2[-1]"),
        );
        check("{'k': a.b}['k']", &["a.b"], Some("{'k': slot0}['k']"));
        check("slot0", &["slot0"], None);
    }

    #[test]
    fn unknown_words_are_refused_with_a_hint() {
        let problem = |source: &str| {
            scan(source, "/x")
                .err()
                .map(|problem| problem.to_string())
                .unwrap_or_default()
        };
        assert_eq!(
            problem("a | uper"),
            "/x: there is no filter `uper` (did you mean `upper`?)"
        );
        assert_eq!(
            problem("mony(a, b)"),
            "/x: there is no function `mony` (did you mean `money`?)"
        );
        assert_eq!(
            problem("a is strng"),
            "/x: there is no test `strng` (did you mean `string`?)"
        );
        assert_eq!(
            problem("a.b.upper()"),
            "/x: values have no methods, so `.upper(…)` cannot be called (use the filter: `… | upper`)"
        );
    }
}
