//! Configuration: all or nothing, against the revision that was seen, with its audit entry.

use secrecy::ExposeSecret;
use weir_storage::{
    ApiTokenRow, AuditEntry, AuditFilter, ConfigChange, ConfigOutcome, ConfigRowChange, ConfigSubject, ConnectionRow,
    ConnectorManifestRow, Constraint, EndpointRow, ExpectedRevision, Fact, FactOutcome, Heartbeat, KeyError, MasterKey,
    OpenError, RowIdentity, SecretBox, VersionState, WorkflowRow, WorkflowState, WorkflowVersionRow, WorkspaceRow,
    WriteError, token_hash,
};
use weir_workflow_engine::{ConnectionId, EndpointId, IdGenerator, TokenId, VersionId, WorkflowId, WorkspaceId};

use crate::support::{Bed, Node, WORKSPACE, at, both_databases};

both_databases!(
    a_configuration_comes_back,
    revisions_guard_changes,
    a_change_is_all_or_nothing,
    published_versions_stay,
    the_audit_trail_is_read_by_filter,
    the_master_key_is_proved
);

fn connection(id: i64, name: &str) -> ConnectionRow {
    ConnectionRow {
        id: ConnectionId::from_raw(id),
        workspace: WORKSPACE,
        name: name.to_owned(),
        connector: "stripe".to_owned(),
        config: "{}".to_owned(),
        credential: None,
        revision: 0,
        created_at: at(0),
        updated_at: at(0),
    }
}

fn audit(bed: &Bed, action: &str) -> AuditEntry {
    AuditEntry {
        id: bed.id(),
        workspace: WORKSPACE,
        at: at(0),
        actor: "bootstrap".to_owned(),
        action: action.to_owned(),
        subject: "stripe".to_owned(),
        client_ip: None,
        request_id: Some("req".to_owned()),
        detail: "{}".to_owned(),
    }
}

fn version(id: i64, number: u32, state: VersionState) -> WorkflowVersionRow {
    WorkflowVersionRow {
        id: VersionId::from_raw(id),
        workspace: WORKSPACE,
        workflow: WorkflowId::from_raw(21),
        number,
        state,
        definition: r#"{"name":"w"}"#.to_owned(),
        resolution: "{}".to_owned(),
        checksum: "c".to_owned(),
        created_at: at(0),
    }
}

async fn apply(node: &Node, change: ConfigChange) -> Result<ConfigOutcome, WriteError> {
    match node.write(Fact::Config(change)).await? {
        FactOutcome::Config(outcome) => Ok(outcome),
        other => panic!("{other:?}"),
    }
}

fn put(changes: Vec<ConfigRowChange>) -> ConfigChange {
    ConfigChange {
        changes,
        ..ConfigChange::default()
    }
}

