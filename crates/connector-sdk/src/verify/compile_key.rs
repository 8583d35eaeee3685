//! From `pubkey`, `x509` and `jwt` in a manifest to their checks. Schemes by which anybody's key would do are refused.

use std::collections::BTreeMap;

use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::Check;
use super::allowed::Allowed;
use super::certificate::{AlgorithmChoice, CertificateCheck};
use super::compile::parse_pointer;
use super::compile_mac::{SIGNED_KEYS, judge_secret, read_key, read_signed, read_source};
use super::jwt::{JwtCheck, JwtKeys, TokenSource};
use super::parts::{Part, Source};
use super::public_key::{KeyForm, PublicKeyCheck, SignatureAlgorithm};
use super::url_rule::{self, UrlRule};
use crate::fields::{Fields, choose, is_header_name};
use crate::pointer;
use crate::problem::Problems;

const PUBLIC_KEY_ALGORITHMS: [(&str, SignatureAlgorithm); 4] = [
    ("ed25519", SignatureAlgorithm::Ed25519),
    ("ecdsa-p256-sha256", SignatureAlgorithm::EcdsaP256Sha256),
    ("rsa-pkcs1-sha256", SignatureAlgorithm::RsaSha256),
    ("rsa-pkcs1-sha512", SignatureAlgorithm::RsaSha512),
];

const CERTIFICATE_ALGORITHMS: [(&str, SignatureAlgorithm); 3] = [
    ("sha1", SignatureAlgorithm::RsaSha1),
    ("sha256", SignatureAlgorithm::RsaSha256),
    ("sha512", SignatureAlgorithm::RsaSha512),
];

const KEY_FORMS: [(&str, KeyForm); 4] = [
    ("raw-hex", KeyForm::RawHex),
    ("raw-base64", KeyForm::RawBase64),
    ("spki-base64", KeyForm::SpkiBase64),
    ("pem", KeyForm::Pem),
];

const TOKEN_ALGORITHMS: [(&str, Algorithm); 12] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
];

/// How far a token's times may be off when the scheme states nothing, in seconds.
const DEFAULT_LEEWAY_S: u64 = 60;

pub(super) fn read_public_key(value: &Value, place: &str, problems: &mut Problems) -> Option<Check> {
    let mut known = SIGNED_KEYS.to_vec();
    known.extend(["alg", "key", "key_form", "public_keys"]);
    let fields = Fields::open(value, place, &known, problems)?;
    fields.required("alg", problems);
    let alg = fields.choice("alg", &PUBLIC_KEY_ALGORITHMS, problems);
    fields.required("key_form", problems);
    let form = fields.choice("key_form", &KEY_FORMS, problems);
    let signed = read_signed(&fields, false, problems);
    if let Some(signed) = &signed {
        judge_secret(&signed.parts, true, &fields.at("parts"), problems);
    }
    let (alg, form) = (alg?, form?);
    if matches!(form, KeyForm::RawHex | KeyForm::RawBase64) && alg != SignatureAlgorithm::Ed25519 {
        problems.add(
            &fields.at("key_form"),
            "bad_value",
            "only ed25519 keys have a raw form; others are spki-base64 or pem",
        );
    }
    let mut own_keys = Vec::new();
    for (index, text) in fields
        .texts("public_keys", problems)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        match form.decode(text.as_bytes()).filter(|key| alg.accepts(key)) {
            Some(key) => own_keys.push(key),
            None => problems.add(
                &pointer::join(&fields.at("public_keys"), &index.to_string()),
                "bad_value",
                "not a public key for this `alg` and `key_form`",
            ),
        }
    }
    Some(Check::PublicKey(Box::new(PublicKeyCheck {
        alg,
        signed: signed?,
        form,
        key: read_key(&fields, problems),
        own_keys,
    })))
}

pub(super) fn read_certificate(value: &Value, place: &str, problems: &mut Problems) -> Option<Check> {
    let mut known = SIGNED_KEYS.to_vec();
    known.extend(["alg", "cert_url", "allow"]);
    let fields = Fields::open(value, place, &known, problems)?;
    let alg = fields
        .required("alg", problems)
        .and_then(|alg| read_algorithm(alg, &fields.at("alg"), problems));
    let signed = read_signed(&fields, false, problems);
    if let Some(signed) = &signed {
        judge_secret(&signed.parts, true, &fields.at("parts"), problems);
    }
    let url = fields.required("cert_url", problems)?;
    let cert = Fields::open(
        url,
        &fields.at("cert_url"),
        &["from", "https_host_allow", "path_suffix"],
        problems,
    )?;
    let from = cert
        .required_text("from", problems)
        .and_then(|text| read_source(text, &cert.at("from"), problems));
    let rule = UrlRule::read(&cert, true, problems);
    let allow = match fields.get("allow") {
        Some(list) => read_allow(list, &fields.at("allow"), problems)?,
        None => Vec::new(),
    };
    let signed = signed?;
    let bound = signed.parts.iter().any(|part| matches!(part, Part::Context(_)));
    if allow.is_empty() && !bound {
        problems.add_with_suggestion(
            place,
            "weak_scheme",
            "every customer of the signer gets signatures by the same key, so the request must be bound to this endpoint",
            "add `allow`, for example allow: [{ at: json:/TopicArn, in: \"arn:aws:sns:eu-west-1:123456789012:orders\" }], in the endpoint's own `verify` where it differs",
        );
    }
    Some(Check::Certificate(Box::new(CertificateCheck {
        alg: alg?,
        signed,
        url: from?,
        rule: rule?,
        allow,
    })))
}

