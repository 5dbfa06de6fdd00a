//! Meta's Graph API. `http` sends and retries, `refusal` classifies refusals, `tokens` and `reads` are the calls,
//! `wire` is the form of replies. `callbacks` verifies what Meta sends to us.
//!
//! Only this module knows Meta's error codes and bodies.

mod callbacks;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guide;
mod headers;
mod http;
mod login;
mod reads;
mod redact;
mod refusal;
mod tokens;
mod wire;

#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::time::Instant;
use url::Url;

use self::callbacks::Callbacks;
pub(super) use self::guide::guide;
use self::http::{Call, Http, Reader};
use self::login::Dialog;
use self::redact::Redactor;
use self::refusal::{Asked, ErrorObject, Seen};
use super::{
    Callback, CallbackFault, CallbackMeaning, ConsentRequest, Exchanged, HttpAnswer, Inspected, PageToken,
    PartPlacement, Provider, ProviderCallback, ReportedRefusal, RequestPart, Revocation, SmokeTest, Usage,
};
use crate::model::{
    AdAccountList, BadValue, Clock, Listing, Misconfiguration, ProviderId, Refusal, RefusalKind, Secret,
    Subject, Timestamp, TokenFacts, TokenKind,
};

/// The provider's name in the API.
pub(super) const NAME: &str = "meta";

/// The app at Meta, and how the Graph API is called.
pub struct MetaConfig {
    pub app_id: String,
    /// Newest first; several while the secret is being changed.
    pub app_secrets: Vec<Secret>,
    /// Base of every call.
    pub graph_url: Url,
    /// Base of the consent dialog, to which browsers go.
    pub dialog_url: Url,
    /// The configuration of Facebook Login for Business that the dialog uses, in place of scopes.
    pub login_config_id: Option<String>,
    /// The version in the path of each call, such as `v26.0`.
    pub api_version: String,
    /// For one request, from connecting to the last byte.
    pub request_timeout: Duration,
    /// For one operation, with all its requests, retries and pauses.
    pub operation_timeout: Duration,
    /// Scopes that a token must have.
    pub required_scopes: Vec<String>,
    /// Scopes without which some features are missing.
    pub optional_scopes: Vec<String>,
    /// What Meta sends back when a webhook is subscribed.
    pub webhook_verify_token: Option<Secret>,
    /// Where people see what became of a request to delete their data; the confirmation code follows.
    pub deletion_page: Option<Url>,
}

impl fmt::Debug for MetaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetaConfig")
            .field("app_id", &self.app_id)
            .field("app_secrets", &self.app_secrets.len())
            .field("graph_url", &self.graph_url.as_str())
            .field("dialog_url", &self.dialog_url.as_str())
            .field("login_config_id", &self.login_config_id)
            .field("api_version", &self.api_version)
            .field("request_timeout", &self.request_timeout)
            .field("operation_timeout", &self.operation_timeout)
            .field("required_scopes", &self.required_scopes)
            .field("optional_scopes", &self.optional_scopes)
            .field("webhook_verify_token", &self.webhook_verify_token.is_some())
            .field("deletion_page", &self.deletion_page.as_ref().map(Url::as_str))
            .finish()
    }
}

/// The configuration of the app, including the parts that calls do not need.
pub struct MetaApp {
    pub config: MetaConfig,
    /// Whether the vault follows the clock of the sandbox, which is then at `graph_url`.
    pub follow_sandbox_clock: bool,
}

impl fmt::Debug for MetaApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetaApp")
            .field("app_id", &self.config.app_id)
            .field("app_secrets", &self.config.app_secrets.len())
            .field("api_version", &self.config.api_version)
            .field("dialog_url", &self.config.dialog_url.as_str())
            .field("follow_sandbox_clock", &self.follow_sandbox_clock)
            .finish_non_exhaustive()
    }
}

