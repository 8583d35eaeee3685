//! Credentials of several secrets, and sessions that a login begins.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on must fail")]

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use weir_connector_sdk::redact::{redact_headers, redact_url};
use weir_connector_sdk::{
    Applied, AuthScheme, Connector, Credential, HttpRequest, HttpResponse, SessionPart, SessionScheme, Values,
};

fn manifest(auth: &str) -> String {
    format!(
        "{{connector: named, version: 1.0.0, hosts: [\"https://named.test/v1\"], config: {{ tenant: {{ type: string, required: true }}, site: {{ type: integer }}, login_url: optional }}, auth: {{ {auth} }}, operations: {{ me.get: {{ get: /me }} }}}}"
    )
}

fn connector(auth: &str) -> Connector {
    Connector::parse(&manifest(auth), &|_| None).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn request() -> HttpRequest {
    HttpRequest {
        method: "GET".to_owned(),
        url: "https://named.test/v1/x?a=1".to_owned(),
        headers: vec![("Cookie".to_owned(), "theme=dark; sid=old".to_owned())],
        body: None,
    }
}

/// A manifest is refused at a place, with a suggestion.
fn refused(auth: &str, pointer: &str, message: &str, suggestion: Option<&str>) {
    let problems = Connector::parse(&manifest(auth), &|_| None).map(drop).unwrap_err();
    let found = problems
        .iter()
        .find(|problem| problem.pointer == pointer && problem.message.contains(message));
    let found = found.unwrap_or_else(|| panic!("{auth}: {problems:#?}"));
    assert_eq!(
        (found.line, found.suggestion.as_deref()),
        (Some(1), suggestion),
        "{auth}"
    );
}

const KEYS: &str = "keys: { values: [api_key, app_key, sid], headers: { X-Api-Key: \"{{ api_key }}\", X-App: \"App {{ app_key }}:{{ api_key }}\" }, query: { \"app key\": \"{{ app_key }}\" }, cookies: { sid: \"{{ sid }}\" } }";

#[test]
fn several_secrets_stand_where_each_belongs() {
    let connector = connector(KEYS);
    let values = json!({ "keys": { "api_key": "s3cret-a", "app_key": "s3cret/b", "sid": "s3cret-c" } });
    let credential = Credential::parse(&values).unwrap();
    assert_eq!(connector.check_credential(&credential), []);
    let scheme = connector.scheme_for(&credential).unwrap();
    let mut request = request();
    assert_eq!(credential.apply_static(scheme, &mut request), Ok(Applied::Complete));
    assert_eq!(request.header("x-api-key"), Some("s3cret-a"));
    assert_eq!(request.header("x-app"), Some("App s3cret/b:s3cret-a"));
    assert_eq!(request.header("cookie"), Some("theme=dark; sid=s3cret-c"));
    assert_eq!(request.url, "https://named.test/v1/x?a=1&app%20key=s3cret%2Fb");
    let shown = format!(
        "{credential:?} {:?} {}",
        redact_headers(&request.headers, connector.secret_names()),
        redact_url(&request.url, connector.secret_names())
    );
    assert!(!shown.contains("s3cret"), "{shown}");
    // A server that repeats what it was sent shows nothing of it.
    assert_eq!(credential.exposed(scheme, None), ["s3cret-a", "s3cret-c", "s3cret/b"]);
    for bad in ["a\r\nb", "a b", "a;b"] {
        let values = json!({ "keys": { "api_key": "a", "app_key": "b", "sid": bad } });
        let credential = Credential::parse(&values).unwrap();
        let error = credential.apply_static(scheme, &mut self::request()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the credential holds characters that the cookie sid cannot carry"
        );
    }
}

#[test]
fn a_credential_has_the_names_that_its_connector_asks_for() {
    let connector = connector(KEYS);
    let credential = Credential::parse(&json!({ "keys": { "api_key": "s3cret", "ap_key": "s3cret" } })).unwrap();
    let problems = connector.check_credential(&credential);
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "/keys: `app_key` is missing: the connector asks for it",
            "/keys: `sid` is missing: the connector asks for it",
            "/keys/ap_key: `ap_key` is not a key here (did you mean `app_key`?)",
        ]
    );
    let error = credential.apply_static(connector.scheme_for(&credential).unwrap(), &mut request());
    assert_eq!(error.unwrap_err().to_string(), "the credential has no `app_key`");
    for broken in [
        json!({ "keys": "s3cret" }),
        json!({ "session": { "user": "" } }),
        json!({ "signed": { "k": ["s3cret"] } }),
    ] {
        let problems = Credential::parse(&broken).unwrap_err();
        assert!(!format!("{problems:?}").contains("s3cret"), "{problems:?}");
    }
}

