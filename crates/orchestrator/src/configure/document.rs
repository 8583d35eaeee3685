//! Configuration documents: what people write in YAML or send over the API, read into checked values.
//!
//! Reading never looks anything up; whether a named connector or connection exists is decided by the caller.
//! Every problem is reported, not only the first, each with its JSON pointer.

use super::connector::ConnectorDocument;
use super::kind::Kind;
use super::sweep::Intake;
use serde_json::{Map, Value};
use std::sync::Arc;
use weir_connector_sdk::{Credential, Registration, Verifier, parse_context};

/// Gives the line of a JSON pointer, for documents that came from a text.
pub type Lines = Arc<dyn Fn(&str) -> Option<usize> + Send + Sync>;

/// One document as it was handed in.
#[derive(Clone)]
pub struct SourceDocument {
    /// The parsed document.
    pub value: Value,
    /// Pointer to line, when it came from a text.
    pub lines: Option<Lines>,
    /// File name or the like, for messages.
    pub origin: Option<String>,
}

impl SourceDocument {
    /// A document without a text behind it.
    #[must_use]
    pub fn from_value(value: Value) -> Self {
        SourceDocument {
            value,
            lines: None,
            origin: None,
        }
    }
}

impl std::fmt::Debug for SourceDocument {
    /// Documents carry secrets: only where it came from is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceDocument")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Something wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Which of the documents handed in, from 0.
    pub document: usize,
    /// Its file, if known.
    pub origin: Option<String>,
    /// Its kind, if it could be read.
    pub kind: Option<Kind>,
    /// Its name, if it could be read.
    pub name: Option<String>,
    /// RFC 6901 pointer to the place.
    pub pointer: String,
    /// Line in the text, from 1.
    pub line: Option<usize>,
    /// Stable code, `snake_case`.
    pub code: String,
    /// What is wrong, for people.
    pub message: String,
    /// How to mend it, or what was probably meant.
    pub suggestion: Option<String>,
}

impl std::fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}:")?;
        }
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if let (Some(kind), Some(name)) = (self.kind, &self.name) {
            write!(f, " {kind} `{name}`:")?;
        }
        write!(
            f,
            " {}: {}",
            if self.pointer.is_empty() { "/" } else { &self.pointer },
            self.message
        )?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, " ({suggestion})")?;
        }
        Ok(())
    }
}

/// A secret of an endpoint, as the provider shows it; Basic pairs are `user:password`.
pub(crate) type EndpointSecrets = Vec<String>;

/// What a document says, its shape checked.
#[derive(Debug, Clone)]
pub(crate) enum Parsed {
    Connector(ConnectorDocument),
    Connection(ConnectionDocument),
    Endpoint(EndpointDocument),
    Workflow(WorkflowDocument),
}

#[derive(Clone)]
pub(crate) struct ConnectionDocument {
    pub(crate) name: String,
    pub(crate) connector: String,
    pub(crate) config: Value,
    /// Absent: keep what is stored.
    pub(crate) credential: Option<Value>,
}

impl std::fmt::Debug for ConnectionDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionDocument")
            .field("name", &self.name)
            .field("connector", &self.connector)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub(crate) struct EndpointDocument {
    pub(crate) name: String,
    pub(crate) connector: Option<String>,
    pub(crate) connection: Option<String>,
    pub(crate) verify: Option<Value>,
    /// Absent: keep what is stored.
    pub(crate) secrets: Option<EndpointSecrets>,
    pub(crate) allow: Vec<String>,
    /// What it knows of its registration at the provider.
    pub(crate) context: Registration,
    pub(crate) intake: Intake,
}

impl std::fmt::Debug for EndpointDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointDocument")
            .field("name", &self.name)
            .field("connector", &self.connector)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct WorkflowDocument {
    pub(crate) name: String,
    /// The document without `kind`, as the engine reads it.
    pub(crate) definition: Value,
}

