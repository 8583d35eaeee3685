//! What a call does to the other side, and therefore what may be repeated.
//!
//! A manifest states the class as data, also when it depends on arguments or on the connection. When a
//! stated class cannot be worked out for a call, the answer is [`Effect::Blind`]: the class that promises
//! nothing.

use serde_json::Value;

use crate::expression::{Expression, Scope};
use crate::fields::{self, Fields};
use crate::pointer::Pointer;
use crate::problem::Problems;
use crate::template::{IsOptional, Template};

/// The effect class of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Changes nothing; may be sent at any time.
    Read,
    /// The provider recognises a key and does the work once per key.
    Keyed {
        /// Where the key travels.
        carrier: KeyCarrier,
        /// How long the provider remembers a key, in seconds.
        window_s: u64,
    },
    /// No key, but the result can be looked for before sending again.
    FindBy {
        /// The operation that looks.
        operation: String,
        /// Its arguments for this call.
        with: Value,
        /// JSON Pointer in its output to the hit; absent or null there means not found.
        found: String,
        /// Whether a finished write is visible to the look at once.
        consistent: bool,
        /// Otherwise, how long until it is, in seconds.
        settle_s: u64,
    },
    /// An absolute write: sending it twice leaves the same state.
    Repeatable,
    /// Nothing is known; a repeat may do the work twice.
    Blind,
}

/// Where an idempotency key travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyCarrier {
    /// A request header of this name.
    Header(String),
    /// A field of the body, as a JSON Pointer.
    BodyField(String),
}

/// The rule of a manifest from which the class of a call follows.
#[derive(Debug)]
pub(crate) enum EffectRule {
    Read,
    Repeatable,
    Blind,
    Keyed {
        carrier: CarrierRule,
        window: Template,
    },
    FindBy {
        operation: String,
        with: Template,
        found: String,
        consistent: bool,
        settle_s: u64,
    },
    Choose(Vec<(Option<Expression>, EffectRule)>),
}

#[derive(Debug)]
pub(crate) enum CarrierRule {
    Header(Template),
    Field(String),
}

impl EffectRule {
    pub(crate) fn read(
        value: &Value,
        place: &str,
        is_optional: IsOptional<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        if let Some(word) = value.as_str() {
            let words = [("read", 0_u8), ("repeatable", 1), ("blind", 2)];
            return fields::choose(word, &words, place, problems).map(|index| match index {
                0 => Self::Read,
                1 => Self::Repeatable,
                _ => Self::Blind,
            });
        }
        let fields = Fields::open(value, place, &["keyed", "find_by", "choose"], problems)?;
        let (kind, value) = fields.single("an effect", problems)?;
        let place = fields.at(kind);
        match kind {
            "keyed" => read_keyed(value, &place, is_optional, problems),
            "find_by" => read_find_by(value, &place, is_optional, problems),
            "choose" => read_choose(value, &place, is_optional, problems),
            // `open` reported any other key.
            _ => None,
        }
    }

    /// Every operation that a `find_by` calls.
    pub(crate) fn operations<'e>(&'e self, found: &mut Vec<&'e str>) {
        match self {
            Self::Read | Self::Repeatable | Self::Blind | Self::Keyed { .. } => {}
            Self::FindBy { operation, .. } => found.push(operation),
            Self::Choose(rules) => rules.iter().for_each(|(_, rule)| rule.operations(found)),
        }
    }

    /// Whether a key may travel in the body.
    pub(crate) fn has_key_field(&self) -> bool {
        match self {
            Self::Keyed { carrier, .. } => matches!(carrier, CarrierRule::Field(_)),
            Self::Choose(rules) => rules.iter().any(|(_, rule)| rule.has_key_field()),
            Self::Read | Self::Repeatable | Self::Blind | Self::FindBy { .. } => false,
        }
    }

    /// Every expression in it.
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(&Expression)) {
        match self {
            Self::Read | Self::Repeatable | Self::Blind => {}
            Self::Keyed { carrier, window } => {
                if let CarrierRule::Header(name) = carrier {
                    name.visit(visit);
                }
                window.visit(visit);
            }
            Self::FindBy { with, .. } => with.visit(visit),
            Self::Choose(rules) => {
                for (when, rule) in rules {
                    if let Some(when) = when {
                        visit(when);
                    }
                    rule.visit(visit);
                }
            }
        }
    }

    pub(crate) fn evaluate(&self, scope: &Scope<'_>) -> Effect {
        self.try_evaluate(scope).unwrap_or(Effect::Blind)
    }

    fn try_evaluate(&self, scope: &Scope<'_>) -> Option<Effect> {
        match self {
            Self::Read => Some(Effect::Read),
            Self::Repeatable => Some(Effect::Repeatable),
            Self::Blind => Some(Effect::Blind),
            Self::Keyed { carrier, window } => {
                let carrier = match carrier {
                    CarrierRule::Header(name) => {
                        let name = name.render_to_text(scope).ok()??;
                        fields::is_header_name(&name).then(|| KeyCarrier::Header(name.into_owned()))?
                    }
                    CarrierRule::Field(pointer) => KeyCarrier::BodyField(pointer.clone()),
                };
                let window_s = fields::duration_s(&window.render_to_text(scope).ok()??)?;
                Some(Effect::Keyed { carrier, window_s })
            }
            Self::FindBy {
                operation,
                with,
                found,
                consistent,
                settle_s,
            } => Some(Effect::FindBy {
                operation: operation.clone(),
                with: with.render(scope).ok()??.into_owned(),
                found: found.clone(),
                consistent: *consistent,
                settle_s: *settle_s,
            }),
            Self::Choose(rules) => {
                for (when, rule) in rules {
                    let holds = match when {
                        Some(when) => when.holds(scope).ok()?,
                        None => true,
                    };
                    if holds {
                        return rule.try_evaluate(scope);
                    }
                }
                None
            }
        }
    }
}

