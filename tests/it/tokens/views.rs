//! Badge, problems, events, checks and denials are views of one value: over the wire they say the same.

use std::time::Duration;

use token_vault_proto::v1::Severity;
use token_vault_proto::v1::token::Status;
use token_vault_proto::v1::token::badge::Color;
use token_vault_sandbox::{AdAccountSpec, ExchangeMood};
use token_vault_tests::days;
use token_vault_tests::prelude::*;

const DAY: Duration = Duration::from_secs(86_400);
/// A time after every first attempt to renew a token of sixty days, and before its warnings.
const DUE: Duration = Duration::from_secs(43 * 86_400);
const FACEBOOK: &str = "https://www.facebook.com/";

/// What a person sees: the colour and the text of the badge, the worst problem and its severity.
fn seen(token: &pb::Token) -> (Color, &str, Option<Reason>, Option<Severity>) {
    let badge = token.badge.as_ref().expect("a badge");
    let worst = token.problems.first();
    (badge.color(), &badge.text, worst.map(pb::Problem::reason), worst.map(pb::Problem::severity))
}

fn remedy(of: Option<&pb::Remedy>) -> pb::Remedy {
    of.expect("a remedy").clone()
}

/// Asserts that the event and the token's worst problem say the same.
#[track_caller]
fn same(event: &pb::ExpiryEvent, token: &pb::Token) {
    let worst = token.problems.first().expect("a problem");
    assert_eq!(event.severity(), worst.severity(), "{event:#?}");
    assert_eq!(event.remedy, worst.remedy, "{event:#?}");
    assert_eq!((event.status(), event.usable), (token.status(), token.usable), "{event:#?}");
}

