//! A provider that loses webhooks, by plan: so many changes of so many objects, and what becomes of the webhook of each.
//!
//! A plan follows from its options alone: the same options are the same plan, on every machine. Sending follows the plan
//! against the clock, writes the answer to each webhook down, and gives up what was not acknowledged, as providers do
//! that do not retry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::clock::now_unix_ms;
use crate::delivery::{Delivery, DeliveryOutcome, RetryPolicy};
use crate::scenario::Occurrence;
use crate::sender::SendError;
use crate::sign::Signer;
use crate::simulator::Simulator;

/// Webhooks in flight at the same time.
const IN_FLIGHT: usize = 64;
/// How long the receiver of a webhook may take, in milliseconds.
const TIMEOUT_MS: u64 = 15_000;
/// The name under which feeds sign: with their secret, in the header `x-feed-token`.
const CONNECTOR: &str = "feed";

/// How many changes there are and what becomes of their webhooks. Shares are of 1; what is left arrives once, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossOptions {
    /// Decides which webhooks are lost, doubled and late, and which objects change. Default 1.
    pub seed: u64,
    /// Changes. Default 10,000.
    pub events: u64,
    /// Objects that change. Default 2,000.
    pub objects: u64,
    /// Share of the webhooks that never arrive. Default 0.3.
    pub lost: f64,
    /// Share of the webhooks that arrive twice. Default 0.1.
    pub doubled: f64,
    /// Share of the webhooks that arrive out of order. Default 0.1.
    pub late: f64,
    /// How many later changes overtake a late one. Default 50.
    pub late_by: u64,
    /// Share of the objects that are deleted at last. Default 0.05.
    pub deleted: f64,
    /// Changes per second, above 0. Default 50.
    pub rate_per_s: f64,
}

impl Default for LossOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            events: 10_000,
            objects: 2_000,
            lost: 0.3,
            doubled: 0.1,
            late: 0.1,
            late_by: 50,
            deleted: 0.05,
            rate_per_s: 50.0,
        }
    }
}

/// What becomes of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It arrives once.
    Once,
    /// It never arrives.
    Lost,
    /// It arrives twice, at the same time.
    Twice,
    /// It arrives after later ones.
    Late,
}

/// One change of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its place among all changes, from 0.
    pub number: u64,
    /// The object, from 0.
    pub object: u64,
    /// The object's version, from 1.
    pub version: u64,
    /// Whether the object is gone.
    pub deletes: bool,
    /// What becomes of its webhook.
    pub fate: Fate,
}

impl Change {
    /// How the change is named by everybody: object and version.
    #[must_use]
    pub fn identity(&self, feed: &str) -> String {
        format!("{}.{}", self.object_id(feed), self.version)
    }

    /// The object's id at the provider.
    #[must_use]
    pub fn object_id(&self, feed: &str) -> String {
        format!("obj_{feed}_{:06}", self.object)
    }
}

/// Why there is no such plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LossError {
    /// The shares are not parts of one whole.
    #[error("`lost`, `doubled` and `late` are shares of 1 that do not add up to more")]
    Shares,
    /// Nothing can change, or never.
    #[error("`events` and `objects` are at least 1, `rate_per_s` is above 0")]
    Nothing,
}

/// What changes, in order, and what becomes of the webhooks.
#[derive(Clone, Debug)]
pub struct LossPlan {
    options: LossOptions,
    changes: Vec<Change>,
}

impl LossPlan {
    /// The plan of these options.
    ///
    /// # Errors
    /// [`LossError`].
    pub fn new(options: &LossOptions) -> Result<Self, LossError> {
        let shares = [options.lost, options.doubled, options.late, options.deleted];
        let is_share = |share: &f64| (0.0..=1.0).contains(share);
        if !shares.iter().all(is_share) || options.lost + options.doubled + options.late > 1.0 {
            return Err(LossError::Shares);
        }
        let can_wait = options.rate_per_s.is_finite() && options.rate_per_s > 0.0;
        if options.events == 0 || options.objects == 0 || !can_wait {
            return Err(LossError::Nothing);
        }
        let mut draw = StdRng::seed_from_u64(options.seed);
        let mut fates = Vec::new();
        for (fate, share) in [
            (Fate::Lost, options.lost),
            (Fate::Twice, options.doubled),
            (Fate::Late, options.late),
        ] {
            fates.extend((0..part(options.events, share)).map(|_| fate));
        }
        fates.extend((fates.len() as u64..options.events).map(|_| Fate::Once));
        for place in (1..fates.len()).rev() {
            fates.swap(place, draw.random_range(0..=place));
        }
        let mut versions = BTreeMap::new();
        let mut changes: Vec<Change> = (0..)
            .zip(fates)
            .map(|(number, fate)| {
                let object = draw.random_range(0..options.objects);
                let version = versions.entry(object).or_insert(0_u64);
                *version += 1;
                Change {
                    number,
                    object,
                    version: *version,
                    deletes: false,
                    fate,
                }
            })
            .collect();
        for change in &mut changes {
            let is_last = versions.get(&change.object) == Some(&change.version);
            change.deletes = is_last && change.version > 1 && draw.random_bool(options.deleted);
        }
        Ok(Self {
            options: options.clone(),
            changes,
        })
    }

