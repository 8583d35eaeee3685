//! From a parsed manifest to a [`Connector`], and the checks that need the whole of it.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::Connector;
use super::common::{Common, read_hosts};
use crate::answer::Meaning;
use crate::auth;
use crate::budget;
use crate::config::Shape;
use crate::event_type::EventType;
use crate::fields::{Fields, is_connector_name, is_name};
use crate::operation::{Operation, named_headers};
use crate::pointer;
use crate::problem::{Problems, nearest};
use crate::webhook::{Webhook, poll};

const KEYS: [&str; 17] = [
    "connector",
    "version",
    "title",
    "description",
    "hosts",
    "config",
    "auth",
    "budget",
    "headers",
    "errors",
    "success_when",
    "error_message",
    "operations",
    "webhook",
    "polls",
    "events",
    "kind",
];

impl Connector {
    pub(super) fn read(value: &Value, load: &dyn Fn(&str) -> Option<String>, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(value, "", &KEYS, problems)?;
        if let Some(kind) = fields.text("kind", problems)
            && kind != "Connector"
        {
            problems.add("/kind", "bad_value", format!("`{kind}` is not a connector"));
        }
        let name = fields
            .required_text("connector", problems)
            .unwrap_or_default()
            .to_owned();
        if !name.is_empty() && !is_connector_name(&name) {
            problems.add(
                "/connector",
                "bad_name",
                format!("`{name}` is not a connector name: lower-case words joined by hyphens"),
            );
        }
        let version = fields.required_text("version", problems).unwrap_or_default().to_owned();
        let is_version = version.split('.').count() == 3 && version.split('.').all(|part| part.parse::<u32>().is_ok());
        if !version.is_empty() && !is_version {
            problems.add(
                "/version",
                "bad_value",
                format!("`{version}` is not a version such as 1.4.0"),
            );
        }
        let mut config = fields
            .get("config")
            .map(|config| Shape::read(config, "/config", false, problems))
            .unwrap_or_default();
        config.add_url("base_url", "replaces the connector's own base URL");
        if config.field(&["budget"]).is_some() {
            let message = "`budget` is what a connection sets for itself with every connector";
            problems.add("/config/budget", "bad_name", message);
        }
        config.add_mapping("budget", "lowers the connector's own budget");
        let hosts = read_hosts(&fields, problems);
        let others = hosts.other_names();
        if !others.is_empty() {
            config.add_urls("base_urls", &others, "replaces the base URL of a host by its name");
        }
        let config_defaults = Value::Object(config.defaults.clone());
        let config_schema = config.json_schema();
        let mut common = Common {
            name: name.clone(),
            hosts,
            config,
            config_defaults,
            headers: Vec::new(),
            meaning: Meaning::read(&fields, problems),
        };
        common.check_hosts(problems);
        if let Some(headers) = fields.get("headers") {
            common.headers = named_headers(
                headers,
                "/headers",
                &|expression| common.config_may_be_absent(expression),
                problems,
            );
            for (_, template) in &common.headers {
                template.visit(&mut |expression| common.check_config_names(expression, "/headers", problems));
            }
        }
        let (auth, auth_test) = match fields.required("auth", problems) {
            Some(value) => auth::read(value, "/auth", &common, problems),
            None => (Vec::new(), None),
        };
        let common = Arc::new(common);
        let mut operations = IndexMap::new();
        if let Some(entries) = fields
            .get("operations")
            .and_then(|value| Fields::open_any(value, "/operations", problems))
        {
            for (name, value) in entries.map() {
                if let Some(operation) = Operation::read(name, value, &entries.at(name), &common, load, problems) {
                    operations.insert(name.clone(), operation);
                }
            }
        }
        let mut events = IndexMap::new();
        if let Some(entries) = fields
            .get("events")
            .and_then(|value| Fields::open_any(value, "/events", problems))
        {
            for (name, value) in entries.map() {
                if let Some(event_type) = EventType::read(value, &entries.at(name), load, problems) {
                    events.insert(name.clone(), event_type);
                }
            }
        }
        let mut polls = IndexMap::new();
        if let Some(entries) = fields
            .get("polls")
            .and_then(|value| Fields::open_any(value, "/polls", problems))
        {
            for (name, value) in entries.map() {
                if !is_name(name, false) {
                    problems.add(
                        &entries.at(name),
                        "bad_name",
                        format!("`{name}` is not a name: lower-case letters, digits and `_`, first a letter"),
                    );
                }
                if let Some(list) = poll::read(value, &entries.at(name), problems) {
                    polls.insert(name.clone(), list);
                }
            }
        }
        let connector = Self {
            version,
            title: fields.text("title", problems).unwrap_or(&name).to_owned(),
            description: fields.text("description", problems).map(str::to_owned),
            common,
            config_schema,
            secret_names: auth::secret_names(&auth),
            auth,
            auth_test,
            budget: fields
                .get("budget")
                .and_then(|value| budget::read(value, "/budget", problems)),
            operations,
            webhook: fields
                .get("webhook")
                .and_then(|value| Webhook::read(value, "/webhook", problems)),
            polls,
            events,
        };
        connector.check_calls(fields.get("operations"), problems);
        Some(connector)
    }

