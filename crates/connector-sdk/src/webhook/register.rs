//! How a webhook is registered at the provider: data for the host's upkeep of registrations.
//!
//! A manifest names the operations that make, list, change, renew and delete a webhook, what they are told, and where
//! their answers say what there is. When which of them is called is not decided here.

mod call;

use std::collections::BTreeSet;

use secrecy::SecretString;
use serde_json::{Map, Value};

pub use call::{RegisterAsk, RegisterCall};

use super::identify::unix_ms;
use super::recover::pointer;
use crate::config::Shape;
use crate::fields::Fields;
use crate::pointer::Pointer;
use crate::problem::{Problem, Problems};
use call::{NAMES, Told};

/// Time between two looks at the provider when the manifest does not say, in seconds.
const DEFAULT_EVERY_S: u64 = 3_600;
/// The shortest time between two looks, in seconds.
///
/// Limit: seconds between two looks whether a webhook is still registered, at least | the manifest is refused, `out_of_bounds` | `words_of_register_are_checked`
pub const MIN_REGISTER_EVERY_S: u64 = 5;
/// The shortest life of a registration that can be kept alive, in seconds.
const MIN_LIFETIME_S: u64 = 10;

/// Whose the secret of a registered webhook is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterSecret {
    /// We make it, and tell the provider.
    Ours,
    /// The provider makes it, and tells it once, in the answer to the call that makes the webhook.
    Returned,
    /// It belongs to the app at the provider; a person gives it to the endpoint.
    App,
}

/// How webhooks are registered.
#[derive(Debug)]
pub struct Register {
    /// Whose the secret is.
    pub secret: RegisterSecret,
    /// Makes a webhook.
    pub create: RegisterCall,
    /// Lists the account's webhooks.
    pub list: RegisterCall,
    /// Changes a webhook.
    pub update: Option<RegisterCall>,
    /// Makes a webhook live longer.
    pub renew: Option<RegisterCall>,
    /// Deletes a webhook.
    pub delete: RegisterCall,
    /// Time between two looks at the provider, in seconds.
    pub every_s: u64,
    /// How long a webhook is to live, in seconds. `None`: until it is deleted.
    pub lifetime_s: Option<u64>,
    /// How long before its end it is renewed, in seconds.
    pub margin_s: u64,
    input: Shape,
    names: EventNames,
    hook: HookShape,
}

/// A webhook as the provider tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The provider's id.
    pub id: String,
    /// Where it sends to.
    pub url: Option<String>,
    /// What it sends, in the provider's names; `None`: the provider does not say.
    pub events: Option<BTreeSet<String>>,
    /// When it ends, in Unix milliseconds.
    pub expires_unix_ms: Option<i64>,
    /// Whether it sends at all.
    pub works: bool,
}

/// How the provider calls what it can send.
#[derive(Debug, Default)]
struct EventNames {
    /// Its name is what stands before this in an event type.
    before: Option<String>,
    /// The name that stands for all.
    all: Option<String>,
    /// The names that can be asked for.
    only: Option<Vec<String>>,
}

/// Where answers say what a webhook is.
#[derive(Debug)]
struct HookShape {
    id: Pointer,
    url: Pointer,
    events: Option<Pointer>,
    expires: Option<Pointer>,
    secret: Option<Pointer>,
    works: Option<Works>,
}

/// Which webhooks send.
#[derive(Debug)]
struct Works {
    at: Pointer,
    values: Vec<Value>,
}

impl Register {
    /// The webhook that an item of the list, or an answer, tells of. `None`: it has no id.
    pub fn hook(&self, item: &Value) -> Option<Hook> {
        let shape = &self.hook;
        let listed = |value: &Value| match value {
            Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            Value::String(text) => Some(text.split(',').map(|name| name.trim().to_owned()).collect()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        };
        Some(Hook {
            id: text(shape.id.lookup(item)?)?,
            url: shape.url.lookup(item).and_then(text),
            events: shape
                .events
                .as_ref()
                .and_then(|events| events.lookup(item))
                .and_then(listed),
            expires_unix_ms: shape
                .expires
                .as_ref()
                .and_then(|expires| unix_ms(expires.lookup(item)?)),
            works: shape
                .works
                .as_ref()
                .is_none_or(|works| works.at.lookup(item).is_some_and(|value| works.values.contains(value))),
        })
    }

    /// The secret in the answer to `create`.
    pub fn returned_secret(&self, answer: &Value) -> Option<SecretString> {
        let found = self.hook.secret.as_ref()?.lookup(answer)?.as_str()?;
        (!found.is_empty()).then(|| found.into())
    }

    /// What the provider is asked to send for these event types, in its own names. `*` among them stands for all that the
    /// connector declares, `declared`.
    pub fn event_names<'t>(
        &self,
        types: impl IntoIterator<Item = &'t str>,
        declared: impl IntoIterator<Item = &'t str>,
    ) -> BTreeSet<String> {
        let types: BTreeSet<&str> = types.into_iter().collect();
        if types.contains("*") {
            match &self.names.all {
                Some(all) => return BTreeSet::from([all.clone()]),
                None => return self.named(declared.into_iter().chain(types)),
            }
        }
        self.named(types)
    }

