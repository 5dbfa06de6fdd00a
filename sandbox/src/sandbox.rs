//! The running sandbox and everything that a test can do with it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::{App, AppBlock, ExchangeMood, SandboxConfig, Switches};
use crate::dialog::{self, Decision};
use crate::faults::Fault;
use crate::routes;
use crate::state::Shared;
use crate::usage::UsageScope;
use crate::user::{SystemUser, User};
use crate::wire::callbacks::{Callback, Delivered};
use crate::wire::request::{Endpoint, RecordedRequest};
use crate::wire::server;

/// A running Graph API sandbox. Clones share it, and it stops when the last one is dropped.
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

    /// `http://127.0.0.1:PORT`, for the Graph API and the dialog.
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Closes the port and every connection. Its data stays readable.
    pub async fn shutdown(&self) {
        self.server.task.abort();
        while !self.server.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits for the shutdown.
    pub async fn wait(&self) {
        while !self.server.task.is_finished() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Returns the first app.
    pub fn app(&self) -> App {
        self.shared.lock().default_app()
    }

    /// Adds an app, or replaces the one with the same id.
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

    /// Refuses every call of an app, or ends this with `None`. Tokens stay as they are.
    pub fn block_app(&self, app_id: &str, block: impl Into<Option<AppBlock>>) {
        let block = block.into();
        self.change_app(app_id, |app| app.blocked = block);
    }

    /// Replaces the app's secrets. The old ones and the app tokens stop working at once; user tokens stay valid.
    pub fn roll_app_secret(&self, app_id: &str, new: &str) {
        self.change_app(app_id, |app| app.secrets = vec![new.to_owned()]);
        self.shared.lock().app_tokens.retain(|_, app| app != app_id);
    }

    /// Returns the person with this name. An unknown person is created with `public_profile`, one active ad account
    /// with delivery, and no other grants.
    pub fn user(&self, name: &str) -> User {
        User::new(self.shared.clone(), name, false)
    }

    /// Returns the system user with this name, and creates an unknown one.
    pub fn system_user(&self, name: &str) -> SystemUser {
        User::new(self.shared.clone(), name, true)
    }

    /// Lets the token expire, as of one second ago.
    pub fn expire(&self, token: &str) {
        self.expires_at(token, self.shared.clock.now().saturating_sub(1));
    }

    /// Sets when a token expires; 0 is never.
    pub fn expires_at(&self, token: &str, unix_seconds: i64) {
        if let Some(token) = self.shared.lock().tokens.get_mut(token) {
            token.expires_at = unix_seconds;
        }
    }

    /// Refuses the token with 190 and this subcode from now on.
    pub fn kill(&self, token: &str, subcode: Option<u32>) {
        self.shared.lock().kill(token, subcode);
    }

    /// Undoes [`Sandbox::kill`].
    pub fn revive(&self, token: &str) {
        if let Some(token) = self.shared.lock().tokens.get_mut(token) {
            token.dead = None;
        }
    }

    /// Returns when a token expires, in unix seconds, 0 for never; `None` for an unknown token.
    pub fn expiry_of(&self, token: &str) -> Option<i64> {
        self.shared.lock().tokens.get(token).map(|token| token.expires_at)
    }

    /// Sets what exchanges return.
    pub fn set_mood(&self, mood: ExchangeMood) {
        self.shared.lock().switches.mood = mood;
    }

    /// Changes switches, see [`Switches`].
    pub fn switch(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.shared.lock().switches);
    }

    /// Adds a fault.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    /// Removes all faults, and sends the replies that hang.
    pub fn clear_faults(&self) {
        self.shared.clear_faults();
    }

    /// Removes the faults that are limited to this token.
    pub fn clear_faults_of(&self, token: &str) {
        self.shared.lock().faults.retain(|fault| fault.token.as_deref() != Some(token));
    }

    /// The clock of the sandbox, which can be set.
    pub fn clock(&self) -> Clock {
        self.shared.clock.clone()
    }

    /// Sets how much of a limit is used, in percent. At 100 or more the scope is blocked.
    pub fn usage(&self, scope: UsageScope, percent: f64) {
        let mut state = self.shared.lock();
        let (now, tier) = (state.now(), state.switches.tier);
        state.usage.set(scope, percent, now, tier);
    }

    /// Blocks a scope for some time on the sandbox's clock. Each call during the block adds 10 s.
    pub fn throttle(&self, scope: UsageScope, how_long: Duration) {
        let mut state = self.shared.lock();
        let now = state.now();
        state.usage.block(scope, crate::clock::seconds(how_long), now);
    }

    /// Sets all meters to 0 and ends all blocks.
    pub fn clear_usage(&self) {
        self.shared.lock().usage.clear();
    }

    /// Lets a person decide at the dialog at `dialog_url`, and returns the URL that the browser is sent to.
    ///
    /// # Errors
    /// The text of the error page, if the dialog shows one.
    pub fn consent(&self, dialog_url: &str, user: &str, decision: Decision) -> Result<String, String> {
        dialog::consent(&self.shared, dialog_url, user, decision)
    }

    /// Sends a callback to the app, and returns each delivery with the app's reply.
    ///
    /// # Errors
    /// What is missing in the order, such as the person.
    pub async fn call_back(&self, callback: Callback) -> Result<Vec<Delivered>, String> {
        self.shared.call_back(callback).await
    }

    /// Returns every Graph API request so far, in order of arrival, without the requests of `/_sandbox`.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.lock().requests.clone()
    }

    /// Returns how many requests an endpoint got.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.shared.lock().requests.iter().filter(|request| endpoint.matches(request.endpoint)).count()
    }

    /// Returns how many requests to an endpoint have no reply yet. One whose client hung up no longer counts.
    pub fn unanswered(&self, endpoint: Endpoint) -> usize {
        let unanswered = self.shared.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        unanswered.iter().filter(|asked| endpoint.matches(**asked)).count()
    }

    /// Removes the recorded requests.
    pub fn clear_requests(&self) {
        self.shared.lock().requests.clear();
    }
}
