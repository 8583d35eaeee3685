//! Mail of a run: from rows of its inbox to what the engine takes in, and what a commit changes about its waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use weir_storage::{
    Mail as Row, MailChange, MailKind, NewWait, ReadError, Request, RunRow, StoredEvent, WaitKey, WaitKind,
};
use weir_workflow_engine::{
    Awaits, Document, Ending, Entry, Event, EventId, EventSource, IdGenerator, Mail, RunId, RunState, Timestamp,
    WorkspaceId, decode,
};

use crate::clock::CLOCKS_APART;
use crate::own;
use crate::recovery::restore_event;
use crate::service::Core;
use crate::snapshot::Snapshot;

/// What somebody asks of a run, as it stands in its inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Asked {
    Cancel {
        by: String,
        reason: String,
    },
    Pause {
        by: String,
        reason: String,
    },
    Resume {
        by: String,
    },
    Hurry {
        by: String,
    },
    Decision {
        step: String,
        approved: bool,
        by: String,
        note: String,
    },
}

impl Asked {
    pub(crate) fn to_body(&self) -> String {
        serde_json::to_string(self).expect("it has text keys only")
    }
}

/// The first event that counts for what a run waits for, when it looks back: those since its root was accepted. Servers
/// that take a run and an event one right after the other may tell their times the other way round, so a little more
/// counts than that.
pub(crate) fn looks_back_to(root: RunId) -> EventId {
    let apart = i64::try_from(CLOCKS_APART.as_millis()).unwrap_or(i64::MAX);
    let began = root.made_at().as_unix_ms();
    EventId::first_at(Timestamp::from_unix_ms(began.saturating_sub(apart)))
}

/// A piece of mail with all that belongs to it.
#[derive(Debug)]
pub(crate) enum Letter {
    Event(Arc<Event>),
    RunEnded {
        root: RunId,
        run: RunId,
        ending: Ending,
        output: Document,
    },
    Asked(Asked),
    /// What it is about is no longer stored.
    Lost,
}

impl Letter {
    /// What the engine takes in; `None` when there is nothing to take in.
    pub(crate) fn as_mail(&self) -> Option<Mail<'_>> {
        Some(match self {
            Self::Event(event) => Mail::Event(event),
            Self::RunEnded {
                root,
                run,
                ending,
                output,
            } => Mail::RunEnded {
                root: *root,
                run: *run,
                ending,
                output,
            },
            Self::Asked(Asked::Cancel { by, reason }) => Mail::Cancel { by, reason },
            Self::Asked(Asked::Pause { by, reason }) => Mail::Pause { by, reason },
            Self::Asked(Asked::Resume { by }) => Mail::Resume { by },
            Self::Asked(Asked::Hurry { by }) => Mail::Hurry { by },
            Self::Asked(Asked::Decision {
                step,
                approved,
                by,
                note,
            }) => Mail::Decision {
                step,
                approved: *approved,
                by,
                note,
            },
            Self::Lost => return None,
        })
    }
}

/// The inbox of a run in memory, and which of its steps the database knows to be waiting.
#[derive(Debug)]
pub(crate) struct Inbox {
    run: RunId,
    workspace: WorkspaceId,
    /// Not taken in yet, oldest first.
    rows: Vec<Row>,
    /// Taken in, and not committed.
    taken: Vec<i64>,
    /// Steps that the database knows to be waiting, with the run that each waits for, if it is one.
    registered: BTreeMap<Arc<str>, Option<RunId>>,
    /// Steps that got what they waited for since the last commit.
    arrived: BTreeSet<Arc<str>>,
    /// Steps that began to wait for the end of a run since the last commit, with that run.
    begun: BTreeMap<Arc<str>, RunId>,
}

