//! Callers with a client certificate: which principal each of them is, and when that ends.

use std::sync::Arc;
use std::time::Duration;

use token_vault_proto::v1::WatchExpiryEventsRequest as Watch;
use token_vault_proto::v1::create_api_key_request::Workspaces;
use token_vault_tests::certificates::{Authority, End, Pair, Secured, replace};
use token_vault_tests::prelude::*;
use token_vault_tests::{Steady, eventually, eventually_async};

use super::tls::{INGESTION, LIMIT, admin, unheard};

/// Which principal each certificate belongs to.
const CERTIFICATES: &str = r#"[
    { san = "spiffe://acme/ingestion", principal = "ingestion", role = "ingestion", workspaces = ["acme"] },
    { san = "ops.acme.example", principal = "ops", role = "admin", workspaces = "all" },
    { san = "spiffe://acme/brief", principal = "brief", role = "viewer", workspaces = "all" }
]"#;

/// A vault whose clients send a certificate, and the authorities of the servers and of the clients.
pub(super) async fn mutual(backend: Backend, client_auth: &str) -> (Secured, Authority, Authority) {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let secured = Secured::prepare(backend, &servers.server(), Some((&clients, client_auth))).await;
    let secured = secured.set("auth.certificates", CERTIFICATES);
    secured.serve();
    (secured, servers, clients)
}

/// A caller that sends only a certificate.
fn certified(secured: &Secured, servers: &Authority, pair: &Pair) -> Caller {
    secured.world.admin().saying(None).through(secured.channel(servers, Some(pair)))
}

