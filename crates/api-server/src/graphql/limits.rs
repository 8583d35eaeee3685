//! Limits that a GraphQL request must pass before the library sees it.
//!
//! The library walks fragments without remembering them, so thirty small fragments that spread each other twice would cost
//! 2^30 visits inside its own checks. Here every fragment is measured once. Must stay linear in the size of the document.

use crate::problem::{Code, Problem};
use async_graphql::parser::types::{ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet};
use async_graphql::{Value, Variables};
use std::collections::HashMap;

/// Largest request body, bytes: a whole set of configuration documents in one call. Read only after authentication.
///
/// Limit: body of a request | 413, `BODY_TOO_LARGE` | `large_and_explosive_requests_are_refused_at_once`
pub(crate) const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Longest query string of a GET. Headers of other servers end far below it.
pub(crate) const MAX_QUERY_STRING_BYTES: usize = 256 * 1024;
/// Most lexical tokens in a document; bounds parser and validator.
///
/// Limit: tokens in a document | `COST_EXCEEDED` | `each_limit_has_its_refusal`
pub(crate) const MAX_TOKENS: usize = 5_000;
/// Deepest nesting of brackets of any kind; keeps the recursive parser's stack small.
///
/// Limit: levels of brackets | `COST_EXCEEDED` | `each_limit_has_its_refusal`
pub(crate) const MAX_BRACKETS: usize = 48;
/// Deepest nesting of fields. The introspection query of current tools needs all of it.
///
/// Limit: levels of fields | `COST_EXCEEDED` | `each_limit_has_its_refusal`
pub(crate) const MAX_DEPTH: u32 = 15;
/// Most aliases, fragments expanded.
///
/// Limit: aliases | `COST_EXCEEDED` | `each_limit_has_its_refusal`
pub(crate) const MAX_ALIASES: u64 = 200;
/// Most root fields of one operation, fragments expanded.
///
/// Limit: root fields | `COST_EXCEEDED` | `each_limit_has_its_refusal`
pub(crate) const MAX_ROOT_FIELDS: u64 = 50;
/// Most operations in one document.
///
/// Limit: operations in a document | `COST_EXCEEDED` | `each_limit_has_its_refusal`
pub(crate) const MAX_OPERATIONS: usize = 10;
/// Most fragments in one document.
///
/// Limit: fragments in a document | `COST_EXCEEDED` | `each_limit_has_its_refusal`
pub(crate) const MAX_FRAGMENTS: usize = 50;
/// Most directives, fragments expanded.
///
/// Limit: directives | `COST_EXCEEDED` | `each_limit_has_its_refusal`
pub(crate) const MAX_DIRECTIVES: u64 = 50;
/// Most selections of all operations together, fragments expanded: what the library's own checks walk.
///
/// Limit: selections, fragments expanded | `COST_EXCEEDED` | `selections_have_a_limit`
pub(crate) const MAX_SELECTIONS: u64 = 5_000;

/// Counts tokens and bracket nesting without parsing, so that the parser never sees a bomb.
pub(crate) fn scan(query: &str) -> Result<(), Problem> {
    let bytes = query.as_bytes();
    let (mut at, mut tokens, mut nesting) = (0, 0_usize, 0_usize);
    while at < bytes.len() {
        let byte = bytes[at];
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b',' | 0xEF | 0xBB | 0xBF => at += 1,
            b'#' => at = skip_until(bytes, at, |byte| matches!(byte, b'\r' | b'\n')),
            b'"' => {
                at = skip_string(bytes, at);
                tokens += 1;
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => {
                at = skip_until(
                    bytes,
                    at + 1,
                    |byte| !matches!(byte, b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'+' | b'-'),
                );
                tokens += 1;
            }
            b'.' if bytes[at..].starts_with(b"...") => {
                at += 3;
                tokens += 1;
            }
            b'{' | b'(' | b'[' => {
                nesting += 1;
                if nesting > MAX_BRACKETS {
                    return Err(exceeded(format!("brackets are nested deeper than {MAX_BRACKETS}")));
                }
                at += 1;
                tokens += 1;
            }
            b'}' | b')' | b']' => {
                nesting = nesting.saturating_sub(1);
                at += 1;
                tokens += 1;
            }
            _ => {
                at += 1;
                tokens += 1;
            }
        }
        if tokens > MAX_TOKENS {
            return Err(exceeded(format!("the document has more than {MAX_TOKENS} tokens")));
        }
    }
    Ok(())
}

