//! Hides secrets in XML: what elements and attributes that are named like secrets hold, and what is packed into texts.
//!
//! What is read for sure is kept. From the first place on that is not well-formed everything is hidden, because nobody
//! can say what is a name and what a value there.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::{REDACTED, is_secret_field, mentions_secret_anywhere, redact_body};

/// The text with the values of secret elements and attributes replaced.
pub(super) fn hide(body: &str) -> String {
    let mut hidden = String::with_capacity(body.len());
    if hide_into(&mut hidden, body).is_none() {
        hidden.push_str(REDACTED);
    }
    hidden
}

/// `None`: the rest is not well-formed and is left out.
fn hide_into(hidden: &mut String, body: &str) -> Option<()> {
    let mut reader = Reader::from_str(body);
    // Texts come in pieces; what is packed into one is seen in the whole.
    let mut text_from = 0;
    loop {
        let from = position(&reader)?;
        let event = reader.read_event().ok()?;
        if matches!(event, Event::Text(_) | Event::GeneralRef(_)) {
            continue;
        }
        hide_text(hidden, body.get(text_from..from)?);
        let raw = body.get(from..position(&reader)?)?;
        match event {
            Event::Start(tag) if is_secret_field(tag.local_name().as_ref()) => {
                hide_values(hidden, &tag, |_name| true)?;
                hidden.push('>');
                hidden.push_str(REDACTED);
                let end = tag.to_end().into_owned();
                let inside = match reader.read_to_end(end.name()) {
                    Ok(inside) => usize::try_from(inside.end).ok()?,
                    // The mark is there already.
                    Err(_cut) => return Some(()),
                };
                hidden.push_str(body.get(inside..position(&reader)?)?);
            }
            Event::Empty(tag) if is_secret_field(tag.local_name().as_ref()) => {
                hide_values(hidden, &tag, |_name| true)?;
                hidden.push_str("/>");
            }
            Event::Start(tag) => {
                hide_values(hidden, &tag, is_secret_field)?;
                hidden.push('>');
            }
            Event::Empty(tag) => {
                hide_values(hidden, &tag, is_secret_field)?;
                hidden.push_str("/>");
            }
            Event::CData(packed) => {
                hidden.push_str("<![CDATA[");
                hidden.push_str(&redact_body(&packed));
                hidden.push_str("]]>");
            }
            Event::Comment(_) if mentions_secret_anywhere(raw) => {
                hidden.push_str("<!--");
                hidden.push_str(REDACTED);
                hidden.push_str("-->");
            }
            // Entities of its own would have to be expanded to be judged.
            Event::DocType(_) if raw.contains('[') => return None,
            Event::PI(_) | Event::Decl(_) | Event::DocType(_) if mentions_secret_anywhere(raw) => return None,
            Event::End(_) | Event::Comment(_) | Event::PI(_) | Event::Decl(_) | Event::DocType(_) => {
                hidden.push_str(raw);
            }
            Event::Eof => return Some(()),
            Event::Text(_) | Event::GeneralRef(_) => {}
        }
        text_from = position(&reader)?;
    }
}

fn position(reader: &Reader<&[u8]>) -> Option<usize> {
    usize::try_from(reader.buffer_position()).ok()
}

/// Text between tags. Markup may be escaped in it, and JSON or a form may be its content.
fn hide_text(hidden: &mut String, text: &str) {
    if text.contains('&') && mentions_secret_anywhere(text) {
        hidden.push_str(REDACTED);
    } else {
        hidden.push_str(&redact_body(text));
    }
}

/// Writes the tag without its end, with the values of these attributes hidden.
fn hide_values(hidden: &mut String, tag: &BytesStart<'_>, is_secret: impl Fn(&str) -> bool) -> Option<()> {
    let mut values = Vec::new();
    for attribute in tag.attributes().with_checks(false) {
        let attribute = attribute.ok()?;
        values.push((attribute.key, attribute.value));
    }
    let is_hidden = |name: &quick_xml::name::QName<'_>| is_secret(name.local_name().as_ref());
    hidden.push('<');
    if !values.iter().any(|(name, _)| is_hidden(name)) {
        hidden.push_str(tag);
        return Some(());
    }
    hidden.push_str(tag.name().as_ref());
    for (name, value) in &values {
        let value = if is_hidden(name) { REDACTED } else { value.as_ref() };
        let quote = if value.contains('"') { '\'' } else { '"' };
        hidden.push(' ');
        hidden.push_str(name.as_ref());
        hidden.push('=');
        hidden.push(quote);
        hidden.push_str(value);
        hidden.push(quote);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_for_sure_is_kept() {
        let check = |body: &str, expected: &str| assert_eq!(hide(body), expected);
        let plain = "<?xml version=\"1.0\"?>\n<!DOCTYPE e>\n<e a='1 > 0'>t &amp; u<!-- c --><b/><![CDATA[x]]></e>\n";
        check(plain, plain);
        check(
            "<e><w:Password Type='t'>s</w:Password><a api_key=\"s\" b='=c'>1</a><password/></e>",
            "<e><w:Password Type=\"[redacted]\">[redacted]</w:Password><a api_key=\"[redacted]\" b=\"=c\">1</a><password/></e>",
        );
        check(
            "<e><secret><v>s</v><secret>t</secret></secret><a>1</a></e>",
            "<e><secret>[redacted]</secret><a>1</a></e>",
        );
        check(
            "<e><password><![CDATA[s</password>t]]></password><a>1</a></e>",
            "<e><password>[redacted]</password><a>1</a></e>",
        );
        check(
            "<e><password hint=\"a > b\">s</password><a b='>' secret='>s'>1</a></e>",
            "<e><password hint=\"[redacted]\">[redacted]</password><a b=\">\" secret=\"[redacted]\">1</a></e>",
        );
        check(
            "<e><password value='s'/></e>",
            "<e><password value=\"[redacted]\"/></e>",
        );
        check("<e><!-- <secret>s</secret> --></e>", "<e><!--[redacted]--></e>");
    }

    #[test]
    fn what_is_packed_into_texts_is_hidden_too() {
        let check = |body: &str, expected: &str| assert_eq!(hide(body), expected);
        check(
            "<e><![CDATA[<d><password>s</password></d>]]></e>",
            "<e><![CDATA[<d><password>[redacted]</password></d>]]></e>",
        );
        check(
            "<e>{\"password\":\"s\",\"a\":1}</e>",
            "<e>{\"password\":\"[redacted]\",\"a\":1}</e>",
        );
        check("<e>&lt;password&gt;s&lt;/password&gt;</e>", "<e>[redacted]</e>");
    }

    #[test]
    fn nothing_is_kept_from_where_it_is_not_well_formed() {
        let check = |body: &str, expected: &str| assert_eq!(hide(body), expected);
        check("<e><secret>cut", "<e><secret>[redacted]");
        check("<e>1<a b=\"x><password>s</password></e>", "<e>[redacted]");
        check("<e><a b=x>1</a><password>s</password></e>", "<e>[redacted]");
        check("<e><secret><a></b></a>s</secret></e>", "<e><secret>[redacted]");
        check("<e></f><password>s</password></e>", "<e>[redacted]");
        check("<!DOCTYPE e [<!ENTITY p \"s\">]><e>&p;</e>", "[redacted]");
    }
}
