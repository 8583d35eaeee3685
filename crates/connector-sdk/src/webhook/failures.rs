//! How a provider tells that it could not deliver: a list of failed deliveries, of which one younger than the last sweep
//! is reason enough for another.
//!
//! Nothing of such a list becomes an event; what was not delivered is found by the sweep that follows.

use serde_json::Value;

use super::identify::unix_ms;
use super::recover::{MIN_SWEEP_EVERY_S, argument_names, filled, pointer, since_values};
use crate::fields::Fields;
use crate::operation::BuildError;
use crate::pointer::Pointer;
use crate::problem::Problems;
use crate::template::Template;

/// Time between two looks at the list when the manifest does not say, in seconds.
const DEFAULT_EVERY_S: u64 = 60;

/// How failed deliveries are listed.
#[derive(Debug)]
pub struct Failures {
    /// The operation that lists deliveries, the newest on its first page.
    pub call: String,
    /// Time between two looks, in seconds.
    pub every_s: u64,
    with: Template,
    time: Option<Pointer>,
    failed: Option<Failed>,
}

/// Which of the listed deliveries failed.
#[derive(Debug)]
struct Failed {
    at: Pointer,
    /// The values that tell a failure, or those that tell that there was none.
    values: Vec<Value>,
    are_failures: bool,
}

impl Failures {
    /// Arguments of the call. Templates in `with` see `since`, `since_s` and `since_ms`.
    ///
    /// # Errors
    /// [`BuildError`] when a template cannot be filled in, e.g. the time is out of range.
    pub fn args(&self, since_unix_ms: i64) -> Result<Value, BuildError> {
        let values = since_values(since_unix_ms)?;
        filled(&self.with, &values, "/failures/with")
    }

    /// Whether an item of the list tells that a delivery failed within a span, in Unix milliseconds. One without a time
    /// that can be read is taken for a new one: looking in vain costs less than not looking.
    pub fn tells(&self, item: &Value, span_unix_ms: (i64, i64)) -> bool {
        let time = self.time.as_ref().and_then(|time| unix_ms(time.lookup(item)?));
        let (since, until) = span_unix_ms;
        // Many providers know whole seconds.
        let since = since - since.rem_euclid(1_000);
        if time.is_some_and(|time| !(since..=until).contains(&time)) {
            return false;
        }
        self.failed.as_ref().is_none_or(|failed| {
            let value = failed.at.lookup(item).unwrap_or(&Value::Null);
            failed.values.contains(value) == failed.are_failures
        })
    }

    pub(super) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(value, place, &["call", "with", "every", "time", "when"], problems)?;
        let every_s = fields.duration_s("every", problems).unwrap_or(DEFAULT_EVERY_S);
        if every_s < MIN_SWEEP_EVERY_S {
            problems.add(
                &fields.at("every"),
                "out_of_bounds",
                format!("failed deliveries are looked for {MIN_SWEEP_EVERY_S} s apart at least"),
            );
        }
        let failed = fields
            .get("when")
            .and_then(|value| Failed::read(value, &fields.at("when"), problems));
        let with = fields
            .get("with")
            .cloned()
            .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        Some(Self {
            call: fields.required_text("call", problems)?.to_owned(),
            every_s,
            with: Template::compile(&with, &fields.at("with"), &|_| false, problems),
            time: pointer(&fields, "time", problems),
            failed,
        })
    }

    /// The names of the arguments that `with` gives.
    pub(crate) fn argument_names(&self) -> Vec<&str> {
        argument_names(&self.with)
    }
}

impl Failed {
    fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(value, place, &["at", "is", "not"], problems)?;
        fields.required("at", problems)?;
        let (key, are_failures) = match (fields.get("is"), fields.get("not")) {
            (Some(_), None) => ("is", true),
            (None, Some(_)) => ("not", false),
            (None, None) | (Some(_), Some(_)) => {
                problems.add(
                    place,
                    "bad_value",
                    "`is` names the values of failed deliveries, or `not` those of all others",
                );
                return None;
            }
        };
        let Some(values) = fields
            .get(key)
            .and_then(Value::as_array)
            .filter(|values| !values.is_empty())
        else {
            problems.add(
                &fields.at(key),
                "bad_type",
                format!("`{key}` is a list of values, e.g. [failed]"),
            );
            return None;
        };
        Some(Self {
            at: pointer(&fields, "at", problems)?,
            values: values.clone(),
            are_failures,
        })
    }
}