fn read_keyed(value: &Value, place: &str, is_optional: IsOptional<'_>, problems: &mut Problems) -> Option<EffectRule> {
    let fields = Fields::open(value, place, &["header", "field", "window"], problems)?;
    let carrier = match (fields.get("header"), fields.get("field")) {
        (Some(header), None) => {
            let template = Template::compile(header, &fields.at("header"), is_optional, problems);
            if let Template::Literal(literal) = &template
                && !literal.as_str().is_some_and(fields::is_header_name)
            {
                problems.add(&fields.at("header"), "bad_value", "not a header name");
            }
            CarrierRule::Header(template)
        }
        (None, Some(_)) => {
            let text = fields.text("field", problems)?;
            match Pointer::parse(text) {
                Some(pointer) if !pointer.is_root() => CarrierRule::Field(text.to_owned()),
                Some(_) | None => {
                    problems.add(
                        &fields.at("field"),
                        "bad_pointer",
                        format!("`{text}` is not a JSON Pointer to a field"),
                    );
                    return None;
                }
            }
        }
        (Some(_), Some(_)) | (None, None) => {
            problems.add(
                place,
                "bad_value",
                "a key travels either in a `header` or in a body `field`",
            );
            return None;
        }
    };
    let window = fields.required("window", problems)?;
    let window = Template::compile(window, &fields.at("window"), is_optional, problems);
    if let Template::Literal(literal) = &window
        && literal.as_str().and_then(fields::duration_s).is_none()
    {
        problems.add(
            &fields.at("window"),
            "bad_value",
            "not a duration such as 60s, 5m, 24h or 30d",
        );
    }
    Some(EffectRule::Keyed { carrier, window })
}

fn read_find_by(
    value: &Value,
    place: &str,
    is_optional: IsOptional<'_>,
    problems: &mut Problems,
) -> Option<EffectRule> {
    let fields = Fields::open(
        value,
        place,
        &["call", "with", "found", "consistent", "settle"],
        problems,
    )?;
    let operation = fields.required_text("call", problems)?.to_owned();
    let with = fields.required("with", problems)?;
    let found = fields.required_text("found", problems)?;
    if Pointer::parse(found).is_none() {
        problems.add(
            &fields.at("found"),
            "bad_pointer",
            format!("`{found}` is not a JSON Pointer"),
        );
    }
    let consistent = fields.flag("consistent", problems).unwrap_or(false);
    let settle_s = fields.duration_s("settle", problems);
    if !consistent && settle_s.is_none() {
        problems.add(
            place,
            "missing_key",
            "a look that is not `consistent` needs `settle`: how long until a write can be found",
        );
    }
    Some(EffectRule::FindBy {
        operation,
        with: Template::compile(with, &fields.at("with"), is_optional, problems),
        found: found.to_owned(),
        consistent,
        settle_s: settle_s.unwrap_or(0),
    })
}

fn read_choose(value: &Value, place: &str, is_optional: IsOptional<'_>, problems: &mut Problems) -> Option<EffectRule> {
    let Some(items) = value.as_array().filter(|items| !items.is_empty()) else {
        problems.add(place, "bad_type", "`choose` is a list of { when, then }");
        return None;
    };
    let mut rules = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let place = crate::pointer::join(place, &index.to_string());
        let Some(fields) = Fields::open(item, &place, &["when", "then"], problems) else {
            continue;
        };
        let when = fields
            .text("when", problems)
            .and_then(|text| read_condition(text, &fields.at("when"), problems));
        let then = fields
            .required("then", problems)
            .and_then(|then| EffectRule::read(then, &fields.at("then"), is_optional, problems));
        if fields.get("when").is_none() && index + 1 < items.len() {
            problems.add(&place, "unreachable", "an entry without `when` ends the list");
        }
        if let Some(then) = then {
            rules.push((when, then));
        }
    }
    if items.last().is_some_and(|last| last.get("when").is_some()) {
        problems.add_with_suggestion(
            place,
            "missing_key",
            "the last entry must have no `when`",
            "add `- { then: blind }`",
        );
    }
    Some(EffectRule::Choose(rules))
}

/// A condition: text that is exactly one `{{ … }}`.
pub(crate) fn read_condition(text: &str, place: &str, problems: &mut Problems) -> Option<Expression> {
    let template = Template::compile(&Value::String(text.to_owned()), place, &|_| false, problems);
    match template {
        Template::Single { expression, .. } => Some(expression),
        Template::Literal(_) | Template::Text(_) | Template::Array(_) | Template::Object(_) => {
            problems.add(place, "bad_expression", "a condition is exactly one `{{ … }}`");
            None
        }
    }
}
