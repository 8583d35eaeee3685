//! `docs/limits.md` is made from the code: from a line `Limit:` in the comment of each bound.
//!
//! The line says, separated by `|`, what is bounded, what happens at the bound, and the test that drives it there:
//! `Limit: items of a loop | the step fails, too_many_items | name_of_the_test`. A fourth part names a metric.
//! The value is the constant's, or the field's default. `WEIR_UPDATE_LIMITS=1` renews the page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The parts of the page, by the crate whose limits they hold.
const PARTS: [(&str, &str); 6] = [
    ("workflow-engine", "Workflows and runs"),
    ("connector-sdk", "Connectors and webhooks"),
    ("orchestrator", "Server"),
    ("storage", "Database"),
    ("api-server", "HTTP and GraphQL"),
    ("cli", "Command line"),
];

/// Bounds that nobody meets with an error, and why: they are not on the page.
const UNSEEN: [(&str, &str); 47] = [
    (
        "MAX_STATED_BYTES",
        "what a token answer says beyond it is taken as not said",
    ),
    ("MAX_STATE_BYTES", "a longer state is none of ours"),
    ("MAX_CODE_BYTES", "a longer code is taken as none"),
    ("MAX_ACCOUNT_BYTES", "a longer account id or label is taken as none"),
    ("MAX_STEPS", "a provider that does what it is told needs few of them"),
    ("MAX_ERROR_CHARACTERS", "what is shown to people is cut"),
    ("MAX_LOOKS", "the call is put off and looks again"),
    ("MAX_NAMED", "further versions that stand in the way are not named"),
    ("MAX_HISTORY_SHOWN", "older entries are in `audit` itself"),
    ("MAX_REMARK_CHARACTERS", "`--json` has the whole remark"),
    ("MAX_RESUMED", "more runs are let through by the next commits"),
    ("MAX_HOLD", "a call that comes too early is sent away again"),
    (
        "MAX_SPREAD_MS",
        "how long requests are spread after a budget was used up",
    ),
    ("MAX_LEARNED", "further allowances of a provider are not looked at"),
    ("MAX_SLEEPERS_COUNTED", "a figure that stops growing"),
    ("MAX_HOSTS", "failures of further hosts are not counted"),
    ("MAX_PATHS", "failures of further steps count for their host alone"),
    ("MAX_PASSED_OVER", "the share of calls that wait behind others"),
    ("MAX_WORKFLOWS", "further workflows count for the connection alone"),
    ("MAX_ASKED", "part of the runner of vectors"),
    ("MAX_KEY_DOCUMENTS", "a cache"),
    ("MAX_DOCUMENTS_PER_REQUEST", "no scheme wants so many"),
    (
        "MAX_QUERY_STRING_BYTES",
        "the HTTP server bounds the head of a request below it",
    ),
    ("MAX_SHARED_READS", "beyond it reads are made instead of shared"),
    ("MAX_PANICS", "a fault of Weir, not of its user"),
    ("MAX_PINNED_VERSIONS", "a cache"),
    ("MAX_ANSWERS_BYTES", "a cache"),
    ("MAX_ANSWER_BYTES", "a larger answer is asked for anew each time"),
    ("MAX_GENERATION_BYTES", "a file begins anew"),
    ("MAX_PATH_TEXT_BYTES", "a longer text is hashed"),
    (
        "MAX_ENTRIES_PER_DECISION",
        "the run goes on after others had their turn",
    ),
    ("MAX_GENERATIONS", "no run has so many tries"),
    ("MAX_PAGE", "a page is cut; the API's own bound is in front"),
    ("MAX_FILE_BYTES", "a longer key file is none"),
    ("MAX_RAW_BYTES", "above every limit on what comes in"),
    ("MAX_COUNTS", "a sum over more is not shown"),
    ("MAX_FIRST_LINE", "another file is no backup"),
    ("MAX_RECORD_BYTES", "above every limit on what is stored"),
    ("MAX_CLAIM", "the next claim takes the rest"),
    ("MAX_MESSAGE_CHARACTERS", "a provider's message is cut"),
    ("MAX_REPLAYED_EVENTS", "part of the bound on YAML aliases"),
    ("MAX_KEPT_KEYS", "what is kept for people is cut"),
    ("MAX_NEXT_RUNS", "an answer is cut"),
    ("MAX_MISSED_COUNTED", "more is said as this"),
    ("MAX_LEFT_OUT_SHOWN", "a preview is cut"),
    ("MAX_VALUE_CHARACTERS", "what is shown to people is cut"),
    ("MAX_TEXT_CHARACTERS", "what is shown to people is cut"),
];

