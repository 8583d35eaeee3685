//! What the user's input, or the state of the thing, did wrong. Payloads carry these; they are no errors of the request.
//!
//! A small family of types shared by all mutations. Messages never quote a secret.

use super::caller::Caller;
use super::errors::{ApiError, ApiResult};
use super::types::long_to_int;
use crate::problem::Code;
use async_graphql::{Enum, Interface, SimpleObject};
use weir_orchestrator::configure::{ApplyError, ConfigProblem};

/// Something that the input, or the state of the thing, did wrong. Nothing has been changed.
#[derive(Debug, Clone, Interface)]
#[expect(
    clippy::enum_variant_names,
    reason = "these are the names of the types in the schema"
)]
#[graphql(
    field(name = "code", ty = "&UserErrorCode", desc = "What kind of mistake; stable."),
    field(name = "message", ty = "&String", desc = "What is wrong, for people."),
    field(
        name = "path",
        ty = "&Vec<String>",
        desc = "The place in the arguments, such as [\"input\", \"name\"]."
    )
)]
pub(crate) enum UserError {
    /// A value of the input is wrong.
    InputError(InputError),
    /// Somebody else changed the thing.
    ConflictError(ConflictError),
    /// Something stands in the way.
    PreconditionError(PreconditionError),
}

/// A value of the input is missing or wrong.
#[derive(Debug, Clone, SimpleObject)]
pub(crate) struct InputError {
    /// What kind of mistake; stable.
    code: UserErrorCode,
    /// What is wrong, for people.
    message: String,
    /// The place in the arguments, such as `["input", "config", "region"]`.
    path: Vec<String>,
    /// The place in the submitted document, as a JSON Pointer.
    pointer: Option<String>,
    /// The line in the submitted text, from 1.
    line: Option<usize>,
    /// Finer name of the mistake in `snake_case`; stable, and more may be added.
    problem: Option<String>,
    /// How to mend it, or what was probably meant.
    suggestion: Option<String>,
    /// Name of the document it was found in.
    document_name: Option<String>,
}

/// The thing was changed since it was read, or exists already.
#[derive(Debug, Clone, SimpleObject)]
pub(crate) struct ConflictError {
    /// What kind of mistake; stable.
    code: UserErrorCode,
    /// What is wrong, for people.
    message: String,
    /// The place in the arguments.
    path: Vec<String>,
    /// The revision that the thing has now. Null: it is not there.
    current_revision: Option<i32>,
}

/// The state of the thing, or of others, does not allow it.
#[derive(Debug, Clone, SimpleObject)]
pub(crate) struct PreconditionError {
    /// What kind of mistake; stable.
    code: UserErrorCode,
    /// What is wrong, for people.
    message: String,
    /// The place in the arguments.
    path: Vec<String>,
    /// Kinds and names of what stands in the way.
    blockers: Vec<String>,
}

/// What kind of mistake. Stable; more may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum UserErrorCode {
    /// A value that is needed is missing.
    Required,
    /// A value is wrong; `problem` and `message` say how.
    Invalid,
    /// An id has the wrong form or names another kind of thing.
    InvalidId,
    /// The name is taken.
    Taken,
    /// There is no such thing.
    NotFound,
    /// The thing has another revision than expected.
    Conflict,
    /// Other things need it.
    InUse,
    /// There are too many of something.
    TooMany,
    /// This run cannot be replayed.
    NotReplayable,
    /// The run was replayed before.
    AlreadyReplayed,
    /// The idempotency key was used with another input.
    IdempotencyKeyReused,
    /// The workflow cannot take this event.
    NotStartable,
    /// A run of the workflow worked on the event already.
    AlreadyRan,
    /// The run or backfill is over, or does not stand where it would have to.
    NotOpen,
    /// The thing has runs that are not over.
    OpenRuns,
    /// Nobody holds the run, so there is nothing to let go on.
    NotPaused,
    /// The step does not ask for a decision (any more).
    NotAsked,
    /// Nothing in the run waits for its next try.
    NothingWaits,
    /// The decision is for others.
    NotYours,
    /// The connection is not one that a person lets in, or has no access.
    NotGranted,
    /// Nothing can be said about this effect.
    NotResolvable,
    /// What the replay would do is no longer what was shown: look at the new preview.
    PreviewChanged,
}

/// Says where in the arguments a document's problem lies.
pub(crate) type Place<'a> = dyn Fn(&ConfigProblem) -> Vec<String> + Sync + 'a;

impl UserError {
    /// A value of the input is wrong. `field` is below `input`.
    pub(crate) fn input(code: UserErrorCode, field: &str, message: impl Into<String>) -> Self {
        UserError::InputError(InputError {
            code,
            message: message.into(),
            path: below_input(&[field]),
            pointer: None,
            line: None,
            problem: None,
            suggestion: None,
            document_name: None,
        })
    }

    /// A value inside a JSON value of the input is wrong. The problem's pointer starts at the value of `field`.
    pub(crate) fn inside(field: &str, problem: weir_workflow_engine::Problem) -> Self {
        let mut path = below_input(&[field]);
        path.extend(segments(&problem.pointer));
        UserError::InputError(InputError {
            code: UserErrorCode::Invalid,
            message: problem.message,
            path,
            pointer: Some(problem.pointer),
            line: None,
            problem: Some(problem.code.to_owned()),
            suggestion: problem.suggestion,
            document_name: None,
        })
    }