    /// Every call that another part of the manifest makes: it must exist and get its arguments.
    fn check_calls(&self, stated: Option<&Value>, problems: &mut Problems) {
        if let Some(test) = &self.auth_test {
            self.check_call(&test.call, "/auth/test/call", &[], stated, problems);
        }
        if let Some(recover) = self.webhook.as_ref().and_then(Webhook::recover)
            && let Some(call) = &recover.call
        {
            self.check_call(
                call,
                "/webhook/recover/call",
                &recover.argument_names(),
                stated,
                problems,
            );
            if let Some(failures) = &recover.failures {
                let place = "/webhook/recover/failures/call";
                self.check_call(&failures.call, place, &failures.argument_names(), stated, problems);
            }
        }
        if let Some(register) = self.webhook.as_ref().and_then(Webhook::register) {
            for (key, call) in register.calls() {
                let place = format!("/webhook/register/{key}/call");
                self.check_call(&call.call, &place, &call.argument_names(), stated, problems);
            }
            if let Some(operation) = self.operations.get(&register.list.call)
                && !operation.gives_list()
            {
                problems.add(
                    "/webhook/register/list/call",
                    "bad_value",
                    format!("`{}` gives no list: say with `items` where it stands", operation.name()),
                );
            }
        }
        for (name, list) in &self.polls {
            if let Some(recover) = list.recover()
                && let Some(call) = &recover.call
            {
                let place = pointer::join(&pointer::join("/polls", name), "call");
                self.check_call(call, &place, &recover.argument_names(), stated, problems);
            }
        }
        for (name, event_type) in &self.events {
            let reads = pointer::join(&pointer::join("/events", name), "reads");
            for (read_name, read) in &event_type.reads {
                let place = pointer::join(&pointer::join(&reads, read_name), "call");
                let names: Vec<&str> = read
                    .with
                    .as_object()
                    .into_iter()
                    .flat_map(Map::keys)
                    .map(String::as_str)
                    .collect();
                self.check_call(&read.call, &place, &names, stated, problems);
                if read.all_max.is_some()
                    && self
                        .operations
                        .get(&read.call)
                        .is_some_and(|operation| !operation.is_paged())
                {
                    problems.add(
                        &place,
                        "bad_value",
                        format!("`all` needs pages, and `{}` has none", read.call),
                    );
                }
            }
        }
        for operation in self.operations.values() {
            for call in operation.effect_operations() {
                let place = pointer::join(&pointer::join("/operations", operation.name()), "effect");
                if !self.operations.contains_key(call) {
                    self.check_call(call, &place, &[], stated, problems);
                }
            }
        }
    }

    fn check_call(&self, call: &str, place: &str, given: &[&str], stated: Option<&Value>, problems: &mut Problems) {
        let Some(operation) = self.operations.get(call) else {
            // One that is there but wrong has been reported already.
            if stated.is_some_and(|stated| stated.get(call).is_some()) {
                return;
            }
            let message = format!("there is no operation `{call}`");
            match nearest(call, self.operations.keys().map(String::as_str)) {
                Some(near) => {
                    problems.add_with_suggestion(place, "unknown_operation", message, format!("did you mean `{near}`?"))
                }
                None => problems.add(place, "unknown_operation", message),
            }
            return;
        };
        for required in operation
            .required_args()
            .iter()
            .filter(|required| !given.contains(required))
        {
            problems.add(
                place,
                "missing_argument",
                format!("`{call}` needs the argument `{required}`"),
            );
        }
        if let Some(known) = operation.known_args() {
            for name in given.iter().filter(|name| !known.contains(name)) {
                problems.add(place, "unknown_argument", format!("`{call}` has no argument `{name}`"));
            }
        }
    }
}
