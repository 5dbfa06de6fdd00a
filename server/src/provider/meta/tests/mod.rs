//! The client against the sandbox, over real HTTP.

mod ad_accounts;
mod transport;

use std::time::Duration;

use serde_json::json;
use token_vault_sandbox::{
    DEFAULT_APP_ID, DEFAULT_APP_SECRET, Endpoint, ExchangeMood, Fault, FaultKind, Sandbox, SandboxConfig,
    UsageScope, User,
};

use super::{Meta, MetaConfig, proof};
use crate::model::{
    AdAccountList, AdAccountState, Clock, Expiry, GrantState, Listing, Misconfiguration as Ours, Refusal,
    RefusalKind as Kind, RefusalReason as Reason, Secret, Subject, SubjectType, TokenKind,
};
use crate::provider::{PartPlacement, Provider, ReportedRefusal, Revocation};

fn secret(text: impl Into<String>) -> Secret {
    Secret::new(text.into())
}

fn meta_with(sandbox: &Sandbox, secrets: &[&str], change: impl FnOnce(&mut MetaConfig)) -> Meta {
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut config = MetaConfig {
        app_id: DEFAULT_APP_ID.into(),
        app_secrets: secrets.iter().map(|text| secret(*text)).collect(),
        graph_url: sandbox.url().parse().unwrap(),
        dialog_url: sandbox.url().parse().unwrap(),
        login_config_id: None,
        api_version: "v26.0".into(),
        request_timeout: Duration::from_secs(5),
        operation_timeout: Duration::from_secs(10),
        required_scopes: Vec::new(),
        optional_scopes: Vec::new(),
        webhook_verify_token: None,
        deletion_page: None,
    };
    change(&mut config);
    Meta::new(config, Clock::system()).unwrap()
}

async fn list(meta: &Meta, token: &Secret, scopes: &[&str]) -> Result<AdAccountList, Refusal> {
    let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    meta.ad_accounts(token, &scopes, Listing::default()).await
}

struct World {
    sandbox: Sandbox,
    meta: Meta,
    ana: User,
}

impl World {
    async fn new() -> Self {
        let sandbox = Sandbox::start(SandboxConfig::default()).await.unwrap();
        sandbox.change_app(DEFAULT_APP_ID, |app| app.require_proof = true);
        let ana =
            sandbox.user("ana").grants(["ads_read", "ads_management"]).declines(["business_management"]);
        Self { meta: meta_with(&sandbox, &[DEFAULT_APP_SECRET], |_| ()), sandbox, ana }
    }

    /// Scripts a fault for the next request to `endpoint`.
    fn fault(&self, endpoint: Endpoint, kind: FaultKind) {
        self.sandbox.fault(Fault::on(endpoint).with(kind));
    }

    /// Asserts that no path contains a token or a secret, and that a query contains one only in the documented places.
    fn assert_tidy(&self) {
        for request in self.sandbox.requests() {
            assert!(!request.path.contains("EAA"), "{}", request.path);
            assert!(request.query.iter().all(|(name, _)| name != "access_token"), "{}", request.path);
            assert_eq!(request.header("referer"), None);
            assert!(request.header("user-agent").unwrap().starts_with("token-vault/"));
        }
    }
}

fn ana_as_subject(world: &World) -> Subject {
    Subject { id: world.ana.id(), name: String::new(), kind: SubjectType::User }
}

fn assert_transient<T>(result: Result<T, Refusal>, words: &str) {
    let refusal = result.err().unwrap();
    assert!(matches!(refusal.kind, Kind::Transient { .. }), "{refusal:?}");
    assert!(refusal.detail.contains(words), "{}", refusal.detail);
}

