//! Meta's Graph API. `http` makes calls, `wire` reads replies, `refusal` classifies errors, `redact` keeps
//! what is told on free of credentials.

mod http;
mod redact;
mod refusal;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, Url};
use serde_json::Value;
use sha2::Sha256;

use http::{Call, Graph, Reply};
use redact::redact;
use refusal::{Asked, GraphError, Refused};

use super::{
    Exchanged, Inspected, Place, Provider, ReportedRefusal, RequestPart, Revocation, SmokeTest, Usage,
    UsageBook,
};
use crate::model::{
    AdAccount, Clock, Grant, Misconfiguration, ProviderId, Refusal, RefusalKind, RefusalReason, Secret,
    Subject, TokenKind,
};

/// Ad accounts that are listed at most, and pages that are read for them.
const MAX_ACCOUNTS: usize = 5_000;
const MAX_PAGES: usize = 200;
const PAGE: &str = "100";

/// How to reach Meta, and as which app.
#[derive(Debug)]
pub struct MetaConfig {
    /// The app's id.
    pub app_id: String,
    /// The app's secrets, newest first: several, so that the secret can be rolled.
    pub app_secrets: Vec<Secret>,
    /// `https://graph.facebook.com`, or the sandbox.
    pub graph_url: Url,
    /// Such as `v26.0`.
    pub api_version: String,
    /// For one HTTP call.
    pub request_timeout: Duration,
    /// For one operation, retries included.
    pub operation_timeout: Duration,
    /// Scopes without which the job can't be done.
    pub required_scopes: Vec<String>,
    /// Scopes without which some of it can't.
    pub optional_scopes: Vec<String>,
}

/// One of the app's secrets, and what is made of it.
struct AppSecret {
    secret: Secret,
    /// `APPID|APPSECRET`.
    app_token: Secret,
    proof: Hmac<Sha256>,
}

impl AppSecret {
    fn new(app_id: &str, secret: Secret) -> Result<Self, String> {
        let proof = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.expose().as_bytes())
            .map_err(|_| "an app secret can't be used as a key".to_owned())?;
        Ok(Self { app_token: Secret::new(format!("{app_id}|{}", secret.expose())), secret, proof })
    }

    /// `appsecret_proof`: lower-case hex of HMAC-SHA-256 of the token under the app secret.
    fn proof(&self, token: &Secret) -> String {
        let mut mac = self.proof.clone();
        mac.update(token.expose().as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }
}

/// Meta.
pub struct Meta {
    id: ProviderId,
    app_id: String,
    api_version: String,
    secrets: Vec<AppSecret>,
    /// Which of the secrets worked last.
    working: AtomicUsize,
    graph: Graph,
    usage: UsageBook,
    clock: Clock,
    other_version_seen: AtomicBool,
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meta")
            .field("app_id", &self.app_id)
            .field("api_version", &self.api_version)
            .finish_non_exhaustive()
    }
}

impl Meta {
    /// Prepares the client; nothing is asked yet.
    ///
    /// # Errors
    /// With a sentence for the operator: no app secret, or no HTTP client.
    pub fn new(config: MetaConfig, clock: Clock) -> Result<Self, String> {
        let secrets: Vec<_> = config
            .app_secrets
            .into_iter()
            .map(|secret| AppSecret::new(&config.app_id, secret))
            .collect::<Result<_, _>>()?;
        if secrets.is_empty() {
            return Err("providers.meta.app_secret_files names no secret".into());
        }
        let graph = Graph::new(
            config.graph_url,
            config.api_version.clone(),
            config.request_timeout,
            config.operation_timeout,
        )?;
        Ok(Self {
            id: ProviderId::parse("meta").map_err(|error| error.to_string())?,
            app_id: config.app_id,
            api_version: config.api_version,
            secrets,
            working: AtomicUsize::new(0),
            graph,
            usage: UsageBook::default(),
            clock,
            other_version_seen: AtomicBool::new(false),
        })
    }

