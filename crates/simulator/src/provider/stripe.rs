//! Stripe's REST API v1, as far as payments, customers, refunds and events go; billing is next door.
//!
//! Shapes: docs.stripe.com/api. Lists page newest first with `limit` and `starting_after`. Payments that the
//! simulator announced are computed, not stored (see [`crate::payment`]); a stored object of the same id wins.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Provider, Route, stripe_billing};
use crate::api::{ApiAnswer, ApiRequest};
use crate::ledger::EffectOutcome;
use crate::payment::{Customer, Payment};
use crate::world::World;

/// Fields that arrive as text in a form and are numbers in an object.
const NUMBER_FIELDS: [&str; 6] = [
    "amount",
    "unit_amount",
    "quantity",
    "days_until_due",
    "due_date",
    "tax_percent",
];

pub(super) fn route(method: &str, rest: &[&str]) -> Option<Route> {
    let name = match (method, rest) {
        ("GET", ["account"]) => "stripe.account.get",
        ("GET", ["payment_intents", _]) => "stripe.payment_intents.get",
        ("GET", ["customers"]) => "stripe.customers.list",
        ("GET", ["customers", _]) => "stripe.customers.get",
        ("GET", ["charges", _]) => "stripe.charges.get",
        ("GET", ["refunds"]) => "stripe.refunds.list",
        ("GET", ["refunds", _]) => "stripe.refunds.get",
        ("GET", ["events"]) => "stripe.events.list",
        ("GET", ["events", _]) => "stripe.events.get",
        ("GET", ["invoices"]) => "stripe.invoices.list",
        ("GET", ["invoices", _]) => "stripe.invoices.get",
        ("GET", ["invoiceitems"]) => "stripe.invoice_items.list",
        ("POST", ["customers"]) => "stripe.customers.create",
        ("POST", ["customers", _]) => "stripe.customers.update",
        ("POST", ["refunds"]) => "stripe.refunds.create",
        ("POST", ["invoices"]) => "stripe.invoices.create",
        ("POST", ["invoices", _, "finalize"]) => "stripe.invoices.finalize",
        ("POST", ["invoiceitems"]) => "stripe.invoice_items.create",
        _ => return None,
    };
    Some(if method == "GET" {
        Route::read(Provider::Stripe, name)
    } else {
        Route::write(Provider::Stripe, name)
    })
}

/// Stripe takes the key as bearer token or as user name of Basic.
pub(super) fn is_known(request: &ApiRequest<'_>, key: &str) -> bool {
    if let Some(token) = request.bearer() {
        return token == key;
    }
    let Some(encoded) = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Basic "))
    else {
        return false;
    };
    STANDARD
        .decode(encoded)
        .is_ok_and(|pair| pair == format!("{key}:").as_bytes())
}

pub(super) fn answer(world: &World, route: &'static str, request: &ApiRequest<'_>) -> ApiAnswer {
    let id = request.segments.get(2).copied().unwrap_or_default();
    match route {
        "stripe.account.get" => ApiAnswer::json(
            200,
            &json!({ "id": "acct_simulator", "object": "account", "email": "accounts@example.test", "country": "DE" }),
        ),
        "stripe.payment_intents.get" => payment_intent(world, request, id),
        "stripe.customers.get" => found(customer(world, id), "customer", id),
        "stripe.charges.get" => found(charge(world, id), "charge", id),
        "stripe.refunds.get" => found(stored(world, "refunds", id), "refund", id),
        "stripe.events.get" => found(stored(world, "events", id), "event", id),
        "stripe.customers.list" => {
            let email = request.query_value("email");
            list(world, request, "customers", |object| {
                email.as_deref().is_none_or(|email| object["email"] == email)
            })
        }
        "stripe.refunds.list" => {
            let (charge, intent) = (request.query_value("charge"), request.query_value("payment_intent"));
            list(world, request, "refunds", |object| {
                charge.as_deref().is_none_or(|charge| object["charge"] == charge)
                    && intent
                        .as_deref()
                        .is_none_or(|intent| object["payment_intent"] == intent)
            })
        }
        "stripe.events.list" => {
            let types = request.query_values("types");
            let single = request.query_value("type");
            let delivered = request.query_value("delivery_success").map(|text| text == "true");
            list(world, request, "events", |object| {
                let id = object["id"].as_str().unwrap_or_default();
                let kind = object["type"].as_str().unwrap_or_default();
                (types.is_empty() || types.iter().any(|wanted| wanted == kind))
                    && single.as_deref().is_none_or(|wanted| wanted == kind)
                    && delivered.is_none_or(|wanted| wanted != world.deliveries.has_failed(id))
            })
        }
        "stripe.customers.create" => create_customer(world, request),
        "stripe.customers.update" => update_customer(world, request, id),
        "stripe.refunds.create" => refund(world, request),
        _ => stripe_billing::answer(world, route, request, id),
    }
}