#[test]
fn the_proof_has_its_known_answers() {
    let key = secret("0123456789abcdef0123456789abcdef");
    for (message, answer) in [
        ("EAABsbCS1iHgBAKZCexampletoken", "ab8e5ab5223668d5adbf137c67a1668d28499522dbf607bb323e34e0bcbff502"),
        (
            "EAABsbCS1iHgBAKZCexampletoken|1763859600",
            "236a9f7de132aad89b932dde5b730919f74d7f3ce5cb8336dfe5bedcd2c4d965",
        ),
    ] {
        assert_eq!(proof(&key, message).expose(), answer);
    }
}

#[tokio::test]
async fn inspection_reads_kind_subject_ends_and_scopes() {
    let world = World::new().await;
    let short = world.meta.inspect(&secret(world.ana.short_lived_token())).await.unwrap();
    assert_eq!((short.facts.kind, short.facts.issued_at), (Some(TokenKind::ShortLivedUser), None));
    let long = world.meta.inspect(&secret(world.ana.long_lived_token())).await.unwrap();
    assert_eq!(long.facts.kind, Some(TokenKind::LongLivedUser));
    assert_eq!(long.app_id, DEFAULT_APP_ID);
    assert_eq!(long.subject, ana_as_subject(&world));
    let scopes = &long.facts.scopes;
    assert_eq!(scopes.after(None).unwrap(), ["ads_management", "ads_read", "public_profile"]);
    assert_eq!(scopes.withheld("business_management"), Some(GrantState::Declined));
    assert!(long.facts.issued_at.is_some() && matches!(long.facts.data_access, Expiry::At(..)));

    let page = world.meta.inspect(&secret(world.ana.page_token("Shop"))).await.unwrap();
    assert_eq!((page.facts.kind, page.facts.expiry), (Some(TokenKind::Page), Expiry::Never));
    assert_eq!((page.subject.kind, page.subject.id), (SubjectType::Page, world.ana.page("Shop")));
    let robot = world.sandbox.system_user("robot").grants(["ads_read"]);
    let system = world.meta.inspect(&secret(robot.token_never())).await.unwrap();
    assert_eq!((system.facts.kind, system.facts.expiry), (Some(TokenKind::SystemUser), Expiry::Never));
    assert_eq!(system.facts.data_access, Expiry::Never);
    assert_eq!(world.sandbox.count(Endpoint::Permissions), 2, "only people grant");
    world.assert_tidy();
}

#[tokio::test]
async fn odd_inspections_are_read_with_care() {
    let world = World::new().await;
    let token = secret(world.ana.long_lived_token());
    let set = |pointer: &str, value| {
        world.fault(Endpoint::DebugToken, FaultKind::Set(pointer.to_owned(), value));
    };
    set("/data/expires_at", json!(null));
    assert_eq!(world.meta.inspect(&token).await.unwrap().facts.expiry, Expiry::Unknown);
    set("/data/type", json!("HOLOGRAM"));
    let odd = world.meta.inspect(&token).await.unwrap();
    assert_eq!(
        (odd.subject.kind, odd.facts.kind, odd.facts.scopes.grants),
        (SubjectType::Unknown, None, None)
    );
    set("/data/user_id", json!(99));
    assert_eq!(world.meta.inspect(&token).await.unwrap().subject.id, "99");
    world.fault(Endpoint::DebugToken, FaultKind::AppId(Some("999".into())));
    assert_eq!(world.meta.inspect(&token).await.unwrap_err().kind, Kind::OtherApp);
    world.sandbox.fault(Fault::on(Endpoint::DebugToken).times(3).with(FaultKind::AppId(None)));
    assert_transient(world.meta.inspect(&token).await, "for which app");
    world.sandbox.clear_faults();
    world.fault(Endpoint::DebugToken, FaultKind::IsValid(false));
    assert_eq!(world.meta.inspect(&token).await.unwrap_err().kind, Kind::Dead { reason: Reason::Unknown });
    world.sandbox.fault(
        Fault::on(Endpoint::DebugToken).always().with(FaultKind::Set("/data/is_valid".into(), json!(null))),
    );
    assert_transient(world.meta.inspect(&token).await, "no Graph reply");
}

