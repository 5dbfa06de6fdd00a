//! Reads that ask for too much, and ad accounts that come and go as a whole.

use std::collections::BTreeMap;

use token_vault_proto::v1::check::Result as Checked;
use token_vault_proto::v1::expiry_event::Detail;
use token_vault_proto::v1::job_run::State;
use token_vault_proto::v1::{Problem, Severity};
use token_vault_sandbox::{AdAccountSpec, BusinessSpec, OwnerFields, RecordedRequest, User};
use token_vault_tests::prelude::*;

fn check<'a>(checks: &'a [pb::Check], name: &str) -> &'a pb::Check {
    checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check {name}: {checks:#?}"))
}

fn problem(token: &pb::Token, reason: Reason) -> Option<Problem> {
    token.problems.iter().find(|problem| problem.reason() == reason).cloned()
}

fn account(id: &str) -> AdAccountSpec {
    AdAccountSpec { id: Some(id.to_owned()), ..AdAccountSpec::default() }
}

/// A business that is not the one behind the accounts that only a business lists.
fn business(owned: &[&str], clients: &[&str]) -> BusinessSpec {
    let accounts = |ids: &[&str]| ids.iter().copied().map(account).collect();
    BusinessSpec {
        id: "888".into(),
        name: "Agency".into(),
        owned: accounts(owned),
        clients: accounts(clients),
    }
}

/// How often the same request was made, for the one that was made most often.
fn most_repeated(world: &World) -> usize {
    let mut same = BTreeMap::<_, usize>::new();
    let about = |request: &RecordedRequest| (request.path.clone(), request.query.clone());
    for request in world.sandbox.requests().iter().filter(|request| request.endpoint == Endpoint::AdAccounts)
    {
        *same.entry(about(request)).or_default() += 1;
    }
    same.into_values().max().unwrap_or_default()
}

/// Asserts that a validation of `id` lists the ad accounts with `calls` requests.
async fn assert_calls(world: &World, id: &str, calls: usize) -> pb::ValidateTokenResponse {
    world.sandbox.clear_requests();
    let validated = world.ingestion().await.validate(id).await.unwrap();
    let listed = world.sandbox.requests();
    let listed: Vec<_> = listed
        .iter()
        // A data call of the vault's own reads one row.
        .filter(|request| request.endpoint == Endpoint::AdAccounts && request.param("limit") != Some("1"))
        .collect();
    assert_eq!(listed.len(), calls, "{listed:#?}");
    validated
}

async fn reach(user: &User, world: &World) -> (String, Feed) {
    let feed = world.viewer().await.watch_all().await;
    let id = world.connector().await.connect(ACME, &user.long_lived_token()).await;
    (id, feed)
}

