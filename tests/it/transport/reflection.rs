//! grpcurl and buf call the vault by its reflection alone, without proto files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use token_vault_sandbox::Decision;
use token_vault_tests::prelude::*;
use token_vault_tests::request_id;
use token_vault_tests::tools::{buf, grpcurl};

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(60);

/// Every RPC, in the order in which the story calls them.
const RPCS: [&str; 33] = [
    "VaultAdmin/CreateApiKey",
    "VaultAdmin/ListApiKeys",
    "VaultAdmin/RotateApiKey",
    "VaultAdmin/RevokeApiKey",
    "VaultAdmin/GetVaultStatus",
    "TokenVault/WatchExpiryEvents",
    "TokenVault/StoreToken",
    "TokenVault/GetToken",
    "TokenVault/ListTokens",
    "TokenVault/ValidateToken",
    "TokenVault/FetchAccessToken",
    "TokenVault/BeginAuthorization",
    "TokenVault/CompleteAuthorization",
    "TokenVault/CreateConnectLink",
    "TokenVault/ListConnectLinks",
    "TokenVault/OpenConnectLink",
    "TokenVault/RevokeConnectLink",
    "TokenVault/ExchangeToken",
    "TokenVault/ListAdAccounts",
    "TokenVault/ReportTokenError",
    "TokenVault/ReportProviderCallback",
    "TokenVault/RevokeToken",
    "TokenVault/ListExpiryEvents",
    "TokenVault/AcknowledgeEvents",
    "VaultAdmin/ListSubscriptions",
    "VaultAdmin/DeleteSubscription",
    "VaultAdmin/ListJobs",
    "VaultAdmin/RunJob",
    "VaultAdmin/ListJobRuns",
    "VaultAdmin/RotateKey",
    "VaultAdmin/GetWorkspace",
    "VaultAdmin/ListWorkspaces",
    "VaultAdmin/ShredWorkspace",
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A way to call an RPC by name with JSON.
struct Tool<'w> {
    world: &'w World,
    program: PathBuf,
    buf: bool,
}

/// A call that is still running, and its output so far. Dropping it ends the call.
struct Watching {
    child: Child,
    printed: PathBuf,
}

impl Watching {
    /// The messages so far. The last one may be incomplete.
    fn answers(&self) -> Vec<Value> {
        let printed = fs::read(&self.printed).expect("the file is there");
        serde_json::Deserializer::from_slice(&printed).into_iter().map_while(Result::ok).collect()
    }

