//! What a database's error means for the facts in the transaction.

use crate::outcome::Constraint;

/// Why a transaction did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// One of the facts cannot be stored. Nothing was written.
    Fact(Offence),
    /// Others were in the way (a deadlock, a lock that took too long). Nothing was written; worth another try.
    Contended(String),
    /// The database cannot write now. Nothing was written. The connection may be broken.
    NotWritten(String),
    /// The commit was under way. The connection is not to be used again.
    Unknown(String),
    /// This process is not the node any more. Nothing was written.
    Fenced,
}

/// Which rule a fact broke.
#[derive(Debug)]
pub(crate) enum Offence {
    /// The place in the journal is taken.
    Journal,
    Other(Constraint),
}

impl Failure {
    /// A failure of a statement: the transaction around it was not committed.
    pub(crate) fn of_sqlite(error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let reason = error.to_string();
        let rusqlite::Error::SqliteFailure(cause, message) = error else {
            return Self::NotWritten(reason);
        };
        match cause.code {
            ErrorCode::ConstraintViolation => {
                let message = message.as_deref().unwrap_or_default();
                match message.strip_prefix("UNIQUE constraint failed: ") {
                    Some(columns) => Self::taken(columns),
                    None => Self::Fact(Offence::Other(Constraint::Value {
                        reason: message.to_owned(),
                    })),
                }
            }
            ErrorCode::TooBig | ErrorCode::TypeMismatch => Self::Fact(Offence::Other(Constraint::Value { reason })),
            _ => Self::NotWritten(reason),
        }
    }

    /// A failure of a statement or, with `committing`, of the commit or of a statement that commits by itself.
    pub(crate) fn of_postgres(error: &sqlx::Error, committing: bool) -> Self {
        let reason = error.to_string();
        let Some(cause) = error.as_database_error() else {
            return match error {
                // The value never left us.
                sqlx::Error::Encode(_) => Self::Fact(Offence::Other(Constraint::Value { reason })),
                _ if committing => Self::Unknown(reason),
                _ => Self::NotWritten(reason),
            };
        };
        let code = cause.code().unwrap_or_default();
        // PostgreSQL, appendix A: error codes. The first two characters are the class.
        match code.as_ref() {
            "23505" => match cause.constraint() {
                Some(name) => Self::taken(name),
                None => Self::taken(cause.table().unwrap_or("a unique value")),
            },
            "40001" | "40P01" | "55P03" => Self::Contended(reason),
            // The server goes away: it may have been committing.
            "57P01" | "57P02" | "57P03" | "57P05" | "25P03" if committing => Self::Unknown(reason),
            // Data and integrity: the value is at fault.
            _ if code.starts_with("22") || code.starts_with("23") || code.starts_with("54") => {
                Self::Fact(Offence::Other(Constraint::Value { reason }))
            }
            _ => Self::NotWritten(reason),
        }
    }

    /// An id that exists elsewhere, or that stands for something which does not change any more.
    pub(crate) fn taken_id() -> Self {
        Self::Fact(Offence::Other(Constraint::Taken { name: "id".to_owned() }))
    }

    pub(crate) fn not_deletable() -> Self {
        Self::Fact(Offence::Other(Constraint::Value {
            reason: "the whole configuration cannot be deleted".to_owned(),
        }))
    }

    /// The failure as the cause of another error.
    pub(crate) fn into_source(self) -> Box<dyn std::error::Error + Send + Sync> {
        match self {
            Self::Fact(Offence::Other(constraint)) => Box::new(constraint),
            Self::Fact(Offence::Journal) => "the journal has moved on".into(),
            Self::Fenced => "this process is not the node any more that the database knows".into(),
            Self::Contended(reason) | Self::NotWritten(reason) | Self::Unknown(reason) => reason.into(),
        }
    }

    fn taken(name: &str) -> Self {
        if name.starts_with("journal") {
            Self::Fact(Offence::Journal)
        } else {
            Self::Fact(Offence::Other(Constraint::Taken { name: name.to_owned() }))
        }
    }
}
