//! A CRM of no particular make: `/crm/{collection}/{id}` stores JSON objects.
//!
//! It takes POST, PUT and PATCH alike and merges the fields into the object. The business identity of a
//! write is the `event_id` in its body when there is one: one event may change the CRM once.

use serde_json::{Value, json};

use super::{Provider, Route};
use crate::api::{ApiAnswer, ApiRequest};
use crate::world::World;

pub(super) fn route(method: &str, segments: &[&str]) -> Option<Route> {
    match (method, segments) {
        ("GET", ["crm", _]) => Some(Route::read(Provider::Crm, "crm.list")),
        ("GET", ["crm", _, _]) => Some(Route::read(Provider::Crm, "crm.get")),
        ("POST" | "PUT" | "PATCH", ["crm", "deals", _]) => Some(Route::write(Provider::Crm, "crm.deals.write")),
        ("POST" | "PUT" | "PATCH", ["crm", _, _]) => Some(Route::write(Provider::Crm, "crm.write")),
        ("DELETE", ["crm", _, _]) => Some(Route::write(Provider::Crm, "crm.delete")),
        _ => None,
    }
}

pub(super) fn answer(world: &World, request: &ApiRequest<'_>) -> ApiAnswer {
    let (collection, id) = match request.segments.as_slice() {
        ["crm", collection] => (format!("crm/{collection}"), ""),
        ["crm", collection, id] => (format!("crm/{collection}"), *id),
        _ => return missing(),
    };
    match request.method {
        "GET" if id.is_empty() => {
            let items: Vec<Value> = world
                .store
                .list(&collection)
                .iter()
                .map(|item| Value::clone(item))
                .collect();
            ApiAnswer::json(200, &json!({ "total": items.len(), "results": items }))
        }
        "GET" => world
            .store
            .get(&collection, id)
            .map_or_else(missing, |object| ApiAnswer::json(200, &object)),
        "DELETE" => {
            let identity = Some(format!("{collection}/{id}:delete"));
            if world.store.remove(&collection, id) {
                ApiAnswer::empty(204).done(identity)
            } else {
                missing()
            }
        }
        _ => write(world, request, &collection, id),
    }
}

fn write(world: &World, request: &ApiRequest<'_>, collection: &str, id: &str) -> ApiAnswer {
    let Some(Value::Object(fields)) = request.json() else {
        return ApiAnswer::json(400, &json!({ "error": "the body must be a JSON object" }));
    };
    let identity = fields
        .get("event_id")
        .and_then(Value::as_str)
        .map(|event| format!("event:{event}"));
    let update = |object: &mut Value| {
        if let Value::Object(object) = object {
            object.extend(fields.clone());
            object.insert("id".to_owned(), Value::String(id.to_owned()));
        }
    };
    if world.store.update(collection, id, update).is_none() {
        let mut object = Value::Object(serde_json::Map::new());
        update(&mut object);
        world.store.put(collection, id, object);
    }
    ApiAnswer::text(200, json!({ "id": id, "updated": true }).to_string()).done(identity)
}

fn missing() -> ApiAnswer {
    ApiAnswer::json(404, &json!({ "error": "not found" }))
}
