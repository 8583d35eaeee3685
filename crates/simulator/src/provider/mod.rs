//! The fake providers: which routes they have, whom they let in, what they answer.
//!
//! They share one address space without collisions: Stripe `/v1/…`, HubSpot `/crm/v3|v4/…`, a generic CRM
//! `/crm/{collection}/{id}`, Slack `/api/…`, GitHub `/repos/…`, feeds `/feed/{name}/…`. Answers follow the shapes of the providers'
//! public APIs as far as the built-in connectors use them, and no further.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::{ApiAnswer, ApiRequest};
use crate::world::World;

mod crm;
pub(crate) mod feed;
mod github;
pub(crate) mod hubspot;
mod slack;
mod stripe;
mod stripe_billing;

/// A fake provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Stripe's REST API, v1.
    Stripe,
    /// HubSpot's CRM API.
    Hubspot,
    /// Slack's Web API.
    Slack,
    /// GitHub's REST API.
    Github,
    /// A CRM of no particular make.
    Crm,
    /// Changes of objects, listed in every way that sweeps can go on from.
    Feed,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Stripe,
        Self::Hubspot,
        Self::Slack,
        Self::Github,
        Self::Crm,
        Self::Feed,
    ];

    /// The provider's name, equal to its connector's where there is one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Hubspot => "hubspot",
            Self::Slack => "slack",
            Self::Github => "github",
            Self::Crm => "crm",
            Self::Feed => "feed",
        }
    }

    /// The provider with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.as_str() == name)
    }
}

/// A route of a fake provider. Its name is the operation's name in the connector, with the connector in
/// front, so fault rules and manifests speak alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) provider: Provider,
    pub(crate) name: &'static str,
    /// Whether the route changes something; only those appear in the ledger of effects.
    pub(crate) writes: bool,
}

impl Route {
    const fn read(provider: Provider, name: &'static str) -> Self {
        Self {
            provider,
            name,
            writes: false,
        }
    }

    const fn write(provider: Provider, name: &'static str) -> Self {
        Self {
            provider,
            name,
            writes: true,
        }
    }
}

/// Finds the route of a request.
pub(crate) fn route(method: &str, segments: &[&str]) -> Option<Route> {
    match segments {
        ["v1", rest @ ..] => stripe::route(method, rest),
        ["crm", "v3" | "v4", "objects", rest @ ..] => hubspot::route(method, segments[1], rest),
        ["account-info", "v3", "details"] if method == "GET" => {
            Some(Route::read(Provider::Hubspot, "hubspot.account.get"))
        }
        ["crm", ..] => crm::route(method, segments),
        ["feed", ..] => feed::route(method, segments),
        ["api", name] => slack::route(method, name),
        ["repos" | "user", ..] => github::route(method, segments),
        _ => None,
    }
}

/// Refuses callers without the right key.
pub(crate) fn refuse_stranger(world: &World, route: Route, request: &ApiRequest<'_>) -> Option<ApiAnswer> {
    let keys = &world.api_keys;
    let (known, answer) = match route.provider {
        Provider::Feed => return None,
        Provider::Stripe => (
            stripe::is_known(request, &keys.stripe),
            ApiAnswer::json(
                401,
                &json!({ "error": { "message": "Invalid API key provided", "type": "invalid_request_error" } }),
            ),
        ),
        Provider::Hubspot => (
            request.bearer() == Some(keys.hubspot.as_str()),
            ApiAnswer::json(
                401,
                &json!({ "status": "error", "message": "authentication credentials not found", "category": "INVALID_AUTHENTICATION" }),
            ),
        ),
        // Slack says it with a 200.
        Provider::Slack => (
            request.bearer() == Some(keys.slack.as_str()),
            ApiAnswer::json(200, &json!({ "ok": false, "error": "invalid_auth" })),
        ),
        Provider::Github => (
            request.bearer() == Some(keys.github.as_str()),
            ApiAnswer::json(401, &json!({ "message": "Bad credentials" })),
        ),
        Provider::Crm => (
            keys.crm.as_deref().is_none_or(|key| request.bearer() == Some(key)),
            ApiAnswer::json(401, &json!({ "error": "unauthorized" })),
        ),
    };
    (!known).then_some(answer)
}

/// Carries a request out.
pub(crate) fn answer(world: &World, route: Route, request: &ApiRequest<'_>) -> ApiAnswer {
    match route.provider {
        Provider::Stripe => stripe::answer(world, route.name, request),
        Provider::Hubspot => hubspot::answer(world, route.name, request),
        Provider::Slack => slack::answer(world, route.name, request),
        Provider::Github => github::answer(world, route.name, request),
        Provider::Crm => crm::answer(world, request),
        Provider::Feed => feed::answer(world, route.name, request),
    }
}

/// The provider's own way of saying that a key was used for something else, or is in use.
pub(crate) fn key_conflict(route: Route, in_progress: bool) -> ApiAnswer {
    let (status, code, message) = if in_progress {
        (
            409,
            "idempotency_key_in_use",
            "another request with this idempotency key is in progress",
        )
    } else {
        (
            400,
            "idempotency_error",
            "this idempotency key was used with a different request",
        )
    };
    match route.provider {
        Provider::Stripe => ApiAnswer::json(
            status,
            &json!({ "error": { "type": "idempotency_error", "code": code, "message": message } }),
        ),
        Provider::Hubspot | Provider::Slack | Provider::Github | Provider::Crm | Provider::Feed => {
            ApiAnswer::json(status, &json!({ "error": code, "message": message }))
        }
    }
}

/// The provider's own way of saying "slow down" (429) or "we failed" (5xx).
pub(crate) fn failure(provider: Provider, status: u16) -> ApiAnswer {
    let body = match (provider, status) {
        (Provider::Stripe, 429) => {
            json!({ "error": { "message": "too many requests", "type": "invalid_request_error", "code": "rate_limit" } })
        }
        (Provider::Stripe, _) => {
            json!({ "error": { "message": "simulated failure", "type": "api_error" } })
        }
        (Provider::Hubspot, 429) => {
            json!({ "status": "error", "message": "secondly limit reached", "errorType": "RATE_LIMIT", "policyName": "SECONDLY" })
        }
        (Provider::Hubspot, _) => {
            json!({ "status": "error", "message": "simulated failure", "category": "INTERNAL_ERROR" })
        }
        (Provider::Slack, 429) => json!({ "ok": false, "error": "ratelimited" }),
        (Provider::Slack, _) => json!({ "ok": false, "error": "internal_error" }),
        (Provider::Github, _) => json!({ "message": "simulated failure" }),
        (Provider::Crm | Provider::Feed, _) => json!({ "error": "simulated failure" }),
    };
    ApiAnswer::json(status, &body)
}
