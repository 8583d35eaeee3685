//! The follow-up reads of a trigger: their order, and which of them a run needs.
//!
//! The order is never written down by an author: a read comes after every read whose name it uses.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::catalogue::{HydrateMode, ReadInfo};
use crate::definition::DEFAULT_CALL_TIMEOUT;
use crate::expression::{Expression, Template, Use};
use crate::problem::{Problem, child, nearest};

/// How many reads an event type may have: each is a request per event.
///
/// Limit: reads that are put in order for a run | the manifest is refused | `reads_that_cannot_be_ordered_are_refused_with_their_place`
pub const MAX_READS: usize = 16;

/// The names that a read sees beside the reads before it.
const ROOTS: [&str; 2] = ["event", "ref"];

/// One read of a plan.
#[derive(Clone, Debug)]
pub struct PlannedRead {
    pub(crate) info: ReadInfo,
    pub(crate) with: Template,
    pub(crate) when: Option<Expression>,
    /// True of an answer that is not older than the event.
    pub(crate) fresh: Option<Expression>,
    /// Positions of the reads whose outputs `with` uses.
    pub(crate) needs: Vec<usize>,
    /// Positions of all reads that have to be over before this one can be decided.
    pub(crate) after: Vec<usize>,
    /// Whether the run makes this read at all, by its hydrate mode.
    pub(crate) wanted: bool,
}

impl PlannedRead {
    /// Its name: `hydrated.<name>`.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// The operation, without the connector.
    pub fn operation(&self) -> &str {
        &self.info.operation
    }

    /// Whether a run makes it (unless its `when` says no).
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// How long one try may take.
    pub(crate) fn timeout(&self) -> Duration {
        DEFAULT_CALL_TIMEOUT
    }
}

/// Compiles reads and finds what each comes after; pointers are relative to the list of reads.
fn compile(reads: &[ReadInfo]) -> Result<Vec<PlannedRead>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut planned = Vec::with_capacity(reads.len());
    if reads.len() > MAX_READS {
        let message = format!("{} reads are more than {MAX_READS}", reads.len());
        problems.push(Problem::new("", "too_many_reads", message));
    }
    for read in reads {
        let pointer = child("", &read.name);
        if reads.iter().filter(|other| other.name == read.name).count() > 1 || ROOTS.contains(&read.name.as_str()) {
            let message = format!("the name `{}` is taken", read.name);
            problems.push(Problem::new(&pointer, "duplicate_read", message));
        }
        let with = Template::compile(&read.with, &child(&pointer, "with")).unwrap_or_else(|mut found| {
            problems.append(&mut found);
            Template::default()
        });
        let mut condition = |text: Option<&str>, pointer: &str| {
            let parsed = text.map(|text| Expression::parse(text, pointer)).transpose();
            parsed.unwrap_or_else(|problem| {
                problems.push(problem);
                None
            })
        };
        let (when_pointer, fresh_pointer) = (child(&pointer, "when"), child(&pointer, "fresh"));
        let when = condition(read.when.as_deref(), &when_pointer);
        let fresh = condition(read.fresh.as_deref(), &fresh_pointer);
        let mut positions = |uses: &mut dyn Iterator<Item = &Use>, pointer: &str| -> BTreeSet<usize> {
            let mut found = BTreeSet::new();
            for used in uses.filter(|used| !ROOTS.contains(&used.root.as_str())) {
                match reads.iter().position(|other| other.name == used.root) {
                    Some(position) => {
                        found.insert(position);
                    }
                    None => {
                        let known: Vec<&str> = ROOTS
                            .into_iter()
                            .chain(reads.iter().map(|read| read.name.as_str()))
                            .collect();
                        let message = format!("a read does not see `{}`", used.root);
                        let problem = Problem::new(pointer, "unknown_name", message);
                        problems.push(match nearest(&used.root, known.iter().copied()) {
                            Some(near) => problem.suggest(format!("did you mean `{near}`?")),
                            None => problem.suggest(format!("known: {}", known.join(", "))),
                        });
                    }
                }
            }
            found
        };
        let needs = positions(
            &mut with.expressions().flat_map(Expression::uses),
            &child(&pointer, "with"),
        );
        let asked = positions(&mut when.iter().flat_map(Expression::uses), &when_pointer);
        // A read knows its own answer by its name, and that alone is no reason to come after itself.
        let others = fresh.iter().flat_map(Expression::uses);
        let compared = positions(&mut others.filter(|used| used.root != read.name), &fresh_pointer);
        let after = [&needs, &asked, &compared].into_iter().flatten().copied();
        let after: BTreeSet<usize> = after.collect();
        planned.push(PlannedRead {
            info: read.clone(),
            with,
            when,
            fresh,
            needs: needs.into_iter().collect(),
            after: after.into_iter().collect(),
            wanted: true,
        });
    }
    if problems.is_empty() {
        Ok(planned)
    } else {
        Err(problems)
    }
}

/// An order in which every read comes after those it uses; among equals the order of the manifest.
fn order(planned: &[PlannedRead]) -> Result<Vec<usize>, Vec<Problem>> {
    let mut order: Vec<usize> = Vec::with_capacity(planned.len());
    while order.len() < planned.len() {
        let ready = |at: &usize| {
            let is_free = |read: &PlannedRead| read.after.iter().all(|before| order.contains(before));
            !order.contains(at) && planned.get(*at).is_some_and(is_free)
        };
        match (0..planned.len()).find(ready) {
            Some(next) => order.push(next),
            None => {
                let stuck: Vec<&PlannedRead> = planned
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| !order.contains(at))
                    .map(|(_, read)| read)
                    .collect();
                let names: Vec<&str> = stuck.iter().map(|read| read.name()).collect();
                let message = format!("reads wait for each other: {}", names.join(", "));
                let pointer = stuck.first().map(|read| child("", read.name())).unwrap_or_default();
                return Err(vec![Problem::new(pointer, "read_cycle", message)]);
            }
        }
    }
    Ok(order)
}

/// The order in which reads can run: positions in `reads`, each after those whose names it uses.
///
/// # Errors
/// More than [`MAX_READS`] reads, a name used twice, a name that no read has, faulty expressions, a cycle. Pointers
/// are relative to the map of reads: `/customer/with/id`.
pub fn read_order(reads: &[ReadInfo]) -> Result<Vec<usize>, Vec<Problem>> {
    order(&compile(reads)?)
}

/// The reads of a plan. `used` says whether the workflow uses a read by name, or all of them.
///
/// `always`: every read is wanted. `missing`: only those that the workflow uses, and those that these use in turn;
/// whether the event already carries the object is the read's own `when` to say. `never`: none.
pub(crate) fn plan(
    reads: &[ReadInfo],
    mode: HydrateMode,
    used: impl Fn(&str) -> bool,
) -> Result<Vec<PlannedRead>, Vec<Problem>> {
    let mut planned = compile(reads)?;
    let order = order(&planned)?;
    let mut wanted: BTreeSet<usize> = BTreeSet::new();
    for position in order.into_iter().rev() {
        let Some(read) = planned.get(position) else {
            continue;
        };
        let is_wanted = match mode {
            HydrateMode::Always => true,
            HydrateMode::Missing => used(read.name()) || wanted.contains(&position),
            HydrateMode::Never => false,
        };
        if is_wanted {
            wanted.insert(position);
            wanted.extend(read.after.iter().copied());
        }
    }
    for (position, read) in planned.iter_mut().enumerate() {
        read.wanted = wanted.contains(&position);
    }
    Ok(planned)
}
