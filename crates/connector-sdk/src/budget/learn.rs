//! What answers tell about the allowance: families of headers and places in bodies, as data.
//!
//! A provider's number is believed as it stands; only the unit of a reset is guessed where providers disagree, inside
//! bounds that no two units share.

use serde_json::Value;

use crate::answer::{Source, http_date_ms};
use crate::fields::Fields;
use crate::http_message::HttpResponse;
use crate::pointer;
use crate::problem::{Problems, nearest};

/// What one answer tells about one allowance of the provider.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Told {
    /// Which allowance, where a provider has several.
    pub name: String,
    /// The whole of it.
    pub limit: Option<f64>,
    /// What is left of it.
    pub remaining: Option<f64>,
    /// In how many milliseconds it begins anew.
    pub resets_in_ms: Option<u64>,
    /// Length of its window in seconds.
    pub window_s: Option<f64>,
    /// What comes back in one second, for allowances that refill all the time.
    pub restore_per_s: Option<f64>,
    /// What the answered request cost.
    pub cost: Option<f64>,
}

/// A rule that finds an allowance in answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Learn {
    name: String,
    how: How,
}

#[derive(Debug, Clone, PartialEq)]
enum How {
    /// The headers of the IETF drafts, in all their forms.
    Ietf,
    /// `used/limit` in one header, after this text.
    Pair {
        header: &'static str,
        after: &'static str,
        restores: bool,
    },
    /// Each number in its place.
    Places(Box<Places>),
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Places {
    limit: Option<Source>,
    remaining: Option<Source>,
    reset: Option<(Source, ResetUnit)>,
    window_ms: Option<Source>,
    restore: Option<Source>,
    cost: Option<Source>,
}

/// What the number of a reset counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResetUnit {
    /// Whichever of the others makes sense.
    Guess,
    DeltaSeconds,
    DeltaMilliseconds,
    EpochSeconds,
    EpochMilliseconds,
    HttpDate,
}

const RESET_UNITS: [(&str, ResetUnit); 5] = [
    ("delta_s", ResetUnit::DeltaSeconds),
    ("delta_ms", ResetUnit::DeltaMilliseconds),
    ("epoch_s", ResetUnit::EpochSeconds),
    ("epoch_ms", ResetUnit::EpochMilliseconds),
    ("http_date", ResetUnit::HttpDate),
];

/// A family with headers for limit, remaining, reset and length of the window in milliseconds; empty: it has none.
struct Family {
    word: &'static str,
    limit: &'static str,
    remaining: &'static str,
    reset: &'static str,
    window_ms: &'static str,
}

const FAMILIES: [Family; 5] = [
    Family {
        word: "x_ratelimit",
        limit: "X-RateLimit-Limit",
        remaining: "X-RateLimit-Remaining",
        reset: "X-RateLimit-Reset",
        window_ms: "",
    },
    Family {
        word: "x_rate_limit",
        limit: "X-Rate-Limit-Limit",
        remaining: "X-Rate-Limit-Remaining",
        reset: "X-Rate-Limit-Reset",
        window_ms: "",
    },
    Family {
        word: "hubspot",
        limit: "X-HubSpot-RateLimit-Max",
        remaining: "X-HubSpot-RateLimit-Remaining",
        reset: "",
        window_ms: "X-HubSpot-RateLimit-Interval-Milliseconds",
    },
    Family {
        word: "hubspot_daily",
        limit: "X-HubSpot-RateLimit-Daily",
        remaining: "X-HubSpot-RateLimit-Daily-Remaining",
        reset: "",
        window_ms: "",
    },
    Family {
        word: "aircall",
        limit: "X-AircallApi-Limit",
        remaining: "X-AircallApi-Remaining",
        reset: "X-AircallApi-Reset",
        window_ms: "",
    },
];

const IETF: &str = "ratelimit";
const SHOPIFY: &str = "shopify";
const SHOPIFY_GRAPHQL: &str = "shopify_graphql";
const SALESFORCE: &str = "salesforce";