/// An object of a collection, as a plain value.
pub(super) fn stored(world: &World, collection: &str, id: &str) -> Option<Value> {
    world
        .store
        .get(&format!("stripe/{collection}"), id)
        .map(|object| Value::clone(&object))
}

/// A stored or computed customer.
pub(super) fn customer(world: &World, id: &str) -> Option<Value> {
    stored(world, "customers", id).or_else(|| Customer::from_id(world.seed, id).map(Customer::object))
}

fn charge(world: &World, id: &str) -> Option<Value> {
    stored(world, "charges", id).or_else(|| Payment::from_charge_id(world.seed, id).map(Payment::charge))
}

fn payment_intent(world: &World, request: &ApiRequest<'_>, id: &str) -> ApiAnswer {
    let expand = request.query_values("expand");
    let expands = |field: &str| expand.iter().any(|wanted| wanted == field);
    if let Some(mut object) = stored(world, "payment_intents", id) {
        if expands("customer")
            && let Some(full) = object["customer"].as_str().and_then(|id| customer(world, id))
        {
            object["customer"] = full;
        }
        if expands("latest_charge")
            && let Some(full) = object["latest_charge"].as_str().and_then(|id| charge(world, id))
        {
            object["latest_charge"] = full;
        }
        return ApiAnswer::json(200, &object);
    }
    match Payment::from_id(world.seed, id) {
        Some(payment) => ApiAnswer::text(200, payment.object_text(expands("latest_charge"), expands("customer"))),
        None => missing("payment_intent", id),
    }
}

fn found(object: Option<Value>, kind: &str, id: &str) -> ApiAnswer {
    object.map_or_else(|| missing(kind, id), |object| ApiAnswer::json(200, &object))
}

/// Stripe's 404.
pub(super) fn missing(kind: &str, id: &str) -> ApiAnswer {
    let message = format!("No such {kind}: '{id}'");
    let error =
        json!({ "code": "resource_missing", "message": message, "param": "id", "type": "invalid_request_error" });
    ApiAnswer::json(404, &json!({ "error": error }))
}

/// Stripe's 400, which changes nothing.
pub(super) fn invalid(param: &str, code: &str, message: &str) -> ApiAnswer {
    let error = json!({ "code": code, "message": message, "param": param, "type": "invalid_request_error" });
    ApiAnswer::json(400, &json!({ "error": error })).with_outcome(None, EffectOutcome::Refused)
}

/// A list, newest first.
pub(super) fn list(
    world: &World,
    request: &ApiRequest<'_>,
    collection: &str,
    wanted: impl Fn(&Value) -> bool,
) -> ApiAnswer {
    let limit = request.query_number("limit").unwrap_or(10).clamp(1, 100);
    let created = |bound: &str| {
        request
            .query_value(&format!("created[{bound}]"))
            .and_then(|value| value.parse::<i64>().ok())
    };
    let (gte, gt, lte, lt) = (created("gte"), created("gt"), created("lte"), created("lt"));
    let mut objects = world.store.list(&format!("stripe/{collection}"));
    objects.reverse();
    if let Some(after) = request.query_value("starting_after") {
        let place = objects.iter().position(|object| object["id"] == after);
        let Some(place) = place else {
            return invalid("starting_after", "resource_missing", "no such object to start after");
        };
        objects.drain(..=place);
    }
    let before = request.query_value("ending_before");
    if let Some(before) = &before {
        let place = objects.iter().position(|object| object["id"] == *before);
        let Some(place) = place else {
            return invalid("ending_before", "resource_missing", "no such object to end before");
        };
        objects.truncate(place);
    }
    objects.retain(|object| {
        let at = object["created"].as_i64().unwrap_or_default();
        gte.is_none_or(|bound| at >= bound)
            && gt.is_none_or(|bound| at > bound)
            && lte.is_none_or(|bound| at <= bound)
            && lt.is_none_or(|bound| at < bound)
            && wanted(object)
    });
    // What ends before an object stands next to it, not at the list's start.
    let skipped = before.map_or(0, |_| objects.len().saturating_sub(limit));
    let data: Vec<Value> = objects
        .iter()
        .skip(skipped)
        .take(limit)
        .map(|object| Value::clone(object))
        .collect();
    let body = json!({ "object": "list", "url": request.path, "has_more": objects.len() > limit, "data": data });
    ApiAnswer::json(200, &body)
}

