//! Connections that share a subject share its fate, and a customer's doings are no outage.

use token_vault_proto::v1::report_token_error_response::Verdict;
use token_vault_proto::v1::{RefusalReason, Severity};
use token_vault_sandbox::User;
use token_vault_tests::eventually_async;
use token_vault_tests::prelude::*;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

const PASSWORD_CHANGED: &str =
    r#"{"error":{"message":"x","type":"OAuthException","code":190,"error_subcode":460}}"#;

fn alarms(events: &[pb::ExpiryEvent]) -> usize {
    events.iter().filter(|event| event.kind() == Kind::ProviderAlarm).count()
}

/// Connects each person in a workspace, as `place` names it by the person's number.
async fn connected(world: &World, number: usize, place: fn(usize) -> String) -> Vec<(User, String)> {
    let (connector, mut people) = (world.connector().await, Vec::new());
    for n in 0..number {
        let person = world.person(&format!("person-{n}"));
        let id = connector.connect(&place(n), &person.long_lived_token()).await;
        people.push((person, id));
    }
    people
}

on_both_databases! {
    async fn one_persons_password_change_over_thirty_workspaces_is_one_death(world: World) {
        let (connector, ingestion) = (world.connector().await, world.ingestion().await);
        let feed = world.viewer().await.watch_all().await;
        let (ana, ben) = (world.person("ana"), world.person("ben"));
        let mut hers = Vec::new();
        for n in 0..30 {
            hers.push(connector.connect(&format!("brand-{n}"), &ana.long_lived_token()).await);
        }
        let his = connector.connect(ACME, &ben.long_lived_token()).await;
        // The inspector does not say why, but the caller was told.
        world.sandbox.switch(|switches| switches.hide_subcodes = true);
        world.nothing_is_due().await;
        ana.changes_password();
        let report = ingestion.report(&hers[0], 1, 400, PASSWORD_CHANGED).await.unwrap();
        assert_eq!(report.verdict(), Verdict::Invalidated);
        for id in &hers {
            let died = feed.first(id, Kind::Invalidated).await;
            assert_eq!((died.severity(), died.usable), (Severity::Critical, false));
            assert_eq!(died.reason(), RefusalReason::PasswordChanged, "one cause");
            assert_eq!(died.provider_code, "190/460");
            assert_eq!(died.subject.unwrap().id, ana.id(), "by which its events belong together");
            ingestion.fetch(id).await.unwrap_err().is(Code::FailedPrecondition, Reason::TokenInvalid);
        }
        assert!(ingestion.fetch(&his).await.is_ok(), "nobody else is concerned");
        assert_eq!(alarms(&feed.caught_up().await), 0, "the operator has nothing to mend");
    }

    async fn one_customers_cleaning_up_is_no_outage(world: World) {
        let ingestion = world.ingestion().await;
        let feed = world.viewer().await.watch_all().await;
        let people = connected(&world, 26, |n| if n == 0 { "globex".into() } else { ACME.into() }).await;
        for (person, id) in &people[1..] {
            person.changes_password();
            let report = ingestion.report(id, 1, 400, PASSWORD_CHANGED).await.unwrap();
            assert_eq!(report.verdict(), Verdict::Invalidated);
            ingestion.fetch(id).await.unwrap_err().is(Code::FailedPrecondition, Reason::TokenInvalid);
        }
        assert!(ingestion.fetch(&people[0].1).await.is_ok());
        assert_eq!(alarms(&feed.caught_up().await), 0);
    }

    async fn many_peoples_deaths_over_many_customers_are_doubted(world: World) {
        let ingestion = world.ingestion().await;
        let feed = world.viewer().await.watch_all().await;
        let people = connected(&world, 23, |n| format!("customer-{}", n % 5)).await;
        people.iter().for_each(|(person, _)| person.changes_password());
        let mut verdicts = Vec::new();
        for (_, id) in &people {
            verdicts.push(ingestion.report(id, 1, 400, PASSWORD_CHANGED).await.unwrap().verdict());
        }
        assert!(verdicts[..20].iter().all(|verdict| *verdict == Verdict::Invalidated), "{verdicts:?}");
        assert!(verdicts[20..].iter().all(|verdict| *verdict == Verdict::Unconfirmed), "{verdicts:?}");
        assert!(ingestion.fetch(&people[22].1).await.is_ok(), "it is handed out until it is certain");
        feed.until("the alarm", |all| (alarms(all) == 1).then_some(())).await;
    }

    async fn a_grant_that_ends_while_a_newer_token_comes_is_examined_everywhere(world: World) {
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let ana = world.person("ana");
        let first = connector.connect(ACME, &ana.long_lived_token()).await;
        let other = connector.connect("other", &ana.long_lived_token()).await;
        world.nothing_is_due().await;
        // The provider takes its time to end the grant, and then says that it is done.
        let slow = Fault::on(Endpoint::Permissions).with(FaultKind::BodyTrue).with(FaultKind::Hang);
        world.sandbox.fault(slow);
        let (admin, request) = (world.admin(), pb::RevokeTokenRequest {
            connection_id: first.clone(),
            revoke_at_provider: true,
            allow_shared: true,
            if_token_version: Some(1),
            ..Default::default()
        });
        let revoking = tokio::spawn(async move { admin.revoke_token(request).await });
        eventually_async("the provider is asked", LIMIT, async || {
            world.sandbox.requests().iter().any(|request| request.method == "DELETE").then_some(())
        })
        .await;
        let newer = connector.store(ACME, &ana.long_lived_token()).await.unwrap().token.unwrap();
        assert_eq!((newer.connection_id.as_str(), newer.token_version), (first.as_str(), 2));
        world.nothing_is_due().await;
        ana.removes_app();
        world.sandbox.clear_faults();
        let refused = revoking.await.unwrap().unwrap_err();
        refused.is(Code::Aborted, Reason::TokenVersionMismatch);
        for id in [first, other] {
            feed.first(&id, Kind::Invalidated).await;
        }
    }

    async fn a_second_brand_without_the_first_is_told_to_the_first_at_once(world: World) {
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let ana = world.person("ana").with_ad_accounts(2);
        let accounts = ana.ad_account_ids();
        ana.ticks(&accounts[..1]);
        let first = connector.connect("brand-one", &ana.long_lived_token()).await;
        feed.first(&first, Kind::Connected).await;
        // She logs in again for the second brand and unticks the first: one grant per person and app.
        ana.ticks(&accounts[1..]);
        let second = connector.connect("brand-two", &ana.long_lived_token()).await;
        let told = feed.first(&first, Kind::AdAccountsChanged).await;
        let Some(pb::expiry_event::Detail::Changed(changed)) = told.detail else { panic!("{told:#?}") };
        assert_eq!(changed.removed, [format!("act_{}", accounts[0])]);
        assert_eq!(changed.added, [format!("act_{}", accounts[1])]);
        assert_eq!(feed.kinds_of(&second), [Kind::Connected]);
    }
}
