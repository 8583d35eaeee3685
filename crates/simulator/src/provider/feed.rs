//! Feeds: a provider of no particular make that reports changes of objects, and lists them in every way that sweeps can
//! go on from.
//!
//! A feed has a log of changes and the last states of its objects. `/feed/{name}/log` goes on after an id,
//! `/feed/{name}/objects` from a time, `token`, `offset`, `journal` and `delta` as they are called. What was shown is
//! counted by the change, so that a test knows what a caller could have seen.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::{Provider, Route};
use crate::api::{ApiAnswer, ApiRequest};
use crate::world::World;

/// Items of a page when the caller does not say.
const PAGE: usize = 100;

/// How a feed behaves, and what it has shown.
#[derive(Default)]
pub(crate) struct Feeds {
    feeds: Mutex<HashMap<String, Feed>>,
}

#[derive(Default)]
struct Feed {
    keeps_ms: Option<u64>,
    shown: BTreeMap<String, u32>,
    shown_failures: u64,
    forgets_cursors: bool,
    undelivered: BTreeMap<String, i64>,
}

impl Feeds {
    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Feed) -> T) -> T {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        act(feeds.entry(name.to_owned()).or_default())
    }

    pub(crate) fn set_keeps_ms(&self, name: &str, keeps_ms: Option<u64>) {
        self.with(name, |feed| feed.keeps_ms = keeps_ms);
    }

    pub(crate) fn set_forgets_cursors(&self, name: &str, forgets: bool) {
        self.with(name, |feed| feed.forgets_cursors = forgets);
    }

    pub(crate) fn set_undelivered(&self, name: &str, id: &str, at_unix_ms: Option<i64>) {
        self.with(name, |feed| match at_unix_ms {
            Some(at) => feed.undelivered.insert(id.to_owned(), at),
            None => feed.undelivered.remove(id),
        });
    }

    pub(crate) fn shown(&self, name: &str) -> BTreeMap<String, u32> {
        self.with(name, |feed| feed.shown.clone())
    }

    pub(crate) fn shown_failures(&self, name: &str) -> u64 {
        self.with(name, |feed| feed.shown_failures)
    }

    pub(crate) fn clear(&self) {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

pub(super) fn route(method: &str, segments: &[&str]) -> Option<Route> {
    let name = match (method, segments) {
        ("GET", [_, _, "log"]) => "feed.log",
        ("GET", [_, _, "objects"]) => "feed.objects",
        ("GET", [_, _, "token"]) => "feed.token",
        ("GET", [_, _, "offset"]) => "feed.offset",
        ("GET", [_, _, "journal"]) => "feed.journal",
        ("GET", [_, _, "delta"]) => "feed.delta",
        ("GET", [_, _, "failures"]) => "feed.failures",
        _ => return None,
    };
    Some(Route::read(Provider::Feed, name))
}

/// Notes a change: the log grows, and the object has a new last state or is gone.
pub(crate) fn note(world: &World, feed: &str, entry: &Value, deletes: bool) {
    let id = entry["id"].as_str().unwrap_or_default();
    world.store.put(&format!("feed/{feed}/log"), id, entry.clone());
    let objects = format!("feed/{feed}/objects");
    let object = entry["object"]["id"].as_str().unwrap_or_default();
    // Whatever changed last stands last.
    world.store.remove(&objects, object);
    if !deletes {
        let state = json!({ "id": object, "version": entry["object"]["version"], "updated_ms": entry["time_ms"] });
        world.store.put(&objects, object, state);
    }
}

/// Names a change in the same way in the log, in the list of objects and in webhooks: object and version.
fn identity(item: &Value) -> String {
    let object = item.get("object").unwrap_or(item);
    format!("{}.{}", object["id"].as_str().unwrap_or_default(), object["version"])
}

struct Shown {
    items: Vec<Arc<Value>>,
    more: bool,
}

impl Shown {
    /// The first items of what is left of a list.
    fn first(left: Vec<Arc<Value>>, limit: usize) -> Self {
        let more = left.len() > limit;
        let mut items = left;
        items.truncate(limit);
        Shown { items, more }
    }
}

pub(super) fn answer(world: &World, route: &'static str, request: &ApiRequest<'_>) -> ApiAnswer {
    let feed = request.segments.get(1).copied().unwrap_or_default();
    let (keeps_ms, forgets) = world.feeds.with(feed, |feed| (feed.keeps_ms, feed.forgets_cursors));
    let oldest = keeps_ms.map_or(i64::MIN, |keeps| {
        request.now_unix_ms - i64::try_from(keeps).unwrap_or(i64::MAX)
    });
    let limit = request.query_number("limit").unwrap_or(PAGE).clamp(1, PAGE);
    let number = |name: &str| request.query_value(name).and_then(|text| text.parse::<i64>().ok());
    let has_cursor = ["after", "token", "from"]
        .iter()
        .any(|name| request.query_value(name).is_some());
    if forgets && has_cursor {
        return ApiAnswer::json(410, &json!({ "error": "this cursor is not known any more" }));
    }
    if route == "feed.failures" {
        return failures(world, feed, number("since").unwrap_or(0));
    }
    if route == "feed.objects" {
        return objects(world, feed, request, (number("since").unwrap_or(0).max(oldest), limit));
    }
    let log = world.store.list(&format!("feed/{feed}/log"));
    let total = log.len();
    let place = |text: Option<String>, prefix: &str| -> usize {
        text.and_then(|text| text.strip_prefix(prefix)?.parse().ok())
            .unwrap_or(0)
    };
    let from = match route {
        "feed.log" => match request.query_value("after") {
            None => 0,
            Some(after) => match log.iter().position(|entry| entry["id"] == after) {
                Some(found) => found + 1,
                None => return ApiAnswer::json(410, &json!({ "error": "no such change" })),
            },
        },
        "feed.token" => place(request.query_value("token"), "t"),
        "feed.offset" => place(request.query_value("offset"), ""),
        "feed.journal" => place(request.query_value("position"), ""),
        _ => place(request.query_value("from"), ""),
    };
    let since = number("since").unwrap_or(0).max(oldest);
    let is_listed = |entry: &Arc<Value>| entry["time_ms"].as_i64().unwrap_or_default() >= since;
    let left: Vec<Arc<Value>> = log.into_iter().skip(from).filter(is_listed).collect();
    let shown = Shown::first(left, limit);
    let last = shown.items.last().and_then(|entry| entry["seq"].as_u64());
    let after = last
        .and_then(|seq| usize::try_from(seq).ok())
        .unwrap_or_else(|| from.max(total));
    let mut body = page(world, feed, &shown);
    match route {
        "feed.token" => body["next"] = json!(format!("t{after}")),
        "feed.delta" => {
            let host = request.header("host").unwrap_or("localhost");
            let link = format!("http://{host}{}?from={after}&limit={limit}", request.path);
            body[if shown.more { "next_link" } else { "delta_link" }] = json!(link);
        }
        _ => {}
    }
    ApiAnswer::json(200, &body)
}

/// Objects by when they changed, the oldest first. A page ends at an object, so that one that changes meanwhile is shown
/// again and none is passed over.
fn objects(world: &World, feed: &str, request: &ApiRequest<'_>, (since, limit): (i64, usize)) -> ApiAnswer {
    let key = |object: &Value| {
        let id = object["id"].as_str().unwrap_or_default();
        (object["updated_ms"].as_i64().unwrap_or_default(), id.to_owned())
    };
    let mut left = world.store.list(&format!("feed/{feed}/objects"));
    left.sort_by_key(|object| key(object));
    let after = request.query_value("page").and_then(|text| {
        let (time, id) = text.split_once('.')?;
        Some((time.parse::<i64>().ok()?, id.to_owned()))
    });
    left.retain(|object| {
        let key = key(object);
        key.0 >= since && after.as_ref().is_none_or(|after| key > *after)
    });
    let shown = Shown::first(left, limit);
    let mut body = page(world, feed, &shown);
    if let Some(last) = shown.items.last().filter(|_| shown.more) {
        let (time, id) = key(last);
        body["next"] = json!(format!("{time}.{id}"));
    }
    ApiAnswer::json(200, &body)
}

/// Changes whose delivery failed since a time.
fn failures(world: &World, feed: &str, since: i64) -> ApiAnswer {
    let failed: Vec<Value> = world.feeds.with(feed, |feed| {
        feed.shown_failures += 1;
        let failed = feed.undelivered.iter().filter(|(_, at)| **at >= since);
        failed
            .map(|(id, at)| json!({ "id": id, "time_ms": at, "status": "failed" }))
            .collect()
    });
    ApiAnswer::json(200, &json!({ "data": failed }))
}

fn page(world: &World, feed: &str, shown: &Shown) -> Value {
    world.feeds.with(feed, |feed| {
        for item in &shown.items {
            *feed.shown.entry(identity(item)).or_default() += 1;
        }
    });
    let items: Vec<&Value> = shown.items.iter().map(|item| &**item).collect();
    json!({ "data": items, "has_more": shown.more })
}
