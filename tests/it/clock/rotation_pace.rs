//! When the vault renews tokens: not too early, not all at once, not in a tight loop, and soon after an outage.

use std::collections::BTreeMap;
use std::time::Duration;

use token_vault_proto::v1::expiry::Kind as End;
use token_vault_proto::v1::expiry_event::Detail;
use token_vault_proto::v1::job_run::State;
use token_vault_sandbox::{ExchangeMood, User};
use token_vault_tests::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// A time after every first attempt on a token of sixty days, and before its warnings.
const DUE: Duration = Duration::from_secs(43 * 86_400);
const PASSWORD_CHANGED: &str =
    r#"{"error":{"message":"x","type":"OAuthException","code":190,"error_subcode":460}}"#;

/// How often the provider was asked to exchange a token that the vault holds.
fn exchanges(world: &World) -> usize {
    world.sandbox.requests().iter().filter(|request| request.param("fb_exchange_token").is_some()).count()
}

/// Moves the frozen clock and runs the renewal. Returns the run and the number of exchanges.
async fn rotate_after(world: &World, time: Duration) -> (pb::JobRun, usize) {
    let before = exchanges(world);
    world.advance(time).await;
    let run = world.admin().run("rotation").await;
    let expected = if run.remaining == 0 { State::Succeeded } else { State::Incomplete };
    assert_eq!(run.state(), expected, "{run:?}");
    (run, exchanges(world) - before)
}

/// How long from now the vault plans to renew a token.
async fn renewal_in(world: &World, id: &str) -> Duration {
    let at = world.viewer().await.get(id).await.unwrap().next_renewal_at.expect("it is to be renewed");
    let wait = at.seconds - world.sandbox.clock().now();
    Duration::from_secs(u64::try_from(wait).unwrap_or_else(|_| panic!("it was due {wait} s ago")))
}