    /// Waits until it has printed an event of this kind about this connection, and returns what a person would read.
    fn shows(&self, kind: &str, connection: &Value) -> Value {
        let began = Instant::now();
        loop {
            let answers = self.answers();
            let events = answers.iter().filter_map(|answer| answer["events"]["events"].as_array()).flatten();
            let mut wanted =
                events.filter(|event| event["kind"] == kind && &event["connectionId"] == connection);
            if let Some(event) = wanted.next() {
                return event.clone();
            }
            assert!(began.elapsed() < LIMIT, "{kind} was not shown: {answers:#?}");
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tool<'_> {
    fn call(&self, rpc: &str, body: &Value) -> Output {
        self.command(rpc, body, None).output().expect("the tool runs")
    }

    fn watch(&self, body: &Value) -> Watching {
        let printed = self.world.folder().join("watched.json");
        let mut command = self.command("tokenvault.v1.TokenVault/WatchExpiryEvents", body, None);
        command.stdout(fs::File::create(&printed).expect("the test's folder is writable"));
        let watching = Watching { child: command.spawn().expect("the tool runs"), printed };
        let began = Instant::now();
        while watching.answers().is_empty() {
            assert!(began.elapsed() < LIMIT, "the first heartbeat was not shown");
            sleep(Duration::from_millis(20));
        }
        let first = watching.answers().swap_remove(0);
        assert!(first["heartbeat"].is_object() && first["cursor"].is_string(), "{first}");
        watching
    }

    /// A call, for a connect link if there is one.
    fn command(&self, rpc: &str, body: &Value, link: Option<&str>) -> Command {
        let (key, body) = (format!("authorization: Bearer {}", self.world.bootstrap_key()), body.to_string());
        // The Connect protocol keeps names that begin with `connect-` for itself.
        let name = if self.buf { "x-connect-link" } else { "connect-link" };
        let link = link.map(|url| format!("{name}: {}", url.rsplit('/').next().unwrap_or_default()));
        let mut command = Command::new(&self.program);
        if self.buf {
            let url = format!("{}/{rpc}", self.world.endpoint());
            command.args([
                "curl",
                "--protocol",
                "grpc",
                "--http2-prior-knowledge",
                "--header",
                &key,
                "--data",
                &body,
            ]);
            command.args(link.iter().flat_map(|link| ["--header", link]));
            command.arg(&url);
        } else {
            let address = self.world.process(|process| process.grpc()).to_string();
            command.args(["-plaintext", "-H", &key, "-d", &body]);
            command.args(link.iter().flat_map(|link| ["-H", link]));
            command.args([&address, rpc]);
        }
        // This folder is far from any proto file or configuration.
        command.current_dir(self.world.folder());
        command
    }

    fn ask(&self, rpc: &str, body: Value) -> Value {
        self.ask_for(None, rpc, body)
    }

    fn ask_for(&self, link: Option<&str>, rpc: &str, body: Value) -> Value {
        let mut command = self.command(&format!("tokenvault.v1.{rpc}"), &body, link);
        let done = command.output().expect("the tool runs");
        assert!(done.status.success(), "{rpc} {body}: {}{}", text(&done.stdout), text(&done.stderr));
        self.world.know(
            "a key that a tool printed",
            text(&done.stdout).split('"').find(|word| word.starts_with("tva_")).unwrap_or_default(),
        );
        serde_json::from_slice(&done.stdout)
            .unwrap_or_else(|error| panic!("{rpc}: {error}: {}", text(&done.stdout)))
    }

    /// Calls every RPC for its real purpose.
    fn tell_a_story(&self) {
        // The watch runs beside the other calls.
        let mut called =
            vec!["TokenVault/WatchExpiryEvents".to_owned(), "TokenVault/OpenConnectLink".to_owned()];
        let mut ask = |rpc: &str, body: Value| {
            called.push(rpc.to_owned());
            self.ask(rpc, body)
        };
        let made = ask(
            "VaultAdmin/CreateApiKey",
            json!({"principal": "tool", "role": "ROLE_VIEWER", "all_workspaces": true}),
        );
        let key_id = made["apiKey"]["keyId"].as_str().expect("an id").to_owned();
        assert!(made["key"].as_str().is_some_and(|key| key.contains(&key_id)), "a key is shown once");
        let keys = ask("VaultAdmin/ListApiKeys", json!({"principal": "tool"}));
        assert_eq!(keys["apiKeys"][0]["keyId"], key_id.as_str(), "{keys}");
        assert!(keys["apiKeys"][0]["revokedAt"].is_null(), "{keys}");
        let turned = ask("VaultAdmin/RotateApiKey", json!({"key_id": key_id, "overlap": "60s"}));
        assert_eq!(turned["replaced"]["replacedBy"], turned["apiKey"]["keyId"], "{turned}");
        let ended = ask("VaultAdmin/RevokeApiKey", json!({"key_id": key_id}));
        assert!(ended["apiKey"]["revokedAt"].is_string(), "{ended}");
        let status = ask("VaultAdmin/GetVaultStatus", json!({}));
        assert_eq!(
            (&status["backend"], &status["providers"][0]["provider"]),
            (&json!("sqlite"), &json!("meta")),
            "{status}"
        );

        let watching = self.watch(&json!({"from": "FROM_NOW", "heartbeat_interval": "1s"}));
        let ana = self.world.person("ana");
        let short = ana.short_lived_token();
        let stored = ask(
            "TokenVault/StoreToken",
            json!({"workspace_id": ACME, "provider": "meta", "access_token": short}),
        );
        assert_eq!(stored["result"]["outcome"], "OUTCOME_CREATED", "{stored}");
        let id = stored["result"]["token"]["connectionId"].clone();
        let born = watching.shows("KIND_CONNECTED", &id);
        assert_eq!(
            (&born["severity"], &born["subject"]["name"], &born["usable"]),
            (&json!("SEVERITY_INFO"), &json!(ana.name()), &json!(true)),
            "{born}"
        );
        let got = ask("TokenVault/GetToken", json!({"connection_id": id}));
        assert_eq!(
            (&got["token"]["status"], &got["token"]["subject"]["id"]),
            (&json!("STATUS_ACTIVE"), &json!(ana.id())),
            "{got}"
        );
        let listed =
            ask("TokenVault/ListTokens", json!({"workspace_ids": [ACME], "statuses": ["STATUS_ACTIVE"]}));
        assert_eq!(listed["tokens"][0]["connectionId"], id, "{listed}");
        let accounts = ask("TokenVault/ListAdAccounts", json!({"connection_id": id, "reachable": true}));
        assert_eq!(accounts["adAccounts"][0]["state"], "STATE_ACTIVE", "{accounts}");
        let checked = ask("TokenVault/ValidateToken", json!({"connection_id": id}));
        assert_eq!(checked["overall"], "RESULT_PASS", "{checked}");
        let fetched = ask("TokenVault/FetchAccessToken", json!({"connection_id": id, "min_ttl": "3600s"}));
        let secret = fetched["bearer"]["accessToken"].as_str().expect("a secret");
        self.world.know("a fetched token", secret);
        assert!(secret.starts_with("EAA") && secret != short);
        assert_eq!(fetched["sendWith"][0]["name"], "appsecret_proof");
        let consent = json!({"workspace_id": ACME, "provider": "meta", "redirect_uri": "https://app.example/", "connection_id": id, "session_binding": "5f3a"});
        let begun = ask("TokenVault/BeginAuthorization", consent);
        self.world.know("state", begun["state"].as_str().expect("a state"));
        let url = begun["authorizationUrl"].as_str().expect("an address");
        let callback =
            self.world.sandbox.consent(url, &ana.name(), Decision::Allow).expect("the dialog is shown");
        let callback = json!({"workspace_id": ACME, "callback_query": callback, "session_binding": "5f3a"});
        let completed = ask("TokenVault/CompleteAuthorization", callback);
        assert_eq!(completed["result"]["outcome"], "OUTCOME_REPLACED", "{completed}");
        let made = ask("TokenVault/CreateConnectLink", json!({"workspace_id": ACME, "connection_id": id}));
        let url = made["url"].as_str().expect("a link");
        self.world.know("connect link", token_vault_tests::secret_part(url.rsplit('/').next().unwrap()));
        let links = ask("TokenVault/ListConnectLinks", json!({}));
        assert_eq!(links["links"][0]["linkId"], made["link"]["linkId"], "{links}");
        let opened = self.ask_for(Some(url), "TokenVault/OpenConnectLink", json!({}));
        assert_eq!(opened["connections"][0]["token"]["connectionId"], id, "{opened}");
        let revoke = json!({"link_id": made["link"]["linkId"]});
        assert_eq!(ask("TokenVault/RevokeConnectLink", revoke)["link"]["state"], "STATE_REVOKED");
        let exchanged = ask("TokenVault/ExchangeToken", json!({"connection_id": id}));
        assert!(exchanged["outcome"].is_string(), "{exchanged}");
        ana.changes_password();
        let report = json!({"connection_id": id, "token_version": exchanged["token"]["tokenVersion"], "http_status": 400, "code": "190", "subcode": "460"});
        let verdict = ask("TokenVault/ReportTokenError", report);
        assert_eq!(
            (&verdict["verdict"], &verdict["advice"]),
            (&json!("VERDICT_INVALIDATED"), &json!("ADVICE_PAUSE")),
            "{verdict}"
        );
        let died = watching.shows("KIND_INVALIDATED", &id);
        assert_eq!(
            (&died["severity"], &died["status"], &died["reason"], &died["remedy"]["fixer"]),
            (
                &json!("SEVERITY_CRITICAL"),
                &json!("STATUS_INVALID"),
                &json!("REFUSAL_REASON_PASSWORD_CHANGED"),
                &json!("FIXER_WORKSPACE_OWNER")
            ),
            "{died}"
        );
        assert!(died["died"]["firstKnownBad"].is_string() && died["usable"].is_null(), "{died}");
        let body = format!("signed_request={}", self.world.signed_request(&ana));
        let callback = json!({"provider": "meta", "kind": "KIND_DEAUTHORIZE", "method": "POST", "body": STANDARD.encode(body)});
        let answer = ask("TokenVault/ReportProviderCallback", callback);
        assert_eq!((&answer["connections"], &answer["httpStatus"]), (&json!(1), &json!(200)), "{answer}");
        let revoked = ask("TokenVault/RevokeToken", json!({"connection_id": id}));
        assert_eq!(revoked["token"]["status"], "STATUS_REVOKED", "{revoked}");
        let revoked = watching.shows("KIND_REVOKED", &id);
        let history = ask(
            "TokenVault/ListExpiryEvents",
            json!({"filter": {"connection_ids": [id], "min_severity": "SEVERITY_CRITICAL"}, "oldest_first": true}),
        );
        assert_eq!(history["events"], json!([died, revoked]), "a recovery passes with what it closes");
        let kept =
            ask("TokenVault/AcknowledgeEvents", json!({"subscription": "tool", "cursor": died["cursor"]}));
        assert_eq!(kept["subscription"]["cursor"], died["cursor"], "{kept}");
        let listed = ask("VaultAdmin/ListSubscriptions", json!({}));
        assert_eq!(listed["subscriptions"][0]["name"], "tool", "{listed}");
        let principal = &kept["subscription"]["principal"];
        let gone = ask("VaultAdmin/DeleteSubscription", json!({"principal": principal, "name": "tool"}));
        assert_eq!(gone["subscription"]["name"], "tool", "{gone}");
        let jobs = ask("VaultAdmin/ListJobs", json!({}));
        let names: Vec<_> = jobs["jobs"].as_array().expect("jobs").iter().map(|job| &job["name"]).collect();
        assert!(names.contains(&&json!("meta-token-expiry")), "{jobs}");
        let run = ask("VaultAdmin/RunJob", json!({"job": "meta-token-expiry"}));
        let runs = ask("VaultAdmin/ListJobRuns", json!({"job": "meta-token-expiry"}));
        let ids: Vec<_> = runs["runs"].as_array().expect("runs").iter().map(|run| &run["runId"]).collect();
        assert!(ids.contains(&&run["run"]["runId"]), "{run} is not in {runs}");
        let turned = ask("VaultAdmin/RotateKey", json!({"workspace_id": ACME}));
        assert_eq!(turned["run"]["job"], "data-key-rotation", "{turned}");
        let known = ask("VaultAdmin/GetWorkspace", json!({"workspace_id": ACME}));
        assert_eq!(known["workspace"]["dataKeyVersion"], 2, "{known}");
        let listed = ask("VaultAdmin/ListWorkspaces", json!({"page_size": 10}));
        assert_eq!(listed["workspaces"][0]["workspaceId"], ACME, "{listed}");
        let shredded =
            ask("VaultAdmin/ShredWorkspace", json!({"workspace_id": ACME, "confirm_workspace_id": ACME}));
        assert_eq!(shredded["workspace"]["state"], "STATE_SHREDDED", "{shredded}");
        called.sort();
        let mut all = RPCS.map(str::to_owned);
        all.sort();
        assert_eq!(called, all, "the story calls every RPC once");
    }
}

fn run(program: &Path, world: &World, words: &[&str]) -> String {
    let done = Command::new(program).current_dir(world.folder()).args(words).output().expect("the tool runs");
    assert!(done.status.success(), "{words:?}: {}", text(&done.stderr));
    text(&done.stdout)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcurl_lists_describes_and_calls_everything_without_proto_files() {
    let world = World::start(Backend::Sqlite).await;
    let tool = Tool { world: &world, program: grpcurl(), buf: false };
    let address = world.process(|process| process.grpc()).to_string();
    let plain =
        |words: &[&str]| run(&tool.program, &world, &[&["-plaintext", address.as_str()], words].concat());
    let services = plain(&["list"]);
    for service in ["tokenvault.v1.TokenVault", "tokenvault.v1.VaultAdmin", "grpc.health.v1.Health"] {
        assert!(services.lines().any(|line| line == service), "{service} is missing: {services}");
    }
    let listed =
        [plain(&["list", "tokenvault.v1.TokenVault"]), plain(&["list", "tokenvault.v1.VaultAdmin"])].concat();
    let mut listed: Vec<_> =
        listed.lines().map(|line| line.trim_start_matches("tokenvault.v1.").replacen('.', "/", 1)).collect();
    let mut all: Vec<_> = RPCS.iter().map(|&rpc| rpc.to_owned()).collect();
    listed.sort();
    all.sort();
    assert_eq!(listed, all, "an RPC is missing here or there");
    let service = plain(&["describe", "tokenvault.v1.TokenVault"]);
    assert!(service.contains("rpc StoreToken"), "{service}");
    let message = plain(&["describe", "tokenvault.v1.StoreTokenRequest"]);
    assert!(message.contains("string access_token = 4") && message.contains("oneof credential"), "{message}");
    let health = plain(&["grpc.health.v1.Health/Check"]);
    assert!(health.contains("\"SERVING\""), "{health}");
    tool.tell_a_story();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcurl_shows_the_details_of_an_error_in_words() {
    let world = World::start(Backend::Sqlite).await;
    let tool = Tool { world: &world, program: grpcurl(), buf: false };
    let id = request_id();
    let missing = tool.call("tokenvault.v1.TokenVault/GetToken", &json!({"connection_id": id}));
    let printed = text(&missing.stderr);
    assert!(!missing.status.success());
    for word in [
        "NotFound",
        "google.rpc.ErrorInfo",
        "CONNECTION_NOT_FOUND",
        "tokenvault.v1",
        "\"connection_id\"",
        &id,
    ] {
        assert!(printed.contains(word), "{word} is missing: {printed}");
    }
    let many = tool
        .call("tokenvault.v1.TokenVault/StoreToken", &json!({"workspace_id": "no spaces", "provider": ""}));
    let printed = text(&many.stderr);
    for word in [
        "InvalidArgument",
        "FIELD_INVALID",
        "google.rpc.BadRequest",
        "fieldViolations",
        "\"workspace_id\"",
        "\"provider\"",
    ] {
        assert!(printed.contains(word), "{word} is missing: {printed}");
    }
    world.sandbox.fault(Fault::on(Endpoint::Any).always().with(FaultKind::error(503, 2)));
    let away = tool.call("tokenvault.v1.TokenVault/StoreToken", &json!({"workspace_id": ACME, "provider": "meta", "access_token": world.person("ana").short_lived_token()}));
    let printed = text(&away.stderr);
    for word in ["Unavailable", "PROVIDER_UNAVAILABLE", "google.rpc.RetryInfo", "retryDelay"] {
        assert!(printed.contains(word), "{word} is missing: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buf_curl_lists_and_calls_everything_without_proto_files() {
    let world = World::start(Backend::Sqlite).await;
    let tool = Tool { world: &world, program: buf(), buf: true };
    let endpoint = world.endpoint();
    let plain = |words: &[&str]| {
        let first = ["curl", "--protocol", "grpc", "--http2-prior-knowledge"];
        run(&tool.program, &world, &[&first[..], words].concat())
    };
    let services = plain(&["--list-services", &endpoint]);
    assert!(
        services.contains("tokenvault.v1.TokenVault") && services.contains("tokenvault.v1.VaultAdmin"),
        "{services}"
    );
    let methods = plain(&["--list-methods", &endpoint]);
    for rpc in RPCS {
        assert!(methods.contains(&format!("tokenvault.v1.{rpc}")), "{rpc} is missing: {methods}");
    }
    let health = plain(&["--data", "{}", &format!("{endpoint}/grpc.health.v1.Health/Check")]);
    assert!(health.contains("\"SERVING\""), "{health}");
    tool.tell_a_story();
    let refused = tool.call("tokenvault.v1.TokenVault/GetToken", &json!({"connection_id": request_id()}));
    let printed = text(&refused.stderr);
    assert!(
        !refused.status.success()
            && printed.contains("\"not_found\"")
            && printed.contains("google.rpc.ErrorInfo"),
        "{printed}"
    );
}
