//! Which calls are recorded, and what their records say.

use std::collections::BTreeMap;
use std::time::Instant;

use prost::Message;
use prost_types::FileDescriptorSet;
use token_vault_tests::{eventually_async, request_id};

use super::*;
use crate::access::rpcs::authorization;
use crate::provider::callbacks::sent_by_provider;
use token_vault_sandbox::{Callback, CallbackKind};

/// The record that a call of each RPC leaves in the log: its kind and code, or none. An RPC that is missing here fails
/// the test.
const EXPECTED: [(&str, Option<(&str, &str)>); 33] = [
    ("FetchAccessToken", Some(("handed_out", "OK"))),
    ("GetToken", None),
    ("ListTokens", None),
    ("ListAdAccounts", None),
    ("ReportTokenError", Some(("unchanged", "OK"))),
    ("ValidateToken", Some(("changed", "OK"))),
    ("StoreToken", Some(("changed", "OK"))),
    ("BeginAuthorization", Some(("changed", "OK"))),
    ("CompleteAuthorization", Some(("changed", "OK"))),
    ("CreateConnectLink", Some(("changed", "OK"))),
    ("ListConnectLinks", None),
    ("RevokeConnectLink", Some(("changed", "OK"))),
    ("OpenConnectLink", Some(("unchanged", "OK"))),
    ("ExchangeToken", Some(("changed", "OK"))),
    ("RevokeToken", Some(("changed", "OK"))),
    ("ReportProviderCallback", Some(("changed", "OK"))),
    ("AcknowledgeEvents", Some(("changed", "OK"))),
    ("WatchExpiryEvents", None),
    ("ListExpiryEvents", None),
    ("GetVaultStatus", None),
    ("ListJobs", None),
    ("ListJobRuns", None),
    ("RunJob", Some(("changed", "OK"))),
    ("ListSubscriptions", None),
    ("DeleteSubscription", Some(("changed", "OK"))),
    ("CreateApiKey", Some(("changed", "OK"))),
    ("ListApiKeys", None),
    ("RotateApiKey", Some(("changed", "OK"))),
    ("RevokeApiKey", Some(("changed", "OK"))),
    ("RotateKey", Some(("changed", "OK"))),
    ("GetWorkspace", None),
    ("ListWorkspaces", None),
    ("ShredWorkspace", Some(("changed", "OK"))),
];

fn served() -> Vec<String> {
    let set: FileDescriptorSet = FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).expect("descriptors");
    let services = set.file.iter().flat_map(|file| &file.service);
    services.flat_map(|service| &service.method).map(|method| method.name().to_owned()).collect()
}

async fn begin(admin: &Caller) -> pb::BeginAuthorizationResponse {
    admin.begin_authorization(authorization(None)).await.expect("an authorization begins")
}

