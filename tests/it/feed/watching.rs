//! Watching the feed: where it starts, what the filter lets through, and how a watch ends.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use token_vault_proto::v1::expiry_event::Kind;
use token_vault_proto::v1::token::Status;
use token_vault_proto::v1::token_vault_client::TokenVaultClient;
use token_vault_proto::v1::watch_expiry_events_request::{From as StartFrom, Start};
use token_vault_proto::v1::watch_expiry_events_response::Item;
use token_vault_proto::v1::{
    EventFilter, ListExpiryEventsRequest as History, Severity, WatchExpiryEventsRequest as Watch,
};
use token_vault_tests::prelude::*;
use token_vault_tests::{request_id, seconds};

use super::common::{
    GLOBEX, acknowledge, after, after_it, dies, from, kinds, micros, one_lives_and_one_is_dead, pages,
    sequences,
};

on_both_databases! {
    async fn the_first_answer_is_a_heartbeat_at_once_and_a_birth_comes_live(world: World) {
        let viewer = world.viewer().await;
        let connector = world.connector().await;
        let ana = world.person("ana");
        let (began, pace) = (Instant::now(), world.pace());
        let feed = viewer.watch(Watch { heartbeat_interval: seconds(60), ..Watch::default() }).await.unwrap();
        while feed.heartbeats() == 0 {
            assert!(began.elapsed() < pace.allows(Duration::from_secs(2)), "no heartbeat at once");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!((feed.heartbeat().head_sequence, feed.heartbeat().behind), (0, 0));
        let token = connector.store(ACME, &ana.long_lived_token()).await.unwrap();
        let stored_at = Instant::now();
        let id = token.token.as_ref().unwrap().connection_id.clone();
        let born = feed.first(&id, Kind::Connected).await;
        let took = stored_at.elapsed();
        assert!(took < pace.allows(Duration::from_secs(1)), "it came after {took:?}");
        assert_eq!(after_it(&born), (Severity::Info, Status::Active, true));
        assert_eq!((born.sequence, born.incident, born.closes.len()), (1, 1, 0));
        assert_eq!((born.workspace_id.as_str(), born.provider.as_str()), (ACME, "meta"));
        assert_eq!((born.token_version, born.days_left), (1, Some(60)));
        assert_eq!(born.expiry, token.token.as_ref().unwrap().expiry);
        let subject = born.subject.as_ref().unwrap();
        assert_eq!((&subject.id, &subject.name), (&ana.id(), &ana.name()));
        assert_eq!((born.detail.as_ref(), born.reason()), (None, pb::RefusalReason::Unspecified));
        assert_eq!((feed.cursor(), token.cursor), (born.cursor.clone(), born.cursor.clone()));
        assert_eq!(viewer.get(&id).await.unwrap().last_event_sequence, born.sequence);
        assert_eq!(feed.heartbeats(), 1, "an event is a sign of life too");
    }

    async fn resuming_gives_exactly_what_follows_also_after_a_restart(world: World) {
        one_lives_and_one_is_dead(&world, ACME).await;
        one_lives_and_one_is_dead(&world, GLOBEX).await;
        let all = world.viewer().await.watch_all().await.caught_up().await;
        assert_eq!(sequences(&all), (1..=6).collect::<Vec<_>>(), "gapless, from the first on");
        let recorded: Vec<_> = all.iter().map(|event| micros(event.recorded_at.as_ref())).collect();
        assert!(recorded.is_sorted(), "{recorded:?}");
        for restarted in [false, true] {
            let viewer = world.viewer().await;
            for (at, event) in all.iter().enumerate() {
                let feed = viewer.watch_after(&event.cursor).await.unwrap();
                assert_eq!(feed.caught_up().await, all[at + 1..], "after {} ({restarted})", event.sequence);
                assert_eq!(feed.cursor(), all[all.len() - 1].cursor);
            }
            if !restarted {
                world.restart();
            }
        }
        let feed = world.viewer().await.watch(Watch::default()).await.unwrap();
        assert_eq!(feed.caught_up().await, [], "without a start, only what comes");
    }

    async fn a_snapshot_comes_first_and_then_what_follows(world: World) {
        let (lives, dead) = one_lives_and_one_is_dead(&world, ACME).await;
        let (there, dead_there) = one_lives_and_one_is_dead(&world, GLOBEX).await;
        let gone = world.connector().await.connect(ACME, &world.person("gone").long_lived_token()).await;
        world.connector().await.revoke(&gone).await.unwrap();
        let viewer = world.viewer().await;
        let feed = viewer.watch_snapshot().await;
        let tokens = feed.snapshot().await;
        let ids: Vec<_> = tokens.iter().map(|token| token.connection_id.clone()).collect();
        let mut expected = vec![lives.clone(), dead.clone(), there, dead_there];
        expected.sort();
        assert_eq!(ids.iter().cloned().collect::<BTreeSet<_>>(), expected.iter().cloned().collect());
        assert_eq!(ids, expected, "each once, in the order of connection_id");
        let all = viewer.watch_all().await.caught_up().await;
        for token in &tokens {
            let of = all.iter().filter(|event| event.connection_id == token.connection_id);
            assert_eq!(of.map(|event| event.sequence).max(), Some(token.last_event_sequence));
        }
        let usable: Vec<_> = tokens.iter().filter(|token| token.usable).collect();
        assert_eq!(usable.len(), 2);
        assert_eq!(feed.caught_up().await, [], "what the snapshot holds does not come again");
        let head = feed.heartbeat().head_sequence;
        world.connector().await.revoke(&lives).await.unwrap();
        let ended = feed.first(&lives, Kind::Revoked).await;
        assert_eq!(ended.sequence, head + 1);

        let filter = EventFilter {
            workspace_ids: vec![ACME.into()],
            kinds: vec![Kind::Throttled.into()],
            min_severity: Severity::Critical.into(),
            ..EventFilter::default()
        };
        let watch = Watch { filter: Some(filter), start: from(StartFrom::Snapshot), ..Watch::default() };
        let here = viewer.watch(watch).await.unwrap().snapshot().await;
        let here: Vec<_> = here.into_iter().map(|token| token.connection_id).collect();
        assert_eq!(here, [dead], "kinds and severity do not limit a snapshot");
        let nowhere = EventFilter { workspace_ids: vec!["nowhere".into()], ..EventFilter::default() };
        let watch = Watch { filter: Some(nowhere), start: from(StartFrom::Snapshot), ..Watch::default() };
        assert_eq!(viewer.watch(watch).await.unwrap().snapshot().await, []);
    }

    async fn a_subscription_keeps_its_position_and_moves_back_only_when_told(world: World) {
        one_lives_and_one_is_dead(&world, ACME).await;
        let ingestion = world.ingestion().await;
        let named = |start| Watch { subscription: Some("pipeline".into()), start, ..Watch::default() };
        let all = ingestion.watch(named(from(StartFrom::Earliest))).await.unwrap().caught_up().await;
        assert_eq!(all.len(), 3, "without a position, the start counts");
        let made = acknowledge(&ingestion, "pipeline", &all[1].cursor, false).await.unwrap();
        assert_eq!((made.name.as_str(), made.cursor.as_str(), made.behind), ("pipeline", all[1].cursor.as_str(), 1));
        assert!(!made.compacted && made.acknowledged_at.is_some() && made.created_at.is_some());
        for start in [None, from(StartFrom::Earliest), from(StartFrom::Snapshot), after(&all[0].cursor)] {
            let feed = ingestion.watch(named(start.clone())).await.unwrap();
            assert_eq!(feed.caught_up().await, all[2..], "the position wins over {start:?}");
        }
        let early = acknowledge(&ingestion, "pipeline", &all[0].cursor, false).await.unwrap();
        assert_eq!(early.cursor, all[1].cursor, "an earlier position changes nothing and is no error");
        let back = acknowledge(&ingestion, "pipeline", &all[0].cursor, true).await.unwrap();
        assert_eq!((back.cursor.as_str(), back.behind), (all[0].cursor.as_str(), 2));
        assert_eq!(back.created_at, made.created_at);
        world.restart();
        let ingestion = world.ingestion().await;
        assert_eq!(ingestion.watch(named(None)).await.unwrap().caught_up().await, all[1..], "it is kept");

        // A subscription belongs to its principal, so the same name of another principal is another subscription.
        let alerting = world.alerting().await;
        assert_eq!(alerting.watch(named(None)).await.unwrap().caught_up().await, []);
        let theirs = acknowledge(&alerting, "pipeline", &all[2].cursor, false).await.unwrap();
        assert_eq!(theirs.behind, 0);
        let viewer = world.viewer().await;
        let listed = viewer.list_subscriptions(Default::default()).await.unwrap().subscriptions;
        let shown: Vec<_> = listed.iter().map(|one| (one.principal.clone(), one.name.clone(), one.behind)).collect();
        let pipeline = || "pipeline".to_owned();
        assert_eq!(shown, [(theirs.principal.clone(), pipeline(), 0), (made.principal.clone(), pipeline(), 2)]);

        let delete = |request_id| pb::DeleteSubscriptionRequest {
            principal: made.principal.clone(),
            name: pipeline(),
            request_id,
        };
        let gone = world.admin().delete_subscription(delete(request_id())).await.unwrap().subscription.unwrap();
        assert_eq!((gone.cursor, gone.behind), (all[0].cursor.clone(), 2));
        world
            .admin()
            .delete_subscription(delete(String::new()))
            .await
            .unwrap_err()
            .is(Code::NotFound, Reason::SubscriptionNotFound)
            .says("subscription", "pipeline");
        assert_eq!(ingestion.watch(named(None)).await.unwrap().caught_up().await, [], "as if it had never been");
        assert_eq!(viewer.list_subscriptions(Default::default()).await.unwrap().subscriptions.len(), 1);
    }

    async fn filters_let_through_what_they_name_and_never_hide_a_recovery(world: World) {
        let (ana, here) = dies(&world, ACME, "ana").await;
        let there = world.connector().await.connect(GLOBEX, &world.person("bob").long_lived_token()).await;
        ana.heals();
        world.connector().await.connect(ACME, &ana.long_lived_token()).await;
        let calm = world.connector().await.connect(ACME, &world.person("cleo").long_lived_token()).await;
        world.connector().await.connect(ACME, &world.person("cleo").long_lived_token()).await;
        let viewer = world.viewer().await;
        let all = viewer.watch_all().await.caught_up().await;
        use Kind::{Connected, Invalidated, Replaced, Restored};
        assert_eq!(kinds(&all), [Connected, Invalidated, Connected, Restored, Connected, Replaced]);
        let cases: [(&str, EventFilter, &[i64]); 9] = [
            ("a workspace", EventFilter { workspace_ids: vec![GLOBEX.into()], ..Default::default() }, &[3]),
            (
                "two workspaces",
                EventFilter { workspace_ids: vec![GLOBEX.into(), ACME.into()], ..Default::default() },
                &[1, 2, 3, 4, 5, 6],
            ),
            ("a connection", EventFilter { connection_ids: vec![here.clone()], ..Default::default() }, &[1, 2, 4]),
            ("two connections", EventFilter { connection_ids: vec![there, calm], ..Default::default() }, &[3, 5, 6]),
            ("a provider", EventFilter { providers: vec!["meta".into()], ..Default::default() }, &[1, 2, 3, 4, 5, 6]),
            ("another provider", EventFilter { providers: vec!["tiktok".into()], ..Default::default() }, &[]),
            // The restoration is neither INVALIDATED nor CRITICAL, but it closes an event that is.
            ("a kind", EventFilter { kinds: vec![Invalidated.into()], ..Default::default() }, &[2, 4]),
            ("a severity", EventFilter { min_severity: Severity::Critical.into(), ..Default::default() }, &[2, 4]),
            (
                "all of them",
                EventFilter {
                    workspace_ids: vec![ACME.into()],
                    providers: vec!["meta".into()],
                    connection_ids: vec![here],
                    kinds: vec![Connected.into(), Replaced.into()],
                    min_severity: Severity::Info.into(),
                },
                &[1],
            ),
        ];
        for (what, filter, expected) in cases {
            let watch = Watch { filter: Some(filter.clone()), start: from(StartFrom::Earliest), ..Watch::default() };
            let feed = viewer.watch(watch).await.unwrap();
            assert_eq!(sequences(&feed.caught_up().await), expected, "{what}");
            assert_eq!(feed.cursor(), all[5].cursor, "{what}: its position advances over what it does not see");
            let (listed, _) = pages(&viewer, History { filter: Some(filter), oldest_first: true, ..Default::default() }).await;
            assert_eq!(sequences(&listed), expected, "{what}, listed");
        }
    }

    async fn nobody_sees_what_is_of_another_tenant(world: World) {
        let acme = world.caller(Role::Alerting, &[ACME]).await;
        let feed = acme.watch(Watch { start: from(StartFrom::Earliest), ..Watch::default() }).await.unwrap();
        let (_, theirs) = one_lives_and_one_is_dead(&world, GLOBEX).await;
        let everything = world.viewer().await.watch_all().await.caught_up().await;
        assert_eq!(everything.len(), 3);
        assert_eq!(feed.caught_up().await, []);
        assert_eq!((feed.heartbeat().head_sequence, feed.heartbeat().behind), (3, 0), "its position advances");
        assert_eq!(feed.cursor(), everything[2].cursor);
        let ours = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        let born = feed.first(&ours, Kind::Connected).await;
        assert_eq!((born.sequence, feed.events().len()), (4, 1));
        let snapshot = acme.watch_snapshot().await.snapshot().await;
        assert_eq!(snapshot.iter().map(|token| token.connection_id.as_str()).collect::<Vec<_>>(), [ours.as_str()]);
        let (listed, _) = pages(&acme, History { page_size: 1, ..Default::default() }).await;
        assert_eq!(listed, [born]);
        let of_theirs = EventFilter { connection_ids: vec![theirs], ..EventFilter::default() };
        let (listed, _) = pages(&acme, History { filter: Some(of_theirs), ..Default::default() }).await;
        assert_eq!(listed, []);
        let hidden = EventFilter { workspace_ids: vec![ACME.into(), GLOBEX.into()], ..EventFilter::default() };
        let watch = Watch { filter: Some(hidden.clone()), ..Watch::default() };
        let refused = acme.watch(watch).await.unwrap_err();
        refused.is(Code::NotFound, Reason::WorkspaceNotFound).says("workspace_id", GLOBEX);
        let history = History { filter: Some(hidden), ..Default::default() };
        acme.list_expiry_events(history).await.unwrap_err().is(Code::NotFound, Reason::WorkspaceNotFound);
    }

    async fn a_position_that_is_of_no_use_is_refused_and_says_why(world: World) {
        one_lives_and_one_is_dead(&world, ACME).await;
        let ingestion = world.ingestion().await;
        let last = ingestion.watch_all().await.caught_up().await.pop().unwrap();
        let good = last.cursor.as_str();
        let other = World::start(world.database.backend()).await;
        one_lives_and_one_is_dead(&other, ACME).await;
        let foreign = other.viewer().await.list().await.unwrap().cursor;
        // The parts of a cursor: form, epoch, sequence and the event's identity. Clients must not know them, but this
        // test does.
        let parts: Vec<&str> = good.split('.').collect();
        let [form, epoch, sequence, identity] = parts[..] else { panic!("{good}") };
        assert_eq!(sequence, last.sequence.to_string());
        let ahead = format!("{form}.{epoch}.{}.{identity}", last.sequence + 1);
        let not_this = format!("{form}.{epoch}.{sequence}.{}", if identity == "1" { "2" } else { "1" });
        let cases = [
            (String::new(), None),
            ("x".into(), None),
            (good[..good.len() - identity.len() - 1].to_owned(), None),
            (format!("{good}.1"), None),
            (format!("{good} "), None),
            (format!("9{good}"), None),
            (good.replace('.', "-"), None),
            ("é".repeat(40), None),
            (foreign, Some(Reason::FeedReplaced)),
            (ahead, Some(Reason::FeedReplaced)),
            (not_this, Some(Reason::FeedReplaced)),
        ];
        for (cursor, replaced) in cases {
            let watched = ingestion.watch_after(&cursor).await.map(drop).unwrap_err();
            let acknowledged = acknowledge(&ingestion, "pipeline", &cursor, true).await.unwrap_err();
            match replaced {
                Some(reason) => {
                    watched.is(Code::OutOfRange, reason).words("snapshot");
                    acknowledged.is(Code::OutOfRange, reason);
                }
                None => {
                    watched.is(Code::InvalidArgument, Reason::CursorInvalid).field("cursor").says("field", "cursor");
                    acknowledged.field("cursor");
                }
            }
        }
        assert_eq!(world.database.rows("subscriptions").await, Vec::<String>::new());
        assert_eq!(ingestion.watch_after(good).await.unwrap().caught_up().await, []);
    }

    async fn bad_fields_are_told_before_the_watch_begins(world: World) {
        let viewer = world.viewer().await;
        let filter = |filter| Watch { filter: Some(filter), ..Watch::default() };
        let cases = [
            (Watch { heartbeat_interval: seconds(301), ..Watch::default() }, "heartbeat_interval"),
            (Watch { subscription: Some("no spaces".into()), ..Watch::default() }, "subscription"),
            (Watch { start: Some(Start::From(9)), ..Watch::default() }, "from"),
            (filter(EventFilter { kinds: vec![1, 99], ..Default::default() }), "filter.kinds[1]"),
            (filter(EventFilter { min_severity: 9, ..Default::default() }), "filter.min_severity"),
            (filter(EventFilter { connection_ids: vec!["1".into()], ..Default::default() }), "filter.connection_ids[0]"),
            (filter(EventFilter { workspace_ids: vec![ACME.into(); 1_001], ..Default::default() }), "filter.workspace_ids"),
        ];
        for (watch, field) in cases {
            viewer.watch(watch).await.unwrap_err().is(Code::InvalidArgument, Reason::FieldInvalid).field(field);
        }
    }

    async fn a_watch_ends_with_its_key(world: World) {
        let watcher = world.caller(Role::Alerting, &[ACME]).await;
        let feed = watcher.watch(Watch { heartbeat_interval: seconds(60), ..Watch::default() }).await.unwrap();
        let revoke = pb::RevokeApiKeyRequest { key_id: watcher.key_id().into(), ..Default::default() };
        let pace = world.pace();
        world.admin().revoke_api_key(revoke).await.unwrap();
        let revoked_at = Instant::now();
        let ended = feed.ended().await.expect("a refusal");
        let took = revoked_at.elapsed();
        ended.is(Code::Unauthenticated, Reason::ApiKeyInvalid);
        assert!(took < pace.allows(Duration::from_millis(1_500)), "it went on for {took:?}");
        world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        assert_eq!(feed.events(), []);
        let logged = world.logs();
        let line = logged.lines().find(|line| line.contains("watch ends")).expect("its end is logged");
        assert!(line.contains("API_KEY_INVALID") && line.contains("alerting-acme"), "{line}");
    }

    async fn a_stop_ends_watches_at_once_and_is_not_held_up_by_them(world: World) {
        let viewer = world.viewer().await;
        let calm = Watch { heartbeat_interval: seconds(60), ..Watch::default() };
        let mut feeds = Vec::new();
        for _ in 0..20 {
            feeds.push(viewer.watch(calm.clone()).await.unwrap());
        }
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        for feed in &feeds {
            feed.first(&id, Kind::Connected).await;
        }
        let began = Instant::now();
        world.stop();
        assert!(began.elapsed() < Duration::from_secs(4), "the process ended after {:?}", began.elapsed());
        for feed in &feeds {
            feed.ended().await.expect("a refusal").is(Code::Unavailable, Reason::ShuttingDown).has_retry();
        }
    }

    async fn a_callers_deadline_bounds_the_wait_for_the_watch_and_not_the_watch(world: World) {
        let viewer = world.viewer().await;
        let mut request = tonic::Request::new(Watch { heartbeat_interval: seconds(1), ..Watch::default() });
        let key = format!("Bearer {}", viewer.key()).parse().expect("a header's value");
        request.metadata_mut().insert("authorization", key);
        request.set_timeout(Duration::from_secs(1));
        let mut stream =
            TokenVaultClient::new(world.channel()).watch_expiry_events(request).await.unwrap().into_inner();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2_500) {
            let answer = stream.message().await.expect("the watch goes on").expect("an answer");
            assert!(matches!(answer.item, Some(Item::Heartbeat(_))), "{answer:?}");
        }
    }
}
