//! Connect links: a person connects an account with nothing but a link, and reaches nothing else.

use std::collections::BTreeSet;

use pb::connect_link::State;
use token_vault_tests::{Hunter, files_below, seconds, secret_part};

use super::*;

const PORTAL: &str = "https://connect.example/callbacks/meta";

fn for_acme() -> pb::CreateConnectLinkRequest {
    pb::CreateConnectLinkRequest { workspace_id: ACME.into(), ..Default::default() }
}

fn begin() -> pb::BeginAuthorizationRequest {
    pb::BeginAuthorizationRequest { redirect_uri: PORTAL.into(), ..new() }
}

fn is_no_link(no: &Denial) {
    no.is(Code::NotFound, Reason::ConnectLinkNotFound);
    assert!(no.facts().is_empty(), "a forger learns nothing: {no:?}");
}

async fn open(caller: &Caller) -> Result<pb::OpenConnectLinkResponse, Denial> {
    caller.open_connect_link(pb::OpenConnectLinkRequest {}).await
}

async fn listed(caller: &Caller) -> Vec<pb::ConnectLink> {
    caller.list_connect_links(Default::default()).await.expect("they are listed").links
}

on_both_databases! {
    with |builder| builder.moving_time();

    async fn a_person_connects_with_a_link_and_nothing_else(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let made = connector.link_with(pb::CreateConnectLinkRequest {
            return_url: "https://app.example/settings?tab=ads".into(),
            ..for_acme()
        }).await.expect("a link is made");
        let link = made.link.clone().expect("its facts");
        assert!(made.url.starts_with("https://connect.example/l/tvl_"), "{}", made.url.len());
        assert_eq!((link.state(), link.uses, link.max_uses, link.provider.as_str()), (State::Open, 0, 1, "meta"));
        let life = link.expires_at.unwrap().seconds - link.created_at.unwrap().seconds;
        assert_eq!((life, link.opened_at), (7 * 86_400, None));

        let portal = world.caller(Role::Portal, &[]).await.for_link(&made.url);
        let card = open(&portal).await.expect("the card");
        assert_eq!(card.link.as_ref().unwrap().return_url, "https://app.example/settings?tab=ads");
        assert!(card.connections.is_empty() && card.required_scopes == ["ads_read", "ads_management"], "{card:?}");
        let callback = consented(&world, &portal, begin(), &ana, Decision::Allow).await;
        let result = complete(&portal, &callback).await.expect("it is connected");
        let id = result.token.expect("a token").connection_id;
        assert_eq!(result.outcome, i32::from(Outcome::Created));

        // The feed names the link, so that whoever made it knows what came of it.
        let events = world.viewer().await.watch_all().await.caught_up().await;
        let born = events.iter().find(|event| event.kind() == Kind::Connected).expect("it is announced");
        assert_eq!((&born.connect_link_id, &born.connection_id), (&link.link_id, &id));
        assert!(events.iter().all(|event| event.connect_link_id.is_empty() || event.kind() == Kind::Connected));

        let known = listed(&connector).await.remove(0);
        assert_eq!((known.state(), known.uses, known.last_connection_id.as_deref()), (State::Used, 1, Some(id.as_str())));
        assert!(known.opened_at.is_some() && known.last_used_at.is_some(), "{known:?}");
        // For an hour the link shows what came of it, and connects nothing more.
        let card = open(&portal).await.expect("the card is still shown");
        assert_eq!(card.connections[0].token.as_ref().unwrap().connection_id, id);
        assert!(!card.connections[0].ad_accounts.is_empty() && card.connections[0].left_out_ad_accounts == 0);
        assert_eq!(complete(&portal, &callback).await.expect("the back button does no harm").outcome, i32::from(Outcome::Created));
        is_no_link(&portal.begin_authorization(begin()).await.expect_err("it is used up"));
        let paste = portal.store(ACME, &world.person("bob").long_lived_token()).await;
        is_no_link(&paste.expect_err("it is used up"));
        portal.validate(&id).await.expect("it can be checked");
        world.advance(Duration::from_secs(3_601)).await;
        is_no_link(&open(&portal).await.expect_err("it has ended"));
        is_no_link(&portal.validate(&id).await.expect_err("it has ended"));
        assert_eq!(connector.list().await.unwrap().tokens.len(), 1);
    }

    async fn a_link_reaches_its_workspace_and_connection_and_no_other(world: World) {
        let (ana, bob) = (world.person("ana"), world.person("bob"));
        let connector = world.connector().await;
        let (one, other) = (
            connector.connect(ACME, &ana.long_lived_token()).await,
            connector.connect(ACME, &bob.long_lived_token()).await,
        );
        let elsewhere = connector.connect("globex", &world.person("eve").long_lived_token()).await;
        let request = pb::CreateConnectLinkRequest { connection_id: Some(one.clone()), ..for_acme() };
        let link = connector.link_with(request).await.expect("a link is made").url;
        let portal = world.caller(Role::Portal, &[]).await.for_link(&link);
        let shown: Vec<_> = open(&portal).await.unwrap().connections.into_iter().map(|card| card.token.unwrap().connection_id).collect();
        assert_eq!(shown, [one.as_str()]);
        for hidden in [&other, &elsewhere] {
            portal.validate(hidden).await.unwrap_err().is(Code::NotFound, Reason::ConnectionNotFound);
            let begun = portal.begin_authorization(pb::BeginAuthorizationRequest { connection_id: Some(hidden.clone()), ..begin() }).await;
            begun.unwrap_err().is(Code::NotFound, Reason::ConnectionNotFound);
        }
        for (workspace, provider) in [("globex", "meta"), (ACME, "google_ads")] {
            let request = pb::BeginAuthorizationRequest { workspace_id: workspace.into(), provider: provider.into(), ..begin() };
            assert_eq!(portal.begin_authorization(request).await.unwrap_err().code(),
                if provider == "meta" { Code::NotFound } else { Code::InvalidArgument });
            assert!(portal.store(workspace, "EAAx").await.is_err());
        }
        // Without a connection in the request it is the link's all the same, and another person does not take its place.
        let callback = consented(&world, &portal, begin(), &bob, Decision::Allow).await;
        let no = complete(&portal, &callback).await.expect_err("another person");
        no.is(Code::FailedPrecondition, Reason::SubjectMismatch).says("connection_id", &one);
        assert_eq!(listed(&connector).await[0].state(), State::Open, "a failure is no use");
        ana.changes_password();
        connector.validate(&one).await.unwrap();
        ana.heals();
        let callback = consented(&world, &portal, begin(), &ana, Decision::Allow).await;
        let result = complete(&portal, &callback).await.expect("she reconnects");
        assert_eq!((result.token.unwrap().connection_id, result.outcome), (one.clone(), i32::from(Outcome::Restored)));
        let events = world.viewer().await.watch_all().await.caught_up().await;
        let restored = events.iter().find(|event| event.kind() == Kind::Restored).expect("it is announced");
        assert_eq!(restored.connect_link_id, listed(&connector).await[0].link_id);
    }

    async fn an_authorization_belongs_to_its_link(world: World) {
        let (ana, connector) = (world.person("ana"), world.connector().await);
        let (one, other) = (connector.link(ACME).await.url, connector.link(ACME).await.url);
        let portal = world.caller(Role::Portal, &[]).await;
        let callback = consented(&world, &portal.for_link(&one), begin(), &ana, Decision::Allow).await;
        is_over(&complete(&portal.for_link(&other), &callback).await.expect_err("another link's"));
        is_over(&complete(&connector, &callback).await.expect_err("of no link"));
        let of_none = consented(&world, &connector, new(), &ana, Decision::Allow).await;
        is_over(&complete(&portal.for_link(&one), &of_none).await.expect_err("begun without a link"));
        assert_eq!(codes(&world), 0, "no code went anywhere");
        complete(&portal.for_link(&one), &callback).await.expect("its own link completes it");
    }

    async fn whatever_is_wrong_with_a_link_is_one_answer(world: World) {
        let connector = world.connector().await;
        let portal = world.caller(Role::Portal, &[]).await;
        let good = connector.link(ACME).await.url;
        let token = good.rsplit('/').next().unwrap();
        let (id, secret) = token.trim_start_matches("tvl_").split_once('_').unwrap();
        let other = connector.link(ACME).await.url;
        let (other_id, _) = other.rsplit('/').next().unwrap().trim_start_matches("tvl_").split_once('_').unwrap();
        let last = if secret.ends_with('A') { "B" } else { "A" };
        let mut wrong = vec![
            String::new(), "x".into(), "tvl_".into(), portal.key().to_owned(), "x".repeat(9_000),
            format!("tvl_{id}_{}{last}", &secret[..42]), format!("tvl_{other_id}_{secret}"), format!("tvl_{}_{secret}", "a".repeat(16)),
        ];
        let revoked = connector.link(ACME).await;
        let revoke = pb::RevokeConnectLinkRequest { link_id: revoked.link.unwrap().link_id, ..Default::default() };
        for _ in 0..2 {
            let link = connector.revoke_connect_link(revoke.clone()).await.expect("twice is as good as once").link.unwrap();
            assert!(link.state() == State::Revoked && link.revoked_at.is_some(), "{link:?}");
        }
        wrong.push(revoked.url);
        let brief = connector.link_with(pb::CreateConnectLinkRequest { expires_in: seconds(60), ..for_acme() }).await.unwrap();
        world.advance(Duration::from_secs(60)).await;
        wrong.push(brief.url);
        for link in &wrong {
            let caller = portal.for_link(link);
            is_no_link(&open(&caller).await.expect_err("no link"));
            is_no_link(&caller.begin_authorization(begin()).await.expect_err("no link"));
            is_no_link(&caller.store(ACME, "EAAx").await.expect_err("no link"));
        }
        is_no_link(&open(&portal).await.expect_err("no link"));
        let of_globex = world.caller(Role::Portal, &["globex"]).await;
        is_no_link(&open(&of_globex.for_link(&good)).await.expect_err("a key of other workspaces"));
        let id = listed(&connector).await[0].link_id.clone();
        let stranger = world.caller(Role::Connector, &["globex"]).await;
        assert!(listed(&stranger).await.is_empty());
        for (caller, id) in [(&stranger, id.as_str()), (&connector, "aaaaaaaaaaaaaaaa")] {
            let revoke = pb::RevokeConnectLinkRequest { link_id: id.into(), ..Default::default() };
            let no = caller.revoke_connect_link(revoke).await.expect_err("not his");
            no.is(Code::NotFound, Reason::ConnectLinkNotFound).says("link_id", id);
        }
        open(&portal.for_link(&good)).await.expect("the good one is good");
        world.admin().shred_workspace(pb::ShredWorkspaceRequest {
            workspace_id: ACME.into(), confirm_workspace_id: ACME.into(), ..Default::default()
        }).await.expect("it is shredded");
        is_no_link(&open(&portal.for_link(&good)).await.expect_err("its workspace is gone"));
        assert!(world.database.rows("connect_links").await.is_empty());
    }

    async fn who_can_write_to_the_database_makes_and_edits_no_link(world: World) {
        let connector = world.connector().await;
        let portal = world.caller(Role::Portal, &[]).await;
        for change in [
            "workspace_id = 'globex'", "return_url = 'https://evil.example/'", "max_uses = 9",
            "expires_at = expires_at + 1", "created_by = 'admin'", "provider = 'google_ads'",
        ] {
            let link = connector.link(ACME).await.url;
            open(&portal.for_link(&link)).await.expect("it is good");
            world.database.execute(format!("UPDATE connect_links SET {change}")).await;
            is_no_link(&open(&portal.for_link(&link)).await.expect_err(change));
            assert!(listed(&connector).await.is_empty(), "{change}");
            world.database.execute("DELETE FROM connect_links").await;
        }
        let made = connector.link(ACME).await;
        let revoke = pb::RevokeConnectLinkRequest { link_id: made.link.unwrap().link_id, ..Default::default() };
        connector.revoke_connect_link(revoke).await.unwrap();
        world.database.execute("UPDATE connect_links SET revoked_at = NULL").await;
        is_no_link(&open(&portal.for_link(&made.url)).await.expect_err("it stays revoked"));
        // The token itself is nowhere.
        let mut hunter = Hunter::default();
        hunter.add("link", secret_part(made.url.rsplit('/').next().unwrap()));
        let mut found = hunter.search_files(files_below(world.folder()));
        found.extend(hunter.search("connect_links", world.database.rows("connect_links").await.join("\n").as_bytes()));
        assert!(found.is_empty(), "{found:?}");
    }

    async fn an_older_whole_row_of_a_link_opens_as_it_did(world: World) {
        let connector = world.connector().await;
        let portal = world.caller(Role::Portal, &[]).await;
        let made = connector.link(ACME).await;
        world.database.execute("CREATE TABLE kept AS SELECT * FROM connect_links").await;
        let revoke = pb::RevokeConnectLinkRequest { link_id: made.link.unwrap().link_id, ..Default::default() };
        connector.revoke_connect_link(revoke).await.unwrap();
        is_no_link(&open(&portal.for_link(&made.url)).await.expect_err("it is revoked"));
        world.database.execute("DELETE FROM connect_links; INSERT INTO connect_links SELECT * FROM kept").await;
        open(&portal.for_link(&made.url)).await.expect("it works as it did");
        world.database.execute("DROP TABLE kept").await;
    }

    async fn what_a_used_link_did_is_answered_again_and_nothing_beyond_it_is_done(world: World) {
        let connector = world.connector().await;
        let portal = world.caller(Role::Portal, &[]).await.for_link(&connector.link(ACME).await.url);
        let token = world.person("ana").long_lived_token();
        let paste = |options| pb::StoreTokenRequest {
            workspace_id: ACME.into(),
            provider: "meta".into(),
            credential: Some(pb::store_token_request::Credential::AccessToken(token.clone())),
            options,
            request_id: "the same".into(),
            ..Default::default()
        };
        // A link is for one account, its pages not included, with the scopes and the person that are expected.
        for options in [
            pb::IntakeOptions { connect_pages: true, ..Default::default() },
            pb::IntakeOptions { allow_subject_change: true, ..Default::default() },
            pb::IntakeOptions { allow_missing_scopes: true, ..Default::default() },
        ] {
            let no = portal.store_with(paste(Some(options))).await.expect_err("too much");
            no.is(Code::InvalidArgument, Reason::FieldInvalid).field("options");
            let request = pb::BeginAuthorizationRequest { options: Some(options), ..begin() };
            let no = portal.begin_authorization(request).await.expect_err("too much");
            no.is(Code::InvalidArgument, Reason::FieldInvalid).field("options");
        }
        let first = portal.store_with(paste(None)).await.expect("it is stored");
        let again = portal.store_with(paste(None)).await.expect("a repeat is answered, although the link has ended with it");
        assert_eq!((again.outcome, again.token.unwrap().connection_id), (first.outcome, first.token.unwrap().connection_id));
        let other = pb::StoreTokenRequest { request_id: request_id(), ..paste(None) };
        is_no_link(&portal.store_with(other).await.expect_err("another request is another use"));
    }

    async fn one_use_is_one_account_however_many_try_at_once(world: World) {
        let connector = world.connector().await;
        let portal = world.caller(Role::Portal, &[]).await;
        let link = connector.link(ACME).await.url;
        let tries = futures::future::join_all((0..6).map(|at| {
            let (caller, token) = (portal.for_link(&link), world.person(&format!("person {at}")).long_lived_token());
            async move { caller.store(ACME, &token).await }
        })).await;
        let (good, bad): (Vec<_>, Vec<_>) = tries.into_iter().partition(Result::is_ok);
        assert_eq!((good.len(), bad.len()), (1, 5));
        bad.into_iter().for_each(|no| is_no_link(&no.unwrap_err()));
        assert_eq!(connector.list().await.unwrap().tokens.len(), 1);

        // An agency's link, for as many accounts as it says; one callback twice at once is one of them.
        let many = connector.link_with(pb::CreateConnectLinkRequest { max_uses: 3, ..for_acme() }).await.unwrap();
        let agency = portal.for_link(&many.url);
        let callback = consented(&world, &agency, begin(), &world.person("zoe"), Decision::Allow).await;
        let both = futures::future::join_all([complete(&agency, &callback), complete(&agency, &callback)]).await;
        let ids: BTreeSet<_> = both.into_iter().map(|one| one.expect("both are told").token.unwrap()).map(|token| {
            assert_eq!(token.token_version, 1);
            token.connection_id
        }).collect();
        assert_eq!(ids.len(), 1);
        for at in 0..2 {
            agency.connect(ACME, &world.person(&format!("more {at}")).long_lived_token()).await;
        }
        is_no_link(&agency.store(ACME, &world.person("late").long_lived_token()).await.expect_err("used up"));
        let known = listed(&connector).await;
        let known = known.iter().find(|link| link.max_uses == 3).unwrap();
        assert_eq!((known.uses, known.state()), (3, State::Used));
        assert_eq!(connector.list().await.unwrap().tokens.len(), 4);
    }

    async fn links_are_listed_by_age_and_a_repeat_makes_no_second_one(world: World) {
        let connector = world.connector().await;
        let request = pb::CreateConnectLinkRequest { request_id: request_id(), ..for_acme() };
        let first = connector.link_with(request.clone()).await.unwrap();
        let again = connector.link_with(request.clone()).await.expect("a repeat is answered");
        assert_eq!((again.link, again.url.as_str()), (first.link.clone(), ""));
        let other = pb::CreateConnectLinkRequest { max_uses: 2, ..request };
        connector.link_with(other).await.unwrap_err().is(Code::InvalidArgument, Reason::RequestIdReused);
        let mut made = vec![first.link.unwrap().link_id];
        for workspace in [ACME, "globex", ACME, ACME] {
            world.advance(Duration::from_secs(1)).await;
            made.push(connector.link(workspace).await.link.unwrap().link_id);
        }
        made.reverse();
        let mut seen = Vec::new();
        let mut page = pb::ListConnectLinksRequest { page_size: 2, ..Default::default() };
        loop {
            let answer = connector.list_connect_links(page.clone()).await.unwrap();
            seen.extend(answer.links.into_iter().map(|link| link.link_id));
            page.page_token = answer.next_page_token;
            if page.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, made);
        let only = pb::ListConnectLinksRequest { workspace_id: Some("globex".into()), ..Default::default() };
        let only = connector.list_connect_links(only).await.unwrap().links;
        assert!(only.len() == 1 && only[0].workspace_id == "globex", "{only:?}");
        // What has ended long ago is forgotten.
        world.advance(Duration::from_secs(38 * 86_400)).await;
        world.admin().run("housekeeping").await;
        assert!(listed(&connector).await.is_empty());
    }

    async fn the_command_makes_lists_and_revokes_links(world: World) {
        let command = |words: &[&str]| {
            let (endpoint, key) = (world.endpoint(), world.bootstrap_key());
            let words: Vec<&str> = words.iter().copied().chain(["--endpoint", endpoint.as_str()]).collect();
            world.launch().instead(words).env("TOKEN_VAULT_API_KEY", &key).run()
        };
        let made = command(&["links", "create", "--workspace", ACME, "--expires-in", "1d", "--max-uses", "3"]);
        let url = made.stdout.trim().to_owned();
        world.know("connect link", secret_part(url.rsplit('/').next().unwrap()));
        assert!(made.code == Some(0) && url.starts_with("https://connect.example/l/tvl_"), "{}", made.stderr);
        let portal = world.caller(Role::Portal, &[]).await.for_link(&url);
        let link = open(&portal).await.expect("it opens").link.unwrap();
        assert_eq!((link.max_uses, link.expires_at.unwrap().seconds - link.created_at.unwrap().seconds), (3, 86_400));
        assert!(made.stderr.contains(&link.link_id) && made.stderr.contains("shown only now"), "{}", made.stderr);
        let listed = command(&["links", "list", "--json"]).stdout;
        let listed: serde_json::Value = serde_json::from_str(listed.trim()).expect("a line is an object");
        assert_eq!((&listed["state"], &listed["link_id"]), (&"OPEN".into(), &link.link_id.as_str().into()), "{listed}");
        let revoked = command(&["links", "revoke", &link.link_id]);
        assert_eq!((revoked.code, revoked.stdout.trim()), (Some(0), format!("Link {} has ended.", link.link_id).as_str()));
        is_no_link(&open(&portal).await.expect_err("it has ended"));
        let table = command(&["links", "list"]).stdout;
        assert!(table.contains("LINK ID") && table.contains("revoked") && table.contains("0 of 3"), "{table}");
        let wrong = command(&["links", "create", "--workspace", ACME, "--return-url", "https://evil.example/"]);
        assert!(wrong.code == Some(1) && wrong.stderr.contains("return"), "{wrong:?}");
    }
}

