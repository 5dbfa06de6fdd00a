//! Ad platforms, one module per platform behind one small trait. Only this module calls them.
//!
//! A provider takes secrets in the clear and returns the model's types: no other module understands a platform's
//! bodies or error codes. To add a platform, add its module, a field of [`ProviderConfigs`], and its section of the
//! configuration.

mod callback;
mod guard;
mod meta;
mod pace;
mod patience;
mod sandbox_clock;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use callback::{
    CallbackFault, CallbackHint, CallbackKind, CallbackMeaning, HintedAt, HttpAnswer, ProviderCallback,
};
pub use guard::{Found, Gate, Work};
#[cfg(fuzzing)]
pub use meta::fuzzing;
pub use meta::{Meta, MetaApp, MetaConfig};
pub use pace::Pace;
pub use patience::Patience;
pub use sandbox_clock::follow as follow_sandbox_clock;
pub use usage::{Usage, UsageBook, ad_account_scope};

use guard::Guarded;
use url::{Host, Url};

use crate::model::{
    AdAccountList, BadValue, Clock, Guide, Listing, Matter, ProviderId, Refusal, Remedy, Secret, Subject,
    Timestamp, TokenFacts, TokenKind, ToldFacts,
};

/// What the platforms say about what a person has to do. It needs no configuration, because a token may outlive the
/// configuration of its platform.
pub const GUIDE: Guide = Guide(guide);

fn guide(provider: &ProviderId, matter: Matter, remedy: &mut Remedy) {
    if provider.as_str() == meta::NAME {
        meta::guide(matter, remedy);
    }
}

/// What the provider says about a token that it accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The app that it was made for.
    pub app_id: String,
    /// Its id is empty, and its type unknown, if the provider did not tell them.
    pub subject: Subject,
    pub facts: ToldFacts,
}

/// What a person is asked to consent to, and where the browser goes afterwards.
#[derive(Debug)]
pub struct ConsentRequest<'a> {
    pub redirect_uri: &'a str,
    /// Comes back in the callback.
    pub state: &'a Secret,
    pub scopes: &'a [String],
    /// The verifier of PKCE (RFC 7636); the dialog gets its hash.
    pub verifier: &'a Secret,
    /// What the person must be asked again, though there was an answer before.
    pub again: AskAgain,
}

/// What a consent dialog would pass over if it was answered before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskAgain {
    /// Scopes that the person declined.
    Declined,
    /// Access to the person's data, which has ended or ends soon.
    DataAccess,
}

/// What came back through the browser from a consent dialog.
#[derive(Debug)]
pub enum Callback {
    /// To be exchanged for a token, once.
    Code(Secret),
    /// There is no code: the person declined, or the dialog ended. `provider_code` is for people: `access_denied`, or empty.
    Declined { provider_code: String },
    /// The dialog refuses our request.
    Misconfigured { provider_code: String },
}

/// The result of an exchange.
#[derive(Debug)]
pub struct Exchanged {
    /// May be the secret that was exchanged.
    pub secret: Secret,
    /// The lifetime in the reply. `None` means unknown: neither "now" nor "for ever".
    pub expires_in: Option<Duration>,
}

/// A page, and its token.
#[derive(Debug)]
pub struct PageToken {
    pub id: String,
    pub name: String,
    pub secret: Secret,
}

/// The result of reading an ad account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmokeTest {
    /// Rows of the last seven days. 0 means that there was no delivery, and is no error.
    pub rows: usize,
}

/// The result of a revocation at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    Revoked,
    /// The token had ended before.
    AlreadyGone,
    /// The provider cannot end tokens of this kind.
    NotSupported,
}

/// The place in a request for an additional part.
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

