//! One trace from the provider's `traceparent` through the run to the outgoing call, exported over OTLP.

use crate::support::{SOON, Server, eventually, now_unix_s, payment_event, stripe_signature};
use crate::upstream::Upstream;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SECRET: &str = "whsec_tracing";

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_through_and_out() {
    let collector = Upstream::start().await;
    let upstream = Upstream::start().await;
    let mut server = Server::start_with(&[
        ("WEIR_EGRESS_ALLOW", "127.0.0.0/8"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url),
    ])
    .await;
    server.apply(&format!(
        "kind: Connection\nname: crm\nconnector: http\nconfig: {{ base_url: '{url}' }}\n---\n\
         kind: Connection\nname: stripe\nconnector: stripe\nconfig: {{ base_url: '{url}' }}\ncredential: {{ bearer: {{ token: sk_test_e2e }} }}\n---\n\
         kind: Endpoint\nname: stripe\nconnection: stripe\nsecrets: [{SECRET}]\n---\n\
         kind: Workflow\nname: trace\non: {{ event: stripe.payment_intent.succeeded, connection: stripe, hydrate: never }}\nsteps:\n  \
         - {{ id: deal, call: http.request, connection: crm, with: {{ method: POST, path: /deals, body: {{ id: '{{{{ event.id }}}}' }} }} }}\n",
        url = upstream.url
    ));
    let body = payment_event("evt_traced", "pi_1");
    let signature = stripe_signature(SECRET, body.as_bytes(), now_unix_s());
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let answer = server
        .hook(
            "stripe",
            &[("stripe-signature", &signature), ("traceparent", &traceparent)],
            body,
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);

    let call = eventually("the call arrives", SOON, async || {
        upstream
            .requests()
            .into_iter()
            .find(|request| request.head.starts_with("POST /deals"))
    })
    .await;
    let sent = call
        .header("traceparent")
        .unwrap_or_else(|| panic!("no traceparent in {}", call.head));
    assert!(sent.contains(TRACE) && !sent.contains("00f067aa0ba902b7"), "{sent}");

    // A polite stop flushes what is still buffered.
    eventually("the run succeeds", SOON, async || {
        (server.runs(&["--status", "succeeded"]).len() == 1).then_some(())
    })
    .await;
    assert_eq!(server.stop().await, Some(0), "{}", server.log());
    let exports: Vec<_> = collector
        .requests()
        .into_iter()
        .filter(|request| request.head.starts_with("POST /v1/traces"))
        .collect();
    let trace = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    assert!(
        exports.iter().any(|export| contains(&export.body, &trace)),
        "the trace was not exported: {} exports\n{}",
        exports.len(),
        server.log()
    );
    assert!(
        exports.iter().any(|export| contains(&export.body, b"service.name")),
        "no resource"
    );
    assert!(
        !exports.iter().any(|export| contains(&export.body, SECRET.as_bytes())),
        "a secret was exported"
    );
}
