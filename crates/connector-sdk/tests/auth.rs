//! Credentials, tokens, and that no secret shows.

#![expect(clippy::panic, reason = "helpers of tests fail by panicking")]

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use weir_connector_sdk::redact::{redact_body, redact_headers, redact_url};
use weir_connector_sdk::{
    Applied, AuthScheme, AuthorizeAsk, Connector, Credential, HttpRequest, HttpResponse, OAuth2CodeScheme, Rotation,
    TokenSet,
};

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

/// A connector whose `oauth2` has these further keys.
fn by_code(keys: &str) -> Connector {
    let manifest = format!(
        "{{connector: code, version: 1.0.0, hosts: [\"https://auth.test\"], config: {{ tenant: {{ required: true, format: label }}, more: optional }}, \
         auth: {{ oauth2: {{ grant: authorization_code, authorize_url: \"https://auth.test/{{{{ config.tenant }}}}/authorize\", \
         token_url: \"https://auth.test/token\" {keys} }} }}, operations: {{ me.get: {{ get: /me }} }}}}"
    );
    Connector::parse(&manifest, &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn code_scheme(connector: &Connector) -> &OAuth2CodeScheme {
    let Some(AuthScheme::OAuth2AuthorizationCode(scheme)) = connector.auth().first() else {
        panic!("no authorization code")
    };
    scheme
}

fn client() -> Credential {
    Credential::parse(&json!({ "oauth2": { "client_id": "id:1", "client_secret": "s3cret" } }))
        .unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn read_set(scheme: &OAuth2CodeScheme, status: u16, body: &Value) -> Result<TokenSet, (String, bool)> {
    let response = HttpResponse {
        status,
        headers: Vec::new(),
        body: body.to_string().into_bytes(),
    };
    scheme.tokens(&response).map_err(|error| (error.code, error.retryable))
}

#[test]
fn a_person_is_sent_to_the_provider_with_what_the_manifest_says() {
    let (config, defaults) = (json!({ "tenant": "t1" }), json!({}));
    let ask = AuthorizeAsk {
        redirect_uri: "https://weir.test/oauth/callback",
        state: "st&1",
        code_challenge: "challenge",
    };
    let check = |keys: &str, wanted: &str| {
        let connector = by_code(keys);
        let url = code_scheme(&connector).authorize_url(&config, &defaults, &client(), &ask);
        assert_eq!(url.unwrap(), wanted, "{keys}");
    };
    let common = "https://auth.test/t1/authorize?response_type=code&client_id=id%3A1&redirect_uri=https%3A%2F%2Fweir.test%2Foauth%2Fcallback";
    let challenge = "&code_challenge=challenge&code_challenge_method=S256";
    check("", &format!("{common}&state=st%261{challenge}"));
    check(
        ", pkce: off, scopes: [a, \"{{ config.tenant }}\", \"{{ config.more }}\"]",
        &format!("{common}&scope=a%20t1&state=st%261"),
    );
    check(", pkce: off", &format!("{common}&state=st%261"));
    check(
        ", scopes: [a, b c], scope_separator: \",\", audience: api, authorize_params: { access_type: offline, prompt: consent }",
        &format!("{common}&scope=a%2Cb%20c&state=st%261{challenge}&audience=api&access_type=offline&prompt=consent"),
    );
}

#[test]
fn token_requests_by_code_are_what_the_provider_wants() {
    let granted = by_code("");
    let applied = client().apply_static(granted.auth().first().unwrap(), &mut request());
    assert_eq!(applied, Ok(Applied::NeedsToken));
    let (config, defaults) = (json!({ "tenant": "t1" }), json!({}));
    let at = (&config, &defaults);
    let secret = |text: &str| SecretString::from(text);
    let sent = |request: &HttpRequest| String::from_utf8(request.body.clone().unwrap()).unwrap();
    let connector = by_code("");
    let scheme = code_scheme(&connector);
    let exchange = scheme
        .exchange_request(at, &client(), &secret("c1"), "https://w.test/cb", &secret("v1"))
        .unwrap();
    assert_eq!(
        (exchange.method.as_str(), exchange.url.as_str()),
        ("POST", "https://auth.test/token")
    );
    assert_eq!(
        sent(&exchange),
        "grant_type=authorization_code&code=c1&redirect_uri=https%3A%2F%2Fw.test%2Fcb&code_verifier=v1&client_id=id%3A1&client_secret=s3cret"
    );
    let refresh = scheme.refresh_request(at, &client(), &secret("r1")).unwrap();
    assert_eq!(
        sent(&refresh),
        "grant_type=refresh_token&refresh_token=r1&client_id=id%3A1&client_secret=s3cret"
    );
    assert!(scheme.revoke_request(at, &client(), &secret("r1")).unwrap().is_none());
    assert!(!format!("{refresh:?}").contains("s3cret"));

    let connector = by_code(
        ", client_auth: basic, token_request: json, pkce: off, token_params: { resource: x }, \
         refresh_url: \"https://auth.test/refresh\", revoke_url: \"https://auth.test/revoke\", refresh_rotates: yes",
    );
    let scheme = code_scheme(&connector);
    assert_eq!((scheme.refresh_rotates, scheme.pkce), (Rotation::Yes, false));
    let exchange = scheme
        .exchange_request(at, &client(), &secret("c1"), "https://w.test/cb", &secret("v1"))
        .unwrap();
    let body: Value = serde_json::from_str(&sent(&exchange)).unwrap();
    assert_eq!(
        body,
        json!({ "grant_type": "authorization_code", "code": "c1", "redirect_uri": "https://w.test/cb", "resource": "x" })
    );
    assert_eq!(exchange.header("authorization"), Some("Basic aWQlM0ExOnMzY3JldA=="));
    assert_eq!(exchange.header("content-type"), Some("application/json"));
    let refresh = scheme.refresh_request(at, &client(), &secret("r1")).unwrap();
    assert_eq!(refresh.url, "https://auth.test/refresh");
    let revoke = scheme.revoke_request(at, &client(), &secret("r1")).unwrap().unwrap();
    assert_eq!(
        (revoke.url.as_str(), sent(&revoke).contains("\"token\":\"r1\"")),
        ("https://auth.test/revoke", true)
    );
}

#[test]
fn token_answers_are_read_where_the_manifest_says() {
    let connector = by_code("");
    let scheme = code_scheme(&connector);
    let whole = json!({ "access_token": "a1", "refresh_token": "r1", "expires_in": "120", "scope": "a b" });
    let set = read_set(scheme, 200, &whole).unwrap();
    assert_eq!(set.access_token.expose_secret(), "a1");
    assert_eq!(set.refresh_token.unwrap().expose_secret(), "r1");
    assert_eq!((set.expires_in_s, set.scopes.as_deref()), (120, Some("a b")));
    assert_eq!((set.account, set.instance_url), (None, None));
    let bare = read_set(scheme, 200, &json!({ "access_token": "a1", "refresh_token": "" })).unwrap();
    assert_eq!((bare.expires_in_s, bare.refresh_token.is_none()), (3_600, true));
    let endless = read_set(scheme, 200, &json!({ "access_token": "a1", "expires_in": 0 })).unwrap();
    assert_eq!(endless.expires_in_s, 3_600);
    let refused = |status: u16, body: Value| read_set(scheme, status, &body).map(drop).unwrap_err();
    let code = |code: &str, retryable: bool| (code.to_owned(), retryable);
    assert_eq!(
        refused(400, json!({ "error": "invalid_grant" })),
        code("invalid_grant", false)
    );
    assert_eq!(
        refused(200, json!({ "ok": false, "error": "invalid_code" })),
        code("invalid_code", false)
    );
    assert_eq!(
        refused(200, json!({ "error": "ratelimited" })),
        code("ratelimited", true)
    );
    assert_eq!(refused(500, json!({})), code("http_500", true));
    assert_eq!(
        refused(400, json!({ "error": "your s3cret is wrong" })),
        code("http_400", false)
    );
    assert_eq!(refused(200, json!({ "hello": 1 })), code("unreadable", true));

    let connector = by_code(
        ", answer: { access_token: /t/access, refresh_token: /t/refresh, expires_in: /t/ms, error: /fault, account: /realm, instance_url: /api }, \
         expires_in_unit: ms, default_expires_in: 5m, ends_on: [token_revoked], instance_hosts: [.auth.test, one.test]",
    );
    let scheme = code_scheme(&connector);
    let answer = |api: &str| {
        let tokens = json!({ "access": "a2", "refresh": "r2", "ms": 90_000 });
        read_set(scheme, 200, &json!({ "t": tokens, "realm": 7, "api": api })).unwrap()
    };
    let set = answer("https://eu.auth.test/");
    assert_eq!((set.expires_in_s, set.account.as_deref()), (90, Some("7")));
    assert_eq!(set.instance_url.as_deref(), Some("https://eu.auth.test"));
    for stranger in [
        "https://evil.test",
        "https://evilauth.test",
        "https://auth.test",
        "ftp://one.test",
        "one.test",
    ] {
        assert_eq!(answer(stranger).instance_url, None, "{stranger}");
    }
    assert!(answer("https://one.test").instance_url.is_some());
    assert!(scheme.is_over("token_revoked") && scheme.is_over("invalid_grant") && !scheme.is_over("invalid_client"));
    let fault = read_set(scheme, 200, &json!({ "fault": "token_revoked" })).map(drop);
    assert_eq!(fault.unwrap_err(), code("token_revoked", false));
}

#[test]
fn keys_of_the_other_grant_are_refused() {
    let check = |oauth2: &str, pointer: &str, part: &str| {
        let manifest = format!(
            "{{connector: code, version: 1.0.0, hosts: [\"https://auth.test\"], auth: {{ oauth2: {oauth2} }}, operations: {{ me.get: {{ get: /me }} }}}}"
        );
        let problems = Connector::parse(&manifest, &|_| None).map(drop).unwrap_err();
        let told = problems
            .iter()
            .any(|problem| problem.pointer == pointer && problem.message.contains(part));
        assert!(told, "{problems:#?}");
    };
    check(
        "{ token_url: \"https://auth.test/t\", pkce: off }",
        "/auth/oauth2/pkce",
        "grant: authorization_code",
    );
    check(
        "{ grant: authorization_code, token_url: \"https://auth.test/t\" }",
        "/auth/oauth2",
        "`authorize_url` is missing",
    );
    let begin =
        "{ grant: authorization_code, authorize_url: \"https://auth.test/a\", token_url: \"https://auth.test/t\"";
    check(
        &format!("{begin}, authorize_params: {{ state: x }} }}"),
        "/auth/oauth2/authorize_params/state",
        "set by itself",
    );
    check(
        &format!("{begin}, answer: {{ instance_url: /api }} }}"),
        "/auth/oauth2/instance_hosts",
        "which hosts",
    );
    check(
        &format!("{begin}, answer: {{ account: id }} }}"),
        "/auth/oauth2/answer/account",
        "JSON Pointer",
    );
    check(
        &format!("{begin}, revoke_url: \"http://auth.test/r\" }}"),
        "/auth/oauth2/revoke_url",
        "https://",
    );
}