    /// The changes, in order.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// How many webhooks have this fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> usize {
        self.changes.iter().filter(|change| change.fate == fate).count()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a share of a count of events"
)]
fn part(events: u64, share: f64) -> u64 {
    (events as f64 * share).round() as u64
}

/// How the receiver answered a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// 2xx, and the event was new.
    New,
    /// 2xx, and the event was there already.
    Again,
    /// Another status.
    Refused(u16),
    /// Nobody listened: the receiver has not seen it.
    Unreachable,
    /// The connection broke: nobody knows whether the receiver took it.
    Cut,
}

/// One webhook that was sent.
#[derive(Clone, Debug, Serialize)]
pub struct LossAttempt {
    /// Number of the change.
    pub number: u64,
    /// When the answer was there, milliseconds since the Unix epoch.
    pub ended_unix_ms: i64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The answer.
    pub answered: Answered,
}

/// What was sent and how it was answered.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LossTally {
    /// All webhooks that were sent, by when their answers came.
    pub attempts: Vec<LossAttempt>,
    /// When each change happened, milliseconds since the Unix epoch, by number.
    pub happened_unix_ms: Vec<i64>,
}

impl LossTally {
    /// How many webhooks were answered like this.
    #[must_use]
    pub fn count(&self, answered: Answered) -> usize {
        self.attempts
            .iter()
            .filter(|attempt| attempt.answered == answered)
            .count()
    }
}

/// Where webhooks of a feed go.
#[derive(Clone, Debug)]
pub struct LossTarget {
    /// Name of the feed, a word of letters and digits.
    pub feed: String,
    /// The URL.
    pub url: String,
    /// The token that they carry in `x-feed-token`.
    pub secret: String,
}

/// Webhooks on their way. Dropping it stops them.
pub struct LossRun {
    happened: Arc<AtomicU64>,
    task: JoinHandle<Result<LossTally, SendError>>,
}

impl LossRun {
    /// How many changes have happened.
    #[must_use]
    pub fn happened(&self) -> u64 {
        self.happened.load(Ordering::Relaxed)
    }

    /// Waits until everything has happened and every answer is there.
    ///
    /// # Errors
    /// [`SendError`] when a webhook could not be signed or sent at all.
    pub async fn finish(mut self) -> Result<LossTally, SendError> {
        match (&mut self.task).await {
            Ok(tally) => tally,
            Err(broken) => std::panic::resume_unwind(broken.into_panic()),
        }
    }
}

