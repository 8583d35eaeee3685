//! Proofs that rest on keys of the provider, and handshakes, on a running server over real HTTP.

use crate::support::{SOON, Server, WEIR, eventually, now_unix_s, stderr, stdout};
use crate::upstream::{Reply, Upstream};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use std::process::Command;

const VECTORS: &str = include_str!("../../../connector-sdk/tests/data/webhook-vectors.json");

/// A server with these connectors, and an endpoint without secrets for each.
pub(crate) async fn server_with(manifests: &[(&str, String)]) -> (Server, tempfile::TempDir) {
    let (server, folder) = loaded(manifests).await;
    for (name, _) in manifests {
        server.apply(&format!("kind: Endpoint\nname: {name}\nconnector: {name}\n"));
    }
    (server, folder)
}

/// A server with these connectors, which may call loopback.
pub(crate) async fn loaded(manifests: &[(&str, String)]) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (name, manifest) in manifests {
        std::fs::write(folder.path().join(format!("{name}.yaml")), manifest).unwrap();
    }
    let path = folder.path().display().to_string();
    let server = Server::start_with(&[("WEIR_EGRESS_ALLOW", "127.0.0.0/8"), ("WEIR_CONNECTORS", &path)]).await;
    (server, folder)
}

pub(crate) fn mac(secret: &str, message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn manifest(name: &str, webhook: &str) -> String {
    format!(
        "connector: {name}\nversion: 1.0.0\nhosts: [\"https://api.example.test\"]\nauth: {{ none: {{}} }}\nwebhook:\n  identify: {{ id: /id, type: /type }}\n  recover: {{ level: C }}\n{webhook}events:\n  \"*\": {{}}\n"
    )
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// A message as SNS signs it, with its certificate served on loopback: the URL of the certificate is not signed.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_fetched_once_and_only_from_permitted_hosts() {
    let file: Value = serde_json::from_str(VECTORS).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    let vector = vectors
        .iter()
        .find(|vector| vector["id"] == "aws-sns/valid_v2")
        .unwrap();
    let body = STANDARD.decode(vector["body_base64"].as_str().unwrap()).unwrap();
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    let (_, pem) = vector["keys"]["certificates"]
        .as_object()
        .unwrap()
        .iter()
        .next()
        .unwrap();
    let keys = Upstream::answering(leak(pem.as_str().unwrap().to_owned())).await;
    let webhook = r#"  verify:
    x509:
      alg: { by: json:/SignatureVersion, of: { "1": sha1, "2": sha256 } }
      sig: json:/Signature
      encoding: base64
      cert_url: { from: json:/SigningCertURL, https_host_allow: [127.0.0.1], path_suffix: .pem }
      parts: [{ lines_by: json:/Type, of: { Notification: [Message, MessageId, Subject, Timestamp, TopicArn, Type] } }]
      allow: [{ at: json:/TopicArn, in: "arn:aws:sns:us-east-1:123456789012:fixture" }]
"#;
    let manifest = manifest("notices", webhook).replace("id: /id, type: /type", "id: /MessageId, type: /Type");
    let (server, _folder) = server_with(&[("notices", manifest)]).await;
    let send = async |body: &Value| {
        server
            .hook("notices", &[("content-type", "text/plain")], body.to_string())
            .await
    };

    body["SigningCertURL"] = json!("http://localhost/forged.pem");
    send(&body).await.problem(401, "SIGNATURE_REFUSED");
    body["SigningCertURL"] = json!(format!("{}/cert.pem", keys.url));
    let good = body.clone();
    body["TopicArn"] = json!("arn:aws:sns:us-east-1:999999999999:attacker");
    send(&body).await.problem(401, "SIGNATURE_REFUSED");
    assert_eq!(keys.requests().len(), 0, "what is wrong anyway makes us fetch nothing");

    let answers = futures::future::join_all((0..8).map(|_| send(&good))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{}", answers[0].text);
    assert_eq!(keys.requests().len(), 1, "one fetch for all");
    body = good;
    body["Message"] = json!("forged");
    send(&body).await.problem(401, "SIGNATURE_REFUSED");
    // Each forged URL is another one; the allowance of the endpoint holds.
    for number in 0..30 {
        body["SigningCertURL"] = json!(format!("{}/fail/{number}.pem", keys.url));
        send(&body).await.problem(503, "PROVIDER_UNAVAILABLE");
    }
    assert!(keys.requests().len() <= 20, "{} fetches", keys.requests().len());
    assert_eq!(server.list(&["events", "--json"]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_verified_with_the_published_keys_and_a_registration_confirmed() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "k1", "x": URL_SAFE_NO_PAD.encode(pair.public_key()) }] });
    let keys = Upstream::answering(leak(set.to_string())).await;
    let confirmations = Upstream::start().await;
    let token = |kid: &str| {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
        header.kid = Some(kid.to_owned());
        let claims = json!({ "aud": "me", "exp": now_unix_s() + 600 });
        let key = jsonwebtoken::EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
        format!("Bearer {}", jsonwebtoken::encode(&header, &claims, &key).unwrap())
    };
    let webhook = format!(
        "  verify: {{ jwt: {{ token: bearer, algs: [EdDSA], keys: {{ jwks_url: \"{}/jwks\" }}, audience: me }} }}\n  handshake:\n    - confirm_get: {{ when: {{ body: /type, equals: confirm }}, read: json:/url, https_host_allow: [127.0.0.1] }}\n    - status_only: {{ when: {{ method: HEAD }}, signed: false }}\n    - status_only: refusals\n",
        keys.url
    );
    let (server, _folder) = server_with(&[("tokens", manifest("tokens", &webhook))]).await;
    let send = async |token: &str, body: Value| {
        server
            .hook("tokens", &[("authorization", token)], body.to_string())
            .await
    };

    keys.next([Reply::Status(503)]);
    let down = send(&token("k1"), json!({ "id": "e1", "type": "made" })).await;
    assert_eq!((down.status, down.text.as_str()), (503, ""), "refusals are bare");
    // The failure is kept for a while: asking again at once would help nobody.
    let still = crate::support::http().post(format!("{}/hooks/main/tokens", server.url));
    let still = still
        .header("authorization", token("k1"))
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!((still.status().as_u16(), keys.requests().len()), (503, 1));
    assert_eq!(
        still.headers()["retry-after"],
        "30",
        "a bare refusal says when to come back"
    );
    assert!(still.bytes().await.unwrap().is_empty());
    assert!(server.log().contains(&format!("{}/jwks, on which proofs", keys.url)));

    let (server, _folder) = server_with(&[("tokens", manifest("tokens", &webhook))]).await;
    let send = async |token: &str, body: Value| {
        server
            .hook("tokens", &[("authorization", token)], body.to_string())
            .await
    };
    let good = send(&token("k1"), json!({ "id": "e1", "type": "made" })).await;
    assert_eq!(good.status, 200, "{}", good.text);
    for _ in 0..20 {
        assert_eq!(
            send(&token("k2"), json!({ "id": "e2", "type": "made" })).await.status,
            401
        );
    }
    assert_eq!(keys.requests().len(), 2, "unknown keys do not flood the key server");

    let url = format!("{}/?Action=Confirm", confirmations.url);
    let confirm = json!({ "type": "confirm", "url": url });
    assert_eq!(send("Bearer forged", confirm.clone()).await.status, 401);
    assert_eq!(confirmations.requests().len(), 0);
    assert_eq!(send(&token("k1"), confirm.clone()).await.status, 200);
    assert!(confirmations.requests()[0].head.starts_with("GET /?Action=Confirm "));
    confirmations.next([Reply::Status(500)]);
    send(&token("k1"), confirm).await.problem(503, "PROVIDER_UNAVAILABLE");
    let probe = reqwest_head(&format!("{}/hooks/main/tokens", server.url)).await;
    assert_eq!(probe, 200);
    assert_eq!(server.list(&["events", "--json"]).len(), 1, "handshakes are no events");
}