/// A provider's refusal that a caller received and reports.
#[derive(Debug, Clone, Default)]
pub struct ReportedRefusal {
    /// 0 when there was none.
    pub http_status: u16,
    /// As received; may be empty.
    pub body: String,
    /// For callers that do not pass the body on: `190`.
    pub code: String,
    /// The sub-code, such as `460`.
    pub subcode: String,
    pub headers: Vec<(String, String)>,
    /// The ad account that the call was about.
    pub ad_account_id: Option<String>,
}

/// An ad platform.
///
/// Every call is bounded in time and size, retries transient errors within that time, follows no redirect, and logs
/// no secret. Errors are classified here and nowhere else.
#[async_trait::async_trait]
pub trait Provider: Send + Sync {
    fn id(&self) -> &ProviderId;

    /// The id of our app there.
    fn app_id(&self) -> &str;

    /// The API version that is asked for, for status and logs.
    fn api_version(&self) -> &str;

    /// Another version than that, which the provider served last, and since when.
    fn other_api_version(&self) -> Option<(String, Timestamp)>;

    /// A call about our app itself, to find out whether the provider replies and knows the app.
    async fn probe(&self) -> Result<(), Refusal>;

    /// Asks about a token, and about what the person granted: the only reliable source of its end, scopes, kind,
    /// subject and app. The refusal for a token of another app is `OtherApp`, for a dead one `Dead`.
    async fn inspect(&self, secret: &Secret) -> Result<Inspected, Refusal>;

    /// Makes the cheapest read that a token with these facts should be able to make: whether the token works, whatever
    /// an inspection says of it.
    async fn try_data(&self, secret: &Secret, facts: &TokenFacts) -> Result<(), Refusal>;

    /// The address of the consent dialog.
    fn consent_url(&self, request: &ConsentRequest<'_>) -> Url;

    /// Reads what the dialog sent back, as names and values.
    fn read_callback(&self, pairs: &[(String, String)]) -> Callback;

    /// Verifies what the provider sent to our app by itself, and reads it. Asks nobody.
    fn read_provider_callback(&self, callback: &ProviderCallback) -> Result<CallbackMeaning, CallbackFault>;

    /// The answer to a request to delete a person's data. `None`: it is not configured where people see what became of it.
    fn deletion_answer(&self, code: &str) -> Option<HttpAnswer>;

    /// Exchanges the code of a callback for a token. A code is good for one exchange: if it is used or too old, the refusal
    /// is `Dead`. It is sent once: where it certainly was not sent, the refusal is `OutOfTime`.
    async fn exchange_code(
        &self,
        code: &Secret,
        redirect_uri: &str,
        verifier: &Secret,
    ) -> Result<Exchanged, Refusal>;

    /// Exchanges a token for one that lasts longer. Tries the app's secrets newest first.
    async fn exchange(&self, secret: &Secret, kind: TokenKind) -> Result<Exchanged, Refusal>;

    /// The subject's name for people; may be empty.
    async fn subject_name(&self, secret: &Secret, subject: &Subject) -> Result<String, Refusal>;

    /// The ad accounts that a token with these scopes reaches, at most 5 000, and what could not be read of them. `known`
    /// is what the last list of this token taught.
    async fn ad_accounts(
        &self,
        secret: &Secret,
        scopes: &[String],
        known: Listing,
    ) -> Result<AdAccountList, Refusal>;

    /// Reads the last seven days of one ad account.
    async fn smoke_test(&self, secret: &Secret, ad_account_id: &str) -> Result<SmokeTest, Refusal>;

    /// Ends the token at the provider. This may end every token of that person for our app.
    async fn revoke(
        &self,
        secret: &Secret,
        subject: &Subject,
        kind: TokenKind,
    ) -> Result<Revocation, Refusal>;

    /// The pages that a person manages and may use, with their tokens; at most 2 000.
    async fn pages(&self, secret: &Secret) -> Result<Vec<PageToken>, Refusal>;

    /// What each call needs beside the token. It must be cheap, since every hand-out calls it.
    fn send_with(&self, secret: &Secret) -> Vec<RequestPart>;

    /// Classifies a refusal that a caller received.
    fn classify(&self, report: &ReportedRefusal) -> Refusal;

    /// Keeps the values of usage headers. Malformed or missing headers change nothing.
    fn observe_usage(&self, headers: &[(String, String)], ad_account_id: Option<&str>);

    /// How many values of the provider's replies could not be true, and were ignored, since the start.
    fn implausible_values(&self) -> u64;

    /// The tightest known use of the limits that apply to every token of the app. `None`: nothing is known yet.
    fn usage(&self) -> Option<Usage>;
}

/// The configuration of every platform; `None` for one without an app.
#[derive(Debug, Default)]
pub struct ProviderConfigs {
    pub meta: Option<MetaApp>,
}

impl ProviderConfigs {
    /// The required and the optional scopes of all platforms.
    pub fn scopes(&self) -> (Vec<String>, Vec<String>) {
        let apps = self.meta.as_ref().map(|app| &app.config);
        apps.map(|app| (app.required_scopes.clone(), app.optional_scopes.clone())).unwrap_or_default()
    }

