//! Callers with tokens of an OpenID Connect issuer: who may call under which name, and which tokens are refused.

use std::time::Duration;

use serde_json::{Value, json};
use token_vault_tests::issuer::{Issuer, Signer, b64, hs256, unsigned};
use token_vault_tests::prelude::*;
use token_vault_tests::{Builder, eventually_async};

const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const AUDIENCE: &str = "token-vault";
const ROLES: &str = r#"[
    { value = "tv-connector", role = "connector" }, { value = "tv-ingestion", role = "ingestion" },
    { value = "tv-alerting", role = "alerting" }, { value = "tv-viewer", role = "viewer" },
    { value = "tv-admin", role = "admin" }
]"#;

/// Starts a vault that accepts tokens of this issuer, and whose time the test moves.
pub(crate) fn trusting(backend: Backend, issuer: &str) -> Builder {
    World::builder(backend)
        .moving_time()
        .config("auth.oidc.issuer", issuer)
        .config("auth.oidc.audience", AUDIENCE)
        .config("auth.oidc.roles", ROLES)
        .config("auth.oidc.workspaces_claim", "workspaces")
        .config("auth.oidc.leeway", "5s")
        .config("auth.oidc.refresh_at_most_every", "500ms")
        // This test fails to authenticate often, which would look like guessing.
        .config("server.limits.failed_authentications_per_minute", "0")
}

/// Good claims of the principal `oidc:job`, for an hour of the vault's time.
pub(crate) fn claims(world: &World, issuer: &str, role: &str) -> Value {
    let now = world.sandbox.clock().now();
    json!({
        "iss": issuer, "aud": AUDIENCE, "sub": "job", "roles": [format!("tv-{role}"), "unknown"],
        "workspaces": [ACME], "iat": now, "nbf": now, "exp": now + 3_600,
    })
}

fn with(mut claims: Value, claim: &str, value: Value) -> Value {
    claims[claim] = value;
    claims
}

fn without(mut claims: Value, claim: &str) -> Value {
    claims.as_object_mut().expect("claims").remove(claim);
    claims
}

/// A caller that sends this token.
pub(crate) fn bearer(world: &World, token: &str) -> Caller {
    world.know("a caller's token", token);
    world.know("a token's signature", token.rsplit('.').next().unwrap_or_default());
    world.admin().saying(Some(&format!("Bearer {token}")))
}

/// Asserts that the token was refused.
fn is_refused(no: &Denial) {
    no.is(Code::Unauthenticated, Reason::ApiKeyInvalid);
}

/// A vault, its issuer and the issuer's key.
async fn start(signer: Signer) -> (World, Issuer, Signer) {
    let issuer = Issuer::start(&[&signer]).await;
    let world = trusting(Backend::Sqlite, &issuer.url()).start().await;
    (world, issuer, signer)
}

