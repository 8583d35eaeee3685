//! Configuration as code: many documents, one transaction.

use super::super::caller::Caller;
use super::super::errors::ApiResult;
use super::super::types::long_to_int;
use super::super::user_error::{UserError, UserErrorCode, below_input, of_apply};
use super::may_apply;
use crate::auth::Permission;
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use std::sync::Arc;
use weir_connector_sdk::parse_yaml;
use weir_orchestrator::configure::{Action, ApplyOptions, ConfigProblem, Expect, Kind, MAX_DOCUMENTS, SourceDocument};

/// Mutations of whole document sets.
#[derive(Default)]
pub(crate) struct DocumentMutations;

#[Object]
impl DocumentMutations {
    /// Applies configuration documents: what is new is created, what differs is changed, what is left out stays. All or
    /// nothing. Needs `CONFIG_WRITE`, and `SECRET_WRITE` when a document brings a credential or secrets, or gives a connection that
    /// has a credential other settings or another version of its connector.
    async fn apply_documents(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The documents.")] input: ApplyDocumentsInput,
    ) -> ApiResult<ApplyDocumentsPayload> {
        let caller = Caller::of(ctx);
        let (orchestrator, workspace) = caller.orchestrator(Permission::ConfigWrite)?;
        let (documents, texts) = match read(&input.documents) {
            Ok(read) => read,
            Err(user_errors) => return Ok(ApplyDocumentsPayload::refused(user_errors)),
        };
        let brings_connectors = documents
            .iter()
            .any(|document| document.value["kind"] == Kind::Connector.as_str());
        for document in &documents {
            may_apply(caller, &document.value, brings_connectors)?;
        }
        let options = ApplyOptions {
            dry_run: input.dry_run,
            expect: Expect::Any,
        };
        match orchestrator.apply(workspace, &caller.actor(), documents, options).await {
            Ok(report) => Ok(ApplyDocumentsPayload {
                applied: report.applied,
                changes: report.changes.into_iter().map(Change::from).collect(),
                user_errors: Vec::new(),
            }),
            Err(error) => {
                let place = |problem: &ConfigProblem| {
                    let text = texts.get(problem.document).copied().unwrap_or_default();
                    below_input(&["documents", &text.to_string()])
                };
                of_apply(error, "documents", &place).map(ApplyDocumentsPayload::refused)
            }
        }
    }
}

/// Parses all texts. Beside the documents: for each, the text it came from.
fn read(texts: &[String]) -> Result<(Vec<SourceDocument>, Vec<usize>), Vec<UserError>> {
    let (mut documents, mut origins, mut user_errors) = (Vec::new(), Vec::new(), Vec::new());
    for (index, text) in texts.iter().enumerate() {
        match parse_yaml(text) {
            Ok(parsed) => {
                for document in parsed {
                    let value = document.value.clone();
                    let lines = Arc::new(move |pointer: &str| document.line_of(pointer));
                    documents.push(SourceDocument {
                        value,
                        lines: Some(lines),
                        origin: None,
                    });
                    origins.push(index);
                }
            }
            Err(error) => user_errors.push(UserError::unreadable(
                vec!["input".to_owned(), "documents".to_owned(), index.to_string()],
                error.line,
                format!("line {}, column {}: {}", error.line, error.column, error.message),
            )),
        }
    }
    if user_errors.is_empty() && documents.is_empty() {
        user_errors.push(UserError::input(
            UserErrorCode::Required,
            "documents",
            "there is no document in the texts",
        ));
    }
    if documents.len() > MAX_DOCUMENTS {
        let message = format!("{} documents are more than {MAX_DOCUMENTS}", documents.len());
        user_errors.push(UserError::input(UserErrorCode::TooMany, "documents", message));
    }
    if user_errors.is_empty() {
        Ok((documents, origins))
    } else {
        Err(user_errors)
    }
}

/// Documents to apply.
#[derive(Debug, InputObject)]
pub(crate) struct ApplyDocumentsInput {
    /// YAML or JSON texts; each may hold several documents. References such as `{env: NAME}` are not resolved here.
    #[graphql(secret)]
    documents: Vec<String>,
    /// Report what would change, and change nothing.
    #[graphql(default = false)]
    dry_run: bool,
}

/// What applying documents did, or would do.
#[derive(Debug, SimpleObject)]
pub(crate) struct ApplyDocumentsPayload {
    /// Whether anything was written. False for a dry run and when nothing differed.
    applied: bool,
    /// One entry per document, in the order given; behind them the workflows that are published again because a
    /// connection of theirs speaks with another version of its connector.
    changes: Vec<Change>,
    /// What the documents did wrong.
    user_errors: Vec<UserError>,
}

impl ApplyDocumentsPayload {
    fn refused(user_errors: Vec<UserError>) -> Self {
        ApplyDocumentsPayload {
            applied: false,
            changes: Vec::new(),
            user_errors,
        }
    }
}

/// What becomes of one document.
#[derive(Debug, SimpleObject)]
pub(crate) struct Change {
    /// Kind of the thing.
    kind: DocumentKind,
    /// Name of the thing.
    name: String,
    /// What happens to it.
    action: ChangeAction,
    /// Id of the thing. Null in a dry run for what does not exist yet.
    id: Option<ID>,
    /// Its revision afterwards.
    revision: i32,
    /// Unified diff of the document, secrets redacted; empty when nothing changes.
    diff: String,
    /// What a person should know besides, such as that secrets change.
    notes: Vec<String>,
}

impl From<weir_orchestrator::configure::Change> for Change {
    fn from(change: weir_orchestrator::configure::Change) -> Self {
        Change {
            kind: match change.kind {
                Kind::Connector => DocumentKind::Connector,
                Kind::Connection => DocumentKind::Connection,
                Kind::Endpoint => DocumentKind::Endpoint,
                Kind::Workflow => DocumentKind::Workflow,
            },
            action: match change.action {
                Action::Create => ChangeAction::Create,
                Action::Update => ChangeAction::Update,
                Action::Unchanged => ChangeAction::Unchanged,
                Action::Delete => ChangeAction::Delete,
            },
            name: change.name,
            id: Some(change.id).filter(|id| !id.is_empty()).map(ID::from),
            revision: long_to_int(change.revision),
            diff: change.diff,
            notes: change.notes,
        }
    }
}

/// Kinds of configuration documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum DocumentKind {
    /// One version of a connector.
    Connector,
    /// One account at a provider.
    Connection,
    /// An ingest URL.
    Endpoint,
    /// What to do when an event arrives.
    Workflow,
}

/// What happens to a thing when a document is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum ChangeAction {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It stays as it is.
    Unchanged,
    /// It is removed.
    Delete,
}