    /// A text of the input cannot be parsed.
    pub(crate) fn unreadable(path: Vec<String>, line: usize, message: String) -> Self {
        UserError::InputError(InputError {
            code: UserErrorCode::Invalid,
            message,
            path,
            pointer: None,
            line: Some(line),
            problem: Some("yaml".to_owned()),
            suggestion: None,
            document_name: None,
        })
    }

    /// There is no such thing.
    pub(crate) fn not_found(field: &str) -> Self {
        UserError::input(
            UserErrorCode::NotFound,
            field,
            "there is no such thing in this workspace",
        )
    }

    /// No workflow called `name` can do this; it stands in `field`.
    pub(crate) fn no_workflow(caller: &Caller, field: &str, name: &str) -> Self {
        let (message, suggestion) = caller.no_workflow(name);
        UserError::InputError(InputError {
            code: UserErrorCode::NotFound,
            message,
            path: below_input(&[field]),
            pointer: None,
            line: None,
            problem: None,
            suggestion,
            document_name: None,
        })
    }

    /// The state does not allow it.
    pub(crate) fn precondition(
        code: UserErrorCode,
        field: &str,
        message: impl Into<String>,
        blockers: Vec<String>,
    ) -> Self {
        UserError::PreconditionError(PreconditionError {
            code,
            message: message.into(),
            path: below_input(&[field]),
            blockers,
        })
    }

    /// What is wrong, for people.
    pub(crate) fn text(&self) -> &str {
        match self {
            UserError::InputError(error) => &error.message,
            UserError::ConflictError(error) => &error.message,
            UserError::PreconditionError(error) => &error.message,
        }
    }

    fn of_problem(problem: ConfigProblem, place: &Place<'_>) -> Self {
        let code = match problem.code.as_str() {
            "missing" | "required" => UserErrorCode::Required,
            "too_many" => UserErrorCode::TooMany,
            _ => UserErrorCode::Invalid,
        };
        UserError::InputError(InputError {
            code,
            path: place(&problem),
            message: problem.message,
            pointer: Some(problem.pointer),
            line: problem.line,
            problem: Some(problem.code),
            suggestion: problem.suggestion,
            document_name: problem.name,
        })
    }
}

/// Turns the orchestrator's refusal into user errors. `place` says where in the arguments a document's problem lies.
///
/// # Errors
/// When it was not the user's doing: the database cannot be written.
pub(crate) fn of_apply(error: ApplyError, field: &str, place: &Place<'_>) -> ApiResult<Vec<UserError>> {
    Ok(match error {
        ApplyError::Invalid(problems) => problems
            .into_iter()
            .map(|problem| UserError::of_problem(problem, place))
            .collect(),
        ApplyError::Conflict {
            kind,
            name,
            current_revision,
        } => {
            let message = match current_revision {
                Some(revision) => format!("{kind} `{name}` has revision {revision}"),
                None => format!("{kind} `{name}` is not there any more"),
            };
            let path = below_input(&[field]);
            let code = if field == "name" {
                UserErrorCode::Taken
            } else {
                UserErrorCode::Conflict
            };
            vec![UserError::ConflictError(ConflictError {
                code,
                message,
                path,
                current_revision: current_revision.map(long_to_int),
            })]
        }
        error @ ApplyError::OpenRuns { .. } => {
            let message = format!("{error}; set `cancelOpenRuns` to have them asked to end");
            vec![UserError::precondition(
                UserErrorCode::OpenRuns,
                "cancelOpenRuns",
                message,
                Vec::new(),
            )]
        }
        ApplyError::InUse { by } => {
            let message = format!("it is used by {}", by.join(", "));
            vec![UserError::precondition(UserErrorCode::InUse, "id", message, by)]
        }
        ApplyError::NotFound => vec![UserError::not_found("id")],
        ApplyError::Unavailable(cause) => {
            tracing::warn!("a change of the configuration was not written: {cause}");
            return Err(ApiError::new(
                Code::DatabaseUnavailable,
                "the change could not be written; nothing was changed",
            ));
        }
    })
}

/// The place of a problem when the input object is the document itself.
pub(crate) fn in_input(problem: &ConfigProblem) -> Vec<String> {
    let mut path = below_input(&[]);
    path.extend(segments(&problem.pointer));
    path
}

/// The place of a problem when the document is the value of one field of the input.
pub(crate) fn in_field(field: &'static str) -> impl Fn(&ConfigProblem) -> Vec<String> {
    move |problem| {
        let mut path = below_input(&[field]);
        path.extend(segments(&problem.pointer));
        path
    }
}

/// A path below `input`.
pub(crate) fn below_input(fields: &[&str]) -> Vec<String> {
    std::iter::once("input")
        .chain(fields.iter().copied())
        .map(str::to_owned)
        .collect()
}

/// The parts of a JSON Pointer.
fn segments(pointer: &str) -> impl Iterator<Item = String> + '_ {
    pointer
        .split('/')
        .skip(1)
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
}