    /// The app's secrets, the one that worked last first, then the newest.
    fn secrets(&self) -> impl Iterator<Item = (usize, &AppSecret)> {
        let first = self.working.load(Ordering::Relaxed);
        let working = self.secrets.get(first).map(|secret| (first, secret));
        working.into_iter().chain(self.secrets.iter().enumerate().filter(move |(index, _)| *index != first))
    }

    async fn call(&self, call: Call<'_>) -> Result<Value, Refusal> {
        let account = call.ad_account_id.map(str::to_owned);
        self.graph.call(call, |reply| self.observe(reply, account.as_deref())).await
    }

    fn observe(&self, reply: &Reply, ad_account_id: Option<&str>) {
        self.usage.observe(&reply.headers, ad_account_id, self.clock.now());
        if let Some(version) = reply.header("facebook-api-version")
            && version != self.api_version
            && !self.other_version_seen.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                asked = self.api_version,
                answered = redact(version),
                "Meta answers with another API version"
            );
        }
    }

    /// Makes a call that needs an app secret, with each secret until one is the app's.
    async fn with_secret<'s>(&'s self, make: impl Fn(&'s AppSecret) -> Call<'s>) -> Result<Value, Refusal> {
        const WRONG: [RefusalKind; 2] = [
            RefusalKind::Ours(Misconfiguration::AppSecret),
            RefusalKind::Ours(Misconfiguration::AppSecretProof),
        ];
        let mut last =
            Refusal::new(RefusalKind::Ours(Misconfiguration::NotConfigured), "no app secret is configured");
        for (index, secret) in self.secrets() {
            match self.call(make(secret)).await {
                Err(refusal) if WRONG.contains(&refusal.kind) => last = refusal,
                answer => {
                    self.working.store(index, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(last)
    }

    /// Reads something with a token: proof in the query, token in the header.
    async fn read(
        &self,
        token: &Secret,
        path: &str,
        query: &[(&'static str, &str)],
        asked: Asked,
        ad_account_id: Option<&str>,
    ) -> Result<Value, Refusal> {
        self.with_secret(|app| {
            let mut call = Call { bearer: Some(token), ad_account_id, ..Call::get(path, asked) };
            call.query = query.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            call.query.push(("appsecret_proof", app.proof(token)));
            call
        })
        .await
    }

    /// POST, so that neither token nor app secret stands in a URL. It makes a token, so it is sent again only
    /// when the first was certainly not taken.
    fn exchange_call<'s>(&'s self, app: &'s AppSecret, token: &'s Secret, kind: TokenKind) -> Call<'s> {
        let mut form = vec![
            ("grant_type", "fb_exchange_token"),
            ("client_id", self.app_id.as_str()),
            ("client_secret", app.secret.expose()),
            ("fb_exchange_token", token.expose()),
        ];
        if kind == TokenKind::SystemUser {
            form.push(("set_token_expires_in_60_days", "true"));
        }
        Call {
            method: Method::POST,
            form,
            repeatable: false,
            ..Call::get("oauth/access_token", Asked::Exchange)
        }
    }

    /// Ends a system user's token. Meta documents GET only, secrets in the URL; the URL is told to nobody else.
    fn revoke_call<'s>(&'s self, app: &'s AppSecret, token: &'s Secret) -> Call<'s> {
        let query = vec![
            ("client_id", self.app_id.clone()),
            ("client_secret", app.secret.expose().to_owned()),
            ("revoke_token", token.expose().to_owned()),
            ("access_token", token.expose().to_owned()),
        ];
        Call { query, ..Call::get("oauth/revoke", Asked::Exchange) }
    }
}

/// Ids go into paths: digits only, whatever a caller or a reply says.
fn digits(id: &str) -> Option<&str> {
    ((1..=40).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit())).then_some(id)
}