// Misspelt on purpose from here on.
#[test]
fn wrong_keys_are_told_with_place_and_suggestion() {
    let with = |from: &str, to: &str| KEYS.replacen(from, to, 1);
    refused(
        &with("{{ api_key }}", "{{ api_kye }}"),
        "/auth/keys/headers/X-Api-Key",
        "`api_kye` is not a value",
        Some("did you mean `api_key`?"),
    );
    refused(
        &with("{{ api_key }}", "{{ config.tenant }}"),
        "/auth/keys/headers/X-Api-Key",
        "here stands the name of a value",
        None,
    );
    refused("keys: { values: [a] }", "/auth/keys", "say where it goes", None);
    refused("keys: { headers: { X: y } }", "/auth/keys", "`values` is missing", None);
    refused(
        &with("cookies", "cookis"),
        "/auth/keys/cookis",
        "is not a key here",
        Some("did you mean `cookies`?"),
    );
    refused(
        &with("X-App:", "\"X App\":"),
        "/auth/keys/headers/X App",
        "is not the name of",
        None,
    );
    refused(&with("sid]", "sid, more]"), "/auth/keys/values/3", "used nowhere", None);
    refused(&with("sid]", "Sid]"), "/auth/keys/values/2", "lower-case letters", None);
}

// To here.

const SESSION: &str = r#"session: {
  values: [user, password],
  login: [
    { post: "/{{ config.tenant }}/login", body: { user: "{{ user }}", secret: { password: "{{ password }}" }, site: "{{ config.site }}", ttl: 60 },
      take: { ticket: /data/ticket, csrf: "header:X-Csrf" }, expires: { in: /data/expires_in } },
    { put: "https://login.test/{{ ticket }}", encode: form, body: { ticket: "{{ ticket }}", tenant: "{{ config.tenant }}" }, headers: { X-Csrf: "{{ csrf }}" },
      basic: { username: "{{ user }}", password: "{{ password }}" }, take: { sid: "cookie:SID" }, expires: { at: /until } } ],
  lifetime: 20m, headers: { Authorization: "Session {{ sid }}", X-Csrf: "{{ csrf }}" },
  logout: { delete: "/session/{{ sid }}" } }"#;

fn session(connector: &Connector) -> &SessionScheme {
    match connector.auth().first() {
        Some(AuthScheme::Session(scheme)) => scheme,
        other => panic!("{other:?}"),
    }
}

fn user() -> Credential {
    Credential::parse(&json!({ "session": { "user": "ann", "password": "s3cret&1" } })).unwrap()
}

fn response(status: u16, headers: &[(&str, &str)], body: Value) -> HttpResponse {
    let headers = headers.iter();
    HttpResponse {
        status,
        headers: headers
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        body: body.to_string().into_bytes(),
    }
}

fn text(request: &HttpRequest) -> String {
    String::from_utf8(request.body.clone().unwrap_or_default()).unwrap()
}

