//! The story that an earlier version plays, so that it leaves something of every kind behind.

use std::time::Duration;

use token_vault_proto::v1::create_api_key_request::Workspaces;
use token_vault_proto::v1::exchange_token_request::SubjectOfExchange;
use token_vault_proto::v1::rotate_key_request::Key;
use token_vault_sandbox::ExchangeMood;
use token_vault_tests::{eventually_async, request_id};

use super::*;

/// The callers, and the requests that they sent with a `request_id`.
struct Story<'w> {
    world: &'w World,
    admin: Caller,
    connector: Caller,
    repeats: Vec<Repeat>,
}

impl Story<'_> {
    /// Sends a request that is repeated later.
    async fn ask(&mut self, sender: &str, rpc: &str, message: &impl Message) -> String {
        let (sender, rpc, message) = (sender.to_owned(), rpc.to_owned(), message.encode_to_vec());
        let request = Repeat { sender, rpc, message, answer: String::new() };
        let answer = request.send(self.by(&request.sender)).await;
        println!("{}: {answer}", request.rpc);
        self.repeats.push(request);
        answer
    }

    fn by(&self, sender: &str) -> &Caller {
        if sender == "admin" { &self.admin } else { &self.connector }
    }

    /// Stores a token, and returns the connection's id.
    async fn store(&mut self, workspace: &str, token: &str) -> String {
        let request =
            pb::StoreTokenRequest { request_id: request_id(), ..self.world.pasted(workspace, token) };
        let answer = self.ask("connector", "StoreToken", &request).await;
        answer.split(' ').nth(1).expect("a connection").to_owned()
    }

    async fn revoke(&mut self, connection: &str, revoke_at_provider: bool) -> String {
        let request = pb::RevokeTokenRequest {
            connection_id: connection.into(),
            revoke_at_provider,
            request_id: request_id(),
            ..Default::default()
        };
        self.ask("connector", "RevokeToken", &request).await
    }

    /// Stores tokens, some of which replace a worse one.
    async fn tokens_come_in(&mut self) -> Vec<String> {
        let (ana, bob) = (self.world.person("ana"), self.world.person("bob"));
        let token = ana.long_lived_token();
        let first = self.store(ACME, &token).await;
        assert_eq!(self.store(ACME, &token).await, first);
        assert_eq!(self.store(ACME, &ana.long_lived_token()).await, first);
        let second = self.store(ACME, &bob.long_lived_token()).await;
        bob.changes_password();
        self.connector.validate(&second).await.expect("it is examined");
        bob.heals();
        assert_eq!(self.store(ACME, &bob.long_lived_token()).await, second);
        let life = Duration::from_secs(30 * 86_400);
        let cleo = self.world.person("cleo").long_lived_token_with_life(life);
        let third = self.store(ACME, &cleo).await;
        for mood in [
            ExchangeMood::SameExpiry,
            ExchangeMood::Shortens,
            ExchangeMood::Extends,
            ExchangeMood::BecomesNever,
        ] {
            self.world.sandbox.set_mood(mood);
            let request = pb::ExchangeTokenRequest {
                subject_of_exchange: Some(SubjectOfExchange::ConnectionId(third.clone())),
                request_id: request_id(),
                ..Default::default()
            };
            self.ask("connector", "ExchangeToken", &request).await;
        }
        self.world.sandbox.set_mood(ExchangeMood::default());
        vec![first, second, third]
    }

    /// Lets tokens die, and revokes some.
    async fn tokens_end(&mut self) -> Vec<String> {
        let dora = self.world.person("dora");
        let dead = self.store(ACME, &dora.long_lived_token()).await;
        dora.changes_password();
        self.connector.validate(&dead).await.expect("it is examined");
        let eve = self.world.person("eve").long_lived_token();
        let here = self.store(ACME, &eve).await;
        self.revoke(&here, false).await;
        let finn = self.world.person("finn").long_lived_token();
        let there = self.store(ACME, &finn).await;
        self.revoke(&there, true).await;
        let gina = self.world.person("gina");
        let gone = self.store(ACME, &gina.long_lived_token()).await;
        gina.removes_app();
        self.revoke(&gone, true).await;
        let hal = self.world.person("hal");
        hal.page("Shop");
        let options = pb::IntakeOptions { connect_pages: true, ..Default::default() };
        let request = pb::StoreTokenRequest {
            options: Some(options),
            ..self.world.pasted(ACME, &hal.long_lived_token())
        };
        let page =
            self.connector.store_with(request).await.expect("a good token").page_connection_ids.remove(0);
        self.revoke(&page, true).await;
        vec![dead, here, there, gone, page]
    }

    /// Does what admins do.
    async fn keys_and_jobs(&mut self) -> String {
        let create = pb::CreateApiKeyRequest {
            principal: "web".into(),
            role: Role::Viewer.into(),
            workspaces: Some(Workspaces::AllWorkspaces(true)),
            expires_at: None,
            request_id: request_id(),
        };
        self.ask("admin", "CreateApiKey", &create).await;
        let made = self.admin.create_api_key(pb::CreateApiKeyRequest { request_id: request_id(), ..create });
        let key_id = made.await.expect("the admin makes keys").api_key.expect("a key").key_id;
        let rotate = pb::RotateApiKeyRequest {
            key_id: key_id.clone(),
            request_id: request_id(),
            ..Default::default()
        };
        self.ask("admin", "RotateApiKey", &rotate).await;
        self.ask("admin", "RevokeApiKey", &pb::RevokeApiKeyRequest { key_id, request_id: request_id() })
            .await;

        let cursor = self.admin.list_expiry_events(Default::default()).await.expect("events").cursor;
        for name in ["kept", "deleted"] {
            let request = pb::AcknowledgeEventsRequest {
                subscription: name.into(),
                cursor: cursor.clone(),
                allow_rewind: false,
            };
            self.admin.acknowledge_events(request).await.expect("a bookmark");
        }
        let principal = "bootstrap-admin".into();
        let request =
            pb::DeleteSubscriptionRequest { principal, name: "deleted".into(), request_id: request_id() };
        self.ask("admin", "DeleteSubscription", &request).await;

        let key = Some(Key::WorkspaceId(ACME.into()));
        let rotation =
            self.ask("admin", "RotateKey", &pb::RotateKeyRequest { key, request_id: request_id() }).await;
        self.ends(&rotation).await;
        let job = "rotation".into();
        let run = self.ask("admin", "RunJob", &pb::RunJobRequest { job, request_id: request_id() }).await;
        self.ends(&run).await;
        self.store("globex", &self.world.person("ivo").long_lived_token()).await;
        let request = pb::ShredWorkspaceRequest {
            workspace_id: "globex".into(),
            confirm_workspace_id: "globex".into(),
            revoke_at_provider: false,
            request_id: request_id(),
        };
        self.ask("admin", "ShredWorkspace", &request).await;
        run
    }

    /// Waits for the end of a run.
    async fn ends(&self, run: &str) {
        eventually_async("the end of the run", Duration::from_secs(60), async || {
            let runs = self.admin.list_job_runs(Default::default()).await.ok()?.runs;
            runs.into_iter().find(|other| other.run_id == run && other.ended_at.is_some()).map(drop)
        })
        .await;
    }
}

