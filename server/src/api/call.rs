//! One call: its id, who makes it, and how it ended. All layers and the handler share one `Call`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::HeaderValue;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::access::{Permission, Rpc};
use super::denial::Denial;
use super::listener::Peer;
use crate::model::Principal;
use crate::vault::{Origin, VaultError};

#[derive(Debug)]
pub(super) struct Call {
    id: String,
    peer: Arc<Peer>,
    row: Option<&'static Rpc>,
    path: String,
    principal: OnceLock<Arc<Principal>>,
    connection: OnceLock<String>,
    reason: OnceLock<&'static str>,
    detail: OnceLock<String>,
}

impl Call {
    /// An unauthenticated call to `path`, from no connection.
    pub(super) fn new(path: &str) -> Self {
        Self::over(Arc::default(), path)
    }

    /// An unauthenticated call to `path`, over the connection with `peer`.
    pub(super) fn over(peer: Arc<Peer>, path: &str) -> Self {
        let row = Rpc::at(path);
        Self {
            id: next_id(),
            peer,
            row,
            // Only an unknown path is kept, and shortened: it is text from the caller.
            path: if row.is_some() { String::new() } else { path.chars().take(100).collect() },
            principal: OnceLock::new(),
            connection: OnceLock::new(),
            reason: OnceLock::new(),
            detail: OnceLock::new(),
        }
    }

    /// Names the call in logs and in the response's metadata.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn id_header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.id).ok()
    }

    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// The RPC's row in the access table; `None` for health, reflection and unknown paths.
    pub(super) fn row(&self) -> Option<&'static Rpc> {
        self.row
    }

    /// The RPC's name: `tokenvault.v1.TokenVault/StoreToken`.
    pub(super) fn rpc(&self) -> &str {
        self.row.map_or(self.path.as_str(), |row| row.path).trim_start_matches('/')
    }

    pub(super) fn set_caller(&self, principal: Arc<Principal>) {
        // There is one authentication per call.
        let _ = self.principal.set(principal);
    }

    /// The caller. Below the authentication layer this never fails.
    pub(super) fn caller(&self) -> Result<&Principal, VaultError> {
        self.principal.get().map(Arc::as_ref).ok_or(VaultError::ApiKeyInvalid)
    }

    /// [`Self::caller`], for a watch, which outlives the call.
    pub(super) fn caller_to_keep(&self) -> Result<Arc<Principal>, VaultError> {
        self.principal.get().cloned().ok_or(VaultError::ApiKeyInvalid)
    }

    /// Remembers which connection the call names, for a denial's metadata.
    pub(super) fn about(&self, connection: &str) {
        let _ = self.connection.set(connection.to_owned());
    }

    /// The connection that the call names; empty if it names none.
    pub(super) fn connection(&self) -> &str {
        self.connection.get().map_or("", String::as_str)
    }

    /// The span of the call's log lines. On the hot path it exists at `debug` only: a span costs about one
    /// microsecond, a call twenty.
    pub(super) fn span(&self) -> tracing::Span {
        match self.row.map(|row| row.permission) {
            Some(Permission::Fetch) | None => tracing::debug_span!("call", call_id = self.id),
            Some(_) => tracing::error_span!("call", call_id = self.id),
        }
    }

    /// The denial's reason; empty if there was none.
    pub(super) fn reason(&self) -> &'static str {
        self.reason.get().copied().unwrap_or("")
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.principal.get().is_some()
    }

    /// The caller, the RPC and the address of the call, for the audit log.
    pub(super) fn origin(&self) -> Arc<Origin> {
        Arc::new(Origin::call(self.principal.get().cloned(), self.rpc(), &self.id, self.peer.address()))
    }

    /// Whether the vault denied the call. Any other error comes from the transport.
    pub(super) fn is_denied(&self) -> bool {
        self.reason.get().is_some()
    }

    /// Remembers what the provider replied, redacted, for the log line.
    pub(super) fn note_detail(&self, detail: &str) {
        let _ = self.detail.set(detail.to_owned());
    }

    /// The status of a denial, whose reason the log line repeats.
    pub(super) fn deny(&self, denial: Denial) -> Status {
        let _ = self.reason.set(denial.reason());
        denial.into_status()
    }

    /// The status of a call that a bug ended.
    pub(super) fn bug(&self) -> Status {
        self.deny(Denial::bug(&self.id))
    }

    /// Splits a request into its call and its message.
    pub(super) fn open<T>(mut request: Request<T>) -> Result<(Arc<Self>, T), Status> {
        match request.extensions_mut().remove::<Arc<Self>>() {
            Some(call) => Ok((call, request.into_inner())),
            None => Err(Status::internal("the call passed no layer")),
        }
    }

    /// Writes the call's one log line, which never holds the request's content.
    pub(super) fn log(&self, code: Code, took: Duration) {
        let duration_ms = (took.as_secs_f64() * 1_000_000.0).round() / 1_000.0;
        let principal = self.principal.get().map_or("", |principal| principal.name.as_str());
        let reason = self.reason.get().copied().unwrap_or("");
        let detail = self.detail.get().map_or("", String::as_str);
        let (rpc, call_id) = (self.rpc(), self.id.as_str());
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(rpc, principal, code = ?code, reason, detail, duration_ms, call_id, "call")
            };
        }
        match code {
            Code::Internal | Code::Unavailable | Code::DataLoss | Code::Unknown => line!(warn),
            _ if self.row.is_some_and(|row| row.changes) => line!(info),
            _ => line!(debug),
        }
    }

    /// Writes the log line of a watch that ended. `Cancelled`: its caller hung up.
    pub(super) fn log_watch(&self, code: Code, took: Duration, events: usize) {
        let by = self.principal.get().map_or("", |principal| principal.name.as_str());
        let reason = self.reason.get().copied().unwrap_or("");
        let (seconds, call_id) = (took.as_secs(), self.id.as_str());
        tracing::info!(by, seconds, events, code = ?code, reason, call_id, "watch ends");
    }
}

/// Logs the call when dropped, so that a call whose caller hangs up is logged too.
pub(super) struct LogAtEnd {
    call: Arc<Call>,
    started: Instant,
    code: Code,
}

impl LogAtEnd {
    pub(super) fn new(call: Arc<Call>) -> Self {
        Self { call, started: Instant::now(), code: Code::Cancelled }
    }

    pub(super) fn ended(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for LogAtEnd {
    fn drop(&mut self) {
        self.call.log(self.code, self.started.elapsed());
    }
}

/// A call id. Its random half makes it unique across processes, and it asks the system for randomness only once.
fn next_id() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let process = PROCESS.get_or_init(|| Uuid::new_v4().as_u64_pair().1);
    Uuid::from_u64_pair(*process, NEXT.fetch_add(1, Ordering::Relaxed)).simple().to_string()
}
