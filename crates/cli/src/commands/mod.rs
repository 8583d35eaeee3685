//! The commands, one file each: read what is needed, ask the server, print the answer.

pub(crate) mod apply;
mod approvals;
mod audit;
mod backfill;
mod backup;
mod bulk;
mod bulk_release;
mod bulk_request;
mod bulk_resolve;
pub(crate) mod connection;
mod connector;
mod connector_new;
mod connector_published;
mod connector_test;
mod coverage;
mod dead_letters;
pub(crate) mod doctor;
pub(crate) mod documents;
mod endpoint;
mod event;
mod events;
mod export;
mod grant;
mod healthcheck;
mod lanes;
mod lists;
mod migrate;
mod operate;
pub(crate) mod refused;
mod replay;
mod resolve;
mod restore;
pub(crate) mod runs;
pub(crate) mod show;
mod start;
mod step_names;
pub(crate) mod story;
mod token;
mod user_errors;
mod workflow;
mod workflow_draft;
mod workflow_state;
mod workflows;

use crate::arguments::{
    BulkCommand, Command, ConnectionCommand, ConnectorCommand, EndpointCommand, RunCommand, TokenCommand,
};
use backfill::BackfillAsk;
use bulk_request::BulkAsk;
use std::process::ExitCode;

/// Runs a command that needs no server of its own.
pub(crate) async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Apply(arguments) => apply::run(arguments).await,
        Command::Export(server) => export::run(&server).await,
        Command::Events(arguments) => events::run(&arguments).await,
        Command::Event(command) => event::run(command).await,
        Command::Runs(arguments) => runs::run(&arguments).await,
        Command::Workflows(arguments) => workflows::run(&arguments).await,
        Command::Run(RunCommand::Show {
            server,
            id,
            bodies,
            json,
        }) => show::run(&server, &id, show::Options { bodies, json }).await,
        Command::Run(RunCommand::Start {
            server,
            workflow,
            input,
            idempotency_key,
        }) => start::run(&server, &workflow, &input, idempotency_key).await,
        Command::Run(RunCommand::Resolve { server, arguments }) => resolve::run(&server, arguments).await,
        Command::Run(RunCommand::Retry { server, arguments }) => {
            replay::run(&server, &arguments, replay::Default::FailedStep).await
        }
        Command::Run(RunCommand::Replay { server, arguments }) => {
            replay::run(&server, &arguments, replay::Default::Start).await
        }
        Command::Run(RunCommand::Cancel { server, id, reason }) => {
            operate::run(&server, operate::Ask::Cancel, &id, reason).await
        }
        Command::Run(RunCommand::Pause { server, id, reason }) => {
            operate::run(&server, operate::Ask::Pause, &id, reason).await
        }
        Command::Run(RunCommand::Resume { server, id }) => operate::run(&server, operate::Ask::Resume, &id, None).await,
        Command::Run(RunCommand::Wake { server, id }) => operate::run(&server, operate::Ask::Wake, &id, None).await,
        Command::Run(RunCommand::Release { server, id }) => {
            operate::run(&server, operate::Ask::Release, &id, None).await
        }
        Command::Lanes(arguments) => lanes::run(&arguments).await,
        Command::Approvals(arguments) => approvals::run(&arguments).await,
        Command::Approve(decision) => {
            let question = (decision.id.as_str(), decision.step.as_str());
            operate::decide(&decision.server, question, true, decision.note.clone()).await
        }
        Command::Reject(decision) => {
            let question = (decision.id.as_str(), decision.step.as_str());
            operate::decide(&decision.server, question, false, decision.note.clone()).await
        }
        Command::DeadLetters(command) => dead_letters::run(command).await,
        Command::Workflow(command) => workflow::run(command).await,
        Command::Bulk(BulkCommand::Replay { server, arguments }) => bulk::replay(&server, &arguments).await,
        Command::Bulk(BulkCommand::Cancel(arguments)) => bulk_request::run(BulkAsk::Cancel, &arguments).await,
        Command::Bulk(BulkCommand::Pause(arguments)) => bulk_request::run(BulkAsk::Pause, &arguments).await,
        Command::Bulk(BulkCommand::Resume(arguments)) => bulk_request::run(BulkAsk::Resume, &arguments).await,
        Command::Bulk(BulkCommand::Release(arguments)) => bulk_release::run(&arguments).await,
        Command::Bulk(BulkCommand::Resolve(arguments)) => bulk_resolve::run(&arguments).await,
        Command::Bulk(BulkCommand::List { server, list }) => bulk::list(&server, &list).await,
        Command::Bulk(BulkCommand::Show { server, id, wait, json }) => bulk::show(&server, &id, wait, json).await,
        Command::Bulk(BulkCommand::Stop { server, id }) => bulk::stop(&server, &id).await,
        Command::Refused(arguments) => refused::run(&arguments).await,
        Command::Connection(ConnectionCommand::List { server, json }) => grant::list(&server, json).await,
        Command::Connection(ConnectionCommand::Authorize {
            server,
            name,
            another_account,
            json,
        }) => grant::authorize(&server, &name, another_account, json).await,
        Command::Connection(ConnectionCommand::Disconnect { server, name }) => grant::disconnect(&server, &name).await,
        Command::Connection(ConnectionCommand::Show { server, name, json }) => {
            connection::run(&server, &name, json).await
        }
        Command::Coverage(arguments) => coverage::run(&arguments).await,
        Command::Endpoint(EndpointCommand::Show { server, endpoint, json }) => {
            endpoint::show(&server, &endpoint, json).await
        }
        Command::Endpoint(EndpointCommand::Sweep { server, endpoint }) => coverage::sweep(&server, &endpoint).await,
        Command::Endpoint(EndpointCommand::Backfill(arguments)) => backfill::start(&arguments).await,
        Command::Endpoint(EndpointCommand::Backfills { server, endpoint, json }) => {
            backfill::list(&server, &endpoint, json).await
        }
        Command::Endpoint(EndpointCommand::PauseBackfill { server, endpoint }) => {
            backfill::ask(BackfillAsk::Pause, &server, &endpoint).await
        }
        Command::Endpoint(EndpointCommand::ResumeBackfill { server, endpoint }) => {
            backfill::ask(BackfillAsk::Resume, &server, &endpoint).await
        }
        Command::Endpoint(EndpointCommand::StopBackfill { server, endpoint }) => {
            backfill::ask(BackfillAsk::Stop, &server, &endpoint).await
        }
        Command::Audit(arguments) => audit::run(&arguments).await,
        Command::Connector(ConnectorCommand::New { name, dir }) => connector_new::new(&name, &dir),
        Command::Connector(ConnectorCommand::Check { paths, json }) => connector::check(&paths, json),
        Command::Connector(ConnectorCommand::List { server, name, json }) => {
            connector_published::list(&server, name.as_deref(), json).await
        }
        Command::Connector(ConnectorCommand::Delete { server, reference }) => {
            connector_published::delete(&server, &reference).await
        }
        Command::Connector(ConnectorCommand::Test { folder }) => connector_test::test(&folder),
        Command::Backup(arguments) => Box::pin(backup::run(*arguments)).await,
        Command::Restore(arguments) => Box::pin(restore::run(*arguments)).await,
        Command::Migrate(arguments) => migrate::run(*arguments).await,
        Command::Token(TokenCommand::Create {
            server,
            name,
            scopes,
            expires_in_days,
        }) => token::create(&server, name, scopes, expires_in_days).await,
        Command::Healthcheck(arguments) => healthcheck::run(&arguments).await,
        Command::Doctor(arguments) => doctor::run(*arguments).await,
        Command::Serve(_) | Command::Demo(_) | Command::Simulator(_) => {
            unreachable!("the executable starts these on a runtime of their own")
        }
    }
}