#[test]
fn a_login_of_two_requests_becomes_a_session() {
    let connector = connector(SESSION);
    let (scheme, config, credential) = (session(&connector), json!({ "tenant": "t/1", "site": 7 }), user());
    let place = (&connector, &config);
    assert_eq!((scheme.logins(), scheme.default_lifetime_s()), (2, 1_200));
    let one = scheme.login_request(0, place, &credential, &Values::default()).unwrap();
    assert_eq!(
        (one.method.as_str(), one.url.as_str()),
        ("POST", "https://named.test/v1/t%2F1/login")
    );
    let sent: Value = serde_json::from_str(&text(&one)).unwrap();
    assert_eq!(
        sent,
        json!({ "user": "ann", "secret": { "password": "s3cret&1" }, "site": 7, "ttl": 60 })
    );
    let answer = response(
        200,
        &[("x-csrf", "c1")],
        json!({ "data": { "ticket": "t 1", "expires_in": 90 } }),
    );
    let first = scheme.login_answer(0, &answer, 0).unwrap();
    assert_eq!(first.expires_in_s, Some(90));
    assert_eq!(format!("{:?}", first.values), r#"{"csrf", "ticket"}"#);

    let two = scheme.login_request(1, place, &credential, &first.values).unwrap();
    assert_eq!(
        (two.method.as_str(), two.url.as_str()),
        ("PUT", "https://login.test/t%201")
    );
    assert_eq!(text(&two), "ticket=t%201&tenant=t%2F1");
    assert_eq!(two.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(two.header("x-csrf"), Some("c1"));
    assert_eq!(two.header("authorization"), Some("Basic YW5uOnMzY3JldCYx"));
    let answer = response(
        201,
        &[("Set-Cookie", "a=b"), ("Set-Cookie", "SID=\"s1\"; Path=/; HttpOnly")],
        json!({ "until": "2026-01-01T00:01:00Z" }),
    );
    let second = scheme.login_answer(1, &answer, 1_767_225_600_000).unwrap();
    assert_eq!(second.expires_in_s, Some(60));

    let whole = first.values.with(&second.values);
    let mut asked = request();
    scheme.put(&credential, &whole, &mut asked).unwrap();
    assert_eq!(asked.header("authorization"), Some("Session s1"));
    assert_eq!(asked.header("x-csrf"), Some("c1"));
    let shown = format!("{:?}", redact_headers(&asked.headers, connector.secret_names()));
    assert!(!shown.contains("s1") && !shown.contains("c1"), "{shown}");
    let scheme_of_all = connector.scheme_for(&credential).unwrap();
    assert_eq!(credential.exposed(scheme_of_all, Some(&whole)), ["c1", "s1"]);

    let logout = scheme.logout_request(place, &credential, &whole).unwrap().unwrap();
    assert_eq!(
        (logout.method.as_str(), logout.url.as_str()),
        ("DELETE", "https://named.test/v1/session/s1")
    );
    assert_eq!(logout.header("authorization"), Some("Session s1"));
}

/// The simplest login, with this in its place.
fn login(expires: &str) -> String {
    format!(
        "session: {{ values: [user], login: {{ post: /login, body: {{ u: \"{{{{ user }}}}\" }}, take: {{ token: /token }}{expires} }}, query: {{ t: \"{{{{ token }}}}\" }} }}"
    )
}

#[test]
fn answers_to_logins_are_read_as_the_manifest_says() {
    const NOW: i64 = 1_767_225_600_000;
    let read = |expires: &str, status: u16, body: Value| -> Result<SessionPart, (String, bool)> {
        let connector = connector(&login(expires));
        let answer = response(status, &[("x-until", "Thu, 01 Jan 2026 00:00:30 GMT")], body);
        let read = session(&connector).login_answer(0, &answer, NOW);
        read.map_err(|error| (error.code, error.retryable))
    };
    let lasts = |expires: &str, stated: Value| {
        let part = read(expires, 200, json!({ "token": "t", "e": stated })).unwrap();
        part.expires_in_s
    };
    assert_eq!(lasts("", json!(5)), None);
    assert_eq!(lasts(", expires: { in: /e }", json!("90")), Some(90));
    assert_eq!(lasts(", expires: { in: /e, unit: ms }", json!(90_500)), Some(90));
    assert_eq!(lasts(", expires: { at: /e, unit: s }", json!(1_767_225_660)), Some(60));
    assert_eq!(
        lasts(", expires: { at: /e, unit: ms }", json!("1767225660000")),
        Some(60)
    );
    assert_eq!(
        lasts(", expires: { at: /e }", json!("2026-01-01T01:00:00+00:30")),
        Some(1_800)
    );
    assert_eq!(lasts(", expires: { at: \"header:X-Until\" }", json!(0)), Some(30));
    // Nothing that can be used: as if nothing were said.
    for (expires, stated) in [
        (", expires: { in: /e }", json!(0)),
        (", expires: { in: /e }", json!("soon")),
        (", expires: { at: /e }", json!("2025-12-31T00:00:00Z")),
        (", expires: { at: /e, unit: s }", Value::Null),
    ] {
        assert_eq!(lasts(expires, stated), None, "{expires}");
    }
    assert_eq!(lasts(", expires: { in: /e }", json!(1e18)), Some(315_360_000));
    let number = read("", 200, json!({ "token": 12 })).unwrap();
    assert_eq!(number.values.get("token").unwrap().expose_secret(), "12");
    let refusal = |status: u16, body: Value| read("", status, body).map(drop).unwrap_err();
    assert_eq!(refusal(401, json!({ "token": "t" })), ("http_401".to_owned(), false));
    assert_eq!(refusal(429, json!({})), ("http_429".to_owned(), true));
    assert_eq!(refusal(503, json!({})), ("http_503".to_owned(), true));
    assert_eq!(refusal(200, json!({ "token": "" })), ("unreadable".to_owned(), false));
    assert_eq!(
        refusal(200, json!({ "token": { "s3cret": 1 } })),
        ("unreadable".to_owned(), false)
    );
}

// Misspelt on purpose from here on.
#[test]
fn wrong_sessions_are_told_with_place_and_suggestion() {
    let with = |from: &str, to: &str| {
        assert!(SESSION.contains(from), "{from}");
        SESSION.replacen(from, to, 1).replace('\n', " ")
    };
    let at = |place: &str| format!("/auth/session{place}");
    refused(
        &with("{ ticket: \"{{ ticket }}\"", "{ ticket: \"{{ tiket }}\""),
        &at("/login/1/body/ticket"),
        "`tiket` is not a value",
        Some("did you mean `ticket`?"),
    );
    // What a later request gives is not known to an earlier one.
    refused(
        &with("ttl: 60", "ttl: \"{{ sid }}\""),
        &at("/login/0/body/ttl"),
        "`sid` is not a value",
        Some("known here: user, password"),
    );
    refused(
        &with("config.site", "config.sit"),
        &at("/login/0/body/site"),
        "is not declared",
        Some("did you mean `config.site`?"),
    );
    refused(
        &with("cookie:SID", "coookie:SID"),
        &at("/login/1/take/sid"),
        "neither a JSON Pointer",
        Some("/pointer, header:NAME or cookie:NAME"),
    );
    refused(
        &with("take: { sid:", "take: { csrf:"),
        &at("/login/1/take/csrf"),
        "named twice",
        None,
    );
    refused(
        &with("post: \"/{{ config.tenant }}/login\"", "post: \"http://named.test\""),
        &at("/login/0/post"),
        "https://",
        None,
    );
    refused(
        &with("post: \"/{{ config.tenant }}/login\"", "post: \"{{ user }}/x\""),
        &at("/login/0/post"),
        "is no secret",
        None,
    );
    refused(
        &with("post:", "pots:"),
        &at("/login/0/pots"),
        "is not a key here",
        Some("did you mean `post`?"),
    );
    refused(
        &with("{ at: /until }", "{ at: /until, unit: min }"),
        &at("/login/1/expires/unit"),
        "`min` is not known",
        Some("one of: s, ms, date"),
    );
    refused(
        &with("{ in: /data/expires_in }", "{ in: /e, unit: date }"),
        &at("/login/0/expires/unit"),
        "a date is a moment",
        None,
    );
    refused(
        &with(
            "encode: form, body: { ticket: \"{{ ticket }}\", tenant: \"{{ config.tenant }}\" }",
            "encode: form",
        ),
        &at("/login/1/encode"),
        "there is none",
        None,
    );
    refused(
        &with(
            "headers: { Authorization: \"Session {{ sid }}\", X-Csrf: \"{{ csrf }}\" }",
            "headers: { X-User: \"{{ user }}\" }",
        ),
        &at(""),
        "put nowhere",
        Some("headers: { Authorization: \"Bearer {{ token }}\" }"),
    );
    refused(
        &with("lifetime: 20m", "lifetime: 20 min"),
        &at("/lifetime"),
        "is not a duration",
        None,
    );
}

// To here.

#[test]
fn a_credential_has_so_many_values_and_a_session_so_many_logins() {
    let codes = |auth: &str| {
        let problems = Connector::parse(&manifest(auth), &|_| None).map(drop).err();
        problems
            .unwrap_or_default()
            .iter()
            .map(|problem| problem.code)
            .collect::<Vec<_>>()
    };
    let keys = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("v{number}")).collect();
        let headers: Vec<String> = names
            .iter()
            .map(|name| format!("X-{name}: \"{{{{ {name} }}}}\""))
            .collect();
        format!(
            "keys: {{ values: [{}], headers: {{ {} }} }}",
            names.join(", "),
            headers.join(", ")
        )
    };
    assert_eq!(codes(&keys(16)), [""; 0]);
    assert_eq!(codes(&keys(17)), ["too_many"]);
    let logins = |count: usize| {
        let logins: Vec<String> = (0..count)
            .map(|number| format!("{{ post: /login, body: {{ u: \"{{{{ user }}}}\" }}, take: {{ t{number}: /t }} }}"))
            .collect();
        format!(
            "session: {{ values: [user], login: [{}], headers: {{ X: \"{{{{ t0 }}}}\" }} }}",
            logins.join(", ")
        )
    };
    assert_eq!(codes(&logins(4)), [""; 0]);
    assert_eq!(codes(&logins(5)), ["too_many"]);
}
