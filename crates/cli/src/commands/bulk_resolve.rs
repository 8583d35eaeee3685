//! `weir bulk resolve`: says the same of many effects that nobody knows about, shown in sum first.

use crate::arguments::BulkResolveArguments;
use crate::client::Client;
use crate::commands::bulk::{self, LeftOut};
use crate::commands::replay;
use crate::commands::user_errors::{self, UserError};
use crate::failure::EXIT_FAILURE;
use crate::output::{self, Style};
use serde::Deserialize;
use serde_json::json;
use std::process::ExitCode;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreviewData {
    bulk_resolve_preview: Preview,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preview {
    runs: u32,
    more: bool,
    left_out_count: u32,
    left_out: Vec<LeftOut>,
    effects: Vec<Effects>,
    summary: String,
    confirm: String,
}

#[derive(Deserialize)]
struct Effects {
    operation: String,
    class: Option<String>,
    count: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResolveData {
    bulk_resolve: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    bulk_id: Option<String>,
    user_errors: Vec<UserError>,
}

/// Shows which effects it is about, asks, begins, and follows it to the end.
pub(crate) async fn run(arguments: &BulkResolveArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let (resolution, question) = match arguments.verdict.wire() {
        "HAPPENED" => ("HAPPENED", "Say that all of them took place?"),
        "NOT_HAPPENED" => ("NOT_HAPPENED", "Say that none of them took place?"),
        look => (look, "Ask the provider about each of them?"),
    };
    let filter = json!({
        "workflow": arguments.range.workflow, "errorStep": arguments.step, "operation": arguments.operation,
        "causeId": arguments.cause, "since": arguments.range.since, "until": arguments.range.until,
    });
    let query = "query Preview($filter: UnknownEffectFilterInput!, $resolution: EffectResolution!) { \
        bulkResolvePreview(filter: $filter, resolution: $resolution) { runs more leftOutCount leftOut { runId reason } \
        effects { operation class count } summary confirm } }";
    let variables = json!({ "filter": filter, "resolution": resolution });
    let shown = client
        .query::<PreviewData>(query, variables)
        .await?
        .bulk_resolve_preview;
    print(&shown);
    if shown.runs == 0 {
        output::remark("no effect of unknown fate fits");
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    if !arguments.going.yes && !replay::confirmed(question)? {
        output::remark("nothing was decided");
        return Ok(ExitCode::from(EXIT_FAILURE));
    }
    let query = format!(
        "mutation Resolve($input: BulkResolveInput!) {{ bulkResolve(input: $input) {{ bulkId {} }} }}",
        user_errors::FIELDS
    );
    let input = json!({ "input": {
        "filter": filter, "resolution": resolution, "note": arguments.note, "confirm": shown.confirm,
    } });
    let payload = client.query::<ResolveData>(&query, input).await?.bulk_resolve;
    user_errors::refuse("nothing was decided", &payload.user_errors)?;
    let id = payload.bulk_id.clone().unwrap_or_default();
    let exit = bulk::begun(&client, payload.bulk_id, arguments.going.detach).await?;
    if !arguments.going.detach {
        output::remark(format!(
            "`weir bulk show {id}` names what was left out; \
             `weir bulk replay --code effect_unknown` goes on with the runs",
        ));
    }
    Ok(exit)
}

fn print(shown: &Preview) {
    let style = Style::stdout();
    output::line(style.bold(&shown.summary));
    for effects in &shown.effects {
        let class = effects.class.as_deref().unwrap_or("?").to_lowercase();
        output::line(format!("  {}  {class}  {}", effects.operation, effects.count));
    }
    bulk::print_left_out(&shown.left_out, shown.left_out_count, shown.more);
}