fn unexpected(what: &str) -> Refusal {
    Refusal::new(RefusalKind::Transient { retry_after: None }, format!("Meta's reply {what}"))
}

/// Meta says `true`, `{"success":true}` or `{"success":"true"}`.
fn succeeded(reply: &Value) -> bool {
    let success = reply.get("success").unwrap_or(reply);
    *success == Value::Bool(true) || success.as_str() == Some("true")
}

#[async_trait::async_trait]
impl Provider for Meta {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn app_id(&self) -> &str {
        &self.app_id
    }

    fn api_version(&self) -> &str {
        &self.api_version
    }

    async fn inspect(&self, secret: &Secret) -> Result<Inspected, Refusal> {
        let reply = self
            .with_secret(|app| Call {
                query: vec![
                    ("input_token", secret.expose().to_owned()),
                    ("appsecret_proof", app.proof(&app.app_token)),
                ],
                bearer: Some(&app.app_token),
                ..Call::get("debug_token", Asked::Inspection)
            })
            .await?;
        let data = reply
            .get("data")
            .filter(|data| data.is_object())
            .ok_or_else(|| unexpected("to an inspection tells nothing"))?;
        let app_id = wire::text(data, "app_id");
        if !app_id.is_empty() && app_id != self.app_id {
            return Err(Refusal::new(RefusalKind::OtherApp, "the token was made for another app"));
        }
        if data.get("is_valid").and_then(Value::as_bool) != Some(true) {
            let refused =
                Refused { asked: Asked::InspectedToken, http_status: 200, headers: &[], ad_account_id: None };
            return Err(match data.get("error").and_then(GraphError::read) {
                Some(error) => refused.classify(error),
                None => Refusal::new(
                    RefusalKind::Dead { reason: RefusalReason::Unknown },
                    "Meta says that the token is not valid",
                ),
            });
        }
        wire::inspected(data, self.clock.now()).ok_or_else(|| {
            let kind = RefusalKind::Dead { reason: RefusalReason::Malformed };
            Refusal::new(kind, "this is an app's token, not a person's")
        })
    }

    async fn exchange(&self, secret: &Secret, kind: TokenKind) -> Result<Exchanged, Refusal> {
        let reply = self.with_secret(|app| self.exchange_call(app, secret, kind)).await?;
        let token = wire::text(&reply, "access_token");
        if token.is_empty() {
            return Err(unexpected("to an exchange holds no token"));
        }
        Ok(Exchanged { secret: Secret::new(token), expires_in: wire::expires_in(&reply) })
    }

    async fn subject_name(&self, secret: &Secret, _subject: &Subject) -> Result<String, Refusal> {
        let reply = self.read(secret, "me", &[("fields", "id,name")], Asked::Anything, None).await?;
        Ok(wire::text(&reply, "name").chars().take(200).collect())
    }

    async fn grants(&self, secret: &Secret) -> Result<Vec<Grant>, Refusal> {
        let reply = self.read(secret, "me/permissions", &[], Asked::Anything, None).await?;
        Ok(wire::data(&reply).map(wire::grant).filter(|grant| !grant.scope.is_empty()).collect())
    }

    async fn ad_accounts(&self, secret: &Secret) -> Result<Vec<AdAccount>, Refusal> {
        const FIELDS: &str = "id,account_id,name,account_status,currency,timezone_name,business";
        let mut accounts: Vec<AdAccount> = Vec::new();
        let mut after = String::new();
        for _ in 0..MAX_PAGES {
            let mut query = vec![("fields", FIELDS), ("limit", PAGE)];
            if !after.is_empty() {
                query.push(("after", after.as_str()));
            }
            let reply = self.read(secret, "me/adaccounts", &query, Asked::Anything, None).await?;
            let now = self.clock.now();
            for account in wire::data(&reply).filter_map(|entry| wire::ad_account(entry, now)) {
                if !accounts.iter().any(|known| known.id == account.id) {
                    accounts.push(account);
                }
            }
            match wire::next_page(&reply) {
                // A short or empty page may have a next one; a cursor that stands still has not.
                Some(next) if next != after && accounts.len() < MAX_ACCOUNTS => after = next,
                _ => break,
            }
        }
        accounts.truncate(MAX_ACCOUNTS);
        Ok(accounts)
    }

