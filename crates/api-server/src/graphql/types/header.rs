//! HTTP headers, as name and value.

use async_graphql::SimpleObject;

/// One HTTP header. Values that are secret are redacted before they are stored.
#[derive(Debug, Clone, SimpleObject)]
pub(crate) struct Header {
    /// Name of the header.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: String,
}

/// Headers from name and value pairs.
pub(crate) fn list(pairs: &[(String, String)]) -> Vec<Header> {
    pairs
        .iter()
        .map(|(name, value)| Header {
            name: name.clone(),
            value: value.clone(),
        })
        .collect()
}

/// Headers from a stored JSON object: a value may be a text or, for repeated headers, a list of texts.
pub(crate) fn from_json(stored: &str) -> Vec<Header> {
    let Ok(serde_json::Value::Object(map)) = serde_json::from_str(stored) else {
        return Vec::new();
    };
    let mut headers = Vec::with_capacity(map.len());
    for (name, value) in map {
        match value {
            serde_json::Value::Array(values) => {
                headers.extend(values.iter().map(|value| Header {
                    name: name.clone(),
                    value: text(value),
                }));
            }
            value => headers.push(Header {
                value: text(&value),
                name,
            }),
        }
    }
    headers
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