    fn named<'t>(&self, types: impl IntoIterator<Item = &'t str>) -> BTreeSet<String> {
        let types = types.into_iter().filter(|name| *name != "*");
        let name = |kind: &str| match &self.names.before {
            Some(before) => kind
                .split_once(before.as_str())
                .map_or(kind, |(name, _)| name)
                .to_owned(),
            None => kind.to_owned(),
        };
        let names = types.map(name);
        match &self.names.only {
            Some(only) => names.filter(|name| only.contains(name)).collect(),
            None => names.collect(),
        }
    }

    /// What is wrong with the values that an endpoint gives, with pointers relative to them.
    pub fn check_with(&self, with: &Value) -> Vec<Problem> {
        let mut problems = Problems::default();
        self.input.check(with, "", &mut problems);
        problems.into_list()
    }

    /// The values that an endpoint gives, with defaults.
    pub fn with_defaults(&self, with: &Map<String, Value>) -> Map<String, Value> {
        let mut filled = self.input.defaults.clone();
        filled.extend(with.iter().map(|(name, value)| (name.clone(), value.clone())));
        filled
    }

    /// The values that an endpoint gives, as a JSON Schema object.
    pub fn input_schema(&self) -> Value {
        self.input.json_schema()
    }

    /// Its calls, each with its key in the manifest.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&'static str, &RegisterCall)> {
        let always = [("create", &self.create), ("list", &self.list), ("delete", &self.delete)];
        let some = [("update", &self.update), ("renew", &self.renew)];
        let some = some.into_iter().filter_map(|(key, call)| Some((key, call.as_ref()?)));
        always.into_iter().chain(some)
    }

    pub(super) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let known = [
            "secret",
            "input",
            "event_names",
            "create",
            "list",
            "update",
            "renew",
            "delete",
            "hook",
            "every",
            "lifetime",
            "margin",
        ];
        let fields = Fields::open(value, place, &known, problems)?;
        fields.required("secret", problems);
        let kinds = [
            ("ours", RegisterSecret::Ours),
            ("returned", RegisterSecret::Returned),
            ("app", RegisterSecret::App),
        ];
        let secret = fields.choice("secret", &kinds, problems);
        let input = fields
            .get("input")
            .map(|input| Shape::read(input, &fields.at("input"), false, problems))
            .unwrap_or_default();
        for name in input.fields.keys().filter(|name| NAMES.contains(&name.as_str())) {
            problems.add(
                &crate::pointer::join(&fields.at("input"), name),
                "reserved_name",
                format!("`{name}` is a reserved name"),
            );
        }
        let lifetime_s = fields.duration_s("lifetime", problems);
        let told = Told {
            input: &input,
            // What is wrong with the word is told already.
            secret: secret.is_none_or(|secret| secret == RegisterSecret::Ours),
            expires: lifetime_s.is_some(),
        };
        let create = RegisterCall::required(&fields, "create", told, problems);
        let list = RegisterCall::required(&fields, "list", told, problems);
        let delete = RegisterCall::required(&fields, "delete", told, problems);
        let update = RegisterCall::optional(&fields, "update", told, problems);
        let renew = RegisterCall::optional(&fields, "renew", told, problems);
        let hook = fields
            .required("hook", problems)
            .and_then(|value| HookShape::read(value, &fields.at("hook"), problems));
        if let (Some(secret), Some(hook), Some(create)) = (secret, &hook, &create) {
            check_secret(secret, hook, create, &fields, problems);
        }
        if let Some(create) = &create
            && !create.uses("url")
        {
            problems.add(
                &fields.at("create"),
                "missing_argument",
                "the provider must be told where to send to: use `{{ url }}` in `with`",
            );
        }
        check_lifetime(lifetime_s, renew.as_ref(), &fields, problems);
        let every_s = fields.duration_s("every", problems).unwrap_or(DEFAULT_EVERY_S);
        if every_s < MIN_REGISTER_EVERY_S {
            problems.add(
                &fields.at("every"),
                "out_of_bounds",
                format!("registrations are looked at {MIN_REGISTER_EVERY_S} s apart at least"),
            );
        }
        let margin_s = fields.duration_s("margin", problems);
        let margin_s = margin_s.unwrap_or_else(|| lifetime_s.map_or(0, |lifetime_s| lifetime_s / 3));
        if lifetime_s.is_some_and(|lifetime_s| margin_s >= lifetime_s) {
            problems.add(
                &fields.at("margin"),
                "out_of_bounds",
                "`margin` is shorter than `lifetime`, or every look would renew",
            );
        }
        let names = fields
            .get("event_names")
            .and_then(|value| EventNames::read(value, &fields.at("event_names"), problems))
            .unwrap_or_default();
        Some(Self {
            secret: secret?,
            create: create?,
            list: list?,
            update,
            renew,
            delete: delete?,
            every_s,
            lifetime_s,
            margin_s,
            input,
            names,
            hook: hook?,
        })
    }
}

