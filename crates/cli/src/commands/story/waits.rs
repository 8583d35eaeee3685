//! What runs under way wait for from outside, in words.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A step that waits for an event, a person's decision, or the end of another run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OpenWait {
    pub(crate) step: String,
    pub(crate) step_name: String,
    pub(crate) reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) event_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) question: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) by: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run_id: Option<String>,
    pub(crate) since: DateTime<Utc>,
    pub(crate) until: DateTime<Utc>,
}

impl OpenWait {
    /// What for, in a few words.
    pub(crate) fn what(&self) -> String {
        match self.reason.as_str() {
            "EVENT" => {
                let kind = self.event_type.as_deref().unwrap_or("an event");
                let key = self.key.as_ref().map(|key| format!(" for {key:?}"));
                format!("{kind}{}", key.unwrap_or_default())
            }
            "DECISION" => {
                let who = match self.by.as_slice() {
                    [] => "anybody who may decide".to_owned(),
                    names => names.join(" or "),
                };
                format!("a decision by {who}")
            }
            "RUN" => format!("the end of {}", self.run_id.as_deref().unwrap_or("a run")),
            other => other.to_lowercase(),
        }
    }
}

/// What the first of these waits for, and how many more there are.
pub(crate) fn summary(waits: &[OpenWait]) -> Option<String> {
    let first = waits.first()?;
    let more = match waits.len() - 1 {
        0 => String::new(),
        1 => " and 1 other".to_owned(),
        more => format!(" and {more} others"),
    };
    Some(format!("waits for {}{more}", first.what()))
}
