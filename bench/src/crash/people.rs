//! The people of the flow that waits: they decide what it asks, over GraphQL, and hold some of the runs meanwhile.
//!
//! They ask the servers in turn and go on to the next one when a server is away. What a lost answer left undecided is
//! asked again, and a run that may be held is let go until a server says that it is not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::chance::Chance;
use crate::server::TOKEN;

/// Answers at a time.
const HANDS: usize = 8;
/// Most questions on one page.
const PAGE: usize = 100;
/// Of so many runs one is held before its question is decided.
const HELD_ONE_IN: u64 = 4;
/// Pause when nothing is asked, or when a server is away.
const PAUSE: Duration = Duration::from_millis(50);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

const ASKED: &str = "query($first: Int!) { approvals(first: $first) { nodes { runId step } } }";
const DECIDE: &str = "mutation($i: ApprovalDecideInput!) { done: approvalDecide(input: $i) { userErrors { code } } }";
const PAUSE_RUN: &str = "mutation($i: RunPauseInput!) { done: runPause(input: $i) { userErrors { code } } }";
const RESUME_RUN: &str = "mutation($i: RunResumeInput!) { done: runResume(input: $i) { userErrors { code } } }";

/// What the people did: how often each thing was carried out, and how often it was refused with which code.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deeds(Arc<Mutex<BTreeMap<String, u64>>>);

impl Deeds {
    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, what: String) {
        *self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(what)
            .or_default() += 1;
    }
}

/// The people at their work; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct People {
    work: JoinHandle<()>,
    pub deeds: Deeds,
}

impl Drop for People {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl People {
    /// Has them answer what the servers at `addresses` ask.
    pub(crate) fn start(addresses: Vec<SocketAddr>, chance: Chance) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        let deeds = Deeds::default();
        let person = Person {
            client,
            addresses: addresses.into(),
            deeds: deeds.clone(),
        };
        Ok(Self {
            work: tokio::spawn(person.work(chance)),
            deeds,
        })
    }
}

#[derive(Clone)]
struct Person {
    client: reqwest::Client,
    addresses: Arc<[SocketAddr]>,
    deeds: Deeds,
}

impl Person {
    async fn work(self, mut chance: Chance) {
        loop {
            let asked = self.asked(&mut chance).await.unwrap_or_default();
            if asked.is_empty() {
                tokio::time::sleep(PAUSE).await;
            }
            let mut hands = JoinSet::new();
            for (run, step) in asked {
                if hands.len() >= HANDS {
                    hands.join_next().await;
                }
                let number = chance.next();
                let (person, mut chance) = (self.clone(), chance.branch(number));
                hands.spawn(async move { person.answer(&run, &step, &mut chance).await });
            }
            hands.join_all().await;
        }
    }

    async fn asked(&self, chance: &mut Chance) -> anyhow::Result<Vec<(String, String)>> {
        let data = self.ask(ASKED, json!({ "first": PAGE }), chance).await?;
        let nodes = data["approvals"]["nodes"].as_array().context("no page of approvals")?;
        let text = |node: &Value, field: &str| node[field].as_str().map(str::to_owned);
        Ok(nodes
            .iter()
            .filter_map(|node| Some((text(node, "runId")?, text(node, "step")?)))
            .collect())
    }

    async fn answer(&self, run: &str, step: &str, chance: &mut Chance) {
        let hold = chance.between(1, HELD_ONE_IN) == 1;
        if hold {
            self.until_answered("pause", PAUSE_RUN, json!({ "runId": run }), chance)
                .await;
        }
        let decision = json!({ "runId": run, "step": step, "approve": true });
        self.until_answered("decide", DECIDE, decision, chance).await;
        if hold {
            self.until_answered("resume", RESUME_RUN, json!({ "runId": run }), chance)
                .await;
        }
    }

    /// Says it to one server after the other until one of them answers, and notes what.
    async fn until_answered(&self, what: &str, request: &str, input: Value, chance: &mut Chance) {
        loop {
            if let Ok(data) = self.ask(request, json!({ "i": input }), chance).await {
                let code = data["done"]["userErrors"][0]["code"].as_str();
                self.deeds
                    .note(code.map_or_else(|| what.to_owned(), |code| format!("{what}: {code}")));
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks a server that chance chooses.
    async fn ask(&self, request: &str, variables: Value, chance: &mut Chance) -> anyhow::Result<Value> {
        let last = self.addresses.len().saturating_sub(1) as u64;
        let address = usize::try_from(chance.between(0, last)).unwrap_or_default();
        let answer = self
            .client
            .post(format!("http://{}/graphql", self.addresses[address]))
            .bearer_auth(TOKEN)
            .json(&json!({ "query": request, "variables": variables }))
            .send()
            .await?
            .error_for_status()?;
        let mut answer: Value = answer.json().await?;
        let data = answer["data"].take();
        anyhow::ensure!(data.is_object(), "no data: {}", answer["errors"]);
        Ok(data)
    }
}
