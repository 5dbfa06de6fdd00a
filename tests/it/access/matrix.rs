//! Who may call what: every RPC with every kind of credential. The tables here are the expectation; an
//! RPC of the protos without a row fails the tests.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message as _;
use serde_json::json;
use token_vault_proto::v1::FILE_DESCRIPTOR_SET;
use token_vault_proto::v1::create_api_key_request::Workspaces;
use token_vault_tests::certificates::{Authority, Secured};
use token_vault_tests::issuer::{Issuer, Signer};
use token_vault_tests::prelude::*;
use token_vault_tests::seconds;

use super::elsewhere::reach_for;
use super::oidc::{bearer, claims, trusting};

use Elsewhere::{Apart, Hidden, Unseen, Whole};
use Empty::{Answered, Told, Unlinked};
use Role::{Admin, Alerting, Connector, Ingestion, Portal, Viewer};

/// What a caller that may call gets for an empty message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Empty {
    /// A response without an error.
    Answered,
    /// An error that names the invalid fields.
    Told,
    /// The error that it needs a connect link.
    Unlinked,
}

/// What a caller gets that names an object of another workspace.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Elsewhere {
    /// The error NOT_FOUND.
    Hidden(Reason),
    /// Nothing of it: the RPC lists and watches only the caller's workspaces.
    Unseen,
    /// The error that only a caller of every workspace may do this: the RPC is about all principals, or works on all.
    Whole,
    /// No difference: the RPC is not about a workspace.
    Apart,
}

/// The workspaces in which a caller may act.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reach {
    All,
    Some,
}

/// The roles that need no connect link.
const ROLES: [Role; 5] = [Connector, Ingestion, Alerting, Viewer, Admin];
/// What the role portal may call, with a connect link.
const PORTAL: [&str; 5] = [
    "TokenVault/StoreToken",
    "TokenVault/BeginAuthorization",
    "TokenVault/CompleteAuthorization",
    "TokenVault/ValidateToken",
    "TokenVault/OpenConnectLink",
];
const CONNECTION: Elsewhere = Hidden(Reason::ConnectionNotFound);
const WORKSPACE: Elsewhere = Hidden(Reason::WorkspaceNotFound);
const LINK: Elsewhere = Hidden(Reason::ConnectLinkNotFound);
const KEY: Elsewhere = Hidden(Reason::ApiKeyNotFound);

/// Every RPC, the roles that may call it, what an empty message gets, and what a caller of another workspace gets.
const RPCS: &[(&str, &[Role], Empty, Elsewhere)] = &[
    ("TokenVault/StoreToken", &[Connector, Admin], Told, WORKSPACE),
    ("TokenVault/BeginAuthorization", &[Connector, Admin], Told, WORKSPACE),
    ("TokenVault/CompleteAuthorization", &[Connector, Admin], Told, WORKSPACE),
    ("TokenVault/CreateConnectLink", &[Connector, Admin], Told, WORKSPACE),
    ("TokenVault/ListConnectLinks", &[Connector, Admin], Answered, Unseen),
    ("TokenVault/RevokeConnectLink", &[Connector, Admin], Told, LINK),
    ("TokenVault/OpenConnectLink", &[Admin], Unlinked, LINK),
    ("TokenVault/ExchangeToken", &[Connector, Admin], Told, CONNECTION),
    ("TokenVault/ValidateToken", &[Connector, Ingestion, Admin], Told, CONNECTION),
    ("TokenVault/FetchAccessToken", &[Ingestion, Admin], Told, CONNECTION),
    ("TokenVault/GetToken", &ROLES, Told, CONNECTION),
    ("TokenVault/ListTokens", &ROLES, Answered, Unseen),
    ("TokenVault/ListAdAccounts", &ROLES, Told, CONNECTION),
    ("TokenVault/ReportTokenError", &[Ingestion, Admin], Told, CONNECTION),
    ("TokenVault/RevokeToken", &[Connector, Admin], Told, CONNECTION),
    ("TokenVault/ReportProviderCallback", &[Connector, Admin], Told, Apart),
    ("TokenVault/WatchExpiryEvents", &ROLES, Answered, Unseen),
    ("TokenVault/ListExpiryEvents", &ROLES, Answered, Unseen),
    ("TokenVault/AcknowledgeEvents", &[Ingestion, Alerting, Admin], Told, Apart),
    ("VaultAdmin/CreateApiKey", &[Admin], Told, WORKSPACE),
    ("VaultAdmin/ListApiKeys", &[Admin], Answered, Unseen),
    ("VaultAdmin/RevokeApiKey", &[Admin], Told, KEY),
    ("VaultAdmin/RotateApiKey", &[Admin], Told, KEY),
    ("VaultAdmin/ListJobs", &[Viewer, Admin], Answered, Apart),
    ("VaultAdmin/RunJob", &[Admin], Told, Whole),
    ("VaultAdmin/ListJobRuns", &[Viewer, Admin], Answered, Apart),
    ("VaultAdmin/ListSubscriptions", &[Viewer, Admin], Answered, Whole),
    ("VaultAdmin/DeleteSubscription", &[Admin], Told, Whole),
    ("VaultAdmin/RotateKey", &[Admin], Told, WORKSPACE),
    ("VaultAdmin/GetWorkspace", &[Viewer, Admin], Told, WORKSPACE),
    ("VaultAdmin/ListWorkspaces", &[Viewer, Admin], Answered, Unseen),
    ("VaultAdmin/ShredWorkspace", &[Admin], Told, WORKSPACE),
    ("VaultAdmin/GetVaultStatus", &[Viewer, Admin], Answered, Apart),
];

