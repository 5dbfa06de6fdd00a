//! What was acknowledged is there after a power cut, and nothing is half-written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use token_vault_tests::prelude::*;
use token_vault_tests::{eventually, request_id};

/// How many stores run at the same time.
const STORES: usize = 500;

/// Asserts that each connection has exactly one current secret, with the id and version in its row, and that every
/// secret belongs to a connection.
async fn nothing_is_half_written(world: &World) {
    let database = &world.database;
    let count = |sql: &'static str| database.count(sql);
    let connections = count("SELECT count(*) FROM ad_platform_connections").await;
    let whole = count(
        "SELECT count(*) FROM ad_platform_connections c JOIN connection_secrets s
             ON s.connection_id = c.connection_id AND s.secret_id = c.secret_id AND s.token_version = c.token_version
            AND s.state = 'CURRENT'",
    );
    assert_eq!(whole.await, connections, "a connection without its secret");
    assert_eq!(
        count("SELECT count(*) FROM connection_secrets").await,
        connections,
        "a secret without its connection"
    );
    let keyless = "SELECT count(*) FROM workspaces w WHERE (SELECT count(*) FROM workspace_keys k
                    WHERE k.workspace_id = w.workspace_id AND k.retired_at IS NULL) <> 2";
    assert_eq!(count(keyless).await, 0, "a workspace without its keys");
}

on_both_databases! {
    async fn every_acknowledged_token_survives_a_kill_during_five_hundred_stores(world: World) {
        let connector = world.connector().await;
        let answered = Arc::new(AtomicUsize::new(0));
        let calls: Vec<_> = (0..STORES)
            .map(|n| {
                let (connector, answered) = (connector.clone(), Arc::clone(&answered));
                // Half of the stores are each for a new person; the others bring newer tokens of a few people.
                let person = if n % 2 == 0 { format!("person {n}") } else { format!("regular {}", n % 20) };
                let workspace = format!("workspace-{}", n % 7);
                let token = world.person(&person).long_lived_token();
                let request =
                    pb::StoreTokenRequest { request_id: request_id(), ..world.pasted(&workspace, &token) };
                tokio::spawn(async move {
                    let outcome = connector.store_with(request.clone()).await;
                    answered.fetch_add(usize::from(outcome.is_ok()), Ordering::SeqCst);
                    (request, token, outcome)
                })
            })
            .collect();
        eventually("a good part is stored", Duration::from_secs(60), || {
            answered.load(Ordering::SeqCst) >= STORES / 5
        });
        world.kill();
        let outcomes: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        let acknowledged = outcomes.iter().filter(|(_, _, outcome)| outcome.is_ok()).count();
        assert!(
            (STORES / 5..STORES).contains(&acknowledged),
            "the kill was not in the middle: {acknowledged}"
        );

        world.start_again();
        nothing_is_half_written(&world).await;
        let ingestion = world.ingestion().await;
        // The newest acknowledged version of each connection, and every token that might be it.
        let mut newest: BTreeMap<String, (i32, String)> = BTreeMap::new();
        for (_, token, outcome) in &outcomes {
            let Ok(intake) = outcome else { continue };
            let held = intake.token.as_ref().unwrap();
            let known = newest.entry(held.connection_id.clone()).or_default();
            if held.token_version > known.0 {
                *known = (held.token_version, token.clone());
            }
        }
        let brought: Vec<_> = outcomes.iter().map(|(_, token, _)| token).collect();
        for (id, (version, token)) in &newest {
            let fetched =
                ingestion.fetch(id).await.unwrap_or_else(|no| panic!("acknowledged and lost: {no:?}"));
            let secret = ingestion.secret(id).await;
            assert!(fetched.token_version >= *version, "version {version} of {id} was lost");
            let exact = fetched.token_version > *version || secret == *token;
            assert!(exact && brought.contains(&&secret), "{id} holds another secret");
        }
        // All other tokens decrypt too. A caller that got no response repeats the call.
        let list = pb::ListTokensRequest { page_size: 1_000, ..Default::default() };
        for token in world.viewer().await.list_tokens(list).await.unwrap().tokens {
            assert!(brought.contains(&&ingestion.secret(&token.connection_id).await));
        }
        let connector = world.connector().await;
        let lost = outcomes.iter().filter(|(_, _, outcome)| outcome.is_err()).take(10);
        for (request, _, _) in lost {
            token_vault_tests::eventually_async("a repeat succeeds", Duration::from_secs(60), || async {
                connector.store_with(request.clone()).await.ok()
            })
            .await;
        }
        nothing_is_half_written(&world).await;
    }

    async fn a_kill_right_after_the_answer_loses_nothing(world: World) {
        for round in 0..5 {
            let token = world.person(&format!("person {round}")).long_lived_token();
            let id = world.caller_with(&world.bootstrap_key(), "").connect(ACME, &token).await;
            world.kill();
            world.start_again();
            let admin = world.caller_with(&world.bootstrap_key(), "");
            assert_eq!(admin.secret(&id).await, token);
            admin.revoke(&id).await.unwrap();
            world.kill();
            world.start_again();
            let admin = world.caller_with(&world.bootstrap_key(), "");
            admin.fetch(&id).await.unwrap_err().is(Code::FailedPrecondition, Reason::TokenRevoked);
        }
    }
}
