//! `weir bulk cancel|pause|resume`: asks something of many open runs, shown in sum first.

use crate::arguments::BulkRequestArguments;
use crate::client::Client;
use crate::commands::bulk;
use crate::commands::replay;
use crate::commands::user_errors::{self, UserError};
use crate::failure::EXIT_FAILURE;
use crate::output::{self, Style};
use serde::Deserialize;
use serde_json::json;
use std::process::ExitCode;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BulkAsk {
    Cancel,
    Pause,
    Resume,
}

impl BulkAsk {
    fn question(self) -> &'static str {
        match self {
            Self::Cancel => "Cancel them?",
            Self::Pause => "Pause them?",
            Self::Resume => "Resume them?",
        }
    }

    /// Its name in GraphQL, and what was not done when it fails.
    fn wire(self) -> (&'static str, &'static str) {
        match self {
            Self::Cancel => ("CANCEL", "nothing was canceled"),
            Self::Pause => ("PAUSE", "nothing was paused"),
            Self::Resume => ("RESUME", "nothing was resumed"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreviewData {
    bulk_request_preview: Preview,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preview {
    runs: u32,
    more: bool,
    effects: Vec<Effects>,
    summary: String,
    confirm: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Effects {
    operation: String,
    class: Option<String>,
    on_the_way: u64,
    unknown: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestData {
    bulk_request: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    bulk_id: Option<String>,
    user_errors: Vec<UserError>,
}

/// Shows which runs it is about, asks, begins, and follows it to the end.
pub(crate) async fn run(ask: BulkAsk, arguments: &BulkRequestArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let (request, failed) = ask.wire();
    let filter = json!({
        "status": arguments.status.map(|status| status.wire()), "workflow": arguments.range.workflow,
        "since": arguments.range.since, "until": arguments.range.until,
    });
    let query = "query Preview($filter: OpenRunFilterInput!, $request: BulkRequest!) { \
        bulkRequestPreview(filter: $filter, request: $request) { runs more effects { operation class onTheWay unknown } \
        summary confirm } }";
    let variables = json!({ "filter": filter, "request": request });
    let shown = client
        .query::<PreviewData>(query, variables)
        .await?
        .bulk_request_preview;
    print(&shown);
    if shown.runs == 0 {
        output::remark("no open run fits");
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    if !arguments.going.yes && !replay::confirmed(ask.question())? {
        output::remark(failed);
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    let query = format!(
        "mutation Request($input: BulkRequestInput!) {{ bulkRequest(input: $input) {{ bulkId {} }} }}",
        user_errors::FIELDS
    );
    let input = json!({ "input": {
        "filter": filter, "request": request, "reason": arguments.reason, "confirm": shown.confirm,
    } });
    let payload = client.query::<RequestData>(&query, input).await?.bulk_request;
    user_errors::refuse(failed, &payload.user_errors)?;
    bulk::begun(&client, payload.bulk_id, arguments.going.detach).await
}

fn print(shown: &Preview) {
    let style = Style::stdout();
    output::line(style.bold(&shown.summary));
    for effects in &shown.effects {
        let class = effects.class.as_deref().unwrap_or("?").to_lowercase();
        let unknown = match effects.unknown {
            0 => String::new(),
            unknown => style.red(format!(", {unknown} of unknown fate")),
        };
        output::line(format!(
            "  {}  {class}  {} on their way{unknown}",
            effects.operation, effects.on_the_way
        ));
    }
    if shown.more {
        output::line("  more runs fit than one operation takes; the oldest come first, repeat it for the others");
    }
}
