//! Credentials, tokens, and that no secret shows.

#![expect(clippy::panic, reason = "helpers of tests fail by panicking")]

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use weir_connector_sdk::redact::{redact_body, redact_headers, redact_url};
use weir_connector_sdk::{Applied, AuthScheme, Connector, Credential, HttpRequest, HttpResponse};

const MANIFEST: &str = r#"
connector: auth
version: 1.0.0
hosts: ["https://auth.test"]
config: { tenant: { required: true, format: label }, scope: optional }
auth:
  bearer: {}
  api_key: { header: X-Weird-Key, prefix: "Key " }
  basic: {}
  oauth2: { token_url: "https://auth.test/{{ config.tenant }}/token", scopes: [a, b], client_auth: basic, audience: api }
  service_account: { alg: RS256, ttl: 10m, token_url: "https://auth.test/token", claims: { iss: "{{ account.client_email }}", scope: "{{ config.scope }}", aud: "https://auth.test/token" } }
"#;

fn connector() -> Connector {
    Connector::parse(MANIFEST, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn request() -> HttpRequest {
    HttpRequest {
        method: "GET".to_owned(),
        url: "https://auth.test/x".to_owned(),
        headers: Vec::new(),
        body: None,
    }
}

#[test]
fn static_credentials_are_put_where_the_scheme_says() {
    let connector = connector();
    let check = |credential: Value, header: &str, value: &str| {
        let credential = Credential::parse(&credential).unwrap();
        let mut request = request();
        let scheme = connector.scheme_for(&credential).unwrap();
        assert_eq!(credential.apply_static(scheme, &mut request), Ok(Applied::Complete));
        assert_eq!(request.header(header), Some(value));
        let shown = format!(
            "{credential:?} {:?}",
            redact_headers(&request.headers, connector.secret_names())
        );
        assert!(!shown.contains("s3cret"), "{shown}");
    };
    check(json!({ "bearer": "s3cret" }), "authorization", "Bearer s3cret");
    check(
        json!({ "bearer": { "token": "s3cret" } }),
        "authorization",
        "Bearer s3cret",
    );
    check(json!({ "api_key": { "key": "s3cret" } }), "x-weird-key", "Key s3cret");
    check(
        json!({ "basic": { "username": "u", "password": "s3cret" } }),
        "authorization",
        "Basic dTpzM2NyZXQ=",
    );
    let credential = Credential::parse(&json!({ "bearer": "a\r\nb" })).unwrap();
    assert!(credential.apply_static(&AuthScheme::Bearer, &mut request()).is_err());
    assert!(
        credential
            .apply_static(&AuthScheme::Basic, &mut request())
            .unwrap_err()
            .to_string()
            .contains("bearer credential does not fit the scheme basic")
    );
}

#[test]
fn broken_credentials_are_refused_without_showing_them() {
    for broken in [
        json!({}),
        json!({ "bearer": "" }),
        json!({ "bearer": { "tokn": "s3cret" } }),
        json!({ "basic": { "username": "u" } }),
        json!({ "oauth2": {} }),
        json!("s3cret"),
    ] {
        let problems = Credential::parse(&broken).unwrap_err();
        assert!(!format!("{problems:?}").contains("s3cret"), "{problems:?}");
    }
}

#[test]
fn client_credentials_become_a_token() {
    let connector = connector();
    let credential =
        Credential::parse(&json!({ "oauth2": { "client_id": "id:1", "client_secret": "s3cret" } })).unwrap();
    let Some(AuthScheme::OAuth2ClientCredentials(scheme)) = connector.scheme_for(&credential) else {
        panic!("no oauth2")
    };
    let request = scheme
        .token_request(&json!({ "tenant": "t1" }), connector.config_defaults(), &credential)
        .unwrap();
    assert_eq!(
        (request.method.as_str(), request.url.as_str()),
        ("POST", "https://auth.test/t1/token")
    );
    assert_eq!(
        request.body.as_deref(),
        Some(b"grant_type=client_credentials&scope=a%20b&audience=api".as_slice())
    );
    assert_eq!(request.header("authorization"), Some("Basic aWQlM0ExOnMzY3JldA=="));
    assert!(!format!("{request:?}").contains("aWQlM0Ex"));
    let answer = |status: u16, body: Value| {
        scheme.token(&HttpResponse {
            status,
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
        })
    };
    let token = answer(200, json!({ "access_token": "tok", "expires_in": "120" })).unwrap();
    assert_eq!((token.access_token.expose_secret(), token.expires_in_s), ("tok", 120));
    assert_eq!(
        answer(200, json!({ "access_token": "tok" })).unwrap().expires_in_s,
        3_600
    );
    let refused = |status: u16, body: Value| {
        answer(status, body)
            .map(|_| ())
            .map_err(|error| (error.code, error.retryable))
            .unwrap_err()
    };
    assert_eq!(
        refused(401, json!({ "error": "invalid_client" })),
        ("invalid_client".to_owned(), false)
    );
    assert_eq!(refused(503, json!({})), ("http_503".to_owned(), true));
    assert_eq!(refused(200, json!({})), ("unreadable".to_owned(), false));
}

#[test]
fn service_accounts_sign_what_the_manifest_says() {
    let connector = connector();
    let credential = Credential::parse(
        &json!({ "service_account": { "client_email": "a@b.test", "private_key_id": "k1", "private_key": "PEM" } }),
    )
    .unwrap();
    let Some(AuthScheme::ServiceAccountJwt(scheme)) = connector.scheme_for(&credential) else {
        panic!("no service account")
    };
    let defaults = connector.config_defaults();
    let assertion = scheme
        .assertion(&json!({ "tenant": "t" }), defaults, &credential, 1_000)
        .unwrap();
    assert_eq!(
        assertion.claims,
        json!({ "iss": "a@b.test", "aud": "https://auth.test/token", "iat": 1_000, "exp": 1_600 })
    );
    assert_eq!(
        (assertion.alg.as_str(), assertion.key_id.as_deref()),
        ("RS256", Some("k1"))
    );
    let request = scheme
        .token_request(&json!({}), defaults, &SecretString::from("a.b.c"))
        .unwrap()
        .unwrap();
    assert_eq!(
        request.body.unwrap(),
        b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a.b.c"
    );
    let nameless = Credential::parse(&json!({ "service_account": { "private_key": "PEM" } })).unwrap();
    assert!(
        scheme.assertion(&json!({}), defaults, &nameless, 0).is_err(),
        "a claim must not be left out silently"
    );
}

#[test]
fn urls_and_bodies_are_redacted() {
    let names = Default::default();
    assert_eq!(
        redact_url("https://u:p@h.test/a?x=1&api_key=s&%74oken=s#f", &names),
        "https://[redacted]@h.test/a?x=1&api_key=[redacted]&%74oken=[redacted]#…"
    );
    assert_eq!(redact_url("https://h.test/a@b?x=1", &names), "https://h.test/a@b?x=1");
    assert_eq!(
        redact_body(r#"{"a":[{"client_secret":"s","n":1}],"password":null}"#),
        r#"{"a":[{"client_secret":"[redacted]","n":1}],"password":null}"#
    );
    assert_eq!(
        redact_body("a=1&user[password]=s&b=2"),
        "a=1&user[password]=[redacted]&b=2"
    );
    assert_eq!(
        redact_body("\u{feff} <e><password>s</password></e>"),
        "<e><password>[redacted]</password></e>"
    );
    assert_eq!(redact_body("\u{feff}password=s&b=2"), "password=[redacted]&b=2");
    assert_eq!(redact_body("\u{feff}{\"secret\":\"s\"}"), "{\"secret\":\"[redacted]\"}");
    for unsure in [
        "{\"a\":1}\n{\"password\":\"s\"}",
        "{\"password\":\"s\",",
        "--b\r\n\r\n\"password\"\r\n\r\ns\r\n--b--",
    ] {
        assert_eq!(redact_body(unsure), "[redacted]");
    }
    assert_eq!(
        redact_body("--b\r\ncontent-disposition: form-data; name=\"user[password]\"\r\n\r\ns\r\n--b--"),
        "--b\r\ncontent-disposition: form-data; name=\"user[password]\"\r\n\r\n[redacted]\r\n--b--"
    );
    let page = "<!doctype html><html><body>502<br></body></html>";
    assert_eq!(redact_body(page), page);
    assert_eq!(
        redact_body("the password is not a field"),
        "the password is not a field"
    );
}
