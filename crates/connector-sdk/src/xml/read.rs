//! From XML to JSON, in one pass and without recursion.

use quick_xml::Reader;
use quick_xml::escape::{resolve_predefined_entity, unescape};
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::name::QName;
use serde_json::{Map, Value};

use super::{ATTRIBUTE, TEXT};

/// Deepest nesting of elements. JSON has the same bound.
///
/// Limit: nesting of an XML answer | the call fails, `unreadable` | `xml_stops_at_its_bounds` | `weir_calls_total`
const MAX_XML_DEPTH: usize = 100;

/// Most elements and attributes of one document: each costs many times its bytes in memory.
///
/// Limit: elements and attributes of an XML answer | the call fails, `unreadable` | `xml_stops_at_its_bounds` | `weir_calls_total`
const MAX_XML_NODES: usize = 250_000;

/// Why a text is not taken as XML. Quotes nothing of the text but names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum XmlError {
    #[error("a document type declaration is refused (byte {0})")]
    DocumentType(u64),
    #[error("the entity `{0}` is not one of XML's own; others are refused")]
    Entity(String),
    #[error("elements are nested more than {MAX_XML_DEPTH} deep")]
    TooDeep,
    #[error("more than {MAX_XML_NODES} elements and attributes")]
    TooMany,
    #[error("byte {0}: not well-formed")]
    NotWellFormed(u64),
    #[error("there is no element")]
    Empty,
}

/// An element that is not closed yet.
#[derive(Default)]
struct Open {
    name: String,
    map: Map<String, Value>,
    text: String,
    has_children: bool,
    is_nil: bool,
}

/// Reads one document: a mapping with its root element. Elements named in `lists` are lists also when they stand alone.
pub(crate) fn read(text: &str, lists: &[String]) -> Result<Value, XmlError> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Open> = vec![Open::default()];
    let mut nodes = 0;
    loop {
        let broken = |reader: &Reader<&[u8]>| XmlError::NotWellFormed(reader.error_position());
        let event = reader.read_event().map_err(|_error| broken(&reader))?;
        let at = reader.buffer_position();
        match event {
            Event::Start(start) => {
                // The document itself is the first of `open`.
                if open.len() > MAX_XML_DEPTH {
                    return Err(XmlError::TooDeep);
                }
                open.push(begin(&start, &mut nodes, at)?);
            }
            Event::Empty(start) => {
                let element = begin(&start, &mut nodes, at)?;
                close(&mut open, element, lists, at)?;
            }
            Event::End(_) => {
                let element = open.pop().ok_or(XmlError::NotWellFormed(at))?;
                close(&mut open, element, lists, at)?;
            }
            Event::Text(text) => push_text(&mut open, &text.xml10_content(), at)?,
            Event::CData(text) => push_text(&mut open, &text.xml10_content(), at)?,
            Event::GeneralRef(reference) => push_reference(&mut open, &reference, at)?,
            Event::DocType(_) => return Err(XmlError::DocumentType(at)),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Eof => break,
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some(document), true) if !document.map.is_empty() => Ok(Value::Object(document.map)),
        (Some(_), true) => Err(XmlError::Empty),
        (_, false) | (None, true) => Err(XmlError::NotWellFormed(reader.buffer_position())),
    }
}

fn begin(start: &BytesStart<'_>, nodes: &mut usize, at: u64) -> Result<Open, XmlError> {
    let mut element = Open {
        name: start.local_name().as_ref().to_owned(),
        ..Open::default()
    };
    count(nodes)?;
    let mut attributes = start.attributes();
    // Its own check compares each with each.
    for attribute in attributes.with_checks(false) {
        let attribute = attribute.map_err(|_error| XmlError::NotWellFormed(at))?;
        count(nodes)?;
        if is_declaration(attribute.key) {
            continue;
        }
        let value = unescape(&attribute.value).map_err(|error| match error {
            quick_xml::escape::EscapeError::UnrecognizedEntity(_, name) => XmlError::Entity(name),
            _ => XmlError::NotWellFormed(at),
        })?;
        let name = attribute.key.local_name();
        if name.as_ref() == "nil" && attribute.key.prefix().is_some() {
            element.is_nil = matches!(value.as_ref(), "true" | "1");
            continue;
        }
        // Of the same name under several prefixes the first counts.
        element
            .map
            .entry(format!("{ATTRIBUTE}{}", name.as_ref()))
            .or_insert_with(|| Value::String(value.into_owned()));
    }
    Ok(element)
}

fn count(nodes: &mut usize) -> Result<(), XmlError> {
    *nodes += 1;
    if *nodes > MAX_XML_NODES {
        return Err(XmlError::TooMany);
    }
    Ok(())
}

fn is_declaration(name: QName<'_>) -> bool {
    name.as_ref() == "xmlns" || name.prefix().is_some_and(|prefix| prefix.into_inner() == "xmlns")
}

fn push_text(open: &mut [Open], text: &str, at: u64) -> Result<(), XmlError> {
    match open {
        [_document] if text.trim().is_empty() => Ok(()),
        [_document] => Err(XmlError::NotWellFormed(at)),
        [.., element] => {
            element.text.push_str(text);
            Ok(())
        }
        [] => Err(XmlError::NotWellFormed(at)),
    }
}