/// The rule that a word stands for.
fn family(word: &str) -> Option<Learn> {
    let header = |name: &str| (!name.is_empty()).then(|| Source::Header(name.to_owned()));
    let body = |pointer: &str| Source::parse(pointer);
    let how = match word {
        IETF => How::Ietf,
        SHOPIFY => How::Pair {
            header: "X-Shopify-Shop-Api-Call-Limit",
            after: "",
            restores: true,
        },
        SALESFORCE => How::Pair {
            header: "Sforce-Limit-Info",
            after: "api-usage=",
            restores: false,
        },
        SHOPIFY_GRAPHQL => How::Places(Box::new(Places {
            limit: body("/extensions/cost/throttleStatus/maximumAvailable"),
            remaining: body("/extensions/cost/throttleStatus/currentlyAvailable"),
            restore: body("/extensions/cost/throttleStatus/restoreRate"),
            cost: body("/extensions/cost/requestedQueryCost"),
            ..Places::default()
        })),
        word => {
            let family = FAMILIES.iter().find(|family| family.word == word)?;
            How::Places(Box::new(Places {
                limit: header(family.limit),
                remaining: header(family.remaining),
                reset: header(family.reset).map(|place| (place, ResetUnit::Guess)),
                window_ms: header(family.window_ms),
                ..Places::default()
            }))
        }
    };
    Some(Learn {
        name: word.to_owned(),
        how,
    })
}

fn words() -> impl Iterator<Item = &'static str> {
    let others = [IETF, SHOPIFY, SHOPIFY_GRAPHQL, SALESFORCE];
    others.into_iter().chain(FAMILIES.iter().map(|family| family.word))
}

/// Reads `learn`: a word, an object of places, or a list of both.
pub(super) fn read(fields: &Fields<'_>, problems: &mut Problems) -> Vec<Learn> {
    let place = fields.at("learn");
    match fields.get("learn") {
        None => Vec::new(),
        Some(Value::Array(items)) => items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| read_one(item, &pointer::join(&place, &index.to_string()), problems))
            .collect(),
        Some(value) => read_one(value, &place, problems).into_iter().collect(),
    }
}

fn read_one(value: &Value, place: &str, problems: &mut Problems) -> Option<Learn> {
    match value {
        Value::String(word) => {
            let found = family(word);
            if found.is_none() {
                let known: Vec<&str> = words().collect();
                let suggestion = match nearest(word, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("one of: {}", known.join(", ")),
                };
                problems.add_with_suggestion(place, "bad_value", format!("`{word}` is not known here"), suggestion);
            }
            found
        }
        value => read_places(value, place, problems),
    }
}

fn read_places(value: &Value, place: &str, problems: &mut Problems) -> Option<Learn> {
    let known = ["name", "limit", "remaining", "reset", "restore", "cost"];
    let fields = Fields::open(value, place, &known, problems)?;
    let mut spot = |fields: &Fields<'_>, key: &str| {
        let text = fields.text(key, problems)?;
        let found = Source::parse(text);
        if found.is_none() {
            let message = format!("`{text}` is neither a JSON Pointer nor a header");
            problems.add_with_suggestion(&fields.at(key), "bad_pointer", message, "/pointer or header:NAME");
        }
        found
    };
    let (limit, remaining) = (spot(&fields, "limit"), spot(&fields, "remaining"));
    let (restore, cost) = (spot(&fields, "restore"), spot(&fields, "cost"));
    let reset = match fields.get("reset") {
        Some(value @ Value::Object(_)) => {
            let inner = Fields::open(value, &fields.at("reset"), &["from", "unit"], problems)?;
            inner.required("from", problems)?;
            let text = inner.text("from", problems)?;
            let unit = match inner.get("unit") {
                Some(_) => inner.choice("unit", &RESET_UNITS, problems)?,
                None => ResetUnit::Guess,
            };
            if Source::parse(text).is_none() {
                let message = format!("`{text}` is neither a JSON Pointer nor a header");
                problems.add_with_suggestion(&inner.at("from"), "bad_pointer", message, "/pointer or header:NAME");
            }
            Source::parse(text).map(|place| (place, unit))
        }
        Some(_) => {
            let text = fields.text("reset", problems)?;
            let found = Source::parse(text).map(|place| (place, ResetUnit::Guess));
            if found.is_none() {
                let message = format!("`{text}` is neither a JSON Pointer nor a header");
                problems.add_with_suggestion(&fields.at("reset"), "bad_pointer", message, "/pointer or header:NAME");
            }
            found
        }
        None => None,
    };
    if remaining.is_none() && cost.is_none() && fields.get("remaining").is_none() && fields.get("cost").is_none() {
        problems.add(
            place,
            "missing_key",
            "`remaining` or `cost` is missing: nothing can be learned",
        );
    }
    Some(Learn {
        name: fields.text("name", problems).unwrap_or("stated").to_owned(),
        how: How::Places(Box::new(Places {
            limit,
            remaining,
            reset,
            window_ms: None,
            restore,
            cost,
        })),
    })
}