    async fn smoke_test(&self, secret: &Secret, ad_account_id: &str) -> Result<SmokeTest, Refusal> {
        let Some(id) = digits(ad_account_id.trim_start_matches("act_")) else {
            let kind = RefusalKind::Permission { object_only: true };
            return Err(Refusal::new(kind, "an ad account's id is act_ and digits"));
        };
        let id = format!("act_{id}");
        let query =
            [("date_preset", "last_7d"), ("fields", "account_id,spend,impressions"), ("level", "account")];
        let reply = self.read(secret, &format!("{id}/insights"), &query, Asked::Object, Some(&id)).await?;
        if !reply.get("data").is_some_and(Value::is_array) {
            return Err(unexpected("to the smoke test holds no rows"));
        }
        Ok(SmokeTest { rows: wire::data(&reply).count() })
    }

    async fn revoke(
        &self,
        secret: &Secret,
        subject: &Subject,
        kind: TokenKind,
    ) -> Result<Revocation, Refusal> {
        let reply = match kind {
            TokenKind::Page => return Ok(Revocation::NotSupported),
            TokenKind::SystemUser => self.with_secret(|app| self.revoke_call(app, secret)).await,
            TokenKind::LongLivedUser | TokenKind::ShortLivedUser => {
                let Some(id) = digits(&subject.id) else { return Ok(Revocation::NotSupported) };
                let path = format!("{id}/permissions");
                self.with_secret(|app| Call {
                    method: Method::DELETE,
                    query: vec![("appsecret_proof", app.proof(secret))],
                    bearer: Some(secret),
                    ..Call::get(path.as_str(), Asked::Anything)
                })
                .await
            }
        };
        match reply {
            Ok(reply) if succeeded(&reply) => Ok(Revocation::Revoked),
            Ok(_) => Err(unexpected("to a revocation is not a success")),
            Err(refusal) if matches!(refusal.kind, RefusalKind::Dead { .. }) => Ok(Revocation::AlreadyGone),
            Err(refusal) => Err(refusal),
        }
    }

    fn send_with(&self, secret: &Secret) -> Vec<RequestPart> {
        let part = |app: &AppSecret| RequestPart {
            place: Place::Query,
            name: "appsecret_proof",
            value: Secret::new(app.proof(secret)),
        };
        self.secrets().next().map(|(_, app)| part(app)).into_iter().collect()
    }

    fn classify(&self, report: &ReportedRefusal) -> Refusal {
        let asked = if report.ad_account_id.is_some() { Asked::Object } else { Asked::Anything };
        let refused = Refused {
            asked,
            http_status: report.http_status,
            headers: &report.headers,
            ad_account_id: report.ad_account_id.as_deref(),
        };
        let body: Option<Value> = serde_json::from_str(&report.body).ok();
        let told = body.as_ref().and_then(|body| body.get("error")).and_then(GraphError::read);
        let named = GraphError {
            code: report.code.trim().parse().ok(),
            subcode: report.subcode.trim().parse().ok(),
            ..GraphError::default()
        };
        match told {
            Some(error) => refused.classify(error),
            None if named.code.is_some() => refused.classify(named),
            // Without a readable error the status is all there is, and it says nothing of the token.
            None => refused.unreadable("no error could be read from what was reported"),
        }
    }

    fn observe_usage(&self, headers: &[(String, String)], ad_account_id: Option<&str>) {
        self.usage.observe(headers, ad_account_id, self.clock.now());
    }

    fn usage(&self) -> Option<Usage> {
        self.usage.of("app")
    }
}
