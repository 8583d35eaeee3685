//! From a manifest entry to an [`Operation`], with every mistake reported where it stands.

use std::sync::Arc;

use serde_json::Value;

use super::body::ENCODINGS;
use super::parts::{read_headers, read_query, read_target};
use super::protocol::Soap;
use super::{Body, Encoding, Headers, MethodRule, Operation, Query, Target};
use crate::answer::{Meaning, Reading};
use crate::budget;
use crate::config::Shape;
use crate::connector::Common;
use crate::effect::EffectRule;
use crate::encode::ARRAYS;
use crate::expression::{Expression, Step};
use crate::fields::{Fields, is_name};
use crate::files::read_schema;
use crate::page::Paging;
use crate::pointer::Pointer;
use crate::problem::{Problems, nearest};
use crate::template::{IsOptional, Piece, Template};

const KEYS: [&str; 29] = [
    "get",
    "head",
    "post",
    "put",
    "patch",
    "delete",
    "method",
    "target",
    "host",
    "query",
    "headers",
    "body",
    "graphql",
    "soap",
    "encode",
    "arrays",
    "input",
    "output",
    "answer",
    "items",
    "result",
    "page",
    "etag",
    "cost",
    "effect",
    "errors",
    "success_when",
    "error_message",
    "description",
];

impl Operation {
    /// Reads one entry of `operations`.
    pub(crate) fn read(
        name: &str,
        value: &Value,
        place: &str,
        common: &Arc<Common>,
        load: &dyn Fn(&str) -> Option<String>,
        problems: &mut Problems,
    ) -> Option<Self> {
        if !is_name(name, true) {
            problems.add(
                place,
                "bad_name",
                format!("`{name}` is not an operation name: lower-case words joined by dots"),
            );
        }
        let fields = Fields::open(value, place, &KEYS, problems)?;
        fields.text("description", problems);
        let declared = fields
            .get("input")
            .map(|input| Shape::read(input, &fields.at("input"), true, problems));
        let is_optional = |expression: &Expression| may_be_absent(expression, declared.as_ref(), common);

        let (method, target) = read_target(&fields, &is_optional, problems)?;
        let query = read_query(&fields, &is_optional, problems);
        let headers = read_headers(&fields, &is_optional, problems);
        let (body, word_encoding) = Body::read(&fields, &is_optional, load, problems);
        let encoding = fields.choice("encode", &ENCODINGS, problems);
        if encoding.is_some() && matches!(body, Body::Rest) {
            problems.add(
                &fields.at("encode"),
                "conflict",
                "`body: json` and `body: form` already say how to encode",
            );
        }
        if matches!(query, Query::Rest) && body.takes_rest() {
            problems.add(
                &fields.at("query"),
                "conflict",
                "only one of query and body can take the rest of the arguments",
            );
        }
        let effect = read_effect(&fields, &method, &is_optional, problems)?;
        let (items, paging) = read_list(&fields, problems);
        let result = read_result(&fields, problems);
        if paging.is_some() && !matches!(effect, EffectRule::Read) {
            problems.add_with_suggestion(
                &fields.at("effect"),
                "conflict",
                "what is read page by page changes nothing",
                "`effect: read`",
            );
        }
        let encoding = word_encoding.or(encoding).unwrap_or(Encoding::Json);
        if !encoding.has_fields() {
            if effect.has_key_field() {
                let message = "the key has no place: this body has no fields";
                problems.add(&fields.at("effect"), "conflict", message);
            }
            if paging.as_ref().is_some_and(Paging::writes_body) {
                let message = "the page has no place: this body has no fields";
                problems.add(&fields.at("page"), "conflict", message);
            }
        }
        let etag = fields.flag("etag", problems).unwrap_or(false);
        if etag && !matches!(method, MethodRule::Fixed("GET")) {
            problems.add(&fields.at("etag"), "conflict", "only a GET can be conditional");
        }
        let reading = read_reading(&fields, &body, problems);
        let output_schema = fields
            .get("output")
            .and_then(|output| read_schema(output, &fields.at("output"), load, problems));
        let meaning = Meaning::read(&fields, problems);

        let mut operation = Self {
            name: name.to_owned(),
            common: Arc::clone(common),
            method,
            host: read_host(&fields, common, problems),
            target,
            query,
            headers,
            body,
            encoding,
            arrays: fields.choice("arrays", &ARRAYS, problems),
            input: Shape::default(),
            used: Vec::new(),
            output_schema,
            items,
            result,
            paging,
            reading,
            etag,
            cost: budget::read_cost(&fields, problems),
            meaning,
            effect,
        };
        operation.settle_input(declared, &fields, problems);
        Some(operation)
    }