impl Learn {
    /// The word of the manifest, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it looks into bodies.
    pub fn reads_body(&self) -> bool {
        let is_body = |place: &Option<Source>| matches!(place, Some(Source::Body(_)));
        match &self.how {
            How::Ietf | How::Pair { .. } => false,
            How::Places(places) => {
                [&places.limit, &places.remaining, &places.restore, &places.cost]
                    .into_iter()
                    .any(is_body)
                    || places
                        .reset
                        .as_ref()
                        .is_some_and(|(place, _)| matches!(place, Source::Body(_)))
            }
        }
    }

    /// What an answer that came at `now_ms` (Unix milliseconds) tells; nothing when it does not say. `body` is the
    /// parsed body, when there is one and the rule looks at it.
    pub fn read(&self, response: &HttpResponse, body: Option<&Value>, now_ms: i64) -> Vec<Told> {
        match &self.how {
            How::Ietf => ietf(response),
            How::Pair {
                header,
                after,
                restores,
            } => pair(response, header, after, *restores)
                .map(|told| Told {
                    name: self.name.clone(),
                    ..told
                })
                .into_iter()
                .collect(),
            How::Places(places) => {
                let told = places.read(response, body, now_ms);
                let says = told.remaining.is_some() || told.cost.is_some();
                says.then(|| Told {
                    name: self.name.clone(),
                    ..told
                })
                .into_iter()
                .collect()
            }
        }
    }
}

impl Places {
    fn read(&self, response: &HttpResponse, body: Option<&Value>, now_ms: i64) -> Told {
        let at = |place: &Option<Source>| place.as_ref().and_then(|place| place.number(response, || body));
        let reset = self.reset.as_ref().and_then(|(place, unit)| {
            let now_ms = response
                .header("date")
                .and_then(|date| http_date_ms(date.trim()))
                .unwrap_or(now_ms);
            match (unit, place) {
                (ResetUnit::HttpDate, Source::Header(name)) => {
                    let until = http_date_ms(response.header(name)?.trim())?;
                    Some(u64::try_from(until.saturating_sub(now_ms)).unwrap_or(0))
                }
                (unit, place) => resets_in_ms(place.number(response, || body)?, *unit, now_ms),
            }
        });
        Told {
            name: String::new(),
            limit: at(&self.limit),
            remaining: at(&self.remaining),
            resets_in_ms: reset,
            window_s: at(&self.window_ms).map(|ms| ms / 1_000.0),
            restore_per_s: at(&self.restore),
            cost: at(&self.cost),
        }
    }
}

/// From the number of a reset to milliseconds to go, at most a month.
fn resets_in_ms(stated: f64, unit: ResetUnit, now_ms: i64) -> Option<u64> {
    /// Spans above this many seconds, 30 days, are moments.
    const LONGEST_S: f64 = 30.0 * 86_400.0;
    if !stated.is_finite() || stated < 0.0 {
        return None;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of this era are exact in a double"
    )]
    let now_s = now_ms as f64 / 1_000.0;
    let seconds = match unit {
        ResetUnit::DeltaSeconds => stated,
        ResetUnit::DeltaMilliseconds => stated / 1_000.0,
        ResetUnit::EpochSeconds => stated - now_s,
        ResetUnit::EpochMilliseconds => stated / 1_000.0 - now_s,
        ResetUnit::HttpDate => return None,
        ResetUnit::Guess if stated <= LONGEST_S => stated,
        ResetUnit::Guess if (stated - now_s).abs() <= LONGEST_S => stated - now_s,
        ResetUnit::Guess if (stated / 1_000.0 - now_s).abs() <= LONGEST_S => stated / 1_000.0 - now_s,
        ResetUnit::Guess => return None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between zero and a month in milliseconds"
    )]
    Some((seconds.clamp(0.0, LONGEST_S) * 1_000.0).ceil() as u64)
}

