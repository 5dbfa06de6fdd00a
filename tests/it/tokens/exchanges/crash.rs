//! A process that dies in the middle of an exchange loses neither the old token nor the new one.

use std::time::Duration;

use token_vault_tests::prelude::*;
use token_vault_tests::{eventually, eventually_async};

use super::table::{Case, New, Old};

const PATIENCE: Duration = Duration::from_secs(60);

/// Kills the vault while it asks about the token that an exchange gave, and starts it again.
async fn die_before_the_new_token_is_known(world: &World, set: &Case) {
    let silence = FaultKind::StallFirstByte(Duration::from_secs(60));
    world.sandbox.fault(Fault::on(Endpoint::DebugToken).token(&set.new).with(silence));
    let (connector, id) = (world.connector().await, set.id.clone());
    let running = tokio::spawn(async move { connector.exchange(&id).await });
    eventually("the new token is being inspected", PATIENCE, || {
        let all = world.sandbox.requests();
        all.iter().any(|request| request.param("input_token") == Some(&set.new))
    });
    world.kill();
    running.await.unwrap().unwrap_err();
    world.sandbox.clear_faults();
    world.sandbox.clear_requests();
    world.start_again();
}

on_both_databases! {
    with |builder| builder.moving_time().config("jobs.rotation", "off");

    async fn what_an_exchange_gave_before_a_crash_is_weighed_after_it(world: World) {
        let cases = [(Old::Lives, New::Longer), (Old::DiesByIt, New::Shorter), (Old::Lives, New::Shorter)];
        let mut sets = Vec::new();
        for (n, (old, new)) in cases.into_iter().enumerate() {
            let set = Case::set(&world, &format!("person-{n}"), old, new).await;
            die_before_the_new_token_is_known(&world, &set).await;
            sets.push((old, new, set));
        }
        let admin = world.admin();
        for (old, new, set) in sets {
            let right = if (old, new) == (Old::Lives, New::Shorter) { &set.old } else { &set.new };
            eventually_async("the exchange is finished", PATIENCE, async || {
                admin.run("rotation").await;
                let pending = "SELECT count(*) FROM connection_secrets WHERE state = 'PENDING'";
                (world.database.count(pending).await == 0).then_some(())
            })
            .await;
            assert_eq!(world.ingestion().await.secret(&set.id).await, *right, "{old:?} {new:?}");
        }
        assert_eq!(world.sandbox.count(Endpoint::OauthAccessToken), 0, "a token was exchanged again");
    }

    async fn a_person_who_reconnects_meanwhile_wins(world: World) {
        let set = Case::set(&world, "ana", Old::DiesByIt, New::Longer).await;
        die_before_the_new_token_is_known(&world, &set).await;
        let own = world.person("ana").long_lived_token();
        let connector = world.connector().await;
        assert_eq!(connector.connect(ACME, &own).await, set.id);
        world.admin().run("rotation").await;
        assert_eq!(world.ingestion().await.secret(&set.id).await, own);
        assert_eq!(world.database.count("SELECT count(*) FROM connection_secrets").await, 1);
    }
}
