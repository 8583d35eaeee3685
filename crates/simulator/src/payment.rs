//! Payments that are computed instead of stored.
//!
//! A stream may announce millions of payments. Each is a pure function of the simulator's seed and its
//! number, so the fake Stripe can answer for any of them without keeping it, and a restarted simulator with
//! the same seed answers the same. Names and addresses are made up and stay in reserved domains.

use std::fmt::Write;

use serde_json::{Value, json};

/// How many different customers pay.
pub const CUSTOMERS: u64 = 500;

const LABELS: [&str; 6] = [
    "Acme Test GmbH",
    "Example Tools AG",
    "Sample Foods Ltd",
    "Muster Werk KG",
    "Test Harbour BV",
    "Demo Looms SA",
];

/// A customer of the fake providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Customer {
    /// Seed of the simulator.
    pub seed: u32,
    /// 0 to [`CUSTOMERS`] − 1.
    pub number: u64,
}

impl Customer {
    /// Stripe's id of the customer.
    pub fn id(self) -> String {
        format!("cus_sim{:08x}{:06}", self.seed, self.number)
    }

    /// The customer with this Stripe id.
    pub fn from_id(seed: u32, id: &str) -> Option<Self> {
        let number = numbered(id, "cus_sim", seed, 6)?;
        (number < CUSTOMERS).then_some(Self { seed, number })
    }

    /// A company-like label; no person.
    pub fn name(self) -> String {
        let label = LABELS[usize::try_from(self.number % LABELS.len() as u64).unwrap_or_default()];
        format!("{label} {:04}", self.number)
    }

    /// An address that can never be delivered to.
    pub fn email(self) -> String {
        format!("customer-{:04}@example.test", self.number)
    }

    /// Stripe's customer object.
    pub fn object(self) -> Value {
        json!({
            "id": self.id(), "object": "customer", "address": null, "balance": 0, "created": 1_750_000_000 + self.number,
            "currency": "eur", "default_source": null, "delinquent": false, "description": null, "discount": null,
            "email": self.email(), "invoice_prefix": format!("SIM{:05}", self.number), "livemode": false,
            "metadata": { "crm_number": self.number.to_string() }, "name": self.name(), "phone": null,
            "preferred_locales": ["en"], "shipping": null, "tax_exempt": "none",
        })
    }
}

/// A payment intent of the fake Stripe with its charge and its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Seed of the simulator.
    pub seed: u32,
    /// Number of the payment in its stream.
    pub number: u64,
}

impl Payment {
    /// Stripe's id of the payment intent.
    pub fn id(self) -> String {
        format!("pi_sim{:08x}{:012}", self.seed, self.number)
    }

    /// The payment with this payment intent id.
    pub fn from_id(seed: u32, id: &str) -> Option<Self> {
        Some(Self {
            seed,
            number: numbered(id, "pi_sim", seed, 12)?,
        })
    }

    /// Stripe's id of the charge.
    pub fn charge_id(self) -> String {
        format!("ch_sim{:08x}{:012}", self.seed, self.number)
    }

    /// The payment with this charge id.
    pub fn from_charge_id(seed: u32, id: &str) -> Option<Self> {
        Some(Self {
            seed,
            number: numbered(id, "ch_sim", seed, 12)?,
        })
    }

    /// Stripe's id of the event that announces it.
    pub fn event_id(self) -> String {
        format!("evt_sim{:08x}{:012}", self.seed, self.number)
    }

    /// The amount in cents; it differs between payments, so a copied amount proves a fetched object.
    pub fn amount(self) -> u64 {
        1000 + (self.number.wrapping_mul(7919)) % 90_000
    }

    /// Who paid.
    pub fn customer(self) -> Customer {
        Customer {
            seed: self.seed,
            number: self.number % CUSTOMERS,
        }
    }

    /// The event's body: the v1 shape with ids and the amount only, so the receiver must call back.
    pub fn event_body(self, created_unix_s: i64) -> String {
        let (event, id, number) = (self.event_id(), self.id(), self.number);
        format!(
            concat!(
                r#"{{"id":"{event}","object":"event","account":"acct_simulator","api_version":"2025-09-30.clover","#,
                r#""created":{created},"livemode":false,"pending_webhooks":1,"#,
                r#""request":{{"id":"req_sim{number:012}","idempotency_key":null}},"type":"payment_intent.succeeded","#,
                r#""data":{{"object":{{"id":"{id}","object":"payment_intent","amount":{amount},"currency":"eur","customer":"{customer}"}}}}}}"#
            ),
            customer = self.customer().id(),
            event = event,
            created = created_unix_s,
            number = number,
            id = id,
            amount = self.amount(),
        )
    }

