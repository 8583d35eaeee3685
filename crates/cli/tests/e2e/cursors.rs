//! Lists that sweeps go on from in each of the ways that manifests can say, over restarts, and when the provider has
//! forgotten where it was. (Cursors by id are those of Stripe, see `sweeps`.)

use crate::support::{Server, now_unix_s, stderr, stdout};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use weir_simulator::{Change, Fate, Simulator, SimulatorOptions};

/// What a manifest says about one kind of list.
struct Kind {
    name: &'static str,
    /// Query and paging of the operation.
    operation: &'static str,
    recover: &'static str,
    identify: &'static str,
    /// Items that a sweep reads again although it went on.
    again: std::ops::RangeInclusive<u64>,
}

const CHANGES: &str = "{ id: /id, type: 'lit:changed', time: /time_ms }";

const TOKEN: Kind = Kind {
    name: "token",
    operation: "query: { token: '{{ token }}' }, input: { token: optional }",
    recover: "cursor: token, next: /next, more: /has_more, with: { token: '{{ cursor }}' }, expired: [410]",
    identify: CHANGES,
    again: 0..=0,
};
const OFFSET: Kind = Kind {
    name: "offset",
    operation: "query: { offset: '{{ offset }}' }, input: { offset: optional }",
    recover: "cursor: offset, more: /has_more, with: { offset: '{{ cursor }}' }",
    identify: CHANGES,
    again: 0..=0,
};
const JOURNAL: Kind = Kind {
    name: "journal",
    operation: "query: { position: '{{ position }}' }, input: { position: optional }",
    recover: "cursor: journal, position: /seq, more: /has_more, with: { position: '{{ cursor }}' }",
    identify: CHANGES,
    again: 0..=0,
};
const DELTA: Kind = Kind {
    name: "delta",
    operation: "page: { next_url: { from: /next_link } }",
    recover: "cursor: delta, next: /delta_link, expired: [410]",
    identify: CHANGES,
    again: 0..=0,
};
/// The overlap shows what is younger than a minute once more.
const TIME: Kind = Kind {
    name: "objects",
    operation: "query: { since: '{{ since }}' }, input: { since: optional }, page: { cursor: { next: /next, into: query.page } }",
    recover: "cursor: time, overlap: 60s, with: { since: '{{ since_ms }}' }",
    identify: "{ id: /id, type: 'lit:changed', time: /updated_ms }",
    again: 1..=250,
};

impl Kind {
    fn manifest(&self) -> String {
        format!(
            "connector: listed\nversion: 1.0.0\nhosts: ['https://feeds.test']\nauth: {{ none: {{}} }}\n\
             operations: {{ changes.list: {{ get: /feed/main/{}, {}, items: /data }} }}\n\
             webhook:\n  verify: endpoint\n  identify: {}\n  recover: {{ level: A, call: changes.list, {} }}\n",
            self.name, self.operation, self.identify, self.recover
        )
    }
}

struct World {
    provider: Simulator,
    server: Server,
}

/// What a sweep says of itself.
#[derive(Debug, PartialEq, Eq)]
struct Swept {
    recovered: u64,
    known: u64,
}

impl World {
    async fn start(kind: &Kind) -> Self {
        let provider = Simulator::start(SimulatorOptions::default()).await.unwrap();
        let server = Server::start().await;
        let manifest = server.folder.path().join("listed.yaml");
        std::fs::write(&manifest, kind.manifest()).unwrap();
        let published = server.weir(&["apply", "-f", manifest.to_str().unwrap()]);
        assert!(published.status.success(), "{}", stderr(&published));
        server.apply(&format!(
            "
kind: Connection
name: listed
connector: listed
config: {{ base_url: '{}' }}
---
kind: Endpoint
name: listed
connection: listed
receive: never
sweep: never
",
            provider.base_url()
        ));
        World { provider, server }
    }