async fn a_configuration_comes_back(bed: &Bed) {
    let node = bed.node("a").await;
    let workspace = WorkspaceRow {
        id: WORKSPACE,
        name: "main".to_owned(),
        created_at: at(0),
    };
    let endpoint = EndpointRow {
        id: EndpointId::from_raw(41),
        workspace: WORKSPACE,
        name: "stripe".to_owned(),
        connector: "stripe".to_owned(),
        connection: Some(ConnectionId::from_raw(1)),
        verify: Some("{}".to_owned()),
        allow: "[]".to_owned(),
        context: Some(r#"{"topic":"t"}"#.to_owned()),
        sweep: None,
        secrets: Some(vec![1, 2, 3]),
        revision: 0,
        created_at: at(0),
        updated_at: at(1),
    };
    let workflow = WorkflowRow {
        id: WorkflowId::from_raw(21),
        workspace: WORKSPACE,
        name: "w".to_owned(),
        state: WorkflowState::Paused,
        published_version: Some(VersionId::from_raw(31)),
        draft_version: Some(VersionId::from_raw(32)),
        revision: 0,
        created_at: at(0),
        updated_at: at(0),
    };
    let versions = vec![
        version(31, 1, VersionState::Published),
        version(32, 2, VersionState::Draft),
    ];
    let manifest = ConnectorManifestRow {
        workspace: WORKSPACE,
        name: "acme".to_owned(),
        version: "1.0.0".to_owned(),
        document: "{\"connector\":\"acme\"}".to_owned(),
        created_at: at(0),
    };
    let newer = ConnectorManifestRow {
        version: "1.1.0".to_owned(),
        ..manifest.clone()
    };
    let token = ApiTokenRow {
        id: TokenId::from_raw(51),
        workspace: WORKSPACE,
        name: "ci".to_owned(),
        hash: token_hash("weir_secret"),
        scopes: "[\"runs:read\"]".to_owned(),
        created_at: at(0),
        expires_at: Some(at(9)),
    };
    let entry = audit(bed, "apply");
    let change = ConfigChange {
        changes: vec![
            ConfigRowChange::PutWorkspace(workspace.clone()),
            ConfigRowChange::PutConnection(connection(1, "stripe")),
            ConfigRowChange::PutEndpoint(endpoint.clone()),
            ConfigRowChange::PutWorkflow(workflow.clone()),
            ConfigRowChange::PutVersion(versions[0].clone()),
            ConfigRowChange::PutVersion(versions[1].clone()),
            ConfigRowChange::PutManifest(manifest.clone()),
            ConfigRowChange::PutManifest(newer.clone()),
            ConfigRowChange::PutToken(token.clone()),
        ],
        expected: Vec::new(),
        audit: vec![entry.clone()],
    };
    assert_eq!(apply(&node, change).await, Ok(ConfigOutcome::Applied { revision: 1 }));
    let rows = node.store.config_load().await.unwrap();
    assert_eq!(rows.revision, 1);
    assert_eq!(rows.workspaces, [workspace]);
    assert_eq!(
        rows.connections,
        [ConnectionRow {
            revision: 1,
            ..connection(1, "stripe")
        }]
    );
    assert_eq!(
        rows.endpoints,
        [EndpointRow {
            revision: 1,
            ..endpoint
        }]
    );
    assert_eq!(
        rows.workflows,
        [WorkflowRow {
            revision: 1,
            ..workflow
        }]
    );
    assert_eq!(rows.versions, versions);
    assert_eq!(rows.manifests, [manifest.clone(), newer]);
    assert_eq!(rows.tokens, [token]);
    assert_eq!(
        node.store
            .audit_page(WORKSPACE, &AuditFilter::default(), None, 10)
            .await
            .unwrap()
            .rows,
        [entry]
    );
    let numbers =
        |page: weir_storage::Page<WorkflowVersionRow, u32>| page.rows.iter().map(|row| row.number).collect::<Vec<_>>();
    assert_eq!(
        numbers(
            node.store
                .version_page(WORKSPACE, WorkflowId::from_raw(21), None, 1)
                .await
                .unwrap()
        ),
        [2]
    );
    assert_eq!(
        numbers(
            node.store
                .version_page(WORKSPACE, WorkflowId::from_raw(21), Some(2), 5)
                .await
                .unwrap()
        ),
        [1]
    );
    let beat = node
        .write(Fact::Heartbeat(Heartbeat {
            id_high_water: 0,
            due_before: at(0),
            free_limit: 1000,
        }))
        .await;
    assert!(
        matches!(beat, Ok(FactOutcome::Heartbeat(reply)) if reply.config_revision == 1),
        "{beat:?}"
    );

    let other_content = ConnectorManifestRow {
        document: "{}".to_owned(),
        ..manifest
    };
    let again = apply(&node, put(vec![ConfigRowChange::PutManifest(other_content)])).await;
    assert!(again.is_err(), "a published version never changes: {again:?}");
    let version_of = |version: &str| ConfigSubject::Manifest {
        name: "acme".to_owned(),
        version: version.to_owned(),
    };
    let mut expecting = put(Vec::new());
    expecting.expected.push(ExpectedRevision {
        workspace: WORKSPACE,
        subject: version_of("1.0.0"),
        revision: None,
    });
    let there = apply(&node, expecting).await;
    assert!(matches!(there, Ok(ConfigOutcome::Conflict { .. })), "{there:?}");

    let delete = |subject| ConfigRowChange::Delete {
        workspace: WORKSPACE,
        subject,
    };
    let change = put(vec![
        delete(ConfigSubject::Connection(ConnectionId::from_raw(1))),
        delete(ConfigSubject::Endpoint(EndpointId::from_raw(41))),
        delete(ConfigSubject::Workflow(WorkflowId::from_raw(21))),
        delete(version_of("1.0.0")),
        delete(version_of("1.1.0")),
        delete(ConfigSubject::Token(TokenId::from_raw(51))),
    ]);
    assert_eq!(apply(&node, change).await, Ok(ConfigOutcome::Applied { revision: 2 }));
    let rows = node.store.config_load().await.unwrap();
    let left =
        rows.connections.len() + rows.endpoints.len() + rows.workflows.len() + rows.manifests.len() + rows.tokens.len();
    assert_eq!((left, rows.workspaces.len()), (0, 1));
    let pinned = node
        .store
        .version_load(WORKSPACE, VersionId::from_raw(31))
        .await
        .unwrap();
    assert!(pinned.is_some(), "runs stay pinned to their version");
}

async fn revisions_guard_changes(bed: &Bed) {
    let node = bed.node("a").await;
    let subject = ConfigSubject::Connection(ConnectionId::from_raw(1));
    let change = |revision| ConfigChange {
        changes: vec![ConfigRowChange::PutConnection(connection(1, "stripe"))],
        expected: vec![ExpectedRevision {
            workspace: WORKSPACE,
            subject: subject.clone(),
            revision,
        }],
        audit: vec![audit(bed, "connection.update")],
    };
    assert_eq!(
        apply(&node, change(None)).await,
        Ok(ConfigOutcome::Applied { revision: 1 })
    );
    assert_eq!(
        apply(&node, change(Some(1))).await,
        Ok(ConfigOutcome::Applied { revision: 2 })
    );
    let conflict = ConfigOutcome::Conflict {
        subject: subject.clone(),
        current: Some(2),
    };
    assert_eq!(apply(&node, change(Some(1))).await, Ok(conflict.clone()));
    assert_eq!(apply(&node, change(None)).await, Ok(conflict));
    assert_eq!(
        node.store.config_revision().await.unwrap(),
        2,
        "a conflict changes nothing"
    );
    assert_eq!(
        node.store
            .audit_page(WORKSPACE, &AuditFilter::default(), None, 10)
            .await
            .unwrap()
            .rows
            .len(),
        2
    );
    let everything = |revision| ConfigChange {
        expected: vec![ExpectedRevision {
            workspace: WORKSPACE,
            subject: ConfigSubject::Everything,
            revision: Some(revision),
        }],
        ..ConfigChange::default()
    };
    assert_eq!(
        apply(&node, everything(2)).await,
        Ok(ConfigOutcome::Applied { revision: 3 })
    );
    let conflict = ConfigOutcome::Conflict {
        subject: ConfigSubject::Everything,
        current: Some(3),
    };
    assert_eq!(apply(&node, everything(2)).await, Ok(conflict));
}

async fn the_audit_trail_is_read_by_filter(bed: &Bed) {
    let node = bed.node("a").await;
    let entry = |at_ms: i64, actor: &str, action: &str, subject: &str| AuditEntry {
        // Entries carry their time in their ids.
        id: IdGenerator::new(1, 0).next_raw(at(at_ms)),
        at: at(at_ms),
        actor: actor.to_owned(),
        subject: subject.to_owned(),
        ..audit(bed, action)
    };
    let entries = [
        entry(1_000, "admin", "run.cancel", "run_1"),
        entry(2_000, "token:tok_1", "run.pause", "run_2"),
        entry(3_000, "token:tok_2", "running.late", "run_1"),
        entry(4_000, "admin", "workflow.update", "orders"),
        AuditEntry {
            workspace: WorkspaceId::from_raw(77),
            ..entry(5_000, "admin", "run.cancel", "run_1")
        },
    ];
    let change = ConfigChange {
        audit: entries.to_vec(),
        ..ConfigChange::default()
    };
    assert!(matches!(apply(&node, change).await, Ok(ConfigOutcome::Applied { .. })));
    let read = async |filter: AuditFilter, before: Option<i64>, limit: u32| {
        let page = node.store.audit_page(WORKSPACE, &filter, before, limit).await.unwrap();
        let places: Vec<usize> = page
            .rows
            .iter()
            .map(|row| entries.iter().position(|entry| entry == row).unwrap())
            .collect();
        (places, page.next)
    };
    let all = AuditFilter::default;
    assert_eq!(read(all(), None, 10).await, (vec![3, 2, 1, 0], None));
    let (first, next) = read(all(), None, 3).await;
    assert_eq!((first, next), (vec![3, 2, 1], Some(entries[1].id)));
    assert_eq!(read(all(), next, 3).await, (vec![0], None));
    let since = AuditFilter {
        since: Some(at(2_000)),
        until: Some(at(4_000)),
        ..all()
    };
    assert_eq!(read(since, None, 10).await.0, [2, 1]);
    let actors = AuditFilter {
        actors: Some(vec!["admin".to_owned(), "token:tok_1".to_owned()]),
        ..all()
    };
    assert_eq!(read(actors, None, 10).await, (vec![3, 1, 0], None));
    let action = |action: &str| AuditFilter {
        action: Some(action.to_owned()),
        ..all()
    };
    assert_eq!(read(action("run"), None, 10).await.0, [1, 0]);
    assert_eq!(read(action("run.pause"), None, 10).await.0, [1]);
    let subject = AuditFilter {
        subject: Some("run_1".to_owned()),
        action: Some("run".to_owned()),
        ..all()
    };
    assert_eq!(read(subject, None, 10).await.0, [0]);
}

async fn a_change_is_all_or_nothing(bed: &Bed) {
    let node = bed.node("a").await;
    let one = ConfigRowChange::PutConnection(connection(1, "one"));
    assert_eq!(
        apply(&node, put(vec![one])).await,
        Ok(ConfigOutcome::Applied { revision: 1 })
    );
    // The second takes a name that exists.
    let change = put(vec![
        ConfigRowChange::PutConnection(connection(2, "two")),
        ConfigRowChange::PutConnection(connection(3, "one")),
    ]);
    let answer = apply(&node, change).await;
    assert!(
        matches!(answer, Err(WriteError::Refused(Constraint::Taken { .. }))),
        "{answer:?}"
    );
    // The id belongs to another workspace.
    let theirs = ConnectionRow {
        workspace: WorkspaceId::from_raw(12),
        ..connection(1, "stolen")
    };
    let answer = apply(&node, put(vec![ConfigRowChange::PutConnection(theirs)])).await;
    assert!(
        matches!(answer, Err(WriteError::Refused(Constraint::Taken { .. }))),
        "{answer:?}"
    );
    let rows = node.store.config_load().await.unwrap();
    assert_eq!(rows.revision, 1);
    assert_eq!(
        rows.connections.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(),
        ["one"]
    );
}

async fn published_versions_stay(bed: &Bed) {
    let node = bed.node("a").await;
    for state in [VersionState::Draft, VersionState::Draft, VersionState::Published] {
        assert!(
            apply(&node, put(vec![ConfigRowChange::PutVersion(version(31, 1, state))]))
                .await
                .is_ok()
        );
    }
    let answer = apply(
        &node,
        put(vec![ConfigRowChange::PutVersion(version(31, 1, VersionState::Draft))]),
    )
    .await;
    assert!(
        matches!(answer, Err(WriteError::Refused(Constraint::Taken { .. }))),
        "{answer:?}"
    );
}

async fn the_master_key_is_proved(bed: &Bed) {
    let right = SecretBox::new(MasterKey::new([1; 32]));
    let wrong = SecretBox::new(MasterKey::new([2; 32]));
    let (store, mut seed) = bed.open().await;
    assert!(!seed.sealed_rows_exist().await.unwrap());
    seed.check_key(&right).await.unwrap();
    assert!(seed.sealed_rows_exist().await.unwrap());
    let node = bed.start(store, seed, "a").await;
    let identity = RowIdentity::connection(WORKSPACE, ConnectionId::from_raw(1));
    let sealed = ConnectionRow {
        credential: Some(right.seal(&identity, b"sk_1")),
        ..connection(1, "stripe")
    };
    apply(&node, put(vec![ConfigRowChange::PutConnection(sealed)]))
        .await
        .unwrap();
    node.stop().await;

    let (store, mut seed) = bed.open().await;
    let error = seed.check_key(&wrong).await.unwrap_err();
    assert!(matches!(error, OpenError::Key(KeyError::WrongKey { .. })), "{error}");
    // While a key is replaced, both are known.
    let both = SecretBox::with_previous(MasterKey::new([2; 32]), vec![MasterKey::new([1; 32])]);
    seed.check_key(&both).await.unwrap();
    assert_eq!(bed.number("SELECT count(*) FROM key_check").await, 2);
    let stored = store
        .config_load()
        .await
        .unwrap()
        .connections
        .remove(0)
        .credential
        .unwrap();
    assert_eq!(both.open(&identity, &stored).unwrap().expose_secret(), b"sk_1");
}
