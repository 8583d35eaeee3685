//! What all operations of a connector share: where it lives, its settings, its headers, what its answers mean.

use std::borrow::Cow;

use serde_json::Value;
use url::Url;

use crate::answer::Meaning;
use crate::config::{Shape, is_label};
use crate::expression::{Expression, Scope, Step};
use crate::fields::Fields;
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
    /// These origins with path prefixes; the first is the base URL.
    Listed(Vec<Vec<Piece>>),
}

impl Common {
    /// See [`Connector::base_url`].
    pub(crate) fn base_url<'a>(&'a self, config: &'a Value) -> Result<Cow<'a, str>, BuildError> {
        if let Some(base_url) = config.get("base_url").and_then(Value::as_str) {
            return Ok(Cow::Borrowed(base_url.trim_end_matches('/')));
        }
        match &self.hosts {
            Hosts::Any => Err(BuildError::new("/config/base_url", "the connection has no base URL")),
            Hosts::Listed(hosts) => match hosts.first() {
                Some(host) => self.render_host(host, config),
                None => Err(BuildError::new("/config/base_url", "the connector has no host")),
            },
        }
    }

    /// Whether a request may go to `url`.
    pub(crate) fn allows(&self, config: &Value, url: &Url) -> bool {
        matches!(self.hosts, Hosts::Any) || self.origins(config).iter().any(|known| known.origin() == url.origin())
    }

    /// The base URL and the other declared hosts, as far as they can be worked out.
    pub(super) fn origins(&self, config: &Value) -> Vec<Url> {
        let others: &[Vec<Piece>] = match &self.hosts {
            Hosts::Any => &[],
            Hosts::Listed(hosts) => hosts.get(1..).unwrap_or_default(),
        };
        let others = others.iter().filter_map(|host| self.render_host(host, config).ok());
        self.base_url(config)
            .ok()
            .into_iter()
            .chain(others)
            .filter_map(|url| Url::parse(&url).ok())
            .collect()
    }

    fn render_host<'a>(&'a self, host: &'a [Piece], config: &Value) -> Result<Cow<'a, str>, BuildError> {
        if let [Piece::Literal(literal)] = host {
            return Ok(Cow::Borrowed(literal));
        }
        let named = [("config", config), ("config", &self.config_defaults)];
        let scope = Scope {
            named: &named,
            layers: &[],
        };
        let mut text = String::new();
        for piece in host {
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
                        Some(_) | None => {
                            return Err(BuildError::new(
                                place,
                                "not a part of a host name (letters, digits, hyphens)",
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
        for (index, host) in hosts.iter().enumerate() {
            let place = pointer::join("/hosts", &index.to_string());
            for piece in host {
                if let Piece::Expression { expression, .. } = piece {
                    self.check_config_names(expression, &place, problems);
                }
            }
        }
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
    let listed = match fields.required("hosts", problems) {
        Some(Value::String(word)) if word == "any" => return Hosts::Any,
        Some(Value::Array(items)) if !items.is_empty() => items.as_slice(),
        Some(_) => {
            problems.add("/hosts", "bad_type", "`hosts` is a list of URLs, or `any`");
            &[]
        }
        None => &[],
    };
    let mut hosts = Vec::with_capacity(listed.len());
    for (index, item) in listed.iter().enumerate() {
        let place = pointer::join("/hosts", &index.to_string());
        let text = item.as_str().unwrap_or_default().trim_end_matches('/');
        let is_plain = text
            .strip_prefix("https://")
            .is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@']));
        if !is_plain {
            problems.add(
                &place,
                "bad_value",
                "a host is an https URL without user, query and fragment",
            );
            continue;
        }
        match pieces(text, &|_| false) {
            Ok(found) => {
                let literal_is_valid =
                    !matches!(found.as_slice(), [Piece::Literal(literal)] if Url::parse(literal).is_err());
                if !literal_is_valid {
                    problems.add(&place, "bad_value", "not a valid URL");
                }
                hosts.push(found);
            }
            Err(message) => problems.add(&place, "bad_expression", message),
        }
    }
    Hosts::Listed(hosts)
}
