//! One node refreshes a grant at a time, new tokens follow the ones they came from, and a way to a provider is gone once.

use std::time::Duration;

use weir_storage::{
    AuthorizationAttempt, ConfigChange, ConfigOutcome, ConfigRowChange, ConfigSubject, DroppedGrant, Fact, FactOutcome,
    GrantClaim, GrantNote, GrantRefused, GrantRow, GrantSave, GrantState, GrantStep, MAX_OPEN_AUTHORIZATIONS, NewGrant,
    WriteError,
};
use weir_workflow_engine::{ConnectionId, Timestamp, WorkspaceId};

use crate::support::{Bed, Node, WORKSPACE, at, both_databases};

both_databases!(
    a_grant_is_refreshed_by_one_node_and_saved_for_its_generation,
    a_dead_nodes_refresh_is_taken_over_and_its_mark_stays,
    what_needs_a_person_is_announced_to_every_node,
    a_way_to_a_provider_is_gone_once,
    the_oldest_authorizations_are_forgotten,
    grants_go_with_their_connection,
);

const CONNECTION: ConnectionId = ConnectionId::from_raw(31);
const DONE: Result<FactOutcome, WriteError> = Ok(FactOutcome::Written);
const LEASE: Duration = Duration::from_secs(60);

async fn with_connection(bed: &Bed) -> Node {
    let node = bed.node("a").await;
    bed.execute(&format!(
        "INSERT INTO connection (id, workspace_id, name, connector, config, revision, created_at, updated_at) \
         VALUES (31, {}, 'crm', 'hubspot', '{{}}', 1, 0, 0)",
        WORKSPACE.as_raw()
    ))
    .await;
    node
}

async fn change(node: &Node, change: ConfigRowChange) -> Result<i64, WriteError> {
    let change = ConfigChange {
        changes: vec![change],
        expected: Vec::new(),
        audit: Vec::new(),
    };
    match node.write(Fact::Config(change)).await? {
        FactOutcome::Config(ConfigOutcome::Applied { revision }) => Ok(revision),
        other => panic!("{other:?}"),
    }
}

fn granted(tokens: &[u8], now: Timestamp) -> ConfigRowChange {
    ConfigRowChange::PutGrant(NewGrant {
        connection: CONNECTION,
        workspace: WORKSPACE,
        tokens: tokens.to_vec(),
        expires_at: at(3_600),
        account: Some("42".to_owned()),
        label: Some("Acme".to_owned()),
        scopes: Some("read".to_owned()),
        instance_url: None,
        at: now,
    })
}

fn claim(generation: i64, now: Timestamp) -> Fact {
    Fact::Grant(GrantStep::Claim(GrantClaim {
        connection: CONNECTION,
        workspace: WORKSPACE,
        generation,
        lease: LEASE,
        at: now,
    }))
}

fn save(generation: i64, tokens: &[u8]) -> Fact {
    Fact::Grant(GrantStep::Save(GrantSave {
        connection: CONNECTION,
        workspace: WORKSPACE,
        generation,
        tokens: tokens.to_vec(),
        expires_at: at(7_200),
        scopes: None,
        at: at(50),
    }))
}

fn note(generation: i64, state: GrantState, refreshing: Option<(Timestamp, String)>) -> Fact {
    Fact::Grant(GrantStep::Note(GrantNote {
        connection: CONNECTION,
        workspace: WORKSPACE,
        generation,
        state,
        error: Some("what is wrong".to_owned()),
        failures: 2,
        retry_at: at(90),
        refreshing,
        at: at(60),
    }))
}

async fn stored(node: &Node) -> GrantRow {
    let row = node.store.grant_load(WORKSPACE, CONNECTION).await.unwrap().unwrap();
    assert_eq!(node.store.grants(WORKSPACE).await.unwrap(), std::slice::from_ref(&row));
    row
}

