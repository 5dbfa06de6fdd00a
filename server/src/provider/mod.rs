//! The only place that speaks HTTP to ad platforms. One module per platform behind one small trait.
//!
//! A provider is asked with secrets in the clear and answers in the domain's words; no HTTP body and
//! no provider error code is understood above this module. It knows nothing of storage, keys or callers.

mod guard;
mod meta;
mod sandbox_clock;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use guard::Gate;
#[cfg(fuzzing)]
pub use meta::fuzzing;
pub use meta::{Meta, MetaConfig};
pub use sandbox_clock::follow as follow_sandbox_clock;
pub use usage::{Usage, UsageBook, ad_account_scope};

use url::{Host, Url};

use crate::model::{AdAccount, Grant, ProviderId, Refusal, Secret, Subject, TokenFacts, TokenKind};

/// The provider's word on a token that it accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// For which app it was made.
    pub app_id: String,
    /// Who it speaks for.
    pub subject: Subject,
    /// Kind, ends and scopes.
    pub facts: TokenFacts,
}

/// What an exchange gave back.
#[derive(Debug)]
pub struct Exchanged {
    /// The secret that came back; may be the very one that went in.
    pub secret: Secret,
    /// The life that the reply told. `None` means unknown, never "now" and never "for ever".
    pub expires_in: Option<Duration>,
}

/// A page, and the token that speaks for it.
#[derive(Debug)]
pub struct PageToken {
    /// The page's id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Its token.
    pub secret: Secret,
}

/// What the smoke test saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmokeTest {
    /// Rows of the last seven days. None is "no delivery", not a fault.
    pub rows: usize,
}

/// How a revocation at the provider ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// It is ended now.
    Revoked,
    /// It had ended before.
    AlreadyGone,
    /// The provider has no way to end this kind.
    NotSupported,
}

/// Where in a request a part goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartPlacement {
    Query,
    Header,
    Body,
}

/// What the provider requires on each call in addition to the token. The value is as secret as the token.
#[derive(Debug)]
pub struct RequestPart {
    pub placement: PartPlacement,
    pub name: &'static str,
    pub value: Secret,
}

/// A refusal that a caller saw and reports.
#[derive(Debug, Clone, Default)]
pub struct ReportedRefusal {
    /// HTTP status; 0 when there was none.
    pub http_status: u16,
    /// The body as received; may be empty.
    pub body: String,
    /// The code for people without the body: `190`.
    pub code: String,
    /// The sub-code: `460`.
    pub subcode: String,
    /// Reply headers.
    pub headers: Vec<(String, String)>,
    /// The ad account that was asked, if one was.
    pub ad_account_id: Option<String>,
}

/// An ad platform.
///
/// Every call is bounded in time and size, retries what is worth it within that time, follows no
/// redirect, and logs no secret. Errors are classified here and nowhere else.
#[async_trait::async_trait]
pub trait Provider: Send + Sync {
    /// Its name in the API.
    fn id(&self) -> &ProviderId;

    /// The id of our app there.
    fn app_id(&self) -> &str;

    /// The API version in use, for status and logs.
    fn api_version(&self) -> &str;

    /// Asks something of our app's own, to find out whether the provider answers and knows us.
    async fn probe(&self) -> Result<(), Refusal>;

    /// Asks who a token is: the only reliable source of its end, scopes, kind, subject and app.
    /// A token of another app is refused with `OtherApp`, a dead one with `Dead`.
    async fn inspect(&self, secret: &Secret) -> Result<Inspected, Refusal>;

    /// Exchanges a token for one that lasts longer. Tries the app's secrets newest first.
    async fn exchange(&self, secret: &Secret, kind: TokenKind) -> Result<Exchanged, Refusal>;

    /// Name of the subject for people. Empty when the provider tells none.
    async fn subject_name(&self, secret: &Secret, subject: &Subject) -> Result<String, Refusal>;

    /// What the person granted and declined.
    async fn grants(&self, secret: &Secret) -> Result<Vec<Grant>, Refusal>;

    /// Ad accounts that the token reaches; all pages, at most 5 000.
    async fn ad_accounts(&self, secret: &Secret) -> Result<Vec<AdAccount>, Refusal>;

    /// Reads the last seven days of one ad account.
    async fn smoke_test(&self, secret: &Secret, ad_account_id: &str) -> Result<SmokeTest, Refusal>;

    /// Ends the token at the provider. May end every token of that person for our app.
    async fn revoke(
        &self,
        secret: &Secret,
        subject: &Subject,
        kind: TokenKind,
    ) -> Result<Revocation, Refusal>;

    /// The pages that a person manages and may use, with their tokens; at most 2 000.
    async fn pages(&self, secret: &Secret) -> Result<Vec<PageToken>, Refusal>;

    /// What else goes on each call. Cheap: it is on the hot path.
    fn send_with(&self, secret: &Secret) -> Vec<RequestPart>;

    /// Classifies a refusal that somebody else saw.
    fn classify(&self, report: &ReportedRefusal) -> Refusal;

    /// Keeps what usage headers tell. Malformed or missing headers change nothing and never fail.
    fn observe_usage(&self, headers: &[(String, String)], ad_account_id: Option<&str>);

    /// The tightest known use of the scopes that bind every token of the app. `None`: no news yet.
    fn usage(&self) -> Option<Usage>;
}

/// The configured providers, by name.
#[derive(Clone, Default)]
pub struct Providers(BTreeMap<String, (Arc<dyn Provider>, Arc<Gate>)>);

impl Providers {
    /// Of these.
    pub fn new(providers: impl IntoIterator<Item = Arc<dyn Provider>>) -> Self {
        let guarded = providers.into_iter().map(|provider| {
            let gate = Arc::new(Gate::default());
            let name = provider.id().to_string();
            let provider: Arc<dyn Provider> = Arc::new(guard::Guarded::new(provider, Arc::clone(&gate)));
            (name, (provider, gate))
        });
        Self(guarded.collect())
    }

    /// The provider of that name.
    pub fn get(&self, id: &ProviderId) -> Option<&Arc<dyn Provider>> {
        self.0.get(id.as_str()).map(|(provider, _)| provider)
    }

    /// The names of all.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// All of them, each with its gate.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<dyn Provider>, &Arc<Gate>)> {
        self.0.values().map(|(provider, gate)| (provider, gate))
    }

    /// The gate before a provider.
    pub fn gate(&self, id: &ProviderId) -> Option<&Arc<Gate>> {
        self.0.get(id.as_str()).map(|(_, gate)| gate)
    }
}

/// Whether what is sent there stays on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
