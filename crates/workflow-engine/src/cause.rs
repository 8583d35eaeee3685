//! Why runs failed, so that those that failed for the same reason stand together.
//!
//! Messages carry ids, numbers and names of the one event; what is left without them is the cause.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::journal::{AttemptOutcome, Entry, Target};

/// Longest text of a cause, in characters: enough to know it again.
const MAX_TEXT_CHARACTERS: usize = 300;
/// Words of hexadecimal digits from this length on are ids.
const MIN_HEX_ID: usize = 8;

/// The cause of a failure: where, under which code, with which message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The same for every failure with this cause.
    pub id: i64,
    /// Path of the step without the keys of items.
    pub step: Option<String>,
    /// The message without ids, numbers, quoted values and what it says of the data that was there instead.
    pub message: String,
}

impl Cause {
    /// The cause of a failure of a run.
    pub fn of(code: &str, step: Option<&str>, message: &str) -> Self {
        let step = step.map(without_keys);
        let message = normalised(&without_samples(message));
        let mut hash = Sha256::new();
        for part in [code, step.as_deref().unwrap_or(""), &message] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let id = digest.first_chunk::<8>().map_or(0, |first| i64::from_be_bytes(*first));
        Self { id, step, message }
    }
}

/// HTTP status of the answer that made a step fail for good: its last try that did not succeed. `step` as a [`Cause`]
/// tells it. `None`: no answer came, or no call was at fault.
pub fn status_at_fault(entries: &[Entry], step: &str) -> Option<u16> {
    let is_it = |of: &Target| match of {
        Target::Step(path) => without_keys(path) == step,
        Target::Read(name) => step.strip_prefix("hydrate.") == Some(&**name),
    };
    let last = entries.iter().rev().find_map(|entry| match entry {
        Entry::Attempt(attempt) if is_it(&attempt.of) && !matches!(attempt.outcome, AttemptOutcome::Done { .. }) => {
            Some(attempt)
        }
        _ => None,
    });
    last?.exchanges.last()?.status
}

/// `each[42].pay` and `each[43].pay` are the same step: `each[].pay`.
fn without_keys(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut inside = false;
    for character in path.chars() {
        match character {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => continue,
            _ => {}
        }
        text.push(character);
    }
    text
}

/// What a message goes on to say of the data that it found: from where, and up to where or the end of the message.
const SAMPLES: [(&str, Option<&str>); 3] = [
    (" is not there: ", Some("; if that can happen")),
    (", which has ", Some("; ")),
    (" (`", None),
];

/// A message without names of members, lengths of lists and values: two events of which each lacks the same member have
/// other members besides.
fn without_samples(message: &str) -> String {
    let mut text = message.to_owned();
    for (from, to) in SAMPLES {
        let Some(start) = text.find(from) else {
            continue;
        };
        // The words that introduce a clause stay; of a bracket nothing does.
        let start = match from.trim_start().starts_with('(') {
            true => start,
            false => start + from.trim_end_matches([':', ' ']).len(),
        };
        let rest = text.get(start..).unwrap_or_default();
        let end = to.map_or(text.len(), |to| rest.find(to).map_or(text.len(), |end| start + end));
        text.replace_range(start..end, "");
    }
    text
}

/// A message with what is particular to one run taken out: what stands in quotes, numbers, ids.
fn normalised(message: &str) -> String {
    let mut text = String::new();
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '"' | '`' => {
                let inside = rest.get(1..).unwrap_or_default();
                match inside.find(first) {
                    Some(end) => (
                        rest.get(..end + 2).unwrap_or(rest),
                        inside.get(end + 1..).unwrap_or_default(),
                    ),
                    None => (rest.get(..1).unwrap_or(rest), inside),
                }
            }
            _ if is_word(first) => {
                let end = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
                rest.split_at(end)
            }
            _ => rest.split_at(first.len_utf8()),
        };
        // Writing to a string cannot fail, so the result says nothing.
        let _infallible = match first {
            '"' | '`' if word.len() > 1 => write!(text, "{first}…{first}"),
            _ if is_word(first) && is_particular(word) => text.write_char('#'),
            _ => text.write_str(word),
        };
        rest = after;
    }
    text.chars().take(MAX_TEXT_CHARACTERS).collect()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-')
}

/// Whether a word names one thing or amount: it has a digit, or is one long row of hexadecimal digits.
fn is_particular(word: &str) -> bool {
    let is_id = word.len() >= MIN_HEX_ID
        && word
            .chars()
            .all(|character| character.is_ascii_hexdigit() || character == '-');
    is_id || word.chars().any(|character| character.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_particular_to_one_run_does_not_count() {
        let same = |one: &str, other: &str| {
            let cause = |message| Cause::of("http_422", Some("each[1].pay"), message).id;
            cause(one) == cause(other)
        };
        assert!(same("no customer cus_1A2b", "no customer cus_99"));
        assert!(same("charge `ch_a` is gone", "charge `ch_b` is gone"));
        assert!(same(r#"field "a" in 0.5 s"#, r#"field "b" in 12.7 s"#));
        assert!(same("id deadbeefcafe", "id 0123-abcdef"));
        assert!(!same("no customer cus_1", "no charge ch_1"));
        assert_eq!(
            Cause::of("a", Some("each[1].pay"), "x").id,
            Cause::of("a", Some("each[zwei].pay"), "x").id
        );
        assert_ne!(Cause::of("a", Some("pay"), "x").id, Cause::of("b", Some("pay"), "x").id);
        assert_ne!(Cause::of("a", Some("pay"), "x").id, Cause::of("a", None, "x").id);
    }

    #[test]
    fn what_else_the_data_held_does_not_count() {
        let cause = |message: &str| Cause::of("expression_failed", Some("pay"), message).message;
        let hint = "if that can happen, say what to use instead with `| default(…)`";
        let expected = "in `…`: event.data.cent is not there; if that can happen, say what to use instead with `…`";
        for instead in [
            "`event.data` has cents, id (did you mean `cents`, which is 5?)",
            r#"`event.data` has id, state; and, more (did you mean `state`, which is "a; b"?)"#,
            "`event.data` is an empty object",
            "`event.data` is a list of 3",
        ] {
            let message = format!("in `with.body`: event.data.cent is not there: {instead}; {hint}");
            assert_eq!(cause(&message), expected);
        }
        let attribute = |has: &str| {
            cause(&format!(
                "`map` finds no `cent` in element 3, which {has}; `default=…` beside it says what to take instead"
            ))
        };
        assert_eq!(
            attribute("has cents, id (did you mean `cents`?)"),
            attribute("has id, other")
        );
        assert_ne!(attribute("has id"), attribute("is no object with it"));
        assert_eq!(
            cause(r#"cannot divide (`event.data.a` is "x", `event.data.b` is null)"#),
            cause("cannot divide (`event.data.a` is 3)")
        );
    }

    #[test]
    fn texts_stay_readable_and_bounded() {
        let message = |text: &str| Cause::of("a", None, text).message;
        assert_eq!(
            message("the call ended in 422: no such mailbox"),
            "the call ended in #: no such mailbox"
        );
        assert_eq!(message("`unclosed and ü\u{1f600}"), "`unclosed and ü\u{1f600}");
        assert_eq!(message(&"x ".repeat(1000)).chars().count(), 300);
    }
}
