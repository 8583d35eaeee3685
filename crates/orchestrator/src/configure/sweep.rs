//! What an endpoint says about sweeps, and whether it takes webhooks at all.

use serde_json::{Map, Value, json};
use std::time::Duration;
use weir_connector_sdk::{MIN_SWEEP_EVERY_S, duration_s};

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
}

/// Something wrong: the key, and what it should be.
pub(crate) type IntakeProblem = (&'static str, String);

impl Intake {
    /// Reads `receive` and `sweep` of a document or a row.
    pub(crate) fn read(document: &Map<String, Value>) -> Result<Self, IntakeProblem> {
        let sweeps_only = match document.get("receive") {
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
        Ok(Intake { sweeps_only, sweep })
    }

    /// As it is written in documents: only what is said.
    #[must_use]
    pub fn parts(&self) -> Map<String, Value> {
        let mut parts = Map::new();
        if self.sweeps_only {
            parts.insert("receive".to_owned(), json!("never"));
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
