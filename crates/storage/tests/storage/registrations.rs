//! One node at a time looks after a webhook at its provider; every write proves the row that it was made for.

use std::time::Duration;

use weir_storage::{
    ConfigChange, ConfigOutcome, ConfigRowChange, ConfigSubject, Fact, FactOutcome, RegistrationClaim,
    RegistrationDrop, RegistrationRow, RegistrationSave, RegistrationStep, WriteError,
};
use weir_workflow_engine::{ConnectionId, EndpointId, WorkspaceId};

use crate::support::{Bed, Node, WORKSPACE, at, both_databases};

both_databases!(
    a_registration_is_looked_after_by_one_node_at_a_time,
    a_dead_nodes_registration_is_taken_over,
    other_secrets_are_announced_to_every_node,
    a_registration_outlives_its_endpoint,
);

const ENDPOINT: EndpointId = EndpointId::from_raw(41);
const DONE: Result<FactOutcome, WriteError> = Ok(FactOutcome::Written);
const LEASE: Duration = Duration::from_secs(60);

async fn with_endpoint(bed: &Bed) -> Node {
    let node = bed.node("a").await;
    bed.execute(&format!(
        "INSERT INTO endpoint (id, workspace_id, name, connector, allow, revision, created_at, updated_at) \
         VALUES (41, {}, 'shop', 'stripe', '[]', 1, 0, 0)",
        WORKSPACE.as_raw()
    ))
    .await;
    node
}

fn row(generation: i64) -> RegistrationRow {
    RegistrationRow {
        endpoint: ENDPOINT,
        workspace: WORKSPACE,
        connection: ConnectionId::from_raw(31),
        place: r#"{"repo":"shop"}"#.to_owned(),
        provider_id: Some("we_1".to_owned()),
        url: Some("https://weir.test/hooks/ep_1".to_owned()),
        events: vec!["made".to_owned(), "paid".to_owned()],
        secrets: Some(b"sealed".to_vec()),
        secrets_until: Some(at(500)),
        expires_at: Some(at(900)),
        created_at: Some(at(10)),
        renewed_at: Some(at(12)),
        checked_at: Some(at(20)),
        drift: Some((at(15), "it was gone".to_owned())),
        error: Some("what is wrong".to_owned()),
        failures: 2,
        retry_at: at(90),
        generation,
    }
}

fn claim(generation: i64) -> Fact {
    Fact::Registration(RegistrationStep::Claim(RegistrationClaim {
        row: row(generation),
        lease: LEASE,
    }))
}

fn save(generation: i64, keep: Option<Duration>, announce: bool) -> Fact {
    Fact::Registration(RegistrationStep::Save(RegistrationSave {
        row: row(generation),
        keep,
        announce,
    }))
}

fn forget(generation: i64) -> Fact {
    Fact::Registration(RegistrationStep::Drop(RegistrationDrop {
        endpoint: ENDPOINT,
        workspace: WORKSPACE,
        generation,
    }))
}

async fn stored(node: &Node) -> Option<RegistrationRow> {
    let row = node.store.registration_load(WORKSPACE, ENDPOINT).await.unwrap();
    let listed = node.store.config_load().await.unwrap().registrations;
    assert_eq!(listed.first(), row.as_ref());
    let made_with = node.store.registrations_of(WORKSPACE, ConnectionId::from_raw(31)).await;
    assert_eq!(made_with.unwrap().first(), row.as_ref());
    row
}

