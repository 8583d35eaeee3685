//! What a replay would do, told before it is started.

use crate::effect::EffectKey;
use crate::story::StepNames;

/// What the paths of the steps begin with that take care of a failed run.
const ON_FAILURE_STEPS: &str = "on_failure.";
/// More reasons than these say nothing more.
const REASONS_SHOWN: usize = 4;

/// What a replay would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayPreview {
    /// Calls that change nothing outside and would be made again.
    pub reads: Vec<PreviewRead>,
    /// Effects that took place; their recorded results would be used and nothing would be sent.
    pub answered: Vec<PreviewEffect>,
    /// Effects that would be sent.
    pub new: Vec<PreviewEffect>,
    /// Effects of which nobody knows: sent again where that is harmless, otherwise the end of the run.
    pub unknown: Vec<PreviewEffect>,
    /// Why the preview ends before the workflow does, if it does, or what else it cannot show.
    pub note: Option<String>,
    /// Whether more may be done than is shown: after a call without a recorded answer, after a wait whose outcome is
    /// open, in runs that it starts.
    pub in_part: bool,
    /// Whether the run would fail, for a reason that is known now.
    pub fails: bool,
    /// How people call the steps whose paths stand here.
    pub names: StepNames,
}

/// A read of a preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewRead {
    /// Path of the step, `hydrate.<read>` for a hydration read; `bill/look` in the run that the step `bill` starts.
    pub step: String,
    /// Name of the connector.
    pub connector: String,
    /// Name of the operation.
    pub operation: String,
}

/// An effect of a preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewEffect {
    /// Path of the step; `bill/pay` in the run that the step `bill` starts.
    pub step: String,
    /// Name of the connector.
    pub connector: String,
    /// Name of the operation.
    pub operation: String,
    /// `keyed`, `find_by`, `repeatable` or `blind`; empty when that is not recorded.
    pub class: &'static str,
    /// Its idempotency key.
    pub key: EffectKey,
    /// Whether the same step took place before with another request.
    pub changed: bool,
    /// Whether the step took place before and was undone.
    pub undone: bool,
    /// Whether something would be sent.
    pub sends: bool,
    /// Whether it hangs on a read that would be made again. When that answers otherwise than before, what was answered
    /// from the record may be another request, and that is sent.
    pub on_reads: bool,
}

impl ReplayPreview {
    /// The effect that a replay would stop at without having sent anything but what tells of a failure: nobody knows about
    /// it, and it must not be sent again.
    pub fn stuck_at(&self) -> Option<&PreviewEffect> {
        let tells = |effect: &PreviewEffect| effect.step.starts_with(ON_FAILURE_STEPS);
        let mut sent = self.new.iter().chain(&self.unknown);
        let sends = sent.any(|effect| effect.sends && !tells(effect));
        let mut unknown = self.unknown.iter();
        unknown.find(|effect| !effect.sends).filter(|_| !sends)
    }

    /// Notes why it does not show everything, behind what was noted before, the first few reasons.
    pub fn note(&mut self, note: String) {
        match &mut self.note {
            None => self.note = Some(note),
            Some(noted) if noted.contains(&note) || noted.matches("; ").count() >= REASONS_SHOWN => {}
            Some(noted) => {
                noted.push_str("; ");
                noted.push_str(&note);
            }
        }
    }

    /// Adds what a run would do that the step with this path starts.
    pub fn add_run(&mut self, path: &str, of: Self) {
        let Self {
            reads,
            answered,
            new,
            unknown,
            note,
            in_part,
            // Its note says so; what this run makes of it is not known.
            fails: _,
            names,
        } = of;
        let within = |step: &str| format!("{path}/{step}");
        self.names.add_run(path, names);
        self.reads.extend(reads.into_iter().map(|read| PreviewRead {
            step: within(&read.step),
            ..read
        }));
        for (own, others) in [
            (&mut self.answered, answered),
            (&mut self.new, new),
            (&mut self.unknown, unknown),
        ] {
            own.extend(others.into_iter().map(|effect| PreviewEffect {
                step: within(&effect.step),
                ..effect
            }));
        }
        self.in_part |= in_part;
        if let Some(note) = note {
            self.note(format!("of the run that `{path}` starts: {note}"));
        }
    }

    /// Notes that more may be done than is shown, and why.
    pub fn shown_in_part(&mut self, note: String) {
        self.in_part = true;
        self.note(note);
    }
}
