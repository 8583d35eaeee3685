//! What an endpoint says about sweeps, polls and the registration of its webhook, and whether it takes webhooks at all.

use serde_json::{Map, Value, json};
use std::time::Duration;
use weir_connector_sdk::{MIN_SWEEP_EVERY_S, duration_s};
use weir_workflow_engine::Timestamp;

/// How often an endpoint is swept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SweepRule {
    /// As often as its connector says.
    #[default]
    Connector,
    /// On demand alone.
    Never,
    /// This often, as it was written.
    Every(String, Duration),
}

/// What an endpoint says about how events come in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intake {
    /// It has no URL: events come by sweeps alone.
    pub sweeps_only: bool,
    /// How often it is swept.
    pub sweep: SweepRule,
    /// The list of its connector from which its events come, instead of webhooks.
    pub poll: Option<String>,
    /// From when on the first look at that list takes items, as it was written; without it, from when it was made.
    pub since: Option<(String, Timestamp)>,
    /// Its webhook is registered at the provider by us.
    pub register: Option<Box<RegisterRule>>,
}

/// What an endpoint says about the registration of its webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegisterRule {
    /// The event types that are wanted; `None`: those that published workflows take of the connection.
    pub events: Option<Vec<String>>,
    /// What the connector asks for, such as whose webhooks are wanted.
    pub with: Map<String, Value>,
}

impl RegisterRule {
    const IS: &str = "`register` is true, or { events: [TYPE, …], with: { NAME: VALUE } }";

    fn read(value: Option<&Value>) -> Result<Option<Self>, IntakeProblem> {
        let wrong = || ("register", Self::IS.to_owned());
        let fields = match value {
            None | Some(Value::Null | Value::Bool(false)) => return Ok(None),
            Some(Value::Bool(true)) => return Ok(Some(Self::default())),
            Some(Value::Object(fields)) => fields,
            Some(_) => return Err(wrong()),
        };
        if fields.keys().any(|key| !matches!(key.as_str(), "events" | "with")) {
            return Err(wrong());
        }
        let text = |item: &Value| item.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let events = match fields.get("events") {
            None | Some(Value::Null) => None,
            Some(Value::Array(items)) if !items.is_empty() => {
                Some(items.iter().map(text).collect::<Option<Vec<_>>>().ok_or_else(wrong)?)
            }
            Some(_) => return Err(wrong()),
        };
        let with = match fields.get("with") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(with)) => with.clone(),
            Some(_) => return Err(wrong()),
        };
        Ok(Some(Self { events, with }))
    }

    fn written(&self) -> Value {
        let mut fields = Map::new();
        if let Some(events) = &self.events {
            fields.insert("events".to_owned(), json!(events));
        }
        if !self.with.is_empty() {
            fields.insert("with".to_owned(), Value::Object(self.with.clone()));
        }
        match fields.is_empty() {
            true => Value::Bool(true),
            false => Value::Object(fields),
        }
    }
}

const SINCE_IS: &str =
    "`since` is a time, e.g. \"2026-11-01T08:00:00Z\", or a day, e.g. \"2026-11-01\", which begins at midnight UTC";

/// A time or the beginning of a day.
fn moment(text: &str) -> Option<Timestamp> {
    let of_day = || {
        let day = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
    };
    let of_time = || Some(chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis());
    of_time().or_else(of_day).map(Timestamp::from_unix_ms)
}

/// Something wrong: the key, and what it should be.
pub(crate) type IntakeProblem = (&'static str, String);

impl Intake {
    /// Reads `receive`, `poll`, `sweep` and `register` of a document or a row.
    pub(crate) fn read(document: &Map<String, Value>) -> Result<Self, IntakeProblem> {
        let text = |key: &'static str, problem: &str| match document.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err((key, problem.to_owned())),
        };
        let poll = text("poll", "`poll` is the name of one of the connector's `polls`")?;
        let since = text("since", SINCE_IS)?
            .map(|text| match moment(&text) {
                Some(at) => Ok((text, at)),
                None => Err(("since", SINCE_IS.to_owned())),
            })
            .transpose()?;
        if since.is_some() && poll.is_none() {
            return Err((
                "since",
                "`since` belongs to `poll`: other endpoints begin when they are made, and a backfill fetches what was before"
                    .to_owned(),
            ));
        }
        let sweeps_only = match document.get("receive") {
            Some(Value::String(word)) if poll.is_some() && word == "webhooks" => {
                return Err((
                    "receive",
                    "an endpoint with a `poll` takes no webhooks; make another endpoint for them".to_owned(),
                ));
            }
            _ if poll.is_some() => true,
            None | Some(Value::Null) => false,
            Some(Value::String(word)) if word == "webhooks" => false,
            Some(Value::String(word)) if word == "never" => true,
            Some(_) => {
                return Err((
                    "receive",
                    "`receive` is `webhooks` or `never`: with `never` events come by sweeps alone".to_owned(),
                ));
            }
        };
        let sweep = match document.get("sweep") {
            None | Some(Value::Null) => SweepRule::Connector,
            Some(Value::String(word)) if word == "never" => SweepRule::Never,
            Some(Value::Object(fields)) if fields.len() == 1 => {
                let text = fields.get("every").and_then(Value::as_str).unwrap_or_default();
                match duration_s(text) {
                    Some(seconds) if seconds >= MIN_SWEEP_EVERY_S => {
                        SweepRule::Every(text.to_owned(), Duration::from_secs(seconds))
                    }
                    Some(_) | None => {
                        return Err((
                            "sweep",
                            format!("`sweep` is `never` or {{ every: 5m }}, at least {MIN_SWEEP_EVERY_S}s"),
                        ));
                    }
                }
            }
            Some(_) => return Err(("sweep", "`sweep` is `never` or { every: 5m }".to_owned())),
        };
        let register = RegisterRule::read(document.get("register"))?.map(Box::new);
        if register.is_some() && sweeps_only {
            return Err((
                "register",
                "an endpoint that takes no webhooks has none to register; leave `register` out".to_owned(),
            ));
        }
        Ok(Intake {
            sweeps_only,
            sweep,
            poll,
            since,
            register,
        })
    }

    /// As it is written in documents: only what is said.
    #[must_use]
    pub fn parts(&self) -> Map<String, Value> {
        let mut parts = Map::new();
        if let Some(poll) = &self.poll {
            parts.insert("poll".to_owned(), json!(poll));
        } else if self.sweeps_only {
            parts.insert("receive".to_owned(), json!("never"));
        }
        if let Some((text, _)) = &self.since {
            parts.insert("since".to_owned(), json!(text));
        }
        if let Some(register) = &self.register {
            parts.insert("register".to_owned(), register.written());
        }
        match &self.sweep {
            SweepRule::Connector => {}
            SweepRule::Never => {
                parts.insert("sweep".to_owned(), json!("never"));
            }
            SweepRule::Every(text, _) => {
                parts.insert("sweep".to_owned(), json!({ "every": text }));
            }
        }
        parts
    }

    /// As it is stored; `None` when nothing is said.
    pub(crate) fn stored(&self) -> Option<String> {
        let parts = self.parts();
        (!parts.is_empty()).then(|| Value::Object(parts).to_string())
    }
}
