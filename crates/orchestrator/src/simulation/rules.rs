//! Rules of the product that the simulation can break on purpose, to show that it notices.
//!
//! Each is a line of the durability rules. They are broken in the simulation's own shell; the product has no such
//! switch.

/// What is broken; the default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Broken {
    #[default]
    Nothing,
    /// Effects leave before their intent is on disk.
    EffectsBeforeCommit,
    /// Mail is deleted before what came of it is in the journal.
    MailLost,
    /// Mail stays in the inbox when it is taken in.
    MailKept,
    /// The key of an effect holds the id of its run.
    KeyWithRunId,
    /// A process whose place was taken goes on writing.
    NoFence,
    /// A step that begins to wait does not look for what is there already.
    NoLookBack,
    /// A blind effect is sent again without proof that it never left.
    BlindResent,
    /// An effect that can be looked for is sent again without a look.
    NotLookedFor,
    /// A process that stood still sends what it was about to send, though its lease is over.
    LeaseIgnored,
    /// Deliveries of one event count as different ones.
    DedupeIgnored,
    /// The provider is told that an event was taken before it is on disk.
    AckBeforeCommit,
    /// A run whose lane is not free is launched.
    LaneIgnored,
    /// A run is launched although as many as the limit says are in progress.
    LimitIgnored,
    /// A run is launched although as many as the throttle says have started.
    RateIgnored,
    /// A run that waits for more events, or for whose event another one stands, is launched.
    MergedBegins,
    /// Runs that may start at last are neither loaded nor found.
    HandOverLost,
    /// Storage is not told that the time of a waiting run has come.
    DueIgnored,
    /// After a commit of unknown result nobody looks for the runs that it may have let start.
    NotLookedAgain,
    /// Whoever sent an event is answered before the intent of its `respond` is on disk.
    AnswerBeforeCommit,
    /// A run that begins at a step knows nothing of what came before it.
    TakenOverLost,
    /// A run goes on with the version that is published now.
    VersionIgnored,
    /// The key of an effect is that of its step, whatever the request says.
    DigestIgnored,
    /// Requests leave although the budget of the connection is used up.
    BudgetIgnored,
    /// The row of a run that was woken, and went on, says that it waits.
    StaysAsleep,
}

impl Broken {
    pub(super) const ALL: [Self; 24] = [
        Self::EffectsBeforeCommit,
        Self::MailLost,
        Self::MailKept,
        Self::KeyWithRunId,
        Self::NoFence,
        Self::NoLookBack,
        Self::BlindResent,
        Self::NotLookedFor,
        Self::LeaseIgnored,
        Self::DedupeIgnored,
        Self::AckBeforeCommit,
        Self::LaneIgnored,
        Self::LimitIgnored,
        Self::RateIgnored,
        Self::MergedBegins,
        Self::HandOverLost,
        Self::DueIgnored,
        Self::NotLookedAgain,
        Self::AnswerBeforeCommit,
        Self::TakenOverLost,
        Self::VersionIgnored,
        Self::DigestIgnored,
        Self::BudgetIgnored,
        Self::StaysAsleep,
    ];
}
