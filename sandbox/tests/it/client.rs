//! A small client: one GET or POST, and the reply.

use std::sync::Once;

use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use serde_json::Value;
use token_vault_sandbox::{Sandbox, SandboxConfig, User};

pub(crate) const APP: &str = "123456789012345";
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const REDIRECT: &str = "https://vault.example/cb";

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status, code and subcode of an error reply.
    pub(crate) fn error(&self) -> (u16, i64, Option<i64>) {
        let error = &self.json["error"];
        (self.status, error["code"].as_i64().unwrap(), error["error_subcode"].as_i64())
    }

    pub(crate) fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap()
    }

    pub(crate) fn token(&self) -> String {
        self.json["access_token"].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn sandbox() -> Sandbox {
    sandbox_with(SandboxConfig::default()).await
}

/// A sandbox whose clock stands still, so that no test depends on where a second ends.
pub(crate) async fn sandbox_with(config: SandboxConfig) -> Sandbox {
    let sandbox = Sandbox::start(config).await.unwrap();
    sandbox.clock().freeze();
    sandbox
}

/// Ana, who granted the ads permissions.
pub(crate) fn ana(sandbox: &Sandbox) -> User {
    sandbox.user("ana").grants(["ads_read", "ads_management", "business_management"])
}

#[expect(clippy::disallowed_methods, reason = "the ban is about the vault's provider client")]
pub(crate) fn http() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| _ = rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().redirect(Policy::none()).no_proxy().pool_max_idle_per_host(0).build().unwrap()
}

pub(crate) async fn read(response: reqwest::Response) -> Reply {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Reply { status, headers, text, json }
}

pub(crate) async fn get(sandbox: &Sandbox, path: &str, query: &[(&str, &str)]) -> Reply {
    read(http().get(format!("{}{path}", sandbox.url())).query(query).send().await.unwrap()).await
}

pub(crate) async fn delete(sandbox: &Sandbox, path: &str, query: &[(&str, &str)]) -> Reply {
    read(http().delete(format!("{}{path}", sandbox.url())).query(query).send().await.unwrap()).await
}

pub(crate) async fn post(sandbox: &Sandbox, path: &str, form: &[(&str, &str)]) -> Reply {
    read(http().post(format!("{}{path}", sandbox.url())).form(form).send().await.unwrap()).await
}

pub(crate) async fn me(sandbox: &Sandbox, token: &str) -> Reply {
    get(sandbox, "/v26.0/me", &[("access_token", token)]).await
}

pub(crate) fn app_token() -> String {
    format!("{APP}|{SECRET}")
}

/// `data` of `debug_token` for the app token.
pub(crate) async fn debug(sandbox: &Sandbox, token: &str) -> Value {
    let reply = debug_reply(sandbox, token, &app_token()).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json["data"].clone()
}

pub(crate) async fn debug_reply(sandbox: &Sandbox, token: &str, with: &str) -> Reply {
    get(sandbox, "/v26.0/debug_token", &[("input_token", token), ("access_token", with)]).await
}

pub(crate) async fn exchange_with(sandbox: &Sandbox, app: &str, secret: &str, token: &str) -> Reply {
    let query = [
        ("grant_type", "fb_exchange_token"),
        ("client_id", app),
        ("client_secret", secret),
        ("fb_exchange_token", token),
    ];
    get(sandbox, "/v26.0/oauth/access_token", &query).await
}

pub(crate) async fn exchange(sandbox: &Sandbox, token: &str) -> Reply {
    exchange_with(sandbox, APP, SECRET, token).await
}