    /// Stripe's charge object.
    pub fn charge(self) -> Value {
        let (amount, customer) = (self.amount(), self.customer());
        json!({
            "id": self.charge_id(), "object": "charge", "amount": amount, "amount_captured": amount, "amount_refunded": 0,
            "billing_details": { "email": customer.email(), "name": customer.name(), "phone": null },
            "captured": true, "created": 1_763_850_001, "currency": "eur", "customer": customer.id(), "disputed": false,
            "livemode": false, "metadata": {}, "outcome": { "network_status": "approved_by_network", "risk_level": "normal", "type": "authorized" },
            "paid": true, "payment_intent": self.id(), "receipt_email": customer.email(), "refunded": false, "status": "succeeded",
        })
    }

    /// Stripe's payment intent object as text, about 2 KB; `latest_charge` and `customer` become objects
    /// when they are to be expanded.
    pub fn object_text(self, expand_charge: bool, expand_customer: bool) -> String {
        let customer = self.customer();
        let reference = |expand: bool, id: String, object: &dyn Fn() -> Value| {
            if expand {
                object().to_string()
            } else {
                format!("\"{id}\"")
            }
        };
        let latest_charge = reference(expand_charge, self.charge_id(), &|| self.charge());
        let customer_field = reference(expand_customer, customer.id(), &|| customer.object());
        let (id, amount) = (self.id(), self.amount());
        let mut text = String::with_capacity(2600);
        // Writing into a String cannot fail.
        let _written = write!(
            text,
            concat!(
                r#"{{"id":"{id}","object":"payment_intent","amount":{amount},"amount_capturable":0,"amount_details":{{"tip":{{}}}},"#,
                r#""amount_received":{amount},"application":null,"application_fee_amount":null,"automatic_payment_methods":{{"allow_redirects":"always","enabled":true}},"#,
                r#""canceled_at":null,"cancellation_reason":null,"capture_method":"automatic_async","client_secret":"{id}_secret_simulated","#,
                r#""confirmation_method":"automatic","created":1763850000,"currency":"eur","customer":{customer},"#,
                r#""description":"Order {number:06}: two enamel mugs and a poster","invoice":null,"last_payment_error":null,"latest_charge":{charge},"#,
                r#""livemode":false,"metadata":{{"order_id":"{number:06}","channel":"web","warehouse":"TEST-2"}},"next_action":null,"on_behalf_of":null,"#,
                r#""payment_method":"pm_sim{number:012}","payment_method_configuration_details":{{"id":"pmc_simulator","parent":null}},"#,
                r#""payment_method_options":{{"card":{{"installments":null,"mandate_options":null,"network":null,"request_three_d_secure":"automatic"}}}},"#,
                r#""payment_method_types":["card"],"processing":null,"receipt_email":null,"review":null,"setup_future_usage":null,"#,
                r#""shipping":{{"address":{{"city":"Testville","country":"DE","line1":"Example Street 1","line2":null,"postal_code":"00000","state":null}},"carrier":null,"name":"{name}","phone":null,"tracking_number":null}},"#,
                r#""source":null,"statement_descriptor":null,"statement_descriptor_suffix":null,"status":"succeeded","transfer_data":null,"transfer_group":null}}"#
            ),
            id = id,
            amount = amount,
            number = self.number,
            customer = customer_field,
            charge = latest_charge,
            name = customer.name(),
        );
        text
    }
}

/// The number behind `prefix`, eight hex digits of the seed, and `digits` decimal digits.
fn numbered(id: &str, prefix: &str, seed: u32, digits: usize) -> Option<u64> {
    let rest = id.strip_prefix(prefix)?;
    let (found, number) = rest.split_at_checked(8)?;
    if number.len() != digits || u32::from_str_radix(found, 16).ok()? != seed {
        return None;
    }
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_back_to_the_payment() {
        let payment = Payment {
            seed: 0xC0FF_EE00,
            number: 1234,
        };
        assert_eq!(Payment::from_id(payment.seed, &payment.id()), Some(payment));
        assert_eq!(
            Payment::from_charge_id(payment.seed, &payment.charge_id()),
            Some(payment)
        );
        assert_eq!(Payment::from_id(1, &payment.id()), None);
        let customer = payment.customer();
        assert_eq!(Customer::from_id(payment.seed, &customer.id()), Some(customer));
    }

    #[test]
    fn the_rendered_objects_are_json_and_agree() {
        let payment = Payment { seed: 1, number: 7 };
        let plain: Value = serde_json::from_str(&payment.object_text(false, false)).unwrap();
        assert_eq!(plain["customer"], payment.customer().id());
        assert_eq!(plain["amount"], payment.amount());
        let full: Value = serde_json::from_str(&payment.object_text(true, true)).unwrap();
        assert_eq!(full["latest_charge"]["payment_intent"], payment.id());
        assert_eq!(full["customer"]["email"], "customer-0007@example.test");
        let event: Value = serde_json::from_str(&payment.event_body(1_767_225_600)).unwrap();
        assert_eq!(event["data"]["object"]["id"], payment.id());
        // Ids and amount only: whoever wants more must call back.
        assert_eq!(event["data"]["object"]["customer"], payment.customer().id());
        assert_eq!(event["data"]["object"].as_object().unwrap().len(), 5);
    }
}
