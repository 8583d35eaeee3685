//! Stripe's invoices: items are added to a draft, finalising opens it.
//!
//! Shapes: docs.stripe.com/api/invoices. An invoice's business identity is the deal (or event, or order) in
//! its metadata, so two invoices for one deal show up as doubled.

use serde_json::{Value, json};

use super::stripe::{identity, invalid, list, merge, missing, parameters, stored};
use crate::api::{ApiAnswer, ApiRequest};
use crate::world::World;

pub(super) fn answer(world: &World, route: &'static str, request: &ApiRequest<'_>, id: &str) -> ApiAnswer {
    match route {
        "stripe.invoices.get" => {
            stored(world, "invoices", id).map_or_else(|| missing("invoice", id), |object| ApiAnswer::json(200, &object))
        }
        "stripe.invoices.list" => {
            let customer = request.query_value("customer");
            let status = request.query_value("status");
            list(world, request, "invoices", |object| {
                customer
                    .as_deref()
                    .is_none_or(|customer| object["customer"] == customer)
                    && status.as_deref().is_none_or(|status| object["status"] == status)
            })
        }
        "stripe.invoice_items.list" => {
            let invoice = request.query_value("invoice");
            list(world, request, "invoiceitems", |object| {
                invoice.as_deref().is_none_or(|invoice| object["invoice"] == invoice)
            })
        }
        "stripe.invoices.create" => create_invoice(world, request),
        "stripe.invoice_items.create" => create_item(world, request),
        "stripe.invoices.finalize" => finalize(world, id),
        _ => missing("route", route),
    }
}

fn create_invoice(world: &World, request: &ApiRequest<'_>) -> ApiAnswer {
    let parameters = parameters(request);
    let customer = parameters.get("customer").and_then(Value::as_str).unwrap_or_default();
    if super::stripe::customer(world, customer).is_none() {
        return invalid("customer", "resource_missing", "no such customer");
    }
    let id = world.fresh_id("in");
    let mut object = json!({
        "id": id, "object": "invoice", "amount_due": 0, "amount_paid": 0, "attempted": false, "auto_advance": false,
        "collection_method": "charge_automatically", "created": request.now_unix_ms / 1000, "currency": "eur", "customer": customer,
        "description": null, "due_date": null, "hosted_invoice_url": null, "lines": { "object": "list", "data": [], "has_more": false },
        "livemode": false, "metadata": {}, "number": null, "status": "draft", "subtotal": 0, "total": 0,
    });
    let identity = identity("invoice", &parameters);
    merge(&mut object, parameters);
    world.store.put("stripe/invoices", &id, object.clone());
    ApiAnswer::json(200, &object).done(identity)
}

fn create_item(world: &World, request: &ApiRequest<'_>) -> ApiAnswer {
    let parameters = parameters(request);
    let number = |name: &str| parameters.get(name).and_then(Value::as_i64);
    let quantity = number("quantity").unwrap_or(1);
    let Some(amount) = number("amount").or_else(|| number("unit_amount").map(|unit| unit * quantity)) else {
        return invalid("amount", "parameter_missing", "an amount or a unit_amount is needed");
    };
    let invoice = parameters
        .get("invoice")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let customer = parameters.get("customer").and_then(Value::as_str).unwrap_or_default();
    if super::stripe::customer(world, customer).is_none() {
        return invalid("customer", "resource_missing", "no such customer");
    }
    let id = world.fresh_id("ii");
    let mut object = json!({
        "id": id, "object": "invoiceitem", "amount": amount, "currency": "eur", "customer": customer, "date": request.now_unix_ms / 1000,
        "description": null, "invoice": null, "livemode": false, "metadata": {}, "quantity": quantity,
    });
    let identity = identity("invoice_item", &parameters);
    merge(&mut object, parameters);
    if !invoice.is_empty() {
        let Some(found) = stored(world, "invoices", &invoice) else {
            return invalid("invoice", "resource_missing", "no such invoice");
        };
        if found["status"] != "draft" {
            return invalid("invoice", "invoice_not_editable", "items can only be added to a draft");
        }
        let line = object.clone();
        world.store.update("stripe/invoices", &invoice, |invoice| {
            for field in ["amount_due", "subtotal", "total"] {
                invoice[field] = json!(invoice[field].as_i64().unwrap_or_default() + amount);
            }
            if let Value::Array(lines) = &mut invoice["lines"]["data"] {
                lines.push(line);
            }
        });
    }
    world.store.put("stripe/invoiceitems", &id, object.clone());
    ApiAnswer::json(200, &object).done(identity)
}

fn finalize(world: &World, id: &str) -> ApiAnswer {
    let Some(found) = stored(world, "invoices", id) else {
        return missing("invoice", id);
    };
    if found["status"] != "draft" {
        return invalid(
            "invoice",
            "invoice_already_finalized",
            "this invoice is already finalized",
        );
    }
    let number = format!("SIM-{:06}", world.next_number());
    let opened = world.store.update("stripe/invoices", id, |invoice| {
        invoice["status"] = json!("open");
        invoice["hosted_invoice_url"] = json!(format!("https://invoice.example.test/{number}"));
        invoice["number"] = json!(number);
    });
    opened.map_or_else(
        || missing("invoice", id),
        |invoice| ApiAnswer::json(200, &invoice).done(Some(format!("finalize:{id}"))),
    )
}