async fn a_grant_is_refreshed_by_one_node_and_saved_for_its_generation(bed: &Bed) {
    let node = with_connection(bed).await;
    assert_eq!(
        node.write(claim(1, at(0))).await,
        Err(WriteError::Stale),
        "nothing was granted"
    );
    change(&node, granted(b"t1", at(0))).await.unwrap();
    let row = stored(&node).await;
    assert_eq!(
        (row.generation, row.state, row.tokens.as_deref()),
        (1, GrantState::Healthy, Some(&b"t1"[..]))
    );
    assert_eq!((row.account.as_deref(), row.connected_at), (Some("42"), Some(at(0))));
    assert_eq!(node.write(claim(2, at(5))).await, Err(WriteError::Stale));
    assert_eq!(node.write(claim(1, at(5))).await, DONE);
    assert_eq!(stored(&node).await.refreshing, Some((at(5), "a".to_owned())));
    // The same process looks after its own calls.
    assert_eq!(node.write(claim(1, at(6))).await, DONE);
    assert_eq!(
        stored(&node).await.refreshing,
        Some((at(5), "a".to_owned())),
        "the first one is kept"
    );
    if bed.is_postgres() {
        let other = bed.node("b").await;
        assert_eq!(
            other.write(claim(1, at(7))).await,
            Err(WriteError::Stale),
            "a alive has it"
        );
        // Whoever has an answer of the provider stores it first.
        assert_eq!(other.write(save(1, b"t2")).await, DONE);
    } else {
        assert_eq!(node.write(save(1, b"t2")).await, DONE);
    }
    assert_eq!(node.write(save(1, b"late")).await, Err(WriteError::Stale));
    let row = stored(&node).await;
    assert_eq!((row.generation, row.tokens.as_deref()), (2, Some(&b"t2"[..])));
    assert_eq!(row.refreshing, None);
    assert_eq!((row.expires_at, row.refreshed_at), (Some(at(7_200)), Some(at(50))));
    assert_eq!(row.scopes.as_deref(), Some("read"), "what the answer leaves out stays");
    assert_eq!(
        node.write(note(1, GrantState::NeedsReauth, None)).await,
        Err(WriteError::Stale)
    );
    let stranger = WorkspaceId::from_raw(12);
    assert_eq!(node.store.grant_load(stranger, CONNECTION).await.unwrap(), None);
    assert!(!format!("{row:?}").contains("116, 50"), "tokens are not shown");
}

async fn a_dead_nodes_refresh_is_taken_over_and_its_mark_stays(bed: &Bed) {
    let first = with_connection(bed).await;
    change(&first, granted(b"t1", at(0))).await.unwrap();
    assert_eq!(first.write(claim(1, at(5))).await, DONE);
    let second = if bed.is_postgres() {
        let second = bed.node("b").await;
        assert_eq!(second.write(claim(1, at(6))).await, Err(WriteError::Stale));
        bed.execute("UPDATE node SET lease_until = 0 WHERE name = 'a'").await;
        second
    } else {
        first.stop().await;
        bed.node("a").await
    };
    assert_eq!(second.write(claim(1, at(7))).await, DONE);
    let mark = Some((at(5), "a".to_owned()));
    assert_eq!(
        stored(&second).await.refreshing,
        mark,
        "it says which refresh had no answer"
    );
    assert_eq!(second.write(note(1, GrantState::Degraded, mark.clone())).await, DONE);
    let row = stored(&second).await;
    assert_eq!(
        (row.state, row.state_since, row.failures),
        (GrantState::Degraded, at(60), 2)
    );
    assert_eq!((row.retry_at, row.refreshing), (at(90), mark));
    // The lease of its own is over with the note; one whose time is over is over for everybody.
    assert_eq!(second.write(claim(1, at(8))).await, DONE);
    bed.execute("UPDATE oauth_grant SET lease_until = 0, owner = 99").await;
    assert_eq!(second.write(claim(1, at(9))).await, DONE);
}

async fn what_needs_a_person_is_announced_to_every_node(bed: &Bed) {
    let node = with_connection(bed).await;
    let connected = change(&node, granted(b"t1", at(0))).await.unwrap();
    let revision = async || node.store.config_revision().await.unwrap();
    assert_eq!(node.write(note(1, GrantState::Degraded, None)).await, DONE);
    assert_eq!(revision().await, connected, "this mends itself");
    assert_eq!(node.write(note(1, GrantState::NeedsReauth, None)).await, DONE);
    assert_eq!(revision().await, connected + 1);
    assert_eq!(node.write(note(1, GrantState::NeedsReauth, None)).await, DONE);
    assert_eq!(revision().await, connected + 1, "it is known");
    let known = node.store.config_load().await.unwrap().grants;
    assert_eq!(
        (known[0].state, known[0].account.as_deref()),
        (GrantState::NeedsReauth, Some("42"))
    );
    // An answer that comes late is good all the same.
    assert_eq!(node.write(save(1, b"t2")).await, DONE);
    assert_eq!(revision().await, connected + 2);
    let dropped = DroppedGrant {
        connection: CONNECTION,
        workspace: WORKSPACE,
        reason: "disconnected".to_owned(),
        at: at(70),
    };
    change(&node, ConfigRowChange::DropGrant(dropped)).await.unwrap();
    let row = stored(&node).await;
    assert_eq!(
        (row.state, row.tokens, row.generation),
        (GrantState::NeedsReauth, None, 3)
    );
    assert_eq!(
        (row.error.as_deref(), row.account.as_deref()),
        (Some("disconnected"), Some("42"))
    );
    assert_eq!(node.write(save(2, b"late")).await, Err(WriteError::Stale));
    assert_eq!(
        node.write(save(3, b"late")).await,
        Err(WriteError::Stale),
        "no tokens, no successors"
    );
    assert_eq!(node.write(claim(3, at(71))).await, Err(WriteError::Stale));
    // A failed attempt is told where nothing works, and nowhere else.
    let refused = |error: &str| {
        Fact::Grant(GrantStep::Refused(GrantRefused {
            connection: CONNECTION,
            workspace: WORKSPACE,
            error: error.to_owned(),
            at: at(80),
        }))
    };
    assert_eq!(node.write(refused("access_denied")).await, DONE);
    assert_eq!(stored(&node).await.error.as_deref(), Some("access_denied"));
    change(&node, granted(b"t9", at(90))).await.unwrap();
    assert_eq!(node.write(refused("access_denied")).await, DONE);
    let row = stored(&node).await;
    assert_eq!((row.error, row.generation, row.state), (None, 4, GrantState::Healthy));
}

