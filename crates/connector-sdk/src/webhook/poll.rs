//! Events that come from a list alone: nothing is sent, so nothing is verified, and each item that is new is an event.
//!
//! A poll is read by the machinery of sweeps and enters by the same door as a webhook. What is new is told by the items'
//! own times and keys, so both are required.

use serde_json::Value;

use super::Webhook;
use super::body::BodyForm;
use super::context::ContextShape;
use super::recover::{LIST_WORDS, Recover};
use crate::fields::Fields;
use crate::problem::Problems;

/// Reads a poll of a manifest.
pub(crate) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Webhook> {
    let fields = Fields::open(value, place, &LIST_WORDS, problems)?;
    fields.required("identify", problems)?;
    let mut recover = Recover::read_poll(&fields, problems)?;
    let identify = recover.take_identify()?;
    if !identify.has_time() {
        problems.add_with_suggestion(
            &fields.at("identify"),
            "missing_key",
            "the first look takes what is new from now on, and without `time` nothing tells which items are",
            "name the pointer to the time at which an item was made or changed",
        );
    }
    if !identify.has_key() {
        problems.add_with_suggestion(
            place,
            "no_key",
            "nothing tells an item from the others",
            "name `identify.id`, or `dedupe` when an object comes again with each change, e.g. [/id, /updated_at]",
        );
    }
    Some(Webhook {
        verifier: None,
        handshakes: Vec::new(),
        identify,
        body: BodyForm::read(&fields, problems),
        context: ContextShape::read(&fields, problems),
        ack: None,
        recover: Some(recover),
        register: None,
        event_headers: Vec::new(),
    })
}
