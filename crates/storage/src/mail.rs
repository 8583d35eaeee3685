//! What runs wait for, and what reaches them from outside.
//!
//! The journal of a run has one writer, its owner. Whoever else has something for a run leaves a piece of mail in its
//! inbox; the owner takes it out in the commit that says what came of it. So nothing is taken in twice, and nothing is
//! lost when the owner changes.

use sha2::{Digest as _, Sha256};
use weir_workflow_engine::{RunId, Timestamp, WorkspaceId};

use crate::config::AuditEntry;

/// What a waiting step is found by: the first 16 bytes of a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitKey([u8; 16]);

impl WaitKey {
    /// The key made of these parts, in this order. The first one should say what kind of thing it is.
    pub fn of(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&digest.finalize()[..16]);
        Self(key)
    }

    /// The key of the end of a run, or of one that repeats it: `root` is the first run of the family.
    pub fn end_of(root: RunId) -> Self {
        Self::of(&["run", &root.as_raw().to_string()])
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// The number by which PostgreSQL lets one transaction after the other look at this key.
    pub(crate) fn lock(&self) -> i64 {
        let (head, _) = self.0.split_at(8);
        head.try_into().map_or(0, i64::from_be_bytes)
    }
}

/// What a step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitKind {
    /// An event with this key, with an id of at least `since`; those that are stored already count.
    Event {
        /// What it is found by.
        key: WaitKey,
        /// The lowest raw id.
        since: i64,
    },
    /// A person's decision.
    Approval,
    /// The end of a run, or of what repeats it; it may be over already. Of those that are over the newest success
    /// counts; if there is none, an open one is waited for; if there is none either, the newest end counts.
    Run(RunId),
}

/// A step that begins to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWait {
    /// Path of the step, unique in its run.
    pub step: String,
    /// What for.
    pub kind: WaitKind,
    /// What a person is asked.
    pub title: Option<String>,
    /// What belongs to the question, a JSON object.
    pub detail: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it gives up.
    pub due_at: Option<Timestamp>,
}

/// What a commit of a run changes about its waiting and its inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailChange {
    /// Ids of mail that this commit takes in.
    pub taken: Vec<i64>,
    /// Paths of steps that wait no longer.
    pub closed: Vec<String>,
    /// Steps that begin to wait.
    pub opened: Vec<NewWait>,
    /// What this run asks of others, such as a run that it started and waits for no longer. Those that have ended are
    /// left alone.
    pub sends: Vec<Request>,
    /// The run ends with this commit, and others may wait for that: the first run of its family.
    pub ends: Option<RunId>,
    /// The tenant.
    pub workspace: WorkspaceId,
}

impl MailChange {
    /// No change yet.
    pub fn new(workspace: WorkspaceId) -> Self {
        Self {
            taken: Vec::new(),
            closed: Vec::new(),
            opened: Vec::new(),
            sends: Vec::new(),
            ends: None,
            workspace,
        }
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
            && self.closed.is_empty()
            && self.opened.is_empty()
            && self.sends.is_empty()
            && self.ends.is_none()
    }
}

/// What a piece of mail is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailKind {
    /// An event that a step waits for; the mail's id is the event's.
    Event,
    /// A run has ended; the mail's id is the run's.
    RunEnded,
    /// Somebody asks for something; the body says what.
    Request,
}

/// A piece of mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Its id: that of the event or run it is about, or its own.
    pub id: i64,
    /// What it is about.
    pub kind: MailKind,
    /// What it says; present for requests.
    pub body: Option<String>,
    /// When it was left.
    pub created_at: Timestamp,
}

/// Somebody asks something of an open run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// A fresh raw id.
    pub id: i64,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The run.
    pub run: RunId,
    /// What is asked, JSON.
    pub body: String,
    /// When.
    pub at: Timestamp,
    /// The step whose question this answers; it must still be asked, and is answered once.
    pub answers: Option<String>,
    /// What the audit trail says about it; written with it.
    pub audit: Option<AuditEntry>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// It is in the inbox.
    Delivered,
    /// There is no such run, or it has ended.
    NotOpen,
    /// The step does not ask (any more).
    NotAsked,
}

/// A decision that a person is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRow {
    /// The run.
    pub run: RunId,
    /// Path of the step.
    pub step: String,
    /// What is asked.
    pub title: String,
    /// What belongs to it, a JSON object.
    pub detail: String,
    /// Since when.
    pub created_at: Timestamp,
    /// When the step gives up.
    pub due_at: Option<Timestamp>,
}