    /// Fixes which arguments exist: as declared, or as the templates use them.
    fn settle_input(&mut self, declared: Option<Shape>, fields: &Fields<'_>, problems: &mut Problems) {
        let mut outside_body = Vec::new();
        self.visit_outside_body(&mut |expression| collect(expression, &mut outside_body));
        let mut everywhere = outside_body.clone();
        self.body.visit(&mut |expression| collect(expression, &mut everywhere));
        let mut in_effect = Vec::new();
        self.effect.visit(&mut |expression| collect(expression, &mut in_effect));

        let takes_rest = matches!(self.query, Query::Rest) || self.body.takes_rest();
        if declared.as_ref().is_some_and(|shape| shape.open) && !takes_rest {
            problems.add_with_suggestion(
                &fields.at("input"),
                "conflict",
                "`*` takes arguments that nothing sends",
                "`body: json`, `body: form`, `graphql` without `variables`, or `query: rest` send them",
            );
        }
        self.used = outside_body.iter().map(|(name, _)| name.clone()).collect();
        match declared {
            Some(shape) => {
                for (name, _) in everywhere.iter().chain(&in_effect) {
                    if !shape.open && !shape.fields.contains_key(name) {
                        let message = format!("the argument `{name}` is used but not declared in `input`");
                        match nearest(name, shape.fields.keys().map(String::as_str)) {
                            Some(near) => problems.add_with_suggestion(
                                fields.place(),
                                "unknown_argument",
                                message,
                                format!("did you mean `{near}`?"),
                            ),
                            None => problems.add(fields.place(), "unknown_argument", message),
                        }
                    }
                }
                self.input = shape;
            }
            None => {
                for (name, required) in everywhere {
                    let field = self.input.fields.entry(name).or_default();
                    field.required |= required;
                }
                self.input.open = takes_rest || in_effect.iter().any(|(name, _)| !self.input.fields.contains_key(name));
            }
        }
        if let Some(paging) = &self.paging
            && let Query::Template(Template::Object(entries)) = &self.query
        {
            // The same name twice would be sent twice on following pages; the page's value replaces it.
            let clash = paging.query_names().find(|name| {
                entries
                    .iter()
                    .any(|(known, template)| known == name && template.is_literal())
            });
            if let Some(name) = clash {
                problems.add(
                    &fields.at("page"),
                    "conflict",
                    format!("the query already sets `{name}`"),
                );
            }
        }
    }

    fn visit_outside_body(&self, visit: &mut dyn FnMut(&Expression)) {
        if let MethodRule::Computed(template) = &self.method {
            template.visit(visit);
        }
        match &self.target {
            Target::Path(pieces) => {
                for piece in pieces {
                    if let Piece::Expression { expression, .. } = piece {
                        visit(expression);
                    }
                }
            }
            Target::Given(templates) => templates.iter().for_each(|template| template.visit(visit)),
        }
        if let Query::Template(template) = &self.query {
            template.visit(visit);
        }
        match &self.headers {
            Headers::Named(headers) => headers.iter().for_each(|(_, template)| template.visit(visit)),
            Headers::Given(template) => template.visit(visit),
        }
    }
}

/// Argument names of an expression, and whether it cannot do without them.
fn collect(expression: &Expression, names: &mut Vec<(String, bool)>) {
    let plain = matches!(expression, Expression::Path(_));
    if let Expression::Path(path) = expression
        && path.root == "args"
    {
        if let Some(Step::Key(key)) = path.steps.first() {
            names.push((key.clone(), true));
        }
        return;
    }
    for root in expression.roots() {
        if root != "config" && root != "args" {
            names.push((root.to_owned(), plain));
        }
    }
}