impl Parsed {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Parsed::Connector(_) => Kind::Connector,
            Parsed::Connection(_) => Kind::Connection,
            Parsed::Endpoint(_) => Kind::Endpoint,
            Parsed::Workflow(_) => Kind::Workflow,
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Parsed::Connector(connector) => &connector.reference,
            Parsed::Connection(connection) => &connection.name,
            Parsed::Endpoint(endpoint) => &endpoint.name,
            Parsed::Workflow(workflow) => &workflow.name,
        }
    }
}

/// Longest name of a connection, endpoint or workflow, in characters.
///
/// Limit: name of a connection or endpoint | refused, `invalid_name` | `inputs_stop_at_their_bounds`
pub const MAX_NAME_CHARACTERS: usize = 64;
/// Most secrets that an endpoint accepts at once. Each is tried for each request.
///
/// Limit: secrets of an endpoint that are active at once | refused | `inputs_stop_at_their_bounds`
pub const MAX_ENDPOINT_SECRETS: usize = 8;

/// Reads one document.
///
/// # Errors
/// All problems found.
pub(crate) fn read(index: usize, source: &SourceDocument) -> Result<Parsed, Vec<ConfigProblem>> {
    let mut reader = Reader::at(index, source, None);
    let parsed = reader.read();
    match parsed {
        Some(parsed) if reader.problems.is_empty() => Ok(parsed),
        Some(_) | None => Err(reader.problems),
    }
}

pub(crate) struct Reader<'a> {
    index: usize,
    pub(super) source: &'a SourceDocument,
    kind: Option<Kind>,
    pub(super) name: Option<String>,
    pub(crate) problems: Vec<ConfigProblem>,
}

impl<'a> Reader<'a> {
    /// A reader that only collects problems of a document which was read before.
    pub(crate) fn of(index: usize, source: &'a SourceDocument, parsed: &Parsed) -> Self {
        Self::at(index, source, Some((parsed.kind(), parsed.name().to_owned())))
    }

    /// The same for a document of this kind and name.
    pub(crate) fn at(index: usize, source: &'a SourceDocument, named: Option<(Kind, String)>) -> Self {
        let (kind, name) = named.unzip();
        Reader {
            index,
            source,
            kind,
            name,
            problems: Vec::new(),
        }
    }

    pub(crate) fn problem(
        &mut self,
        pointer: &str,
        code: &str,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        self.problems.push(ConfigProblem {
            document: self.index,
            origin: self.source.origin.clone(),
            kind: self.kind,
            name: self.name.clone(),
            pointer: pointer.to_owned(),
            line: self.source.lines.as_ref().and_then(|line_of| line_of(pointer)),
            code: code.to_owned(),
            message: message.into(),
            suggestion,
        });
    }

