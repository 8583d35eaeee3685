//! `weir token create`: an API token, printed once.

use crate::arguments::ServerArguments;
use crate::client::Client;
use crate::commands::user_errors::{self, UserError};
use crate::failure::Failure;
use crate::output;
use chrono::{DateTime, Days, Utc};
use serde::Deserialize;
use serde_json::json;
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

#[derive(Deserialize)]
struct ViewerData {
    viewer: Viewer,
}

#[derive(Deserialize)]
struct Viewer {
    permissions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    token_create: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    value_once: Option<String>,
    user_errors: Vec<UserError>,
}

pub(crate) async fn create(
    server: &ServerArguments,
    name: String,
    scopes: Vec<String>,
    days: Option<u32>,
) -> anyhow::Result<ExitCode> {
    let client = Client::find(server)?;
    let permissions = if scopes.is_empty() {
        client
            .query::<ViewerData>("{ viewer { permissions } }", json!({}))
            .await?
            .viewer
            .permissions
    } else {
        scopes
            .iter()
            .map(|scope| scope.to_uppercase().replace('-', "_"))
            .collect()
    };
    let expires_at = days.and_then(|days| {
        DateTime::<Utc>::from(UNIX_EPOCH + UNIX_EPOCH.elapsed().unwrap_or_default())
            .checked_add_days(Days::new(days.into()))
    });
    let query = format!(
        "mutation Create($input: TokenCreateInput!) {{ tokenCreate(input: $input) {{ valueOnce {} }} }}",
        user_errors::FIELDS
    );
    let expires_at = expires_at.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
    let variables = json!({ "input": { "name": name, "permissions": permissions, "expiresAt": expires_at } });
    let Payload {
        value_once,
        user_errors,
    } = client.query::<Data>(&query, variables).await?.token_create;
    user_errors::refuse("the token was not made", &user_errors)?;
    let Some(token) = value_once else {
        return Err(Failure::new("the server made a token and does not show it").into());
    };
    output::remark(format!("may: {}; shown only now", permissions.join(", ")));
    output::line(token);
    Ok(ExitCode::SUCCESS)
}
