//! Trouble of the whole app is no trouble of its tokens.

use token_vault_proto::v1::token::Status;

use super::*;

/// Every token of the vault, each of another person.
async fn crowd(world: &World, size: usize) -> Vec<String> {
    let connector = world.connector().await;
    let mut all = Vec::new();
    for n in 0..size {
        let token = world.person(&format!("person {n}")).long_lived_token();
        all.push(connector.connect(&format!("customer-{n}"), &token).await);
    }
    all
}

async fn is_unharmed(world: &World, all: &[String]) {
    for id in all {
        assert_eq!(kinds(world, id).await, [Kind::Connected]);
        assert_eq!(world.admin().get(id).await.unwrap().status(), Status::Active);
    }
}

fn everybodys_data_calls(world: &World, error: GraphError) {
    for endpoint in [Endpoint::AdAccounts, Endpoint::Me, Endpoint::Permissions, Endpoint::Insights] {
        world.sandbox.fault(Fault::on(endpoint).always().with(error.fault()));
    }
}

on_both_databases! {
    with |builder| builder.moving_time();

    async fn a_session_error_of_everybodys_data_call_kills_nobody(world: World) {
        stand_still(&world).await;
        let all = crowd(&world, 30).await;
        let feed = world.admin().watch_all().await;
        let refused = error(190, None, "Invalid OAuth access token.");
        everybodys_data_calls(&world, refused);
        let ingestion = world.ingestion().await;
        for id in &all {
            assert_eq!(report(&ingestion, id, refused).await.verdict(), Verdict::Unconfirmed);
        }
        world.advance(APART).await;
        for id in &all {
            let again = report(&ingestion, id, refused).await;
            assert_eq!(said(&again), (Verdict::Unconfirmed, Advice::RetryAfter, true));
        }
        feed.until("the alarm", |events| {
            events.iter().any(|event| event.kind() == Kind::ProviderAlarm).then_some(())
        })
        .await;
        is_unharmed(&world, &all).await;
        world.sandbox.clear_faults();
        world.advance(Duration::from_secs(16 * 60)).await;
        feed.until("the recovery", |events| {
            events.iter().any(|event| event.kind() == Kind::ProviderRecovered).then_some(())
        })
        .await;
        is_unharmed(&world, &all).await;
    }

    async fn a_wrong_proof_of_the_app_secret_is_no_word_about_a_token(world: World) {
        stand_still(&world).await;
        let all = crowd(&world, 3).await;
        let feed = world.admin().watch_all().await;
        everybodys_data_calls(&world, error(100, None, "Invalid appsecret_proof provided in the API argument"));
        let ingestion = world.ingestion().await;
        for _ in 0..3 {
            for id in &all {
                let answer = report(&ingestion, id, error(190, Some(460), "x")).await;
                assert_eq!(said(&answer), (Verdict::StillValid, Advice::RetryAfter, true));
            }
            world.advance(APART).await;
        }
        feed.until("the alarm", |events| {
            events.iter().any(|event| event.kind() == Kind::ProviderAlarm).then_some(())
        })
        .await;
        is_unharmed(&world, &all).await;
    }
}
