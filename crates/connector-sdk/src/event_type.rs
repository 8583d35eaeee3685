//! What a connector can report, and what is read afterwards to make a thin event whole.

use indexmap::IndexMap;
use serde_json::Value;

use crate::effect::read_condition;
use crate::fields::{Fields, is_name};
use crate::files::load_json;
use crate::problem::Problems;
use crate::template::Template;

/// Most reads of one event type.
///
/// Limit: reads of an event type | the manifest is refused, `too_many` | `an_event_type_has_so_many_reads`
pub const MAX_READS: usize = 16;

/// When the reads of an event type run, unless a workflow says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hydrate {
    /// For every event: it is thin.
    Always,
    /// Only for what the event lacks: it is fat.
    Missing,
    /// Not at all.
    Never,
}

impl Hydrate {
    /// The word used in manifests and workflows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Missing => "missing",
            Self::Never => "never",
        }
    }
}

/// One kind of event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventType {
    /// Whether its reads run by default.
    pub hydrate_default: Hydrate,
    /// Follow-up reads by name. Their order follows from the names they use.
    pub reads: IndexMap<String, Read>,
    /// An event body as the provider sends it.
    pub sample: Option<Value>,
    /// What it means, for people.
    pub description: Option<String>,
}

/// One follow-up read.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The operation.
    pub call: String,
    /// Its arguments: templates that see `event`, `ref` and earlier reads by name.
    pub with: Value,
    /// A condition, exactly one `{{ … }}`; a false one skips the read.
    pub when: Option<String>,
    /// Read all pages, up to so many items.
    pub all_max: Option<u32>,
    /// A condition, exactly one `{{ … }}`, that sees the answer by the name of the read: a false one says that the
    /// answer is older than the event, and the read is made again.
    pub fresh: Option<String>,
}

impl EventType {
    pub(crate) fn read(
        value: &Value,
        place: &str,
        load: &dyn Fn(&str) -> Option<String>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let fields = Fields::open(
            value,
            place,
            &["hydrate_default", "reads", "sample", "description"],
            problems,
        )?;
        let words = [
            ("always", Hydrate::Always),
            ("missing", Hydrate::Missing),
            ("never", Hydrate::Never),
        ];
        let mut reads = IndexMap::new();
        if let Some(value) = fields.get("reads")
            && let Some(entries) = Fields::open_any(value, &fields.at("reads"), problems)
        {
            if entries.map().len() > MAX_READS {
                problems.add(
                    entries.place(),
                    "too_many",
                    format!("an event type has at most {MAX_READS} reads"),
                );
            }
            for (name, value) in entries.map() {
                let place = entries.at(name);
                if !is_name(name, false) || ["event", "ref"].contains(&name.as_str()) {
                    problems.add(&place, "bad_name", format!("`{name}` is not a name for a read"));
                }
                if let Some(read) = Read::parse(value, &place, problems) {
                    reads.insert(name.clone(), read);
                }
            }
        }
        let hydrate_default = match fields.get("hydrate_default") {
            Some(_) => fields.choice("hydrate_default", &words, problems)?,
            None if reads.is_empty() => Hydrate::Never,
            None => {
                problems.add_with_suggestion(
                    place,
                    "missing_key",
                    "`hydrate_default` is missing: when do the reads run?",
                    "always for thin events, missing for fat ones",
                );
                return None;
            }
        };
        let sample = fields
            .text("sample", problems)
            .and_then(|file| load_json(file, &fields.at("sample"), load, problems));
        Some(Self {
            hydrate_default,
            reads,
            sample,
            description: fields.text("description", problems).map(str::to_owned),
        })
    }
}

impl Read {
    fn parse(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(value, place, &["call", "with", "when", "all", "fresh"], problems)?;
        let call = fields.required_text("call", problems)?.to_owned();
        let with = fields
            .get("with")
            .cloned()
            .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        if !with.is_object() {
            problems.add(&fields.at("with"), "bad_type", "`with` is a mapping of arguments");
        }
        // Only their grammar is checked here; what they name is checked where the whole graph is known.
        Template::compile(&with, &fields.at("with"), &|_| false, problems);
        let when = fields.text("when", problems);
        if let Some(text) = when {
            read_condition(text, &fields.at("when"), problems);
        }
        let fresh = fields.text("fresh", problems);
        if let Some(text) = fresh {
            read_condition(text, &fields.at("fresh"), problems);
        }
        let all_max = match fields.get("all") {
            None => None,
            Some(value) => {
                let all = Fields::open(value, &fields.at("all"), &["max"], problems)?;
                all.required("max", problems)?;
                let max = all.number("max", problems)?;
                match u32::try_from(max) {
                    Ok(max) if max > 0 => Some(max),
                    Ok(_) | Err(_) => {
                        problems.add(&all.at("max"), "bad_value", "`max` is a positive number of items");
                        None
                    }
                }
            }
        };
        Some(Self {
            call,
            with,
            when: when.map(str::to_owned),
            all_max,
            fresh: fresh.map(str::to_owned),
        })
    }
}