    fn read(&mut self) -> Option<Parsed> {
        let Value::Object(document) = &self.source.value else {
            self.problem(
                "",
                "wrong_type",
                "a document must be a mapping with `kind` and `name`",
                None,
            );
            return None;
        };
        let kind = self.read_kind(document)?;
        self.kind = Some(kind);
        if kind == Kind::Connector {
            return self.read_connector().map(Parsed::Connector);
        }
        let name = self.read_name(document)?;
        self.name = Some(name.clone());
        self.refuse_references(&self.source.value, &mut String::new());
        match kind {
            Kind::Connector => None,
            Kind::Connection => {
                self.known_keys(document, &["kind", "name", "connector", "config", "credential"]);
                let connector = self.required_text(document, "connector");
                let config = document
                    .get("config")
                    .cloned()
                    .unwrap_or_else(|| Value::Object(Map::new()));
                if !config.is_object() {
                    self.problem("/config", "wrong_type", "`config` must be a mapping", None);
                }
                let credential = document.get("credential").filter(|value| !value.is_null()).cloned();
                if let Some(Err(problems)) = credential.as_ref().map(Credential::parse) {
                    for problem in problems {
                        self.problem(
                            &format!("/credential{}", problem.pointer),
                            problem.code,
                            problem.message,
                            problem.suggestion,
                        );
                    }
                }
                Some(Parsed::Connection(ConnectionDocument {
                    name,
                    connector: connector?,
                    config,
                    credential,
                }))
            }
            Kind::Endpoint => {
                let known = [
                    "kind",
                    "name",
                    "connector",
                    "connection",
                    "verify",
                    "context",
                    "secrets",
                    "allow",
                    "receive",
                    "poll",
                    "since",
                    "sweep",
                    "register",
                ];
                self.known_keys(document, &known);
                let connector = self.optional_text(document, "connector");
                let connection = self.optional_text(document, "connection");
                if connector.is_none() && connection.is_none() {
                    self.problem(
                        "",
                        "missing",
                        "an endpoint needs a `connector` or a `connection`",
                        Some("name the connector whose webhooks arrive here".to_owned()),
                    );
                }
                let verify = document.get("verify").filter(|value| !value.is_null()).cloned();
                if let Some(Err(problems)) = verify.as_ref().map(|value| Verifier::compile(value, "/verify")) {
                    for problem in problems {
                        self.problem(&problem.pointer, problem.code, problem.message, problem.suggestion);
                    }
                }
                let secrets = self.read_secrets(document);
                let allow = self.read_allow(document);
                let context = self.read_context(document);
                let intake = Intake::read(document).unwrap_or_else(|(key, problem)| {
                    self.problem(&format!("/{key}"), "bad_value", problem, None);
                    Intake::default()
                });
                Some(Parsed::Endpoint(EndpointDocument {
                    name,
                    connector,
                    connection,
                    verify,
                    secrets,
                    allow,
                    context,
                    intake,
                }))
            }
            Kind::Workflow => {
                let mut definition = document.clone();
                definition.shift_remove("kind");
                Some(Parsed::Workflow(WorkflowDocument {
                    name,
                    definition: Value::Object(definition),
                }))
            }
        }
    }

    fn read_kind(&mut self, document: &Map<String, Value>) -> Option<Kind> {
        let Some(text) = document.get("kind").and_then(Value::as_str) else {
            self.problem("/kind", "missing", "`kind` is missing", Some(Kind::listed()));
            return None;
        };
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
        if kind.is_none() {
            let meant = nearest(text, Kind::ALL.iter().map(|kind| kind.as_str()));
            self.problem(
                "/kind",
                "unknown_kind",
                format!("there is no kind `{text}`"),
                meant.or_else(|| Some(Kind::listed())),
            );
        }
        kind
    }

    fn read_name(&mut self, document: &Map<String, Value>) -> Option<String> {
        let Some(name) = document.get("name").and_then(Value::as_str) else {
            self.problem("/name", "missing", "`name` is missing", None);
            return None;
        };
        let good = !name.is_empty()
            && name.len() <= MAX_NAME_CHARACTERS
            && name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && name.chars().all(|character| {
                character.is_ascii_lowercase() || character.is_ascii_digit() || "-_.".contains(character)
            });
        if !good {
            self.problem("/name", "invalid_name", format!("`{name}` is not a name"), Some(format!("lower-case letters, digits, `-`, `_`, `.`; at most {MAX_NAME_CHARACTERS} characters; a letter or digit first")));
            return None;
        }
        Some(name.to_owned())
    }

    fn known_keys(&mut self, document: &Map<String, Value>, known: &[&str]) {
        for key in document.keys() {
            if !known.contains(&key.as_str()) {
                let suggestion =
                    nearest(key, known.iter().copied()).or_else(|| Some(format!("known keys: {}", known.join(", "))));
                self.problem(
                    &format!("/{}", escape(key)),
                    "unknown_key",
                    format!("unknown key `{key}`"),
                    suggestion,
                );
            }
        }
    }

    fn required_text(&mut self, document: &Map<String, Value>, key: &str) -> Option<String> {
        let found = self.optional_text(document, key);
        if found.is_none() && !document.contains_key(key) {
            self.problem(&format!("/{key}"), "missing", format!("`{key}` is missing"), None);
        }
        found
    }

