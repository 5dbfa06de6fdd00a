//! All data of the sandbox, behind one lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::{App, Delivery, SandboxConfig, Switches};
use crate::faults::Fault;
use crate::people::Person;
use crate::tokens::{Refusal, Token, TokenKind, TokenOrder, token_text};
use crate::usage::Usage;
use crate::wire::callbacks::{self, Callback, Delivered, Outgoing};
use crate::wire::error::{self, GraphError};
use crate::wire::request::{Endpoint, RecordedRequest};

/// The state, and the values that do not change, shared by all handlers and handles.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) url: String,
    pub(crate) runtime: tokio::runtime::Handle,
    state: Mutex<State>,
    /// Requests that came and whose replies have not begun yet.
    pub(crate) unanswered: Mutex<Vec<Endpoint>>,
    /// Changes when the faults are cleared.
    faults_cleared: watch::Sender<()>,
}

/// A request without a reply, until this is dropped: when the reply begins, or when the client hangs up.
pub(crate) struct Unanswered<'a>(&'a Shared, Endpoint);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let mut unanswered = self.0.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = unanswered.iter().position(|endpoint| *endpoint == self.1) {
            unanswered.swap_remove(at);
        }
    }
}

impl Shared {
    pub(crate) fn new(config: &SandboxConfig, url: String, runtime: tokio::runtime::Handle) -> Arc<Self> {
        let switches = Switches { tier: config.tier, ..Switches::default() };
        let clock = Clock::default();
        let state = Mutex::new(State::new(clock.clone(), config.apps.clone(), switches));
        Arc::new(Self {
            clock,
            url,
            runtime,
            state,
            unanswered: Mutex::default(),
            faults_cleared: watch::Sender::default(),
        })
    }

    pub(crate) fn note_unanswered(&self, endpoint: Endpoint) -> Unanswered<'_> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).push(endpoint);
        Unanswered(self, endpoint)
    }

    /// Removes the faults, and lets the replies go that hang.
    pub(crate) fn clear_faults(&self) {
        self.lock().faults.clear();
        self.faults_cleared.send_replace(());
    }

    pub(crate) fn faults_cleared(&self) -> watch::Receiver<()> {
        self.faults_cleared.subscribe()
    }

    /// Locks the state even after a panic, because no change leaves it half done.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a callback as often as ordered, one after the other, and waits for each reply.
    pub(crate) async fn call_back(&self, callback: Callback) -> Result<Vec<Delivered>, String> {
        let (outgoing, times) = callback.prepare(&self.lock())?;
        let mut delivered = Vec::new();
        for _ in 0..times {
            delivered.push(callbacks::send(outgoing.clone()).await);
        }
        Ok(delivered)
    }

    /// Sends in the background what is in the outbox.
    pub(crate) fn flush_outbox(&self) {
        let waiting = std::mem::take(&mut self.lock().outbox);
        for outgoing in waiting {
            self.runtime.spawn(async move {
                if let Some(error) = callbacks::send(outgoing).await.error {
                    tracing::warn!(%error, "a callback could not be delivered");
                }
            });
        }
    }
}

/// An authorization code from the dialog.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(crate) app_id: String,
    pub(crate) owner: String,
    pub(crate) redirect_uri: String,
    pub(crate) challenge: Option<String>,
    pub(crate) expires_at: i64,
    pub(crate) used: bool,
    /// What it is exchanged for, if not the usual token of a person.
    pub(crate) order: Option<TokenOrder>,
}

impl Code {
    pub(crate) fn new(app_id: &str, owner: &str, redirect_uri: &str, expires_at: i64) -> Self {
        Self {
            app_id: app_id.to_owned(),
            owner: owner.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            challenge: None,
            expires_at,
            used: false,
            order: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) clock: Clock,
    pub(crate) apps: Vec<App>,
    /// App tokens from `client_credentials`, and the app of each.
    pub(crate) app_tokens: HashMap<String, String>,
    pub(crate) people: BTreeMap<String, Person>,
    pub(crate) tokens: HashMap<String, Token>,
    pub(crate) codes: HashMap<String, Code>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) usage: Usage,
    pub(crate) requests: Vec<RecordedRequest>,
    pub(crate) switches: Switches,
    pub(crate) outbox: Vec<Outgoing>,
}

/// The key of a person in [`State::people`].
pub(crate) fn person_key(name: &str, system: bool) -> String {
    format!("{}:{name}", if system { "system" } else { "user" })
}