    /// The sandbox whose clock the vault follows, and the configuration key that names it.
    pub fn sandbox_clock(&self) -> Option<(&'static str, &Url)> {
        let app = self.meta.as_ref().filter(|app| app.follow_sandbox_clock)?;
        Some(("providers.meta.graph_url", &app.config.graph_url))
    }

    /// # Errors
    /// A configuration that no client can be made for, named by its section.
    pub fn connect(self, clock: &Clock) -> Result<Providers, BadValue> {
        let mut providers: Vec<Arc<dyn Provider>> = Vec::new();
        if let Some(app) = self.meta {
            let meta = Meta::new(app.config, clock.clone())
                .map_err(|bad| BadValue::new(format!("providers.meta {}", bad.rule)))?;
            providers.push(Arc::new(meta));
        }
        if providers.is_empty() {
            tracing::warn!(
                "no provider is configured: set providers.meta.app_id and providers.meta.app_secret_files"
            );
        }
        Ok(Providers::new(providers))
    }
}

/// The configured providers, by name.
#[derive(Clone, Default)]
pub struct Providers(BTreeMap<String, Entry>);

#[derive(Clone)]
struct Entry {
    unguarded: Arc<dyn Provider>,
    gate: Arc<Gate>,
    /// For the vault's own work.
    guarded: Arc<dyn Provider>,
}

impl Providers {
    pub fn new(providers: impl IntoIterator<Item = Arc<dyn Provider>>) -> Self {
        let entries = providers.into_iter().map(|unguarded| {
            let gate = Arc::new(Gate::default());
            let guarded = Guarded::new(Arc::clone(&unguarded), Arc::clone(&gate), Patience::endless());
            (unguarded.id().to_string(), Entry { unguarded, gate, guarded: Arc::new(guarded) })
        });
        Self(entries.collect())
    }

    /// The provider for the vault's own work, which nobody waits for.
    pub fn get(&self, id: &ProviderId) -> Option<&Arc<dyn Provider>> {
        self.0.get(id.as_str()).map(|entry| &entry.guarded)
    }

    /// The provider for one operation, whose calls are cut off when `patience` ends. Calls that change something at the
    /// provider, and those after them, are not.
    pub fn within(&self, id: &ProviderId, patience: Patience) -> Option<Arc<dyn Provider>> {
        let Entry { unguarded, gate, .. } = self.0.get(id.as_str())?;
        Some(Arc::new(Guarded::new(Arc::clone(unguarded), Arc::clone(gate), patience)))
    }

    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<dyn Provider>, &Arc<Gate>)> {
        self.0.values().map(|entry| (&entry.guarded, &entry.gate))
    }

    pub fn gate(&self, id: &ProviderId) -> Option<&Arc<Gate>> {
        self.0.get(id.as_str()).map(|entry| &entry.gate)
    }
}

/// Whether a request to `url` stays on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
