//! Proofs that rest on keys of the sender: which document is asked for, when, and when none is.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::SecretString;
use serde_json::{Value, json};
use weir_connector_sdk::{InboundRequest, KeyDocument, KeyDocuments, Registration, Unverified, Verifier, parse_yaml};

const NOW_S: i64 = 1_767_225_600;

fn compile(yaml: &str) -> Verifier {
    let scheme = parse_yaml(yaml).unwrap().remove(0).value;
    Verifier::compile(&scheme, "").unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// A request under test.
#[derive(Default)]
struct Case<'a> {
    headers: &'a [(&'a str, &'a str)],
    body: &'a str,
    secrets: &'a [&'a str],
    context: &'a [(&'a str, &'a str)],
    ip: Option<&'a str>,
    documents: KeyDocuments,
}

impl Case<'_> {
    fn verdict(&self, verifier: &Verifier) -> String {
        let headers: Vec<(String, String)> = self
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let registration: Registration = self
            .context
            .iter()
            .map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]))
            .collect();
        let secrets: Vec<SecretString> = self.secrets.iter().map(|secret| (*secret).into()).collect();
        let request = InboundRequest {
            method: "POST",
            url: "https://hooks.test/in",
            headers: &headers,
            body: self.body.as_bytes(),
            registration: &registration,
            client_ip: self.ip.map(|ip| ip.parse().unwrap()),
        };
        match verifier.verify(&request, &secrets, &self.documents, NOW_S * 1_000) {
            Ok(()) => "accept".to_owned(),
            Err(Unverified::Refused(refusal)) => refusal.reason.as_str().to_owned(),
            Err(Unverified::Wants(wanted)) => {
                format!("wants {}{}", wanted.url, if wanted.newer { " newer" } else { "" })
            }
        }
    }
}

fn documents(url: &str, body: &str, final_word: bool) -> KeyDocuments {
    let mut documents = KeyDocuments::default();
    let body = Arc::from(body.as_bytes());
    documents.insert(url, KeyDocument::Here { body, final_word });
    documents
}

const KEYS: &str = "https://keys.test/jwks";