/// The Graph API, called as one app.
pub struct Meta {
    id: ProviderId,
    app_id: String,
    secrets: Arc<[Secret]>,
    /// Index of the secret that worked last.
    working: AtomicUsize,
    http: Http,
    dialog: Dialog,
    callbacks: Callbacks,
    clock: Clock,
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meta").field("app_id", &self.app_id).finish_non_exhaustive()
    }
}

impl Meta {
    /// A TLS crypto provider must be installed before.
    ///
    /// # Errors
    /// No app id or secret, or a URL that no client can be made for.
    pub fn new(config: MetaConfig, clock: Clock) -> Result<Self, BadValue> {
        if config.app_id.is_empty() || config.app_secrets.is_empty() {
            return Err(BadValue::new("must have an app id and at least one app secret"));
        }
        let secrets: Arc<[Secret]> = config.app_secrets.into();
        let dialog = Dialog::new(&config.dialog_url, &config.api_version, config.login_config_id)?;
        let http = Http::new(
            config.graph_url,
            config.api_version,
            (config.request_timeout, config.operation_timeout),
            Redactor::new(secrets.clone()),
            clock.clone(),
        )?;
        let callbacks = Callbacks {
            secrets: secrets.clone(),
            verify_token: config.webhook_verify_token,
            deletion_page: config.deletion_page,
        };
        let (id, working) = (ProviderId::parse(NAME)?, AtomicUsize::new(0));
        Ok(Self { id, app_id: config.app_id, secrets, working, http, dialog, callbacks, clock })
    }

    /// The tightest known use of the limits on one ad account; the app's own limits do not count.
    pub fn ad_account_usage(&self, ad_account_id: &str) -> Option<Usage> {
        self.http.usage.of_ad_account(ad_account_id, self.clock.now())
    }

    /// A call that carries `token`, with the proof that `app_secret` makes for it.
    fn call_with_token(method: reqwest::Method, path: &[&str], token: &Secret, app_secret: &Secret) -> Call {
        Call::new(method, path, Asked::Data)
            .query("appsecret_proof", proof(app_secret, token.expose()).expose())
            .bearer(token.expose())
    }

    /// Tries the secret that worked last, then the others, newest first, as long as Meta refuses because of the
    /// secret.
    async fn ask<T>(
        &self,
        make: impl Fn(&Secret) -> Call + Send + Sync,
        read: Reader<T>,
        deadline: Instant,
    ) -> Result<T, Refusal> {
        let working = self.working.load(Ordering::Relaxed);
        let others = (0..self.secrets.len()).filter(|index| *index != working);
        let mut first_refusal = None;
        for index in std::iter::once(working).chain(others) {
            let Some(secret) = self.secrets.get(index) else { continue };
            match self.http.ask(&make(secret), read, deadline).await {
                Err(refusal) if is_about_the_secret(&refusal) => {
                    first_refusal.get_or_insert(refusal);
                }
                answer => {
                    // Only a success proves the secret: Meta may refuse before it checks the secret.
                    if answer.is_ok() && self.working.swap(index, Ordering::Relaxed) != index {
                        tracing::info!(index, "another of the configured app secrets is in use now");
                    }
                    return answer;
                }
            }
        }
        Err(first_refusal.unwrap_or_else(|| {
            Refusal::new(RefusalKind::Ours(Misconfiguration::NotConfigured), "no app secret is configured")
        }))
    }
}

fn is_about_the_secret(refusal: &Refusal) -> bool {
    matches!(refusal.kind, RefusalKind::Ours(Misconfiguration::AppSecret | Misconfiguration::AppSecretProof))
}