async fn a_registration_is_looked_after_by_one_node_at_a_time(bed: &Bed) {
    let node = bed.node("a").await;
    assert_eq!(
        node.write(claim(0)).await,
        Err(WriteError::Stale),
        "there is no endpoint"
    );
    node.stop().await;
    let node = with_endpoint(bed).await;
    assert_eq!(node.write(claim(0)).await, DONE);
    let made = stored(&node).await.unwrap();
    assert_eq!((made.generation, made.provider_id, made.url), (1, None, None));
    assert_eq!(node.write(claim(0)).await, Err(WriteError::Stale), "it is there now");
    assert_eq!(node.write(claim(2)).await, Err(WriteError::Stale), "it is another one");
    assert_eq!(node.write(save(1, Some(LEASE), false)).await, DONE);
    assert_eq!(stored(&node).await, Some(row(2)));
    if bed.is_postgres() {
        let other = bed.node("b").await;
        assert_eq!(other.write(claim(2)).await, Err(WriteError::Stale), "a alive has it");
        assert_eq!(other.write(save(2, None, false)).await, Err(WriteError::Stale));
        assert_eq!(other.write(forget(2)).await, Err(WriteError::Stale));
        assert_eq!(node.write(save(2, None, false)).await, DONE);
        assert_eq!(other.write(claim(3)).await, DONE);
        assert_eq!(node.write(save(4, None, false)).await, Err(WriteError::Stale));
        assert_eq!(other.write(save(4, None, false)).await, DONE);
    } else {
        assert_eq!(node.write(save(2, None, false)).await, DONE);
        assert_eq!(
            node.write(save(3, None, false)).await,
            Err(WriteError::Stale),
            "it let go"
        );
        assert_eq!(node.write(claim(3)).await, DONE);
        assert_eq!(node.write(save(4, None, false)).await, DONE);
    }
    assert_eq!(stored(&node).await, Some(row(5)));
    let stranger = WorkspaceId::from_raw(12);
    assert_eq!(node.store.registration_load(stranger, ENDPOINT).await.unwrap(), None);
    assert!(!format!("{:?}", row(5)).contains("115, 101"), "secrets are not shown");
}

async fn a_dead_nodes_registration_is_taken_over(bed: &Bed) {
    let first = with_endpoint(bed).await;
    assert_eq!(first.write(claim(0)).await, DONE);
    let second = if bed.is_postgres() {
        let second = bed.node("b").await;
        assert_eq!(second.write(claim(1)).await, Err(WriteError::Stale));
        bed.execute("UPDATE node SET lease_until = 0 WHERE name = 'a'").await;
        second
    } else {
        first.stop().await;
        bed.node("a").await
    };
    assert_eq!(second.write(claim(1)).await, DONE);
    // One whose time is over is over for everybody.
    bed.execute("UPDATE registration SET lease_until = 0, owner = 99").await;
    assert_eq!(second.write(claim(2)).await, DONE);
    assert_eq!(second.write(save(3, None, false)).await, DONE);
}

async fn other_secrets_are_announced_to_every_node(bed: &Bed) {
    let node = with_endpoint(bed).await;
    let revision = async || node.store.config_revision().await.unwrap();
    let before = revision().await;
    assert_eq!(node.write(claim(0)).await, DONE);
    assert_eq!(node.write(save(1, Some(LEASE), false)).await, DONE);
    assert_eq!(revision().await, before, "nothing that a webhook is verified with");
    assert_eq!(node.write(save(2, Some(LEASE), true)).await, DONE);
    assert_eq!(revision().await, before + 1);
    assert_eq!(node.write(save(2, None, true)).await, Err(WriteError::Stale));
    assert_eq!(revision().await, before + 1, "what is not stored is not told");
    assert_eq!(node.write(forget(3)).await, DONE);
    assert_eq!(revision().await, before + 2);
    assert_eq!(stored(&node).await, None);
}

async fn a_registration_outlives_its_endpoint(bed: &Bed) {
    let node = with_endpoint(bed).await;
    assert_eq!(node.write(claim(0)).await, DONE);
    assert_eq!(node.write(save(1, None, false)).await, DONE);
    let change = ConfigChange {
        changes: vec![ConfigRowChange::Delete {
            workspace: WORKSPACE,
            subject: ConfigSubject::Endpoint(ENDPOINT),
        }],
        expected: Vec::new(),
        audit: Vec::new(),
    };
    let deleted = node.write(Fact::Config(change)).await;
    assert!(
        matches!(deleted, Ok(FactOutcome::Config(ConfigOutcome::Applied { .. }))),
        "{deleted:?}"
    );
    assert_eq!(stored(&node).await, Some(row(2)), "somebody has to delete the webhook");
    assert_eq!(node.write(claim(2)).await, DONE);
    assert_eq!(node.write(forget(3)).await, DONE);
    assert_eq!(stored(&node).await, None);
}