#[tokio::test]
async fn inspection_distinguishes_dead_and_foreign_tokens_from_our_own_mistakes() {
    let world = World::new().await;
    let inspect = async |text: String| world.meta.inspect(&secret(text)).await.unwrap_err();
    let dead = |reason| Kind::Dead { reason };
    let token = world.ana.long_lived_token();
    world.sandbox.expire(&token);
    let refusal = inspect(token).await;
    assert_eq!((refusal.kind.clone(), refusal.provider_code().as_str()), (dead(Reason::Expired), "190/463"));
    assert_eq!(inspect("EAABnobodyMadeThis".into()).await.kind, dead(Reason::Malformed));
    assert_eq!(inspect("no token".into()).await.kind, dead(Reason::Malformed));
    let app_token = format!("{DEFAULT_APP_ID}|{DEFAULT_APP_SECRET}");
    let refusal = inspect(app_token).await;
    assert_eq!(refusal.kind, dead(Reason::Malformed));
    assert!(refusal.detail.contains("app token"), "{}", refusal.detail);
    assert_eq!(inspect(world.ana.token_of_app("4242")).await.kind, Kind::OtherApp);
    let token = world.ana.long_lived_token();
    world.ana.changes_password();
    assert_eq!(inspect(token).await.kind, dead(Reason::PasswordChanged));
}

#[tokio::test]
async fn an_exchange_gives_a_lasting_token_and_keeps_secrets_out_of_the_url() {
    let world = World::new().await;
    let short = secret(world.ana.short_lived_token());
    let long = world.meta.exchange(&short, TokenKind::ShortLivedUser).await.unwrap();
    assert_ne!(long.secret.expose(), short.expose());
    assert!(long.expires_in.unwrap() > Duration::from_secs(59 * 86_400));
    let request = &world.sandbox.requests()[0];
    assert_eq!((request.method.as_str(), request.query.len()), ("POST", 0));
    assert_eq!(world.meta.inspect(&long.secret).await.unwrap().facts.kind, Some(TokenKind::LongLivedUser));

    let robot = world.sandbox.system_user("robot");
    let renewed = world.meta.exchange(&secret(robot.token_60_days()), TokenKind::SystemUser).await.unwrap();
    assert!(renewed.expires_in.is_some());
    assert!(world.meta.exchange(&secret(world.ana.page_token("Shop")), TokenKind::Page).await.is_err());
    let dead = secret(world.ana.short_lived_token());
    world.sandbox.expire(dead.expose());
    let refusal = world.meta.exchange(&dead, TokenKind::ShortLivedUser).await.unwrap_err();
    assert_eq!(refusal.kind, Kind::Dead { reason: Reason::Expired });
}

#[tokio::test]
async fn an_exchange_without_a_lifetime_has_an_unknown_one() {
    let world = World::new().await;
    let token = secret(world.ana.short_lived_token());
    world.sandbox.set_mood(ExchangeMood::NoExpiresIn);
    assert_eq!(world.meta.exchange(&token, TokenKind::ShortLivedUser).await.unwrap().expires_in, None);
    world.sandbox.set_mood(ExchangeMood::SameDay);
    world.fault(Endpoint::OauthAccessToken, FaultKind::ExpiresInJson(json!(0)));
    assert_eq!(world.meta.exchange(&token, TokenKind::ShortLivedUser).await.unwrap().expires_in, None);
    world.fault(Endpoint::OauthAccessToken, FaultKind::QueryStringToken);
    assert!(world.meta.exchange(&token, TokenKind::ShortLivedUser).await.unwrap().expires_in.is_some());
}