/// Every method of our services, as the descriptors list them.
pub(super) fn methods() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors decode");
    let ours = set.file.iter().filter(|file| file.package() == "tokenvault.v1");
    let services = ours.flat_map(|file| &file.service);
    services
        .flat_map(|service| {
            service.method.iter().map(|method| format!("{}/{}", service.name(), method.name()))
        })
        .collect()
}

#[test]
fn every_rpc_of_the_protos_has_a_row_and_every_row_an_rpc() {
    let rows: BTreeSet<_> = RPCS.iter().map(|(rpc, ..)| (*rpc).to_owned()).collect();
    assert_eq!(rows, methods());
    assert_eq!(rows.len(), RPCS.len(), "a row stands twice");
}

async fn call(caller: &Caller, rpc: &str) -> Result<(), Denial> {
    caller.call_empty(&format!("/tokenvault.v1.{rpc}")).await
}

/// Calls every RPC: those of the role succeed, all others are denied with the role and the RPC.
async fn acts_as(caller: &Caller, role: Role, reach: Reach, who: &str) {
    for (rpc, may, empty, elsewhere) in RPCS {
        let outcome = call(caller, rpc).await;
        let case = format!("{who} calls {rpc}: {outcome:?}");
        // An RPC for all workspaces is denied only after its message was found to be valid.
        let narrow = reach == Reach::Some && (*elsewhere, *empty) == (Whole, Answered);
        match (may.contains(&role) && !narrow, empty, outcome) {
            (true, Answered, outcome) => assert!(outcome.is_ok(), "{case}"),
            (true, Told, outcome) => {
                assert_eq!(outcome.expect_err(&case).code(), Code::InvalidArgument, "{case}")
            }
            (true, Unlinked, outcome) => {
                outcome.expect_err(&case).is(Code::NotFound, Reason::ConnectLinkNotFound);
            }
            (false, _, outcome) => {
                let no = outcome.expect_err(&case);
                no.is(Code::PermissionDenied, Reason::RoleInsufficient)
                    .says("role", role.as_str_name().trim_start_matches("ROLE_"));
                assert!(no.fact("rpc").is_some_and(|name| name.ends_with(rpc)), "{case}");
            }
        }
    }
}

/// Calls every RPC: all are denied, with the same message.
async fn is_nobody(caller: &Caller, reason: Reason, who: &str) {
    for (rpc, ..) in RPCS {
        let outcome = call(caller, rpc).await;
        let case = format!("{who} calls {rpc}: {outcome:?}");
        let no = outcome.expect_err(&case);
        assert_eq!((no.code(), no.reason()), (Code::Unauthenticated, reason.reason()), "{case}");
    }
}

/// Calls every RPC, without any response.
async fn is_unheard(caller: &Caller, who: &str) {
    for (rpc, ..) in RPCS {
        let no = call(caller, rpc).await.expect_err(who);
        let broken =
            matches!(no.code(), Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal);
        assert!(broken && no.reason().is_empty(), "{who} calls {rpc}: {no:?}");
    }
}

