//! How missed events are listed: data for the host's sweeps.

use serde_json::{Value, json};

use crate::expression::Scope;
use crate::fields::Fields;
use crate::operation::BuildError;
use crate::problem::Problems;
use crate::template::Template;

/// How far a connector can recover events that never arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The provider keeps a log of events.
    EventLog,
    /// Objects can be listed by when they changed; deletes and states in between are not seen.
    UpdatedSince,
    /// Nothing can be recovered.
    PushOnly,
}

impl Level {
    /// The letter used in manifests and shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventLog => "A",
            Self::UpdatedSince => "B",
            Self::PushOnly => "C",
        }
    }
}

/// What a sweep remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoverCursor {
    /// The id of the newest event seen.
    Id,
    /// The time of the newest event seen.
    Time,
}

/// How missed events are listed.
#[derive(Debug)]
pub struct Recover {
    /// What can be recovered.
    pub level: Level,
    /// The operation that lists events; `None` for [`Level::PushOnly`].
    pub call: Option<String>,
    /// What the sweep goes on from.
    pub cursor: RecoverCursor,
    /// How far back the provider's list reaches, in seconds; 0 when it does not say.
    pub reach_s: u64,
    /// How long an event may take to appear in the list, in seconds: sweeps overlap by it.
    pub settle_s: u64,
    with: Template,
}

impl Recover {
    /// Arguments of the listing call. Templates in `with` see `since_s`, `since_ms`, `since` (RFC 3339) and `cursor`.
    ///
    /// # Errors
    /// [`BuildError`] when a template cannot be filled in, e.g. uses `cursor` and there is none.
    pub fn args(&self, since_unix_ms: i64, cursor: Option<&str>) -> Result<Value, BuildError> {
        let since = chrono::DateTime::from_timestamp_millis(since_unix_ms)
            .ok_or_else(|| BuildError::new("/since", "the time is out of range"))?
            .to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let values = json!({ "since_s": since_unix_ms.div_euclid(1_000), "since_ms": since_unix_ms, "since": since });
        let mut values = values.as_object().cloned().unwrap_or_default();
        if let Some(cursor) = cursor {
            values.insert("cursor".to_owned(), cursor.into());
        }
        let scope = Scope {
            named: &[],
            layers: &[&values],
        };
        let rendered = self
            .with
            .render(&scope)
            .map_err(|error| BuildError::new("/with", error.message))?;
        Ok(rendered.map_or(Value::Null, |value| value.into_owned()))
    }

    pub(super) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(
            value,
            place,
            &["level", "call", "with", "cursor", "reach", "settle"],
            problems,
        )?;
        fields.required("level", problems)?;
        let level = fields.choice(
            "level",
            &[
                ("A", Level::EventLog),
                ("B", Level::UpdatedSince),
                ("C", Level::PushOnly),
            ],
            problems,
        )?;
        let call = fields.text("call", problems).map(str::to_owned);
        if (level == Level::PushOnly) == call.is_some() {
            problems.add(
                place,
                "bad_value",
                "levels A and B have a `call` that lists events, level C has none",
            );
        }
        let with = fields.get("with").cloned().unwrap_or_else(|| json!({}));
        Some(Self {
            level,
            call,
            cursor: fields
                .choice(
                    "cursor",
                    &[("id", RecoverCursor::Id), ("time", RecoverCursor::Time)],
                    problems,
                )
                .unwrap_or(RecoverCursor::Time),
            reach_s: fields.duration_s("reach", problems).unwrap_or(0),
            settle_s: fields.duration_s("settle", problems).unwrap_or(0),
            // `cursor` is absent on the first sweep; its key is left out then.
            with: Template::compile(
                &with,
                &fields.at("with"),
                &|expression| expression.roots() == ["cursor"],
                problems,
            ),
        })
    }

    /// The names of the arguments that `with` gives.
    pub(crate) fn argument_names(&self) -> Vec<&str> {
        match &self.with {
            Template::Object(entries) => entries.iter().map(|(name, _)| name.as_str()).collect(),
            Template::Literal(Value::Object(map)) => map.keys().map(String::as_str).collect(),
            Template::Literal(_) | Template::Single { .. } | Template::Text(_) | Template::Array(_) => Vec::new(),
        }
    }
}
