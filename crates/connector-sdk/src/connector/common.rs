//! What all operations of a connector share: where it lives, its settings, its headers, what its answers mean.

use std::borrow::Cow;

use serde_json::Value;
use url::Url;

use crate::answer::Meaning;
use crate::config::{Field, Shape, is_label};
use crate::expression::{Expression, Scope, Step};
use crate::fields::{Fields, is_name};
use crate::operation::BuildError;
use crate::pointer;
use crate::problem::{Problems, nearest};
use crate::template::{Piece, Template, pieces};

/// What all operations of a connector share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(super) name: String,
    pub(super) hosts: Hosts,
    pub(crate) config: Shape,
    pub(crate) config_defaults: Value,
    pub(crate) headers: Vec<(String, Template)>,
    pub(crate) meaning: Meaning,
}

#[derive(Debug)]
pub(super) enum Hosts {
    /// Any host; credentials go to `config.base_url` only.
    Any,
    /// These origins with path prefixes; the first is where paths start.
    Listed(Vec<Host>),
}

/// One place where a provider lives.
#[derive(Debug)]
pub(super) struct Host {
    /// What operations call it; without names there is only the first to start from.
    name: Option<String>,
    place: String,
    pieces: Vec<Piece>,
}

impl Hosts {
    /// The names of all hosts but the first, whose URL the setting `base_url` replaces.
    pub(super) fn other_names(&self) -> Vec<&str> {
        match self {
            Self::Any => Vec::new(),
            Self::Listed(hosts) => hosts.iter().skip(1).filter_map(|host| host.name.as_deref()).collect(),
        }
    }
}

impl Common {
    /// See [`Connector::base_url`].
    pub(crate) fn base_url<'a>(&'a self, config: &'a Value) -> Result<Cow<'a, str>, BuildError> {
        self.base_url_of(0, config)
    }

    /// Where paths on the host with this number start.
    pub(crate) fn base_url_of<'a>(&'a self, number: usize, config: &'a Value) -> Result<Cow<'a, str>, BuildError> {
        let host = match &self.hosts {
            Hosts::Any => None,
            Hosts::Listed(hosts) => hosts.get(number),
        };
        let stated = match number {
            0 => config.get("base_url"),
            _ => host
                .and_then(|host| host.name.as_deref())
                .and_then(|name| config.get("base_urls")?.get(name)),
        };
        if let Some(base_url) = stated.and_then(Value::as_str) {
            return Ok(Cow::Borrowed(base_url.trim_end_matches('/')));
        }
        match (host, &self.hosts) {
            (Some(host), _) => self.render_host(host, config),
            (None, Hosts::Any) => Err(BuildError::new("/config/base_url", "the connection has no base URL")),
            (None, Hosts::Listed(_)) => Err(BuildError::new("/config/base_url", "the connector has no host")),
        }
    }

    /// The number of the host with this name.
    pub(crate) fn host_named(&self, name: &str) -> Option<usize> {
        self.listed().iter().position(|host| host.name.as_deref() == Some(name))
    }

    /// The names of its hosts.
    pub(crate) fn host_names(&self) -> Vec<&str> {
        self.listed().iter().filter_map(|host| host.name.as_deref()).collect()
    }

    fn listed(&self) -> &[Host] {
        match &self.hosts {
            Hosts::Any => &[],
            Hosts::Listed(hosts) => hosts,
        }
    }

    /// Whether a request may go to `url`.
    pub(crate) fn allows(&self, config: &Value, url: &Url) -> bool {
        matches!(self.hosts, Hosts::Any)
            || self
                .base_urls(config)
                .iter()
                .any(|known| known.origin() == url.origin())
    }

    /// See [`Connector::base_urls`].
    pub(super) fn base_urls(&self, config: &Value) -> Vec<Url> {
        (0..self.listed().len().max(1))
            .filter_map(|number| self.base_url_of(number, config).ok())
            .filter_map(|url| Url::parse(&url).ok())
            .collect()
    }

