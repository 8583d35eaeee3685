//! How missed events are listed: data for the host's sweeps.
//!
//! A manifest says which operation lists them, what the next request goes on from (the cursor), and what the list is
//! known to get wrong for a while (`settle`). Which items are new is not decided here: they pass the same door and the
//! same dedupe as webhooks.

use serde_json::{Map, Value, json};

use super::failures::Failures;
use super::identify::{Identified, Identify, IdentifyError};
use crate::expression::Scope;
use crate::fields::Fields;
use crate::operation::BuildError;
use crate::pointer::Pointer;
use crate::problem::Problems;
use crate::template::Template;

/// Time between two sweeps when neither manifest nor endpoint says, in seconds.
const DEFAULT_EVERY_S: u64 = 300;
/// The shortest time between two sweeps, in seconds.
///
/// Limit: seconds between two sweeps of an endpoint, at least | the manifest is refused, `out_of_bounds`; a document too | `words_of_recover_are_checked`
pub const MIN_SWEEP_EVERY_S: u64 = 5;
/// What templates in `with` call the beginning of what is wanted, its end, and where to go on.
const SINCE: [&str; 3] = ["since", "since_s", "since_ms"];
const UNTIL: [&str; 3] = ["until", "until_s", "until_ms"];
const CURSOR: &str = "cursor";
/// What can be said of every list.
pub(super) const LIST_WORDS: [&str; 15] = [
    "level", "call", "with", "cursor", "order", "next", "more", "position", "overlap", "reach", "settle", "every",
    "expired", "identify", "dedupe",
];

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

    /// What a sweep of this level can and cannot see, for people.
    pub fn promise(self) -> &'static str {
        match self {
            Self::EventLog => "every event within the provider's reach is found",
            Self::UpdatedSince => "the last state of every object is found; states in between and deletes are not",
            Self::PushOnly => "the provider lists nothing: what it does not deliver is not found",
        }
    }
}

/// What a sweep remembers between two requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoverCursor {
    /// The id of the newest item seen.
    Id,
    /// The time of the newest item seen; the list is walked by the operation's own paging.
    Time,
    /// An opaque token in each answer, for the next request.
    Token,
    /// How many items were read so far.
    Offset,
    /// A link in the last page, which lists what changed since.
    Delta,
    /// The position number of the newest item.
    Journal,
}

/// In which order the items of a page stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOrder {
    /// The first is the oldest.
    OldestFirst,
    /// The first is the newest.
    NewestFirst,
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
    /// The order within a page.
    pub order: ListOrder,
    /// How far back the provider's list reaches, in seconds; 0 when it does not say.
    pub reach_s: u64,
    /// How long items may still appear out of order, in seconds: the cursor does not pass younger ones.
    pub settle_s: u64,
    /// How far each sweep goes back behind where the last one ended, in seconds.
    pub overlap_s: u64,
    /// Time between two sweeps, unless the endpoint says, in seconds.
    pub every_s: u64,
    /// Statuses by which the provider says that it no longer knows the cursor.
    pub expired: Vec<u16>,
    /// How the provider tells that it could not deliver.
    pub failures: Option<Failures>,
    next: Option<Pointer>,
    more: Option<Pointer>,
    position: Option<Pointer>,
    identify: Option<Identify>,
    with: Template,
}

impl Recover {
    /// Arguments of the listing call. Templates in `with` see `since_s`, `since_ms`, `since` (RFC 3339), `cursor`, and the
    /// same three of `until`, rounded up to a whole second in `until_s`, where an end is given.
    ///
    /// # Errors
    /// [`BuildError`] when a template cannot be filled in, e.g. a time is out of range.
    pub fn args(
        &self,
        since_unix_ms: i64,
        until_unix_ms: Option<i64>,
        cursor: Option<&str>,
    ) -> Result<Value, BuildError> {
        let mut values = since_values(since_unix_ms)?;
        if let Some(until_ms) = until_unix_ms {
            let until_s = until_ms.saturating_add(999).div_euclid(1_000);
            values.insert("until_s".to_owned(), until_s.into());
            values.insert("until_ms".to_owned(), until_ms.into());
            values.insert("until".to_owned(), rfc_3339(until_ms, "/until")?.into());
        }
        if let Some(cursor) = cursor {
            values.insert("cursor".to_owned(), self.cursor_value(cursor));
        }
        filled(&self.with, &values, "/with")
    }

    /// Whether the listing call is told where the list begins in time.
    pub fn takes_since(&self) -> bool {
        self.takes(&SINCE)
    }

    /// Whether the listing call is told where the list ends in time.
    pub fn takes_until(&self) -> bool {
        self.takes(&UNTIL)
    }

    /// Whether the listing call is told what it goes on from.
    pub fn takes_cursor(&self) -> bool {
        self.takes(&[CURSOR])
    }

