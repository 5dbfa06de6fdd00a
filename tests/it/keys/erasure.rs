//! An erased person is erased everywhere at once: no response, no open watch, no file and no log names them.

use std::time::Duration;

use prost::Message;
use token_vault_sandbox::User;
use token_vault_tests::prelude::*;
use token_vault_tests::{Hunter, eventually_async, files_below};

const LIMIT: Duration = Duration::from_secs(60);

/// Everything that a vault says about its tokens, in the encoding of the wire.
async fn said(caller: &Caller, ids: &[&String]) -> Vec<(&'static str, Vec<u8>)> {
    let mut said = Vec::new();
    for id in ids {
        said.push(("GetToken", caller.get(id).await.unwrap().encode_to_vec()));
        if let Ok(validated) = caller.validate(id).await {
            said.push(("ValidateToken", validated.encode_to_vec()));
        }
        match caller.fetch(id).await {
            Ok(fetched) => said.push(("FetchAccessToken", fetched.encode_to_vec())),
            Err(no) => said.push(("FetchAccessToken", no.everything())),
        }
    }
    for id in ids {
        let accounts = pb::ListAdAccountsRequest { connection_id: (*id).clone(), ..Default::default() };
        match caller.list_ad_accounts(accounts).await {
            Ok(listed) => said.push(("ListAdAccounts", listed.encode_to_vec())),
            Err(no) => said.push(("ListAdAccounts", no.everything())),
        }
    }
    said.push(("ListTokens", caller.list().await.unwrap().encode_to_vec()));
    let history = pb::ListExpiryEventsRequest { page_size: 1_000, ..Default::default() };
    said.push(("ListExpiryEvents", caller.list_expiry_events(history).await.unwrap().encode_to_vec()));
    for event in caller.watch_all().await.caught_up().await {
        said.push(("WatchExpiryEvents", event.encode_to_vec()));
    }
    for token in caller.watch_snapshot().await.snapshot().await {
        said.push(("a snapshot", token.encode_to_vec()));
    }
    let status = caller.get_vault_status(pb::GetVaultStatusRequest {}).await.unwrap();
    said.push(("GetVaultStatus", status.encode_to_vec()));
    said.push(("ListWorkspaces", caller.list_workspaces(Default::default()).await.unwrap().encode_to_vec()));
    for job in ["shredding", "data-deletion", "meta-token-expiry"] {
        for run in caller.runs(job).await {
            said.push(("ListJobRuns", run.encode_to_vec()));
        }
    }
    said
}

/// Where a vault names the hunted.
pub(crate) async fn named(caller: &Caller, hunter: &Hunter, ids: &[&String]) -> Vec<String> {
    let said = said(caller, ids).await;
    said.iter()
        .flat_map(|(rpc, bytes)| hunter.search(rpc, bytes))
        .map(|found| format!("{} in {}", found.name, found.place))
        .collect()
}

/// What holds the hunted in the database, in its files and in the vault's other files.
pub(crate) async fn written(world: &World, hunter: &Hunter) -> Vec<String> {
    let mut found = hunter.search_files(files_below(world.folder()));
    for column in world.database.columns().await {
        let (table, _) = column.split_once('.').expect("table.column");
        found.extend(hunter.search(table, world.database.rows(table).await.join("\n").as_bytes()));
    }
    found.into_iter().map(|found| format!("{} in {}", found.name, found.place)).collect()
}

pub(crate) fn hunter_of(person: &User) -> Hunter {
    let mut hunter = Hunter::default();
    hunter.add("the name", person.name());
    hunter.add("the id", person.id());
    hunter
}

on_both_databases! {
    async fn an_erased_person_is_named_nowhere(world: World) {
        let admin = world.admin();
        let (ana, ben) = (world.person("Persephone Erasable"), world.person("Benjamin Remaining"));
        ana.with_ad_accounts(2);
        let token = ana.long_lived_token();
        let id = admin.connect(ACME, &token).await;
        let his = admin.connect(ACME, &ben.long_lived_token()).await;
        let replica = (world.database.backend() == Backend::Postgres).then(|| world.replica());
        let other = replica.as_ref().map(|replica| admin.at(replica));
        let (hunted, kept) = (hunter_of(&ana), hunter_of(&ben));
        // What both vaults cache before: the row, the events and the names in them.
        for caller in [Some(&admin), other.as_ref()].into_iter().flatten() {
            let before = named(caller, &hunted, &[&id]).await;
            for rpc in ["GetToken", "ListTokens", "ListExpiryEvents", "WatchExpiryEvents", "a snapshot"] {
                assert!(before.contains(&format!("the name in {rpc}")), "{rpc}: {before:?}");
            }
        }
        let open = admin.watch_all().await;
        let seen = open.caught_up().await.len();

        let request = pb::RevokeTokenRequest { connection_id: id.clone(), erase_subject: true, ..Default::default() };
        let revoked = admin.revoke_token(request).await.unwrap();
        assert!(hunted.search("RevokeToken", &revoked.encode_to_vec()).is_empty());
        assert_eq!(named(&admin, &hunted, &[&id]).await, [""; 0]);
        assert_eq!(written(&world, &hunted).await, [""; 0]);
        open.first(&id, Kind::Revoked).await;
        for event in &open.events()[seen..] {
            assert!(hunted.search("an open watch", &event.encode_to_vec()).is_empty(), "{event:?}");
        }
        if let Some(other) = &other {
            eventually_async("the other replica forgets too", LIMIT, async || {
                named(other, &hunted, &[&id]).await.is_empty().then_some(())
            })
            .await;
        }
        assert!(!named(&admin, &kept, &[&his]).await.is_empty(), "nobody else is erased");
    }

    async fn the_people_of_a_shredded_workspace_are_named_nowhere(world: World) {
        let admin = world.admin();
        let (ana, ben) = (world.person("Persephone Erasable"), world.person("Benjamin Remaining"));
        ana.with_ad_accounts(2);
        let id = admin.connect(ACME, &ana.long_lived_token()).await;
        let his = admin.connect("globex", &ben.long_lived_token()).await;
        let (hunted, kept) = (hunter_of(&ana), hunter_of(&ben));
        assert!(!named(&admin, &hunted, &[&id]).await.is_empty());
        let shred = pb::ShredWorkspaceRequest {
            workspace_id: ACME.into(),
            confirm_workspace_id: ACME.into(),
            ..Default::default()
        };
        admin.shred_workspace(shred).await.unwrap();
        // At once, and not only when the job has ended the last connection.
        assert_eq!(named(&admin, &hunted, &[&id]).await, [""; 0]);
        assert_eq!(written(&world, &hunted).await, [""; 0]);
        assert!(!named(&admin, &kept, &[&his]).await.is_empty(), "globex is left alone");
    }
}
