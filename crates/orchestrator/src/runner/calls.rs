//! The calls of a run that are under way.
//!
//! A call may hold something that everybody shares: a connection to the database, a place in the queue for one, a slot of
//! a budget. So it goes on whatever else its run waits for. One that stood still meanwhile would keep what the run itself,
//! or another one, waits for.

use std::collections::VecDeque;
use std::pin::pin;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use weir_workflow_engine::{CallId, CallResult, Timestamp};

use crate::driver::Given;
use crate::runs::Mailbox;

/// A call until it comes back.
pub(super) type Call = BoxFuture<'static, (CallId, CallResult)>;

/// What is under way, and what came back and was not taken in.
#[derive(Default)]
pub(super) struct Calls {
    running: FuturesUnordered<Call>,
    back: VecDeque<(CallId, CallResult)>,
}

impl Calls {
    /// One more.
    pub(super) fn push(&mut self, call: Call) {
        self.running.push(call);
    }

    /// Whether nothing is under way and everything was taken in.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.back.is_empty()
    }

    /// Waits for `other` while the calls go on.
    pub(super) async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> T {
        let Self { running, back } = self;
        let mut other = pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return done,
                Some(came) = running.next() => back.push_back(came),
            }
        }
    }

    /// What comes first; `None` = mail. A stop of the process counts as a time that has come.
    pub(super) async fn next_input(
        &mut self,
        (due, now): (Option<Timestamp>, Timestamp),
        until_stop: Option<impl Future<Output = ()>>,
        mailbox: &Mailbox,
    ) -> Option<Given> {
        if let Some((call, result)) = self.back.pop_front() {
            return Some(Given::Outcome(call, result));
        }
        let stop = async {
            match until_stop {
                Some(stop) => stop.await,
                None => std::future::pending().await,
            }
        };
        let until = async {
            match due {
                Some(due) => tokio::time::sleep(due.since(now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((call, result)) = self.running.next() => Some(Given::Outcome(call, result)),
            () = until => Some(Given::Due),
            () = stop => Some(Given::Due),
            () = mailbox.arrived() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Semaphore;
    use weir_workflow_engine::{CallOutcome, Document, Origin};

    use super::*;

    fn done() -> CallResult {
        CallResult {
            outcome: CallOutcome::Done {
                output: Document::null(),
            },
            exchanges: Vec::new(),
            origin: Origin::Sent,
        }
    }

    /// A run waits for a connection, and its own calls hold all of them, or are next in the queue for one.
    #[tokio::test]
    async fn what_a_call_holds_is_given_back_while_its_run_waits_for_it() {
        let connections = Arc::new(Semaphore::new(1));
        let mut calls = Calls::default();
        for number in 1..=3 {
            let connections = Arc::clone(&connections);
            calls.push(Box::pin(async move {
                let _one = connections.acquire().await.unwrap();
                // Not at once: it has to be polled once more to get on.
                tokio::task::yield_now().await;
                (CallId(number), done())
            }));
        }
        // They stand in the queue before the run does.
        calls.meanwhile(tokio::task::yield_now()).await;
        let own = calls.meanwhile(connections.acquire());
        let permit = tokio::time::timeout(Duration::from_secs(10), own).await;
        drop(permit.unwrap().unwrap());
        // What came back meanwhile is taken in, in its order.
        let mailbox = Mailbox::default();
        for number in 1..=3 {
            assert!(!calls.is_empty());
            let stop = None::<std::future::Pending<()>>;
            let given = calls
                .next_input((None, Timestamp::from_unix_ms(0)), stop, &mailbox)
                .await;
            assert!(
                matches!(given, Some(Given::Outcome(CallId(came), _)) if came == number),
                "{given:?}"
            );
        }
        assert!(calls.is_empty());
    }
}
