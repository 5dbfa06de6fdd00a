//! Meta's callbacks at the portal's addresses.

use std::time::Duration;

use serde_json::Value;
use token_vault_client::{ApiKey, Vault};
use token_vault_portal::{PortalConfig, serve};
use token_vault_sandbox::{CallbackKind, Delivered, Sign};
use token_vault_tests::eventually_async;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::keys::erasure::{hunter_of, named};

const LIMIT: Duration = Duration::from_secs(60);
const TOKEN: &str = "chosen-by-the-operator";

/// A portal with a key of role portal, until it is dropped.
struct Portal {
    url: String,
    _stop: DropGuard,
}

impl Portal {
    async fn start(world: &World) -> Self {
        let key = world.caller(Role::Portal, &[]).await;
        let vault = Vault::builder(world.endpoint(), ApiKey::new(key.key())).connect_lazy();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let config = PortalConfig::new(&url, vault.expect("a good address"));
        let stop = CancellationToken::new();
        tokio::spawn(serve(config, listener, stop.clone()));
        Self { url, _stop: stop.drop_guard() }
    }

    async fn gets(&self, world: &World, callback: Callback, path: &str) -> Answer {
        let callback = callback.to(&format!("{}/callbacks/meta/{path}", self.url));
        let sent: Vec<Delivered> = world.sandbox.call_back(callback).await.expect("the sandbox sends it");
        sent.into_iter().next().and_then(|sent| sent.answer).expect("the portal answers")
    }

    /// The page at this path, as a browser gets it.
    async fn page(&self, world: &World, path: &str) -> Answer {
        self.gets(world, Callback::new(CallbackKind::Probe), path).await
    }
}

on_both_databases! {
    async fn the_portal_receives_what_meta_sends(world: World) {
        let file = world.secret_file("webhook.token", TOKEN);
        world.stop();
        let key = "TOKEN_VAULT__PROVIDERS__META__WEBHOOK_VERIFY_TOKEN_FILE";
        world.try_start_as(&world.launch().env(key, file.display().to_string())).expect("the vault starts");
        let (admin, portal) = (world.admin(), Portal::start(&world).await);
        let (ana, ben) = (world.person("Persephone Erasable"), world.person("ben"));
        let hers = admin.connect(ACME, &ana.long_lived_token()).await;
        let his = admin.connect(ACME, &ben.long_lived_token()).await;
        let feed = admin.watch_all().await;

        let check = Callback {
            verify_token: Some(TOKEN.into()),
            challenge: Some("1158201444".into()),
            ..Callback::new(CallbackKind::Subscription)
        };
        let answer = portal.gets(&world, check.clone(), "webhook").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "1158201444"));
        assert_eq!(answer.content_type.as_deref(), Some("text/plain; charset=utf-8"));
        let wrong = Callback { verify_token: Some("another".into()), ..check };
        assert_eq!(portal.gets(&world, wrong, "webhook").await.status, 403);

        ben.removes_app();
        let webhook = Callback::new(CallbackKind::Webhook).about("ben");
        assert_eq!(portal.gets(&world, webhook.clone(), "webhook").await.status, 200);
        feed.first(&his, Kind::Invalidated).await;
        for (callback, path) in [
            (webhook, "webhook"),
            (Callback::new(CallbackKind::Deauthorize).about("ben"), "deauthorize"),
            (Callback::new(CallbackKind::DataDeletion).about("ben"), "data-deletion"),
        ] {
            let forged = Callback { sign: Sign::Wrong, ..callback };
            let answer = portal.gets(&world, forged, path).await;
            assert_eq!((answer.status, answer.body.as_str()), (403, "Forbidden\n"), "{path}");
        }
        let late = Callback { age_seconds: 8 * 86_400, ..Callback::new(CallbackKind::Deauthorize).about("ben") };
        assert_eq!(portal.gets(&world, late, "deauthorize").await.status, 400);
        assert_eq!(portal.page(&world, "deauthorize").await.status, 200, "Meta looks whether there is somebody");

        let asked = Callback::new(CallbackKind::DataDeletion).about(&ana.name());
        let answer = portal.gets(&world, asked, "data-deletion").await;
        assert_eq!((answer.status, answer.content_type.as_deref()), (200, Some("application/json")), "{answer:?}");
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        let code = body["confirmation_code"].as_str().expect("a code");
        let url = body["url"].as_str().expect("a URL");
        let path = url.strip_prefix("https://connect.example/callbacks/meta/").expect("a page of the portal");
        assert_eq!(path, format!("data-deletion/{code}"));
        let done = eventually_async("it is done", LIMIT, async || {
            let page = portal.page(&world, path).await;
            assert_eq!((page.status, page.content_type.as_deref()), (200, Some("text/html; charset=utf-8")));
            if page.body.contains("Your data is deleted") {
                return Some(page);
            }
            assert!(page.body.contains("Your request was received"), "{}", page.body);
            None
        })
        .await;
        assert!(hunter_of(&ana).search("the page", done.body.as_bytes()).is_empty());
        assert!(!done.body.contains(ACME) && !done.body.contains(&hers), "it shows the state and nothing else");
        assert_eq!(named(&admin, &hunter_of(&ana), &[&hers]).await, [""; 0]);
        let unknown = portal.page(&world, &format!("data-deletion/{}", "a".repeat(32))).await;
        assert!(unknown.status == 404 && unknown.body.contains("There is no such request"), "{unknown:?}");
        let elsewhere = portal.url.clone();
        let nobodys = Callback::new(CallbackKind::Probe).to(&format!("{elsewhere}/callbacks/tiktok/webhook"));
        let sent = world.sandbox.call_back(nobodys).await.expect("the sandbox sends it");
        assert_eq!(sent[0].answer.as_ref().map(|answer| answer.status), Some(404));
    }
}
