//! `weir apply`: makes the configuration what the documents say, in one transaction, and shows the difference.

use crate::arguments::ApplyArguments;
use crate::client::Client;
use crate::commands::documents::{self, Document};
use crate::commands::user_errors::{self, UserError};
use crate::failure::{self, Failure};
use crate::output::{self, Style};
use serde::Deserialize;
use serde_json::json;
use std::process::ExitCode;

/// What became of one document.
#[derive(Debug, Deserialize)]
pub(crate) struct Change {
    kind: String,
    name: String,
    action: String,
    diff: String,
    notes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    apply_documents: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    changes: Vec<Change>,
    user_errors: Vec<UserError>,
}

pub(crate) async fn run(arguments: ApplyArguments) -> anyhow::Result<ExitCode> {
    let documents = documents::read(&arguments.files)?;
    let client = Client::find(&arguments.server)?;
    let changes = send(&client, &documents, arguments.dry_run).await?;
    print(&changes, arguments.dry_run);
    let differs = changes.iter().any(Change::changes_something);
    Ok(if arguments.dry_run && differs {
        failure::exit_difference()
    } else {
        ExitCode::SUCCESS
    })
}

impl Change {
    fn changes_something(&self) -> bool {
        self.action != "UNCHANGED"
    }
}

/// Sends documents in one transaction; nothing is changed when one of them is wrong.
pub(crate) async fn send(client: &Client, documents: &[Document], dry_run: bool) -> anyhow::Result<Vec<Change>> {
    let query = format!(
        "mutation Apply($input: ApplyDocumentsInput!) {{ applyDocuments(input: $input) {{ \
         changes {{ kind name action diff notes }} {} }} }}",
        user_errors::FIELDS
    );
    let texts: Vec<String> = documents.iter().map(|document| document.value.to_string()).collect();
    let data: Data = client
        .query(&query, json!({ "input": { "documents": texts, "dryRun": dry_run } }))
        .await?;
    let Payload { changes, user_errors } = data.apply_documents;
    if user_errors.is_empty() {
        return Ok(changes);
    }
    let of = |error: &UserError| documents.get(error.path.get(2)?.parse::<usize>().ok()?);
    let lines = user_errors.iter().map(|error| describe(error, of(error)));
    let lines: Vec<String> = lines.collect();
    Err(Failure::new(format!("nothing was changed:\n{}", lines.join("\n"))).into())
}

/// `file:line: pointer: message (suggestion)`, of an error in this document.
pub(crate) fn describe(error: &UserError, document: Option<&Document>) -> String {
    let pointer = error.pointer.as_deref().unwrap_or_default();
    let place = document
        .map(|document| format!("{}: ", document.place(pointer)))
        .unwrap_or_default();
    let pointer = if pointer.is_empty() {
        String::new()
    } else {
        format!("{pointer}: ")
    };
    format!("{place}{pointer}{}", error.text())
}

fn print(changes: &[Change], dry_run: bool) {
    let style = Style::stdout();
    for change in changes {
        let thing = format!("{} {}", change.kind.to_lowercase(), style.bold(&change.name));
        match (change.action.as_str(), dry_run) {
            ("CREATE", true) => output::line(style.green(format!("+ {thing} would be created"))),
            ("CREATE", false) => output::line(style.green(format!("+ {thing} created"))),
            ("UPDATE", true) => output::line(style.yellow(format!("~ {thing} would be changed"))),
            ("UPDATE", false) => output::line(style.yellow(format!("~ {thing} changed"))),
            ("UNCHANGED", _) => output::line(style.dim(format!("= {thing} unchanged"))),
            (other, _) => output::line(format!("  {thing} {}", other.to_lowercase())),
        }
        for line in change.diff.lines() {
            let line = match line.chars().next() {
                Some('+') => style.green(line),
                Some('-') => style.red(line),
                Some('@') => style.cyan(line),
                Some(_) | None => line.to_owned(),
            };
            output::line(format!("    {line}"));
        }
        for note in &change.notes {
            output::line(format!("    note: {note}"));
        }
    }
    let differing = changes.iter().filter(|change| change.changes_something()).count();
    match (differing, dry_run) {
        (0, _) => output::remark("nothing differs"),
        (count, true) => output::remark(format!(
            "{count} of {} documents differ; nothing was changed (--dry-run)",
            changes.len()
        )),
        (count, false) => output::remark(format!(
            "{count} of {} documents applied, in one transaction",
            changes.len()
        )),
    }
}