/// The form body with numbers where Stripe has numbers, without `expand`.
pub(super) fn parameters(request: &ApiRequest<'_>) -> serde_json::Map<String, Value> {
    let Value::Object(mut fields) = request.form() else {
        return serde_json::Map::new();
    };
    fields.remove("expand");
    for name in NUMBER_FIELDS {
        if let Some(value) = fields.get_mut(name)
            && let Some(number) = value.as_str().and_then(|text| text.parse::<i64>().ok())
        {
            *value = json!(number);
        }
    }
    fields
}

/// The business identity in an object's metadata: of a deal, an event, an order, a line.
pub(super) fn identity(kind: &str, parameters: &serde_json::Map<String, Value>) -> Option<String> {
    let metadata = parameters.get("metadata")?;
    ["line_item_id", "deal_id", "event_id", "order_id"]
        .into_iter()
        .find_map(|key| metadata[key].as_str().map(|value| format!("{kind}:{key}:{value}")))
}

fn create_customer(world: &World, request: &ApiRequest<'_>) -> ApiAnswer {
    let parameters = parameters(request);
    let id = world.fresh_id("cus");
    let mut object = json!({
        "id": id, "object": "customer", "balance": 0, "created": request.now_unix_ms / 1000, "currency": null, "delinquent": false,
        "description": null, "email": null, "livemode": false, "metadata": {}, "name": null, "phone": null,
    });
    let identity = identity("customer", &parameters).or_else(|| {
        parameters
            .get("email")
            .and_then(Value::as_str)
            .map(|email| format!("customer:email:{email}"))
    });
    merge(&mut object, parameters);
    world.store.put("stripe/customers", &id, object.clone());
    ApiAnswer::json(200, &object).done(identity)
}

fn update_customer(world: &World, request: &ApiRequest<'_>, id: &str) -> ApiAnswer {
    let Some(before) = customer(world, id) else {
        return missing("customer", id);
    };
    let mut object = before.clone();
    merge(&mut object, parameters(request));
    let outcome = if object == before {
        EffectOutcome::Repeated
    } else {
        EffectOutcome::Done
    };
    world.store.put("stripe/customers", id, object.clone());
    ApiAnswer::json(200, &object).with_outcome(None, outcome)
}

fn refund(world: &World, request: &ApiRequest<'_>) -> ApiAnswer {
    let parameters = parameters(request);
    let text = |name: &str| parameters.get(name).and_then(Value::as_str).unwrap_or_default();
    let payment = Payment::from_charge_id(world.seed, text("charge"))
        .or_else(|| Payment::from_id(world.seed, text("payment_intent")));
    let charge_id = match payment {
        Some(payment) => payment.charge_id(),
        None => text("charge").to_owned(),
    };
    let Some(mut charge) = charge(world, &charge_id) else {
        return missing("charge", &charge_id);
    };
    let total = charge["amount"].as_i64().unwrap_or_default();
    let refunded = charge["amount_refunded"].as_i64().unwrap_or_default();
    let amount = parameters
        .get("amount")
        .and_then(Value::as_i64)
        .unwrap_or(total - refunded);
    if amount <= 0 || refunded + amount > total {
        return invalid(
            "amount",
            "charge_already_refunded",
            "the charge has been refunded, or the amount is greater than the rest",
        );
    }
    charge["amount_refunded"] = json!(refunded + amount);
    charge["refunded"] = json!(refunded + amount == total);
    let id = world.fresh_id("re");
    let object = json!({
        "id": id, "object": "refund", "amount": amount, "charge": charge_id, "created": request.now_unix_ms / 1000, "currency": charge["currency"],
        "metadata": parameters.get("metadata").cloned().unwrap_or_else(|| json!({})), "payment_intent": charge["payment_intent"],
        "reason": parameters.get("reason"), "status": "succeeded",
    });
    world.store.put("stripe/charges", &charge_id, charge);
    world.store.put("stripe/refunds", &id, object.clone());
    ApiAnswer::json(200, &object).done(Some(format!("refund:{charge_id}:{amount}")))
}

/// Writes parameters over an object; `metadata` is merged key by key, as Stripe does.
pub(super) fn merge(object: &mut Value, parameters: serde_json::Map<String, Value>) {
    for (name, value) in parameters {
        match (object.get_mut(&name), value) {
            (Some(Value::Object(present)), Value::Object(fields)) if name == "metadata" => present.extend(fields),
            (_, value) => object[name] = value,
        }
    }
}
