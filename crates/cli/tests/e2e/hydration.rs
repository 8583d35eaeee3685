//! A manifest that nobody compiled in: loaded at run time, its five reads run in the order of the names they use.

use crate::support::{SOON, Server, eventually};
use serde_json::json;
use weir_simulator::{Simulator, SimulatorOptions};

const MANIFEST: &str = r#"
connector: shop
version: 1.0.0
hosts: ["https://shop.example.test"]
auth: { none: {} }
operations:
  thing.get:
    get: "/crm/{{ kind }}/{{ id }}"
    input: { kind: { type: string, required: true }, id: { type: string, required: true } }
webhook:
  verify: { hmac: { alg: sha256, sig: "header:Shop-Signature", encoding: hex, parts: [body] } }
  identify: { id: /id, type: /type, ref: { type: "lit:order", id: /order } }
  recover: { level: C }
events:
  order.placed:
    hydrate_default: always
    reads:
      receipt:  { call: thing.get, with: { kind: receipts, id: "{{ quote.receipt }}" } }
      quote:    { call: thing.get, with: { kind: quotes, id: "{{ customer.tier }}-{{ stock.site }}" } }
      customer: { call: thing.get, with: { kind: customers, id: "{{ order.customer }}" } }
      stock:    { call: thing.get, with: { kind: stock, id: "{{ order.stock }}" } }
      order:    { call: thing.get, with: { kind: orders, id: "{{ ref.id }}" } }
"#;

fn documents(base_url: &str) -> String {
    format!(
        r#"
kind: Connection
name: shop
connector: shop
config: {{ base_url: "{base_url}" }}
---
kind: Connection
name: crm
connector: http
config: {{ base_url: "{base_url}", idempotency: {{ header: Idempotency-Key }} }}
---
kind: Endpoint
name: shop
connection: shop
secrets: [shop-secret]
---
kind: Workflow
name: orders
on: {{ event: shop.order.placed, connection: shop }}
steps:
  - id: deal
    call: http.request
    connection: crm
    with:
      method: POST
      path: "/crm/deals/{{{{ event.ref.id }}}}"
      body:
        total: "{{{{ hydrated.receipt.total }}}}"
        via: "{{{{ hydrated.quote.id }}}} {{{{ hydrated.customer.id }}}} {{{{ hydrated.stock.id }}}} {{{{ hydrated.order.id }}}}"
"#
    )
}

fn signature(body: &str) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"shop-secret").unwrap();
    mac.update(body.as_bytes());
    mac.finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diamond_of_five_reads_is_run_from_a_manifest_loaded_at_start() {
    let shop = Simulator::start(SimulatorOptions::default()).await.unwrap();
    shop.put_object(
        "crm/orders",
        "o1",
        json!({ "id": "o1", "customer": "c1", "stock": "s1" }),
    );
    shop.put_object("crm/customers", "c1", json!({ "id": "c1", "tier": "gold" }));
    shop.put_object("crm/stock", "s1", json!({ "id": "s1", "site": "north" }));
    shop.put_object(
        "crm/quotes",
        "gold-north",
        json!({ "id": "gold-north", "receipt": "r1" }),
    );
    shop.put_object("crm/receipts", "r1", json!({ "id": "r1", "total": 4200 }));
    let manifests = tempfile::tempdir().unwrap();
    std::fs::write(manifests.path().join("shop.yaml"), MANIFEST).unwrap();
    let folder = manifests.path().display().to_string();
    let server = Server::start_with(&[("WEIR_EGRESS_ALLOW", "127.0.0.0/8"), ("WEIR_CONNECTORS", &folder)]).await;
    server.apply(&documents(&shop.base_url()));

    let body = json!({ "id": "e1", "type": "order.placed", "order": "o1" }).to_string();
    let answer = server
        .hook("shop", &[("shop-signature", &signature(&body))], body)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);

    let deal = eventually("the order is in the CRM", SOON, async || shop.object("crm/deals", "o1")).await;
    assert_eq!(deal["total"], 4200);
    assert_eq!(deal["via"], "gold-north c1 s1 o1");
    let counts = shop.ledger().summary();
    assert_eq!(counts.routes["crm.get"].requests, 5, "one request per read: {counts:?}");
    assert_eq!(counts.effects, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_gone_is_null_and_the_reads_behind_it_are_left_out() {
    let shop = Simulator::start(SimulatorOptions::default()).await.unwrap();
    shop.put_object(
        "crm/orders",
        "o2",
        json!({ "id": "o2", "customer": "c2", "stock": "s2" }),
    );
    shop.put_object("crm/stock", "s2", json!({ "id": "s2", "site": "south" }));
    let manifests = tempfile::tempdir().unwrap();
    std::fs::write(manifests.path().join("shop.yaml"), MANIFEST).unwrap();
    let folder = manifests.path().display().to_string();
    let server = Server::start_with(&[("WEIR_EGRESS_ALLOW", "127.0.0.0/8"), ("WEIR_CONNECTORS", &folder)]).await;
    let with_gone = documents(&shop.base_url())
        .replace("{{ hydrated.receipt.total }}", "{{ hydrated.receipt is none }}")
        .replace(
            "{{ hydrated.quote.id }} {{ hydrated.customer.id }} {{ hydrated.stock.id }}",
            "{{ hydrated.stock.id }}",
        );
    server.apply(&with_gone);

    let body = json!({ "id": "e2", "type": "order.placed", "order": "o2" }).to_string();
    let answer = server
        .hook("shop", &[("shop-signature", &signature(&body))], body)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);

    // Three quick retries (1 s, 4 s, 10 s) before an object counts as gone.
    let patience = SOON + std::time::Duration::from_secs(20);
    let deal = eventually("the order is in the CRM", patience, async || {
        shop.object("crm/deals", "o2")
    })
    .await;
    assert_eq!(deal["total"], true);
    assert_eq!(deal["via"], "s2 o2");
}