/// `appsecret_proof`: HMAC-SHA-256 of the token under the app secret, in lower-case hex.
fn proof(app_secret: &Secret, token: &str) -> Secret {
    // HMAC takes keys of any length; the error exists for other MACs.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(app_secret.expose().as_bytes()) else {
        return Secret::new(String::new());
    };
    mac.update(token.as_bytes());
    Secret::new(hex::encode(mac.finalize().into_bytes()))
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
        self.http.version()
    }

    fn other_api_version(&self) -> Option<(String, Timestamp)> {
        self.http.other_version()
    }

    async fn probe(&self) -> Result<(), Refusal> {
        self.debug_own_token().await
    }

    async fn inspect(&self, secret: &Secret) -> Result<Inspected, Refusal> {
        self.inspect_token(secret).await
    }

    async fn try_data(&self, secret: &Secret, facts: &TokenFacts) -> Result<(), Refusal> {
        self.cheapest_read(secret, facts).await
    }

    fn consent_url(&self, request: &ConsentRequest<'_>) -> Url {
        self.dialog.url(&self.app_id, request)
    }

    fn read_callback(&self, pairs: &[(String, String)]) -> Callback {
        login::read_callback(pairs)
    }

    fn read_provider_callback(&self, callback: &ProviderCallback) -> Result<CallbackMeaning, CallbackFault> {
        self.callbacks.read(callback, self.clock.now())
    }

    fn deletion_answer(&self, code: &str) -> Option<HttpAnswer> {
        self.callbacks.deletion_answer(code)
    }

    async fn exchange_code(
        &self,
        code: &Secret,
        redirect_uri: &str,
        verifier: &Secret,
    ) -> Result<Exchanged, Refusal> {
        self.token_for_code(code, redirect_uri, verifier).await
    }

    async fn exchange(&self, secret: &Secret, kind: TokenKind) -> Result<Exchanged, Refusal> {
        self.exchange_token(secret, kind).await
    }

    async fn subject_name(&self, secret: &Secret, subject: &Subject) -> Result<String, Refusal> {
        self.name_of(secret, subject).await
    }

    async fn ad_accounts(
        &self,
        secret: &Secret,
        scopes: &[String],
        known: Listing,
    ) -> Result<AdAccountList, Refusal> {
        self.list_ad_accounts(secret, scopes, known).await
    }

    async fn smoke_test(&self, secret: &Secret, ad_account_id: &str) -> Result<SmokeTest, Refusal> {
        self.read_insights(secret, ad_account_id).await
    }

    async fn revoke(
        &self,
        secret: &Secret,
        subject: &Subject,
        kind: TokenKind,
    ) -> Result<Revocation, Refusal> {
        self.end_token(secret, subject, kind).await
    }

    async fn pages(&self, secret: &Secret) -> Result<Vec<PageToken>, Refusal> {
        self.pages_of(secret).await
    }

    fn send_with(&self, secret: &Secret) -> Vec<RequestPart> {
        let working = self.secrets.get(self.working.load(Ordering::Relaxed)).or(self.secrets.first());
        let part = |app_secret| RequestPart {
            placement: PartPlacement::Query,
            name: "appsecret_proof",
            value: proof(app_secret, secret.expose()),
        };
        working.map(part).into_iter().collect()
    }

    fn classify(&self, report: &ReportedRefusal) -> Refusal {
        let seen = Seen {
            asked: Asked::Data,
            ad_account: report.ad_account_id.as_deref(),
            status: report.http_status,
            headers: &report.headers,
            body: report.body.as_bytes(),
            token: None,
        };
        // Without a body of Graph, use the codes that the caller read from it.
        let (code, subcode) = report.code.split_once('/').unwrap_or((&report.code, &report.subcode));
        if refusal::error_in(seen.body).is_none()
            && let Ok(code) = code.trim().parse()
        {
            let error = ErrorObject::of(code, subcode.trim().parse().ok());
            return refusal::classify_error(&seen, &error, &self.http.redactor);
        }
        refusal::classify(&seen, &self.http.redactor)
    }

    fn observe_usage(&self, headers: &[(String, String)], ad_account_id: Option<&str>) {
        self.http.observe(headers, ad_account_id);
    }

    fn implausible_values(&self) -> u64 {
        self.http.doubts.count().saturating_add(self.http.usage.malformed())
    }

    fn usage(&self) -> Option<Usage> {
        self.http.usage.of_app(self.clock.now())
    }
}
