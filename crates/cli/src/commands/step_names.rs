//! Steps as people name them: what `weir run show` prints is taken wherever a step is asked for.

use crate::client::Client;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Data {
    run: Option<Run>,
}

#[derive(Deserialize)]
struct Run {
    steps: Option<Vec<Step>>,
}

#[derive(Deserialize)]
struct Step {
    path: String,
    name: String,
}

/// The path of the step that a person calls `step`. What is not found is left for the server to judge.
pub(crate) async fn path_of(client: &Client, run: &str, step: String) -> anyhow::Result<String> {
    if !step.contains('[') {
        return Ok(step);
    }
    let query = "query Names($id: ID!) { run(id: $id) { steps { path name } } }";
    let data: Data = client.query(query, json!({ "id": run })).await?;
    let steps = data.run.and_then(|run| run.steps).unwrap_or_default();
    let is_path = steps.iter().any(|known| known.path == step);
    let named = steps.into_iter().filter(|_| !is_path).find(|known| known.name == step);
    Ok(named.map_or(step, |known| known.path))
}