    fn render_host<'a>(&'a self, host: &'a Host, config: &Value) -> Result<Cow<'a, str>, BuildError> {
        if let [Piece::Literal(literal)] = host.pieces.as_slice() {
            return Ok(Cow::Borrowed(literal));
        }
        let named = [("config", config), ("config", &self.config_defaults)];
        let scope = Scope {
            named: &named,
            layers: &[],
        };
        let mut text = String::new();
        for piece in &host.pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Expression { expression, .. } => {
                    let place = config_pointer(expression);
                    let value = expression
                        .evaluate(&scope)
                        .map_err(|error| BuildError::new(place.as_str(), error.message))?;
                    match value.as_str() {
                        // A free text here could name any host at all.
                        Some(label) if is_label(label) => text.push_str(label),
                        Some(host)
                            if self
                                .setting(expression)
                                .is_some_and(|field| field.is_bounded_host() && field.takes_host(host)) =>
                        {
                            text.push_str(host);
                        }
                        Some(_) | None => {
                            return Err(BuildError::new(
                                place,
                                "not a part of a host name (letters, digits, hyphens), or not one of the hosts that may stand here",
                            ));
                        }
                    }
                }
            }
        }
        Ok(Cow::Owned(text))
    }

    pub(super) fn check_hosts(&self, problems: &mut Problems) {
        let Hosts::Listed(hosts) = &self.hosts else {
            return;
        };
        for host in hosts {
            for (index, piece) in host.pieces.iter().enumerate() {
                let Piece::Expression { expression, .. } = piece else {
                    continue;
                };
                self.check_config_names(expression, &host.place, problems);
                let Some(field) = self.setting(expression).filter(|field| field.is_host()) else {
                    continue;
                };
                let is_whole = index == 1
                    && matches!(host.pieces.first(), Some(Piece::Literal(scheme)) if scheme == "https://")
                    && match host.pieces.get(2) {
                        None => true,
                        Some(Piece::Literal(rest)) => rest.starts_with(['/', ':']),
                        Some(Piece::Expression { .. }) => false,
                    };
                if !field.is_bounded_host() {
                    problems.add_with_suggestion(
                        &host.place,
                        "conflict",
                        "a setting that is a whole host could lead anywhere",
                        "say under which domains it is: `under: [.example.com]`",
                    );
                } else if !is_whole {
                    let message = "a setting with `format: host` is the whole host: `https://{{ config.… }}/path`";
                    problems.add(&host.place, "conflict", message);
                }
            }
        }
    }

    /// The declaration of the setting that an expression names.
    fn setting(&self, expression: &Expression) -> Option<&Field> {
        let Expression::Path(path) = expression else {
            return None;
        };
        let keys: Vec<&str> = path
            .steps
            .iter()
            .map(|step| if let Step::Key(key) = step { key.as_str() } else { "" })
            .collect();
        self.config.field(&keys).filter(|_| path.root == "config")
    }

    /// Reports names that are not declared settings.
    pub(crate) fn check_config_names(&self, expression: &Expression, place: &str, problems: &mut Problems) {
        if let Expression::Path(path) = expression
            && path.root == "config"
            && let Some(Step::Key(key)) = path.steps.first()
        {
            if !self.config.fields.contains_key(key) {
                let message = format!("`config.{key}` is not declared in `config`");
                match nearest(key, self.config.fields.keys().map(String::as_str)) {
                    Some(near) => problems.add_with_suggestion(
                        place,
                        "unknown_name",
                        message,
                        format!("did you mean `config.{near}`?"),
                    ),
                    None => problems.add(place, "unknown_name", message),
                }
            }
            return;
        }
        for root in expression.roots().into_iter().filter(|root| *root != "config") {
            problems.add(
                place,
                "unknown_name",
                format!("`{root}` is not known here; expressions here see `config`"),
            );
        }
    }

    pub(crate) fn config_may_be_absent(&self, expression: &Expression) -> bool {
        match expression {
            Expression::Path(path) if path.root == "config" => {
                let keys: Vec<&str> = path
                    .steps
                    .iter()
                    .map(|step| if let Step::Key(key) = step { key.as_str() } else { "" })
                    .collect();
                self.config.may_be_absent(&keys)
            }
            Expression::Path(_) | Expression::Condition(_) | Expression::Jinja { .. } => false,
        }
    }
}

fn config_pointer(expression: &Expression) -> String {
    match expression {
        Expression::Path(path) => path.steps.iter().fold("/config".to_owned(), |place, step| match step {
            Step::Key(key) => pointer::join(&place, key),
            Step::Index(index) => pointer::join(&place, &index.to_string()),
        }),
        Expression::Condition(_) | Expression::Jinja { .. } => "/config".to_owned(),
    }
}

pub(super) fn read_hosts(fields: &Fields<'_>, problems: &mut Problems) -> Hosts {
    match fields.required("hosts", problems) {
        Some(Value::String(word)) if word == "any" => Hosts::Any,
        Some(Value::Array(items)) if !items.is_empty() => {
            let hosts = items.iter().enumerate().filter_map(|(index, item)| {
                let place = pointer::join("/hosts", &index.to_string());
                read_host(None, item, place, problems)
            });
            Hosts::Listed(hosts.collect())
        }
        Some(Value::Object(named)) if !named.is_empty() => {
            let mut hosts = Vec::with_capacity(named.len());
            for (name, item) in named {
                let place = pointer::join("/hosts", name);
                if !is_name(name, false) {
                    let message = format!("`{name}` is not a name: lower-case letters, digits and `_`");
                    problems.add(&place, "bad_name", message);
                }
                hosts.extend(read_host(Some(name), item, place, problems));
            }
            Hosts::Listed(hosts)
        }
        Some(_) => {
            let message = "`hosts` is a list of URLs, a mapping of names to URLs, or `any`";
            problems.add("/hosts", "bad_type", message);
            Hosts::Listed(Vec::new())
        }
        None => Hosts::Listed(Vec::new()),
    }
}

fn read_host(name: Option<&String>, item: &Value, place: String, problems: &mut Problems) -> Option<Host> {
    let text = item.as_str().unwrap_or_default().trim_end_matches('/');
    let is_plain = text
        .strip_prefix("https://")
        .is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@']));
    if !is_plain {
        let message = "a host is an https URL without user, query and fragment";
        problems.add(&place, "bad_value", message);
        return None;
    }
    match pieces(text, &|_| false) {
        Ok(pieces) => {
            if matches!(pieces.as_slice(), [Piece::Literal(literal)] if Url::parse(literal).is_err()) {
                problems.add(&place, "bad_value", "not a valid URL");
            }
            Some(Host {
                name: name.cloned(),
                place,
                pieces,
            })
        }
        Err(message) => {
            problems.add(&place, "bad_expression", message);
            None
        }
    }
}