    /// Lets objects change, each once; gives the ids that events of them have.
    fn change(&self, kind: &Kind, numbers: std::ops::Range<u64>) -> BTreeSet<String> {
        let id = |number: u64| {
            let change = Change {
                number,
                object: number,
                version: 1,
                deletes: false,
                fate: Fate::Lost,
            };
            let occurrence = self.provider.change("main", &change);
            match kind.name {
                "objects" => change.object_id("main"),
                _ => occurrence.id,
            }
        };
        numbers.map(id).collect()
    }

    fn sweep(&self) -> Swept {
        let told = self.server.weir(&["endpoint", "sweep", "listed"]);
        let text = stdout(&told);
        assert!(text.contains(": complete, "), "{text}{}", stderr(&told));
        let number = |what: &str| {
            let before = text.split(what).next().unwrap();
            before.rsplit(' ').next().unwrap().parse().unwrap()
        };
        Swept {
            recovered: number(" recovered"),
            known: number(" known"),
        }
    }

    /// The provider's ids of all events, each once.
    fn ids(&self) -> BTreeSet<String> {
        let events = self.server.list(&["events", "--json", "--limit", "1000"]);
        let ids: Vec<String> = events
            .iter()
            .map(|event| event["externalId"].as_str().unwrap().to_owned())
            .collect();
        let different: BTreeSet<String> = ids.iter().cloned().collect();
        assert_eq!(ids.len(), different.len(), "an event is stored twice");
        different
    }
}

async fn goes_on(kind: &Kind) -> World {
    let mut world = World::start(kind).await;
    let mut expected = world.change(kind, 0..250);
    let first = world.sweep();
    assert_eq!((first.recovered, first.known), (250, 0));
    let nothing = world.sweep();
    assert_eq!(nothing.recovered, 0);
    assert!(kind.again.contains(&nothing.known), "{nothing:?}");
    expected.extend(world.change(kind, 250..255));
    world.server.kill();
    world.server.start_again().await;
    let later = world.sweep();
    assert_eq!(later.recovered, 5);
    assert!(kind.again.contains(&later.known), "{later:?}");
    assert_eq!(world.ids(), expected);
    let gap = world.server.list(&["coverage", "listed", "--json"]).remove(0)["oldestGap"].take();
    assert_eq!(gap, Value::Null);
    world
}

/// The provider has forgotten where the last sweep ended: the list is read anew, and what is there is known.
fn is_read_anew(kind: &Kind, world: &World) {
    world.provider.set_feed_forgets_cursors("main", true);
    let refused = world.server.weir(&["endpoint", "sweep", "listed"]);
    // It forgets the cursors of each page, too: the list is longer than one.
    assert!(stdout(&refused).contains("failed"), "{}", stdout(&refused));
    world.provider.set_feed_forgets_cursors("main", false);
    world.change(kind, 255..256);
    let anew = world.sweep();
    assert_eq!(anew.recovered, 1);
    assert!(anew.known >= 100, "{anew:?}");
    assert_eq!(world.ids().len(), 256);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_after_a_token() {
    let world = goes_on(&TOKEN).await;
    is_read_anew(&TOKEN, &world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_from_a_delta_link() {
    let world = goes_on(&DELTA).await;
    is_read_anew(&DELTA, &world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_behind_so_many_items() {
    goes_on(&OFFSET).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_after_a_position_of_a_journal() {
    goes_on(&JOURNAL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_by_time_overlaps_and_finds_what_appears_late() {
    let world = goes_on(&TIME).await;
    // It changed before the last sweep and was not in the list then.
    let late = i64::try_from(now_unix_s()).unwrap() * 1_000 - 20_000;
    let object = json!({ "id": "obj_late", "version": 1, "updated_ms": late });
    world.provider.put_object("feed/main/objects", "obj_late", object);
    assert_eq!(world.sweep().recovered, 1);
    assert!(world.ids().contains("obj_late"));
    // Further back than the overlap, it is not seen: sweeps do not read everything.
    let object = json!({ "id": "obj_too_late", "version": 1, "updated_ms": late - 600_000 });
    world.provider.put_object("feed/main/objects", "obj_too_late", object);
    assert_eq!(world.sweep().recovered, 0);
}
