//! The running sandbox, and everything a test can do to it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::{App, ExchangeMood, SandboxConfig, Switches};
use crate::dialog::{self, Decision};
use crate::faults::Fault;
use crate::routes;
use crate::state::Shared;
use crate::usage::UsageScope;
use crate::user::{SystemUser, User};
use crate::wire::request::{Endpoint, RecordedRequest};
use crate::wire::server;

/// A running Graph API sandbox. Clones are the same one; it stops when the last is dropped.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
    server: Arc<Server>,
}

struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("url", &self.shared.url).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Starts on the current Tokio runtime.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(config: SandboxConfig) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let shared = Shared::new(&config, format!("http://{address}"), tokio::runtime::Handle::current());
        let task = tokio::spawn(server::serve(listener, routes::router(shared.clone())));
        Ok(Self { shared, server: Arc::new(Server { address, task }) })
    }

    /// `http://127.0.0.1:PORT`: Graph host and dialog host in one.
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Closes the port and every connection. What was remembered stays readable.
    pub async fn shutdown(&self) {
        self.server.task.abort();
        while !self.server.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Runs until the server ends, which is until shutdown.
    pub async fn wait(&self) {
        while !self.server.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The first app.
    pub fn app(&self) -> App {
        self.shared.lock().default_app()
    }

    /// One more app, or a new state of a known one.
    pub fn add_app(&self, app: App) {
        self.set_app(app);
    }

    /// Replaces the app of the same id, or adds it.
    pub fn set_app(&self, app: App) {
        let mut state = self.shared.lock();
        match state.apps.iter_mut().find(|known| known.id == app.id) {
            Some(known) => *known = app,
            None => state.apps.push(app),
        }
    }

    /// Changes an app in place, for instance its `require_proof`.
    pub fn change_app(&self, app_id: &str, change: impl FnOnce(&mut App)) {
        if let Some(app) = self.shared.lock().apps.iter_mut().find(|app| app.id == app_id) {
            change(app);
        }
    }

    /// The old secrets stop working at once, and app tokens with them. User tokens live on.
    pub fn roll_app_secret(&self, app_id: &str, new: &str) {
        self.change_app(app_id, |app| app.secrets = vec![new.to_owned()]);
        self.shared.lock().app_tokens.retain(|_, app| app != app_id);
    }

    /// The person of this name: created with `public_profile`, one active ad account with delivery,
    /// and no further grants.
    pub fn user(&self, name: &str) -> User {
        User::new(self.shared.clone(), name, false)
    }

    /// The system user of this name, created when unknown.
    pub fn system_user(&self, name: &str) -> SystemUser {
        User::new(self.shared.clone(), name, true)
    }

    /// The token's end was one second ago.
    pub fn expire(&self, token: &str) {
        self.expires_at(token, self.shared.clock.now().saturating_sub(1));
    }

    /// Moves a token's end; 0 is never.
    pub fn expires_at(&self, token: &str, unix_seconds: i64) {
        if let Some(token) = self.shared.lock().tokens.get_mut(token) {
            token.expires_at = unix_seconds;
        }
    }

    /// The token is refused with 190 and this subcode from now on.
    pub fn kill(&self, token: &str, subcode: Option<u32>) {
        self.shared.lock().kill(token, subcode);
    }

    /// A killed token is good again.
    pub fn revive(&self, token: &str) {
        if let Some(token) = self.shared.lock().tokens.get_mut(token) {
            token.dead = None;
        }
    }

    /// The end of a token in unix seconds, 0 for never; `None` for an unknown token.
    pub fn expiry_of(&self, token: &str) -> Option<i64> {
        self.shared.lock().tokens.get(token).map(|token| token.expires_at)
    }

    /// What exchanges give from now on.
    pub fn set_mood(&self, mood: ExchangeMood) {
        self.shared.lock().switches.mood = mood;
    }

    /// Changes switches, see [`Switches`].
    pub fn switch(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.shared.lock().switches);
    }

    /// Scripts a fault.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Forgets all scripted faults.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// The settable clock that all expiry follows.
    pub fn clock(&self) -> Clock {
        self.shared.clock.clone()
    }

    /// Sets how much of a limit is used, in percent; from 100 on the scope is blocked.
    pub fn usage(&self, scope: UsageScope, percent: f64) {
        let mut state = self.shared.lock();
        let (now, tier) = (state.now(), state.switches.tier);
        state.usage.set(scope, percent, now, tier);
    }

    /// Blocks a scope for a time on the sandbox's clock; each call during it adds 10 s.
    pub fn throttle(&self, scope: UsageScope, how_long: Duration) {
        let mut state = self.shared.lock();
        let now = state.now();
        state.usage.block(scope, crate::clock::seconds(how_long), now);
    }

    /// All meters back to 0, all blocks lifted.
    pub fn clear_usage(&self) {
        self.shared.lock().usage.clear();
    }

    /// What a person answers on the dialog at `dialog_url`; gives the URL the browser is sent to.
    ///
    /// # Errors
    /// The dialog would show an error page instead; its text.
    pub fn consent(&self, dialog_url: &str, user: &str, decision: Decision) -> Result<String, String> {
        dialog::consent(&self.shared, dialog_url, user, decision)
    }

    /// Every Graph request so far, in order of arrival. Control requests are not among them.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.lock().requests.clone()
    }

    /// How many requests went to an endpoint.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.shared.lock().requests.iter().filter(|request| endpoint.matches(request.endpoint)).count()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.shared.lock().requests.clear();
    }
}
