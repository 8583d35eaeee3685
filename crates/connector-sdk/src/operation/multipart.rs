//! Bodies of several parts, among them files (RFC 7578).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::BuildError;
use crate::pointer;
use crate::template::scalar_text;

/// The bytes of a body and its `Content-Type`.
///
/// A scalar is a text part, a list several parts of the same name, a mapping with `base64` a file, and any other mapping
/// a part of JSON. The boundary is a hash of the parts: the same arguments make the same bytes, and what the parts hold
/// cannot be made to hold it.
pub(super) fn encode(map: &Map<String, Value>) -> Result<(Vec<u8>, String), BuildError> {
    let mut parts = Vec::with_capacity(map.len());
    for (name, value) in map {
        push(&mut parts, name, value, &pointer::join("/body", name))?;
    }
    let mut hash = Sha256::new();
    for part in &parts {
        hash.update(part);
    }
    let digest = hex::encode(hash.finalize());
    let boundary = format!("weir-{}", digest.get(..40).unwrap_or(&digest));
    let mut body = Vec::with_capacity(parts.iter().map(|part| part.len() + boundary.len() + 8).sum());
    for part in &parts {
        body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Ok((body, format!("multipart/form-data; boundary={boundary}")))
}

fn push(parts: &mut Vec<Vec<u8>>, name: &str, value: &Value, place: &str) -> Result<(), BuildError> {
    match value {
        Value::Null => {}
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let place = pointer::join(place, &index.to_string());
                if item.is_array() {
                    return Err(BuildError::new(
                        place,
                        "a list in a list has no form in a body of parts",
                    ));
                }
                push(parts, name, item, &place)?;
            }
        }
        Value::Object(file) if file.contains_key("base64") => parts.push(file_part(name, file, place)?),
        Value::Object(_) => parts.push(part(name, "", "application/json", value.to_string().as_bytes())),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let text = scalar_text(value).map_err(|error| BuildError::new(place, error.message))?;
            parts.push(part(name, "", "", text.as_bytes()));
        }
    }
    Ok(())
}

fn file_part(name: &str, file: &Map<String, Value>, place: &str) -> Result<Vec<u8>, BuildError> {
    let text = |key: &str| file.get(key).and_then(Value::as_str);
    let bytes = text("base64").and_then(|base64| STANDARD.decode(base64).ok());
    let Some(bytes) = bytes else {
        let place = pointer::join(place, "base64");
        return Err(BuildError::new(
            place,
            "a file is base64 (RFC 4648 §4), and this is not",
        ));
    };
    let kind = text("content_type").unwrap_or("application/octet-stream");
    if !kind.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        let place = pointer::join(place, "content_type");
        return Err(BuildError::new(place, "not a media type"));
    }
    let filename = format!("; filename=\"{}\"", quoted(text("filename").unwrap_or(name)));
    Ok(part(name, &filename, kind, &bytes))
}

fn part(name: &str, filename: &str, kind: &str, content: &[u8]) -> Vec<u8> {
    let mut part = format!(
        "Content-Disposition: form-data; name=\"{}\"{filename}\r\n",
        quoted(name)
    );
    if !kind.is_empty() {
        part.push_str("Content-Type: ");
        part.push_str(kind);
        part.push_str("\r\n");
    }
    part.push_str("\r\n");
    let mut part = part.into_bytes();
    part.extend_from_slice(content);
    part
}

/// A name inside of quotes, as browsers write it (WHATWG HTML, "multipart/form-data").
fn quoted(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}
