//! What is due for both judges stays due until both were asked: an inspection alone does not settle it.

use super::*;

const REFUSED: GraphError = error(190, Some(493), "x");

async fn is_due(world: &World, id: &str) -> bool {
    // The vault's clock may be a little ahead.
    let (id, soon) = (world.database.uuid(id), world.sandbox.clock().now_micros() + 60_000_000);
    let due = "SELECT count(*) FROM ad_platform_connections";
    let sql = format!("{due} WHERE connection_id = {id} AND next_validation_at <= {soon}");
    world.database.count(&sql).await == 1
}

/// Runs some checks of a token; none named means all.
async fn validate(caller: &Caller, id: &str, checks: &[&str]) {
    let checks = checks.iter().map(|check| (*check).to_owned()).collect();
    let request = pb::ValidateTokenRequest { connection_id: id.to_owned(), checks, ..Default::default() };
    caller.validate_token(request).await.unwrap();
}

on_both_databases! {
    // No pass runs by itself, so what is due stays so until the test has it asked about.
    with |builder| builder
        .moving_time()
        .config("jobs.meta_token_expiry", "off")
        .config("jobs.rotation", "off");

    async fn only_a_whole_validation_settles_what_is_due(world: World) {
        world.sandbox.clock().freeze();
        world.time_is_here().await;
        let (connector, ingestion, ana) = (world.connector().await, world.ingestion().await, world.person("ana"));
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        assert!(!is_due(&world, &id).await, "it was just asked about");
        connector.connect("other", &ana.long_lived_token()).await;
        assert!(is_due(&world, &id).await, "a new grant of the same person");
        validate(&ingestion, &id, &["expiry"]).await;
        assert!(is_due(&world, &id).await, "nobody tried whether its ad accounts can be read");
        report(&ingestion, &id, error(190, Some(460), "x")).await;
        assert!(is_due(&world, &id).await, "nobody listed its ad accounts");
        connector.exchange(&id).await.unwrap();
        assert!(is_due(&world, &id).await, "an exchange inspects only");
        world.sandbox.fault(Fault::on(Endpoint::AdAccounts).always().with(FaultKind::error(400, 100)));
        validate(&ingestion, &id, &[]).await;
        assert!(is_due(&world, &id).await, "they could not be listed, for no reason of its own");
        world.sandbox.clear_faults();
        validate(&ingestion, &id, &[]).await;
        assert!(!is_due(&world, &id).await);
    }

    async fn both_judges_are_asked_about_the_other_tokens_of_a_dead_ones_person(world: World) {
        world.sandbox.clock().freeze();
        world.time_is_here().await;
        let (connector, ingestion, ana) = (world.connector().await, world.ingestion().await, world.person("ana"));
        let tokens = [ana.long_lived_token(), ana.long_lived_token()];
        let first = connector.connect(ACME, &tokens[0]).await;
        let other = connector.connect("other", &tokens[1]).await;
        for token in &tokens {
            refuse_data(&world, token, REFUSED);
        }
        assert_eq!(report(&ingestion, &first, REFUSED).await.verdict(), Verdict::Unconfirmed);
        world.advance(APART).await;
        assert_eq!(report(&ingestion, &first, REFUSED).await.verdict(), Verdict::Invalidated);
        eventually_async("the other one is in doubt", LIMIT, async || {
            let doubts = "SELECT count(*) FROM ad_platform_connections WHERE data_refused_at IS NOT NULL";
            (world.database.count(doubts).await == 2).then_some(())
        })
        .await;
        world.advance(APART).await;
        assert!(is_due(&world, &other).await, "the second call follows the first");
        validate(&ingestion, &other, &[]).await;
        assert_eq!(kinds(&world, &other).await, [Kind::Connected, Kind::Invalidated]);
    }
}
