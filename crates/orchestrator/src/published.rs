//! The connectors of one workspace: those that it published, in all their versions, and those of the process.
//!
//! A published version never changes, so what was compiled once is kept for as long as it is stored. What names a
//! connector may name a version: `acme@1.2.0`. Only published connectors have versions of choice.

use crate::registry::{Registry, compile};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use weir_connector_sdk::Connector;
use weir_storage::ConnectorManifestRow;
use weir_workflow_engine::Timestamp;

/// Most versions of connectors that a workspace has published at a time: each node keeps them compiled.
///
/// Limit: published versions of connectors of a workspace | refused, `too_many` | `a_version_is_published_once_and_bounded`
pub const MAX_PUBLISHED_VERSIONS: usize = 200;
/// Longest document of a published connector with its files, as JSON. The largest manifest of a provider known has a
/// tenth of it.
///
/// Limit: a published connector with the files that it names | refused, `too_large` | `a_version_is_published_once_and_bounded`
pub const MAX_PUBLISHED_BYTES: usize = 512 * 1024;

/// Three numbers, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32, u32);

impl Version {
    /// Reads `1.2.0`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| {
            let is_plain = part == "0" || (!part.starts_with('0') && part.bytes().all(|byte| byte.is_ascii_digit()));
            part.parse().ok().filter(|_| is_plain)
        });
        let version = Version(parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(version)
    }

    /// The smallest that is larger.
    #[must_use]
    pub fn next(self) -> Self {
        Version(self.0, self.1, self.2.saturating_add(1))
    }

    /// Whether both differ in nothing but the last number.
    #[must_use]
    pub fn is_patch_of(self, other: Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }

    fn is_compatible_with(self, other: Self) -> bool {
        // Before 1.0.0 every second number may break what was there (Semantic Versioning 2.0.0, clause 4).
        self.0 == other.0 && (self.0 > 0 || self.1 == other.1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The name and, after `@`, the version of a connector as people write it.
#[must_use]
pub fn name_and_version(reference: &str) -> (&str, Option<&str>) {
    match reference.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (reference, None),
    }
}

/// One version of a published connector.
#[derive(Debug, Clone)]
pub struct Published {
    /// Compiled.
    pub connector: Arc<Connector>,
    /// The document as it was published, as JSON.
    pub(crate) text: Arc<str>,
    /// When it was published.
    pub created_at: Timestamp,
}

impl Published {
    /// The document as it was published.
    #[must_use]
    pub fn document(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// The connectors of a workspace.
#[derive(Debug, Clone, Default)]
pub struct Connectors {
    process: Registry,
    published: BTreeMap<String, BTreeMap<Version, Published>>,
}

impl Connectors {
    /// Those of the process alone.
    #[must_use]
    pub fn of_process(process: &Registry) -> Self {
        Connectors {
            process: process.clone(),
            published: BTreeMap::new(),
        }
    }

    /// Adds a stored version; `before` has it when it was compiled already. One that this release does not understand
    /// is left out with an error in the log: what uses it is unusable, not the server.
    pub(crate) fn load(&mut self, row: &ConnectorManifestRow, before: Option<&Connectors>) {
        let Some(version) = Version::parse(&row.version) else {
            tracing::error!(connector.name = %row.name, "connector `{}` has the version `{}`, which is none", row.name, row.version);
            return;
        };
        let kept = before.and_then(|before| before.published.get(&row.name)?.get(&version));
        if let Some(kept) = kept.filter(|kept| *kept.text == *row.document) {
            self.insert(&row.name, version, kept.clone());
            return;
        }
        let read = serde_json::from_str::<Value>(&row.document).map_err(|error| error.to_string());
        let compiled = read.and_then(|document| {
            let connector = compile(&document, &|_| None).map_err(|problems| {
                problems
                    .iter()
                    .map(|problem| format!("\n  {problem}"))
                    .collect::<String>()
            })?;
            Ok(Published {
                connector: Arc::new(connector),
                text: Arc::from(row.document.as_str()),
                created_at: row.created_at,
            })
        });
        match compiled {
            Ok(published) => self.insert(&row.name, version, published),
            Err(problem) => {
                tracing::error!(connector.name = %row.name, connector.version = %row.version, "connector `{}@{}` is not usable: {problem}", row.name, row.version);
            }
        }
    }

    /// Adds a version.
    pub(crate) fn insert(&mut self, name: &str, version: Version, published: Published) {
        self.published
            .entry(name.to_owned())
            .or_default()
            .insert(version, published);
    }

    /// The connector that a text names: `acme@1.2.0` that version, `acme` the newest or the one of the process.
    #[must_use]
    pub fn get(&self, reference: &str) -> Option<&Arc<Connector>> {
        let (name, version) = name_and_version(reference);
        let Some(versions) = self.published.get(name) else {
            return self.process.get(name).filter(|_| version.is_none());
        };
        let found = match version {
            Some(version) => versions.get(&Version::parse(version)?),
            None => versions.last_key_value().map(|(_, published)| published),
        };
        found.map(|published| &published.connector)
    }

    /// What a text that names a connector is pinned to now: a version of a published one, which is the newest that is
    /// compatible with `before` when the text names none; the name itself for one of the process. `None`: there is no
    /// such connector or version.
    #[must_use]
    pub fn pin(&self, reference: &str, before: Option<&str>) -> Option<String> {
        let (name, version) = name_and_version(reference);
        let Some(versions) = self.published.get(name) else {
            return self.get(reference).map(|_| name.to_owned());
        };
        let pinned = match version {
            Some(version) => *versions.get_key_value(&Version::parse(version)?)?.0,
            None => {
                let before = before
                    .map(name_and_version)
                    .filter(|(known, _)| *known == name)
                    .and_then(|(_, version)| Version::parse(version?));
                let fits = |version: &&Version| before.is_none_or(|before| version.is_compatible_with(before));
                *versions
                    .keys()
                    .rev()
                    .find(fits)
                    .or_else(|| versions.keys().next_back())?
            }
        };
        Some(format!("{name}@{pinned}"))
    }

    /// One connector of each name: the newest version of those that are published.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Connector>> {
        let published = self
            .published
            .values()
            .filter_map(|versions| Some(&versions.last_key_value()?.1.connector));
        let process = self
            .process
            .iter()
            .filter(|connector| !self.published.contains_key(connector.name()));
        let mut all: Vec<&Arc<Connector>> = published.chain(process).collect();
        all.sort_by(|one, other| one.name().cmp(other.name()));
        all.into_iter()
    }

    /// Every published version, by name and version.
    pub fn published(&self) -> impl Iterator<Item = (&str, Version, &Published)> {
        self.published.iter().flat_map(|(name, versions)| {
            versions
                .iter()
                .map(move |(version, published)| (name.as_str(), *version, published))
        })
    }

    /// The published versions of one name.
    #[must_use]
    pub fn versions(&self, name: &str) -> Option<&BTreeMap<Version, Published>> {
        self.published.get(name)
    }

    /// Whether the process has a connector of this name and the workspace has none.
    #[must_use]
    pub fn is_taken(&self, name: &str) -> bool {
        !self.published.contains_key(name) && self.process.get(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    fn published(versions: &[&str]) -> Connectors {
        let mut connectors = Connectors::default();
        for text in versions {
            let document =
                json!({ "connector": "acme", "version": text, "hosts": ["https://a.test"], "auth": { "none": {} } });
            let one = Published {
                connector: Arc::new(compile(&document, &|_| None).unwrap()),
                text: Arc::from(document.to_string()),
                created_at: Timestamp::from_unix_ms(0),
            };
            connectors.insert("acme", version(text), one);
        }
        connectors
    }

    #[test]
    fn versions_are_three_numbers_in_their_order() {
        assert!(version("1.10.0") > version("1.9.3"));
        assert_eq!(version("1.2.3").next().to_string(), "1.2.4");
        for wrong in ["1.2", "1.2.3.4", "1.2.x", "01.2.3", "", "1.2.+3", "1..2"] {
            assert_eq!(Version::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_is_pinned_to_the_newest_that_is_compatible() {
        let connectors = published(&["0.1.0", "0.2.0", "1.2.0", "1.10.0", "2.0.0"]);
        let pin = |reference: &str, before: Option<&str>| connectors.pin(reference, before);
        for (reference, before, expected) in [
            ("acme", None, Some("acme@2.0.0")),
            ("acme", Some("acme@1.2.0"), Some("acme@1.10.0")),
            ("acme", Some("acme@0.1.0"), Some("acme@0.1.0")),
            ("acme", Some("acme@3.1.0"), Some("acme@2.0.0")),
            ("acme", Some("acme"), Some("acme@2.0.0")),
            ("acme@1.2.0", Some("acme@2.0.0"), Some("acme@1.2.0")),
            ("acme@1.3.0", None, None),
            ("acme@x", None, None),
            ("other", None, None),
        ] {
            assert_eq!(pin(reference, before).as_deref(), expected, "{reference} {before:?}");
        }
        assert_eq!(connectors.get("acme").unwrap().version(), "2.0.0");
        assert_eq!(connectors.get("acme@1.2.0").unwrap().version(), "1.2.0");
        assert!(connectors.get("acme@1.2").is_none());
    }
}