async fn tokens_act_in_their_role_and_workspaces(backend: Backend) {
    let signers = [Signer::rsa("r"), Signer::ec("e"), Signer::ed("d")];
    let issuer = Issuer::start(&signers.each_ref()).await;
    let world = trusting(backend, &issuer.url()).start().await;
    let admin = world.admin();
    let ours = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    let theirs = admin.connect("globex", &world.person("bob").long_lived_token()).await;
    for signer in &signers {
        let of = |role: &str| bearer(&world, &signer.token(&claims(&world, &issuer.url(), role)));
        let ingestion = of("ingestion");
        assert!(ingestion.secret(&ours).await.starts_with("EAA"), "{}", signer.algorithm());
        ingestion.fetch(&theirs).await.unwrap_err().is(Code::NotFound, Reason::ConnectionNotFound);
        assert_eq!(ingestion.list().await.unwrap().tokens.len(), 1, "the other workspace is not seen");
        of("viewer")
            .fetch(&ours)
            .await
            .unwrap_err()
            .is(Code::PermissionDenied, Reason::RoleInsufficient)
            .says("role", "VIEWER");
        let anywhere = with(claims(&world, &issuer.url(), "viewer"), "workspaces", json!([ACME, "globex"]));
        assert_eq!(bearer(&world, &signer.token(&anywhere)).list().await.unwrap().tokens.len(), 2);
    }
    assert!(world.logs().contains("\"principal\":\"oidc:job\""), "its name is in the log, under its prefix");
    // Its changes are recorded under its name, like those of other principals.
    let connector = bearer(&world, &signers[0].token(&claims(&world, &issuer.url(), "connector")));
    connector.store(ACME, &world.person("eve").long_lived_token()).await.unwrap();
    let restarted = signers[1].token(&claims(&world, &issuer.url(), "viewer"));
    world.restart();
    bearer(&world, &restarted).list().await.expect("a token outlives the vault's process");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_act_in_their_role_and_workspaces_on_sqlite() {
    tokens_act_in_their_role_and_workspaces(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_act_in_their_role_and_workspaces_on_postgres() {
    tokens_act_in_their_role_and_workspaces(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_good_token_is_refused_alike_and_only_the_log_says_why() {
    let (world, issuer, signer) = start(Signer::rsa("k1")).await;
    let good = claims(&world, &issuer.url(), "viewer");
    let (now, stranger) = (world.sandbox.clock().now(), Signer::ec("k1"));
    let token = signer.token(&good);
    let (message, signature) = token.rsplit_once('.').unwrap();
    let as_admin = unsigned(&json!({"alg": "RS256", "kid": "k1"}), &claims(&world, &issuer.url(), "admin"));
    let header = |name: &str, value: Value| with(json!({"alg": "RS256", "kid": "k1"}), name, value);
    let pem = signer.jwk()["n"].as_str().unwrap().to_owned();
    let padded = |n: usize| signer.token(&with(good.clone(), "padding", json!("x".repeat(n))));
    let too_long = (5_000..6_000).step_by(20).map(padded).find(|token| token.len() > 8 * 1_024).unwrap();
    let cases = [
        ("another issuer", signer.token(&with(good.clone(), "iss", json!("https://evil.example")))),
        ("another issuer", signer.token(&with(good.clone(), "iss", json!([issuer.url()])))),
        ("another issuer", signer.token(&without(good.clone(), "iss"))),
        ("another audience", signer.token(&with(good.clone(), "aud", json!(["other", "token-vault-2"])))),
        ("another audience", signer.token(&without(good.clone(), "aud"))),
        ("signature", format!("{as_admin}.{signature}")),
        ("signature", format!("{message}.{}", b64([7; 256]))),
        ("signature", format!("{message}.")),
        ("no known algorithm", format!("{}.", unsigned(&json!({"alg": "none"}), &good))),
        (
            "no known algorithm",
            format!("{}.{signature}", unsigned(&json!({"alg": "None", "kid": "k1"}), &good)),
        ),
        ("algorithm is not allowed", hs256(&signer.public_bytes(), "k1", &good)),
        ("algorithm is not allowed", hs256(pem.as_bytes(), "k1", &good)),
        ("algorithm is not allowed", signer.token_as(&header("alg", json!("RS512")), &good)),
        ("no such key", stranger.token(&good)),
        ("no such key", signer.token_as(&header("kid", json!("k2")), &good)),
        ("no such key", signer.token_as(&header("kid", json!("../keys")), &good)),
        ("critical extensions", signer.token_as(&header("crit", json!(["exp"])), &good)),
        ("not valid yet", signer.token(&with(good.clone(), "nbf", json!(now + 600)))),
        ("issued in the future", signer.token(&with(good.clone(), "iat", json!(now + 600)))),
        ("no valid exp", signer.token(&without(good.clone(), "exp"))),
        ("no valid exp", signer.token(&with(good.clone(), "exp", json!("never")))),
        ("no valid exp", signer.token(&with(good.clone(), "exp", json!(1e300)))),
        ("nbf or iat is not a time", signer.token(&with(good.clone(), "nbf", json!("now")))),
        ("too long", too_long),
        ("can't be parsed", format!("{}.{}.{}", b64("{}"), b64("{}"), b64("x"))),
        ("claims can't be parsed", signer.token(&json!(["no object"]))),
        ("can't be parsed", "a.b.c".to_owned()),
        ("can't be parsed", "..".to_owned()),
    ];
    let mut messages = Vec::new();
    for (why, token) in cases {
        let no = bearer(&world, &token).list().await.expect_err(why);
        is_refused(&no);
        messages.push(no.message().to_owned());
        assert!(
            world.logs().lines().any(|line| line.contains("is not accepted") && line.contains(why)),
            "{why}"
        );
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "the caller can't tell one from another: {messages:#?}");
    assert!(!messages[0].contains("signature") && messages[0].contains("log"), "{}", messages[0]);
    // Anything that is neither a token nor a key counts as an invalid key.
    is_refused(&world.admin().saying(Some("Bearer a.b")).list().await.unwrap_err());
    // Without a key id, each key with a matching algorithm is tried.
    let anonymous = signer.token_as(&json!({"alg": "RS256"}), &good);
    bearer(&world, &anonymous).list().await.expect("the one key is tried");
    bearer(&world, &token).list().await.expect("the good one is taken all the while");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_genuine_token_that_means_nothing_here_is_told_so() {
    let (world, issuer, signer) = start(Signer::ec("k1")).await;
    let good = claims(&world, &issuer.url(), "viewer");
    let cases = [
        ("names no principal", without(good.clone(), "sub")),
        ("names no principal", with(good.clone(), "sub", json!(["a", "b"]))),
        ("not a valid name", with(good.clone(), "sub", json!("no spaces"))),
        ("not a valid name", with(good.clone(), "sub", json!("x".repeat(200)))),
        ("no role", without(good.clone(), "roles")),
        ("no role", with(good.clone(), "roles", json!(["admin", "viewer", "Tv-Admin"]))),
        ("no role", with(good.clone(), "roles", json!({"tv-admin": true}))),
        ("several roles", with(good.clone(), "roles", json!(["tv-viewer", "tv-admin"]))),
        ("no workspace", without(good.clone(), "workspaces")),
        ("no workspace", with(good.clone(), "workspaces", json!([]))),
        ("no workspace", with(good.clone(), "workspaces", json!(true))),
        ("no valid id", with(good.clone(), "workspaces", json!([ACME, "*"]))),
    ];
    for (why, claims) in cases {
        let no = bearer(&world, &signer.token(&claims)).list().await.expect_err(why);
        is_refused(&no);
        no.words("is valid, but its claims");
        assert!(
            world.logs().lines().any(|line| line.contains("is not accepted") && line.contains(why)),
            "{why}"
        );
    }
    // In a claim, "all" is the name of a workspace and does not mean every workspace.
    world.admin().connect(ACME, &world.person("ana").long_lived_token()).await;
    let all = bearer(&world, &signer.token(&with(good, "workspaces", json!("all"))));
    assert_eq!(all.list().await.unwrap().tokens.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_ends_by_the_vaults_clock_and_its_watch_with_it() {
    let (world, issuer, signer) = start(Signer::ed("k1")).await;
    let caller = bearer(&world, &signer.token(&claims(&world, &issuer.url(), "viewer")));
    let feed = caller.watch_all().await;
    world.advance(Duration::from_secs(3_601)).await;
    assert!(caller.list().await.is_ok(), "within the leeway");
    world.advance(Duration::from_secs(10)).await;
    let no = caller.list().await.unwrap_err();
    no.is(Code::Unauthenticated, Reason::ApiKeyExpired).words("token");
    assert!(no.fact("expired_at").is_some(), "{no:?}");
    feed.ended().await.expect("the watch ends too").is(Code::Unauthenticated, Reason::ApiKeyExpired);
    // A second token of the same principal expires at its own time.
    let later = bearer(&world, &signer.token(&claims(&world, &issuer.url(), "viewer")));
    let shorter =
        with(claims(&world, &issuer.url(), "viewer"), "exp", json!(world.sandbox.clock().now() + 60));
    let (stays, goes) = (later.watch_all().await, bearer(&world, &signer.token(&shorter)).watch_all().await);
    world.advance(Duration::from_secs(120)).await;
    goes.ended().await.expect("one ends").is(Code::Unauthenticated, Reason::ApiKeyExpired);
    stays.caught_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_of_the_issuer_is_asked_for_and_unknown_ones_do_not_hammer_it() {
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    let issuer = Issuer::start(&[&old]).await;
    let world = trusting(Backend::Sqlite, &issuer.url())
        .config("auth.oidc.refresh", "1h")
        .config("auth.oidc.refresh_at_most_every", "2s")
        .start()
        .await;
    let of = |signer: &Signer| bearer(&world, &signer.token(&claims(&world, &issuer.url(), "viewer")));
    let (with_old, with_new) = (of(&old), of(&new));
    with_old.list().await.expect("the first key");
    issuer.publish(&[&old, &new]);
    eventually_async("the new key is found", LIMIT, || async { with_new.list().await.ok() }).await;
    with_old.list().await.expect("both are published");
    issuer.publish(&[&new]);
    // The vault asks again only for a key that it does not know.
    let (before, began) = (issuer.asked(), std::time::Instant::now());
    for n in 0..100 {
        is_refused(&of(&Signer::ec(&format!("unknown-{n}"))).list().await.unwrap_err());
    }
    let asked = u64::try_from(issuer.asked() - before).unwrap();
    assert!(asked <= began.elapsed().as_secs() / 2 + 1, "{asked} questions in {:?}", began.elapsed());
    let no = eventually_async("the old key is forgotten", LIMIT, || async {
        let _ = of(&Signer::ec("another")).list().await;
        with_old.list().await.err()
    });
    is_refused(&no.await);
    with_new.list().await.expect("the new one goes on");
    issuer.publish(&[]);
    let no = eventually_async("every key is withdrawn", LIMIT, || async {
        let _ = of(&Signer::ec("another")).list().await;
        with_new.list().await.err()
    });
    is_refused(&no.await);
    issuer.publish(&[&new]);
    eventually_async("the key is back", LIMIT, || async { with_new.list().await.ok() }).await;
    // For a token with another audience the vault does not ask the issuer.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = issuer.asked();
    let foreign = with(claims(&world, &issuer.url(), "viewer"), "aud", json!("other"));
    is_refused(&bearer(&world, &Signer::ec("foreign").token(&foreign)).list().await.unwrap_err());
    assert_eq!(issuer.asked(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_is_down_at_start_is_told_as_such_and_found_when_it_comes() {
    let signer = Signer::ec("k1");
    let address = Issuer::start(&[&signer]).await.address();
    let url = format!("http://{address}");
    let world = trusting(Backend::Sqlite, &url).config("auth.oidc.refresh", "1s").start().await;
    let caller = bearer(&world, &signer.token(&claims(&world, &url, "viewer")));
    caller.list().await.unwrap_err().is(Code::Unavailable, Reason::IdentityProviderUnavailable).has_retry();
    world.admin().list().await.expect("who has a key needs no issuer");
    let _issuer = Issuer::start_at(address, &[&signer]).await;
    eventually_async("tokens are taken", LIMIT, || async { caller.list().await.ok() }).await;
    assert!(world.logs().contains("the issuer answers again"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_keys_are_used_for_a_while_when_the_issuer_goes_down_and_then_no_more() {
    let signer = Signer::ec("k1");
    let issuer = Issuer::start(&[&signer]).await;
    let world = trusting(Backend::Sqlite, &issuer.url())
        .config("auth.oidc.refresh", "1s")
        .config("auth.oidc.stale_for", "8s")
        .start()
        .await;
    let caller = bearer(&world, &signer.token(&claims(&world, &issuer.url(), "viewer")));
    caller.list().await.expect("all is well");
    issuer.is_away(true);
    eventually_async("the vault has noticed", LIMIT, || async {
        world.logs().contains("the issuer's keys can't be read").then_some(())
    })
    .await;
    caller.list().await.expect("the known keys are good for a while");
    let unknown = Signer::ec("unknown").token(&claims(&world, &issuer.url(), "viewer"));
    bearer(&world, &unknown)
        .list()
        .await
        .unwrap_err()
        .is(Code::Unavailable, Reason::IdentityProviderUnavailable);
    let no = eventually_async("they are good no more", LIMIT, || async { caller.list().await.err() }).await;
    no.is(Code::Unavailable, Reason::IdentityProviderUnavailable).has_retry();
    issuer.is_away(false);
    eventually_async("the issuer is back", LIMIT, || async { caller.list().await.ok() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_floods_hangs_or_poses_as_another_is_as_one_that_is_down() {
    type Trick = fn(&Issuer);
    let cases: [(Trick, &str); 3] = [
        (Issuer::floods, "its answer is too long"),
        (Issuer::hangs, "it did not answer in time"),
        (|issuer| issuer.poses_as("http://127.0.0.1:1"), "names another issuer"),
    ];
    for (misbehaves, why) in cases {
        let signer = Signer::ec("k1");
        let issuer = Issuer::start(&[&signer]).await;
        misbehaves(&issuer);
        let world = trusting(Backend::Sqlite, &issuer.url()).start().await;
        let caller = bearer(&world, &signer.token(&claims(&world, &issuer.url(), "viewer")));
        caller.list().await.unwrap_err().is(Code::Unavailable, Reason::IdentityProviderUnavailable);
        assert!(world.logs().contains(why), "{why}");
        world.admin().list().await.expect("who has a key needs no issuer");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_are_mapped_as_the_operator_says() {
    let signer = Signer::ec("k1");
    let issuer = Issuer::start(&[&signer]).await;
    let world = trusting(Backend::Sqlite, &issuer.url())
        .config("auth.oidc.jwks_uri", format!("{}/keys", issuer.url()))
        .config("auth.oidc.algorithms", "ES256")
        .config("auth.oidc.principal_claim", "client_id")
        .config("auth.oidc.role_claim", "realm_access.roles")
        .config("auth.oidc.workspaces_claim", "groups")
        .config(
            "auth.oidc.workspaces",
            r#"[{ value = "eu", workspaces = ["acme", "initech"] }, { value = "us", workspaces = ["globex"] }, { value = "ops", workspaces = "all" }]"#,
        )
        .start()
        .await;
    let admin = world.admin();
    admin.connect(ACME, &world.person("ana").long_lived_token()).await;
    admin.connect("globex", &world.person("bob").long_lived_token()).await;
    admin.connect("umbrella", &world.person("eve").long_lived_token()).await;
    let of = |groups: Value| {
        let mut claims = without(claims(&world, &issuer.url(), "none"), "sub");
        claims["client_id"] = json!("sync@acme");
        claims["realm_access"] = json!({"roles": ["tv-viewer"]});
        claims["groups"] = groups;
        bearer(&world, &signer.token(&claims))
    };
    for (groups, seen) in [(json!("eu"), 1), (json!(["eu", "us", "other"]), 2), (json!(["us", "ops"]), 3)] {
        assert_eq!(of(groups.clone()).list().await.unwrap().tokens.len(), seen, "{groups}");
    }
    is_refused(&of(json!(["acme", "all"])).list().await.unwrap_err());
    assert!(world.logs().contains("oidc:sync@acme"));
    let rsa = Signer::rsa("k1");
    issuer.publish(&[&rsa, &signer]);
    is_refused(
        &bearer(&world, &rsa.token(&claims(&world, &issuer.url(), "viewer"))).list().await.unwrap_err(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_and_no_certificate_takes_a_tokens_name_and_mistakes_are_told_at_start() {
    let (world, issuer, signer) = start(Signer::ec("k1")).await;
    let key = |principal: &str| pb::CreateApiKeyRequest {
        principal: principal.into(),
        role: Role::Viewer.into(),
        workspaces: Some(pb::create_api_key_request::Workspaces::AllWorkspaces(true)),
        ..Default::default()
    };
    world
        .admin()
        .create_api_key(key("oidc:job"))
        .await
        .unwrap_err()
        .is(Code::InvalidArgument, Reason::FieldInvalid)
        .field("principal");
    world.admin().create_api_key(key("job")).await.expect("without the prefix it is another name");
    // The prefix keeps principals of tokens apart from those of keys.
    let posing = with(claims(&world, &issuer.url(), "viewer"), "sub", json!("bootstrap-admin"));
    bearer(&world, &signer.token(&posing)).list().await.unwrap();
    assert!(world.logs().contains("\"principal\":\"oidc:bootstrap-admin\""));
    world.stop();
    let mistakes = [
        ("AUDIENCE", "", "auth.oidc.audience"),
        ("ISSUER", "http://login.example", "auth.oidc.issuer"),
        ("ISSUER", "", "auth.oidc.issuer"),
        ("ALGORITHMS", "RS256,HS256", "auth.oidc.algorithms"),
        ("ALGORITHMS", "none", "auth.oidc.algorithms"),
        ("ROLES", "[]", "auth.oidc.roles"),
        ("ROLES", r#"[{ value = "a", role = "king" }]"#, "auth.oidc.roles"),
        ("WORKSPACES_CLAIM", "", "auth.oidc.workspaces_claim"),
        ("ALL_WORKSPACES", "true", "auth.oidc.workspaces_claim"),
        ("STALE_FOR", "1s", "auth.oidc.stale_for"),
        ("CA_FILE", "/nowhere.pem", "auth.oidc"),
        ("JWKS", "x", "auth.oidc.jwks"),
    ];
    for (name, value, words) in mistakes {
        let launch = world.launch().env(&format!("TOKEN_VAULT__AUTH__OIDC__{name}"), value);
        let ended = world.try_start_as(&launch).expect_err(name);
        assert!(ended.code != Some(0) && ended.stderr.contains(words), "{name}={value}: {ended:?}");
    }
    let rules =
        r#"[{ san = "spiffe://acme/job", principal = "oidc:job", role = "viewer", workspaces = "all" }]"#;
    let ended =
        world.try_start_as(&world.launch().env("TOKEN_VAULT__AUTH__CERTIFICATES", rules)).expect_err("no");
    assert!(ended.stderr.contains("must not begin with oidc:"), "{ended:?}");
    world.start_again();
}
