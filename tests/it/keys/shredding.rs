//! Shredding a workspace destroys its keys and its secrets, and its name can never be used again.

use std::fs;
use std::time::Duration;

use token_vault_proto::v1::workspace::State;
use token_vault_tests::prelude::*;
use token_vault_tests::{eventually_async, request_id};

fn shred(workspace: &str) -> pb::ShredWorkspaceRequest {
    pb::ShredWorkspaceRequest {
        workspace_id: workspace.into(),
        confirm_workspace_id: workspace.into(),
        revoke_at_provider: false,
        request_id: request_id(),
    }
}

/// A BLOB column of a table, as bytes.
async fn blobs(world: &World, sql: &str) -> Vec<Vec<u8>> {
    let rows = world.database.texts(sql).await;
    rows.iter().map(|hex| hex::decode(hex.to_lowercase()).expect("hexadecimal")).collect()
}

fn holds(file: &std::path::Path, bytes: &[u8]) -> bool {
    let all = fs::read(file).unwrap_or_default();
    all.windows(bytes.len()).any(|window| window == bytes)
}

async fn is_buried(world: &World, admin: &Caller) {
    eventually_async("the connections end", Duration::from_secs(60), async || {
        let run = admin.runs("shredding").await.into_iter().next()?;
        run.ended_at.is_some().then_some(())
    })
    .await;
    let left = "SELECT count(*) FROM connection_secrets s JOIN ad_platform_connections c ON c.connection_id = s.connection_id
                 WHERE c.workspace_id = 'acme'";
    assert_eq!(world.database.count(left).await, 0);
}