pub(super) fn new_key(
    principal: &str,
    expires_at: Option<prost_types::Timestamp>,
) -> pb::CreateApiKeyRequest {
    pb::CreateApiKeyRequest {
        principal: principal.into(),
        role: Viewer.into(),
        workspaces: Some(Workspaces::AllWorkspaces(true)),
        expires_at,
        ..Default::default()
    }
}

fn name(role: Role) -> String {
    role.as_str_name().trim_start_matches("ROLE_").to_lowercase()
}

/// A vault with an issuer.
async fn world_with_issuer(backend: Backend) -> (World, Issuer, Signer) {
    let signer = Signer::ec("k1");
    let issuer = Issuer::start(&[&signer]).await;
    // Nothing but a caller changes a row, whatever the time of day.
    let world = trusting(backend, &issuer.url()).config("jobs.meta_token_expiry", "off");
    (world.start().await, issuer, signer)
}

async fn each_role_may_call_its_rpcs_and_no_other_by_key_and_by_token(backend: Backend) {
    let (world, issuer, signer) = world_with_issuer(backend).await;
    for role in ROLES {
        acts_as(&world.caller(role, &[]).await, role, Reach::All, &format!("a key of {}", name(role))).await;
        acts_as(
            &world.caller(role, &["globex"]).await,
            role,
            Reach::Some,
            &format!("a limited key of {}", name(role)),
        )
        .await;
        let token = signer.token(&claims(&world, &issuer.url(), &name(role)));
        acts_as(&bearer(&world, &token), role, Reach::Some, &format!("a token of {}", name(role))).await;
    }
    let old = world.caller(Viewer, &[ACME]).await;
    let rotate = pb::RotateApiKeyRequest { key_id: old.key_id().into(), ..Default::default() };
    let new = world.admin().rotate_api_key(rotate).await.unwrap().key;
    acts_as(&old, Viewer, Reach::Some, "a replaced key within its overlap").await;
    acts_as(&world.caller_with(&new, ""), Viewer, Reach::Some, "a key that replaces another").await;
}

async fn whoever_brings_nothing_good_is_nobody_to_every_rpc(backend: Backend) {
    let (world, issuer, signer) = world_with_issuer(backend).await;
    let admin = world.admin();
    admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    let soon = Some(prost_types::Timestamp { seconds: world.sandbox.clock().now() + 60, nanos: 0 });
    let expired = admin.create_api_key(new_key("brief", soon)).await.unwrap().key;
    let short_lived = {
        let mut claims = claims(&world, &issuer.url(), "admin");
        claims["exp"] = json!(world.sandbox.clock().now() + 60);
        signer.token(&claims)
    };
    let (rotated, revoked) = (world.caller(Viewer, &[]).await, world.caller(Admin, &[]).await);
    let (key_id, overlap) = (rotated.key_id().into(), seconds(60));
    let rotate = pb::RotateApiKeyRequest { key_id, overlap, ..Default::default() };
    admin.rotate_api_key(rotate).await.unwrap();
    let revoke = pb::RevokeApiKeyRequest { key_id: revoked.key_id().into(), ..Default::default() };
    admin.revoke_api_key(revoke).await.unwrap();
    let (id, secret) = admin.key().trim_start_matches("tva_").split_once('_').unwrap();
    let mut wrong = secret.to_owned();
    let last = if wrong.pop() == Some('A') { 'B' } else { 'A' };
    wrong.push(last);
    let good = claims(&world, &issuer.url(), "admin");
    let forged = Signer::ec("k1").token(&good);
    world.advance(Duration::from_secs(3_000)).await;
    let before = world.database.rows("ad_platform_connections").await;

    let say = |header: &str| admin.saying(Some(header));
    let invalid = [
        ("no header", admin.saying(None)),
        ("an empty header", say("")),
        ("a scheme alone", say("Bearer")),
        ("an empty key", say("Bearer ")),
        ("another scheme", say("Basic dXNlcjpwYXNz")),
        ("no key", say("Bearer not-a-key")),
        ("a wrong secret", say(&format!("Bearer tva_{id}_{wrong}"))),
        ("a wrong id", say(&format!("Bearer tva_{}_{secret}", "a".repeat(id.len())))),
        ("something long", say(&format!("Bearer {}", "x".repeat(4_000)))),
        ("something too long", say(&format!("Bearer {}", "x".repeat(12_000)))),
        ("a key without its scheme", say(admin.key())),
        ("a revoked key", revoked),
        ("a token of another's key", bearer(&world, &forged)),
        ("a token that nobody signed", bearer(&world, &format!("{}.", forged.rsplit_once('.').unwrap().0))),
    ];
    for (who, caller) in invalid {
        is_nobody(&caller, Reason::ApiKeyInvalid, who).await;
    }
    is_nobody(&world.caller_with(&expired, ""), Reason::ApiKeyExpired, "an expired key").await;
    is_nobody(&rotated, Reason::ApiKeyExpired, "a key whose overlap is over").await;
    is_nobody(&bearer(&world, &short_lived), Reason::ApiKeyExpired, "an expired token").await;
    assert_eq!(world.database.rows("ad_platform_connections").await, before);
    say(&format!("bearer {}", admin.key())).list().await.expect("the scheme knows no case");
    bearer(&world, &signer.token(&good)).list().await.expect("the good token is let in");
}

