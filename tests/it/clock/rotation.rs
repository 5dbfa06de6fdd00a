//! Renewal: the vault renews tokens where the provider allows it, checks the result, and asks for a person where it
//! can't.

use std::time::Duration;

use token_vault_proto::v1::Severity;
use token_vault_proto::v1::expiry::Kind as End;
use token_vault_proto::v1::expiry_event::Detail;
use token_vault_proto::v1::expiry_event::RotationFailed;
use token_vault_sandbox::{ExchangeMood, User};
use token_vault_tests::prelude::*;

const DAY: Duration = Duration::from_secs(86_400);
/// A time after every first attempt on a token of sixty days, and before its warnings.
const DUE: Duration = Duration::from_secs(43 * 86_400);

/// A token, the person it belongs to, its feed and a caller that fetches it.
struct Cast {
    ana: User,
    id: String,
    secret: String,
    feed: Feed,
    ingestion: Caller,
}

async fn cast(world: &World) -> Cast {
    let ana = world.person("ana");
    let feed = world.viewer().await.watch_all().await;
    let id = world.connector().await.connect(ACME, &ana.long_lived_token()).await;
    let ingestion = world.ingestion().await;
    let secret = ingestion.secret(&id).await;
    Cast { ana, id, secret, feed, ingestion }
}

/// Runs the renewal when it is due, while the provider behaves like `mood`.
async fn rotate(world: &World, mood: ExchangeMood) -> pb::JobRun {
    world.sandbox.set_mood(mood);
    world.advance(DUE).await;
    world.admin().run("rotation").await
}

fn failure(event: &pb::ExpiryEvent) -> RotationFailed {
    match event.detail.clone() {
        Some(Detail::RotationFailed(failed)) => failed,
        other => panic!("not a failed rotation: {other:?}"),
    }
}

/// Returns the failure that the feed announced, and asserts that the old token is still handed out.
async fn asked_for_a_person(world: &World, cast: &Cast) -> RotationFailed {
    let event = cast.feed.first(&cast.id, Kind::RotationFailed).await;
    assert_eq!((event.severity(), event.usable), (Severity::Critical, true));
    assert_eq!(event.remedy.as_ref().unwrap().fixer(), pb::Fixer::WorkspaceOwner);
    assert_eq!(cast.ingestion.secret(&cast.id).await, cast.secret, "the old token stays");
    assert_eq!(world.viewer().await.get(&cast.id).await.unwrap().token_version, 1);
    failure(&event)
}

