//! The content of each kind of event, and which events it closes.

use std::collections::BTreeSet;
use std::time::Duration;

use token_vault_proto::v1::Severity;
use token_vault_proto::v1::expiry_event::{Detail, Kind};
use token_vault_proto::v1::token::Status;
use token_vault_sandbox::{AdAccountSpec, ExchangeMood};
use token_vault_tests::prelude::*;
use token_vault_tests::seconds;

use super::common::{DAY, DEAD, after_it, dies, kinds, micros};

on_both_databases! {
    async fn a_death_is_told_with_its_moment_and_a_restoration_with_the_gap(world: World) {
        let ana = world.person("ana");
        let (connector, ingestion) = (world.connector().await, world.ingestion().await);
        let feed = world.viewer().await.watch_all().await;
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let born = feed.first(&id, Kind::Connected).await;
        ana.changes_password();
        for _ in 0..2 {
            ingestion.report(&id, 1, 400, DEAD).await.unwrap();
            connector.validate(&id).await.unwrap();
        }
        let died = feed.first(&id, Kind::Invalidated).await;
        assert_eq!(after_it(&died), (Severity::Critical, Status::Invalid, false));
        assert_eq!((died.reason(), died.provider_code.as_str()), (pb::RefusalReason::PasswordChanged, "190/460"));
        assert_eq!((died.incident, died.token_version), (died.sequence, 1));
        assert_eq!(died.remedy.as_ref().unwrap().fixer(), pb::Fixer::WorkspaceOwner);
        let Some(Detail::Died(moments)) = &died.detail else { panic!("{died:#?}") };
        let (good, bad) = (micros(moments.last_known_good.as_ref()), micros(moments.first_known_bad.as_ref()));
        assert!(good <= bad && good >= micros(born.occurred_at.as_ref()) - 60_000_000, "{died:#?}");
        assert_eq!(micros(died.occurred_at.as_ref()), bad);

        ana.heals();
        connector.connect(ACME, &ana.long_lived_token()).await;
        let back = feed.first(&id, Kind::Restored).await;
        assert_eq!(after_it(&back), (Severity::Info, Status::Active, true));
        assert_eq!((back.closes.clone(), back.incident), (vec![died.sequence], died.sequence));
        assert_eq!((back.token_version, back.reason()), (2, pb::RefusalReason::Unspecified));
        let Some(Detail::Restored(gap)) = &back.detail else { panic!("{back:#?}") };
        assert_eq!((gap.gap_start, gap.cause()), (moments.last_known_good, Kind::Invalidated));
        assert!(micros(gap.gap_end.as_ref()) >= bad);
        feed.caught_up().await;
        assert_eq!(feed.kinds_of(&id), [Kind::Connected, Kind::Invalidated, Kind::Restored]);
        assert_eq!(ingestion.get(&id).await.unwrap().last_event_sequence, back.sequence);
    }

    async fn a_token_that_heals_by_itself_is_restored_in_its_version(world: World) {
        let ana = world.person("ana");
        let connector = world.connector().await;
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let feed = world.viewer().await.watch_all().await;
        ana.hits_checkpoint();
        connector.validate(&id).await.unwrap();
        let died = feed.first(&id, Kind::Invalidated).await;
        assert_eq!(died.reason(), pb::RefusalReason::Checkpoint);
        ana.heals();
        connector.validate(&id).await.unwrap();
        let back = feed.first(&id, Kind::Restored).await;
        assert_eq!((back.token_version, back.closes.clone(), back.usable), (1, vec![died.sequence], true));
        ana.hits_checkpoint();
        connector.validate(&id).await.unwrap();
        feed.caught_up().await;
        use Kind::{Connected, Invalidated, Restored};
        assert_eq!(feed.kinds_of(&id), [Connected, Invalidated, Restored, Invalidated], "a second death is told too");
        let again = feed.of(&id).pop().unwrap();
        assert_eq!(again.incident, again.sequence, "it is an incident of its own");
    }

    async fn a_better_token_in_time_settles_the_warning(world: World) {
        let ana = world.person("ana");
        let connector = world.connector().await;
        let feed = world.viewer().await.watch_all().await;
        let soon = Duration::from_secs(3 * DAY - 60);
        let id = connector.connect(ACME, &ana.long_lived_token_with_life(soon)).await;
        let warned = feed.first(&id, Kind::Expiring).await;
        assert_eq!(after_it(&warned), (Severity::Warning, Status::Expiring, true));
        let Some(Detail::Expiring(expiring)) = &warned.detail else { panic!("{warned:#?}") };
        assert_eq!(expiring.deadline(), pb::deadline::Kind::Token);
        assert_eq!(expiring.threshold, seconds(i64::try_from(3 * DAY).unwrap()));
        assert_eq!(warned.days_left, Some(3));
        connector.connect(ACME, &ana.long_lived_token()).await;
        let better = feed.first(&id, Kind::Replaced).await;
        assert_eq!(after_it(&better), (Severity::Info, Status::Active, true));
        assert_eq!((better.token_version, better.closes.clone(), better.incident), (2, vec![warned.sequence], warned.sequence));
        connector.connect(ACME, &ana.long_lived_token()).await;
        let better_still = feed.until("version 3", |events| events.iter().find(|e| e.token_version == 3).cloned()).await;
        assert_eq!((better_still.kind(), better_still.closes.len()), (Kind::Replaced, 0), "it is settled once");
    }

    async fn an_exchange_that_moves_the_end_is_told_with_the_end_before(world: World) {
        let connector = world.connector().await;
        let feed = world.viewer().await.watch_all().await;
        let life = Duration::from_secs(30 * DAY);
        let id = connector.connect(ACME, &world.person("ana").long_lived_token_with_life(life)).await;
        let before = connector.get(&id).await.unwrap().expiry;
        world.sandbox.set_mood(ExchangeMood::Extends);
        connector.exchange(&id).await.unwrap();
        let rotated = feed.first(&id, Kind::Rotated).await;
        assert_eq!(after_it(&rotated), (Severity::Info, Status::Active, true));
        let Some(Detail::Renewed(renewed)) = &rotated.detail else { panic!("{rotated:#?}") };
        assert_eq!((&renewed.previous_expiry, rotated.token_version), (&before, 2));
        assert_eq!(rotated.expiry, connector.get(&id).await.unwrap().expiry);
        feed.caught_up().await;
        assert_eq!(feed.kinds_of(&id), [Kind::Connected, Kind::Rotated]);
    }

    async fn an_end_on_purpose_settles_all_and_is_told_once(world: World) {
        let (ana, dead) = dies(&world, ACME, "ana").await;
        let connector = world.connector().await;
        let feed = world.viewer().await.watch_all().await;
        let died = feed.first(&dead, Kind::Invalidated).await;
        for _ in 0..2 {
            connector.revoke(&dead).await.unwrap();
        }
        let revoked = feed.first(&dead, Kind::Revoked).await;
        assert_eq!(after_it(&revoked), (Severity::Info, Status::Revoked, false));
        assert_eq!((revoked.closes.clone(), revoked.incident), (vec![died.sequence], died.sequence));
        ana.heals();
        connector.connect(ACME, &ana.long_lived_token()).await;
        feed.caught_up().await;
        use Kind::{Connected, Invalidated, Restored, Revoked};
        assert_eq!(feed.kinds_of(&dead), [Connected, Invalidated, Revoked, Restored]);
        let back = feed.first(&dead, Restored).await;
        let Some(Detail::Restored(gap)) = &back.detail else { panic!("{back:#?}") };
        assert_eq!(gap.cause(), Revoked);
    }

    async fn lost_scopes_are_as_bad_as_they_are_needed(world: World) {
        let ana = world.person("ana");
        let connector = world.connector().await;
        let feed = world.viewer().await.watch_all().await;
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let change = async |sequence: usize| {
            for _ in 0..2 {
                connector.validate(&id).await.unwrap();
            }
            feed.caught_up().await;
            let of = feed.of(&id);
            assert_eq!(of.len(), sequence, "told once: {:?}", kinds(&of));
            let event = of.last().expect("an event").clone();
            assert_eq!(event.kind(), Kind::ScopesChanged);
            let Some(Detail::Changed(changed)) = event.detail.clone() else { panic!("{event:#?}") };
            (event, changed)
        };
        ana.declines(["business_management"]);
        let (optional, changed) = change(2).await;
        assert_eq!(after_it(&optional), (Severity::Warning, Status::Active, true));
        assert_eq!((changed.added, changed.removed), (vec![], vec!["business_management".to_owned()]));
        ana.declines(["ads_management"]);
        let (required, changed) = change(3).await;
        assert_eq!(after_it(&required), (Severity::Critical, Status::Active, true));
        assert_eq!((changed.removed, required.closes.clone()), (vec!["ads_management".to_owned()], vec![optional.sequence]));
        ana.grants(SCOPES);
        let (granted, changed) = change(4).await;
        assert_eq!(granted.severity(), Severity::Info);
        assert_eq!(changed.added, ["ads_management", "business_management"]);
        assert_eq!((granted.closes.clone(), changed.removed.len()), (vec![required.sequence], 0));
    }

    async fn ad_accounts_that_come_and_go_are_told(world: World) {
        let ana = world.person("ana").with_ad_accounts(2);
        let connector = world.connector().await;
        let feed = world.viewer().await.watch_all().await;
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        let ids = || ana.ad_account_ids().into_iter().map(|id| format!("act_{id}")).collect::<BTreeSet<_>>();
        let change = async |count: usize| {
            for _ in 0..2 {
                connector.validate(&id).await.unwrap();
            }
            feed.caught_up().await;
            let of = feed.of(&id);
            assert_eq!(of.len(), count, "told once: {:?}", kinds(&of));
            let event = of.last().expect("an event").clone();
            assert_eq!(event.kind(), Kind::AdAccountsChanged);
            let Some(Detail::Changed(changed)) = event.detail.clone() else { panic!("{event:#?}") };
            assert!(changed.added.is_sorted() && changed.removed.is_sorted());
            (event, changed.added.into_iter().collect::<BTreeSet<_>>(), changed.removed.into_iter().collect())
        };
        let first = ids();
        ana.ad_account(AdAccountSpec::default());
        let (more, added, removed) = change(2).await;
        assert_eq!(after_it(&more), (Severity::Info, Status::Active, true));
        assert_eq!((added, removed), (ids().difference(&first).cloned().collect(), BTreeSet::new()));
        let before = ids();
        ana.with_ad_accounts(1);
        let (fewer, added, removed) = change(3).await;
        assert_eq!(after_it(&fewer), (Severity::Warning, Status::Active, true));
        assert_eq!(added, ids().difference(&before).cloned().collect());
        assert_eq!(removed, before.difference(&ids()).cloned().collect());
        assert_eq!(fewer.remedy.as_ref().unwrap().fixer(), pb::Fixer::AdAccountAdmin);
        ana.ad_account(AdAccountSpec::default());
        let (again, ..) = change(4).await;
        assert_eq!(again.closes, [fewer.sequence]);
    }

    async fn nothing_is_told_when_nothing_changes(world: World) {
        let ana = world.person("ana");
        let (connector, ingestion) = (world.connector().await, world.ingestion().await);
        let token = ana.long_lived_token();
        let feed = world.viewer().await.watch_all().await;
        let id = connector.connect(ACME, &token).await;
        for _ in 0..2 {
            connector.validate(&id).await.unwrap();
            connector.connect(ACME, &token).await;
            ingestion.fetch(&id).await.unwrap();
            ingestion.report(&id, 1, 400, r#"{"error":{"message":"x","code":190}}"#).await.unwrap();
            ingestion.report(&id, 1, 503, "").await.unwrap();
        }
        let bad = ana.short_lived_token();
        world.sandbox.kill(&bad, Some(460));
        connector.store(ACME, &bad).await.unwrap_err();
        let dry = pb::StoreTokenRequest { validate_only: true, ..world.pasted(ACME, &ana.long_lived_token()) };
        connector.store_with(dry).await.unwrap();
        assert_eq!(kinds(&feed.caught_up().await), [Kind::Connected]);
        assert_eq!(world.admin().get_vault_status(Default::default()).await.unwrap().head_sequence, 1);
    }
}