    fn optional_text(&mut self, document: &Map<String, Value>, key: &str) -> Option<String> {
        match document.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(_) => {
                self.problem(
                    &format!("/{key}"),
                    "wrong_type",
                    format!("`{key}` must be a text that is not empty"),
                    None,
                );
                None
            }
        }
    }

    fn read_secrets(&mut self, document: &Map<String, Value>) -> Option<EndpointSecrets> {
        let list = match document.get("secrets") {
            None | Some(Value::Null) => return None,
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.problem("/secrets", "wrong_type", "`secrets` must be a list, newest first", None);
                return None;
            }
        };
        if list.len() > MAX_ENDPOINT_SECRETS {
            self.problem(
                "/secrets",
                "too_many",
                format!("at most {MAX_ENDPOINT_SECRETS} secrets may be active at once"),
                Some("remove secrets that the provider no longer uses".to_owned()),
            );
        }
        let mut secrets = Vec::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            let pair = item.as_object().filter(|pair| pair.len() == 2);
            let basic = pair.and_then(|pair| Some((pair.get("username")?.as_str()?, pair.get("password")?.as_str()?)));
            match (item.as_str(), basic) {
                (Some(secret), _) if !secret.is_empty() => secrets.push(secret.to_owned()),
                (_, Some((username, password))) if !username.contains(':') && !password.is_empty() => {
                    secrets.push(format!("{username}:{password}"))
                }
                (_, _) => self.problem(
                    &format!("/secrets/{index}"),
                    "wrong_type",
                    "a secret must be a text that is not empty, or {username, password}",
                    None,
                ),
            }
        }
        Some(secrets)
    }

    fn read_context(&mut self, document: &Map<String, Value>) -> Registration {
        let Some(value) = document.get("context").filter(|value| !value.is_null()) else {
            return Registration::new();
        };
        match parse_context(value, "/context") {
            Ok(context) => context,
            Err(problems) => {
                for problem in problems {
                    self.problem(&problem.pointer, problem.code, problem.message, problem.suggestion);
                }
                Registration::new()
            }
        }
    }

    fn read_allow(&mut self, document: &Map<String, Value>) -> Vec<String> {
        let list = match document.get("allow") {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.problem("/allow", "wrong_type", "`allow` must be a list of networks", None);
                return Vec::new();
            }
        };
        let mut networks = Vec::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            match item.as_str().and_then(parse_network) {
                Some(network) => networks.push(network.to_string()),
                None => self.problem(
                    &format!("/allow/{index}"),
                    "invalid_network",
                    format!("{item} is not a network"),
                    Some("write an address or CIDR, such as 203.0.113.0/24".to_owned()),
                ),
            }
        }
        networks
    }

    /// `{ env: NAME }` and `{ file: PATH }` belong to the machine where the document was written; the server must not
    /// read its own environment or files for somebody who can only call its API.
    fn refuse_references(&mut self, value: &Value, pointer: &mut String) {
        match value {
            Value::Object(map) => {
                if map.len() == 1 && map.values().all(Value::is_string) {
                    for key in ["env", "file"] {
                        if map.contains_key(key) && self.kind != Some(Kind::Workflow) {
                            self.problem(
                                pointer,
                                "unresolved_reference",
                                format!("`{{ {key}: … }}` is resolved by `weir apply`, not by the server"),
                                Some("send the value itself".to_owned()),
                            );
                        }
                    }
                }
                for (key, inner) in map {
                    let length = pointer.len();
                    pointer.push('/');
                    pointer.push_str(&escape(key));
                    self.refuse_references(inner, pointer);
                    pointer.truncate(length);
                }
            }
            Value::Array(list) => {
                for (index, inner) in list.iter().enumerate() {
                    let length = pointer.len();
                    pointer.push('/');
                    pointer.push_str(&index.to_string());
                    self.refuse_references(inner, pointer);
                    pointer.truncate(length);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// An address or a network in CIDR notation.
pub(crate) fn parse_network(text: &str) -> Option<ipnet::IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from))
}

/// `did you mean …` for the candidate nearest to `text`.
pub(crate) fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(text, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// One reference token of a JSON pointer.
pub(crate) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