on_both_databases! {
    // The jobs never run on schedule here, because the daily validation would observe, and the renewal would try, on
    // their own.
    with |builder| builder
        .moving_time()
        .config("jobs.meta_token_expiry", "off")
        .config("jobs.rotation", "off");

    async fn a_token_that_the_provider_extends_is_renewed_in_time(world: World) {
        let cast = cast(&world).await;
        // The token is old enough but still far from its end, so the provider is not asked.
        world.advance(29 * DAY).await;
        assert_eq!(world.admin().run("rotation").await.done, 0);
        let before = world.viewer().await.get(&cast.id).await.unwrap();
        assert!(before.next_renewal_at.is_some());
        world.sandbox.set_mood(ExchangeMood::Extends);
        world.advance(14 * DAY).await;
        let run = world.admin().run("rotation").await;
        assert_eq!((run.done, run.failed), (1, 0));
        let event = cast.feed.first(&cast.id, Kind::Rotated).await;
        assert_eq!((event.severity(), event.token_version, event.usable), (Severity::Info, 2, true));
        let Some(Detail::Renewed(renewed)) = event.detail else { panic!("{event:?}") };
        assert_eq!(renewed.previous_expiry, before.expiry);
        assert_eq!(event.days_left, Some(60));
        let now = world.viewer().await.get(&cast.id).await.unwrap();
        let seconds = |token: &pb::Token| token.next_renewal_at.map(|at| at.seconds);
        assert!(now.last_rotated_at.is_some() && seconds(&now) > seconds(&before));
        let secret = cast.ingestion.secret(&cast.id).await;
        assert_ne!(secret, cast.secret, "the new secret is handed out");
        assert_eq!(cast.feed.kinds_of(&cast.id), [Kind::Connected, Kind::Rotated]);
    }

    async fn the_same_string_with_a_later_end_is_the_same_version(world: World) {
        let cast = cast(&world).await;
        world.sandbox.set_mood(ExchangeMood::SameString);
        world.advance(DUE).await;
        world.sandbox.expires_at(&cast.secret, world.sandbox.clock().now() + 60 * 86_400);
        world.admin().run("rotation").await;
        let event = cast.feed.first(&cast.id, Kind::Rotated).await;
        assert_eq!((event.token_version, event.days_left), (1, Some(60)));
        let said = event.remedy.unwrap().message;
        assert_eq!(said, "The provider extended the token, which stays the same.");
        assert_eq!(cast.ingestion.secret(&cast.id).await, cast.secret);
    }

    async fn a_token_that_ends_no_more_is_renewed_for_good(world: World) {
        let cast = cast(&world).await;
        rotate(&world, ExchangeMood::BecomesNever).await;
        let event = cast.feed.first(&cast.id, Kind::Rotated).await;
        assert_eq!(event.expiry.unwrap().kind(), End::Never);
        assert!(world.viewer().await.get(&cast.id).await.unwrap().next_renewal_at.is_none());
    }

    async fn at_the_ceiling_a_person_is_asked_once_and_a_later_success_settles_it(world: World) {
        let cast = cast(&world).await;
        rotate(&world, ExchangeMood::SameExpiry).await;
        let failed = asked_for_a_person(&world, &cast).await;
        assert!(failed.at_ceiling && failed.attempts == 1);
        let opened = cast.feed.first(&cast.id, Kind::RotationFailed).await.sequence;
        let next = failed.next_attempt_at.expect("it is tried again").seconds - world.sandbox.clock().now();
        assert!((86_400..30 * 86_400).contains(&next), "{next} s");
        // The second attempt fails at the ceiling too, and is not announced again.
        world.advance(Duration::from_secs(u64::try_from(next).unwrap() + 1)).await;
        assert_eq!(world.admin().run("rotation").await.done, 1);
        cast.feed.caught_up().await;
        assert_eq!(cast.feed.kinds_of(&cast.id), [Kind::Connected, Kind::RotationFailed]);
        world.sandbox.set_mood(ExchangeMood::Extends);
        world.advance(5 * DAY).await;
        world.admin().run("rotation").await;
        let rotated = cast.feed.first(&cast.id, Kind::Rotated).await;
        assert!(rotated.closes.contains(&opened), "{:?}", rotated.closes);
    }

    async fn an_earlier_end_is_discarded(world: World) {
        let cast = cast(&world).await;
        rotate(&world, ExchangeMood::Shortens).await;
        assert!(!asked_for_a_person(&world, &cast).await.at_ceiling);
    }

    async fn a_token_with_fewer_scopes_is_discarded(world: World) {
        let cast = cast(&world).await;
        let fewer = FaultKind::Scopes(vec!["ads_read".into()]);
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).times(1).with(fewer));
        rotate(&world, ExchangeMood::Extends).await;
        assert!(!asked_for_a_person(&world, &cast).await.at_ceiling);
    }

    async fn a_token_of_somebody_else_is_discarded(world: World) {
        let cast = cast(&world).await;
        let other = FaultKind::Subject(Some("10150000000000001".into()));
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).times(1).with(other));
        rotate(&world, ExchangeMood::Extends).await;
        assert!(!asked_for_a_person(&world, &cast).await.at_ceiling);
    }

    async fn a_refusal_of_a_dead_token_is_the_first_news_of_its_death(world: World) {
        let cast = cast(&world).await;
        cast.ana.changes_password();
        rotate(&world, ExchangeMood::Extends).await;
        let event = cast.feed.first(&cast.id, Kind::Invalidated).await;
        assert_eq!(event.reason(), pb::RefusalReason::PasswordChanged);
        assert_eq!(cast.feed.kinds_of(&cast.id), [Kind::Connected, Kind::Invalidated]);
    }

    async fn a_refusal_of_a_token_that_lives_asks_for_a_person(world: World) {
        let cast = cast(&world).await;
        let refused = FaultKind::error_with_subcode(400, 190, 460);
        world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).times(1).with(refused));
        rotate(&world, ExchangeMood::Extends).await;
        assert!(!asked_for_a_person(&world, &cast).await.at_ceiling);
    }

    async fn a_throttled_exchange_waits_and_is_no_failure(world: World) {
        let cast = cast(&world).await;
        world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).times(1).with(FaultKind::error(400, 4)));
        rotate(&world, ExchangeMood::Extends).await;
        cast.feed.caught_up().await;
        assert_eq!(cast.feed.kinds_of(&cast.id), [Kind::Connected], "nothing to tell");
        world.advance(DAY).await;
        world.admin().run("rotation").await;
        cast.feed.first(&cast.id, Kind::Rotated).await;
    }

    async fn a_provider_that_stumbles_is_asked_again_and_near_the_end_a_person_is(world: World) {
        let cast = cast(&world).await;
        world.sandbox.fault(Fault::on(Endpoint::OauthAccessToken).always().with(FaultKind::error(500, 2)));
        rotate(&world, ExchangeMood::Extends).await;
        for _ in 0..3 {
            world.advance(Duration::from_secs(3_600)).await;
            world.admin().run("rotation").await;
        }
        cast.feed.caught_up().await;
        assert_eq!(cast.feed.kinds_of(&cast.id), [Kind::Connected], "there is time yet");
        world.advance(13 * DAY).await;
        world.admin().run("rotation").await;
        let event = cast.feed.first(&cast.id, Kind::RotationFailed).await;
        assert!(!failure(&event).at_ceiling && failure(&event).attempts >= 3);
    }

    async fn a_system_users_token_is_refreshed_for_sixty_days(world: World) {
        let feed = world.viewer().await.watch_all().await;
        let robot = world.sandbox.system_user("robot").grants(SCOPES);
        let id = world.connector().await.connect(ACME, &robot.token_60_days()).await;
        rotate(&world, ExchangeMood::SameExpiry).await;
        let event = feed.first(&id, Kind::Rotated).await;
        assert_eq!((event.token_version, event.days_left), (2, Some(60)));
        let refreshes = world.sandbox.requests().into_iter().filter(|request| {
            request.form.iter().any(|(name, value)| name == "set_token_expires_in_60_days" && value == "true")
        });
        assert_eq!(refreshes.count(), 1);
    }

    async fn attempts_on_many_tokens_do_not_come_all_at_once(world: World) {
        let connector = world.connector().await;
        let mut moments = Vec::new();
        for n in 0..20 {
            let person = world.person(&format!("person-{n}"));
            let id = connector.connect(ACME, &person.long_lived_token()).await;
            let token = world.viewer().await.get(&id).await.unwrap();
            moments.push(token.next_renewal_at.expect("it is to be renewed").seconds - world.sandbox.clock().now());
        }
        moments.sort_unstable();
        assert!(moments[0] >= 29 * 86_400 && moments[19] <= 42 * 86_400, "{moments:?}");
        assert!(moments[19] - moments[0] > 4 * 86_400, "{moments:?}");
    }
}