impl Inbox {
    pub(crate) fn new(state: &RunState, rows: Vec<Row>) -> Self {
        Self {
            run: state.head().id,
            workspace: state.head().workspace,
            rows,
            taken: Vec::new(),
            registered: waits(state),
            arrived: BTreeSet::new(),
            begun: BTreeMap::new(),
        }
    }

    /// What stands in the inbox now.
    pub(crate) fn refill(&mut self, rows: Vec<Row>) {
        self.rows = rows.into_iter().filter(|row| !self.taken.contains(&row.id)).collect();
    }

    /// The oldest piece that was read and not taken in.
    pub(crate) fn first(&self) -> Option<&Row> {
        self.rows.first()
    }

    /// The oldest piece is taken in.
    pub(crate) fn take_first(&mut self) {
        if !self.rows.is_empty() {
            self.taken.push(self.rows.remove(0).id);
        }
    }

    /// Whether all that was read is taken in.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Looks at entries that are about to be committed.
    pub(crate) fn note(&mut self, entries: &[Entry]) {
        for entry in entries {
            match entry {
                Entry::Arrived(arrived) => _ = self.arrived.insert(Arc::clone(&arrived.step)),
                Entry::Awaited(awaited) => {
                    if let Awaits::Run { run } = awaited.what {
                        self.begun.insert(Arc::clone(&awaited.step), run);
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a step waits of which the database does not know.
    pub(crate) fn has_news(&self, state: &RunState) -> bool {
        state.open_waits().any(|wait| !self.registered.contains_key(wait.step))
    }

    /// What the next commit changes. `over`: it is the last one.
    pub(crate) fn change(
        &self,
        ids: &IdGenerator,
        state: &RunState,
        over: bool,
        now: Timestamp,
    ) -> Option<Box<MailChange>> {
        let mut change = MailChange::new(self.workspace);
        change.taken.clone_from(&self.taken);
        let open = waits(state);
        for (step, child) in self.registered.iter().filter(|(step, _)| !open.contains_key(*step)) {
            change.closed.push(step.to_string());
            if let (Some(child), false) = (child, self.arrived.contains(step)) {
                change
                    .sends
                    .push(no_longer_wanted(ids, self.workspace, self.run, *child, now));
            }
        }
        // Of a step that was left as soon as its run was started the database never hears that it waited.
        let at_once = self.begun.iter().filter(|(step, _)| {
            !open.contains_key(*step) && !self.registered.contains_key(*step) && !self.arrived.contains(*step)
        });
        for (_, child) in at_once {
            change
                .sends
                .push(no_longer_wanted(ids, self.workspace, self.run, *child, now));
        }
        for wait in state
            .open_waits()
            .filter(|wait| !self.registered.contains_key(wait.step))
        {
            let (kind, title, detail) = match &wait.awaited.what {
                Awaits::Event {
                    connector,
                    kind,
                    key,
                    equals,
                } => {
                    let key = event_key(self.workspace, connector, kind, key, equals);
                    // A replay sees what its first run could have seen.
                    let since = looks_back_to(state.head().root_id).as_raw();
                    (WaitKind::Event { key, since }, None, None)
                }
                Awaits::Approval { title, detail, by } => {
                    let detail = json!({ "detail": detail.value(), "by": by }).to_string();
                    (WaitKind::Approval, Some(title.to_string()), Some(detail))
                }
                Awaits::Run { run } => (WaitKind::Run(*run), None, None),
            };
            change.opened.push(NewWait {
                step: wait.step.to_string(),
                kind,
                title: title.as_deref().map(crate::runner::storable),
                detail: detail.as_deref().map(crate::runner::storable),
                created_at: wait.awaited.at,
                due_at: Some(wait.awaited.until),
            });
        }
        // An edited event is a person's; its headers still tell whose it was.
        let started_by_run = state.event().source == EventSource::Workflow || own::has_parent(state.event());
        change.ends = (over && started_by_run).then(|| state.head().root_id);
        (!change.is_empty()).then(|| Box::new(change))
    }

    /// The commit was made.
    pub(crate) fn committed(&mut self, state: &RunState) {
        self.taken.clear();
        self.arrived.clear();
        self.begun.clear();
        self.registered = waits(state);
    }
}

fn waits(state: &RunState) -> BTreeMap<Arc<str>, Option<RunId>> {
    let run = |what: &Awaits| match what {
        Awaits::Run { run } => Some(*run),
        Awaits::Event { .. } | Awaits::Approval { .. } => None,
    };
    let open = state.open_waits();
    open.map(|wait| (Arc::clone(wait.step), run(&wait.awaited.what)))
        .collect()
}

fn no_longer_wanted(ids: &IdGenerator, workspace: WorkspaceId, parent: RunId, child: RunId, now: Timestamp) -> Request {
    let asked = Asked::Cancel {
        by: parent.to_string(),
        reason: format!("{parent}, which started it, waits for it no longer"),
    };
    Request {
        id: ids.next_raw(now),
        workspace,
        run: child,
        body: asked.to_body(),
        at: now,
        answers: None,
        audit: None,
    }
}

/// What a step that waits for an event is found by.
pub(crate) fn event_key(workspace: WorkspaceId, connector: &str, kind: &str, key: &str, value: &str) -> WaitKey {
    WaitKey::of(&["event", &workspace.to_string(), connector, kind, key, value])
}

/// Reads all that belongs to a piece of mail.
pub(crate) async fn open(core: &Core, workspace: WorkspaceId, row: &Row) -> Result<Letter, ReadError> {
    match row.kind {
        MailKind::Event => {
            let stored = core.store.event_load(workspace, EventId::from_raw(row.id)).await?;
            Ok(of_event(&core.snapshot.load(), stored.as_ref()))
        }
        MailKind::RunEnded => {
            let run = RunId::from_raw(row.id);
            let Some(ended) = core.store.run_load(workspace, run).await? else {
                return Ok(Letter::Lost);
            };
            let journal = core.store.journal_load(workspace, run).await?;
            Ok(of_end(&ended, &journal))
        }
        MailKind::Request => Ok(of_request(row)),
    }
}

/// An event has come that a step may wait for.
pub(crate) fn of_event(snapshot: &Snapshot, stored: Option<&StoredEvent>) -> Letter {
    let event = stored.and_then(|stored| match restore_event(snapshot, &stored.row) {
        Ok(event) => Some(event),
        Err(reason) => {
            tracing::error!("an event that a run waits for cannot be read: {reason}");
            None
        }
    });
    event.map_or(Letter::Lost, |event| Letter::Event(Arc::new(event)))
}

/// Somebody asks for something.
pub(crate) fn of_request(row: &Row) -> Letter {
    match row.body.as_deref().map(serde_json::from_str::<Asked>) {
        Some(Ok(asked)) => Letter::Asked(asked),
        _ => {
            tracing::error!("a request in an inbox cannot be read, it is left out");
            Letter::Lost
        }
    }
}

/// How a run ended, from the last entry of its journal.
pub(crate) fn of_end(row: &RunRow, journal: &[(i32, Vec<u8>)]) -> Letter {
    let last = journal.last().and_then(|(_, body)| decode(body).ok());
    let finished = last.and_then(|(_, entries)| match entries.last() {
        Some(Entry::Finished(finished)) => Some(finished.clone()),
        _ => None,
    });
    let (ending, output) = match finished {
        Some(finished) => (finished.ending, finished.output),
        // It was ended without being driven.
        None => {
            let code = row.error_code.as_deref().unwrap_or("unreadable");
            let message = "the run could not be driven to its end";
            let failed = Ending::Failed {
                code: code.into(),
                message: message.into(),
                step: None,
            };
            (failed, None)
        }
    };
    Letter::RunEnded {
        root: row.root_id,
        run: row.id,
        ending,
        output: output.unwrap_or_else(Document::null),
    }
}