    fn takes(&self, names: &[&str]) -> bool {
        let mut found = false;
        self.with.visit(&mut |expression| {
            found |= expression.roots().iter().any(|root| names.contains(root));
        });
        found
    }

    /// Counts are numbers in requests; everything else is text.
    fn cursor_value(&self, cursor: &str) -> Value {
        match self.cursor {
            RecoverCursor::Offset | RecoverCursor::Journal => {
                cursor.parse::<u64>().map_or_else(|_| cursor.into(), Value::from)
            }
            RecoverCursor::Id | RecoverCursor::Time | RecoverCursor::Token | RecoverCursor::Delta => cursor.into(),
        }
    }

    /// The token or delta link that an answer holds for later.
    pub fn next_cursor(&self, body: &Value) -> Option<String> {
        match self.next.as_ref()?.lookup(body)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Whether an answer says that there is more, where the manifest says where it says so.
    pub fn says_more(&self, body: &Value) -> Option<bool> {
        let more = self.more.as_ref()?;
        Some(more.lookup(body).and_then(Value::as_bool).unwrap_or(false))
    }

    /// The position number of an item.
    pub fn position(&self, item: &Value) -> Option<u64> {
        match self.position.as_ref()?.lookup(item)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// What an item of the list is, where it differs from a webhook's body. `None`: it does not.
    pub fn identify(&self, item: &Value) -> Option<Result<Identified, IdentifyError>> {
        self.identify.as_ref().map(|identify| identify.listed(item))
    }

    /// How items of the list are told apart from a webhook's events, where they are.
    pub(super) fn own_identify(&self) -> Option<&Identify> {
        self.identify.as_ref()
    }

    pub(super) fn has_own_identify(&self) -> bool {
        self.identify.is_some()
    }

    /// Both doors must know an event by the same key: without one, what was delivered and is listed would run twice.
    pub(super) fn check_keys(&self, webhooks: &Identify, place: &str, problems: &mut Problems) {
        let listed = self.identify.as_ref().unwrap_or(webhooks);
        if self.level == Level::PushOnly || webhooks.has_key() && listed.has_key() {
            return;
        }
        problems.add_with_suggestion(
            place,
            "no_key",
            "nothing says that a webhook and an item of the list are the same event",
            "name what is the same in both by `identify.id` or `dedupe` of `webhook`, and of `recover` where its items \
             look different; headers do not count, for items have none",
        );
    }

    pub(super) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let known: Vec<&str> = LIST_WORDS.iter().chain(&["failures", "sequence"]).copied().collect();
        let fields = Fields::open(value, place, &known, problems)?;
        fields.required("level", problems)?;
        let levels = [
            ("A", Level::EventLog),
            ("B", Level::UpdatedSince),
            ("C", Level::PushOnly),
        ];
        let level = fields.choice("level", &levels, problems)?;
        let failures = fields
            .get("failures")
            .and_then(|value| Failures::read(value, &fields.at("failures"), problems));
        if level == Level::PushOnly && failures.is_some() {
            problems.add(
                &fields.at("failures"),
                "bad_value",
                "a failed delivery is recovered by a sweep, and level C has none",
            );
        }
        let list = Self::read_list(&fields, level, problems)?;
        Some(Self { failures, ..list })
    }

    /// A list whose items come by no other way.
    pub(super) fn read_poll(fields: &Fields<'_>, problems: &mut Problems) -> Option<Self> {
        let levels = [("A", Level::EventLog), ("B", Level::UpdatedSince)];
        let level = fields.choice("level", &levels, problems).unwrap_or(Level::UpdatedSince);
        fields.required("call", problems)?;
        Self::read_list(fields, level, problems)
    }

    /// Takes out how its items are identified.
    pub(super) fn take_identify(&mut self) -> Option<Identify> {
        self.identify.take()
    }

    fn read_list(fields: &Fields<'_>, level: Level, problems: &mut Problems) -> Option<Self> {
        let call = fields.text("call", problems).map(str::to_owned);
        if (level == Level::PushOnly) == call.is_some() {
            problems.add(
                fields.place(),
                "bad_value",
                "levels A and B have a `call` that lists events, level C has none",
            );
        }
        let cursors = [
            ("id", RecoverCursor::Id),
            ("time", RecoverCursor::Time),
            ("token", RecoverCursor::Token),
            ("offset", RecoverCursor::Offset),
            ("delta", RecoverCursor::Delta),
            ("journal", RecoverCursor::Journal),
        ];
        let cursor = fields
            .choice("cursor", &cursors, problems)
            .unwrap_or(RecoverCursor::Time);
        let orders = [
            ("oldest_first", ListOrder::OldestFirst),
            ("newest_first", ListOrder::NewestFirst),
        ];
        let order = fields
            .choice("order", &orders, problems)
            .unwrap_or(ListOrder::OldestFirst);
        if order == ListOrder::NewestFirst && matches!(cursor, RecoverCursor::Offset | RecoverCursor::Journal) {
            problems.add(
                &fields.at("order"),
                "bad_value",
                "a list that is counted from its start is `oldest_first`",
            );
        }
        for (key, kinds) in [
            ("next", &[RecoverCursor::Token, RecoverCursor::Delta][..]),
            ("position", &[RecoverCursor::Journal][..]),
        ] {
            if kinds.contains(&cursor) != fields.get(key).is_some() {
                problems.add(
                    fields.place(),
                    "bad_value",
                    "`next` belongs to the cursors `token` and `delta`, `position` to `journal`, each of which needs it",
                );
            }
        }
        let with = fields.get("with").cloned().unwrap_or_else(|| json!({}));
        let every_s = fields.duration_s("every", problems).unwrap_or(DEFAULT_EVERY_S);
        if every_s < MIN_SWEEP_EVERY_S {
            problems.add(
                &fields.at("every"),
                "out_of_bounds",
                format!("sweeps are {MIN_SWEEP_EVERY_S} s apart at least"),
            );
        }
        Some(Self {
            level,
            call,
            cursor,
            order,
            reach_s: fields.duration_s("reach", problems).unwrap_or(0),
            settle_s: fields.duration_s("settle", problems).unwrap_or(0),
            overlap_s: fields.duration_s("overlap", problems).unwrap_or(0),
            every_s,
            expired: read_statuses(fields, problems),
            failures: None,
            next: pointer(fields, "next", problems),
            more: pointer(fields, "more", problems),
            position: pointer(fields, "position", problems),
            identify: fields
                .get("identify")
                .is_some()
                .then(|| Identify::read(fields, Vec::new(), problems))
                .flatten(),
            // `cursor` is absent on the first sweep, and `until` on all of them; their keys are left out then.
            with: Template::compile(
                &with,
                &fields.at("with"),
                &|expression| match expression.roots().as_slice() {
                    [root] => *root == CURSOR || UNTIL.contains(root),
                    _ => false,
                },
                problems,
            ),
        })
    }

    /// The names of the arguments that `with` gives.
    pub(crate) fn argument_names(&self) -> Vec<&str> {
        argument_names(&self.with)
    }
}

/// The names of the arguments that a template of arguments gives.
pub(super) fn argument_names(with: &Template) -> Vec<&str> {
    match with {
        Template::Object(entries) => entries.iter().map(|(name, _)| name.as_str()).collect(),
        Template::Literal(Value::Object(map)) => map.keys().map(String::as_str).collect(),
        Template::Literal(_) | Template::Single { .. } | Template::Text(_) | Template::Array(_) => Vec::new(),
    }
}

/// The arguments of a listing call, from its `with` and what its templates see.
pub(super) fn filled(with: &Template, values: &Map<String, Value>, place: &str) -> Result<Value, BuildError> {
    let scope = Scope {
        named: &[],
        layers: &[values],
    };
    let rendered = with
        .render(&scope)
        .map_err(|error| BuildError::new(place, error.message))?;
    Ok(rendered.map_or(Value::Null, |value| value.into_owned()))
}

/// The beginning of what is wanted, in three forms.
pub(super) fn since_values(unix_ms: i64) -> Result<Map<String, Value>, BuildError> {
    let since = rfc_3339(unix_ms, "/since")?;
    let values = json!({ "since_s": unix_ms.div_euclid(1_000), "since_ms": unix_ms, "since": since });
    Ok(values.as_object().cloned().unwrap_or_default())
}

pub(super) fn rfc_3339(unix_ms: i64, place: &str) -> Result<String, BuildError> {
    chrono::DateTime::from_timestamp_millis(unix_ms)
        .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
        .ok_or_else(|| BuildError::new(place, "the time is out of range"))
}

pub(super) fn pointer(fields: &Fields<'_>, key: &str, problems: &mut Problems) -> Option<Pointer> {
    let text = fields.text(key, problems)?;
    let found = Pointer::parse(text).filter(|pointer| !pointer.has_wildcard());
    if found.is_none() {
        problems.add(
            &fields.at(key),
            "bad_pointer",
            format!("`{text}` is not a JSON Pointer to one value"),
        );
    }
    found
}

fn read_statuses(fields: &Fields<'_>, problems: &mut Problems) -> Vec<u16> {
    let Some(value) = fields.get("expired") else {
        return Vec::new();
    };
    let statuses: Option<Vec<u16>> = value.as_array().and_then(|list| {
        let number = |status: &Value| status.as_u64().and_then(|status| u16::try_from(status).ok());
        list.iter().map(number).collect()
    });
    match statuses {
        Some(statuses) if statuses.iter().all(|status| (400..500).contains(status)) => statuses,
        Some(_) | None => {
            problems.add(
                &fields.at("expired"),
                "bad_value",
                "`expired` is a list of 4xx statuses, e.g. [410]",
            );
            Vec::new()
        }
    }
}
