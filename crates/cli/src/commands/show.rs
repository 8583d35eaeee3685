//! `weir run show`: the whole story of one run.

use crate::arguments::ServerArguments;
use crate::client::Client;
use crate::commands::story::{self, Run, STORY_FIELDS, STORY_FIELDS_WITH_BODIES};
use crate::failure::Failure;
use crate::output::{self, Style};
use serde::Deserialize;
use serde_json::json;
use std::process::ExitCode;

/// How much to show, and how.
pub(crate) struct Options {
    pub(crate) bodies: bool,
    pub(crate) json: bool,
}

#[derive(Deserialize)]
struct Data {
    run: Option<Run>,
}

pub(crate) async fn run(server: &ServerArguments, id: &str, options: Options) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let run = load(&client, id, options.bodies).await?;
    if options.json {
        output::document(serde_json::to_string_pretty(&run)?);
    } else {
        output::line(story::tell(&run, Style::stdout()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads one run with its story.
pub(crate) async fn load(client: &Client, id: &str, bodies: bool) -> anyhow::Result<Run> {
    let fields = if bodies { STORY_FIELDS_WITH_BODIES } else { STORY_FIELDS };
    let document = format!("query Run($id: ID!) {{ run(id: $id) {{ {fields} }} }}");
    let data: Data = client.query(&document, json!({ "id": id })).await?;
    data.run.ok_or_else(|| {
        Failure::new(format!("there is no run {id}"))
            .fix(
                "`weir runs` lists them; those that ended long ago are removed (see WEIR_KEEP_RUNS_DAYS of the server)",
            )
            .into()
    })
}
