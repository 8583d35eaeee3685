//! The documents that travel: the webhook, the object that is fetched, what the CRM must receive.
//!
//! The amount differs per flow and stands only in the fetched object, so a right CRM body proves that
//! the object was fetched and its answer used.

use serde::{Deserialize, Serialize};

/// Currency of every payment intent.
pub const CURRENCY: &str = "eur";
/// Receipt address of every payment intent.
pub const RECEIPT_EMAIL: &str = "ada@example.test";

/// The ids of one measurement. The nonce keeps the calls of an earlier one apart.
#[derive(Debug, Clone, Copy)]
pub struct Ids {
    nonce: u32,
}

impl Ids {
    /// Ids that carry `nonce`.
    pub fn new(nonce: u32) -> Self {
        Self { nonce }
    }

    /// Id of the payment intent of flow `number`.
    pub fn payment_intent(&self, number: usize) -> String {
        format!("pi_3B{:08x}{number:014}", self.nonce)
    }

    /// Id of the event of flow `number`.
    pub fn event(&self, number: usize) -> String {
        format!("evt_3B{:08x}{number:014}", self.nonce)
    }

    /// The flow that a payment intent id belongs to; `None` for another measurement's id.
    pub fn flow_of(&self, payment_intent: &str) -> Option<usize> {
        let rest = payment_intent.strip_prefix("pi_3B")?;
        let (nonce, number) = rest.split_at_checked(8)?;
        (u32::from_str_radix(nonce, 16).ok()? == self.nonce).then(|| number.parse().ok())?
    }
}

/// Amount of the payment intent of flow `number`, in cents.
pub fn amount(number: usize) -> u64 {
    let number = u64::try_from(number).unwrap_or(u64::MAX);
    500 + number.wrapping_mul(6151) % 100_000
}

/// What the CRM receives for each flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deal {
    pub event_id: String,
    pub amount: u64,
    pub currency: String,
    pub receipt_email: String,
}

impl Deal {
    /// The right body for flow `number`.
    pub fn expected(ids: &Ids, number: usize) -> Self {
        Self {
            event_id: ids.event(number),
            amount: amount(number),
            currency: CURRENCY.to_owned(),
            receipt_email: RECEIPT_EMAIL.to_owned(),
        }
    }
}

/// The webhook of flow `number`: a thin event of about 1 KB, which names the object but does not hold it.
pub fn event_body(ids: &Ids, number: usize, unix_s: i64) -> Vec<u8> {
    webhook(&ids.event(number), "payment_intent.succeeded", ids, number, unix_s)
}

/// A second webhook about the payment intent of flow `number`: event `follower` of those that follow it, from 1.
pub fn follower_body(ids: &Ids, number: usize, follower: u32, unix_s: i64) -> Vec<u8> {
    let event = format!("{}f{follower}", ids.event(number));
    webhook(&event, "payment_intent.amount_capturable_updated", ids, number, unix_s)
}

fn webhook(event: &str, kind: &str, ids: &Ids, number: usize, unix_s: i64) -> Vec<u8> {
    let payment_intent = ids.payment_intent(number);
    let body = serde_json::json!({
        "id": event,
        "object": "event",
        "api_version": "2026-03-25.dahlia",
        "account": "acct_1BenchAccount0001",
        "created": unix_s,
        "type": kind,
        "livemode": false,
        "pending_webhooks": 1,
        "request": { "id": format!("req_{number:014}"), "idempotency_key": format!("checkout-{number:012}-attempt-1") },
        "data": { "object": { "id": payment_intent, "object": "payment_intent" } },
        "sender": {
            "endpoint": "we_1BenchEndpoint00000001",
            "description": "Payments of the web shop, forwarded to the customer relationship system",
            "attempt": 1,
            "schedule": { "kind": "exponential", "longest_wait_s": 28_800, "tries": 20 },
            "region": "eu-west",
            "labels": ["payments", "web-shop", "production-like", "measured"],
            "note": "Two hundred characters or so of text that a receiver has to carry, store and hand back \
                     unchanged, as real events do with descriptions, addresses and whatever their senders \
                     thought worth keeping. It is never looked at, and it is the same in every event that \
                     this program sends, so that all of them have the same length."
        }
    });
    serde_json::to_vec(&body).expect("a JSON value serialises")
}

/// What the payment API answers to sweeps: every event arrives here, so its list of events need not tell any.
pub const NO_EVENTS: &str = r#"{"object":"list","data":[],"has_more":false}"#;

/// The payment intent `id`, about 3 KB.
pub fn payment_intent_body(id: &str, amount: u64) -> Vec<u8> {
    let order_lines: Vec<_> = (1..=10)
        .map(|line| {
            serde_json::json!({
                "position": line,
                "description": format!("Article {line:03}, size M, colour slate, gift wrapped on request"),
                "quantity": line % 3 + 1,
                "unit_amount": 1_250 + line * 35,
                "tax": { "rate": "19.0", "country": "DE", "inclusive": true },
                "shipping_class": "standard"
            })
        })
        .collect();
    let body = serde_json::json!({
        "id": id,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_received": amount,
        "capture_method": "automatic",
        "confirmation_method": "automatic",
        "currency": CURRENCY,
        "customer": "cus_BenchCustomer1",
        "description": "Order of the web shop, paid by card",
        "latest_charge": "ch_3BenchCharge0000001",
        "livemode": false,
        "metadata": { "order": "2026-104711", "channel": "web", "campaign": "autumn", "cost_centre": "4400" },
        "order_lines": order_lines,
        "payment_method": "pm_1BenchMethod000001",
        "payment_method_options": { "card": { "installments": null, "network": null, "request_three_d_secure": "automatic" } },
        "payment_method_types": ["card", "link", "sepa_debit"],
        "receipt_email": RECEIPT_EMAIL,
        "shipping": {
            "name": "Ada Beispiel",
            "carrier": "DHL",
            "address": { "line1": "Musterstrasse 12", "line2": null, "postal_code": "20095", "city": "Hamburg", "country": "DE" }
        },
        "statement_descriptor": "WEB SHOP",
        "status": "succeeded",
        "transfer_group": null
    });
    serde_json::to_vec(&body).expect("a JSON value serialises")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_workload() {
        let ids = Ids::new(7);
        let event = event_body(&ids, 123_456, 1_700_000_000).len();
        let object = payment_intent_body(&ids.payment_intent(1), amount(1)).len();
        assert!((950..=1100).contains(&event), "event has {event} bytes");
        assert!((2800..=3200).contains(&object), "object has {object} bytes");
    }

    #[test]
    fn ids_of_another_measurement_are_foreign() {
        let id = Ids::new(7).payment_intent(42);
        assert_eq!(Ids::new(7).flow_of(&id), Some(42));
        assert_eq!(Ids::new(8).flow_of(&id), None);
        assert_eq!(Ids::new(7).flow_of("pi_3B"), None);
    }
}
