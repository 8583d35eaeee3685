//! Handshakes, batches, forms and signing the other way round.

use secrecy::SecretString;
use serde_json::{Value, json};
use weir_connector_sdk::{
    Connector, InboundRequest, KeyDocuments, Refusal, Registration, Reply, Standing, Unverified, Verifier, parse_yaml,
};

const MANIFEST: &str = r#"
connector: chat
version: 1.0.0
hosts: ["https://chat.test"]
auth: { none: {} }
webhook:
  verify: { hmac: { alg: sha256, sig: header:X-Sig, encoding: hex, parts: [body] } }
  form: payload
  handshake:
    - echo: { when: { body: /type, equals: url_verification }, read: "json:/challenge", write: "json:challenge", signed: true }
    - echo: { when: { query: challenge }, read: "query:challenge", write: text, signed: false }
    - ignore_type: [ping]
  split: /entries/*/changes
  identify:
    id: { first: [/missing, /id] }
    type: ["header:X-Kind", /action]
    time: /at
    account: envelope:/team
    ref: { type: "{{ (body.subject | split('.') | list)[0] }}", id: /object }
    data: /data
  dedupe: [/id, /n]
  order_key: /object
"#;

fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn with_request<T>(
    url: &str,
    headers: &[(String, String)],
    body: &[u8],
    run: impl FnOnce(&InboundRequest<'_>) -> T,
) -> T {
    let registration = Registration::new();
    run(&InboundRequest {
        method: "POST",
        url,
        headers,
        body,
        registration: &registration,
        client_ip: None,
    })
}

#[expect(clippy::panic, reason = "helpers of tests fail by panicking")]
/// Verdicts of schemes that need nothing but the request and the secrets.
fn verdict(
    verifier: &Verifier,
    request: &InboundRequest<'_>,
    secrets: &[SecretString],
    now_unix_ms: i64,
) -> Result<(), Refusal> {
    verifier
        .verify(request, secrets, &KeyDocuments::default(), now_unix_ms)
        .map_err(|unverified| match unverified {
            Unverified::Refused(refusal) => refusal,
            Unverified::Wants(wanted) => panic!("wants {}", wanted.url),
        })
}

#[test]
fn handshakes_echo_text_and_nothing_else() {
    let connector = Connector::parse(MANIFEST, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let webhook = connector.webhook().unwrap();
    let reply = |url: &str, body: &Value| {
        with_request(url, &[], body.to_string().as_bytes(), |request| {
            let standing = Standing {
                secrets: &[],
                awaits_secret: false,
            };
            let unsigned = webhook.unsigned_handshake(request, &standing).unwrap();
            let answer = match unsigned {
                Some(answer) => Some(answer),
                None => webhook.handshake(request, body, &standing).unwrap(),
            };
            answer.map(|answer| answer.reply)
        })
    };
    let signed = reply(
        "https://h.test/",
        &json!({ "type": "url_verification", "challenge": "c1" }),
    )
    .unwrap();
    assert_eq!(
        (signed.status, signed.body.as_slice(), signed.after_verify),
        (200, br#"{"challenge":"c1"}"#.as_slice(), true)
    );
    let text = reply("https://h.test/?challenge=%3Cb%3E", &Value::Null).unwrap();
    let expected = Reply {
        status: 200,
        headers: headers(&[
            ("x-content-type-options", "nosniff"),
            ("content-type", "text/plain; charset=utf-8"),
        ]),
        body: b"<b>".to_vec(),
        after_verify: false,
    };
    assert_eq!(text, expected);
    assert_eq!(reply("https://h.test/?challenge=a%0d%0ab", &Value::Null), None);
    assert_eq!(reply("https://h.test/", &json!({ "type": "message" })), None);
}

#[test]
fn a_batch_is_split_and_each_event_identified() {
    let connector = Connector::parse(MANIFEST, &|_| None).unwrap();
    let webhook = connector.webhook().unwrap();
    let change = |id: &str, n: u32| json!({ "id": id, "n": n, "action": "made", "at": 1_767_225_600, "subject": "contact.made", "object": 7, "data": {} });
    let body = json!({ "team": "T1", "entries": [{ "changes": [change("a", 1)] }, { "changes": [change("a", 2)] }] });
    let request_headers = headers(&[("x-kind", "contact")]);
    let events = with_request("https://h.test/", &request_headers, b"", |request| {
        webhook.identify(request, &body)
    })
    .unwrap();
    assert_eq!(
        events
            .iter()
            .map(|event| (event.unit_pointer.as_str(), event.dedupe_key.as_str()))
            .collect::<Vec<_>>(),
        [("/entries/0/changes/0", "a.1"), ("/entries/1/changes/0", "a.2")]
    );
    let event = &events[0];
    assert_eq!(
        (
            event.id.as_str(),
            event.kind.as_str(),
            event.time_unix_ms,
            event.account.as_deref()
        ),
        ("a", "contact.made", Some(1_767_225_600_000), Some("T1"))
    );
    assert_eq!(
        (
            event.reference.clone(),
            event.data_pointer.as_str(),
            event.order_key.as_deref()
        ),
        (Some(("contact".to_owned(), "7".to_owned(), None)), "/data", Some("7"))
    );
    let error = with_request("https://h.test/", &request_headers, b"", |request| {
        webhook.identify(request, &json!({ "entries": 1 }))
    })
    .unwrap_err();
    assert_eq!(error.message, "the body has no list at `/entries/*/changes`");
    let ping = with_request("https://h.test/", &headers(&[("x-kind", "ping")]), b"", |request| {
        webhook.identify(request, &json!({ "entries": [{ "changes": [{ "id": 1 }] }] }))
    })
    .unwrap();
    assert!(ping[0].ignored);
}

#[test]
fn a_form_holds_json_in_its_field() {
    let connector = Connector::parse(MANIFEST, &|_| None).unwrap();
    let form = headers(&[("content-type", "application/x-www-form-urlencoded; charset=utf-8")]);
    let read = |body: &[u8]| {
        with_request("https://h.test/", &form, body, |request| {
            connector
                .webhook()
                .unwrap()
                .json_body(request)
                .map(|body| String::from_utf8(body.into_owned()).unwrap())
        })
    };
    assert_eq!(read(b"x=1&payload=%7B%22a%22%3A+1%7D").unwrap(), r#"{"a": 1}"#);
    assert_eq!(read(b"x=1").unwrap_err().message, "the form has no field `payload`");
}

/// A sender of two kinds of forms: one holds the event as JSON, the other is it.
#[test]
fn forms_are_taken_in_the_stated_order() {
    let connector = Connector::parse(&MANIFEST.replace("form: payload", "form: [payload, \"*\"]"), &|_| None).unwrap();
    let read = |kind: &str, body: &[u8]| {
        with_request(
            "https://h.test/",
            &headers(&[("content-type", kind)]),
            body,
            |request| {
                let body = connector.webhook().unwrap().json_body(request).unwrap();
                String::from_utf8(body.into_owned()).unwrap()
            },
        )
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(read(form, b"x=1&payload=%7B%22a%22%3A+1%7D"), r#"{"a": 1}"#);
    assert_eq!(read(form, b"command=%2Fpay&text="), r#"{"command":"/pay","text":""}"#);
    assert_eq!(read("application/json", b"{\"a\": 1}"), r#"{"a": 1}"#);
    let wrong = Connector::parse(&MANIFEST.replace("form: payload", "form: [\"*\", payload]"), &|_| None).unwrap_err();
    assert_eq!(
        (wrong[0].pointer.as_str(), wrong[0].message.as_str()),
        ("/webhook/form", "`*` is every form, so it stands last")
    );
}

/// Notifications that look the same each time: only what names itself is recognised again.
#[test]
fn nothing_may_recognise_an_event_without_an_id() {
    let manifest = MANIFEST.replace("dedupe: [/id, /n]", "without_id: arrival");
    let connector = Connector::parse(&manifest, &|_| None).unwrap();
    let events = with_request(
        "https://h.test/",
        &headers(&[("x-kind", "changed")]),
        b"{}",
        |request| {
            let body = json!({ "entries": [{ "changes": [{ "id": 1 }, { "object": "o" }] }] });
            connector.webhook().unwrap().identify(request, &body)
        },
    )
    .unwrap();
    let told: Vec<bool> = events.iter().map(|event| event.by_arrival).collect();
    assert_eq!(told, [false, true]);
}

#[test]
fn xml_bodies_become_json() {
    let lists = "body: { xml: { lists: [Notification] } }";
    let connector = Connector::parse(&MANIFEST.replace("form: payload", lists), &|_| None).unwrap();
    let kind = headers(&[("content-type", "text/xml; charset=utf-8")]);
    let read = |body: &str| {
        with_request("https://h.test/", &kind, body.as_bytes(), |request| {
            let body = connector.webhook().unwrap().json_body(request);
            body.map(|body| String::from_utf8(body.into_owned()).unwrap())
        })
    };
    assert_eq!(
        read("\u{feff}<?xml version=\"1.0\"?><n:All xmlns:n=\"urn:n\"><n:Notification><Id>1</Id></n:Notification></n:All>").unwrap(),
        r#"{"All":{"Notification":[{"Id":"1"}]}}"#
    );
    assert_eq!(read("").unwrap(), "null");
    let refused = |body: &str| read(body).unwrap_err().message;
    assert_eq!(
        refused("<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>"),
        "the body is not acceptable XML: a document type declaration is refused (byte 30)"
    );
    assert!(refused("{\"a\": 1}").starts_with("the body is not acceptable XML"));
    let problem = |replacement: &str| {
        let problems = Connector::parse(&MANIFEST.replace("form: payload", replacement), &|_| None).unwrap_err();
        format!("{}: {}", problems[0].pointer, problems[0].message)
    };
    assert_eq!(
        problem("body: text"),
        "/webhook/body: `body` is xml; without it bodies are JSON"
    );
    assert_eq!(
        problem("body: xml\n  form: payload"),
        "/webhook/form: state `form` or `body`, not both"
    );
}

/// Whatever can be signed is accepted, and only with that secret and at that time.
#[test]
fn signing_is_the_inverse_of_verifying() {
    let schemes = parse_yaml(include_str!("data/schemes.yaml")).unwrap().remove(0).value;
    let now = 1_767_225_600_000;
    for (provider, scheme) in schemes["schemes"].as_object().unwrap() {
        let verifier = Verifier::compile(scheme, "").unwrap();
        let (secret, other) = match provider.as_str() {
            "pipedrive" => ("user:password", "user:other"),
            "standard-webhooks" => (
                "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=",
                "whsec_b3RoZXItb3RoZXItb3RoZXItb3Ro",
            ),
            _ => ("a secret", "another secret"),
        };
        let (secret, other) = (SecretString::from(secret), SecretString::from(other));
        let mut headers = headers(&[
            ("content-type", "application/json"),
            ("webhook-id", "msg_1"),
            ("x-zendesk-webhook-signature-timestamp", "2026-01-01T00:00:00Z"),
        ]);
        let body = br#"{"a":1}"#;
        let url = "https://h.test/hook?bodySHA256=015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862";
        let signed = with_request(url, &headers, body, |request| verifier.sign(request, &secret, now));
        let elsewhere = match provider.as_str() {
            "mailgun" | "cloudevents" => "not stand in a header",
            "sendgrid" | "discord" | "aws-sns" | "google-pubsub" => "only the sender",
            _ => "",
        };
        if !elsewhere.is_empty() {
            assert!(signed.unwrap_err().to_string().contains(elsewhere), "{provider}");
            continue;
        }
        headers.extend(signed.unwrap_or_else(|error| panic!("{provider}: {error}")));
        let verify = |secrets: &[SecretString], now: i64| {
            with_request(url, &headers, body, |request| verdict(&verifier, request, secrets, now))
        };
        assert_eq!(verify(&[other.clone(), secret.clone()], now), Ok(()), "{provider}");
        assert!(verify(&[other], now).is_err(), "{provider}");
        assert_eq!(verify(&[], now).unwrap_err().reason.as_str(), "no_secret");
        let stale = verify(std::slice::from_ref(&secret), now + 301_000);
        assert_eq!(stale.is_err(), scheme.to_string().contains("max_age_s"), "{provider}");
    }
}

#[test]
fn combined_checks_need_their_proof() {
    let scheme = parse_yaml(
        "all_of: [{ ip: [10.0.0.0/8, \"::1\"] }, { token: { at: header:authorization, prefix: \"Bearer \" } }]",
    )
    .unwrap()
    .remove(0)
    .value;
    let verifier = Verifier::compile(&scheme, "").unwrap();
    let secrets = [SecretString::from("t1")];
    let check = |ip: Option<&str>, token: &str, wanted: &str| {
        let headers = headers(&[("authorization", token)]);
        let registration = Registration::new();
        let request = InboundRequest {
            method: "POST",
            url: "https://h.test/",
            headers: &headers,
            body: b"",
            registration: &registration,
            client_ip: ip.map(|ip| ip.parse().unwrap()),
        };
        let found = verdict(&verifier, &request, &secrets, 0).map_or_else(|refusal| refusal.reason.as_str(), |()| "ok");
        assert_eq!(found, wanted, "{ip:?} {token}");
    };
    check(Some("10.1.2.3"), "Bearer t1", "ok");
    check(Some("::ffff:10.1.2.3"), "Bearer t1", "ok");
    check(Some("11.1.2.3"), "Bearer t1", "ip_not_allowed");
    check(None, "Bearer t1", "ip_not_allowed");
    check(Some("10.1.2.3"), "Bearer t2", "bad_signature");
    check(Some("10.1.2.3"), "t1", "malformed_signature");
}

#[test]
fn every_item_must_be_signed() {
    // The signature stands in each item, over some of its fields, with a hexadecimal key.
    let scheme = parse_yaml("hmac: { alg: sha256, each: /items/*, sig: item:/sig, encoding: base64, key: [hex], parts: [{ join: \":\", of: [/id, /none, /ok] }] }").unwrap().remove(0).value;
    let verifier = Verifier::compile(&scheme, "").unwrap();
    // echo -n 'a::true' | openssl dgst -sha256 -mac HMAC -macopt hexkey:00ff -binary | base64
    let good = json!({ "id": "a", "ok": true, "sig": "J+JcaEs/rAC5QHJtq4Ll/MYe7r6ev8odK6hI71gl/CM=" });
    let verify = |body: &Value| {
        with_request("https://h.test/", &[], body.to_string().as_bytes(), |request| {
            verdict(&verifier, request, &[SecretString::from("00ff")], 0).is_ok()
        })
    };
    let bad = json!({ "id": "b", "ok": true, "sig": good["sig"] });
    assert!(verify(&json!({ "items": [good, good] })));
    assert!(!verify(&json!({ "items": [good, bad] })));
    assert!(!verify(&json!({ "items": [] })));
}