fn attempt(id: i64, expires_at: Timestamp) -> AuthorizationAttempt {
    AuthorizationAttempt {
        id,
        workspace: WORKSPACE,
        connection: CONNECTION,
        sealed: vec![7],
        expires_at,
        at: at(10),
    }
}

async fn a_way_to_a_provider_is_gone_once(bed: &Bed) {
    let node = with_connection(bed).await;
    let begin = |id, until| Fact::Grant(GrantStep::Begin(attempt(id, until)));
    let take = |workspace, id| Fact::Grant(GrantStep::Take { workspace, id });
    assert_eq!(node.write(begin(1, at(5))).await, DONE);
    assert_eq!(node.write(begin(2, at(500))).await, DONE);
    let load = async |id| node.store.authorization_load(WORKSPACE, id).await.unwrap();
    assert!(load(1).await.is_none(), "it is over, and swept away");
    let found = load(2).await.unwrap();
    assert_eq!(
        (found.connection, found.sealed, found.expires_at),
        (CONNECTION, vec![7], at(500))
    );
    let stranger = WorkspaceId::from_raw(12);
    assert!(node.store.authorization_load(stranger, 2).await.unwrap().is_none());
    assert_eq!(node.write(take(stranger, 2)).await, Err(WriteError::Stale));
    assert_eq!(node.write(take(WORKSPACE, 2)).await, DONE);
    assert_eq!(node.write(take(WORKSPACE, 2)).await, Err(WriteError::Stale));
    let elsewhere = AuthorizationAttempt {
        connection: ConnectionId::from_raw(99),
        ..attempt(3, at(500))
    };
    assert_eq!(
        node.write(Fact::Grant(GrantStep::Begin(elsewhere))).await,
        Err(WriteError::Stale)
    );
}

async fn the_oldest_authorizations_are_forgotten(bed: &Bed) {
    let node = with_connection(bed).await;
    let last = i64::from(MAX_OPEN_AUTHORIZATIONS) + 2;
    for id in 1..=last {
        assert_eq!(
            node.write(Fact::Grant(GrantStep::Begin(attempt(id, at(500))))).await,
            DONE
        );
    }
    let mut kept = Vec::new();
    for id in 1..=last {
        if node.store.authorization_load(WORKSPACE, id).await.unwrap().is_some() {
            kept.push(id);
        }
    }
    assert_eq!(kept, (3..=last).collect::<Vec<_>>());
}

async fn grants_go_with_their_connection(bed: &Bed) {
    let node = with_connection(bed).await;
    change(&node, granted(b"t1", at(0))).await.unwrap();
    assert_eq!(
        node.write(Fact::Grant(GrantStep::Begin(attempt(1, at(500))))).await,
        DONE
    );
    let delete = |workspace| ConfigRowChange::Delete {
        workspace,
        subject: ConfigSubject::Connection(CONNECTION),
    };
    change(&node, delete(WorkspaceId::from_raw(12))).await.unwrap();
    assert!(node.store.grant_load(WORKSPACE, CONNECTION).await.unwrap().is_some());
    change(&node, delete(WORKSPACE)).await.unwrap();
    assert!(node.store.grant_load(WORKSPACE, CONNECTION).await.unwrap().is_none());
    assert!(node.store.authorization_load(WORKSPACE, 1).await.unwrap().is_none());
    assert!(
        change(&node, granted(b"t1", at(0))).await.is_err(),
        "there is no such connection"
    );
}