fn check_secret(
    secret: RegisterSecret,
    hook: &HookShape,
    create: &RegisterCall,
    fields: &Fields<'_>,
    problems: &mut Problems,
) {
    match secret {
        RegisterSecret::Ours if !create.uses("secret") => problems.add(
            &fields.at("create"),
            "missing_argument",
            "the secret is ours, so the provider must be told it: use `{{ secret }}` in `with`",
        ),
        RegisterSecret::Returned if hook.secret.is_none() => problems.add(
            &fields.at("hook"),
            "missing_key",
            "`secret` is missing: where the answer to `create` holds it",
        ),
        RegisterSecret::Ours | RegisterSecret::App if hook.secret.is_some() => problems.add(
            &crate::pointer::join(&fields.at("hook"), "secret"),
            "bad_value",
            "the provider returns a secret only with `secret: returned`",
        ),
        RegisterSecret::Ours | RegisterSecret::Returned | RegisterSecret::App => {}
    }
}

fn check_lifetime(lifetime_s: Option<u64>, renew: Option<&RegisterCall>, fields: &Fields<'_>, problems: &mut Problems) {
    if lifetime_s.is_some() != fields.get("renew").is_some() {
        problems.add(
            fields.place(),
            "bad_value",
            "`lifetime` and `renew` belong together: what ends by itself is renewed before",
        );
    }
    if lifetime_s.is_none() && fields.get("margin").is_some() {
        problems.add(&fields.at("margin"), "bad_value", "`margin` belongs to `lifetime`");
    }
    if lifetime_s.is_some_and(|lifetime_s| lifetime_s < MIN_LIFETIME_S) {
        problems.add(
            &fields.at("lifetime"),
            "out_of_bounds",
            format!("a webhook lives for {MIN_LIFETIME_S} s at least"),
        );
    }
    if let Some(renew) = renew
        && !renew.uses("id")
    {
        problems.add(
            &fields.at("renew"),
            "missing_argument",
            "which one is renewed must be told: use `{{ id }}` in `with`",
        );
    }
}

impl EventNames {
    fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(value, place, &["before", "all", "only"], problems)?;
        let before = fields.text("before", problems).map(str::to_owned);
        if before.as_deref() == Some("") {
            problems.add(
                &fields.at("before"),
                "bad_value",
                "`before` is what ends a name, e.g. \".\"",
            );
        }
        Some(Self {
            before: before.filter(|before| !before.is_empty()),
            all: fields.text("all", problems).map(str::to_owned),
            only: fields.texts("only", problems),
        })
    }
}

impl HookShape {
    fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let known = ["id", "url", "events", "expires", "secret", "works"];
        let fields = Fields::open(value, place, &known, problems)?;
        fields.required("id", problems);
        fields.required("url", problems);
        let works = fields
            .get("works")
            .and_then(|value| Works::read(value, &fields.at("works"), problems));
        let (id, url) = (pointer(&fields, "id", problems), pointer(&fields, "url", problems));
        let (events, expires) = (
            pointer(&fields, "events", problems),
            pointer(&fields, "expires", problems),
        );
        let secret = pointer(&fields, "secret", problems);
        Some(Self {
            id: id?,
            url: url?,
            events,
            expires,
            secret,
            works,
        })
    }
}

impl Works {
    fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(value, place, &["at", "is"], problems)?;
        fields.required("at", problems);
        let values = fields.required("is", problems)?;
        let at = pointer(&fields, "at", problems);
        let Some(values) = values.as_array().filter(|values| !values.is_empty()) else {
            problems.add(&fields.at("is"), "bad_type", "`is` is a list of values, e.g. [enabled]");
            return None;
        };
        Some(Self {
            at: at?,
            values: values.clone(),
        })
    }
}

/// An id or an address, which some providers write as a number.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