/// One row of the page.
#[derive(Debug)]
struct Limit {
    of: String,
    /// Number and unit, as people read them.
    value: (String, &'static str),
    at_the_bound: String,
    test: String,
    metric: String,
    set_by: String,
    item: String,
    number: u64,
    expression: String,
    file: PathBuf,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Bounds of made-up worlds are none of the product.
        if path.file_name().is_some_and(|name| name == "simulation") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(path.clone(), std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The value of a constant expression: numbers, products, shifts, spans.
fn value(expression: &str) -> Option<(u64, bool)> {
    let expression = expression.trim();
    for (call, of_a_second) in [("Duration::from_secs(", 1000), ("Duration::from_millis(", 1)] {
        if let Some(inner) = expression.strip_prefix(call).and_then(|rest| rest.strip_suffix(')')) {
            return Some((value(inner)?.0 * of_a_second, true));
        }
    }
    if let Some((left, right)) = expression.split_once("<<") {
        return Some((value(left)?.0 << value(right)?.0, false));
    }
    if let Some((left, right)) = expression.rsplit_once('*') {
        return Some((value(left)?.0 * value(right)?.0, false));
    }
    expression.replace('_', "").parse().ok().map(|number| (number, false))
}

/// A value as people read it, and its unit.
fn shown((number, is_span): (u64, bool), item: &str) -> (String, &'static str) {
    let lower = item.to_lowercase();
    let units: &[(u64, &'static str)] = if is_span {
        &[
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "min"),
            (1000, "s"),
            (1, "ms"),
        ]
    } else if lower.contains("bytes") {
        &[(1 << 20, "MiB"), (1 << 10, "KiB"), (1, "bytes")]
    } else {
        &[]
    };
    for (unit, name) in units {
        if number % unit == 0 && number > 0 {
            return (grouped(number / unit), name);
        }
    }
    (grouped(number), "")
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The limits that one file declares.
fn limits_of(file: &Path, text: &str, all: &BTreeMap<PathBuf, String>, settings: &str) -> Vec<Limit> {
    let mut limits = Vec::new();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(note) = line.strip_prefix("/// Limit: ") else {
            continue;
        };
        let mut parts = note.split('|').map(|part| part.trim().to_owned());
        let mut next = || parts.next().unwrap_or_default();
        let (of, at_the_bound) = (next(), next());
        let (test, metric) = (next().replace('`', ""), next().replace('`', ""));
        assert!(!test.is_empty(), "{}: {note:?} names no test", file.display());
        let below = lines[at + 1..]
            .iter()
            .find(|line| !line.starts_with("///") && !line.starts_with('#'));
        let below = below.unwrap_or_else(|| panic!("{}: {note:?} belongs to nothing", file.display()));
        let declared = below
            .trim_start_matches("pub ")
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub(super) ");
        let (item, expression) = match declared.strip_prefix("const ") {
            Some(constant) => {
                let (item, rest) = constant.split_once(':').unwrap();
                (item, rest.split_once('=').unwrap().1.trim_end_matches(';').to_owned())
            }
            None => {
                let item = declared.split_once(':').unwrap().0;
                let default = text.split_once("impl Default").map_or("", |(_, default)| default);
                let default = default
                    .lines()
                    .find_map(|line| line.trim().strip_prefix(&format!("{item}: ")));
                (item, default.unwrap().trim_end_matches(',').to_owned())
            }
        };
        // One constant may be another of the same crate.
        let other = expression.rsplit("::").next().unwrap_or_default().trim();
        let other = all.values().find_map(|text| {
            let (_, rest) = text.split_once(&format!("const {other}: "))?;
            Some(rest.split_once('=')?.1.split_once(';')?.0.to_owned())
        });
        let found = value(other.as_ref().unwrap_or(&expression))
            .unwrap_or_else(|| panic!("{}: {expression:?} is not understood", file.display()));
        let is_setting = settings.contains(&format!("pub(crate) {item}: Option<"));
        limits.push(Limit {
            of,
            value: shown(found, item),
            at_the_bound,
            test,
            metric,
            set_by: if is_setting { format!("`{item}`") } else { String::new() },
            item: item.to_owned(),
            number: found.0,
            expression: expression.trim().to_owned(),
            file: file.to_owned(),
        });
    }
    limits
}

fn page(limits: &BTreeMap<&str, Vec<Limit>>) -> String {
    let mut page = String::from(
        "# Limits\n\nEvery queue, body, page, retry and loop has a bound, and at the bound a clear answer.\n\
         This page is made from the code (`WEIR_UPDATE_LIMITS=1 cargo nextest run -p weir-cli limits`); each bound has a test that drives it there.\n\
         What is kept how long: [Retention](operations.md#retention).\n\n\
         A name that is a setting can be changed by it; the others are fixed.\n\n\
         | part | name | what | default | unit | at the limit | metric | setting |\n|---|---|---|---|---|---|---|---|\n",
    );
    for (folder, title) in PARTS {
        for limit in limits.get(folder).into_iter().flatten() {
            let metric = if limit.metric.is_empty() {
                String::new()
            } else {
                format!("`{}`", limit.metric)
            };
            let name = format!("`{}`", limit.item.to_lowercase());
            let (number, unit) = (&limit.value.0, limit.value.1);
            let cells = [
                title,
                &name,
                &limit.of,
                number,
                unit,
                &limit.at_the_bound,
                &metric,
                &limit.set_by,
            ];
            let cells: Vec<&str> = cells
                .iter()
                .map(|cell| if cell.is_empty() { "–" } else { cell })
                .collect();
            writeln!(page, "| {} |", cells.join(" | ")).unwrap();
        }
    }
    page
}

fn all() -> (BTreeMap<&'static str, Vec<Limit>>, BTreeMap<PathBuf, String>) {
    let settings = std::fs::read_to_string(root().join("crates/cli/src/config.rs")).unwrap();
    let (mut limits, mut everything) = (BTreeMap::new(), BTreeMap::new());
    for (folder, _) in PARTS {
        let mut found = BTreeMap::new();
        sources(&root().join("crates").join(folder).join("src"), &mut found);
        let of_crate = found
            .iter()
            .flat_map(|(file, text)| limits_of(file, text, &found, &settings));
        limits.insert(folder, of_crate.collect());
        everything.extend(found);
        let tests = root().join("crates").join(folder).join("tests");
        sources(&tests, &mut everything);
    }
    (limits, everything)
}

#[test]
fn the_page_of_limits_is_what_the_code_says() {
    let (limits, _) = all();
    let path = root().join("docs/limits.md");
    let made = page(&limits);
    #[expect(clippy::disallowed_methods, reason = "a switch of the test, not of the product")]
    if std::env::var("WEIR_UPDATE_LIMITS").is_ok() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/limits.md differs from the code: WEIR_UPDATE_LIMITS=1 renews it"
    );
}

/// The test exists, and names the bound or its value, or asserts the code that is promised at it.
#[test]
fn every_limit_names_a_test_that_drives_it_to_its_bound() {
    let (limits, everything) = all();
    let mut wrong = Vec::new();
    for limit in limits.values().flatten() {
        let codes: Vec<&str> = limit.at_the_bound.split('`').skip(1).step_by(2).collect();
        let tested = everything.iter().any(|(_, text)| {
            let Some((_, test)) = text.split_once(&format!("fn {}(", limit.test)) else {
                return false;
            };
            // Either in the body, or in what the file says once for its tests.
            let end = test.find("\n}\n").unwrap_or(test.len());
            let body = test.get(..end).unwrap_or(test);
            let plain = body.replace('_', "");
            let numbers = [limit.number, limit.number + 1].map(|number| number.to_string());
            let named = body.contains(&limit.item) || body.contains(&limit.expression);
            named
                || numbers.iter().any(|number| has_word(&plain, number))
                || codes.iter().any(|code| text.contains(&format!("\"{code}\"")))
                || {
                    let status = limit
                        .at_the_bound
                        .split([' ', ':', ','])
                        .find(|word| word.len() == 3 && word.parse::<u16>().is_ok());
                    status.is_some_and(|status| body.contains(status))
                }
        });
        if !tested {
            wrong.push(format!("{} ({}): {}", limit.item, limit.file.display(), limit.test));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Whether a number stands in a text by itself.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let beside = |character: Option<char>| !character.is_some_and(|character| character.is_ascii_digit());
        let (before, from) = text.split_at(at);
        let after = from.strip_prefix(word).unwrap_or_default();
        beside(before.chars().next_back()) && beside(after.chars().next())
    })
}

/// A bound that is new gets its line, or a reason why nobody meets it.
#[test]
fn every_bound_is_listed_or_says_why_not() {
    let (limits, everything) = all();
    let mut unlisted = Vec::new();
    for (file, text) in everything
        .iter()
        .filter(|(file, _)| !file.components().any(|part| part.as_os_str() == "tests"))
    {
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in product.lines() {
            let Some((_, rest)) = line.split_once("const MAX_") else {
                continue;
            };
            let item = format!("MAX_{}", rest.split(':').next().unwrap_or_default());
            let listed = limits
                .values()
                .flatten()
                .any(|limit| limit.item == item && &limit.file == file);
            if !listed && !UNSEEN.iter().any(|(unseen, _)| *unseen == item) {
                unlisted.push(format!("{item} ({})", file.display()));
            }
        }
    }
    assert_eq!(unlisted, Vec::<String>::new());
}
