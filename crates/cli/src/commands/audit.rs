//! `weir audit`: who changed what, newest first; also how a run's story tells what people did about it.

use crate::arguments::AuditArguments;
use crate::client::Client;
use crate::commands::lists::{self, List};
use crate::commands::story;
use crate::output;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::process::ExitCode;

const FIELDS: &str = "id at actor actorName action subject clientIp detail";
/// Longest remark in the table, in characters; `--json` has it whole.
const MAX_REMARK_CHARACTERS: usize = 100;

/// An entry of the audit trail.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    pub(crate) at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) actor: Option<String>,
    pub(crate) actor_name: String,
    pub(crate) action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_ip: Option<String>,
    pub(crate) detail: Value,
}

impl Entry {
    /// What is worth a word beside who did what: a reason or note, the step it is about, the run that was started.
    pub(crate) fn remark(&self) -> String {
        let mut words = Vec::new();
        remarks(&self.detail, &mut words);
        words.join(", ")
    }
}

fn remarks(detail: &Value, words: &mut Vec<String>) {
    let Value::Object(detail) = detail else { return };
    for (key, value) in detail {
        match (key.as_str(), value) {
            ("reason" | "note", Value::String(text)) if !text.is_empty() => words.push(text.clone()),
            ("notes", Value::Array(notes)) => {
                words.extend(notes.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            ("run" | "step" | "verdict" | "workflow", Value::String(text)) => words.push(format!("{key} {text}")),
            (_, Value::Object(_)) => remarks(value, words),
            (_, _) => {}
        }
    }
}

pub(crate) async fn run(arguments: &AuditArguments) -> anyhow::Result<ExitCode> {
    let client = Client::find(&arguments.server)?;
    let filter = json!({
        "since": arguments.since, "until": arguments.until, "actor": arguments.actor, "action": arguments.action,
        "subject": arguments.subject,
    });
    let list = List {
        field: "audit",
        argument: ("filter", "AuditFilter"),
        value: filter,
        fields: FIELDS,
        page: lists::PAGE_MAX,
    };
    let entries: Vec<Entry> = lists::read(&client, &list, arguments.list.limit).await?;
    if arguments.list.json {
        lists::print_json(&entries)?;
        return Ok(ExitCode::SUCCESS);
    }
    if entries.is_empty() {
        output::remark("nothing was changed");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    output::table(&["AT", "BY", "ACTION", "ON", "NOTE"], &rows);
    Ok(ExitCode::SUCCESS)
}

fn row(entry: &Entry) -> Vec<String> {
    let remark = entry.remark().replace('\n', " ");
    let remark = match remark.char_indices().nth(MAX_REMARK_CHARACTERS) {
        Some((end, _)) => format!("{}…", remark.get(..end).unwrap_or(&remark)),
        None => remark,
    };
    vec![
        story::moment(entry.at),
        entry.actor_name.clone(),
        entry.action.clone(),
        entry.subject.clone().unwrap_or_default(),
        remark,
    ]
}
