//! Hides secrets in bodies of several parts (RFC 2046 §5.1): what parts that are named like secrets hold, and what is
//! packed into the others.

use super::{REDACTED, mentions_secret_anywhere, redact_body};

/// The text with the contents of secret parts replaced; `None` when it has no parts.
pub(super) fn hide(body: &str) -> Option<String> {
    let mut lines = body.split_inclusive('\n');
    let first = lines.next()?;
    let delimiter = first.trim_end();
    let is_head = |line: &str| {
        line.get(..8)
            .is_some_and(|begin| begin.eq_ignore_ascii_case("content-"))
    };
    if delimiter.len() <= 2 || !lines.clone().next().is_some_and(is_head) {
        return None;
    }
    let mut hidden = first.to_owned();
    let mut part = String::new();
    for line in lines {
        let is_delimiter = line
            .strip_prefix(delimiter)
            .is_some_and(|rest| matches!(rest.trim_end(), "" | "--"));
        if is_delimiter {
            hide_part(&mut hidden, &part);
            part.clear();
            hidden.push_str(line);
        } else {
            part.push_str(line);
        }
    }
    hide_part(&mut hidden, &part);
    Some(hidden)
}

/// A part is secret when its head mentions a secret in whatever way: names come quoted, bare, encoded and folded.
fn hide_part(hidden: &mut String, part: &str) {
    let head_bytes = ["\r\n\r\n", "\n\n"]
        .iter()
        .filter_map(|blank| Some(part.find(blank)? + blank.len()))
        .min();
    let Some((head, content)) = head_bytes.map(|bytes| part.split_at(bytes)) else {
        // Nobody can say where its content begins.
        hidden.push_str(if mentions_secret_anywhere(part) { REDACTED } else { part });
        return;
    };
    hidden.push_str(head);
    let text = content.trim_end_matches(['\r', '\n']);
    let (text, end) = content.split_at(text.len());
    // Parts inside of a part are not looked into, so that nothing is as deep as a sender likes.
    let is_nested = text.trim_start().starts_with("--") && mentions_secret_anywhere(text);
    match mentions_secret_anywhere(head) || is_nested {
        true if text.is_empty() => {}
        true => hidden.push_str(REDACTED),
        false => hidden.push_str(&redact_body(text)),
    }
    hidden.push_str(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_parts_are_hidden_and_the_others_kept() {
        let check = |name: &str, content: &str, expected: &str| {
            let body = |content: &str| {
                format!(
                    "--b\r\nContent-Disposition: form-data; {name}\r\n\r\n{content}\r\n\
                     --b\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nkept\r\n--b--\r\n"
                )
            };
            assert_eq!(hide(&body(content)), Some(body(expected)), "{name}");
        };
        for name in [
            "name=\"client_secret\"",
            "name=\"user[password]\"",
            "name=password",
            "name*=utf-8''user%5Bpassword%5D",
            "\r\n name=\"Api_Key\"",
        ] {
            check(name, "s\r\n\r\n--t", REDACTED);
        }
        check("name=\"file\"", "plain", "plain");
        check(
            "name=\"data\"",
            "{\"password\":\"s\",\"a\":1}",
            "{\"password\":\"[redacted]\",\"a\":1}",
        );
        check(
            "name=\"data\"",
            "<e><password>s</password></e>",
            "<e><password>[redacted]</password></e>",
        );
        check("name=\"data\"", "a=1&password=s", "a=1&password=[redacted]");
        let nested = "--c\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\ns\r\n--c--";
        check("name=\"data\"", nested, REDACTED);
    }

    #[test]
    fn what_is_cut_is_hidden_to_its_end() {
        let cut = "--b\nContent-Disposition: form-data; name=\"a[secret]\"\n\ns";
        assert_eq!(hide(cut), Some(cut.replace("\n\ns", "\n\n[redacted]")));
        let without_content = "--b\nContent-Disposition: form-data; name=\"secret\"\ns\n--b--";
        assert_eq!(hide(without_content).as_deref(), Some("--b\n[redacted]--b--"));
        assert_eq!(hide("-- a remark\nselect password"), None);
        assert_eq!(hide("--"), None);
    }
}