impl State {
    fn new(clock: Clock, apps: Vec<App>, switches: Switches) -> Self {
        Self {
            clock,
            apps,
            app_tokens: HashMap::new(),
            people: BTreeMap::new(),
            tokens: HashMap::new(),
            codes: HashMap::new(),
            faults: Vec::new(),
            usage: Usage::default(),
            requests: Vec::new(),
            switches,
            outbox: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.now()
    }

    pub(crate) fn app(&self, id: &str) -> Option<&App> {
        self.apps.iter().find(|app| app.id == id)
    }

    pub(crate) fn default_app(&self) -> App {
        self.apps.first().cloned().unwrap_or_default()
    }

    /// The app if its id and secret are right, otherwise the error of the token endpoint.
    pub(crate) fn authenticated_app(
        &self,
        id: Option<&str>,
        secret: Option<&str>,
    ) -> Result<App, GraphError> {
        let id =
            id.ok_or_else(|| error::parameter("Missing client_id parameter.").challenged("invalid_request"))?;
        let app = self.app(id).ok_or_else(error::bad_app)?;
        let secret = secret.ok_or_else(|| {
            error::parameter("Missing client_secret parameter.").challenged("invalid_request")
        })?;
        if !app.secrets.iter().any(|known| known == secret) {
            return Err(error::bad_secret());
        }
        match app.blocked {
            Some(block) => Err(error::app_blocked(block)),
            None => Ok(app.clone()),
        }
    }

    /// The key of a person. An unknown person is created.
    pub(crate) fn enter(&mut self, name: &str, system: bool) -> String {
        let key = person_key(name, system);
        let now = self.now();
        self.people.entry(key.clone()).or_insert_with(|| Person::new(name, system, now));
        key
    }

    /// The person with this key. For an unknown key, a new person without grants.
    pub(crate) fn person(&self, key: &str) -> Person {
        self.people.get(key).cloned().unwrap_or_else(|| Person::new(key, false, self.now()))
    }

    pub(crate) fn key_by_id(&self, id: &str) -> Option<String> {
        self.people.iter().find(|(_, person)| person.id == id).map(|(key, _)| key.clone())
    }

    pub(crate) fn mint(&mut self, owner: &str, order: TokenOrder) -> Token {
        let now = self.now();
        let system = self.people.get(owner).is_some_and(|person| person.system);
        let natural = if system { TokenKind::SystemUser } else { TokenKind::User };
        let token = Token {
            text: token_text(order.length),
            app_id: order.app_id.unwrap_or_else(|| self.default_app().id),
            owner: owner.to_owned(),
            kind: order.kind.unwrap_or(natural),
            issued_at: now,
            expires_at: if order.life_seconds == 0 { 0 } else { now.saturating_add(order.life_seconds) },
            long: order.long,
            scopes: order.scopes,
            dead: None,
        };
        self.tokens.insert(token.text.clone(), token.clone());
        token
    }

    /// A page's token: it never expires if it comes from a long-lived user token.
    pub(crate) fn page_token(&mut self, parent: &Token, page_id: &str) -> Token {
        let kind = TokenKind::Page(page_id.to_owned());
        let expires_at = if parent.long { 0 } else { parent.expires_at };
        let same = |token: &&Token| {
            token.owner == parent.owner
                && token.kind == kind
                && token.app_id == parent.app_id
                && token.expires_at == expires_at
                && token.dead.is_none()
        };
        if let Some(token) = self.tokens.values().find(same) {
            return token.clone();
        }
        let order = TokenOrder {
            kind: Some(kind),
            app_id: Some(parent.app_id.clone()),
            long: parent.long,
            ..TokenOrder::default()
        };
        let mut token = self.mint(&parent.owner, order);
        token.expires_at = expires_at;
        self.tokens.insert(token.text.clone(), token.clone());
        token
    }

    pub(crate) fn kill(&mut self, text: &str, subcode: Option<u32>) {
        if let Some(token) = self.tokens.get_mut(text) {
            token.dead = Some(Refusal::of(subcode, &token.app_id));
        }
    }

    /// Ends every valid token of a person, in one app or in all.
    pub(crate) fn kill_all(&mut self, owner: &str, app_id: Option<&str>, subcode: u32) {
        for token in self.tokens.values_mut() {
            let here = token.owner == owner && app_id.is_none_or(|app| app == token.app_id);
            if here && token.dead.is_none() {
                token.dead = Some(Refusal::of(Some(subcode), &token.app_id));
            }
        }
    }

    /// A person removes the app: their tokens end, and Meta calls the app back. It says nothing about a system user.
    pub(crate) fn deauthorize(&mut self, owner: &str, app_id: &str) {
        self.kill_all(owner, Some(app_id), 458);
        let person = self.person(owner);
        if person.system {
            return;
        }
        let app = self.app(app_id).cloned().unwrap_or_default();
        let right = app.secrets.first().cloned().unwrap_or_default();
        let delivery = self.switches.delivery;
        let secret = if delivery == Delivery::BadSignature { "not the secret".to_owned() } else { right };
        let week = if delivery == Delivery::Replayed { 7 * crate::clock::DAY } else { 0 };
        let at = self.now().saturating_sub(week);
        let delay = Duration::from_secs(if delivery == Delivery::Late { 1 } else { 0 });
        let mut waiting = Vec::new();
        if let Some(url) = self.switches.deauthorize_url.clone() {
            let signed = callbacks::signed_request(&secret, &person.id, at);
            waiting.push(Outgoing::signed_request(url, &signed, delay));
        }
        if let Some(url) = self.switches.webhook_url.clone() {
            let body = callbacks::permissions_webhook(&person.id, at).to_string();
            let signature = Some(callbacks::hub_signature(&secret, &body));
            waiting.push(Outgoing::webhook(url, body, signature, delay));
        }
        if delivery == Delivery::Twice {
            waiting.extend(waiting.clone());
        }
        self.outbox.extend(waiting);
    }
}