/// Calls one RPC once, and says which connection it was about.
async fn call(world: &World, rpc: &str, admin: &Caller, connection: &str, key: &str) {
    let request_id = request_id();
    match rpc {
        "FetchAccessToken" => drop(admin.fetch(connection).await.expect(rpc)),
        "GetToken" => drop(admin.get(connection).await.expect(rpc)),
        "ListTokens" => drop(admin.list().await.expect(rpc)),
        "ListAdAccounts" => {
            let request =
                pb::ListAdAccountsRequest { connection_id: connection.into(), ..Default::default() };
            drop(admin.list_ad_accounts(request).await.expect(rpc));
        }
        "ReportTokenError" => drop(admin.report(connection, 1, 500, "{}").await.expect(rpc)),
        "ValidateToken" => drop(admin.validate(connection).await.expect(rpc)),
        "StoreToken" => drop(admin.store(ACME, &world.person("zoe").long_lived_token()).await.expect(rpc)),
        "BeginAuthorization" => drop(begin(admin).await),
        "CompleteAuthorization" => {
            let url = begin(admin).await.authorization_url;
            let callback = world.sandbox.consent(&url, "yan", Decision::Allow).expect("the dialog is shown");
            let request = pb::CompleteAuthorizationRequest {
                workspace_id: ACME.into(),
                callback_query: callback,
                session_binding: "a session".into(),
            };
            drop(admin.complete_authorization(request).await.expect(rpc));
        }
        "CreateConnectLink" => drop(admin.link(ACME).await),
        "ListConnectLinks" => drop(admin.list_connect_links(Default::default()).await.expect(rpc)),
        "RevokeConnectLink" => {
            let links = admin.list_connect_links(Default::default()).await.expect(rpc).links;
            let link_id = links[0].link_id.clone();
            drop(
                admin
                    .revoke_connect_link(pb::RevokeConnectLinkRequest { link_id, request_id })
                    .await
                    .expect(rpc),
            );
        }
        "OpenConnectLink" => {
            let link = admin.link(ACME).await.url;
            drop(admin.for_link(&link).open_connect_link(pb::OpenConnectLinkRequest {}).await.expect(rpc));
        }
        "ExchangeToken" => drop(admin.exchange(connection).await.expect(rpc)),
        "RevokeToken" => drop(admin.revoke(connection).await.expect(rpc)),
        "ReportProviderCallback" => {
            let callback = Callback::new(CallbackKind::Deauthorize).about("ana");
            let sent = sent_by_provider(world, callback).await;
            drop(admin.report_provider_callback(sent).await.expect(rpc));
        }
        "AcknowledgeEvents" => {
            let cursor = admin.get_vault_status(pb::GetVaultStatusRequest {}).await.expect("a status").cursor;
            let request =
                pb::AcknowledgeEventsRequest { subscription: "pipeline".into(), cursor, allow_rewind: false };
            drop(admin.acknowledge_events(request).await.expect(rpc));
        }
        "WatchExpiryEvents" => drop(admin.watch_all().await),
        "ListExpiryEvents" => drop(admin.list_expiry_events(Default::default()).await.expect(rpc)),
        "GetVaultStatus" => drop(admin.get_vault_status(Default::default()).await.expect(rpc)),
        "ListJobs" => drop(admin.list_jobs(Default::default()).await.expect(rpc)),
        "ListJobRuns" => drop(admin.list_job_runs(Default::default()).await.expect(rpc)),
        "RunJob" => {
            drop(
                admin.run_job(pb::RunJobRequest { job: "housekeeping".into(), request_id }).await.expect(rpc),
            );
        }
        "ListSubscriptions" => drop(admin.list_subscriptions(Default::default()).await.expect(rpc)),
        "DeleteSubscription" => {
            let principal = "bootstrap-admin".into();
            let request = pb::DeleteSubscriptionRequest { principal, name: "pipeline".into(), request_id };
            drop(admin.delete_subscription(request).await.expect(rpc));
        }
        "CreateApiKey" => {
            let request = pb::CreateApiKeyRequest {
                principal: "new".into(),
                role: Role::Viewer.into(),
                workspaces: Some(pb::create_api_key_request::Workspaces::AllWorkspaces(true)),
                request_id,
                ..Default::default()
            };
            world.know("made key", &admin.create_api_key(request).await.expect(rpc).key);
        }
        "ListApiKeys" => drop(admin.list_api_keys(Default::default()).await.expect(rpc)),
        "RotateApiKey" => {
            let request = pb::RotateApiKeyRequest { key_id: key.into(), request_id, ..Default::default() };
            world.know("successor", &admin.rotate_api_key(request).await.expect(rpc).key);
        }
        "RevokeApiKey" => {
            let request = pb::RevokeApiKeyRequest { key_id: key.into(), request_id };
            drop(admin.revoke_api_key(request).await.expect(rpc));
        }
        "RotateKey" => {
            let key = Some(pb::rotate_key_request::Key::WorkspaceId(ACME.into()));
            drop(admin.rotate_key(pb::RotateKeyRequest { key, request_id }).await.expect(rpc));
        }
        "GetWorkspace" => {
            let request = pb::GetWorkspaceRequest { workspace_id: ACME.into() };
            drop(admin.get_workspace(request).await.expect(rpc));
        }
        "ListWorkspaces" => drop(admin.list_workspaces(Default::default()).await.expect(rpc)),
        "ShredWorkspace" => {
            let request = pb::ShredWorkspaceRequest {
                workspace_id: ACME.into(),
                confirm_workspace_id: ACME.into(),
                revoke_at_provider: false,
                request_id,
            };
            drop(admin.shred_workspace(request).await.expect(rpc));
        }
        other => panic!("the RPC {other} is new: say here how it is called, and above what it records"),
    }
}

