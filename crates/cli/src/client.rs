//! Talks to a server over its public GraphQL address; every command that is not `serve` or `demo` goes through here.

use crate::arguments::ServerArguments;
use crate::data_folder::DataFolder;
use crate::failure::Failure;
use crate::output;
use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

/// Where a server listens unless told otherwise.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// Folders of local servers, in the order they are looked at.
const LOCAL_FOLDERS: [&str; 2] = ["weir-demo", "weir-data"];
/// Longest wait for an answer; `apply` of a large document set is the slowest request there is.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A server and the token to show it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: SecretString,
}

impl Client {
    /// A client for a known server.
    pub(crate) fn new(url: &str, token: SecretString) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/');
        url::Url::parse(url).map_err(|error| {
            Failure::usage(format!("WEIR_URL is `{url}`, which is no address: {error}"))
                .fix(format!("for example {DEFAULT_URL}"))
        })?;
        Ok(Client {
            http: http()?,
            url: url.to_owned(),
            token,
        })
    }

    /// The server that flags and environment name, else the local one in a data folder beside us.
    pub(crate) fn find(arguments: &ServerArguments) -> anyhow::Result<Self> {
        if let Some(token) = arguments.token.as_deref().filter(|token| !token.is_empty()) {
            return Self::new(
                arguments
                    .url
                    .as_deref()
                    .filter(|url| !url.is_empty())
                    .unwrap_or(DEFAULT_URL),
                SecretString::from(token),
            );
        }
        for name in LOCAL_FOLDERS {
            let folder = DataFolder::new(name);
            let Some(token) = folder.admin_token_load()? else {
                continue;
            };
            let url = match arguments.url.as_ref().filter(|url| !url.is_empty()) {
                Some(url) => url.clone(),
                None => folder.url_load()?.unwrap_or_else(|| DEFAULT_URL.to_owned()),
            };
            output::remark(format!(
                "using {url} with the token in ./{name} (WEIR_URL and WEIR_TOKEN choose another)"
            ));
            return Self::new(&url, token);
        }
        Err(Failure::usage("WEIR_TOKEN is not set, and there is no ./weir-demo or ./weir-data with a token")
            .fix("set WEIR_TOKEN to an API token of the server (and WEIR_URL to its address), or run this where the data folder is")
            .into())
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sends one GraphQL operation and reads its `data`.
    pub(crate) async fn query<T: DeserializeOwned>(&self, document: &str, variables: Value) -> anyhow::Result<T> {
        let data = self.query_value(document, variables).await?;
        serde_json::from_value(data)
            .context("the server's answer has another shape than this version expects; are both of the same release?")
    }

    async fn query_value(&self, document: &str, variables: Value) -> anyhow::Result<Value> {
        let address = format!("{}/graphql", self.url);
        let sent = self
            .http
            .post(&address)
            .bearer_auth(self.token.expose_secret())
            .header("accept", "application/graphql-response+json, application/json;q=0.9")
            .json(&json!({ "query": document, "variables": variables }))
            .send()
            .await;
        let response = sent.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let body = response
            .bytes()
            .await
            .with_context(|| format!("the answer of {address} broke off"))?;
        let answer: Value = serde_json::from_slice(&body).map_err(|_not_json| {
            Failure::new(format!("{address} answered {status} with something that is not JSON"))
                .fix("is WEIR_URL the address of a Weir server?")
        })?;
        if status.as_u16() == 401 {
            return Err(Failure::new(format!("{} refused the token", self.url))
                .fix("set WEIR_TOKEN to a token this server knows; the administrator's token is WEIR_ADMIN_TOKEN or the file admin.token in its data folder")
                .into());
        }
        if let Some(failure) = failure_in(&answer) {
            return Err(failure.into());
        }
        match answer.get("data") {
            Some(data) if !data.is_null() => Ok(data.clone()),
            _ => Err(Failure::new(format!("{address} answered {status} without data")).into()),
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let failure = Failure::new(format!("no server answers at {}", self.url))
            .fix("start it with `weir serve` or `weir demo`, or set WEIR_URL to its address");
        anyhow::Error::new(error).context(failure)
    }
}

/// The HTTP client of commands. It only talks to addresses its user typed, so the egress guard is not in its way.
pub(crate) fn http() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .timeout(REQUEST_LIMIT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("could not set up the HTTP client")
}

/// The first of the errors (or the problem document) in an answer, as one of ours.
fn failure_in(answer: &Value) -> Option<Failure> {
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let (message, fix) = if let Some(error) = answer
        .get("errors")
        .and_then(Value::as_array)
        .and_then(|errors| errors.first())
    {
        let code = text(error, "/extensions/code");
        let message =
            text(error, "/message").unwrap_or_else(|| "the server reported an error without a message".to_owned());
        (
            code.map_or_else(|| message.clone(), |code| format!("{message} ({code})")),
            text(error, "/extensions/fix"),
        )
    } else if answer.get("status").is_some() && answer.get("title").is_some() {
        let title = text(answer, "/title").unwrap_or_default();
        let detail = text(answer, "/detail")
            .map(|detail| format!(": {detail}"))
            .unwrap_or_default();
        (format!("{title}{detail}"), text(answer, "/fix"))
    } else {
        return None;
    };
    let failure = Failure::new(message);
    Some(match fix {
        Some(fix) => failure.fix(fix),
        None => failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_found_in_both_forms() {
        let graphql =
            json!({"errors": [{"message": "no such field", "extensions": {"code": "VALIDATION"}}], "data": null});
        assert_eq!(failure_in(&graphql).unwrap().to_string(), "no such field (VALIDATION)");
        let problem =
            json!({"type": "about:blank", "title": "Too many requests", "status": 429, "detail": "slow down"});
        assert_eq!(
            failure_in(&problem).unwrap().to_string(),
            "Too many requests: slow down"
        );
        assert!(failure_in(&json!({"data": {"runs": []}})).is_none());
    }
}