on_both_databases! {
    with |builder| builder
        .moving_time()
        .config("jobs.meta_token_expiry", "off")
        .config("jobs.rotation", "off");

    async fn a_ceiling_is_shown_from_the_moment_it_is_met(world: World) {
        let ana = world.person("ana");
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        world.sandbox.set_mood(ExchangeMood::SameExpiry);
        world.advance(DUE).await;
        assert_eq!(seen(&connector.get(&id).await.unwrap()), (Color::Green, "Active", None, None));
        world.admin().run("rotation").await;
        let failed = feed.first(&id, Kind::RotationFailed).await;
        let token = connector.get(&id).await.unwrap();
        let (color, text, reason, severity) = seen(&token);
        assert_eq!((color, reason), (Color::Amber, Some(Reason::AtCeiling)));
        assert_eq!((severity, text), (Some(Severity::Critical), "Reconnect within 17 days"));
        assert_eq!(remedy(token.problems[0].remedy.as_ref()).fixer(), pb::Fixer::WorkspaceOwner);
        assert_eq!((token.status(), token.usable), (Status::Active, true));
        same(&failed, &token);
        // A snapshot and a list show the same.
        assert_eq!(connector.list().await.unwrap().tokens[0].problems, token.problems);
        world.restart();
        assert_eq!(world.viewer().await.get(&id).await.unwrap().problems, token.problems, "it is remembered");
        world.connector().await.connect(ACME, &ana.long_lived_token()).await;
        assert_eq!(seen(&world.viewer().await.get(&id).await.unwrap()), (Color::Green, "Active", None, None));
    }

    async fn a_renewal_that_no_exchange_brings_is_shown_too(world: World) {
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let id = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        let fewer = FaultKind::Scopes(vec!["ads_read".into()]);
        world.sandbox.set_mood(ExchangeMood::Extends);
        world.advance(DUE).await;
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).times(1).with(fewer));
        world.admin().run("rotation").await;
        let failed = feed.first(&id, Kind::RotationFailed).await;
        let token = connector.get(&id).await.unwrap();
        let (color, _, reason, _) = seen(&token);
        assert_eq!((color, reason), (Color::Amber, Some(Reason::ReauthorizationRequired)));
        same(&failed, &token);
        world.advance(DAY * 5).await;
        world.admin().run("rotation").await;
        feed.first(&id, Kind::Rotated).await;
        let token = connector.get(&id).await.unwrap();
        assert_eq!(seen(&token), (Color::Green, "Active", None, None), "it worked after all");
    }

    async fn each_refusal_of_a_stored_token_is_told_alike_and_never_as_a_paste(world: World) {
        let (connector, ingestion) = (world.connector().await, world.ingestion().await);
        let feed = world.viewer().await.watch_all().await;
        for (subcode, badge, url) in [
            (None, "Reconnect needed", ""),
            (Some(458), "Reconnect needed", ""),
            (Some(459), "Security check needed", FACEBOOK),
            (Some(460), "Reconnect needed", ""),
            (Some(464), "Account not confirmed", FACEBOOK),
            (Some(466), "Reconnect needed", ""),
            (Some(467), "Reconnect needed", ""),
            (Some(468), "Reconnect needed", ""),
            (Some(490), "Security check needed", FACEBOOK),
            (Some(492), "Role missing", "https://business.facebook.com/settings/"),
            (Some(493), "Reconnect needed", ""),
        ] {
            let ana = world.person(&format!("ana {subcode:?}"));
            let held = ana.long_lived_token();
            let id = connector.connect(ACME, &held).await;
            world.sandbox.kill(&held, subcode);
            let validation = connector.validate(&id).await.unwrap();
            let died = feed.first(&id, Kind::Invalidated).await;
            let token = connector.get(&id).await.unwrap();
            let expected = (Color::Red, badge, Some(Reason::TokenInvalid), Some(Severity::Critical));
            assert_eq!(seen(&token), expected, "{subcode:?}");
            assert_eq!(died.reason(), token.invalid_reason(), "{subcode:?}");
            same(&died, &token);
            let told = remedy(died.remedy.as_ref());
            assert_eq!(told.url, url, "{told:#?}");
            assert!(!told.action.contains("Paste"), "{told:#?}");
            let check = validation.checks.iter().find(|check| check.name == "token_accepted").unwrap();
            assert_eq!(remedy(check.remedy.as_ref()), told);
            let denial = ingestion.fetch(&id).await.unwrap_err();
            denial.words(&told.message).words(&told.action);
            assert_eq!(denial.fact("url").unwrap_or_default(), url);
            if subcode == Some(493) {
                assert_eq!(token.invalid_reason(), pb::RefusalReason::DataAccessLapsed);
                assert_eq!(token.problems.len(), 1, "nothing says that permissions for ads go on");
            }
        }
    }

    async fn a_token_that_was_pasted_wrong_is_told_so(world: World) {
        let request = world.pasted(ACME, &format!("EAA{}", "x".repeat(100)));
        let denial = world.connector().await.store_with(request).await.unwrap_err();
        denial.is(Code::InvalidArgument, Reason::ProviderRefusedToken).words("Paste the whole access token");
    }

    async fn a_needed_scope_that_is_lost_turns_the_badge_red(world: World) {
        let ana = world.person("ana");
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        ana.declines(["business_management"]);
        let optional = connector.validate(&id).await.unwrap();
        let token = optional.token.clone().unwrap();
        let expected = (
            Color::Amber,
            "Optional permissions missing",
            Some(Reason::OptionalScopesMissing),
            Some(Severity::Warning),
        );
        assert_eq!(seen(&token), expected);
        same(&feed.first(&id, Kind::ScopesChanged).await, &token);
        ana.declines(["ads_management"]);
        let required = connector.validate(&id).await.unwrap();
        let token = required.token.clone().unwrap();
        let expected =
            (Color::Red, "Permissions missing", Some(Reason::ScopesMissing), Some(Severity::Critical));
        assert_eq!(seen(&token), expected);
        let lost = feed
            .until("the loss", |all| all.iter().find(|e| e.severity() == Severity::Critical).cloned())
            .await;
        same(&lost, &token);
        let check = required.checks.iter().find(|check| check.name == "required_scopes").unwrap();
        assert_eq!((check.result(), &check.remedy), (pb::check::Result::Fail, &token.problems[0].remedy));
    }

    async fn a_token_without_any_ad_account_left_is_red(world: World) {
        let ana = world.person("ana").with_ad_accounts(2);
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        ana.with_ad_accounts(0);
        let token = connector.validate(&id).await.unwrap().token.unwrap();
        let expected =
            (Color::Red, "No ad account left", Some(Reason::NoAdAccounts), Some(Severity::Critical));
        assert_eq!(seen(&token), expected);
        same(&feed.first(&id, Kind::AdAccountsChanged).await, &token);
        ana.ad_account(AdAccountSpec::default());
        let token = connector.validate(&id).await.unwrap().token.unwrap();
        let expected = (
            Color::Amber,
            "2 ad accounts unreachable",
            Some(Reason::AdAccountsUnreachable),
            Some(Severity::Warning),
        );
        assert_eq!(seen(&token), expected);
        let back = feed.until("some are back", |all| {
            let changes = all.iter().filter(|event| event.kind() == Kind::AdAccountsChanged);
            changes.skip(1).last().cloned()
        });
        same(&back.await, &token);
    }

    async fn data_access_that_ended_is_a_warning_in_every_view(world: World) {
        let ana = world.person("ana");
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        ana.data_access_lapses();
        let validation = connector.validate(&id).await.unwrap();
        let token = validation.token.clone().unwrap();
        let expected =
            (Color::Amber, "Data access has ended", Some(Reason::DataAccessEnding), Some(Severity::Warning));
        assert_eq!(seen(&token), expected);
        same(&feed.first(&id, Kind::DataAccessExpired).await, &token);
        let check = validation.checks.iter().find(|check| check.name == "data_access").unwrap();
        assert_eq!((check.result(), &check.remedy), (pb::check::Result::Warn, &token.problems[0].remedy));
    }

    async fn data_access_that_is_enforced_is_a_death_in_every_view(world: World) {
        let ana = world.person("ana");
        let (connector, feed) = (world.connector().await, world.viewer().await.watch_all().await);
        let id = connector.connect(ACME, &ana.long_lived_token()).await;
        ana.data_access_lapses();
        world.sandbox.switch(|switches| switches.enforce_data_access = true);
        connector.validate(&id).await.unwrap();
        world.advance(Duration::from_secs(60)).await;
        let validation = connector.validate(&id).await.unwrap();
        let token = validation.token.clone().unwrap();
        assert_eq!(token.invalid_reason(), pb::RefusalReason::DataAccessLapsed, "{token:#?}");
        assert_eq!((token.provider_code.as_str(), token.problems.len()), ("190/493", 1), "{token:#?}");
        same(&feed.first(&id, Kind::Invalidated).await, &token);
        for check in validation.checks.iter().filter(|check| check.result() == pb::check::Result::Fail) {
            assert_eq!(check.remedy, token.problems[0].remedy, "{check:#?}");
        }
        let accepted = validation.checks.iter().find(|check| check.name == "token_accepted").unwrap();
        assert_eq!(accepted.result(), pb::check::Result::Fail);
    }

    async fn an_endless_token_is_not_told_to_be_reconnected_in_time(world: World) {
        let connector = world.connector().await;
        let robot = world.sandbox.system_user("robot").grants(SCOPES);
        let id = connector.connect(ACME, &robot.token_never()).await;
        let denial = connector.exchange(&id).await.unwrap_err();
        denial.is(Code::FailedPrecondition, Reason::ExchangeNotPossible);
        denial.says("fixer", "NOBODY").words("Nothing to do.");
        assert!(!denial.message().contains("reconnect"), "{denial:?}");
    }

    async fn a_life_that_is_too_short_names_what_may_lengthen_it(world: World) {
        let connector = world.connector().await;
        let person = connector.connect(ACME, &world.person("ana").long_lived_token()).await;
        let robot = world.sandbox.system_user("robot").grants(SCOPES);
        let robot = connector.connect(ACME, &robot.token_60_days()).await;
        for (id, renewal) in [(person, "MAYBE_BY_VAULT"), (robot, "BY_VAULT")] {
            let ask = pb::FetchAccessTokenRequest { connection_id: id, min_ttl: days(90), ..Default::default() };
            let denial = world.ingestion().await.fetch_access_token(ask).await.unwrap_err();
            denial.is(Code::FailedPrecondition, Reason::TokenLifeTooShort).says("renewal", renewal);
            denial.words("ExchangeToken");
        }
    }
}
