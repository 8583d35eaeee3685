//! Which hosts a connection may call, and where its credential may travel.
//!
//! Worked out once per connection from the manifest and the settings. A connector of any host (`http`) may call any,
//! but its credential goes to the origin of `base_url` only. Addresses are judged elsewhere (`egress`); both must say yes.

use reqwest::Url;
use serde_json::Value;
use thiserror::Error;
use weir_connector_sdk::Connector;

/// What a connection may call.
#[derive(Debug)]
pub(crate) struct Targets {
    connector: String,
    any: bool,
    /// The declared origins; with `any`, that of `base_url` alone.
    origins: Vec<Origin>,
}

#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// A URL that may not be called. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum TargetError {
    #[error("the request has no valid http or https URL")]
    Invalid,
    #[error("the URL holds a user name or password; put them into the connection's credential")]
    UserInformation,
    #[error(
        "{host} is not among the hosts of connector {connector} ({declared}); declare it under `hosts`, or set the connection's `base_url`"
    )]
    Undeclared {
        host: String,
        connector: String,
        declared: String,
    },
}

impl TargetError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            TargetError::Invalid | TargetError::UserInformation => "invalid",
            TargetError::Undeclared { .. } => "egress_refused",
        }
    }
}

impl Targets {
    pub(crate) fn new(connector: &Connector, config: &Value) -> Self {
        Targets {
            connector: connector.name().to_owned(),
            any: connector.calls_any_host(),
            origins: connector.base_urls(config).iter().filter_map(Origin::of).collect(),
        }
    }

    /// Whether any host may be called.
    pub(crate) fn is_any(&self) -> bool {
        self.any
    }

    /// The URL, parsed, when it may be called.
    pub(crate) fn check(&self, url: &str) -> Result<Url, TargetError> {
        let url = Url::parse(url).map_err(|_error| TargetError::Invalid)?;
        self.check_url(&url)?;
        Ok(url)
    }

    pub(crate) fn check_url(&self, url: &Url) -> Result<(), TargetError> {
        let Some(host) = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https")) else {
            return Err(TargetError::Invalid);
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::UserInformation);
        }
        if self.any || self.is_declared(url) {
            return Ok(());
        }
        let declared: Vec<&str> = self.origins.iter().map(|origin| origin.host.as_str()).collect();
        Err(TargetError::Undeclared {
            host: host.to_owned(),
            connector: self.connector.clone(),
            declared: declared.join(", "),
        })
    }

    /// Whether the connection's credential may go there.
    pub(crate) fn is_declared(&self, url: &Url) -> bool {
        self.origins.iter().any(|origin| origin.is_of(url))
    }
}

impl Origin {
    fn of(url: &Url) -> Option<Self> {
        Some(Origin {
            scheme: url.scheme().to_owned(),
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    fn is_of(&self, url: &Url) -> bool {
        self.scheme == url.scheme()
            && Some(self.host.as_str()) == url.host_str()
            && Some(self.port) == url.port_or_known_default()
    }
}

/// Whether two URLs have the same scheme, host and port.
pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    Origin::of(one).is_some_and(|origin| origin.is_of(other))
}
