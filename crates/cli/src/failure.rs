//! How a command ends badly: what went wrong, what to do about it, and the exit code. One place prints it.
//!
//! Exit codes: 0 done · 1 failed · 2 wrong usage or settings · 3 `apply --dry-run` found a difference.

use crate::output;
use std::fmt;
use std::process::ExitCode;

/// The command could not do what it was asked for.
pub(crate) const EXIT_FAILURE: u8 = 1;
/// The command line or a setting is wrong; nothing was tried.
pub(crate) const EXIT_USAGE: u8 = 2;
/// Something would change. No error, and told apart from all of them, for whoever asks for drift in a script.
const EXIT_DIFFERENCE: u8 = 3;

/// An error whose author knows the remedy. Wrapped in `anyhow` like every other; [`report`] finds it in the chain.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    fix: Option<String>,
    code: u8,
}

impl Failure {
    /// Something that was tried failed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            fix: None,
            code: EXIT_FAILURE,
        }
    }

    /// What was asked for makes no sense as it stands.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            fix: None,
            code: EXIT_USAGE,
        }
    }

    /// Adds what the reader should do now.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// What the reader should do now.
    pub(crate) fn remedy(&self) -> Option<&str> {
        self.fix.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints the whole chain of causes and the remedy to standard error; answers the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // `chain` shows contexts only as text; the error itself knows what it was made of.
    let known = error.downcast_ref::<Failure>();
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Libraries often repeat their cause in their own text.
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    output::complain("error", &text);
    if let Some(fix) = known.and_then(Failure::remedy) {
        output::complain("fix", fix);
    }
    ExitCode::from(known.map_or(EXIT_FAILURE, |failure| failure.code))
}

/// The exit code of `apply --dry-run` when something would change.
pub(crate) fn exit_difference() -> ExitCode {
    ExitCode::from(EXIT_DIFFERENCE)
}
