//! Handshakes on a running server over real HTTP: what is answered, what is kept, and what is not.

use crate::operating::change;
use crate::proofs::{loaded, mac, manifest, server_with};
use crate::support::{SOON, eventually, http, post, stderr, stdout};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const SECRET: &str = "b537207f20cbfa02357cf448134da559";
const STORES: &str = "  verify: { hmac: { alg: sha256, sig: header:X-Signature, encoding: hex, parts: [body] } }\n  handshake: { store_secret: { read: json:/verification_token } }\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_is_allowed_by_name() {
    let webhook = "  verify: { token: { at: header:X-Token } }\n  handshake: { allow_origin: { origins: [events.test], rate: 100 } }\n";
    let (server, _folder) = loaded(&[("cloud", manifest("cloud", webhook))]).await;
    server.apply("kind: Endpoint\nname: cloud\nconnector: cloud\nsecrets: [t]\n");
    let ask = async |origin: &str| {
        let url = format!("{}/hooks/main/cloud", server.url);
        let request = http().request(reqwest::Method::OPTIONS, url);
        let request = request.header("webhook-request-origin", origin);
        request.header("webhook-request-rate", "5000").send().await.unwrap()
    };
    let allowed = ask("events.test").await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(allowed.headers()["webhook-allowed-origin"], "events.test");
    assert_eq!(allowed.headers()["webhook-allowed-rate"], "100");
    let refused = ask("evil.test").await;
    assert_eq!(refused.status(), 401);
    assert!(!refused.headers().contains_key("webhook-allowed-origin"));
    let event = json!({ "id": "e1", "type": "made" }).to_string();
    let answer = server.hook("cloud", &[("x-token", "t")], event).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_answered_with_its_hmac() {
    let webhook = "  verify: { hmac: { alg: sha256, sig: header:X-Signature, encoding: hex, parts: [body] } }\n  handshake: { hmac_reply: { when: { query: crc_token }, read: query:crc_token, alg: sha256, encoding: base64, prefix: \"sha256=\", write: json:response_token, signed: false } }\n";
    let (server, _folder) = loaded(&[("posts", manifest("posts", webhook))]).await;
    server.apply(&format!(
        "kind: Endpoint\nname: posts\nconnector: posts\nsecrets: [{SECRET}]\n"
    ));
    let ask = async |query: &str| {
        let url = format!("{}/hooks/main/posts?{query}", server.url);
        let answer = http().get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, text) = ask("crc_token=abc_1").await;
    let wanted = format!("sha256={}", STANDARD.encode(mac(SECRET, b"abc_1")));
    assert_eq!(
        (status, serde_json::from_str::<Value>(&text).unwrap()),
        (200, json!({ "response_token": wanted }))
    );
    // The answer would be the signature of a forged event.
    assert_eq!(ask("crc_token=%7B%22type%22%3A%22made%22%7D").await.0, 401);
    assert_eq!(ask("").await.0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_nobody_awaits_is_kept_nowhere() {
    let (server, _folder) = server_with(&[("notes", manifest("notes", STORES))]).await;
    let bring = async |secret: &str| {
        let body = json!({ "verification_token": secret }).to_string();
        server.hook("notes", &[], body).await
    };
    assert_eq!(bring(SECRET).await.status, 200);
    // The provider did not hear the answer.
    assert_eq!(bring(SECRET).await.status, 200);
    let stranger = "0123456789abcdef0123456789abcdef";
    bring(stranger).await.problem(401, "SIGNATURE_REFUSED");
    let query =
        json!({ "query": "{ refusedRequests(first: 10) { nodes { reason body { text } headers { value } } } }" });
    let bearer = format!("Bearer {}", server.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let refused = eventually("the refusal is stored", SOON, async || {
        let answer = post(&format!("{}/graphql", server.url), &headers, query.to_string()).await;
        let nodes = answer.body["data"]["refusedRequests"]["nodes"].clone();
        (nodes.as_array().is_some_and(|nodes| !nodes.is_empty())).then_some(nodes)
    })
    .await;
    assert_eq!(refused[0]["reason"], "unexpected_secret");
    assert_eq!(refused[0]["body"]["text"], "[redacted]");
    assert!(!refused.to_string().contains(stranger), "{refused}");
    assert!(!server.log().contains(stranger));
}

/// The provider must not hear that its secret was not stored when it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_secret_counts_although_the_configuration_cannot_be_read() {
    let (server, _folder) = server_with(&[("notes", manifest("notes", STORES))]).await;
    server.apply("kind: Endpoint\nname: other\nconnector: stripe\nsecrets: [whsec_0123456789]\nallow: [10.0.0.0/8]\n");
    change(&server, "UPDATE endpoint SET allow = 'broken' WHERE name = 'other'").await;
    let body = json!({ "verification_token": SECRET }).to_string();
    let answer = server.hook("notes", &[], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(server.log().contains("is stored, but the configuration cannot be read"));

    change(&server, "UPDATE endpoint SET allow = '[]' WHERE name = 'other'").await;
    let event = json!({ "id": "e1", "type": "made" }).to_string();
    let signature: String = mac(SECRET, event.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    eventually("the secret is in force", SOON, async || {
        let answer = server
            .hook("notes", &[("x-signature", &signature)], event.clone())
            .await;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// A verification of the endpoint's own wants a secret of its own, and strangers cannot plant one.
#[tokio::test(flavor = "multi_thread")]
async fn an_own_verification_awaits_no_secret_of_the_provider() {
    let (server, _folder) = loaded(&[("notes", manifest("notes", STORES))]).await;
    let own = "kind: Endpoint\nname: own\nconnector: notes\nverify: { token: { at: header:X-Token } }\n";
    let refused = server.try_apply(own, &[]);
    let told = format!("{}{}", stdout(&refused), stderr(&refused));
    assert!(!refused.status.success() && told.contains("needs a secret"), "{told}");
    server.apply(&format!("{own}secrets: [t]\n"));
    let body = json!({ "verification_token": SECRET }).to_string();
    server.hook("own", &[], body).await.problem(401, "SIGNATURE_REFUSED");
}