impl Drop for LossRun {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Simulator {
    /// Lets an object of a feed change: its lists show it from now on. Gives the webhook, unsent.
    pub fn change(&self, feed: &str, change: &Change) -> Occurrence {
        let id = format!("chg_{feed}_{:06}", change.number);
        let kind = if change.deletes {
            "object.deleted"
        } else {
            "object.changed"
        };
        let object = json!({ "id": change.object_id(feed), "version": change.version });
        let entry = json!({
            "id": id, "seq": change.number + 1, "type": kind, "time_ms": now_unix_ms(), "object": object,
        });
        crate::provider::feed::note(self.world(), feed, &entry, change.deletes);
        Occurrence {
            connector: CONNECTOR,
            id,
            kind: kind.to_owned(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: entry.to_string(),
        }
    }

    /// Limits how far back the lists of a feed reach, in milliseconds; `None` is for ever.
    pub fn set_feed_keeps_ms(&self, feed: &str, keeps_ms: Option<u64>) {
        self.world().feeds.set_keeps_ms(feed, keeps_ms);
    }

    /// Lets a feed forget, or know again, the cursors that it gave out: requests with one are answered with 410.
    pub fn set_feed_forgets_cursors(&self, feed: &str, forgets: bool) {
        self.world().feeds.set_forgets_cursors(feed, forgets);
    }

    /// Puts a change on a feed's list of failed deliveries, with the time of the failure, or takes it off.
    pub fn set_feed_undelivered(&self, feed: &str, id: &str, at_unix_ms: Option<i64>) {
        self.world().feeds.set_undelivered(feed, id, at_unix_ms);
    }

    /// How often each change was shown by the lists of a feed, by [`Change::identity`].
    pub fn feed_shown(&self, feed: &str) -> BTreeMap<String, u32> {
        self.world().feeds.shown(feed)
    }

    /// How often the list of failed deliveries of a feed was asked for.
    pub fn feed_failures_asked(&self, feed: &str) -> u64 {
        self.world().feeds.shown_failures(feed)
    }

    /// The webhook of a change, to be sent once.
    pub fn feed_delivery(&self, occurrence: Occurrence, target: &LossTarget) -> Delivery {
        let token = json!({ "token": { "at": "header:x-feed-token" } });
        let signer = Signer::from_verify(&token).expect("a token in a header is a scheme that senders know");
        self.set_signer(CONNECTOR, signer);
        Delivery {
            connector: occurrence.connector.to_owned(),
            url: target.url.clone(),
            signed_url: None,
            secrets: vec![target.secret.clone()],
            id: occurrence.id,
            kind: occurrence.kind,
            headers: occurrence.headers,
            body: occurrence.body,
            forge: None,
            retry: Some(RetryPolicy::none(TIMEOUT_MS)),
        }
    }

    /// Lets everything in a plan happen, at its rate, and sends what is not lost.
    #[must_use = "dropping it stops the webhooks"]
    pub fn lose(&self, plan: LossPlan, target: LossTarget) -> LossRun {
        let happened = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(follow(self.clone(), plan, target, Arc::clone(&happened)));
        LossRun { happened, task }
    }
}

async fn follow(
    simulator: Simulator,
    plan: LossPlan,
    target: LossTarget,
    happened: Arc<AtomicU64>,
) -> Result<LossTally, SendError> {
    let places = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut sending: JoinSet<Result<LossAttempt, SendError>> = JoinSet::new();
    let mut tally = LossTally::default();
    let mut held: Vec<(u64, u64, Delivery)> = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / plan.options.rate_per_s));
    // A sender that was held up makes good for it: changes happen at their rate.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let send = |sending: &mut JoinSet<Result<LossAttempt, SendError>>, number: u64, delivery: Delivery| {
        let (simulator, places) = (simulator.clone(), Arc::clone(&places));
        sending.spawn(async move {
            let _place = places.acquire_owned().await;
            let outcome = simulator.send(&delivery).await?;
            Ok(LossAttempt {
                number,
                ended_unix_ms: now_unix_ms(),
                took_ms: outcome.attempts.last().map_or(0, |attempt| attempt.duration_ms),
                answered: answered(&outcome),
            })
        });
    };
    for change in &plan.changes {
        ticks.tick().await;
        tally.happened_unix_ms.push(now_unix_ms());
        let occurrence = simulator.change(&target.feed, change);
        let delivery = simulator.feed_delivery(occurrence, &target);
        match change.fate {
            Fate::Lost => {}
            Fate::Once => send(&mut sending, change.number, delivery),
            Fate::Twice => {
                send(&mut sending, change.number, delivery.clone());
                send(&mut sending, change.number, delivery);
            }
            Fate::Late => held.push((change.number + plan.options.late_by, change.number, delivery)),
        }
        happened.fetch_add(1, Ordering::Relaxed);
        for (_, number, delivery) in held.extract_if(.., |(until, ..)| *until <= change.number) {
            send(&mut sending, number, delivery);
        }
        while let Some(done) = sending.try_join_next() {
            tally.attempts.push(joined(done)?);
        }
    }
    for (_, number, delivery) in held {
        send(&mut sending, number, delivery);
    }
    while let Some(done) = sending.join_next().await {
        tally.attempts.push(joined(done)?);
    }
    Ok(tally)
}

fn joined(done: Result<Result<LossAttempt, SendError>, tokio::task::JoinError>) -> Result<LossAttempt, SendError> {
    match done {
        Ok(attempt) => attempt,
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    }
}

fn answered(outcome: &DeliveryOutcome) -> Answered {
    let Some(attempt) = outcome.attempts.last() else {
        return Answered::Unreachable;
    };
    match (attempt.status, attempt.error.as_deref()) {
        (Some(status), _) if (200..300).contains(&status) => {
            let receipt: Value = serde_json::from_str(&attempt.answer).unwrap_or_default();
            match receipt["duplicate"].as_bool() {
                Some(false) => Answered::New,
                Some(true) => Answered::Again,
                // The head of the answer came, its body did not.
                None => Answered::Cut,
            }
        }
        (Some(status), _) => Answered::Refused(status),
        (None, Some("could not connect")) => Answered::Unreachable,
        (None, _) => Answered::Cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_options_and_keeps_to_its_shares() {
        let options = LossOptions::default();
        let plan = LossPlan::new(&options).unwrap();
        assert_eq!(plan.changes(), LossPlan::new(&options).unwrap().changes());
        let counts = [Fate::Once, Fate::Lost, Fate::Twice, Fate::Late].map(|fate| plan.count(fate));
        assert_eq!(counts, [5_000, 3_000, 1_000, 1_000]);
        let other = LossPlan::new(&LossOptions {
            seed: 2,
            ..options.clone()
        })
        .unwrap();
        assert_ne!(plan.changes(), other.changes());
        // Versions of an object rise one by one, and nothing happens to what is gone.
        let mut last: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
        for change in plan.changes() {
            let before = last.insert(change.object, (change.version, change.deletes));
            assert_eq!(before.unwrap_or_default(), (change.version - 1, false));
        }
        let deleted = last.values().filter(|(_, is_gone)| *is_gone).count();
        assert!((50..200).contains(&deleted), "{deleted}");
        assert_eq!(
            LossPlan::new(&LossOptions {
                lost: 0.9,
                ..options.clone()
            })
            .unwrap_err(),
            LossError::Shares
        );
        assert_eq!(
            LossPlan::new(&LossOptions { objects: 0, ..options }).unwrap_err(),
            LossError::Nothing
        );
    }
}
