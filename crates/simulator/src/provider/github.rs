//! GitHub's issues: get, list with a `Link` header, create.
//!
//! Shapes: docs.github.com/rest/issues/issues. An issue's business identity is its repository and title.

use serde_json::{Value, json};

use super::{Provider, Route};
use crate::api::{ApiAnswer, ApiRequest};
use crate::ledger::EffectOutcome;
use crate::world::World;

pub(super) fn route(method: &str, segments: &[&str]) -> Option<Route> {
    match (method, segments) {
        ("GET", ["user"]) => Some(Route::read(Provider::Github, "github.user.get")),
        ("GET", ["repos", _, _, "issues"]) => Some(Route::read(Provider::Github, "github.issues.list")),
        ("GET", ["repos", _, _, "issues", _]) => Some(Route::read(Provider::Github, "github.issues.get")),
        ("POST", ["repos", _, _, "issues"]) => Some(Route::write(Provider::Github, "github.issues.create")),
        _ => None,
    }
}

pub(super) fn answer(world: &World, route: &'static str, request: &ApiRequest<'_>) -> ApiAnswer {
    let segments = request.segments.as_slice();
    let (owner, repository) = match segments {
        ["repos", owner, repository, ..] => (*owner, *repository),
        _ => {
            return ApiAnswer::json(
                200,
                &json!({ "login": "weir-simulator", "id": 1, "type": "User", "email": null }),
            );
        }
    };
    let collection = format!("github/{owner}/{repository}/issues");
    match route {
        "github.issues.get" => segments
            .get(4)
            .and_then(|number| world.store.get(&collection, number))
            .map_or_else(
                || ApiAnswer::json(404, &json!({ "message": "Not Found" })),
                |issue| ApiAnswer::json(200, &issue),
            ),
        "github.issues.create" => create(world, request, &collection, owner, repository),
        _ => list(world, request, &collection),
    }
}

fn create(world: &World, request: &ApiRequest<'_>, collection: &str, owner: &str, repository: &str) -> ApiAnswer {
    let body = request.json().unwrap_or_default();
    let Some(title) = body["title"].as_str().filter(|title| !title.is_empty()) else {
        let errors = json!([{ "resource": "Issue", "code": "missing_field", "field": "title" }]);
        return ApiAnswer::json(422, &json!({ "message": "Validation Failed", "errors": errors }))
            .with_outcome(None, EffectOutcome::Refused);
    };
    let number = world.next_number();
    let created_at = crate::clock::iso(request.now_unix_ms);
    let labels: Vec<Value> = body["labels"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|label| json!({ "name": label }))
        .collect();
    let issue = json!({
        "id": 1_000_000 + number, "number": number, "title": title, "body": body["body"], "state": "open", "labels": labels,
        "user": { "login": "weir-simulator", "id": 1 }, "comments": 0, "created_at": created_at, "updated_at": created_at, "closed_at": null,
        "url": format!("https://api.github.com/repos/{owner}/{repository}/issues/{number}"),
        "html_url": format!("https://github.com/{owner}/{repository}/issues/{number}"),
    });
    let identity = format!("github:{owner}/{repository}:{title}");
    world.store.put(collection, &number.to_string(), issue.clone());
    ApiAnswer::json(201, &issue).done(Some(identity))
}

fn list(world: &World, request: &ApiRequest<'_>, collection: &str) -> ApiAnswer {
    let state = request.query_value("state").unwrap_or_else(|| "open".to_owned());
    let since = request.query_value("since").unwrap_or_default();
    let size = request.query_number("per_page").unwrap_or(30).clamp(1, 100);
    let page = request.query_number("page").unwrap_or(1).max(1);
    let mut issues = world.store.list(collection);
    issues.reverse();
    issues.retain(|issue| {
        (state == "all" || issue["state"] == state)
            && issue["updated_at"].as_str().unwrap_or_default() >= since.as_str()
    });
    let start = (page - 1).saturating_mul(size);
    let shown: Vec<Value> = issues
        .iter()
        .skip(start)
        .take(size)
        .map(|issue| Value::clone(issue))
        .collect();
    let answer = ApiAnswer::json(200, &Value::Array(shown));
    if start.saturating_add(size) >= issues.len() {
        return answer;
    }
    let host = request.header("host").unwrap_or("localhost");
    let next = format!(
        "<http://{host}{path}?state={state}&since={since}&per_page={size}&page={page}>; rel=\"next\"",
        path = request.path,
        page = page + 1
    );
    answer.with_header("link", next)
}