#[tokio::test]
async fn names_permissions_and_insights_are_read() {
    let world = World::new().await;
    let token = secret(world.ana.long_lived_token());
    let name = world.meta.subject_name(&token, &ana_as_subject(&world)).await.unwrap();
    assert_eq!(name, world.ana.name());
    let grants = world.meta.permissions(&token).await.unwrap();
    let state = |scope: &str| grants.iter().find(|grant| grant.scope == scope).map(|grant| grant.state);
    assert_eq!(state("ads_read"), Some(GrantState::Granted));
    assert_eq!(state("business_management"), Some(GrantState::Declined));
    assert_eq!(state("pages_show_list"), None);

    let id = format!("act_{}", world.ana.ad_account_ids()[0]);
    assert_eq!(world.meta.smoke_test(&token, &id).await.unwrap().rows, 1);
    world.ana.delivery(false);
    assert_eq!(world.meta.smoke_test(&token, &id).await.unwrap().rows, 0);
    for foreign in ["act_424242", "../me"] {
        let refusal = world.meta.smoke_test(&token, foreign).await.unwrap_err();
        assert_eq!(refusal.kind, Kind::Permission { object_only: true }, "{foreign}");
    }
    world.assert_tidy();
}

#[tokio::test]
async fn all_pages_of_ad_accounts_are_read_past_an_empty_one() {
    let world = World::new().await;
    let ana = world.ana.with_ad_accounts(450).empty_page(2);
    let token = secret(ana.long_lived_token());
    let accounts = list(&world.meta, &token, &[]).await.unwrap().accounts;
    assert_eq!(accounts.len(), 450);
    assert!(world.sandbox.count(Endpoint::AdAccounts) >= 4);
    let first = &accounts[0];
    assert_eq!(first.id, format!("act_{}", ana.ad_account_ids()[0]));
    assert_eq!((first.state, first.provider_state.as_deref()), (AdAccountState::Active, Some("1")));
    let owner = first.owner.as_ref().and_then(|owner| owner.name.as_deref());
    assert_eq!((first.currency.as_deref(), owner), (Some("EUR"), Some("Shop")));
    assert!(
        list(&world.meta, &secret(ana.with_ad_accounts(0).long_lived_token()), &[])
            .await
            .unwrap()
            .accounts
            .is_empty()
    );
    world.assert_tidy();
}

#[tokio::test]
async fn a_list_that_goes_in_circles_ends() {
    let world = World::new().await;
    let token = secret(world.ana.with_ad_accounts(450).long_lived_token());
    list(&world.meta, &token, &[]).await.unwrap();
    let second = world.sandbox.requests()[1].param("after").unwrap().to_owned();
    world.sandbox.clear_requests();
    world.sandbox.fault(
        Fault::on(Endpoint::AdAccounts)
            .always()
            .with(FaultKind::Set("/paging/cursors/after".into(), json!(second))),
    );
    assert_transient(list(&world.meta, &token, &[]).await, "circles");
    assert_eq!(world.sandbox.count(Endpoint::AdAccounts), 2);
}

#[tokio::test]
async fn revoking_ends_the_token_and_says_when_it_was_gone() {
    let world = World::new().await;
    let token = secret(world.ana.long_lived_token());
    let subject = ana_as_subject(&world);
    let revoke = async || world.meta.revoke(&token, &subject, TokenKind::LongLivedUser).await;
    assert_eq!(revoke().await.unwrap(), Revocation::Revoked);
    assert_eq!(revoke().await.unwrap(), Revocation::AlreadyGone);
    assert_eq!(world.meta.inspect(&token).await.unwrap_err().kind, Kind::Dead { reason: Reason::AppRemoved });
    let robot = world.sandbox.system_user("robot");
    let system = secret(robot.token_never());
    let revoke = async || world.meta.revoke(&system, &subject, TokenKind::SystemUser).await;
    assert_eq!(revoke().await.unwrap(), Revocation::Revoked);
    assert_eq!(revoke().await.unwrap(), Revocation::AlreadyGone);
    let page = world.meta.revoke(&secret("EAAB"), &subject, TokenKind::Page).await.unwrap();
    assert_eq!(page, Revocation::NotSupported);
}