/// What a list or a watch shows of another workspace.
async fn seen(rpc: &str, caller: &Caller) -> Option<String> {
    Some(match rpc {
        "TokenVault/ListTokens" => format!("{:?}", caller.list().await.expect("it may list").tokens),
        "TokenVault/WatchExpiryEvents" => format!("{:?}", caller.watch_all().await.caught_up().await),
        "TokenVault/ListExpiryEvents" => {
            format!("{:?}", caller.list_expiry_events(Default::default()).await.expect("it may list").events)
        }
        "TokenVault/ListConnectLinks" => {
            format!("{:?}", caller.list_connect_links(Default::default()).await.expect("it may list").links)
        }
        "VaultAdmin/ListApiKeys" => {
            format!("{:?}", caller.list_api_keys(Default::default()).await.expect("it may list").api_keys)
        }
        "VaultAdmin/ListWorkspaces" => {
            format!("{:?}", caller.list_workspaces(Default::default()).await.expect("it may list").workspaces)
        }
        _ => return None,
    })
}

async fn another_tenant_reaches_nothing_and_learns_nothing(backend: Backend) {
    let (world, issuer, signer) = world_with_issuer(backend).await;
    let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
    let link = world.admin().link(ACME).await;
    let key_id = world.caller(Viewer, &[ACME]).await.key_id().to_owned();
    let token = {
        let mut claims = claims(&world, &issuer.url(), "admin");
        claims["workspaces"] = json!(["globex"]);
        signer.token(&claims)
    };
    let strangers = [
        ("a key of another", world.caller(Admin, &["globex"]).await),
        ("a token of another", bearer(&world, &token)),
    ];
    let before =
        (world.database.rows("ad_platform_connections").await, world.database.rows("workspace_keys").await);
    for (who, caller) in strangers {
        for (rpc, _, _, elsewhere) in RPCS {
            let reached = reach_for(rpc, &caller, &world, &id, &key_id, &link).await;
            let shown = seen(rpc, &caller).await;
            match elsewhere {
                Hidden(reason) => {
                    let outcome = reached.unwrap_or_else(|| panic!("{rpc} has no way to reach"));
                    let no = outcome.expect_err(&format!("{who} calls {rpc}"));
                    assert_eq!(
                        (no.code(), no.reason()),
                        (Code::NotFound, reason.reason()),
                        "{who}, {rpc}: {no:?}"
                    );
                }
                Unseen => {
                    let shown = shown.unwrap_or_else(|| panic!("{rpc} has no way to look"));
                    assert!(!shown.contains(ACME) && !shown.contains(&id), "{who} sees by {rpc}: {shown}");
                }
                Whole => {
                    let no = reached.unwrap_or_else(|| panic!("{rpc} has no way to reach"));
                    no.expect_err(rpc).is(Code::PermissionDenied, Reason::RoleInsufficient);
                }
                Apart => assert!(reached.is_none() && shown.is_none(), "{rpc} is about workspaces after all"),
            }
        }
    }
    let after =
        (world.database.rows("ad_platform_connections").await, world.database.rows("workspace_keys").await);
    assert_eq!(after, before);
}

