//! Whose account it is: what the provider says about a token, and whether that is the account that was there before.

use serde_json::{Map, Value};
use weir_connector_sdk::AuthTest;

/// Longest account id or label that is kept, bytes.
const MAX_ACCOUNT_BYTES: usize = 500;

/// An account as the provider names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) id: Option<String>,
    pub(super) label: Option<String>,
}

impl Account {
    /// What the answer of the `auth.test` call says.
    pub(super) fn read(test: &AuthTest, output: &Value) -> Self {
        let text = |place: &Option<String>| {
            let found = output.pointer(place.as_deref()?)?;
            let text = match found {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
            };
            (!text.is_empty() && text.len() <= MAX_ACCOUNT_BYTES).then_some(text)
        };
        Account {
            id: text(&test.account),
            label: text(&test.label),
        }
    }

    /// Its name for people.
    pub(super) fn name(&self) -> Option<String> {
        match (&self.label, &self.id) {
            (Some(label), Some(id)) => Some(format!("{label} ({id})")),
            (Some(one), None) | (None, Some(one)) => Some(one.clone()),
            (None, None) => None,
        }
    }
}

/// Whether an account may take the place of the one that a connection had. One that cannot be told apart may.
pub(super) fn may_replace(before: Option<&str>, now: Option<&str>, another_account: bool) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => before == now || another_account,
        (Some(_), None) | (None, _) => true,
    }
}

/// The settings of a connection whose provider says where the account's API is: the connection's own word stands above it.
pub(crate) fn with_instance(mut config: Value, instance_url: Option<&str>) -> Value {
    if config.is_null() {
        config = Value::Object(Map::new());
    }
    if let (Some(url), Some(settings)) = (instance_url, config.as_object_mut())
        && !settings.contains_key("base_url")
    {
        settings.insert("base_url".to_owned(), url.into());
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_account_is_read_from_what_the_test_call_says() {
        let check = |account: Option<&str>, label: Option<&str>, wanted: Option<&str>| {
            let test = AuthTest {
                call: "me.get".to_owned(),
                account: account.map(str::to_owned),
                label: label.map(str::to_owned),
            };
            let output = json!({ "id": 42, "mail": "a@acme.test", "odd": [], "empty": "", "long": "x".repeat(501) });
            assert_eq!(Account::read(&test, &output).name().as_deref(), wanted);
        };
        check(Some("/id"), Some("/mail"), Some("a@acme.test (42)"));
        check(Some("/id"), Some("/none"), Some("42"));
        check(None, Some("/mail"), Some("a@acme.test"));
        check(Some("/odd"), Some("/empty"), None);
        check(Some("/long"), None, None);
    }

    #[test]
    fn another_account_takes_over_only_when_told() {
        let check = |before, now, told, wanted| assert_eq!(may_replace(before, now, told), wanted);
        check(None, Some("1"), false, true);
        check(Some("1"), Some("1"), false, true);
        check(Some("1"), Some("2"), false, false);
        check(Some("1"), Some("2"), true, true);
        check(Some("1"), None, false, true);
    }

    #[test]
    fn an_instance_is_where_requests_go_unless_the_connection_says_otherwise() {
        let check = |config: Value, wanted: Value| assert_eq!(with_instance(config, Some("https://eu.test")), wanted);
        check(json!({ "a": 1 }), json!({ "a": 1, "base_url": "https://eu.test" }));
        check(Value::Null, json!({ "base_url": "https://eu.test" }));
        check(
            json!({ "base_url": "https://own.test" }),
            json!({ "base_url": "https://own.test" }),
        );
        assert_eq!(with_instance(json!({ "a": 1 }), None), json!({ "a": 1 }));
    }
}