#[tokio::test]
async fn a_changed_app_secret_is_found_and_a_wrong_one_blames_no_token() {
    let world = World::new().await;
    let token = secret(world.ana.long_lived_token());
    let rolling = meta_with(&world.sandbox, &["the-new-secret", DEFAULT_APP_SECRET], |_| ());
    assert!(rolling.inspect(&token).await.is_ok());
    assert!(rolling.exchange(&token, TokenKind::LongLivedUser).await.is_ok());
    assert!(rolling.permissions(&token).await.is_ok());
    let part = &rolling.send_with(&token)[0];
    assert_eq!((part.placement, part.name), (PartPlacement::Query, "appsecret_proof"));
    assert_eq!(part.value.expose(), proof(&secret(DEFAULT_APP_SECRET), token.expose()).expose());
    world.sandbox.roll_app_secret(DEFAULT_APP_ID, "the-new-secret");
    assert!(rolling.inspect(&token).await.is_ok());
    let part = &rolling.send_with(&token)[0];
    assert_eq!(part.value.expose(), proof(&secret("the-new-secret"), token.expose()).expose());

    // The first client of this test knows only the old secret.
    assert_eq!(world.meta.inspect(&token).await.unwrap_err().kind, Kind::Ours(Ours::AppSecret));
    let refusal = world.meta.exchange(&token, TokenKind::LongLivedUser).await.unwrap_err();
    assert_eq!(refusal.kind, Kind::Ours(Ours::AppSecret));
    assert_eq!(world.meta.permissions(&token).await.unwrap_err().kind, Kind::Ours(Ours::AppSecretProof));
    let stranger = meta_with(&world.sandbox, &["the-new-secret"], |config| config.app_id = "777".into());
    assert_eq!(stranger.inspect(&token).await.unwrap_err().kind, Kind::Ours(Ours::AppId));
}

#[tokio::test]
async fn a_throttle_is_not_retried_and_its_usage_is_kept() {
    let world = World::new().await;
    let token = secret(world.ana.long_lived_token());
    assert_eq!(world.meta.usage(), None);
    world.sandbox.usage(UsageScope::App, 85.0);
    world.meta.permissions(&token).await.unwrap();
    assert!(world.meta.usage().unwrap().utilization_percent >= 85.0);
    world.sandbox.clear_requests();
    world.sandbox.fault(Fault::on(Endpoint::Permissions).always().with(FaultKind::error(400, 4)));
    let refusal = world.meta.permissions(&token).await.unwrap_err();
    assert!(matches!(refusal.kind, Kind::Throttled { scope, .. } if scope == "app"));
    assert_eq!(world.sandbox.count(Endpoint::Permissions), 1);
}

#[tokio::test]
async fn a_report_is_classified_by_its_body_or_by_its_codes() {
    let world = World::new().await;
    let report = |body: &str, code: &str, subcode: &str| {
        world.meta.classify(&ReportedRefusal {
            http_status: 400,
            body: body.into(),
            code: code.into(),
            subcode: subcode.into(),
            headers: vec![("x-app-usage".into(), "{".into())],
            ad_account_id: Some("act_7".into()),
        })
    };
    let password = Kind::Dead { reason: Reason::PasswordChanged };
    assert_eq!(report("", "190", "460").kind, password);
    assert_eq!(report("", "190/460", "").kind, password);
    assert_eq!(report("<html>", " 190 ", "460").kind, password);
    assert_eq!(report(r#"{"error":{"code":190,"error_subcode":460}}"#, "4", "").kind, password);
    assert!(
        matches!(report("", "17", "").kind, Kind::Throttled { scope, .. } if scope == "ad_account:act_7")
    );
    assert!(matches!(report("", "", "").kind, Kind::Transient { .. }));
    assert!(matches!(report("", "nonsense", "460").kind, Kind::Transient { .. }));
    world.meta.observe_usage(&[("X-App-Usage".into(), r#"{"call_count":"91"}"#.into())], None);
    assert_eq!(world.meta.usage().unwrap().utilization_percent, 91.0);
}
