//! `weir healthcheck`: one request to `/readyz`, for containers without curl.

use crate::arguments::HealthcheckArguments;
use crate::client::{self, DEFAULT_URL};
use crate::config;
use crate::failure::Failure;
use crate::output;
use std::process::ExitCode;
use std::time::Duration;

/// A server that takes longer is not healthy.
const LIMIT: Duration = Duration::from_secs(3);

pub(crate) async fn run(arguments: &HealthcheckArguments) -> anyhow::Result<ExitCode> {
    let url = match (&arguments.url, &arguments.listen) {
        (Some(url), _) => url.trim_end_matches('/').to_owned(),
        (None, Some(listen)) => {
            let mut address = config::parse_listen(listen)?;
            if address.ip().is_unspecified() {
                address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
            }
            format!("http://{address}")
        }
        (None, None) => DEFAULT_URL.to_owned(),
    };
    let address = format!("{url}/readyz");
    let response = client::http()?
        .get(&address)
        .timeout(LIMIT)
        .send()
        .await
        .map_err(|error| anyhow::Error::new(error).context(Failure::new(format!("no server answers at {url}"))))?;
    let status = response.status();
    if status.is_success() {
        output::line("ready");
        return Ok(ExitCode::SUCCESS);
    }
    let text = response.text().await.unwrap_or_default();
    Err(Failure::new(format!("not ready: {address} answered {status} {}", text.trim())).into())
}
