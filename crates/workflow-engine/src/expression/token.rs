//! The tokens of an expression: enough of them to find names and operators, no more.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Name,
    Number,
    Text,
    Sign,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) text: &'t str,
    /// Where it starts in the source, in bytes.
    pub(super) start: usize,
}

impl Token<'_> {
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    pub(super) fn is(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }
}

/// Words that are operators or values, never names.
pub(super) const KEYWORDS: [&str; 12] = [
    "and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False",
];

/// The tokens of an expression whose syntax was checked.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let bytes = source.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let start = at;
        let run = |from: usize, accept: fn(&u8) -> bool| {
            from + bytes
                .get(from..)
                .unwrap_or_default()
                .iter()
                .take_while(|byte| accept(byte))
                .count()
        };
        let kind = match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => {
                at = run(at, |byte| {
                    byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80
                });
                Kind::Name
            }
            b'0'..=b'9' => {
                at = run(at, |byte| byte.is_ascii_alphanumeric() || *byte == b'_');
                let fraction = bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
                if fraction {
                    at = run(at + 1, |byte| byte.is_ascii_alphanumeric() || *byte == b'_');
                }
                Kind::Number
            }
            quote @ (b'"' | b'\'') => {
                at += 1;
                while let Some(byte) = bytes.get(at) {
                    at += if *byte == b'\\' { 2 } else { 1 };
                    if byte == quote {
                        break;
                    }
                }
                Kind::Text
            }
            _ => {
                let double = ["==", "!=", "<=", ">=", "//", "**"];
                let is_double = source.get(at..at + 2).is_some_and(|pair| double.contains(&pair));
                at += if is_double { 2 } else { 1 };
                Kind::Sign
            }
        };
        at = at.min(bytes.len());
        let Some(text) = source.get(start..at) else {
            break;
        };
        tokens.push(Token { kind, text, start });
    }
    tokens
}

/// The text of a string token without quotes; `None` when it has escapes, which no plain path needs.
pub(super) fn plain_text<'t>(token: &Token<'t>) -> Option<&'t str> {
    let inside = token.text.get(1..token.text.len().checked_sub(1)?)?;
    (!inside.contains('\\')).then_some(inside)
}

/// A token with the room that keeps it apart from its neighbours.
pub(super) fn spaced(token: &Token<'_>) -> String {
    match (token.kind, token.text) {
        // `a.b` and `1.5` must stay together; nothing else minds a blank.
        (Kind::Sign, "." | "|") => token.text.to_owned(),
        (Kind::Sign | Kind::Name | Kind::Number | Kind::Text, text) => format!(" {text} "),
    }
}
