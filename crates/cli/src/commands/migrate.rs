//! `weir migrate`: brings the schema up to date and stops. Opening the database does the work.

use crate::arguments::ServeArguments;
use crate::config;
use crate::data_folder::make_private_files;
use crate::output;
use crate::serve;
use anyhow::Context as _;
use std::process::ExitCode;

pub(crate) async fn run(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    make_private_files();
    let config = config::load(arguments.config.as_deref(), arguments.settings)?;
    let store = serve::open_database(&config).await?.0;
    let version = store
        .schema_version()
        .await
        .context("could not read the schema's version")?;
    output::line(format!("the schema is up to date: {version}"));
    Ok(ExitCode::SUCCESS)
}