type Change = fn(&mut pb::CreateConnectLinkRequest);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_field_of_a_link_is_named_with_its_rule() {
    let world = World::builder(Backend::Sqlite).start().await;
    let connector = world.connector().await;
    let table: [(&str, Change); 12] = [
        ("workspace_id", |request| request.workspace_id.clear()),
        ("provider", |request| request.provider = "A".into()),
        ("connection_id", |request| request.connection_id = Some("17".into())),
        ("expires_in", |request| request.expires_in = seconds(59)),
        ("expires_in", |request| request.expires_in = seconds(30 * 86_400 + 1)),
        ("expires_in", |request| request.expires_in = seconds(-1)),
        ("return_url", |request| request.return_url = "https://evil.example/settings".into()),
        ("return_url", |request| request.return_url = "javascript:alert(1)".into()),
        ("return_url", |request| request.return_url = "https://app.example/settings#x".into()),
        ("max_uses", |request| request.max_uses = -1),
        ("max_uses", |request| request.max_uses = 1_001),
        ("request_id", |request| request.request_id = "\u{7}".into()),
    ];
    for (field, change) in table {
        let mut request = for_acme();
        change(&mut request);
        let no = connector.link_with(request).await.expect_err(field);
        no.is(Code::InvalidArgument, Reason::FieldInvalid).field(field);
    }
    let unknown = pb::CreateConnectLinkRequest { provider: "myspace".into(), ..for_acme() };
    connector.link_with(unknown).await.unwrap_err().is(Code::InvalidArgument, Reason::ProviderUnknown);
    let nowhere = Some("0193e4a0-0000-7000-8000-000000000001".to_owned());
    let nowhere = pb::CreateConnectLinkRequest { connection_id: nowhere, ..for_acme() };
    connector.link_with(nowhere).await.unwrap_err().is(Code::NotFound, Reason::ConnectionNotFound);
    assert!(listed(&connector).await.is_empty());
    let bad = pb::RevokeConnectLinkRequest { link_id: "17".into(), ..Default::default() };
    connector
        .revoke_connect_link(bad)
        .await
        .unwrap_err()
        .is(Code::InvalidArgument, Reason::FieldInvalid)
        .field("link_id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_portal_there_are_no_links() {
    let world = World::builder(Backend::Sqlite).without("portal.url").start().await;
    let no = world.admin().link_with(for_acme()).await.expect_err("it would lead nowhere");
    no.is(Code::FailedPrecondition, Reason::PortalNotConfigured);
}