fn push_reference(open: &mut [Open], reference: &BytesRef<'_>, at: u64) -> Result<(), XmlError> {
    let character = reference
        .resolve_char_ref()
        .map_err(|_error| XmlError::NotWellFormed(at))?;
    let mut buffer = [0; 4];
    let text = match character {
        Some(character) => &*character.encode_utf8(&mut buffer),
        None => {
            let name = reference.xml10_content();
            resolve_predefined_entity(&name).ok_or_else(|| XmlError::Entity(name.into_owned()))?
        }
    };
    push_text(open, text, at)
}

/// Puts a finished element into the one around it.
fn close(open: &mut [Open], element: Open, lists: &[String], at: u64) -> Result<(), XmlError> {
    let is_root = open.len() == 1;
    let Some(parent) = open.last_mut().filter(|parent| !(is_root && parent.has_children)) else {
        // A second root, or an end without a beginning.
        return Err(XmlError::NotWellFormed(at));
    };
    parent.has_children = true;
    let Open {
        name,
        mut map,
        text,
        has_children,
        is_nil,
    } = element;
    let is_indent = has_children && text.trim().is_empty();
    let value = if is_nil {
        Value::Null
    } else if map.is_empty() {
        match text.is_empty() {
            true => Value::Null,
            false => Value::String(text),
        }
    } else {
        if !text.is_empty() && !is_indent {
            map.insert(TEXT.to_owned(), Value::String(text));
        }
        Value::Object(map)
    };
    match parent.map.get_mut(&name) {
        Some(Value::Array(items)) => items.push(value),
        Some(first) => {
            let first = first.take();
            parent.map.insert(name, Value::Array(vec![first, value]));
        }
        None => {
            let value = if lists.contains(&name) {
                Value::Array(vec![value])
            } else {
                value
            };
            parent.map.insert(name, value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(text: &str, wanted: Result<Value, &str>) {
        let found = read(text, &["row".to_owned()]).map_err(|error| error.to_string());
        assert_eq!(found, wanted.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn xml_becomes_json_by_the_mapping() {
        check("<a>x &amp; y&#33; &#x1F600;</a>", Ok(json!({ "a": "x & y! 😀" })));
        check("<?xml version=\"1.0\"?><!-- c --><a/>\n", Ok(json!({ "a": null })));
        check("<a><![CDATA[<b> & ]]></a>", Ok(json!({ "a": "<b> & " })));
        check(
            "<s:a xmlns:s='u' xmlns='v' s:k='1&lt;' k='2'>t</s:a>",
            Ok(json!({ "a": { "@k": "1<", "#text": "t" } })),
        );
        check(
            "<a>\n  <b>1</b>\n  <c/>\n  <b>2</b>\n  <b xsi:nil='true'>3</b>\n</a>",
            Ok(json!({ "a": { "b": ["1", "2", null], "c": null } })),
        );
        check("<a><row>1</row></a>", Ok(json!({ "a": { "row": ["1"] } })));
        check(
            "<a>hi <b>1</b> there</a>",
            Ok(json!({ "a": { "b": "1", "#text": "hi  there" } })),
        );
        check("<a> </a>", Ok(json!({ "a": " " })));
        // A name is only a name.
        check(
            "<a><__proto__>1</__proto__></a>",
            Ok(json!({ "a": { "__proto__": "1" } })),
        );
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for text in [
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>text",
            "text",
            "<a k=1/>",
            "<a>&#0;</a>",
            "<a>& b</a>",
            "<a k='&broken'/>",
            "<a><b></a></b>",
        ] {
            let error = read(text, &[]).unwrap_err();
            assert!(matches!(error, XmlError::NotWellFormed(_)), "{text}: {error}");
        }
        check("", Err("there is no element"));
    }

    #[test]
    fn nothing_expands() {
        let laughs = "<!DOCTYPE l [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;\">]><l>&b;</l>";
        let error = read(laughs, &[]).unwrap_err();
        assert!(matches!(error, XmlError::DocumentType(_)), "{error}");
        let outside = "<!DOCTYPE l SYSTEM \"file:///etc/passwd\"><l/>";
        assert!(matches!(read(outside, &[]), Err(XmlError::DocumentType(_))));
        let text = "the entity `xxe` is not one of XML's own; others are refused";
        check("<a>&xxe;</a>", Err(text));
        check("<a k='&xxe;'/>", Err(text));
    }

    #[test]
    fn xml_stops_at_its_bounds() {
        let deep = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(read(&deep(MAX_XML_DEPTH), &[]).is_ok());
        assert_eq!(read(&deep(MAX_XML_DEPTH + 1), &[]), Err(XmlError::TooDeep));
        let wide = |count: usize| format!("<a>{}</a>", "<b/>".repeat(count - 1));
        assert!(read(&wide(MAX_XML_NODES), &[]).is_ok());
        assert_eq!(read(&wide(MAX_XML_NODES + 1), &[]), Err(XmlError::TooMany));
        let attributes: String = (0..MAX_XML_NODES).map(|n| format!(" k{n}=''")).collect();
        assert_eq!(read(&format!("<a{attributes}/>"), &[]), Err(XmlError::TooMany));
    }
}
