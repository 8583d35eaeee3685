//! One call of a registration: which operation, and what it is told.

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use crate::config::Shape;
use crate::fields::Fields;
use crate::operation::BuildError;
use crate::problem::{Problems, nearest};
use crate::template::Template;
use crate::webhook::recover::{argument_names, filled, rfc_3339};

/// What templates in `with` see besides the values of the endpoint.
pub(super) const NAMES: [&str; 5] = ["url", "events", "secret", "id", "expires"];

/// What there is to tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) input: &'a Shape,
    /// Whether the secret is ours.
    pub(super) secret: bool,
    /// Whether it ends by itself.
    pub(super) expires: bool,
}

/// A call of a registration.
#[derive(Debug)]
pub struct RegisterCall {
    /// The operation.
    pub call: String,
    with: Template,
}

/// What a call is made for.
#[derive(Debug, Clone, Copy)]
pub struct RegisterAsk<'a> {
    /// Where webhooks are to be sent.
    pub url: &'a str,
    /// What is to be sent, in the provider's names.
    pub events: &'a [String],
    /// Our secret, where it is ours.
    pub secret: Option<&'a SecretString>,
    /// The webhook, unless it is made or all are listed.
    pub id: Option<&'a str>,
    /// When it is to end, in Unix milliseconds.
    pub expires_unix_ms: Option<i64>,
    /// The values that the endpoint gives, with defaults.
    pub with: &'a Map<String, Value>,
}

impl RegisterCall {
    /// The arguments of the operation. They may hold the secret: they are sent, and shown nowhere.
    ///
    /// # Errors
    /// [`BuildError`] when a template cannot be filled in.
    pub fn args(&self, ask: &RegisterAsk<'_>) -> Result<Value, BuildError> {
        let mut values = ask.with.clone();
        values.insert("url".to_owned(), ask.url.into());
        values.insert("events".to_owned(), json!(ask.events));
        if let Some(secret) = ask.secret {
            values.insert("secret".to_owned(), secret.expose_secret().into());
        }
        if let Some(id) = ask.id {
            values.insert("id".to_owned(), id.into());
        }
        if let Some(expires) = ask.expires_unix_ms {
            values.insert("expires".to_owned(), rfc_3339(expires, "/expires")?.into());
        }
        filled(&self.with, &values, "/with")
    }

    /// Whether it tells this to the provider.
    pub fn uses(&self, name: &str) -> bool {
        let mut found = false;
        self.with
            .visit(&mut |expression| found |= expression.roots().contains(&name));
        found
    }

    /// The names of the arguments that `with` gives.
    pub(crate) fn argument_names(&self) -> Vec<&str> {
        argument_names(&self.with)
    }

    pub(super) fn required(
        fields: &Fields<'_>,
        key: &'static str,
        told: Told<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        fields.required(key, problems)?;
        Self::optional(fields, key, told, problems)
    }

    pub(super) fn optional(
        fields: &Fields<'_>,
        key: &'static str,
        told: Told<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let value = fields.get(key)?;
        let place = fields.at(key);
        let fields = Fields::open(value, &place, &["call", "with"], problems)?;
        let with = fields.get("with").cloned().unwrap_or_else(|| json!({}));
        if !with.is_object() {
            problems.add(&fields.at("with"), "bad_type", "`with` is a mapping of arguments");
        }
        let is_optional = |expression: &crate::expression::Expression| match expression.roots().as_slice() {
            [root] => told.input.may_be_absent(&[root]),
            _ => false,
        };
        let call = Self {
            with: Template::compile(&with, &fields.at("with"), &is_optional, problems),
            call: fields.required_text("call", problems)?.to_owned(),
        };
        call.check_names(&told.names(key), &fields.at("with"), problems);
        Some(call)
    }

    fn check_names(&self, known: &[&str], place: &str, problems: &mut Problems) {
        self.with.visit(&mut |expression| {
            for root in expression.roots() {
                if known.contains(&root) {
                    continue;
                }
                let message = format!("`{root}` is not known here");
                match nearest(root, known.iter().copied()) {
                    Some(near) => {
                        problems.add_with_suggestion(place, "unknown_name", message, format!("did you mean `{near}`?"));
                    }
                    None => problems.add_with_suggestion(
                        place,
                        "unknown_name",
                        message,
                        format!("known names: {}", known.join(", ")),
                    ),
                }
            }
        });
    }
}

impl<'a> Told<'a> {
    /// The names that the templates of a call see.
    fn names(&self, key: &str) -> Vec<&'a str> {
        let is_about_one = !matches!(key, "create" | "list");
        let is_told = |name: &str| match name {
            "secret" => self.secret,
            "expires" => self.expires,
            "id" => is_about_one,
            _ => true,
        };
        let own = NAMES.into_iter().filter(|name| is_told(name));
        own.chain(self.input.fields.keys().map(String::as_str)).collect()
    }
}