/// Plays the story, and keeps what the vault leaves behind.
pub(super) async fn write(backend: Backend) {
    let world = World::builder(backend).moving_time().start().await;
    let (admin, connector, ingestion) = (world.admin(), world.connector().await, world.ingestion().await);
    let mut story =
        Story { world: &world, admin: admin.clone(), connector: connector.clone(), repeats: Vec::new() };
    let alive = story.tokens_come_in().await;
    let ended = story.tokens_end().await;
    let run = story.keys_and_jobs().await;
    let mut repeats = story.repeats;
    for repeat in &mut repeats {
        repeat.answer = repeat.send(if repeat.sender == "admin" { &admin } else { &connector }).await;
        println!("again, {}: {}", repeat.rpc, repeat.answer);
    }
    let (mut secrets, mut without) = (BTreeMap::new(), BTreeMap::new());
    for connection in alive {
        let secret = ingestion.secret(&connection).await;
        secrets.insert(connection, secret);
    }
    for connection in ended {
        let why = why_not(&ingestion, &connection).await;
        without.insert(connection, why);
    }
    let feed = admin.watch_all().await;
    let events = events(&feed.caught_up().await);
    drop(feed);
    let keys = [("admin", &admin), ("connector", &connector), ("ingestion", &ingestion)];
    let keys = keys.map(|(name, caller)| (name.to_owned(), caller.key().to_owned()));
    // The story ends with a power cut, so what is not in the log yet stays in the outbox.
    admin.revoke_api_key(pb::RevokeApiKeyRequest { key_id: "none".into(), ..Default::default() }).await.ok();
    let last = pb::CreateApiKeyRequest {
        principal: "last".into(),
        role: Role::Viewer.into(),
        workspaces: Some(Workspaces::AllWorkspaces(true)),
        ..Default::default()
    };
    admin.create_api_key(last).await.expect("the admin makes keys");
    world.kill();
    let waiting = world.database.count("SELECT count(*) FROM audit_outbox").await;
    let anchors = world.database.count("SELECT count(*) FROM audit_chains").await;
    assert!(waiting > 0 && anchors > 0, "{waiting} records wait, {anchors} anchors: try again");

    let kept = fixture(backend);
    fs::create_dir_all(&kept).expect("the source is writable");
    let log = fs::read_to_string(world.data().join("audit.jsonl")).expect("the log is there");
    fs::write(kept.join("audit.jsonl"), &log).expect("the source is writable");
    let key = match backend {
        Backend::Sqlite => fs::read_to_string(world.data().join("master.key")).expect("the key is there"),
        Backend::Postgres => format!("{}\n", world.launch().value("TOKEN_VAULT_MASTER_KEY").expect("a key")),
    };
    fs::write(kept.join("master.key"), key).expect("the source is writable");
    fs::write(kept.join("database.sql"), world.database.dump()).expect("the source is writable");
    let facts = Facts {
        time: world.sandbox.clock().now(),
        keys: keys.into(),
        secrets,
        without,
        events,
        repeats,
        run,
        records_on_disk: log.lines().count(),
    };
    let text = serde_json::to_string_pretty(&facts.write()).expect("JSON");
    fs::write(kept.join("facts.json"), text + "\n").expect("the source is writable");
}