fn read_algorithm(value: &Value, place: &str, problems: &mut Problems) -> Option<AlgorithmChoice> {
    if let Some(text) = value.as_str() {
        return choose(text, &CERTIFICATE_ALGORITHMS, place, problems).map(AlgorithmChoice::Fixed);
    }
    let fields = Fields::open(value, place, &["by", "of"], problems)?;
    let by = read_source(fields.required_text("by", problems)?, &fields.at("by"), problems)?;
    let of = Fields::open_any(fields.required("of", problems)?, &fields.at("of"), problems)?;
    let mut known = BTreeMap::new();
    for name in of.map().keys() {
        known.insert(name.clone(), of.choice(name, &CERTIFICATE_ALGORITHMS, problems)?);
    }
    Some(AlgorithmChoice::By(by, known))
}

fn read_allow(value: &Value, place: &str, problems: &mut Problems) -> Option<Vec<(Source, Allowed)>> {
    let Some(items) = value.as_array() else {
        problems.add(place, "bad_type", "`allow` is a list of { at, in }");
        return None;
    };
    let mut allow = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let place = pointer::join(place, &index.to_string());
        let fields = Fields::open(item, &place, &["at", "in"], problems)?;
        let at = read_source(fields.required_text("at", problems)?, &fields.at("at"), problems)?;
        fields.required("in", problems)?;
        allow.push((at, Allowed::read(&fields, "in", problems)?));
    }
    Some(allow)
}

pub(super) fn read_jwt(value: &Value, place: &str, problems: &mut Problems) -> Option<Check> {
    let known = [
        "token",
        "algs",
        "keys",
        "issuer",
        "audience",
        "claims",
        "leeway_s",
        "max_age_s",
        "body_hash_claim",
    ];
    let fields = Fields::open(value, place, &known, problems)?;
    let token = fields
        .required_text("token", problems)
        .and_then(|text| read_token_source(text, &fields.at("token"), problems));
    fields.required("algs", problems)?;
    let place_of_algs = fields.at("algs");
    let algs: Option<Vec<Algorithm>> = fields
        .texts("algs", problems)?
        .iter()
        .enumerate()
        .map(|(index, text)| {
            choose(
                text,
                &TOKEN_ALGORITHMS,
                &pointer::join(&place_of_algs, &index.to_string()),
                problems,
            )
        })
        .collect();
    let keys = fields
        .required("keys", problems)
        .and_then(|keys| read_keys(keys, &fields.at("keys"), problems));
    let mut claims = Vec::new();
    if let Some(wanted) = fields.get("claims") {
        let wanted = Fields::open_any(wanted, &fields.at("claims"), problems)?;
        for (name, value) in wanted.map() {
            claims.push((name.clone(), Allowed::read_value(value, &wanted.at(name), problems)?));
        }
    }
    let check = JwtCheck {
        token: token?,
        algs: algs?,
        keys: keys?,
        issuer: Allowed::read(&fields, "issuer", problems),
        audience: Allowed::read(&fields, "audience", problems),
        claims,
        leeway_s: fields.number("leeway_s", problems).unwrap_or(DEFAULT_LEEWAY_S),
        max_age_s: fields.number("max_age_s", problems),
        body_hash_claim: fields.text("body_hash_claim", problems).map(str::to_owned),
    };
    judge_jwt(&check, &fields, problems);
    Some(Check::Jwt(Box::new(check)))
}

fn judge_jwt(check: &JwtCheck, fields: &Fields<'_>, problems: &mut Problems) {
    let shared = |alg: &Algorithm| matches!(alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
    if check.algs.is_empty() {
        problems.add(&fields.at("algs"), "bad_value", "the list of algorithms is empty");
    }
    let fits = match check.keys {
        JwtKeys::Secrets(_) => check.algs.iter().all(shared),
        JwtKeys::Jwks(_) => !check.algs.iter().any(shared),
    };
    if !fits {
        problems.add(
            &fields.at("algs"),
            "weak_scheme",
            "HS256, HS384 and HS512 go with `keys: secret`, all others with `keys: { jwks_url }`: mixed, a public key could be taken for a secret",
        );
    }
    let bound = check.audience.is_some() || !check.claims.is_empty();
    if matches!(check.keys, JwtKeys::Jwks(_)) && !bound {
        problems.add_with_suggestion(
            fields.place(),
            "weak_scheme",
            "every customer of the signer gets tokens by the same keys, so the token must be bound to this endpoint",
            "add `audience` or `claims`, in the endpoint's own `verify` where they differ",
        );
    }
}

fn read_token_source(text: &str, place: &str, problems: &mut Problems) -> Option<TokenSource> {
    match (text, text.split_once(':')) {
        ("bearer", _) => Some(TokenSource::Bearer),
        (_, Some(("header", name))) if is_header_name(name) => Some(TokenSource::Header(name.to_ascii_lowercase())),
        (_, Some(("json", text))) => parse_pointer(text, place, problems).map(TokenSource::Json),
        _ => {
            problems.add_with_suggestion(
                place,
                "bad_value",
                format!("`{text}` is no place of a token"),
                "bearer, header:NAME, or json:/pointer (with `*` for all elements of a list)",
            );
            None
        }
    }
}

fn read_keys(value: &Value, place: &str, problems: &mut Problems) -> Option<JwtKeys> {
    if value.as_str() == Some("secret") {
        return Some(JwtKeys::Secrets(Vec::new()));
    }
    let fields = Fields::open(value, place, &["jwks_url", "secret"], problems)?;
    let (kind, value) = fields.single("`keys`", problems)?;
    match kind {
        "jwks_url" => url_rule::read_own(value, &fields.at("jwks_url"), problems).map(JwtKeys::Jwks),
        _ => {
            let secret = Fields::open(value, &fields.at("secret"), &["key"], problems)?;
            Some(JwtKeys::Secrets(read_key(&secret, problems)))
        }
    }
}
