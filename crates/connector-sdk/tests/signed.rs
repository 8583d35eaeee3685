//! Signatures of requests, held against examples that providers and standards publish.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on must fail")]

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use weir_connector_sdk::redact::{redact_headers, redact_url};
use weir_connector_sdk::{AuthScheme, Connector, Credential, HttpRequest, SignAt};

fn manifest(signed: &str) -> String {
    format!(
        "{{connector: signs, version: 1.0.0, hosts: [\"https://signs.test\"], auth: {{ signed: {signed} }}, operations: {{ me.get: {{ get: /me }} }}}}"
    )
}

fn connector(signed: &str) -> Connector {
    Connector::parse(&manifest(signed), &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// 2017-07-12T02:41:59.559Z
const AT: SignAt = SignAt {
    now_unix_ms: 1_499_827_319_559,
    nonce: [0xab; 16],
};

fn request(method: &str, url: &str, body: Option<&str>) -> HttpRequest {
    HttpRequest {
        method: method.to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: body.map(|body| body.as_bytes().to_vec()),
    }
}

/// Signs a request; gives the signature.
fn sign(connector: &Connector, values: Value, request: &mut HttpRequest) -> Result<String, String> {
    let credential = Credential::parse(&json!({ "signed": values })).unwrap();
    assert_eq!(connector.check_credential(&credential), []);
    let Some(AuthScheme::Signed(scheme)) = connector.scheme_for(&credential) else {
        panic!("no signed")
    };
    let signed = scheme.sign(&credential, &AT, request);
    signed
        .map(|signature| signature.expose_secret().to_owned())
        .map_err(|error| error.message)
}

/// RFC 4231 §4.3 (SHA-256, SHA-512) and RFC 2202 §2, §3, case 2 (MD5, SHA-1).
#[test]
fn the_examples_of_the_standards_are_signed_as_they_say() {
    for (alg, signature) in [
        ("md5", "750c783e6ab0b503eaa86e310a5db738"),
        ("sha1", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (
            "sha256",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            "sha512",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ] {
        for (form, key) in [("utf8", "Jefe"), ("hex", "4a656665"), ("base64", "SmVmZQ==")] {
            let signed = format!(
                "{{ values: [secret], key: secret, key_encoding: {form}, alg: {alg}, encoding: hex, parts: [body], headers: {{ X-Sig: \"{{{{ signature }}}}\" }} }}"
            );
            let mut request = request("POST", "https://signs.test/", Some("what do ya want for nothing?"));
            assert_eq!(
                sign(&connector(&signed), json!({ "secret": key }), &mut request).as_deref(),
                Ok(signature),
                "{form}"
            );
            assert_eq!(request.header("x-sig"), Some(signature));
        }
    }
}

/// Binance, Spot API, "SIGNED Endpoint Examples for POST /api/v3/order" (2026-11): all in the query, and in query and body.
#[test]
fn binance_signs_query_and_body() {
    let connector = connector(
        "{ values: [api_key, secret], key: secret, alg: sha256, encoding: hex, parts: [query, body], timestamp: ms, \
         headers: { X-MBX-APIKEY: \"{{ api_key }}\" }, query: { timestamp: \"{{ timestamp }}\", signature: \"{{ signature }}\" } }",
    );
    let values = json!({
        "api_key": "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A",
        "secret": "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j",
    });
    let order = "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000";
    let mut one = request("POST", &format!("https://signs.test/api/v3/order?{order}"), None);
    let signature = "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71";
    assert_eq!(sign(&connector, values.clone(), &mut one).as_deref(), Ok(signature));
    assert_eq!(
        one.url,
        format!("https://signs.test/api/v3/order?{order}&timestamp=1499827319559&signature={signature}")
    );
    assert!(one.header("x-mbx-apikey").unwrap().starts_with("vmPUZE"));
    // The secret is nowhere; what names it and the signature are not shown, when it was signed is.
    let shown = format!(
        "{:?} {}",
        redact_headers(&one.headers, connector.secret_names()),
        redact_url(&one.url, connector.secret_names())
    );
    assert!(!shown.contains("vmPUZE") && !shown.contains("c8db56"), "{shown}");
    assert!(
        shown.contains("timestamp=1499827319559") && !shown.contains("NhqPtm"),
        "{shown}"
    );
    // Signed once more, for another try: what stood there is replaced.
    assert_eq!(sign(&connector, values, &mut one).map(drop), Ok(()));
    assert_eq!(one.url.matches("signature=").count(), 1, "{}", one.url);
}

/// Duo Security, Admin and Accounts API, "Authentication" (2026-11): the date is a header of the request.
#[test]
fn duo_signs_lines_and_sends_them_as_basic() {
    let connector = connector(
        "{ values: [ikey, skey], key: skey, alg: sha1, encoding: hex, separator: \"\\n\", \
         parts: [\"header:Date\", method, host, path, body], basic: { username: \"{{ ikey }}\", password: \"{{ signature }}\" } }",
    );
    let values = json!({ "ikey": "DIWJ8X6AEYOR5OMC6TQ1", "skey": "Zh5eGmUq9zpfQnyUIu5OL9iWoMMv5ZNmk3zLJ4Ep" });
    let url = "https://api-XXXXXXXX.duosecurity.com/accounts/v1/account/list";
    let mut request = request("POST", url, Some("realname=First%20Last&username=root"));
    request.set_header("Date", "Tue, 21 Aug 2012 17:29:18 -0000");
    let signature = "2d97d6166319781b5a3a07af39d366f491234edc";
    assert_eq!(sign(&connector, values.clone(), &mut request).as_deref(), Ok(signature));
    assert_eq!(
        request.header("authorization"),
        Some("Basic RElXSjhYNkFFWU9SNU9NQzZUUTE6MmQ5N2Q2MTY2MzE5NzgxYjVhM2EwN2FmMzlkMzY2ZjQ5MTIzNGVkYw==")
    );
    let mut dateless = self::request("POST", url, None);
    let refused = sign(&connector, values, &mut dateless).unwrap_err();
    assert!(
        refused.contains("header Date is signed, and the request has none"),
        "{refused}"
    );
}

/// Computed with Python: `hmac.new(key, text, "sha512")`, the text as below, base64.
#[test]
fn every_part_is_what_it_says() {
    let connector = connector(
        "{ values: [id, secret], key: secret, alg: sha512, encoding: base64, separator: \"|\", timestamp: iso_ms, nonce: uuid, \
         body_hash: { alg: sha256, encoding: hex }, \
         parts: [method, host, path, target, query, query_sorted, body_hash, timestamp, nonce, \"lit:v1:\", \"value:id\", \"header:X-Id\"], \
         headers: { X-Id: \"id={{ id }}\", X-At: \"{{ timestamp }}\", X-Nonce: \"{{ nonce }}\", X-Hash: \"sha-256={{ body_hash }}\", X-Sig: \"v1 {{ signature }}\" } }",
    );
    let mut request = request("PUT", "https://Signs.test:8443/a%20b/c?z=1&a=%2F&m", Some("{\"n\":1}"));
    let signature = sign(&connector, json!({ "id": "key-1", "secret": "s3cret" }), &mut request).unwrap();
    // PUT|signs.test:8443|/a%20b/c|/a%20b/c?z=1&a=%2F&m|z=1&a=%2F&m|a=%2F&m&z=1|SHA-256 of the body|
    // 2017-07-12T02:41:59.559Z|abababab-abab-4bab-abab-abababababab|v1:|key-1|id=key-1
    assert_eq!(signature, EVERY_PART);
    assert_eq!(request.header("x-at"), Some("2017-07-12T02:41:59.559Z"));
    assert_eq!(request.header("x-nonce"), Some("abababab-abab-4bab-abab-abababababab"));
    assert_eq!(request.header("x-sig"), Some(format!("v1 {EVERY_PART}").as_str()));
}

const EVERY_PART: &str = "rHPIy1jKpwnu+eI5TF9H9zJVmGts3Ez/yfC1Nnb68VynH/KaKzufTQFLgfLPJf6PzAlyi2jUkU9lgTHLxwdsSg==";

#[test]
fn moments_are_written_as_the_provider_reads_them() {
    for (form, wanted) in [
        ("s", "1499827319"),
        ("ms", "1499827319559"),
        ("iso", "2017-07-12T02:41:59Z"),
        ("iso_ms", "2017-07-12T02:41:59.559Z"),
        ("http", "Wed, 12 Jul 2017 02:41:59 GMT"),
    ] {
        let connector = connector(&format!(
            "{{ values: [secret], key: secret, alg: sha256, encoding: hex, parts: [timestamp, nonce], timestamp: {form}, \
             headers: {{ X-At: \"{{{{ timestamp }}}}\", X-Nonce: \"{{{{ nonce }}}}\", X-Sig: \"{{{{ signature }}}}\" }} }}"
        ));
        let mut request = request("GET", "https://signs.test/", None);
        sign(&connector, json!({ "secret": "s" }), &mut request).unwrap();
        assert_eq!(request.header("x-at"), Some(wanted));
        assert_eq!(request.header("x-nonce"), Some("ab".repeat(16).as_str()));
    }
}

#[test]
fn keys_of_another_form_are_refused_without_being_shown() {
    for (form, told) in [
        ("hex", "`secret` of the credential is not hexadecimal"),
        ("base64", "`secret` of the credential is not Base64"),
    ] {
        let connector = connector(&format!(
            "{{ values: [secret], key: secret, key_encoding: {form}, alg: sha256, encoding: hex, parts: [body], headers: {{ X-Sig: \"{{{{ signature }}}}\" }} }}"
        ));
        let mut request = request("GET", "https://signs.test/", None);
        let refused = sign(&connector, json!({ "secret": "s3cret!" }), &mut request);
        assert_eq!(refused.unwrap_err(), told);
    }
}

// Misspelt on purpose from here on.
#[test]
fn what_is_wrong_is_told_with_place_and_suggestion() {
    let check = |signed: &str, pointer: &str, message: &str, suggestion: Option<&str>| {
        let problems = Connector::parse(&manifest(signed), &|_| None).map(drop).unwrap_err();
        let found = problems
            .iter()
            .find(|problem| problem.pointer == pointer && problem.message.contains(message));
        let found = found.unwrap_or_else(|| panic!("{signed}: {problems:#?}"));
        assert_eq!(found.line, Some(1));
        assert_eq!(found.suggestion.as_deref(), suggestion, "{signed}");
    };
    let with = |changed: &str| {
        let whole = "{ values: [id, secret], key: secret, alg: sha256, encoding: hex, parts: [method, body], headers: { X-Id: \"{{ id }}\", X-Sig: \"{{ signature }}\" } }";
        let (from, to) = changed.split_once(" => ").unwrap();
        assert!(whole.contains(from), "{from}");
        whole.replace(from, to)
    };
    let at = |place: &str| format!("/auth/signed{place}");
    check(
        &with("method => metod"),
        &at("/parts/0"),
        "`metod` is not a part",
        Some("did you mean `method`?"),
    );
    check(
        &with("method => \"value:secrt\""),
        &at("/parts/0"),
        "not one of the `values`",
        Some("did you mean `secret`?"),
    );
    check(
        &with("key: secret => key: secrets"),
        &at("/key"),
        "not one of the `values`",
        Some("did you mean `secret`?"),
    );
    check(
        &with("sha256 => sha265"),
        &at("/alg"),
        "`sha265` is not known",
        Some("did you mean `sha256`?"),
    );
    check(
        &with("method, => timestamp,"),
        &at("/parts"),
        "`timestamp` is signed and not sent",
        Some("headers: { X-Timestamp: \"{{ timestamp }}\" }"),
    );
    check(
        &with("method, => body_hash,"),
        &at(""),
        "it is not said which",
        Some("body_hash: { alg: sha256, encoding: hex }"),
    );
    check(
        &with(", X-Sig: \"{{ signature }}\" => "),
        &at(""),
        "the signature is put nowhere",
        Some("headers: { X-Signature: \"{{ signature }}\" }"),
    );
    check(
        &with("X-Id: \"{{ id }}\", => "),
        &at("/values/0"),
        "`id` is asked of every connection and used nowhere",
        None,
    );
    check(
        &with("{{ signature }} => {{ signature | upper }}"),
        &at("/headers/X-Sig"),
        "secrets cannot be computed with",
        None,
    );
    check(
        &with("{{ id }} => {{ idd }}"),
        &at("/headers/X-Id"),
        "`idd` is not a value",
        Some("did you mean `id`?"),
    );
    check(
        &with("[id, secret] => [id, id, secret]"),
        &at("/values/1"),
        "named twice",
        None,
    );
    check(
        &with("[id, secret] => [id, secret, nonce]"),
        &at("/values/2"),
        "stands for something else",
        None,
    );
    check(
        &with("X-Id: => Cookie:"),
        &at("/headers/Cookie"),
        "set by itself",
        Some("name it under `cookies`"),
    );
    check(
        &with("parts: => part:"),
        &at("/part"),
        "is not a key here",
        Some("did you mean `parts`?"),
    );
}

// To here.

#[test]
fn what_is_signed_has_so_many_parts() {
    let parsed = |count: usize| {
        let signed = format!(
            "{{ values: [secret], key: secret, alg: sha256, encoding: hex, parts: [{}], headers: {{ X-Sig: \"{{{{ signature }}}}\" }} }}",
            vec!["body"; count].join(", ")
        );
        let problems = Connector::parse(&manifest(&signed), &|_| None).map(drop).err();
        problems
            .unwrap_or_default()
            .iter()
            .map(|problem| problem.code)
            .collect::<Vec<_>>()
    };
    assert_eq!(parsed(32), [""; 0]);
    assert_eq!(parsed(33), ["too_many"]);
}
