use std::convert::Infallible;

use super::*;
use crate::model::{Role, WorkspaceSet};

fn key(id: &str) -> ApiKeyRecord {
    let api_key = ApiKeyFacts {
        id: ApiKeyId::parse(id).unwrap(),
        principal: "ingestion".into(),
        role: Role::Admin,
        workspaces: WorkspaceSet::All,
        created_at: Timestamp::EPOCH,
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        replaced_by: None,
    };
    ApiKeyRecord { api_key, hash: vec![0; 32], mac: vec![0; 32] }
}

/// Adds a key and records it.
async fn add(store: &Store, id: &str) -> Result<(), Abort<Infallible>> {
    let record = key(id);
    store
        .write(move |tx| {
            let record = record.clone();
            Box::pin(async move {
                tx.insert_api_key(&record).await?;
                tx.audit_api_key(&record.api_key, Timestamp::EPOCH);
                Ok(())
            })
        })
        .await
}

async fn open(folder: &tempfile::TempDir) -> Result<Store, StoreError> {
    let url = format!("sqlite:{}", folder.path().join("vault.db").display());
    let (incarnation, clock) = (Incarnation::generate(), Clock::system());
    Store::open(StoreConfig { url: &url, migrate: true, incarnation, audit: true, clock }).await
}

#[tokio::test]
async fn a_change_that_names_nobody_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await.unwrap();
    let mut outgoing = store.take_outgoing().unwrap();

    let lost = add(&store, "aaaaaaaaaaaaaaaa").await.unwrap_err();
    assert!(matches!(lost, Abort::Store(StoreError::Unexpected(_))), "{lost:?}");
    let ids = store.read().await.unwrap().api_key_ids().await.unwrap();
    assert!(ids.is_empty(), "nothing is written");

    let origin = Arc::new(Origin::system("test"));
    Arc::clone(&origin).scope(add(&store, "bbbbbbbbbbbbbbbb")).await.unwrap();
    let ids = store.read().await.unwrap().api_key_ids().await.unwrap();
    assert_eq!(ids.len(), 1);
    let Some(Outgoing::Records(records)) = outgoing.recv().await else { panic!("a record is on its way") };
    let [(_, body, whose)] = records.as_slice() else { panic!("one record: {records:?}") };
    assert!(body.contains(r#""principal":"system:test""#), "{body}");
    assert!(whose.as_ref().is_some_and(|whose| Arc::ptr_eq(whose, &origin)));
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_named_with_the_cause_and_without_its_password() {
    // A port on which no process listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://vault:topsecret@127.0.0.1:{port}/tokens");
    let (incarnation, clock) = (Incarnation::generate(), Clock::system());
    let config = StoreConfig { url: &url, migrate: true, incarnation, audit: true, clock };
    let error = Store::open(config).await.err().unwrap().to_string();
    for part in [&format!("PostgreSQL at 127.0.0.1:{port}, database tokens"), "refused", "storage.url"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains("topsecret"), "{error}");
}

#[tokio::test]
async fn a_second_process_may_not_open_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(&folder).await.unwrap();
    let error = open(&folder).await.err().unwrap().to_string();
    assert!(error.contains("in use by another token-vault process"), "{error}");
}