/// Whether a path names something that the declarations allow to be missing.
fn may_be_absent(expression: &Expression, input: Option<&Shape>, common: &Common) -> bool {
    let Expression::Path(path) = expression else {
        return false;
    };
    let keys: Vec<&str> = path
        .steps
        .iter()
        .map(|step| match step {
            Step::Key(key) => key.as_str(),
            Step::Index(_) => "",
        })
        .collect();
    match path.root.as_str() {
        "config" => common.config.may_be_absent(&keys),
        "args" => input.is_some_and(|input| input.may_be_absent(&keys)),
        root => input.is_some_and(|input| {
            let mut names = vec![root];
            names.extend(&keys);
            input.may_be_absent(&names)
        }),
    }
}

fn read_effect(
    fields: &Fields<'_>,
    method: &MethodRule,
    is_optional: IsOptional<'_>,
    problems: &mut Problems,
) -> Option<EffectRule> {
    let is_safe = matches!(method, MethodRule::Fixed("GET" | "HEAD"));
    match fields.get("effect") {
        None if is_safe => Some(EffectRule::Read),
        None => {
            problems.add_with_suggestion(
                fields.place(),
                "missing_key",
                "`effect` is missing: nothing tells whether the call may be repeated",
                "read, repeatable, blind, { keyed: … } or { find_by: … }; `blind` if nothing is known",
            );
            None
        }
        Some(value) => EffectRule::read(value, &fields.at("effect"), is_optional, problems),
    }
}

/// The host that `host` names; the first without it.
fn read_host(fields: &Fields<'_>, common: &Common, problems: &mut Problems) -> usize {
    let Some(name) = fields.text("host", problems) else {
        return 0;
    };
    common.host_named(name).unwrap_or_else(|| {
        let names = common.host_names();
        let message = format!("there is no host named `{name}`");
        let suggestion = match (nearest(name, names.iter().copied()), names.as_slice()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, []) => "name them: `hosts: { api: https://…, files: https://… }`".to_owned(),
            (None, names) => format!("hosts: {}", names.join(", ")),
        };
        problems.add_with_suggestion(&fields.at("host"), "unknown_host", message, suggestion);
        0
    })
}

/// How answers are read: as `answer` says, or as `soap` implies.
fn read_reading(fields: &Fields<'_>, body: &Body, problems: &mut Problems) -> Reading {
    let answer = fields.get("answer");
    match body {
        Body::Soap(_) | Body::GraphQl(_) if answer.is_some() => {
            let message = "`graphql` and `soap` already say how answers are read";
            problems.add(&fields.at("answer"), "conflict", message);
            Reading::Auto
        }
        Body::Soap(_) => Soap::reading(fields, problems),
        Body::GraphQl(_) => Reading::Json,
        Body::None | Body::Template(_) | Body::Rest => answer
            .and_then(|value| Reading::read(value, &fields.at("answer"), problems))
            .unwrap_or_default(),
    }
}

fn read_result(fields: &Fields<'_>, problems: &mut Problems) -> Option<String> {
    let text = fields.text("result", problems)?;
    let place = fields.at("result");
    if Pointer::parse(text).is_none_or(|pointer| text.is_empty() || pointer.has_wildcard()) {
        problems.add(
            &place,
            "bad_pointer",
            format!("`{text}` does not point to a part of the answer"),
        );
    }
    if fields.get("items").is_some() {
        problems.add(
            &place,
            "conflict",
            "state `items` for a list or `result` for anything else, not both",
        );
    }
    if matches!(fields.text("answer", problems), Some("text" | "binary")) {
        problems.add(&place, "conflict", "text and bytes have no parts");
    }
    Some(text.to_owned())
}

fn read_list(fields: &Fields<'_>, problems: &mut Problems) -> (Option<(String, Pointer)>, Option<Paging>) {
    let items = fields.text("items", problems).and_then(|text| {
        let pointer = Pointer::parse(text);
        if pointer.is_none() {
            problems.add(
                &fields.at("items"),
                "bad_pointer",
                format!("`{text}` is not a JSON Pointer"),
            );
        }
        pointer.map(|pointer| (text.to_owned(), pointer))
    });
    let paging = fields
        .get("page")
        .and_then(|page| Paging::read(page, &fields.at("page"), problems));
    if paging.is_some() && fields.get("items").is_none() {
        problems.add_with_suggestion(
            fields.place(),
            "missing_key",
            "`page` needs `items`: where the list is in the answer",
            "`items: \"\"` when the answer is the list",
        );
    }
    (items, paging)
}
