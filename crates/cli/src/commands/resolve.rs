//! `weir run resolve`: a person says what became of an effect that nobody knows about.

use crate::arguments::{ResolveArguments, ServerArguments};
use crate::client::Client;
use crate::commands::show;
use crate::commands::step_names;
use crate::commands::story::{Run, Step};
use crate::commands::user_errors::{self, UserError};
use crate::failure::{EXIT_FAILURE, Failure};
use crate::output;
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    effect_resolve: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    decision: Option<Decision>,
    message: Option<String>,
    user_errors: Vec<UserError>,
}

#[derive(Deserialize)]
struct Decision {
    verdict: String,
}

pub(crate) async fn run(server: &ServerArguments, arguments: ResolveArguments) -> anyhow::Result<ExitCode> {
    let output: Option<Value> = match &arguments.output {
        None => None,
        Some(text) => Some(serde_json::from_str(text).map_err(|error| {
            Failure::usage(format!("--output is not JSON: {error}")).fix("for example --output '{\"id\": \"re_1\"}'")
        })?),
    };
    let client = Client::find(server)?;
    let step = match arguments.step {
        Some(step) => step_names::path_of(&client, &arguments.id, step).await?,
        None => only_unknown(&show::load(&client, &arguments.id, false).await?)?,
    };
    let resolution = arguments.verdict.wire();
    let query = format!(
        "mutation Resolve($input: EffectResolveInput!) {{ effectResolve(input: $input) {{ message decision {{ verdict }} {} }} }}",
        user_errors::FIELDS
    );
    let variables = json!({ "input": {
        "runId": arguments.id, "step": step, "resolution": resolution, "output": output, "note": arguments.note,
    } });
    let payload = client.query::<Data>(&query, variables).await?.effect_resolve;
    user_errors::refuse("the effect was not resolved", &payload.user_errors)?;
    let message = payload.message.unwrap_or_default();
    match payload.decision {
        Some(decision) => {
            let verdict = decision.verdict.to_lowercase().replace('_', " ");
            output::line(format!("{step}: {verdict}; {message}"));
            Ok(ExitCode::SUCCESS)
        }
        None => {
            output::line(format!("{step}: still unknown; {message}"));
            Ok(ExitCode::from(EXIT_FAILURE))
        }
    }
}

/// The step to decide about, when there is no choice.
fn only_unknown(run: &Run) -> Result<String, Failure> {
    let is_unknown = |effect: &crate::commands::story::Effect| effect.state == "UNKNOWN";
    let unknown: Vec<&Step> = run
        .steps
        .iter()
        .filter(|step| step.effect.as_ref().is_some_and(is_unknown))
        .collect();
    match unknown.as_slice() {
        [one] => Ok(one.path.clone()),
        [] => Err(
            Failure::new(format!("{} has no effect that nobody knows about", run.id))
                .fix("`weir run show` tells what is known; to change what was said, name the step"),
        ),
        several => {
            let names: Vec<&str> = several.iter().map(|step| step.told()).collect();
            Err(
                Failure::usage(format!("several effects are unknown: {}", names.join(", ")))
                    .fix("name the step: weir run resolve RUN STEP …"),
            )
        }
    }
}