/// The portal's role may do nothing but act for the link that it presents.
async fn the_portal_acts_for_its_link_alone(backend: Backend) {
    let world = World::start(backend).await;
    let link = world.admin().link(ACME).await.url;
    for workspaces in [&[][..], &[ACME][..]] {
        let portal = world.caller(Portal, workspaces).await;
        for (rpc, _, empty, _) in RPCS {
            let takes = PORTAL.contains(rpc);
            let without = call(&portal, rpc).await.expect_err(rpc);
            let with = call(&portal.for_link(&link), rpc).await;
            // A provider's callback comes with no link.
            if *rpc == "TokenVault/ReportProviderCallback" {
                without.is(Code::InvalidArgument, Reason::FieldInvalid).field("provider");
                with.expect_err(rpc).field("connect-link");
                continue;
            }
            if !takes {
                without.is(Code::PermissionDenied, Reason::RoleInsufficient);
                with.expect_err(rpc).is(Code::PermissionDenied, Reason::RoleInsufficient);
                continue;
            }
            without.is(Code::NotFound, Reason::ConnectLinkNotFound);
            match empty {
                Told => assert_eq!(with.expect_err(rpc).code(), Code::InvalidArgument, "{rpc}"),
                Answered | Unlinked => with.expect(rpc),
            }
        }
    }
    // Whoever else acts for a link reaches no further; where a link would restrict nothing, it is refused.
    let admin = world.admin().for_link(&link);
    for (rpc, ..) in RPCS {
        let outcome = call(&admin, rpc).await;
        if !PORTAL.contains(rpc) {
            outcome.expect_err(rpc).is(Code::InvalidArgument, Reason::FieldInvalid).field("connect-link");
        }
    }
}

macro_rules! on_both {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Backend::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Backend::Postgres).await;
            })*
        }
    };
}

on_both! {
    each_role_may_call_its_rpcs_and_no_other_by_key_and_by_token
    whoever_brings_nothing_good_is_nobody_to_every_rpc
    another_tenant_reaches_nothing_and_learns_nothing
    the_portal_acts_for_its_link_alone
}

/// Certificates never reach the database, so one is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_act_in_their_role_and_wrong_ones_and_plaintext_are_unheard_by_every_rpc() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let rules: Vec<_> = ROLES
        .iter()
        .map(|&role| {
            let role = name(role);
            format!("{{ san = \"spiffe://acme/{role}\", principal = \"{role}\", role = \"{role}\", workspaces = \"all\" }}")
        })
        .collect();
    let secured = Secured::prepare(Backend::Sqlite, &servers.server(), Some((&clients, "optional"))).await;
    let secured = secured
        .set("auth.certificates", &format!("[{}]", rules.join(", ")))
        .set("server.limits.failed_authentications_per_minute", "0");
    secured.serve();
    let admin = secured.world.admin();
    let of = |names: &[&str], authority: &Authority| {
        let pair = authority.client(names);
        admin.saying(None).through(secured.channel(&servers, Some(&pair)))
    };
    for role in ROLES {
        let caller = of(&[&format!("spiffe://acme/{}", name(role))], &clients);
        acts_as(&caller, role, Reach::All, &format!("a certificate of {}", name(role))).await;
    }
    is_nobody(&of(&["spiffe://acme/stranger"], &clients), Reason::ApiKeyInvalid, "a certificate of nobody")
        .await;
    let two = of(&["spiffe://acme/viewer", "spiffe://acme/admin"], &clients);
    is_nobody(&two, Reason::ApiKeyInvalid, "a certificate of two").await;
    is_nobody(
        &admin.saying(None).through(secured.channel(&servers, None)),
        Reason::ApiKeyInvalid,
        "no certificate",
    )
    .await;
    let admins = clients.client(&["spiffe://acme/admin"]);
    let another = admin.through(secured.channel(&servers, Some(&admins)));
    is_nobody(&another, Reason::ApiKeyInvalid, "a key with another's certificate").await;
    is_unheard(&of(&["spiffe://acme/admin"], &Authority::new("clients")), "a certificate of an unknown root")
        .await;
    is_unheard(&admin, "plaintext").await;
    acts_as(&admin.through(secured.channel(&servers, None)), Admin, Reach::All, "the admin's key over TLS")
        .await;
}