/// `MAX_KEY_DOCUMENT_BYTES`, `FETCH_TIMEOUT`
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_within_bounds() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": URL_SAFE_NO_PAD.encode(pair.public_key()) }] })
        .to_string();
    let claims = json!({ "aud": "me", "exp": now_unix_s() + 600 });
    let key = jsonwebtoken::EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
    let token = format!("Bearer {}", jsonwebtoken::encode(&header, &claims, &key).unwrap());
    let padded = |bytes: usize| leak(format!("{set}{}", " ".repeat(bytes - set.len())));
    let fitting = Upstream::answering(padded(1 << 20)).await;
    let larger = Upstream::answering(padded((1 << 20) + 1)).await;
    // Takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let manifests = [("fits", &fitting.url), ("larger", &larger.url), ("silent", &silent_url)].map(|(name, url)| {
        let webhook = format!(
            "  verify: {{ jwt: {{ token: bearer, algs: [EdDSA], keys: {{ jwks_url: \"{url}/jwks\" }}, audience: me }} }}\n"
        );
        (name, manifest(name, &webhook))
    });
    let (server, _folder) = server_with(&manifests).await;
    let body = json!({ "id": "e1", "type": "made" }).to_string();
    let fits = server.hook("fits", &[("authorization", &token)], body.clone()).await;
    assert_eq!(fits.status, 200, "{}", fits.text);
    let larger = server.hook("larger", &[("authorization", &token)], body.clone()).await;
    larger.problem(503, "PROVIDER_UNAVAILABLE");
    assert!(server.log().contains("larger than 1048576 bytes"), "{}", server.log());
    let begun = tokio::time::Instant::now();
    let unanswered = server.hook("silent", &[("authorization", &token)], body).await;
    unanswered.problem(503, "PROVIDER_UNAVAILABLE");
    assert!((3..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

/// `CONFIRM_TIMEOUT`
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_that_takes_too_long_is_asked_for_again() {
    let webhook = "  verify: { hmac: { alg: sha256, sig: header:X-Sig, encoding: hex, parts: [body] } }\n  handshake: { confirm_get: { when: { body: /type, equals: confirm }, read: json:/url, https_host_allow: [127.0.0.1] } }\n";
    let (server, _folder) = loaded(&[("slow", manifest("slow", webhook))]).await;
    server.apply("kind: Endpoint\nname: slow\nconnector: slow\nsecrets: [a-secret]\n");
    // Takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/confirm", silent.local_addr().unwrap());
    let body = json!({ "type": "confirm", "url": url }).to_string();
    let signature = hex(&mac("a-secret", body.as_bytes()));
    let begun = tokio::time::Instant::now();
    let unconfirmed = server.hook("slow", &[("x-sig", &signature)], body).await;
    unconfirmed.problem(503, "PROVIDER_UNAVAILABLE");
    assert!((8..16).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

/// What an endpoint knows of its registration is asked for when it is applied, and exported as it was stated.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_states_its_context() {
    let webhook = "  context:\n    topic: { required: true, description: \"the name on the topic's page\" }\n  verify: { hmac: { alg: sha256, sig: header:X-Sig, encoding: hex, parts: [\"ctx:topic\", body] } }\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("topics.yaml"), manifest("topics", webhook)).unwrap();
    let path = folder.path().display().to_string();
    let server = Server::start_with(&[("WEIR_CONNECTORS", &path)]).await;
    let document =
        |context: &str| format!("kind: Endpoint\nname: topics\nconnector: topics\nsecrets: [s-0001]\n{context}");
    let refused = stderr(&server.try_apply(&document(""), &[]));
    assert!(
        refused.contains("/context/topic: `topic` is missing (the name on the topic's page)"),
        "{refused}"
    );
    server.apply(&document("context: { topic: [a, b] }\n"));
    let exported = stdout(&server.weir(&["export"]));
    assert!(exported.contains("context:\n  topic:\n"), "{exported}");
    let same = server.try_apply(&exported, &["--dry-run"]);
    assert!(same.status.success(), "{}", stdout(&same));
}

async fn reqwest_head(url: &str) -> u16 {
    crate::support::http().head(url).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_taken_once_and_survives_a_restart() {
    let webhook = "  verify: { hmac: { alg: sha256, sig: header:X-Hook-Signature, encoding: hex, parts: [body] } }\n  handshake: { store_secret: { read: header:X-Hook-Secret, write: header:X-Hook-Secret } }\n";
    let (mut server, _folder) = server_with(&[("tasks", manifest("tasks", webhook))]).await;
    let secret = "b537207f20cbfa02357cf448134da559";
    let body = json!({ "id": "e1", "type": "made" }).to_string();
    let signature = hex(&mac(secret, body.as_bytes()));

    let events = server
        .hook("tasks", &[("x-hook-signature", &signature)], body.clone())
        .await;
    events.problem(401, "SIGNATURE_REFUSED");
    let taken = crate::support::http()
        .post(format!("{}/hooks/main/tasks", server.url))
        .header("x-hook-secret", secret)
        .send()
        .await
        .unwrap();
    assert_eq!(taken.status().as_u16(), 200);
    assert_eq!(taken.headers()["x-hook-secret"], secret);
    let attack = "attackerattackerattackerattacker";
    let second = server.hook("tasks", &[("x-hook-secret", attack)], "").await;
    second.problem(401, "SIGNATURE_REFUSED");
    // What was refused is written behind the answer.
    let refused = eventually("the second request is listed", SOON, async || {
        let refused = stdout(&server.weir(&["refused", "--json"]));
        refused.contains("unexpected_secret").then_some(refused)
    })
    .await;
    assert!(!refused.contains(attack), "{refused}");

    server.kill();
    server.start_again().await;
    let events = server.hook("tasks", &[("x-hook-signature", &signature)], body).await;
    assert_eq!(events.status, 200, "{}", events.text);
    let log = server.log();
    assert!(!log.contains(secret), "the secret is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_proves_the_sender() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let webhook = "  verify: { pubkey: { alg: ed25519, sig: header:X-Signature, encoding: hex, key_form: raw-hex, parts: [header:X-Time, body] } }\n";
    let (server, _folder) = loaded(&[("chat", manifest("chat", webhook))]).await;
    let key = hex(pair.public_key().as_ref());
    server.apply(&format!(
        "kind: Endpoint\nname: chat\nconnector: chat\nsecrets: [\"{key}\"]\n"
    ));
    let body = json!({ "id": "e1", "type": "made" }).to_string();
    let signature = hex(pair.sign(format!("7{body}").as_bytes()).as_ref());
    let send = async |time: &str, body: &str| {
        let headers = [("x-signature", signature.as_str()), ("x-time", time)];
        server.hook("chat", &headers, body.to_owned()).await
    };
    send("8", &body).await.problem(401, "SIGNATURE_REFUSED");
    let forged = body.replace("made", "paid");
    send("7", &forged).await.problem(401, "SIGNATURE_REFUSED");
    let good = send("7", &body).await;
    assert_eq!(good.status, 200, "{}", good.text);
    assert_eq!(server.list(&["events", "--json"]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_list_lets_only_its_networks_in() {
    let lists = Upstream::answering(r#"{"p":["127.0.0.0/8"]}"#).await;
    let published = |count: usize| {
        let list = |number| format!("{{ ip: {{ url: \"{}/{count}/{number}\", at: [/p/*] }} }}", lists.url);
        let lists: Vec<String> = (0..count).map(list).collect();
        format!(
            "  verify: {{ all_of: [{{ token: {{ at: header:X-Token }} }}, {}] }}\n",
            lists.join(", ")
        )
    };
    let listed = "  verify: { all_of: [{ ip: [127.0.0.0/8] }, { token: { at: header:X-Token } }] }\n";
    let (server, _folder) = loaded(&[
        ("near", manifest("near", listed)),
        ("four", manifest("four", &published(4))),
        ("five", manifest("five", &published(5))),
    ])
    .await;
    for name in ["near", "four", "five"] {
        server.apply(&format!(
            "kind: Endpoint\nname: {name}\nconnector: {name}\nsecrets: [t]\n"
        ));
    }
    server.apply("kind: Endpoint\nname: far\nconnector: near\nsecrets: [t]\nverify: { all_of: [{ ip: [10.0.0.0/8] }, { token: { at: header:X-Token } }] }\n");
    let send = async |endpoint: &str, token: &str| {
        let body = json!({ "id": "e1", "type": "made" }).to_string();
        server.hook(endpoint, &[("x-token", token)], body).await
    };
    assert_eq!(send("near", "t").await.status, 200);
    send("near", "wrong").await.problem(401, "SIGNATURE_REFUSED");
    send("far", "t").await.problem(403, "ADDRESS_NOT_ALLOWED");
    // What one request may make the server fetch is bounded, and nothing is fetched beyond it.
    let four = send("four", "t").await;
    assert_eq!((four.status, lists.requests().len()), (200, 4), "{}", four.text);
    send("five", "t").await.problem(503, "PROVIDER_UNAVAILABLE");
    assert_eq!(lists.requests().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_stand_in_the_path() {
    let webhook = "  verify: { token: { at: path } }\n";
    let (server, _folder) = loaded(&[("old", manifest("old", webhook))]).await;
    let token = "path-token-0123456789";
    server.apply(&format!(
        "kind: Endpoint\nname: old\nconnector: old\nsecrets: [{token}]\n"
    ));
    let body = json!({ "id": "e1", "type": "made" }).to_string();
    let good = server.hook(&format!("old/{token}"), &[], body.clone()).await;
    assert_eq!(good.status, 200, "{}", good.text);
    let wrong = server.hook("old/another-token", &[], body.clone()).await;
    wrong.problem(401, "SIGNATURE_REFUSED");
    server.hook("old", &[], body).await.problem(401, "SIGNATURE_REFUSED");
    assert_eq!(server.list(&["events", "--json"]).len(), 1);
    assert!(!server.log().contains(token), "the token is in the log");
    let refused = stdout(&server.weir(&["refused", "--json"]));
    assert!(!refused.contains("another-token"), "{refused}");
}

#[test]
fn vectors_run_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let output = Command::new(WEIR)
            .args(["connector", "test"])
            .arg(folder.path())
            .output()
            .unwrap();
        (output.status.code(), stdout(&output))
    };
    assert_eq!(run().0, Some(2), "an empty folder is a mistake");
    std::fs::write(folder.path().join("vectors.json"), {
        let mut file: Value = serde_json::from_str(VECTORS).unwrap();
        for key in ["vectors", "handshakes"] {
            file[key]
                .as_array_mut()
                .unwrap()
                .retain(|vector| vector["provider"] == "discord");
        }
        file.to_string()
    })
    .unwrap();
    let webhook = "  verify: { pubkey: { alg: ed25519, sig: header:X-Signature-Ed25519, encoding: hex, key_form: raw-hex, parts: [header:X-Signature-Timestamp, body] } }\n  handshake: { echo: { when: { body: /type, equals: 1 }, write: { json: { type: 1 } }, signed: true } }\n";
    std::fs::write(folder.path().join("chat.yaml"), manifest("chat", webhook)).unwrap();
    let (code, text) = run();
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.lines().count(), 7);
    assert!(text.contains("ok      discord/valid: accept\n"), "{text}");
    assert!(
        text.contains(
            "ok      discord/tampered_body: reject bad_signature: the header x-signature-ed25519 does not fit"
        )
    );
    assert!(text.contains("ok      discord/ping: accept, handshake 200\n"));
    let without_time = webhook.replace("header:X-Signature-Timestamp, ", "");
    std::fs::write(folder.path().join("chat.yaml"), manifest("chat", &without_time)).unwrap();
    let (code, text) = run();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("FAILED  discord/valid: reject bad_signature:"), "{text}");

    // Without a provider a vector belongs to the only manifest; with several it says so instead of being passed over.
    let mut file: Value = serde_json::from_str(VECTORS).unwrap();
    file["handshakes"] = json!([]);
    let list = file["vectors"].as_array_mut().unwrap();
    list.retain(|vector| vector["id"] == "discord/valid");
    let mut nameless = list[0].clone();
    nameless["id"] = json!("nameless");
    nameless.as_object_mut().unwrap().remove("provider");
    list.push(nameless);
    std::fs::write(folder.path().join("vectors.json"), file.to_string()).unwrap();
    let discord = manifest("discord", webhook);
    std::fs::write(folder.path().join("chat.yaml"), &discord).unwrap();
    let (code, text) = run();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("ok      nameless: accept\n"), "{text}");
    std::fs::write(folder.path().join("other.yaml"), manifest("other", webhook)).unwrap();
    let (code, text) = run();
    assert_eq!((code, text.lines().count()), (Some(1), 1), "{text}");
}