fn skip_until(bytes: &[u8], from: usize, stop: impl Fn(u8) -> bool) -> usize {
    bytes[from..]
        .iter()
        .position(|byte| stop(*byte))
        .map_or(bytes.len(), |found| from + found)
}

/// The position after the string that starts at `from`; an unclosed one ends with the text (the parser will complain).
fn skip_string(bytes: &[u8], from: usize) -> usize {
    let block = bytes[from..].starts_with(b"\"\"\"");
    let mut at = from + if block { 3 } else { 1 };
    while at < bytes.len() {
        match (block, bytes[at]) {
            (true, b'\\') if bytes[at..].starts_with(b"\\\"\"\"") => at += 4,
            (true, b'"') if bytes[at..].starts_with(b"\"\"\"") => return at + 3,
            (false, b'\\') => at += 2,
            (false, b'"' | b'\n' | b'\r') => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// What one selection set costs, with every fragment expanded. Sums saturate, so a bomb is a large number, not a long walk.
#[derive(Debug, Clone, Copy, Default)]
struct Measure {
    selections: u64,
    depth: u32,
    aliases: u64,
    directives: u64,
    own_fields: u64,
}

struct Measurer<'a> {
    document: &'a ExecutableDocument,
    /// `None` while a fragment is being measured: meeting it again is a cycle.
    fragments: HashMap<&'a str, Option<Measure>>,
}

/// Checks a parsed document against every limit and for fragment cycles.
pub(crate) fn check(document: &ExecutableDocument) -> Result<(), Problem> {
    let operations = document.operations.iter().count();
    if operations > MAX_OPERATIONS {
        return Err(exceeded(format!(
            "the document has {operations} operations, more than {MAX_OPERATIONS}"
        )));
    }
    if document.fragments.len() > MAX_FRAGMENTS {
        return Err(exceeded(format!(
            "the document has {} fragments, more than {MAX_FRAGMENTS}",
            document.fragments.len()
        )));
    }
    let mut measurer = Measurer {
        document,
        fragments: HashMap::new(),
    };
    let mut selections = 0_u64;
    for (_, operation) in document.operations.iter() {
        let measure = measurer.selection_set(&operation.node.selection_set.node)?;
        selections = selections.saturating_add(measure.selections);
        let directives = measure
            .directives
            .saturating_add(operation.node.directives.len() as u64);
        if measure.own_fields > MAX_ROOT_FIELDS {
            return Err(exceeded(format!(
                "an operation has more than {MAX_ROOT_FIELDS} root fields"
            )));
        }
        if measure.depth > MAX_DEPTH {
            return Err(exceeded(format!(
                "fields are nested {} deep, more than {MAX_DEPTH}",
                measure.depth
            )));
        }
        if measure.aliases > MAX_ALIASES {
            return Err(exceeded(format!("an operation has more than {MAX_ALIASES} aliases")));
        }
        if directives > MAX_DIRECTIVES {
            return Err(exceeded(format!(
                "an operation has more than {MAX_DIRECTIVES} directives"
            )));
        }
    }
    // A fragment that no operation uses is walked by the library as well.
    for name in document.fragments.keys() {
        measurer.fragment(name.as_str())?;
    }
    if selections > MAX_SELECTIONS {
        return Err(exceeded(format!(
            "the document selects more than {MAX_SELECTIONS} fields once its fragments are expanded"
        )));
    }
    Ok(())
}

impl<'a> Measurer<'a> {
    fn selection_set(&mut self, set: &'a SelectionSet) -> Result<Measure, Problem> {
        let mut total = Measure::default();
        for selection in &set.items {
            let directives = selection.node.directives().len() as u64;
            total.selections = total.selections.saturating_add(1);
            total.directives = total.directives.saturating_add(directives);
            match &selection.node {
                Selection::Field(field) => {
                    let inner = self.selection_set(&field.node.selection_set.node)?;
                    total.own_fields = total.own_fields.saturating_add(1);
                    total.aliases = total.aliases.saturating_add(u64::from(field.node.alias.is_some()));
                    total.add(Measure {
                        depth: inner.depth + 1,
                        own_fields: 0,
                        ..inner
                    });
                }
                Selection::InlineFragment(inline) => total.add(self.selection_set(&inline.node.selection_set.node)?),
                Selection::FragmentSpread(spread) => {
                    let inner = self.fragment(spread.node.fragment_name.node.as_str())?;
                    total.add(inner);
                }
            }
        }
        Ok(total)
    }

    /// An unknown fragment counts as nothing; validation names it.
    fn fragment(&mut self, name: &str) -> Result<Measure, Problem> {
        match self.fragments.get(name) {
            Some(Some(measure)) => return Ok(*measure),
            Some(None) => {
                return Err(Problem::new(
                    Code::ValidationFailed,
                    format!("fragment \"{name}\" spreads itself"),
                ));
            }
            None => {}
        }
        let Some((name, fragment)) = self.document.fragments.get_key_value(name) else {
            return Ok(Measure::default());
        };
        self.fragments.insert(name.as_str(), None);
        let measure = self.selection_set(&fragment.node.selection_set.node)?;
        self.fragments.insert(name.as_str(), Some(measure));
        Ok(measure)
    }
}

impl Measure {
    fn add(&mut self, inner: Measure) {
        self.selections = self.selections.saturating_add(inner.selections);
        self.depth = self.depth.max(inner.depth);
        self.aliases = self.aliases.saturating_add(inner.aliases);
        self.directives = self.directives.saturating_add(inner.directives);
        self.own_fields = self.own_fields.saturating_add(inner.own_fields);
    }
}

/// The kind of the operation that would run. `Err`: none, or it is not clear which.
pub(crate) fn chosen_operation<'a>(
    document: &'a ExecutableDocument,
    name: Option<&str>,
) -> Result<&'a OperationDefinition, Problem> {
    let mut operations = document.operations.iter();
    match name {
        Some(name) => operations
            .find(|(own, _)| own.is_some_and(|own| own.as_str() == name))
            .map(|(_, operation)| &operation.node)
            .ok_or_else(|| {
                Problem::new(
                    Code::BadRequest,
                    format!("the document has no operation named \"{name}\""),
                )
            }),
        None => match (operations.next(), operations.next()) {
            (Some((_, operation)), None) => Ok(&operation.node),
            _ => Err(Problem::new(
                Code::BadRequest,
                "the document has several operations: say which with operationName",
            )),
        },
    }
}