on_both_databases! {
    async fn every_rpc_leaves_exactly_the_record_that_it_must(world: World) {
        let expected: BTreeMap<_, _> = EXPECTED.into_iter().collect();
        let rpcs = served();
        assert_eq!(rpcs.len(), expected.len(), "an RPC without an expectation: {rpcs:?}");
        let admin = world.admin();
        let viewer = world.viewer().await;
        let connection = admin.connect(ACME, &world.person("ana").long_lived_token()).await;
        // Calls that end something come last.
        let last = ["RevokeApiKey", "DeleteSubscription", "RevokeToken", "ShredWorkspace"];
        let mut order: Vec<_> = rpcs.iter().filter(|rpc| !last.contains(&rpc.as_str())).collect();
        for name in last {
            order.extend(rpcs.iter().filter(|rpc| *rpc == name));
        }
        for rpc in order {
            let expected = expected.get(rpc.as_str()).unwrap_or_else(|| panic!("{rpc} has no expectation"));
            all_is_relayed(&world).await;
            let before = records_in(&log_of(&world));
            call(&world, rpc, &admin, &connection, viewer.key_id()).await;
            all_is_relayed(&world).await;
            let after = records_in(&log_of(&world));
            let fresh: Vec<_> = after[before.len()..].to_vec();
            let mut by_calls: Vec<_> = fresh.iter().filter(|record| record["call_id"].is_string()).collect();
            if rpc == "CompleteAuthorization" {
                // What is completed was begun before.
                assert!(by_calls.remove(0)["rpc"].as_str().unwrap().ends_with("/BeginAuthorization"), "{fresh:#?}");
            }
            if rpc == "OpenConnectLink" {
                assert!(by_calls.remove(0)["rpc"].as_str().unwrap().ends_with("/CreateConnectLink"), "{fresh:#?}");
            }
            let Some((kind, code)) = expected else {
                assert!(by_calls.is_empty(), "{rpc} is a read: {by_calls:#?}");
                continue;
            };
            // A rotated key and its successor.
            let things = if rpc == "RotateApiKey" { 2 } else { 1 };
            assert_eq!(by_calls.len(), things, "{rpc}: {fresh:#?}");
            let record = by_calls[0];
            assert_eq!(record["kind"], *kind, "{record:#}");
            assert_eq!(record["code"], *code, "{record:#}");
            assert_eq!(record["principal"], "bootstrap-admin", "{record:#}");
            assert!(record["rpc"].as_str().unwrap().ends_with(&format!("/{rpc}")), "{record:#}");
            assert!(record["credential"].as_str().unwrap().starts_with("api_key:"), "{record:#}");
            assert!(record["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{record:#}");
            assert_eq!(record["call_id"].as_str().map(str::len), Some(32), "{record:#}");
            match rpc.as_str() {
                "FetchAccessToken" | "ReportTokenError" | "ValidateToken" | "ExchangeToken" | "RevokeToken" => {
                    assert_eq!(record["connection"], connection, "{record:#}");
                    assert_eq!(record["workspace"], ACME, "{record:#}");
                    assert!(record["version"].as_i64().is_some_and(|version| version >= 1), "{record:#}");
                }
                "StoreToken" | "CompleteAuthorization" => assert!(record["connection"].is_string(), "{record:#}"),
                "RevokeApiKey" => {
                    assert_eq!(record["object"], format!("api_key:{}", viewer.key_id()), "{record:#}");
                }
                "CreateApiKey" => {
                    let grants = serde_json::json!({"principal": "new", "role": "viewer"});
                    assert_eq!(record["grants"], grants, "{record:#}");
                }
                "RotateApiKey" => {
                    let new = &by_calls[1];
                    assert_eq!(record["object"], format!("api_key:{}", viewer.key_id()), "{record:#}");
                    let by = record["grants"]["replaced_by"].as_str().expect("it says by which");
                    assert_eq!(new["object"], format!("api_key:{by}"), "{new:#}");
                    assert!(record["grants"]["expires_at"].is_string(), "and until when it goes on: {record:#}");
                }
                "ShredWorkspace" => assert_eq!(record["object"], format!("workspace:{ACME}"), "{record:#}"),
                "RotateKey" => assert_eq!(record["object"], format!("data_key:{ACME}"), "{record:#}"),
                "OpenConnectLink" => assert!(record["link"].is_string(), "{record:#}"),
                "CreateConnectLink" | "RevokeConnectLink" => {
                    assert_eq!(record["workspace"], ACME, "{record:#}");
                    assert!(record["object"].as_str().unwrap().starts_with("connect_link:"), "{record:#}");
                }
                _ => assert!(record["object"].is_string(), "{record:#}"),
            }
            let repeatable = [
                "RunJob",
                "DeleteSubscription",
                "CreateApiKey",
                "RevokeApiKey",
                "RotateApiKey",
                "RotateKey",
                "ShredWorkspace",
                "RevokeConnectLink",
            ];
            assert_eq!(record["request_id"].is_string(), repeatable.contains(&rpc.as_str()), "{record:#}");
        }
        is_intact(&world);
    }

    async fn a_call_that_its_caller_abandons_is_recorded_by_how_it_ended(world: World) {
        let admin = world.admin();
        // One call whose exchange goes on to its end without its caller, and one of which nothing remains.
        let ana = world.person("ana");
        for (token, endpoint) in
            [(ana.short_lived_token(), Endpoint::OauthAccessToken), (ana.long_lived_token(), Endpoint::DebugToken)]
        {
            world.know("abandoned token", &token);
            world.sandbox.fault(Fault::on(endpoint).token(&token).always().with(FaultKind::Hang));
            let caller = admin.clone();
            let call = tokio::spawn(async move { drop(caller.store(ACME, &token).await) });
            eventually("it is on its way", Duration::from_secs(60), || world.sandbox.unanswered(endpoint) == 1);
            call.abort();
            let _ = call.await;
        }
        let inspections = || world.sandbox.unanswered(Endpoint::DebugToken);
        eventually("the inspection is cut off", Duration::from_secs(60), || inspections() == 0);
        world.sandbox.clear_faults();
        let records = eventually_async("both are recorded", Duration::from_secs(60), async || {
            let all = records_in(&log_of(&world));
            let records: Vec<_> = of_rpc(&all, "StoreToken").into_iter().cloned().collect();
            (records.len() == 2).then_some(records)
        }).await;
        let mut outcomes: Vec<_> = records.iter().map(|record| (&record["kind"], &record["code"])).collect();
        outcomes.sort_by_key(|(kind, _)| kind.to_string());
        assert_eq!(outcomes, [(&"changed".into(), &"OK".into()), (&"unchanged".into(), &"CANCELLED".into())]);
    }

    async fn who_is_turned_away_is_recorded_but_a_flood_of_them_is_not(world: World) {
        let viewer = world.viewer().await;
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        viewer.fetch(&id).await.unwrap_err().is(Code::PermissionDenied, Reason::RoleInsufficient);
        viewer.saying(None).list().await.unwrap_err().is(Code::Unauthenticated, Reason::ApiKeyInvalid);
        let records = records_in(&log_of(&world));
        let refused: Vec<_> = records.iter().filter(|record| record["kind"] == "refused").collect();
        assert_eq!(refused.len(), 2, "{refused:#?}");
        assert_eq!(refused[0]["principal"], "viewer-");
        assert_eq!((&refused[0]["code"], &refused[0]["reason"]), (&"PERMISSION_DENIED".into(), &"ROLE_INSUFFICIENT".into()));
        assert_eq!((&refused[1]["code"], &refused[1]["reason"]), (&"UNAUTHENTICATED".into(), &"API_KEY_INVALID".into()));
        assert!(refused[1]["principal"].is_null(), "nobody is known");
        let (nobody, began) = (viewer.saying(None), Instant::now());
        for _ in 0..12 {
            let flood = futures::future::join_all((0..50).map(|_| nobody.list()));
            flood.await.into_iter().for_each(|outcome| drop(outcome.unwrap_err()));
        }
        // The limit is a hundred at once, and ten per second.
        let most = 103 + 10 * usize::try_from(began.elapsed().as_secs() + 1).unwrap();
        let count = |world: &World| {
            records_in(&log_of(world)).iter().filter(|record| record["kind"] == "refused").count()
        };
        assert!((50..=most).contains(&count(&world)), "{} of at most {most} denials are recorded", count(&world));
        // The next record says how many were dropped.
        tokio::time::sleep(Duration::from_secs(2)).await;
        nobody.list().await.unwrap_err();
        let left_out: u64 = records_in(&log_of(&world)).iter().filter_map(|r| r["suppressed"].as_u64()).sum();
        assert_eq!(count(&world) as u64 + left_out, 603, "none is forgotten");
    }

    async fn a_flood_of_forged_callbacks_does_not_fill_the_log(world: World) {
        let (connector, began) = (world.connector().await, Instant::now());
        let forged = || pb::ReportProviderCallbackRequest {
            provider: "meta".into(),
            kind: pb::report_provider_callback_request::Kind::Webhook as i32,
            method: "POST".into(),
            body: b"{}".to_vec(),
            ..Default::default()
        };
        for _ in 0..8 {
            let flood = futures::future::join_all((0..50).map(|_| connector.report_provider_callback(forged())));
            flood.await.into_iter().for_each(|outcome| drop(outcome.unwrap_err()));
        }
        let most = 103 + 10 * usize::try_from(began.elapsed().as_secs() + 1).unwrap();
        let records = records_in(&log_of(&world));
        let forged = of_rpc(&records, "ReportProviderCallback");
        assert!((50..=most).contains(&forged.len()), "{} of at most {most} are recorded", forged.len());
        assert!(forged.iter().all(|record| record["reason"] == "CALLBACK_SIGNATURE_INVALID"), "{forged:#?}");
    }

    async fn what_the_vault_does_by_itself_is_recorded_as_its_own(world: World) {
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        world.sandbox.kill(&world.ingestion().await.secret(&id).await, Some(460));
        let run = pb::RunJobRequest { job: "meta-token-expiry".into(), request_id: request_id() };
        world.admin().run_job(run).await.unwrap();
        let found = || {
            records_in(&log_of(&world)).into_iter().find(|record| {
                record["principal"] == "system:meta-token-expiry" && record["connection"] == id.as_str()
            })
        };
        eventually("the death is recorded", Duration::from_secs(60), || found().is_some());
        let record = found().unwrap();
        assert_eq!((&record["kind"], &record["workspace"]), (&"changed".into(), &ACME.into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_before_a_kill_is_in_the_log_after_it() {
    for backend in Backend::ALL {
        let world = World::start(backend).await;
        let token = world.person("ana").long_lived_token();
        let id = world.admin().connect(ACME, &token).await;
        for round in 0..6 {
            let admin = world.admin();
            let rpc = if round % 2 == 0 {
                admin.fetch(&id).await.expect("it is handed out");
                "FetchAccessToken"
            } else {
                admin.store(&format!("place-{round}"), &token).await.expect("it is stored");
                "StoreToken"
            };
            world.kill();
            let waiting = world.database.texts("SELECT body FROM audit_outbox").await;
            let in_outbox = waiting.iter().filter(|body| body.contains(rpc)).count();
            let in_log = of_rpc(&records_in(&log_of(&world)), rpc).len();
            assert!(
                in_log + in_outbox > round / 2,
                "round {round}: {in_log} in the log, {in_outbox} in the outbox"
            );
            if rpc == "FetchAccessToken" {
                assert_eq!(in_log, round / 2 + 1, "a secret is in the log before it leaves");
            }
            world.start_again();
        }
        // Records from the outbox of the killed process are in the log too, once.
        eventually("the log has all", Duration::from_secs(60), || {
            of_rpc(&records_in(&log_of(&world)), "StoreToken").len() == 4
        });
        all_is_relayed(&world).await;
        is_intact(&world);
        let output = audit(&world, &["search", "--rpc", "StoreToken", "--json"]);
        assert_eq!(output.stdout.lines().count(), 4, "{output:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_found_by_what_they_say() {
    let world = World::start(Backend::Sqlite).await;
    let connector = world.connector().await;
    let (one, two) = (
        connector.connect(ACME, &world.person("ana").long_lived_token()).await,
        connector.connect("globex", &world.person("bob").long_lived_token()).await,
    );
    let ingestion = world.ingestion().await;
    ingestion.fetch(&one).await.unwrap();
    ingestion.fetch(&two).await.unwrap();
    world.viewer().await.fetch(&one).await.unwrap_err();
    all_is_relayed(&world).await;
    let count = |arguments: &[&str]| {
        let mut all = vec!["search", "--json"];
        all.extend(arguments);
        let output = audit(&world, &all);
        assert_eq!(output.code, Some(0), "{output:#?}");
        output.stdout.lines().count()
    };
    assert_eq!(count(&["--connection", &one]), 2);
    assert_eq!(count(&["--connection", &two, "--rpc", "FetchAccessToken"]), 1);
    assert_eq!(count(&["--principal", "ingestion-", "--outcome", "OK"]), 2);
    assert_eq!(count(&["--outcome", "ROLE_INSUFFICIENT"]), 1);
    assert_eq!(count(&["--workspace", "globex", "--since", "1h"]), 2);
    assert_eq!(count(&["--workspace", "globex", "--until", "2020-01-01T00:00:00Z"]), 0);
    let table = audit(&world, &["search", "--connection", &one]).stdout;
    assert!(table.starts_with("TIME ") && table.contains("FetchAccessToken"), "{table}");
    assert_eq!(audit(&world, &["search", "--since", "yesterday"]).code, Some(2));
}
