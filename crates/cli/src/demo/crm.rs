//! `weir demo crm stop|start`: closes or opens the port of the simulated CRM, and shows what the runs make of it.

use crate::arguments::CrmAction;
use crate::client::Client;
use crate::demo::folder::DemoFolder;
use crate::demo::simulator::Providers;
use crate::demo::welcome;
use crate::output::{self, Style};
use anyhow::Context as _;
use std::process::ExitCode;

pub(crate) async fn run(folder: &DemoFolder, action: CrmAction) -> anyhow::Result<ExitCode> {
    let providers = Providers::find_running(folder).await?;
    let style = Style::stdout();
    match action {
        CrmAction::Stop => {
            providers.stop_crm(folder).await?;
            output::line(format!(
                "{}: connections to the simulated HubSpot are refused now.",
                style.bold("CRM stopped")
            ));
            output::line("Payments are still accepted; their runs wait, and say when they try again.");
            output::line(format!("  {}   lists them", welcome::command("runs --status waiting")));
            output::line(format!("  {}   lets them finish", welcome::command("demo crm start")));
        }
        CrmAction::Start => {
            providers.start_crm(folder, client(folder)?.url()).await?;
            output::line(format!(
                "{}: runs that wait finish at their next try.",
                style.bold("CRM started")
            ));
            output::line(format!("  {}   says when", welcome::command("runs --status waiting")));
            output::line(format!(
                "  {}   shows that nothing was lost or doubled",
                welcome::command("demo ledger")
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A client of the demo's own server.
pub(crate) fn client(folder: &DemoFolder) -> anyhow::Result<Client> {
    let url = folder
        .data
        .url_load()?
        .context("the demo's server has not been started in this folder")?;
    let token = folder
        .data
        .admin_token_load()?
        .context("the demo's folder has no token")?;
    Client::new(&url, token)
}