/// Refuses what may not be asked in this way, and variables that are required but not given.
pub(crate) fn check_operation(
    operation: &OperationDefinition,
    variables: &Variables,
    by_get: bool,
) -> Result<(), Problem> {
    match operation.ty {
        OperationType::Query => {}
        OperationType::Mutation if by_get => return Err(Problem::method_not_allowed("POST")),
        OperationType::Mutation => {}
        OperationType::Subscription => {
            return Err(Problem::new(
                Code::ValidationFailed,
                "this server offers no subscriptions",
            ));
        }
    }
    for definition in &operation.variable_definitions {
        let (name, wanted) = (&definition.node.name.node, &definition.node.var_type.node);
        let served = match variables.get(name) {
            Some(Value::Null) => wanted.nullable,
            Some(_) => true,
            None => wanted.nullable || definition.node.default_value.is_some(),
        };
        if !served {
            return Err(Problem::new(
                Code::BadVariables,
                format!("variable \"${name}\" of type \"{wanted}\" has no value"),
            ));
        }
    }
    Ok(())
}

fn exceeded(detail: String) -> Problem {
    Problem::new(Code::CostExceeded, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_graphql::parser::parse_query;

    fn verdict(query: &str) -> Result<(), String> {
        scan(query).map_err(|problem| problem.detail)?;
        check(&parse_query(query).expect("the test document parses")).map_err(|problem| problem.detail)
    }

    #[track_caller]
    fn refused(query: &str, expected: &str) {
        let detail = verdict(query).expect_err("must be refused");
        assert!(detail.contains(expected), "said: {detail}");
    }

    #[test]
    fn ordinary_documents_pass() {
        verdict("{ runs(first: 10) { nodes { id status } } }").unwrap();
        verdict("# note with { ( [ \nquery A($x: [ID!]!) { a: node(id: \"}\\\"\", s: \"\"\"{{{ \\\"\"\" \"\"\") { ...F } } fragment F on Node { id }").unwrap();
    }

    #[test]
    fn fragments_are_measured_once() {
        let mut bomb = String::from("{ ...F0 }");
        for level in 0..30 {
            bomb.push_str(&format!(
                " fragment F{level} on Query {{ a{level}: __typename ...F{0} ...F{0} }}",
                level + 1
            ));
        }
        bomb.push_str(" fragment F30 on Query { __typename }");
        refused(&bomb, "root fields");
        let deep = bomb.replace("{ ...F0 }", "{ node(id: 1) { ...F0 } }");
        refused(&deep, "aliases");
        let plain = deep.replace(": __typename", "");
        refused(&plain, "once its fragments are expanded");
    }

    #[test]
    fn each_limit_has_its_refusal() {
        refused(
            "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
            "spreads itself",
        );
        refused(&format!("{{ {} }}", "a ".repeat(MAX_TOKENS)), "tokens");
        refused(
            &format!("{{ a(x: {}1{}) }}", "[".repeat(MAX_BRACKETS), "]".repeat(MAX_BRACKETS)),
            "nested deeper",
        );
        refused(&format!("{}{}", "{ a ".repeat(16), "}".repeat(16)), "16 deep");
        verdict(&format!("{}{}", "{ a ".repeat(15), "}".repeat(15))).unwrap();
        refused(&format!("{{ {} }}", "a ".repeat(51)), "root fields");
        refused(
            &format!(
                "{{ n {{ {} }} }}",
                (0..201).map(|n| format!("a{n}: x ")).collect::<String>()
            ),
            "aliases",
        );
        refused(
            &format!("{{ n {{ {} }} }}", "x @include(if: true) ".repeat(51)),
            "directives",
        );
        refused(
            &(0..11).map(|n| format!("query Q{n} {{ a }} ")).collect::<String>(),
            "operations",
        );
        let fragments: String = (0..51).map(|n| format!("fragment F{n} on Query {{ a }} ")).collect();
        refused(&format!("{{ a }} {fragments}"), "fragments");
    }

    #[test]
    fn selections_have_a_limit() {
        let of = |count: u64| {
            let names = "x ".repeat(99);
            let uses = "...F ".repeat(usize::try_from(count / 100).unwrap());
            format!("{{ n {{ {uses} }} }} fragment F on Query {{ {names} }}")
        };
        verdict(&of(MAX_SELECTIONS - 200)).unwrap();
        refused(&of(MAX_SELECTIONS + 200), "more than 5000 fields");
    }

    #[test]
    fn operation_choice_and_variables() {
        let document =
            parse_query("query A($id: ID!, $n: Int, $d: Int! = 3) { a } mutation B { b } subscription C { c }")
                .unwrap();
        let none = Variables::default();
        let given = |json| Variables::from_json(json);
        let choose = |name| chosen_operation(&document, name);
        assert_eq!(choose(None).unwrap_err().code, Code::BadRequest);
        assert_eq!(choose(Some("X")).unwrap_err().code, Code::BadRequest);
        let query = choose(Some("A")).unwrap();
        assert_eq!(
            check_operation(query, &none, true).unwrap_err().code,
            Code::BadVariables
        );
        assert_eq!(
            check_operation(query, &given(serde_json::json!({"id": null})), true)
                .unwrap_err()
                .code,
            Code::BadVariables
        );
        assert_eq!(
            check_operation(query, &given(serde_json::json!({"id": "1", "d": null})), true)
                .unwrap_err()
                .code,
            Code::BadVariables
        );
        check_operation(query, &given(serde_json::json!({"id": "1", "n": null})), true).unwrap();
        assert_eq!(
            check_operation(choose(Some("B")).unwrap(), &none, true)
                .unwrap_err()
                .code,
            Code::MethodNotAllowed
        );
        check_operation(choose(Some("B")).unwrap(), &none, false).unwrap();
        assert_eq!(
            check_operation(choose(Some("C")).unwrap(), &none, false)
                .unwrap_err()
                .code,
            Code::ValidationFailed
        );
    }
}
