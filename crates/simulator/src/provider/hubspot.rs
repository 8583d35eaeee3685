//! HubSpot's CRM objects: get, create, update, search, batch read, associations.
//!
//! Shapes: developers.hubspot.com/docs/api-reference (CRM objects v3, associations v4). Search lags behind
//! writes by a set time, as the real one does. Object types share one numbering.

use serde_json::{Map, Value, json};

use super::{Provider, Route};
use crate::api::{ApiAnswer, ApiRequest};
use crate::clock::iso;
use crate::ledger::EffectOutcome;
use crate::world::World;

const OBJECT_TYPES: [&str; 4] = ["contacts", "companies", "deals", "line_items"];

pub(super) fn route(method: &str, version: &str, rest: &[&str]) -> Option<Route> {
    let kind = rest.first().copied().filter(|kind| OBJECT_TYPES.contains(kind))?;
    // Names follow the connector's operations.
    macro_rules! named {
        ($operation:literal) => {
            match kind {
                "contacts" => concat!("hubspot.contacts.", $operation),
                "companies" => concat!("hubspot.companies.", $operation),
                "deals" => concat!("hubspot.deals.", $operation),
                _ => concat!("hubspot.line_items.", $operation),
            }
        };
    }
    Some(match (method, version, rest) {
        ("POST", "v3", [_, "search"]) => Route::read(Provider::Hubspot, named!("search")),
        ("POST", "v3", [_, "batch", "read"]) => Route::read(Provider::Hubspot, named!("batch_read")),
        ("GET", "v3", [_, _]) => Route::read(Provider::Hubspot, named!("get")),
        ("POST", "v3", [_]) => Route::write(Provider::Hubspot, named!("create")),
        ("PATCH", "v3", [_, _]) => Route::write(Provider::Hubspot, named!("update")),
        ("GET", "v4", [_, _, "associations", _]) => Route::read(Provider::Hubspot, "hubspot.associations.list"),
        ("PUT", "v4", [_, _, "associations", "default", _, _]) => {
            Route::write(Provider::Hubspot, "hubspot.associations.create")
        }
        _ => return None,
    })
}

pub(super) fn answer(world: &World, route: &'static str, request: &ApiRequest<'_>) -> ApiAnswer {
    let rest = request.segments.get(3..).unwrap_or_default();
    match rest {
        [kind, "search"] => search(world, request, kind),
        [kind, "batch", "read"] => batch_read(world, request, kind),
        [kind, id] if request.method == "GET" => get(world, request, kind, id),
        [kind, id] if request.method == "PATCH" => update(world, request, kind, id),
        [kind] => create(world, request, kind),
        [kind, id, "associations", to] => associations(world, request, kind, id, to),
        [kind, id, "associations", "default", to, to_id] => associate(world, kind, id, to, to_id),
        _ if route == "hubspot.account.get" => ApiAnswer::json(
            200,
            &json!({ "portalId": 424_242, "accountType": "STANDARD", "timeZone": "Etc/UTC", "uiDomain": "app.example.test" }),
        ),
        _ => missing("route", route),
    }
}

fn collection(kind: &str) -> String {
    format!("hubspot/{kind}")
}

fn missing(kind: &str, id: &str) -> ApiAnswer {
    let message = format!("resource not found: {kind} {id}");
    ApiAnswer::json(
        404,
        &json!({ "status": "error", "message": message, "category": "OBJECT_NOT_FOUND" }),
    )
}

fn invalid(message: &str) -> ApiAnswer {
    ApiAnswer::json(
        400,
        &json!({ "status": "error", "message": message, "category": "VALIDATION_ERROR" }),
    )
    .with_outcome(None, EffectOutcome::Refused)
}

/// Comma lists and repeated parameters mean the same.
fn listed(request: &ApiRequest<'_>, name: &str) -> Vec<String> {
    request
        .query_values(name)
        .iter()
        .flat_map(|value| value.split(','))
        .map(str::to_owned)
        .collect()
}

/// The object with the wanted properties only; all of them when none are named.
fn selected(object: &Value, properties: &[String]) -> Value {
    let mut object = object.clone();
    if properties.is_empty() {
        return object;
    }
    let present = object["properties"].take();
    let mut kept = Map::new();
    for name in properties
        .iter()
        .map(String::as_str)
        .chain(["createdate", "hs_object_id"])
    {
        kept.insert(name.to_owned(), present.get(name).cloned().unwrap_or(Value::Null));
    }
    object["properties"] = Value::Object(kept);
    object
}

fn get(world: &World, request: &ApiRequest<'_>, kind: &str, id: &str) -> ApiAnswer {
    let Some(object) = world.store.get(&collection(kind), id) else {
        return missing(kind, id);
    };
    let mut object = selected(&object, &listed(request, "properties"));
    for to in listed(request, "associations") {
        let results: Vec<Value> = linked(world, kind, id, &to)
            .iter()
            .map(|link| json!({ "id": link["toObjectId"].to_string(), "type": format!("{kind}_to_{to}") }))
            .collect();
        if !results.is_empty() {
            object["associations"][to] = json!({ "results": results });
        }
    }
    ApiAnswer::json(200, &object)
}