on_both_databases! {
    async fn a_field_beyond_the_scopes_costs_no_ad_account_and_no_smoke_test(world: World) {
        for (switch, granted) in [
            (OwnerFields::Refused100, false),
            (OwnerFields::Refused200, false),
            (OwnerFields::Refused100, true),
            (OwnerFields::Refused200, true),
        ] {
            world.sandbox.switch(|switches| switches.owner_fields = switch);
            let name = format!("ana {switch:?} {granted}");
            let ana = world.person(&name).with_ad_accounts(3);
            // With the scope, only what is hidden from the person is refused.
            ana.ad_account(AdAccountSpec { owner_hidden: granted, ..AdAccountSpec::default() });
            if !granted {
                ana.declines(["business_management"]);
            }
            let stored = world.connector().await.store(ACME, &ana.long_lived_token()).await.unwrap();
            let token = stored.token.unwrap();
            assert_eq!(token.ad_account_count, 4, "{name}");
            let accounts = check(&stored.checks, "ad_accounts");
            let unread = if granted { "OWNERS_HIDDEN" } else { "OWNERS_NOT_GRANTED" };
            assert_eq!((accounts.result(), accounts.metadata["unread"].as_str()), (Checked::Warn, unread), "{name}");
            assert_eq!(check(&stored.checks, "smoke_test").result(), Checked::Pass, "{name}");
            let said = problem(&token, Reason::AdAccountsUnread).expect("what could not be read is said");
            assert_eq!((said.severity(), said.metadata["unread"].as_str()), (Severity::Info, unread), "{name}");

            let validated = assert_calls(&world, &token.connection_id, 1).await;
            assert_eq!(check(&validated.checks, "ad_accounts").result(), Checked::Warn, "{name}");
        }
        // It is remembered by the connection, not by the process.
        let id = world.viewer().await.list().await.unwrap().tokens[0].connection_id.clone();
        world.restart();
        assert_calls(&world, &id, 1).await;
        assert_eq!(world.admin().run("meta-token-expiry").await.state(), State::Succeeded);
    }

    async fn owners_are_read_once_business_management_is_granted(world: World) {
        world.sandbox.switch(|switches| switches.owner_fields = OwnerFields::Refused100);
        let ana = world.person("ana").declines(["business_management"]);
        let (id, _feed) = reach(&ana, &world).await;
        ana.grants(["business_management"]);
        let token = assert_calls(&world, &id, 1).await.token.unwrap();
        assert_eq!(problem(&token, Reason::AdAccountsUnread), None);
        assert!(world.sandbox.requests().iter().any(|request| {
            request.endpoint == Endpoint::AdAccounts && request.param("fields").is_some_and(|f| f.contains("business"))
        }));
    }

    async fn a_list_that_is_too_heavy_is_read_in_smaller_pages_and_the_size_is_kept(world: World) {
        world.sandbox.switch(|switches| switches.most_rows = Some(60));
        let ana = world.person("ana").with_ad_accounts(450).declines(["business_management"]);
        let (id, _feed) = reach(&ana, &world).await;
        assert_eq!(world.viewer().await.get(&id).await.unwrap().ad_account_count, 450);
        assert_eq!(most_repeated(&world), 1, "a request that is refused is not repeated as it was");
        let validated = assert_calls(&world, &id, 9).await;
        assert_eq!(check(&validated.checks, "ad_accounts").result(), Checked::Pass);
        world.restart();
        assert_calls(&world, &id, 9).await;
    }

    async fn a_list_that_is_never_sent_is_said_and_loses_nothing(world: World) {
        let ana = world.person("ana").with_ad_accounts(30);
        let (id, feed) = reach(&ana, &world).await;
        world.sandbox.switch(|switches| switches.most_rows = Some(0));
        let validated = world.ingestion().await.validate(&id).await.unwrap();
        let accounts = check(&validated.checks, "ad_accounts");
        assert_eq!(accounts.result(), Checked::Warn);
        assert!(accounts.metadata["unread"].contains("REST"), "{accounts:?}");
        let token = validated.token.unwrap();
        assert_eq!((token.ad_account_count, token.unreachable_ad_account_count), (30, 0));
        assert_eq!(problem(&token, Reason::AdAccountsUnread).unwrap().severity(), Severity::Warning);
        assert!(most_repeated(&world) <= 2, "each size is tried once in a validation");
        feed.caught_up().await;
        assert_eq!(feed.kinds_of(&id), [Kind::Connected]);
    }

    async fn ad_accounts_that_only_a_business_lists_are_found(world: World) {
        let ana = world.person("ana").with_ad_accounts(0).ad_account(account("11"));
        ana.in_business(business(&["21", "22"], &["31", "11"]));
        let (id, feed) = reach(&ana, &world).await;
        assert_eq!(world.viewer().await.get(&id).await.unwrap().ad_account_count, 4, "each once");

        // What a business does not show is unknown, and not lost.
        world.sandbox.fault(Fault::on(Endpoint::BusinessAdAccounts).always().with(FaultKind::error(403, 200)));
        let validated = world.ingestion().await.validate(&id).await.unwrap();
        let accounts = check(&validated.checks, "ad_accounts");
        assert_eq!((accounts.result(), accounts.metadata["unread"].as_str()), (Checked::Warn, "BUSINESS_ACCOUNTS"));
        let token = validated.token.unwrap();
        assert_eq!((token.ad_account_count, token.unreachable_ad_account_count), (4, 0));
        assert_eq!(problem(&token, Reason::AdAccountsUnread).unwrap().severity(), Severity::Warning);
        feed.caught_up().await;
        assert_eq!(feed.kinds_of(&id), [Kind::Connected]);

        // Who leaves the business keeps the token and loses its accounts.
        world.sandbox.clear_faults();
        ana.leaves_business("888");
        let token = world.ingestion().await.validate(&id).await.unwrap().token.unwrap();
        assert_eq!((token.usable, token.ad_account_count, token.unreachable_ad_account_count), (true, 1, 3));
        let lost = feed.first(&id, Kind::AdAccountsChanged).await;
        assert_eq!(lost.severity(), Severity::Warning);
        let Some(Detail::Changed(changed)) = lost.detail else { panic!("{lost:#?}") };
        assert_eq!(changed.removed, ["act_21", "act_22", "act_31"]);
    }

    async fn losing_every_ad_account_is_critical(world: World) {
        let ana = world.person("ana").with_ad_accounts(3);
        let (id, feed) = reach(&ana, &world).await;
        ana.ticks(Vec::<String>::new());
        let token = world.ingestion().await.validate(&id).await.unwrap().token.unwrap();
        assert_eq!((token.usable, token.ad_account_count, token.unreachable_ad_account_count), (true, 0, 3));
        let lost = feed.first(&id, Kind::AdAccountsChanged).await;
        assert_eq!(lost.severity(), Severity::Critical);
        let worst = token.problems.first().expect("a problem");
        assert_eq!((worst.reason(), worst.severity()), (Reason::NoAdAccounts, Severity::Critical));
        assert_eq!(worst.remedy, lost.remedy, "the event and the problem say the same");
        assert_eq!(token.badge.as_ref().unwrap().color(), pb::token::badge::Color::Red);

        let all = ana.ad_account_ids();
        ana.ticks(&all);
        let token = world.ingestion().await.validate(&id).await.unwrap().token.unwrap();
        assert_eq!(problem(&token, Reason::NoAdAccounts), None);
        let back = feed.until("they are back", |all| all.iter().rfind(|event| event.closes == [lost.sequence]).cloned());
        assert_eq!(back.await.severity(), Severity::Info);
    }

    async fn who_never_reached_an_ad_account_has_lost_none(world: World) {
        let ana = world.person("ana").with_ad_accounts(0);
        let (id, feed) = reach(&ana, &world).await;
        let token = world.ingestion().await.validate(&id).await.unwrap().token.unwrap();
        assert_eq!(problem(&token, Reason::NoAdAccounts).unwrap().severity(), Severity::Warning);
        feed.caught_up().await;
        assert_eq!(feed.kinds_of(&id), [Kind::Connected]);
    }
}
