//! Logs, traces and metrics of the process.
//!
//! Logs go to standard error (or a file). Traces leave over OTLP/HTTP only when `OTEL_EXPORTER_OTLP_ENDPOINT` or
//! `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set; otherwise spans are switched off where they stand and cost nearly nothing.
//! Metrics are kept for `/metrics`. Nothing here may ever print a secret or a body.

use crate::config::LogFormat;
use crate::failure::Failure;
use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Name of the service in traces, unless `OTEL_SERVICE_NAME` says otherwise.
const SERVICE_NAME: &str = "weir";
/// How long a stop waits for the last spans to leave.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// How often histogram samples are folded into their buckets, so that memory stays flat when nobody scrapes.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// Upper bounds of durations, seconds: from a commit in memory to a slow provider.
const DURATION_BUCKETS_S: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// The same, for metrics in milliseconds.
const DURATION_BUCKETS_MS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 30_000.0, 60_000.0,
];

/// What was switched on; keep it until the end and call [`Telemetry::flush`].
pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Where the log goes.
pub(crate) enum LogTarget<'a> {
    StandardError,
    /// Appended to; made when missing.
    File(&'a Path),
}

/// Switches logging and, when asked for by the environment, tracing on. Call once, inside the runtime.
pub(crate) fn start(log: Option<&str>, format: Option<LogFormat>, target: &LogTarget<'_>) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(log.unwrap_or("info,sqlx=warn,sea_orm=warn,sea_orm_migration=warn,actix_server=warn,opentelemetry=warn"))
        .map_err(|error| {
            Failure::usage(format!("WEIR_LOG is not a log filter: {error}"))
                .fix("for example info, or info,weir_orchestrator=debug")
        })?;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let traces = if otlp_wanted() { Some(trace_provider()?) } else { None };

    let (writer, terminal): (tracing_subscriber::fmt::writer::BoxMakeWriter, bool) = match target {
        LogTarget::StandardError => (
            tracing_subscriber::fmt::writer::BoxMakeWriter::new(std::io::stderr),
            std::io::stderr().is_terminal(),
        ),
        LogTarget::File(path) => {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("could not open the log {}", path.display()))?;
            (
                tracing_subscriber::fmt::writer::BoxMakeWriter::new(Mutex::new(file)),
                false,
            )
        }
    };
    let text = match format {
        Some(LogFormat::Text) => true,
        Some(LogFormat::Json) => false,
        None => terminal || matches!(target, LogTarget::File(_)),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(terminal);
    let lines = if text {
        layer.boxed()
    } else {
        layer.json().flatten_event(true).boxed()
    };
    // Lines are complete without their spans, so spans are of interest to the exporter only.
    let events_only = filter_fn(|metadata| metadata.is_event());

    match &traces {
        None => tracing_subscriber::registry()
            .with(lines)
            .with(filter)
            .with(events_only)
            .try_init()?,
        Some(provider) => {
            // Only our own spans: the exporter's HTTP client must not trace its own exports.
            let ours = Targets::new().with_target("weir", LevelFilter::INFO);
            let spans = tracing_opentelemetry::layer()
                .with_tracer(provider.tracer(SERVICE_NAME))
                .with_filter(ours);
            tracing_subscriber::registry()
                .with(lines.with_filter(events_only).with_filter(filter))
                .with(spans)
                .try_init()?;
        }
    }
    Ok(Telemetry { traces })
}

impl Telemetry {
    /// Sends what is still buffered. Blocks for at most a few seconds; call it off the runtime's threads.
    pub(crate) fn flush(self) {
        let Some(traces) = self.traces else { return };
        if let Err(error) = traces.shutdown_with_timeout(FLUSH_LIMIT) {
            tracing::warn!(%error, "some spans were not exported at shutdown");
        }
    }
}

/// Tracing is wanted when the standard variables name a collector and do not switch it off.
#[expect(
    clippy::disallowed_methods,
    reason = "the OTEL_ variables are standard and read nowhere else"
)]
fn otlp_wanted() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let none = set("OTEL_TRACES_EXPORTER").is_some_and(|value| value.eq_ignore_ascii_case("none"));
    let endpoint = set("OTEL_EXPORTER_OTLP_ENDPOINT").or_else(|| set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"));
    endpoint.is_some() && !disabled && !none
}

/// The exporter reads endpoint, headers and timeout from the environment, the provider its sampler (`OTEL_TRACES_SAMPLER`).
#[expect(
    clippy::disallowed_methods,
    reason = "the OTEL_ variables are standard and read nowhere else"
)]
fn trace_provider() -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .build()
        .context(
            Failure::usage("the OTLP exporter could not be set up")
                .fix("check OTEL_EXPORTER_OTLP_ENDPOINT, e.g. http://127.0.0.1:4318"),
        )?;
    let exporter = OnRuntime {
        exporter: Arc::new(exporter),
        runtime: tokio::runtime::Handle::current(),
    };
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(SERVICE_NAME);
    }
    let resource = resource
        .with_attribute(opentelemetry::KeyValue::new(
            "service.version",
            env!("CARGO_PKG_VERSION"),
        ))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

/// The batch processor exports from a plain thread; the HTTP client below needs the runtime. This carries the batch over.
#[derive(Debug)]
struct OnRuntime<E> {
    exporter: Arc<E>,
    runtime: tokio::runtime::Handle,
}

impl<E: SpanExporter + 'static> SpanExporter for OnRuntime<E> {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let exporter = Arc::clone(&self.exporter);
        let task = self.runtime.spawn(async move { exporter.export(batch).await });
        async move {
            task.await
                .map_err(|error| OTelSdkError::InternalFailure(error.to_string()))?
        }
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called once while the provider is built, before the first export shares the exporter.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }
}

/// Keeps metrics; answers the text of `/metrics`. Call once, inside the runtime.
pub(crate) fn start_metrics() -> anyhow::Result<Arc<dyn Fn() -> String + Send + Sync>> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), DURATION_BUCKETS_S)?
        .set_buckets_for_metric(Matcher::Suffix("_ms".to_owned()), DURATION_BUCKETS_MS)?
        .install_recorder()
        .context("could not install the metrics recorder")?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(METRICS_UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(Arc::new(move || render(&handle)))
}

fn render(handle: &PrometheusHandle) -> String {
    let mut text = handle.render();
    process_metrics(&mut text);
    text
}

/// The usual `process_…` series and the build, from `/proc`; series that this system cannot give are left out.
fn process_metrics(text: &mut String) {
    let mut gauge = |name: &str, help: &str, kind: &str, value: String| {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
        if let Some(kib) = kib {
            gauge(
                "process_resident_memory_bytes",
                "Resident memory, bytes.",
                "gauge",
                (kib * 1024).to_string(),
            );
        }
    }
    if let Some(seconds) = cpu_seconds() {
        gauge(
            "process_cpu_seconds_total",
            "User and system time, seconds.",
            "counter",
            format!("{seconds:.2}"),
        );
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        gauge(
            "process_open_fds",
            "Open file descriptors.",
            "gauge",
            entries.count().to_string(),
        );
    }
    let _infallible = writeln!(
        text,
        "# HELP weir_build_info The build; always 1.\n# TYPE weir_build_info gauge\nweir_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
}

/// Fields 14 and 15 of `/proc/self/stat`, in ticks of 1/100 s (`USER_HZ` is 100 on every Linux this runs on; proc(5)).
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / 100.0)
}