async fn certificates_act_in_their_role_and_workspaces_only(backend: Backend) {
    let (secured, servers, clients) = mutual(backend, "optional").await;
    let admin = admin(&secured, &servers);
    let ours = admin.connect(ACME, &secured.world.person("ana").long_lived_token()).await;
    let theirs = admin.connect("globex", &secured.world.person("bob").long_lived_token()).await;

    let ingestion = certified(&secured, &servers, &clients.client(&[INGESTION]));
    assert!(ingestion.secret(&ours).await.starts_with("EAA"));
    ingestion.fetch(&theirs).await.unwrap_err().is(Code::NotFound, Reason::ConnectionNotFound);
    let stored = ingestion.store(ACME, &secured.world.person("eve").long_lived_token()).await;
    stored.unwrap_err().is(Code::PermissionDenied, Reason::RoleInsufficient).says("role", "INGESTION");
    let keys = ingestion.list_api_keys(pb::ListApiKeysRequest::default()).await;
    keys.unwrap_err().is(Code::PermissionDenied, Reason::RoleInsufficient);
    let listed = ingestion.list().await.expect("it may list").tokens;
    assert_eq!(listed.len(), 1, "the other workspace is not seen");
    let feed = ingestion.watch(Watch::default()).await.expect("it may watch");
    feed.caught_up().await;

    // DNS names ignore case, and one of several names is enough.
    let ops = clients.client(&["elsewhere.example", "OPS.acme.Example"]);
    let ops = certified(&secured, &servers, &ops);
    assert_eq!(ops.list().await.expect("an admin of all").tokens.len(), 2);
    let logs = secured.world.logs();
    assert!(logs.contains("\"principal\":\"ingestion\""), "the principal is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificates_principal_acts_in_its_role_and_workspaces_only_on_sqlite() {
    certificates_act_in_their_role_and_workspaces_only(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificates_principal_acts_in_its_role_and_workspaces_only_on_postgres() {
    certificates_act_in_their_role_and_workspaces_only(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_nobodys_or_two_principals_is_told_so() {
    let (secured, servers, clients) = mutual(Backend::Sqlite, "optional").await;
    for names in [&["spiffe://acme/stranger"][..], &["*.acme.example"], &[], &[INGESTION, "ops.acme.example"]]
    {
        let stranger = certified(&secured, &servers, &clients.client(names));
        let no = stranger.list().await.unwrap_err();
        no.is(Code::Unauthenticated, Reason::ApiKeyInvalid).words("auth.certificates");
    }
    // Upper and lower case differ in a URI, and a prefix is a different name.
    for near in ["spiffe://acme/Ingestion", "spiffe://acme/ingestion/x"] {
        let no = certified(&secured, &servers, &clients.client(&[near])).list().await.unwrap_err();
        no.is(Code::Unauthenticated, Reason::ApiKeyInvalid);
    }
    let nothing = secured.world.admin().saying(None).through(secured.channel(&servers, None));
    nothing.list().await.unwrap_err().is(Code::Unauthenticated, Reason::ApiKeyInvalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_has_ended_or_has_another_root_makes_no_connection() {
    let (secured, servers, clients) = mutual(Backend::Sqlite, "optional").await;
    let forged = Authority::new("clients").client(&[INGESTION]);
    // A server's certificate is not valid for a client.
    let cases = [
        (clients.client_until(&[INGESTION], End::Past), "expired"),
        (forged, "invalid peer certificate: "),
        (clients.server(), "extended key usage"),
    ];
    for (pair, why) in cases {
        unheard(certified(&secured, &servers, &pair).list().await);
        eventually("the log says why", LIMIT, || {
            let log = secured.world.process(|process| process.log());
            let mut lines = log.lines().filter(|line| line.contains("certificate is not accepted"));
            lines.any(|line| line.to_lowercase().contains(&why.to_lowercase()))
        });
    }
    certified(&secured, &servers, &clients.client(&[INGESTION])).list().await.expect("a good one is taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_certificates_are_required_nobody_comes_without_one_and_keys_work_with_one() {
    let (secured, servers, clients) = mutual(Backend::Sqlite, "required").await;
    unheard(admin(&secured, &servers).list().await);
    let stranger = clients.client(&["spiffe://acme/stranger"]);
    let gated = secured.world.admin().through(secured.channel(&servers, Some(&stranger)));
    gated.list().await.expect("a certificate of nobody is a gate, and the key decides");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_both_the_key_decides_and_must_be_the_certificates_principals() {
    let (secured, servers, clients) = mutual(Backend::Sqlite, "optional").await;
    let world = &secured.world;
    let admin = admin(&secured, &servers);
    let mine = world.key_made_by(&admin, "ingestion", Role::Viewer).await;
    let another = world.key_made_by(&admin, "web", Role::Connector).await;
    let over =
        |caller: &Caller| caller.through(secured.channel(&servers, Some(&clients.client(&[INGESTION]))));

    let id = admin.connect("globex", &world.person("ana").long_lived_token()).await;
    let both = over(&mine);
    both.get(&id).await.expect("the key's workspaces count, not the certificate's");
    both.fetch(&id).await.unwrap_err().is(Code::PermissionDenied, Reason::RoleInsufficient);
    let no = over(&another).list().await.unwrap_err();
    no.is(Code::Unauthenticated, Reason::ApiKeyInvalid).words("belong to different principals");
    // A certificate does not make an invalid key valid.
    for bad in ["Bearer nonsense", "Basic dXNlcjpwYXNz", ""] {
        let no = over(&mine.saying(Some(bad))).list().await.unwrap_err();
        no.is(Code::Unauthenticated, Reason::ApiKeyInvalid);
    }
    let revoke = pb::RevokeApiKeyRequest { key_id: mine.key_id().into(), ..Default::default() };
    admin.revoke_api_key(revoke).await.unwrap();
    eventually_async("the end of the key", LIMIT, async || both.list().await.err()).await;
    over(&mine.saying(None)).list().await.expect("the certificate alone still counts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_of_some_workspaces_gives_nobody_the_name_of_a_certificate_that_reaches_further() {
    let (secured, servers, _) = mutual(Backend::Sqlite, "optional").await;
    let admin = admin(&secured, &servers);
    let named = pb::WorkspaceList { workspace_ids: vec!["globex".into()] };
    let request = |principal: &str| pb::CreateApiKeyRequest {
        principal: principal.into(),
        role: Role::Admin.into(),
        workspaces: Some(Workspaces::Named(named.clone())),
        ..Default::default()
    };
    let made = admin.create_api_key(request("globex-admin")).await.unwrap();
    let limited = secured.world.caller_with(&made.key, "").through(secured.channel(&servers, None));
    for name in ["ops", "ingestion"] {
        let no = limited.create_api_key(request(name)).await.unwrap_err();
        no.is(Code::InvalidArgument, Reason::FieldInvalid).field("principal");
    }
    limited.create_api_key(request("globex-web")).await.expect("its own names it may give");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_ca_that_is_taken_away_ends_the_trust_in_its_certificates_and_a_new_one_begins() {
    let (secured, servers, old) = mutual(Backend::Sqlite, "optional").await;
    let secured = Arc::new(secured);
    let new = Authority::new("new clients");
    let (by_old, by_new) = (old.client(&[INGESTION]), new.client(&[INGESTION]));
    let servers = Arc::new(servers);
    let steady = Steady::start({
        let (secured, servers) = (Arc::clone(&secured), Arc::clone(&servers));
        move || admin(&secured, &servers)
    });
    let there = certified(&secured, &servers, &by_old);
    there.list().await.expect("the old CA vouches");
    let fresh = |pair: &Pair| certified(&secured, &servers, pair);
    unheard(fresh(&by_new).list().await);

    // The vault accepts both for a while, as an operator would configure it.
    replace(&secured.file("clients.pem"), &format!("{}{}", old.pem(), new.pem()));
    eventually_async("trust in the new CA", LIMIT, async || fresh(&by_new).list().await.ok()).await;
    fresh(&by_old).list().await.expect("and still in the old one");
    replace(&secured.file("clients.pem"), &new.pem());
    eventually_async("no trust in the old CA", LIMIT, async || fresh(&by_old).list().await.err()).await;
    fresh(&by_new).list().await.expect("the new one vouches");
    steady.goes_on(10).await;
    steady.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_ends_ends_its_calls_and_watches_on_the_connection_that_is_there() {
    let (secured, servers, clients) = mutual(Backend::Sqlite, "optional").await;
    let brief = clients.client_until(&["spiffe://acme/brief"], End::In(Duration::from_secs(8)));
    let caller = certified(&secured, &servers, &brief);
    caller.list().await.expect("it has not ended yet");
    let feed = caller.watch(Watch::default()).await.unwrap();
    let no = feed.ended().await.expect("an error tells why");
    no.is(Code::Unauthenticated, Reason::ApiKeyExpired);
    let no = caller.list().await.unwrap_err();
    no.is(Code::Unauthenticated, Reason::ApiKeyExpired).words("Connect again");
}