on_both_databases! {
    async fn a_shredded_workspace_is_gone_with_its_keys_and_its_id_is_never_used_again(world: World) {
        let (admin, feed) = (world.admin(), world.alerting().await.watch_all().await);
        let ana = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
        let bob = admin.connect(ACME, &world.person("bob").long_lived_token()).await;
        let eve = admin.connect("globex", &world.person("eve").long_lived_token()).await;

        let other = pb::ShredWorkspaceRequest { confirm_workspace_id: "globex".into(), ..shred(ACME) };
        admin.shred_workspace(other).await.unwrap_err().is(Code::InvalidArgument, Reason::FieldInvalid).field("confirm_workspace_id");
        let nowhere = admin.shred_workspace(shred("nowhere")).await.unwrap_err();
        nowhere.is(Code::NotFound, Reason::WorkspaceNotFound);
        let limited = world.caller(Role::Admin, &["globex"]).await;
        limited.shred_workspace(shred(ACME)).await.unwrap_err().is(Code::NotFound, Reason::WorkspaceNotFound);
        assert!(admin.fetch(&ana).await.is_ok(), "nothing was destroyed so far");

        let request = shred(ACME);
        let done = admin.shred_workspace(request.clone()).await.unwrap();
        assert_eq!(done.connections, 2);
        let workspace = done.workspace.unwrap();
        assert_eq!((workspace.state(), workspace.data_key_version, workspace.shredded_at.is_some()), (State::Shredded, 0, true));
        let no = admin.fetch(&ana).await.unwrap_err();
        assert!(
            [Reason::WorkspaceShredded, Reason::TokenRevoked].iter().any(|reason| reason.as_str_name().ends_with(no.reason())),
            "{no:?}"
        );
        assert_eq!(world.database.count("SELECT count(*) FROM workspace_keys WHERE workspace_id = 'acme'").await, 0);
        is_buried(&world, &admin).await;
        for id in [&ana, &bob] {
            feed.first(id, Kind::Revoked).await;
            let token = admin.get(id).await.unwrap();
            assert_eq!(token.subject.map(|subject| subject.name).unwrap_or_default(), "", "names are forgotten");
            admin.fetch(id).await.unwrap_err().is(Code::FailedPrecondition, Reason::TokenRevoked);
        }
        assert!(admin.fetch(&eve).await.is_ok(), "globex is left alone");

        let again = admin.store(ACME, &world.person("ana").long_lived_token()).await.unwrap_err();
        again.is(Code::FailedPrecondition, Reason::WorkspaceShredded).says("workspace_id", ACME);
        let repeated = admin.shred_workspace(request).await.unwrap();
        assert_eq!(repeated.connections, 2, "a repeat answers as before");
        assert_eq!(admin.shred_workspace(shred(ACME)).await.unwrap().connections, 0, "shredding again changes nothing");
        let rotate = pb::RotateKeyRequest {
            key: Some(pb::rotate_key_request::Key::WorkspaceId(ACME.into())),
            ..Default::default()
        };
        admin.rotate_key(rotate).await.unwrap_err().is(Code::FailedPrecondition, Reason::WorkspaceShredded);

        let ledger = world.data().join("shred-ledger.jsonl");
        let lines: Vec<serde_json::Value> =
            fs::read_to_string(&ledger).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1);
        assert_eq!((&lines[0]["workspace_id"], &lines[0]["shredded_by"]), (&ACME.into(), &"bootstrap-admin".into()));
        // If the ledger is missing, the vault restores it from the database.
        world.stop();
        fs::remove_file(&ledger).unwrap();
        world.start_again();
        assert!(fs::read_to_string(&ledger).unwrap().contains("\"acme\""));
        let again = world.admin().store(ACME, &world.person("ana").long_lived_token()).await.unwrap_err();
        again.is(Code::FailedPrecondition, Reason::WorkspaceShredded);
        let listed = world.admin().list_workspaces(Default::default()).await.unwrap().workspaces;
        let states: Vec<_> = listed.iter().map(|one| (one.workspace_id.as_str(), one.state())).collect();
        assert_eq!(states, [(ACME, State::Shredded), ("globex", State::Active)]);
    }

    async fn tokens_end_at_the_provider_first_where_that_is_asked_for(world: World) {
        let admin = world.admin();
        let ana = world.person("ana");
        let token = ana.long_lived_token();
        admin.connect(ACME, &token).await;
        let request = pb::ShredWorkspaceRequest { revoke_at_provider: true, ..shred(ACME) };
        admin.shred_workspace(request).await.unwrap();
        let elsewhere = admin.store("globex", &token).await.unwrap_err();
        elsewhere.is(Code::InvalidArgument, Reason::ProviderRefusedToken);
    }

    async fn shredding_spares_at_the_provider_what_other_workspaces_share_and_counts_it(world: World) {
        let (admin, ana, ben) = (world.admin(), world.person("ana"), world.person("ben"));
        ben.page("Shop");
        admin.connect(ACME, &ana.long_lived_token()).await;
        let elsewhere = admin.connect("globex", &ana.long_lived_token()).await;
        let pasted = ben.long_lived_token();
        let options = pb::IntakeOptions { connect_pages: true, ..Default::default() };
        let request = pb::StoreTokenRequest { options: Some(options), ..world.pasted(ACME, &pasted) };
        assert_eq!(admin.store_with(request).await.unwrap().page_connection_ids.len(), 1);
        let request = pb::ShredWorkspaceRequest { revoke_at_provider: true, ..shred(ACME) };
        let done = admin.shred_workspace(request.clone()).await.unwrap();
        assert_eq!((done.connections, done.spared_at_provider), (3, 1), "ana's is spared; ben's and his page's are not");
        assert_eq!(admin.shred_workspace(request).await.unwrap().spared_at_provider, 1, "a repeat answers as before");
        let kept = admin.validate(&elsewhere).await.unwrap().token.unwrap();
        assert!(kept.usable && kept.invalid_since.is_none(), "{kept:#?}");
        let gone = admin.store("globex", &pasted).await.unwrap_err();
        gone.is(Code::InvalidArgument, Reason::ProviderRefusedToken);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_ciphertext_nor_keys_are_left_in_the_files_of_sqlite() {
    let world = World::start(Backend::Sqlite).await;
    let admin = world.admin();
    for n in 0..20 {
        let workspace = if n % 2 == 0 { ACME } else { "globex" };
        admin.connect(workspace, &world.person(&format!("person {n}")).long_lived_token()).await;
    }
    let of = |workspace: &str| {
        (
            format!("SELECT hex(wrapped) FROM workspace_keys WHERE workspace_id = '{workspace}'"),
            format!(
                "SELECT hex(s.sealed) FROM connection_secrets s JOIN ad_platform_connections c
                     ON c.connection_id = s.connection_id WHERE c.workspace_id = '{workspace}'"
            ),
        )
    };
    let (keys, secrets) = of(ACME);
    let destroyed = [blobs(&world, &keys).await, blobs(&world, &secrets).await].concat();
    let (keys, secrets) = of("globex");
    let kept = [blobs(&world, &keys).await, blobs(&world, &secrets).await].concat();
    assert_eq!((destroyed.len(), kept.len()), (12, 12));
    // The log first: what leaves it meanwhile is in the database by then.
    let files = [world.database.file().with_extension("db-wal"), world.database.file()];
    let found = |bytes: &[u8]| files.iter().any(|file| holds(file, bytes));
    assert!(destroyed.iter().all(|bytes| found(bytes)), "they are there before");

    admin.shred_workspace(shred(ACME)).await.unwrap();
    is_buried(&world, &admin).await;
    let left = destroyed.iter().filter(|bytes| found(bytes)).count();
    assert_eq!(left, 0, "of {} ciphertexts and wrapped keys {left} are left in the files", destroyed.len());
    assert!(kept.iter().all(|bytes| found(bytes)), "globex's are there");
}