on_both_databases! {
    // No job runs by itself here: the test starts the jobs, and time stands still between its steps.
    with |builder| builder
        .moving_time()
        .config("jobs.meta_token_expiry", "off")
        .config("jobs.rotation", "off");

    async fn a_token_of_a_few_days_is_left_alone_on_its_first_one(world: World) {
        world.sandbox.clock().freeze();
        world.sandbox.set_mood(ExchangeMood::Extends);
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let ana = connector.connect(ACME, &world.person("ana").long_lived_token_with_life(10 * DAY)).await;
        let robot = world.sandbox.system_user("robot").grants(SCOPES);
        let robot = connector.connect(ACME, &robot.long_lived_token_with_life(10 * DAY)).await;
        assert_eq!(rotate_after(&world, DAY - SECOND).await.1, 0, "it is younger than a day");
        // Spread over the first half of the time between its first day and its warnings.
        let (run, asked) = rotate_after(&world, DAY + 2 * SECOND).await;
        assert_eq!((run.done, run.failed, asked), (2, 0, 2));
        for id in [ana, robot] {
            assert_eq!(feed.first(&id, Kind::Rotated).await.days_left, Some(60));
        }
    }

    async fn each_of_many_tokens_is_renewed_on_a_day_of_its_own(world: World) {
        world.sandbox.clock().freeze();
        world.sandbox.set_mood(ExchangeMood::Extends);
        let connector = world.connector().await;
        let mut expected: BTreeMap<u64, usize> = BTreeMap::new();
        for n in 0..30 {
            let person = world.person(&format!("person-{n}"));
            let id = connector.connect(ACME, &person.long_lived_token()).await;
            let wait = renewal_in(&world, &id).await;
            assert!(wait >= 30 * DAY && wait <= DUE, "{wait:?}");
            *expected.entry(wait.as_secs() / 86_400 + 1).or_default() += 1;
        }
        assert!(expected.len() >= 5 && expected.values().all(|&n| n <= 15), "{expected:?}");
        assert_eq!(rotate_after(&world, 30 * DAY - SECOND).await.1, 0, "more than thirty days are left");
        world.advance(SECOND).await;
        let mut seen = BTreeMap::new();
        for day in 31..=43 {
            let (run, asked) = rotate_after(&world, DAY).await;
            assert_eq!((run.done, run.failed), (i64::try_from(asked).unwrap(), 0));
            if asked > 0 {
                seen.insert(day, asked);
            }
        }
        assert_eq!(seen, expected, "each once, on the day that GetToken told");
    }

    async fn a_success_begins_the_count_of_attempts_anew(world: World) {
        let feed = world.viewer().await.watch_all().await;
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        world.sandbox.set_mood(ExchangeMood::Extends);
        world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).always().with(FaultKind::error(500, 2)));
        assert_eq!(rotate_after(&world, DUE).await.0.failed, 1);
        let first = renewal_in(&world, &id).await;
        assert_eq!(rotate_after(&world, HOUR).await.0.failed, 1);
        world.sandbox.clear_faults();
        assert_eq!(rotate_after(&world, HOUR).await.0.failed, 0);
        feed.first(&id, Kind::Rotated).await;
        assert_eq!(feed.kinds_of(&id), [Kind::Connected, Kind::Rotated]);
        world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).always().with(FaultKind::error(500, 2)));
        assert_eq!(rotate_after(&world, DUE).await.0.failed, 1);
        let again = renewal_in(&world, &id).await;
        assert!(first <= Duration::from_secs(75) && again <= Duration::from_secs(75), "{first:?}, then {again:?}");
        world.sandbox.clear_faults();
        world.sandbox.set_mood(ExchangeMood::SameExpiry);
        rotate_after(&world, HOUR).await;
        let event = feed.first(&id, Kind::RotationFailed).await;
        let Some(Detail::RotationFailed(failure)) = event.detail else { panic!("{event:?}") };
        assert_eq!((failure.at_ceiling, failure.attempts), (true, 2), "those of version 2 only");
    }

    async fn a_refusal_that_nobody_can_confirm_is_asked_about_again_later(world: World) {
        let feed = world.viewer().await.watch_all().await;
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        world.sandbox.set_mood(ExchangeMood::Extends);
        let refused = FaultKind::error_with_subcode(400, 190, 460);
        world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).always().with(refused));
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).always().with(FaultKind::error(503, 2)));
        let (run, asked) = rotate_after(&world, DUE).await;
        assert_eq!((run.done, run.failed, asked), (1, 1, 1));
        assert!(renewal_in(&world, &id).await > Duration::ZERO);
        assert!(world.ingestion().await.fetch(&id).await.is_ok(), "nobody says that it is dead");
        world.sandbox.clear_faults();
        rotate_after(&world, HOUR).await;
        feed.first(&id, Kind::Rotated).await;
        assert_eq!(feed.kinds_of(&id), [Kind::Connected, Kind::Rotated]);
    }

    async fn an_end_that_nobody_tells_is_asked_for_within_the_hour_and_once(world: World) {
        let silent = FaultKind::Set("/data/expires_at".into(), serde_json::Value::Null);
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).always().with(silent));
        let feed = world.viewer().await.watch_all().await;
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let viewer = world.viewer().await;
        assert_eq!(viewer.get(&id).await.unwrap().expiry.unwrap().kind(), End::Unknown);
        for _ in 0..2 {
            assert!(renewal_in(&world, &id).await <= HOUR);
            let before = world.sandbox.count(Endpoint::DebugToken);
            let (run, asked) = rotate_after(&world, HOUR).await;
            assert_eq!((run.done, asked), (1, 0));
            assert_eq!(world.sandbox.count(Endpoint::DebugToken) - before, 1);
        }
        world.sandbox.clear_faults();
        rotate_after(&world, HOUR).await;
        assert_eq!(viewer.get(&id).await.unwrap().expiry.unwrap().kind(), End::At);
        let event = feed.first(&id, Kind::DeadlinesChanged).await;
        assert_eq!((event.usable, event.token_version), (true, 1));
    }

    async fn a_secret_that_cannot_be_opened_holds_nothing_up(world: World) {
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let broken = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        let whole = connector.connect(ACME, &world.person("ben").long_lived_token()).await;
        // This has the effect of a flipped bit: the secret of one row does not decrypt in another row.
        let (from, to) = (world.database.uuid(&whole), world.database.uuid(&broken));
        let sealed = "(SELECT sealed FROM connection_secrets WHERE connection_id = ";
        let rot = format!("UPDATE connection_secrets SET sealed = {sealed}{from}) WHERE connection_id = {to}");
        assert_eq!(world.database.execute(rot).await, 1);
        world.sandbox.set_mood(ExchangeMood::Extends);
        let (run, asked) = rotate_after(&world, DUE).await;
        assert_eq!((run.done, run.failed, asked), (2, 1, 1));
        feed.first(&whole, Kind::Rotated).await;
        assert_eq!(rotate_after(&world, 60 * SECOND).await.0.done, 0, "not every minute");
        assert_eq!(feed.kinds_of(&broken), [Kind::Connected]);
    }

    async fn a_page_that_its_person_lost_is_asked_about_once(world: World) {
        let ana = world.person("ana");
        ana.page("Shop");
        let options = pb::IntakeOptions { connect_pages: true, ..Default::default() };
        let token = ana.short_lived_token();
        let request = pb::StoreTokenRequest { options: Some(options), ..world.pasted(ACME, &token) };
        let stored = world.connector().await.store_with(request).await.expect("the token is good");
        let page = stored.page_connection_ids[0].clone();
        let feed = world.viewer().await.watch_all().await;
        ana.changes_password();
        world.ingestion().await.report(&page, 1, 400, PASSWORD_CHANGED).await.unwrap();
        feed.first(&page, Kind::Invalidated).await;
        // The person reconnects but no longer manages the page.
        let none = FaultKind::Set("/data".into(), serde_json::json!([]));
        world.sandbox.fault(Fault::on(Endpoint::Accounts).always().with(none));
        world.connector().await.connect(ACME, &ana.short_lived_token()).await;
        let before = world.sandbox.count(Endpoint::DebugToken);
        let (run, _) = rotate_after(&world, HOUR).await;
        assert_eq!((run.done, run.failed), (1, 1));
        assert_eq!(world.sandbox.count(Endpoint::DebugToken) - before, 1);
        assert_eq!(world.admin().run("rotation").await.done, 0, "not again until the person's token changes");
        assert_eq!(feed.kinds_of(&page), [Kind::Connected, Kind::Invalidated]);
    }

    async fn deaths_that_are_not_believed_are_asked_about_when_they_would_be(world: World) {
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let mut people: Vec<(User, String)> = Vec::new();
        for n in 0..24 {
            let person = world.person(&format!("person-{n}"));
            let id = connector.connect(ACME, &person.long_lived_token()).await;
            people.push((person, id));
        }
        people.iter().for_each(|(person, _)| person.changes_password());
        let (run, asked) = rotate_after(&world, DUE).await;
        assert_eq!((run.done, run.failed, asked), (24, 24, 24), "each was tried once");
        let died = |all: &[pb::ExpiryEvent]| all.iter().filter(|e| e.kind() == Kind::Invalidated).count();
        feed.until("twenty deaths", |all| (died(all) >= 20).then_some(())).await;
        assert_eq!(died(&feed.caught_up().await), 20, "the others are not believed");
        assert_eq!(rotate_after(&world, 60 * SECOND).await.1, 0, "nor asked about every minute");
        let (run, asked) = rotate_after(&world, 15 * 60 * SECOND).await;
        assert_eq!((run.done, asked), (4, 4));
        feed.until("all deaths", |all| (died(all) == 24).then_some(())).await;
        feed.until("it is over", |all| all.iter().find(|e| e.kind() == Kind::ProviderRecovered).cloned()).await;
        let alarms = feed.events().iter().filter(|event| event.kind() == Kind::ProviderAlarm).count();
        assert_eq!(alarms, 1);
    }
}
