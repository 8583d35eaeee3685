//! What is going to happen in a world, one thing at a time.

use weir_storage::RunCommit;
use weir_workflow_engine::{CallCommand, CallId, CallResult, Command, RunId, Timestamp};

use super::provider::Fate;

/// One thing that is going to happen.
#[derive(Debug)]
pub(super) enum Item {
    /// The provider delivers an event.
    Deliver(usize),
    /// A run is to be loaded by a process, or told that there is mail for it.
    Load(usize, RunId),
    /// A run in memory gets its turn.
    Turn(Place, Turn),
    /// A commit is offered again.
    Offer(Place, Box<RunCommit>, Box<Rest>),
    /// A process looks whether an effect was done.
    Look(Place, Box<CallCommand>),
    /// A process sends a request.
    Send(Place, Box<Command>),
    /// A call looks whether the budget of the connection lets it leave.
    Pass(usize, u64),
    /// A request arrives at the provider.
    Arrive(Box<Flight>),
    /// A result comes back to a process.
    Return(Place, CallId, Box<CallResult>),
    /// The process in charge dies and is started again.
    Crash { reboot: bool },
    /// The process in charge stands still, and another node takes over.
    TakeOver,
    /// A process that stood still goes on.
    Awake(usize),
    /// Whoever waits for the answer of this run has waited long enough.
    Impatient(usize, RunId),
    /// The sender of an event asks for the answer of its run.
    Fetch { told: usize, run: RunId, asks: u32 },
    /// A person publishes the next version of a workflow.
    Publish(usize),
    /// Somebody wants something of a run.
    Ask(Wish),
}

/// A run in the memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) process: usize,
    pub(super) run: RunId,
    /// Another one each time it is loaded.
    pub(super) stay: u64,
}

/// Why a run gets its turn.
#[derive(Debug)]
pub(super) enum Turn {
    Begin,
    /// There is more to do at once, or the first piece of mail.
    Next,
    /// Its time has come.
    Due,
    /// There may be mail.
    Mail,
}

/// What of a step comes after its commit.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) commands: Vec<Command>,
    pub(super) then: crate::driver::Then,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) place: Place,
    pub(super) command: Command,
    pub(super) fate: Fate,
    /// The key as it stands in the request.
    pub(super) key: String,
    /// When whoever sent it stops waiting.
    pub(super) deadline: Timestamp,
}

/// What somebody may want of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// A cancel or a pause of some open run.
    Something,
    Cancel(RunId),
    Pause(RunId),
    Resume(RunId),
    Decide(RunId, String),
    Replay(RunId),
    /// The lane that it keeps is to go on.
    Release(RunId),
}

impl Item {
    pub(super) fn told(&self) -> String {
        match self {
            Self::Deliver(told) => format!("event {told} is delivered"),
            Self::Load(process, run) => format!("process {process} is told of {run}"),
            Self::Turn(place, turn) => format!("turn of {} in process {}: {turn:?}", place.run, place.process),
            Self::Offer(place, row, _) => format!("commit {} of {} is offered again", row.seq, place.run),
            Self::Look(place, call) => format!("{} looks for {} {}", place.run, call.step, call.args.raw()),
            Self::Send(place, command) => format!("{} sends {:?}", place.run, command.call()),
            Self::Pass(process, ticket) => format!("call {ticket} of process {process} looks at the budget"),
            Self::Arrive(flight) => format!("request of {} arrives: {:?}", flight.place.run, flight.fate),
            Self::Return(place, call, result) => format!("{call} of {} comes back: {:?}", place.run, result.outcome),
            Self::Crash { reboot } => format!("crash, reboot: {reboot}"),
            Self::TakeOver => "another node takes over".to_owned(),
            Self::Awake(process) => format!("process {process} goes on"),
            Self::Impatient(_, run) => format!("nobody waits for the answer of {run} any longer"),
            Self::Fetch { told, run, .. } => format!("the sender of event {told} asks for the answer of {run}"),
            Self::Publish(workflow) => format!("version 2 of workflow {workflow} is published"),
            Self::Ask(wish) => format!("somebody wants {wish:?}"),
        }
    }
}