/// `18/5000` after `api-usage=`, or the whole header: used, and the limit.
fn pair(response: &HttpResponse, header: &str, after: &str, restores: bool) -> Option<Told> {
    /// The buckets of Shopify's REST API refill in 20 seconds on every plan (40 at 2/s, 400 at 20/s).
    const REFILL_S: f64 = 20.0;
    let text = response.header(header)?;
    let text = if after.is_empty() {
        text
    } else {
        text.split_once(after)?.1
    };
    let (used, rest) = text.split_once('/')?;
    let digits = rest
        .trim()
        .split(|character: char| !character.is_ascii_digit())
        .next()?;
    let (used, limit): (f64, f64) = (used.trim().parse().ok()?, digits.parse().ok()?);
    Some(Told {
        limit: Some(limit),
        remaining: Some((limit - used).max(0.0)),
        restore_per_s: restores.then_some(limit / REFILL_S),
        ..Told::default()
    })
}

/// The forms of the drafts: three headers (to -06), one with members (-07), lists of named policies (from -08 on).
fn ietf(response: &HttpResponse) -> Vec<Told> {
    let plain = |name: &str| -> Option<f64> {
        let text = response.header(name)?;
        text.split([',', ';']).next()?.trim().parse().ok()
    };
    if let Some(remaining) = plain("ratelimit-remaining") {
        let windows = response
            .header("ratelimit-policy")
            .or_else(|| response.header("ratelimit-limit"));
        let limit = plain("ratelimit-limit");
        return vec![Told {
            name: IETF.to_owned(),
            limit,
            remaining: Some(remaining),
            resets_in_ms: plain("ratelimit-reset").and_then(delta_ms),
            window_s: windows.and_then(|text| window_of(text, limit)),
            ..Told::default()
        }];
    }
    let Some(text) = response.header("ratelimit") else {
        return Vec::new();
    };
    if text.contains("remaining=") {
        let members: Vec<(&str, f64)> = text.split([',', ';']).filter_map(member).collect();
        let of = |name: &str| {
            members
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value)
        };
        return vec![Told {
            name: IETF.to_owned(),
            limit: of("limit"),
            remaining: of("remaining"),
            resets_in_ms: of("reset").and_then(delta_ms),
            ..Told::default()
        }];
    }
    let policies = response.header("ratelimit-policy").unwrap_or_default();
    let of_policy = |name: &str, key: &str| {
        let item = policies.split(',').find(|item| item_name(item) == name)?;
        parameter(item, key)
    };
    let told = text.split(',').take(super::MAX_WINDOWS).filter_map(|item| {
        let name = item_name(item);
        Some(Told {
            name: name.to_owned(),
            limit: of_policy(name, "q"),
            remaining: Some(parameter(item, "r")?),
            resets_in_ms: parameter(item, "t").and_then(delta_ms),
            window_s: of_policy(name, "w"),
            ..Told::default()
        })
    });
    told.collect()
}

fn delta_ms(seconds: f64) -> Option<u64> {
    resets_in_ms(seconds, ResetUnit::DeltaSeconds, 0)
}

fn item_name(item: &str) -> &str {
    item.split(';').next().unwrap_or_default().trim().trim_matches('"')
}

fn member(text: &str) -> Option<(&str, f64)> {
    let (name, value) = text.split_once('=')?;
    Some((name.trim(), value.trim().trim_matches('"').parse().ok()?))
}

fn parameter(item: &str, key: &str) -> Option<f64> {
    let mut members = item.split(';').skip(1).filter_map(member);
    members.find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// The window of `100, 100;w=60` that belongs to the limit.
fn window_of(text: &str, limit: Option<f64>) -> Option<f64> {
    let fits = |item: &&str| {
        let stated = item_name(item).parse::<f64>().ok();
        parameter(item, "w").is_some() && (limit.is_none() || stated == limit)
    };
    text.split(',').find(fits).and_then(|item| parameter(item, "w"))
}

/// Reads `cost` of an operation: how much of the budget one request of it takes.
pub(crate) fn read_cost(fields: &Fields<'_>, problems: &mut Problems) -> u64 {
    match fields.number("cost", problems) {
        Some(0) => {
            problems.add(&fields.at("cost"), "bad_value", "at least 1");
            1
        }
        Some(cost) => cost,
        None => 1,
    }
}