fn batch_read(world: &World, request: &ApiRequest<'_>, kind: &str) -> ApiAnswer {
    let body = request.json().unwrap_or_default();
    let properties = texts(&body["properties"]);
    let Some(inputs) = body["inputs"].as_array().filter(|inputs| inputs.len() <= 100) else {
        return ApiAnswer::json(
            400,
            &json!({ "status": "error", "message": "inputs must be a list of at most 100", "category": "VALIDATION_ERROR" }),
        );
    };
    let results: Vec<Value> = inputs
        .iter()
        .filter_map(|input| world.store.get(&collection(kind), input["id"].as_str()?))
        .map(|object| selected(&object, &properties))
        .collect();
    let status = if results.len() == inputs.len() { 200 } else { 207 };
    ApiAnswer::json(status, &json!({ "status": "COMPLETE", "results": results }))
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn create(world: &World, request: &ApiRequest<'_>, kind: &str) -> ApiAnswer {
    let body = request.json().unwrap_or_default();
    let Value::Object(properties) = &body["properties"] else {
        return invalid("properties are missing");
    };
    let unique = match kind {
        "contacts" => "email",
        "companies" => "domain",
        "deals" => "dealname",
        _ => "hs_sku",
    };
    let identity = properties
        .get(unique)
        .and_then(Value::as_str)
        .map(|value| format!("{kind}:{unique}:{value}"));
    if kind == "contacts"
        && let Some(email) = properties.get("email").and_then(Value::as_str)
        && let Some(present) = world
            .store
            .list("hubspot/contacts")
            .iter()
            .find(|contact| contact["properties"]["email"] == email)
    {
        // Only contacts are unique at HubSpot; the others are where doubled effects show.
        let message = format!(
            "Contact already exists. Existing ID: {}",
            present["id"].as_str().unwrap_or_default()
        );
        return ApiAnswer::json(
            409,
            &json!({ "status": "error", "message": message, "category": "CONFLICT" }),
        )
        .with_outcome(identity, EffectOutcome::Refused);
    }
    let id = (90_000_000 + world.next_number()).to_string();
    let object = put_object(world, kind, &id, properties.clone(), request.now_unix_ms);
    for link in body["associations"].as_array().into_iter().flatten() {
        if let (Some(to_id), Some(to)) = (link["to"]["id"].as_str(), link["to"]["type"].as_str()) {
            put_link(world, kind, &id, to, to_id);
        }
    }
    ApiAnswer::json(201, &object).done(identity)
}

fn update(world: &World, request: &ApiRequest<'_>, kind: &str, id: &str) -> ApiAnswer {
    let body = request.json().unwrap_or_default();
    let Value::Object(properties) = &body["properties"] else {
        return invalid("properties are missing");
    };
    let mut outcome = EffectOutcome::Repeated;
    let updated = world.store.update(&collection(kind), id, |object| {
        if let Value::Object(present) = &mut object["properties"] {
            for (name, value) in properties {
                if present.get(name) != Some(value) {
                    outcome = EffectOutcome::Done;
                    present.insert(name.clone(), value.clone());
                }
            }
        }
        object["updatedAt"] = json!(iso(request.now_unix_ms));
    });
    updated.map_or_else(
        || missing(kind, id),
        |object| ApiAnswer::json(200, &object).with_outcome(None, outcome),
    )
}

fn search(world: &World, request: &ApiRequest<'_>, kind: &str) -> ApiAnswer {
    let body = request.json().unwrap_or_default();
    let lag_ms = i64::try_from(world.behaviour().hubspot_search_lag_ms).unwrap_or(i64::MAX);
    let indexed_until = iso(request.now_unix_ms.saturating_sub(lag_ms));
    let groups: Vec<&Value> = body["filterGroups"].as_array().into_iter().flatten().collect();
    let query = body["query"].as_str().map(str::to_lowercase);
    let mut hits = world.store.list(&collection(kind));
    hits.retain(|object| {
        let in_index = lag_ms == 0 || object["createdAt"].as_str().unwrap_or_default() <= indexed_until.as_str();
        let in_groups = groups.is_empty()
            || groups.iter().any(|group| {
                group["filters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .all(|filter| satisfies(world, kind, object, filter))
            });
        let in_query = query
            .as_deref()
            .is_none_or(|query| object["properties"].to_string().to_lowercase().contains(query));
        in_index && in_groups && in_query
    });
    let limit = body["limit"]
        .as_u64()
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(10)
        .clamp(1, 200);
    let after = match &body["after"] {
        Value::String(text) => text.parse().unwrap_or(0),
        other => other
            .as_u64()
            .and_then(|after| usize::try_from(after).ok())
            .unwrap_or(0),
    };
    let properties = texts(&body["properties"]);
    let results: Vec<Value> = hits
        .iter()
        .skip(after)
        .take(limit)
        .map(|object| selected(object, &properties))
        .collect();
    let mut answer = json!({ "total": hits.len(), "results": results });
    if after + limit < hits.len() {
        answer["paging"] = json!({ "next": { "after": (after + limit).to_string() } });
    }
    ApiAnswer::json(200, &answer)
}

fn satisfies(world: &World, kind: &str, object: &Value, filter: &Value) -> bool {
    let name = filter["propertyName"].as_str().unwrap_or_default();
    let wanted = &filter["value"];
    if let Some(to) = name.strip_prefix("associations.") {
        let id = object["id"].as_str().unwrap_or_default();
        let plural = OBJECT_TYPES.iter().find(|kind| {
            **kind == to || kind.strip_suffix('s') == Some(to) || (to == "company" && **kind == "companies")
        });
        let Some(plural) = plural else { return false };
        let wanted = as_text(wanted);
        return linked(world, kind, id, plural)
            .iter()
            .any(|link| as_text(&link["toObjectId"]) == wanted);
    }
    let value = &object["properties"][name];
    match filter["operator"].as_str().unwrap_or("EQ") {
        "EQ" => value == wanted,
        "NEQ" => value != wanted,
        "HAS_PROPERTY" => !value.is_null(),
        "NOT_HAS_PROPERTY" => value.is_null(),
        "IN" => filter["values"].as_array().is_some_and(|values| values.contains(value)),
        "GTE" => as_text(value) >= as_text(wanted),
        "LTE" => !value.is_null() && as_text(value) <= as_text(wanted),
        _ => false,
    }
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn linked(world: &World, kind: &str, id: &str, to: &str) -> Vec<Value> {
    let links = world.store.get("hubspot/associations", &format!("{kind}/{id}/{to}"));
    links.and_then(|links| links.as_array().cloned()).unwrap_or_default()
}

fn associations(world: &World, request: &ApiRequest<'_>, kind: &str, id: &str, to: &str) -> ApiAnswer {
    if world.store.get(&collection(kind), id).is_none() {
        return missing(kind, id);
    }
    let limit = request.query_number("limit").unwrap_or(500).clamp(1, 500);
    let after = request.query_number("after").unwrap_or(0);
    let links = linked(world, kind, id, to);
    let results: Vec<&Value> = links.iter().skip(after).take(limit).collect();
    let mut answer = json!({ "results": results });
    if after + limit < links.len() {
        answer["paging"] = json!({ "next": { "after": (after + limit).to_string() } });
    }
    ApiAnswer::json(200, &answer)
}

fn associate(world: &World, kind: &str, id: &str, to: &str, to_id: &str) -> ApiAnswer {
    for (kind, id) in [(kind, id), (to, to_id)] {
        if world.store.get(&collection(kind), id).is_none() {
            return missing(kind, id);
        }
    }
    let new = put_link(world, kind, id, to, to_id);
    let outcome = if new {
        EffectOutcome::Done
    } else {
        EffectOutcome::Repeated
    };
    let body = json!({ "status": "COMPLETE", "results": [{ "from": { "id": id }, "to": { "id": to_id } }] });
    ApiAnswer::json(200, &body).with_outcome(Some(format!("association:{kind}/{id}:{to}/{to_id}")), outcome)
}

/// Stores a CRM object with HubSpot's envelope.
pub(crate) fn put_object(
    world: &World,
    kind: &str,
    id: &str,
    properties: Map<String, Value>,
    now_unix_ms: i64,
) -> Value {
    let at = iso(now_unix_ms);
    let mut properties = properties;
    properties.insert("createdate".to_owned(), json!(at));
    properties.insert("hs_object_id".to_owned(), json!(id));
    let object = json!({ "id": id, "properties": properties, "createdAt": at, "updatedAt": at, "archived": false });
    world.store.put(&collection(kind), id, object.clone());
    object
}

/// Links two objects in both directions; false when they were linked before.
pub(crate) fn put_link(world: &World, kind: &str, id: &str, to: &str, to_id: &str) -> bool {
    let forward = put_half_link(world, kind, id, to, to_id);
    put_half_link(world, to, to_id, kind, id);
    forward
}

fn put_half_link(world: &World, kind: &str, id: &str, to: &str, to_id: &str) -> bool {
    let key = format!("{kind}/{id}/{to}");
    let types = json!([{ "category": "HUBSPOT_DEFINED", "typeId": 3, "label": null }]);
    let link = json!({ "toObjectId": to_id.parse::<u64>().unwrap_or_default(), "associationTypes": types });
    let mut new = true;
    let present = world.store.update("hubspot/associations", &key, |links| {
        if let Value::Array(links) = links {
            new = !links.contains(&link);
            if new {
                links.push(link.clone());
            }
        }
    });
    if present.is_none() {
        world.store.put("hubspot/associations", &key, json!([link]));
    }
    new
}