/// An Ed25519 key set with one key, and a way to sign with it.
fn token_signer(kid: &str) -> (String, impl Fn(Value) -> String) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(pair.public_key());
    let set = json!({ "keys": [{ "kty": "of tomorrow", "kid": "z" }, { "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "alg": "EdDSA" }] });
    let key = EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(kid.to_owned());
    (set.to_string(), move |claims| {
        format!("Bearer {}", jsonwebtoken::encode(&header, &claims, &key).unwrap())
    })
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({ "aud": ["other", "me"], "iat": NOW_S, "exp": NOW_S + 600 });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

#[test]
fn a_key_set_is_asked_for_only_when_all_else_is_right() {
    let verifier = compile(
        "jwt: { token: bearer, algs: [EdDSA], keys: { jwks_url: \"https://keys.test/jwks\" }, audience: ctx:audience }",
    );
    assert!(!verifier.needs_secret());
    let (set, sign) = token_signer("k1");
    let check = |token: &str, documents: KeyDocuments, wanted: &str| {
        let case = Case {
            headers: &[("authorization", token)],
            context: &[("audience", "me")],
            documents,
            ..Case::default()
        };
        assert_eq!(case.verdict(&verifier), wanted);
    };
    let good = sign(claims(json!({})));
    let none = KeyDocuments::default;
    check(&good, none(), "wants https://keys.test/jwks");
    check(&good, documents(KEYS, &set, false), "accept");
    // Whatever is wrong without the keys makes nobody fetch them.
    check(&sign(claims(json!({ "aud": "you" }))), none(), "value_not_allowed");
    check(&sign(claims(json!({ "exp": NOW_S - 61 }))), none(), "stale_timestamp");
    check(&sign(claims(json!({ "nbf": NOW_S + 61 }))), none(), "future_timestamp");
    check(&sign(claims(json!({ "exp": null }))), none(), "malformed_timestamp");
    check("Bearer a.b.c", none(), "malformed_signature");
    check("Basic eA==", none(), "malformed_signature");
    // A set that lacks the key is asked for once more, and then it is final.
    let (_, stranger) = token_signer("k2");
    let strange = stranger(claims(json!({})));
    check(
        &strange,
        documents(KEYS, &set, false),
        "wants https://keys.test/jwks newer",
    );
    check(&strange, documents(KEYS, &set, true), "unknown_key");
    let (_, impostor) = token_signer("k1");
    check(
        &impostor(claims(json!({}))),
        documents(KEYS, &set, false),
        "bad_signature",
    );
    check(&good, documents(KEYS, "<html>", false), "keys_unavailable");
    let mut gone = KeyDocuments::default();
    gone.insert(KEYS, KeyDocument::Unavailable { why: "503".to_owned() });
    check(&good, gone, "keys_unavailable");
}

#[test]
fn a_token_can_be_bound_to_the_body_and_to_a_shared_secret() {
    let verifier = compile(
        "jwt: { token: header:X-Verify, algs: [HS256], keys: secret, max_age_s: 300, body_hash_claim: request_body_sha256 }",
    );
    assert!(verifier.covers_body() && verifier.needs_secret());
    // echo -n '{}' | sha256sum
    let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let token = |iat: i64, secret: &str| {
        let claims = json!({ "iat": iat, "request_body_sha256": hash });
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
    };
    let check = |token: &str, body: &str, wanted: &str| {
        let case = Case {
            headers: &[("x-verify", token)],
            body,
            secrets: &["other", "secret"],
            ..Case::default()
        };
        assert_eq!(case.verdict(&verifier), wanted);
    };
    check(&token(NOW_S - 300, "secret"), "{}", "accept");
    check(&token(NOW_S - 301, "secret"), "{}", "stale_timestamp");
    check(&token(NOW_S, "secret"), "{ }", "bad_signature");
    check(&token(NOW_S, "guess"), "{}", "bad_signature");
}

#[test]
fn an_alternative_without_documents_comes_first() {
    let verifier = compile(
        "any_of: [{ jwt: { token: bearer, algs: [EdDSA], keys: { jwks_url: \"https://keys.test/jwks\" }, audience: me } }, { token: { at: header:X-Token } }]",
    );
    let (_, sign) = token_signer("k1");
    let bearer = sign(claims(json!({})));
    let case = |token: &str| {
        let case = Case {
            headers: &[("authorization", &bearer), ("x-token", token)],
            secrets: &["t"],
            ..Case::default()
        };
        case.verdict(&verifier)
    };
    assert_eq!(case("t"), "accept");
    assert_eq!(case("wrong"), "wants https://keys.test/jwks");
    let verifier = compile(
        "all_of: [{ ip: { url: \"https://keys.test/ranges\", at: [/prefixes/*/cidr] } }, { token: { at: header:X-Token } }]",
    );
    let ranges = json!({ "prefixes": [{ "cidr": "10.0.0.0/8" }, { "cidr": "2001:db8::/32" }] }).to_string();
    let check = |token: &str, ip: &str, documents: KeyDocuments, wanted: &str| {
        let case = Case {
            headers: &[("x-token", token)],
            secrets: &["t"],
            ip: Some(ip),
            documents,
            ..Case::default()
        };
        assert_eq!(case.verdict(&verifier), wanted);
    };
    let url = "https://keys.test/ranges";
    check("wrong", "10.1.1.1", KeyDocuments::default(), "bad_signature");
    check(
        "t",
        "10.1.1.1",
        KeyDocuments::default(),
        "wants https://keys.test/ranges",
    );
    check("t", "10.1.1.1", documents(url, &ranges, false), "accept");
    check("t", "2001:db8::1", documents(url, &ranges, false), "accept");
    check(
        "t",
        "11.1.1.1",
        documents(url, &ranges, false),
        "wants https://keys.test/ranges newer",
    );
    check("t", "11.1.1.1", documents(url, &ranges, true), "ip_not_allowed");
    check("t", "10.1.1.1", documents(url, "{}", false), "keys_unavailable");
}

#[test]
fn public_keys_come_in_every_form() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let signature = STANDARD.encode(pair.sign(b"msg_1.{}").as_ref());
    let raw = pair.public_key().as_ref();
    // SubjectPublicKeyInfo of Ed25519 (RFC 8410 §4): a fixed head before the 32 bytes.
    let mut spki = hex::decode("302a300506032b6570032100").unwrap();
    spki.extend_from_slice(raw);
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(&spki)
    );
    let (hex, base64) = (hex::encode(raw), STANDARD.encode(raw));
    let whpk = format!("whpk_{base64}");
    let check = |form: &str, key: &str, wanted: &str| {
        let verifier = compile(&format!(
            "pubkey: {{ alg: ed25519, sig: header:webhook-signature, format: {{ item: \" \", kv: \",\", name: v1a }}, encoding: base64, {form}, parts: [header:webhook-id, \"lit:.\", body] }}"
        ));
        let entries = format!("v1,xx v1a,{signature}");
        let case = Case {
            headers: &[("webhook-id", "msg_1"), ("webhook-signature", &entries)],
            body: "{}",
            secrets: &["not a key", key],
            ..Case::default()
        };
        assert_eq!(case.verdict(&verifier), wanted, "{form}");
        let usable = verifier.check_secret(&SecretString::from(key)).is_ok();
        assert_eq!(usable, wanted == "accept", "{form}");
    };
    check("key_form: raw-hex", &hex, "accept");
    check("key_form: raw-base64", &base64, "accept");
    check("key_form: raw-base64, key: [\"strip:whpk_\"]", &whpk, "accept");
    check("key_form: spki-base64", &STANDARD.encode(&spki), "accept");
    check("key_form: pem", &pem, "accept");
    check("key_form: pem", &hex, "unusable_secret");
    check("key_form: raw-hex", "00", "unusable_secret");
    // A key of the manifest needs no secret of the endpoint.
    let own = compile(&format!(
        "pubkey: {{ alg: ed25519, sig: header:s, encoding: base64, key_form: raw-hex, public_keys: [{hex}], parts: [body] }}"
    ));
    assert!(!own.needs_secret());
    let signature = STANDARD.encode(pair.sign(b"{}").as_ref());
    let case = Case {
        headers: &[("s", &signature)],
        body: "{}",
        ..Case::default()
    };
    assert_eq!(case.verdict(&own), "accept");
}

/// The certificate of the vectors ends in 2126; its key must not sign for ever.
#[test]
fn a_certificate_that_ran_out_is_refused() {
    let file: Value = serde_json::from_str(include_str!("data/webhook-vectors.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    let vector = vectors
        .iter()
        .find(|vector| vector["id"] == "aws-sns/valid_v2")
        .unwrap();
    let schemes = parse_yaml(include_str!("data/schemes.yaml")).unwrap().remove(0).value;
    let verifier = Verifier::compile(&schemes["schemes"]["aws-sns"], "").unwrap();
    let body = STANDARD.decode(vector["body_base64"].as_str().unwrap()).unwrap();
    let topic = vector["context"]["allowed_topic_arns"][0].as_str().unwrap();
    let registration = Registration::from([("allowed_topic_arns".to_owned(), vec![topic.to_owned()])]);
    let (url, pem) = vector["keys"]["certificates"]
        .as_object()
        .unwrap()
        .iter()
        .next()
        .unwrap();
    let request = InboundRequest {
        method: "POST",
        url: "https://hooks.test/in",
        headers: &[],
        body: &body,
        registration: &registration,
        client_ip: None,
    };
    let known = documents(url, pem.as_str().unwrap(), false);
    let verify = |now_s: i64| verifier.verify(&request, &[], &known, now_s * 1_000);
    assert_eq!(verify(NOW_S), Ok(()));
    let Unverified::Refused(refusal) = verify(4_950_000_000).unwrap_err() else {
        panic!("wants a document");
    };
    assert_eq!(refusal.reason.as_str(), "key_expired");
}

#[test]
fn rare_parts_of_signatures() {
    let check = |scheme: &str, case: &Case<'_>| assert_eq!(case.verdict(&compile(scheme)), "accept", "{scheme}");
    // echo -n 'id|wh|2745614147' | openssl dgst -sha256 -hmac k   (the CRC-32 of `{}`, as zlib has it)
    check(
        "hmac: { alg: sha256, sig: header:s, encoding: hex, parts: [header:id, \"lit:|\", ctx:webhook_id, \"lit:|\", crc32_decimal] }",
        &Case {
            headers: &[("id", "id"), ("s", CRC)],
            body: "{}",
            secrets: &["k"],
            context: &[("webhook_id", "wh")],
            ..Case::default()
        },
    );
    // echo -n '1.a b.one.two.{}' | openssl dgst -sha256 -hmac k
    let signature = format!("t=1,h=a b,v1={SIGNED_HEADERS}");
    check(
        "hmac: { alg: sha256, sig: header:s, format: { item: \",\", kv: \"=\", name: v1 }, encoding: hex, parts: [\"sig:t\", \"lit:.\", \"sig:h\", \"lit:.\", { signed_headers: \"sig:h\" }, \"lit:.\", body] }",
        &Case {
            headers: &[("a", "one"), ("b", "two"), ("s", &signature)],
            body: "{}",
            secrets: &["k"],
            ..Case::default()
        },
    );
    // The key is the SHA-1 of a field of the secret, the entry is named by the account, a line feed may be missing.
    let braintree = "hmac: { alg: sha1, sig: form:bt_signature, format: { item: \"&\", kv: \"|\", name: ctx:public_key }, encoding: hex, key: [\"field:private_key\", sha1], parts: [form:bt_payload], suffix_variants: [\"\", \"\\n\"], charset: base64 }";
    let body = |payload: &str| format!("bt_signature=other%7Caa%26pk%7C{BRAINTREE}&bt_payload={payload}");
    let case = |body: &str| {
        Case {
            headers: &[("content-type", "application/x-www-form-urlencoded")],
            body,
            secrets: &[r#"{"private_key":"k","public_key":"pk"}"#],
            context: &[("public_key", "pk")],
            ..Case::default()
        }
        .verdict(&compile(braintree))
    };
    assert_eq!(case(&body("cGF5")), "accept");
    assert_eq!(case(&body("cGF6")), "bad_signature");
    assert_eq!(case(&body("cGF5%3C")), "malformed_body");
}

const CRC: &str = "19655bd6f523e9da5c8c1bbe5a2a9df049e81affca40e1c9f106973548b58e88";
const SIGNED_HEADERS: &str = "74c32255d5f69d56cdf4931ef3e187f2564d4949033f928fc3aec2ee57e6d5aa";
const BRAINTREE: &str = "7f5829c6d6e5aaf29268d601c6acdf1df87c7273";

#[test]
fn schemes_by_which_anybody_could_sign_are_refused() {
    let check = |scheme: &str, pointer: &str, code: &str, told: &str| {
        let scheme = parse_yaml(scheme).unwrap().remove(0).value;
        let problems = Verifier::compile(&scheme, "").unwrap_err();
        assert_eq!(
            (problems[0].pointer.as_str(), problems[0].code),
            (pointer, code),
            "{problems:#?}"
        );
        assert!(problems[0].to_string().contains(told), "{problems:#?}");
    };
    check(
        "jwt: { token: bearer, algs: [RS256], keys: { jwks_url: \"https://k.test/\" } }",
        "/jwt",
        "weak_scheme",
        "audience",
    );
    check(
        "jwt: { token: bearer, algs: [RS256, HS256], keys: { jwks_url: \"https://k.test/\" }, audience: a }",
        "/jwt/algs",
        "weak_scheme",
        "taken for a secret",
    );
    check(
        "jwt: { token: bearer, algs: [none], keys: secret }",
        "/jwt/algs/0",
        "bad_value",
        "one of: RS256",
    );
    check(
        "jwt: { token: bearer, algs: [RS256], keys: { jwks_url: \"http://k.test/\" }, audience: a }",
        "/jwt/keys/jwks_url",
        "weak_scheme",
        "HTTPS",
    );
    check(
        "x509: { alg: sha256, sig: header:s, encoding: base64, parts: [body], cert_url: { from: header:u, https_host_allow: [a.test] } }",
        "/x509",
        "weak_scheme",
        "allow",
    );
    check(
        "x509: { alg: sha256, sig: header:s, encoding: base64, parts: [body, ctx:id], cert_url: { from: header:u, https_host_allow: [\"*.test\"] } }",
        "/x509/cert_url/https_host_allow/0",
        "weak_scheme",
        "hosts of anybody",
    );
    check(
        "pubkey: { alg: ed25519, sig: header:s, encoding: hex, key_form: raw-hexx, parts: [body] }",
        "/pubkey/key_form",
        "bad_value",
        "did you mean `raw-hex`?",
    );
    check(
        "pubkey: { alg: rsa-pkcs1-sha256, sig: header:s, encoding: hex, key_form: raw-hex, parts: [body] }",
        "/pubkey/key_form",
        "bad_value",
        "spki-base64 or pem",
    );
    check(
        "pubkey: { alg: ed25519, sig: header:s, encoding: hex, key_form: raw-hex, parts: [\"lit:x\"] }",
        "/pubkey",
        "weak_scheme",
        "covers nothing",
    );
    check("mtls: {}", "/mtls", "not_supported", "proxy");
}
