//! One trace from the webhook through every step and outgoing call (W3C Trace Context).
//!
//! Spans exist only while an exporter wants them; otherwise they are disabled where they stand, and the sender's
//! `traceparent` is passed on as it came.

use opentelemetry::propagation::{Extractor, Injector};
use tracing::{Span, field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use weir_workflow_engine::RunHead;

/// Name of the header that carries a trace.
const TRACEPARENT: &str = "traceparent";

/// The one header that a context travels in.
#[derive(Default)]
struct Header(Option<String>);

impl Extractor for Header {
    fn get(&self, key: &str) -> Option<&str> {
        if key.eq_ignore_ascii_case(TRACEPARENT) {
            self.0.as_deref()
        } else {
            None
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

impl Injector for Header {
    fn set(&mut self, key: &str, value: String) {
        if key.eq_ignore_ascii_case(TRACEPARENT) {
            self.0 = Some(value);
        }
    }
}

/// The span of a received webhook, a child of the sender's span if it sent one.
pub(crate) fn webhook(endpoint: &str, traceparent: Option<&str>) -> Span {
    let span = info_span!("webhook", "otel.kind" = "server", "endpoint.name" = endpoint);
    adopt(&span, traceparent);
    span
}

/// The span of a run, a child of its webhook's span also after a restart.
pub(crate) fn run(head: &RunHead, traceparent: Option<&str>) -> Span {
    let span = info_span!("run", "run.id" = field::Empty, "workflow.name" = field::Empty);
    if !span.is_disabled() {
        span.record("run.id", field::display(head.id));
        span.record("workflow.name", head.workflow_name.as_str());
    }
    adopt(&span, traceparent);
    span
}

fn adopt(span: &Span, traceparent: Option<&str>) {
    if span.is_disabled() {
        return;
    }
    if let Some(value) = traceparent {
        let header = Header(Some(value.to_owned()));
        let parent = opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&header));
        if let Err(error) = span.set_parent(parent) {
            tracing::debug!("the sender's trace cannot be continued: {error}");
        }
    }
}

/// What to send on so that the receiver's spans become children of `span`. `None` while nobody exports.
pub(crate) fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let mut header = Header::default();
    let context = span.context();
    opentelemetry::global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut header));
    header.0
}
