//! From JSON to XML. Whatever a value contains, it stays a value.

use quick_xml::escape::{escape, partial_escape};
use serde_json::{Map, Value};

use super::{ATTRIBUTE, TEXT};
use crate::pointer;
use crate::template::scalar_text;

/// Writes a mapping with one key, the root element. The error is a pointer into `value` and what is wrong there.
pub(crate) fn write(value: &Value) -> Result<String, (String, String)> {
    let root = value
        .as_object()
        .filter(|map| map.len() == 1)
        .and_then(|map| map.iter().next());
    let Some((name, content)) = root.filter(|(_, content)| !content.is_array()) else {
        return Err((
            String::new(),
            "an XML document is a mapping with one key, its root element".to_owned(),
        ));
    };
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    element(&mut out, name, content, &pointer::join("", name))?;
    Ok(out)
}

fn element(out: &mut String, name: &str, content: &Value, place: &str) -> Result<(), (String, String)> {
    if !is_name(name) {
        return Err((place.to_owned(), format!("`{name}` is not the name of an XML element")));
    }
    if let Value::Array(items) = content {
        for (index, item) in items.iter().enumerate() {
            let place = pointer::join(place, &index.to_string());
            if item.is_array() {
                return Err((place, "a list in a list has no form in XML".to_owned()));
            }
            element(out, name, item, &place)?;
        }
        return Ok(());
    }
    out.push('<');
    out.push_str(name);
    let mut inner = String::new();
    match content {
        Value::Object(map) => {
            attributes(out, map, place)?;
            children(&mut inner, map, place)?;
        }
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            inner.push_str(&partial_escape(text_of(content, place)?));
        }
    }
    if inner.is_empty() {
        out.push_str("/>");
        return Ok(());
    }
    out.push('>');
    out.push_str(&inner);
    out.push_str("</");
    out.push_str(name);
    out.push('>');
    Ok(())
}

fn attributes(out: &mut String, map: &Map<String, Value>, place: &str) -> Result<(), (String, String)> {
    for (key, value) in map {
        let Some(name) = key.strip_prefix(ATTRIBUTE) else {
            continue;
        };
        let place = pointer::join(place, key);
        if !is_name(name) {
            return Err((place, format!("`{name}` is not the name of an XML attribute")));
        }
        if value.is_null() {
            continue;
        }
        let text = escape(text_of(value, &place)?)
            .replace('\t', "&#9;")
            .replace('\n', "&#10;");
        out.push(' ');
        out.push_str(name);
        out.push_str("=\"");
        out.push_str(&text);
        out.push('"');
    }
    Ok(())
}

fn children(out: &mut String, map: &Map<String, Value>, place: &str) -> Result<(), (String, String)> {
    for (key, value) in map {
        let place = pointer::join(place, key);
        if key == TEXT {
            if !value.is_null() {
                out.push_str(&partial_escape(text_of(value, &place)?));
            }
        } else if !key.starts_with(ATTRIBUTE) {
            element(out, key, value, &place)?;
        }
    }
    Ok(())
}

fn text_of(value: &Value, place: &str) -> Result<String, (String, String)> {
    let text = scalar_text(value).map_err(|error| (place.to_owned(), error.message))?;
    // XML 1.0 §2.2: these cannot even be escaped.
    let fits = |character: char| {
        matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..) && character != '\u{fffe}'
    };
    if !text.chars().all(fits) {
        return Err((
            place.to_owned(),
            "XML has no form for a control character in the text".to_owned(),
        ));
    }
    Ok(text.into_owned())
}

/// A name with at most one prefix (Namespaces in XML 1.0 §3), of the characters that names usually have.
fn is_name(text: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|first: char| first.is_alphabetic() || first == '_')
            && part
                .chars()
                .all(|next| next.is_alphanumeric() || matches!(next, '_' | '-' | '.'))
    };
    match text.split_once(':') {
        Some((prefix, name)) => part(prefix) && part(name),
        None => part(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";

    #[test]
    fn json_becomes_xml_by_the_mapping() {
        let check = |value: Value, wanted: &str| {
            assert_eq!(write(&value).unwrap(), format!("{HEAD}{wanted}"), "{value}");
        };
        check(json!({ "a": "x < y & \"z\"" }), "<a>x &lt; y &amp; \"z\"</a>");
        check(
            json!({ "m:a": { "@xmlns:m": "urn:x", "m:b": [1, true, null, ""] } }),
            "<m:a xmlns:m=\"urn:x\"><m:b>1</m:b><m:b>true</m:b><m:b/><m:b/></m:a>",
        );
        check(
            json!({ "a": { "b": 1.5, "@k": "\"\n<", "@none": null, "#text": "t" } }),
            "<a k=\"&quot;&#10;&lt;\"><b>1.5</b>t</a>",
        );
        check(
            json!({ "a": { "none": [], "deep": { "er": {} } } }),
            "<a><deep><er/></deep></a>",
        );
    }

    #[test]
    fn what_would_leave_its_place_is_refused() {
        let check = |value: Value, place: &str| assert_eq!(write(&value).unwrap_err().0, place, "{value}");
        check(json!({ "a": { "b><c": 1 } }), "/a/b><c");
        check(json!({ "a": { "@k='1' j": 1 } }), "/a/@k='1' j");
        check(json!({ "a": { "b": "\u{0}" } }), "/a/b");
        check(json!({ "a": [1] }), "");
        check(json!({ "a": 1, "b": 2 }), "");
        check(json!("text"), "");
        check(json!({ "a": { "b": [[1]] } }), "/a/b/0");
        check(json!({ "a": { "@k": {} } }), "/a/@k");
        check(json!({ "a": { "1b": 1 } }), "/a/1b");
    }

    proptest! {
        /// What was written can be read back, whatever the texts hold.
        #[test]
        fn texts_survive(text in "[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\u{fffe}\\u{ffff}]{1,40}", attribute in "[ -~\\t\\né]{0,20}") {
            let value = json!({ "a": { "@k": attribute, "b": { "c": text } } });
            prop_assert_eq!(read(&write(&value).unwrap(), &[]).unwrap(), value);
        }
    }
}
