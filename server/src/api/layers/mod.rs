//! The steps around every call. Each is one async function; [`Around`] makes a service of it.

mod bodies;
mod rate_limits;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument;

use super::call::{Call, LogAtEnd};
use super::denial::Refused;
use super::limits::Limits;
use super::listener::Peer;
use super::status::refuse;
use crate::model::{Principal, Role, Secret};
use crate::vault::{Origin, Shares, Vault, VaultError};
use bodies::{Arriving, hold, until_read};
use rate_limits::{Guesses, PrincipalRates};

/// How long a call may take whose caller names no deadline.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// The longest deadline that a caller may name.
const LONGEST_DEADLINE: Duration = Duration::from_secs(5 * 60);
/// Our deadline comes a little before the caller's own, so that the answer is ours and is logged.
const DEADLINE_LEAD: Duration = Duration::from_millis(5);
/// Streams of the standard services that one connection may have.
const OPEN_STREAMS_PER_CONNECTION: usize = 16;
/// What probes ask.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// The reason of a refusal that the audit log could not take.
const AUDIT_UNAVAILABLE: &str = "AUDIT_UNAVAILABLE";
/// Longest header that can hold a key, or a token.
const LONGEST_KEY: usize = 8 * 1024 + 64;

/// What a step calls next.
pub(super) trait Inner: Service<Request<Body>, Response = Response<Body>, Error = Infallible> {}
impl<S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>> Inner for S {}

/// What a step gives back.
type Outcome = Result<Response<Body>, Infallible>;

/// A layer made of `step`, an async function of the state, the request and the service below.
pub(super) fn around<T, F>(state: T, step: F) -> AroundLayer<T, F> {
    AroundLayer { state, step }
}

/// See [`around`].
#[derive(Clone)]
pub(super) struct AroundLayer<T, F> {
    state: T,
    step: F,
}

impl<S, T: Clone, F: Clone> Layer<S> for AroundLayer<T, F> {
    type Service = Around<S, T, F>;

    fn layer(&self, inner: S) -> Self::Service {
        Around { inner, state: self.state.clone(), step: self.step.clone() }
    }
}

/// See [`around`].
#[derive(Clone)]
pub(super) struct Around<S, T, F> {
    inner: S,
    state: T,
    step: F,
}

impl<S, T, F, Fut> Service<Request<Body>> for Around<S, T, F>
where
    S: Inner + Clone,
    T: Clone,
    F: Fn(T, Request<Body>, S) -> Fut,
    Fut: Future<Output = Outcome>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Fut;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Fut {
        // The service that was polled ready is the one to use; its clone waits for the next call.
        let next = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, next);
        (self.step)(self.state.clone(), request, ready)
    }
}

/// Gives the call an id, returns it as metadata `call-id`, and logs the call when it is over.
pub(super) async fn observe<S: Inner>((): (), mut request: Request<Body>, mut inner: S) -> Outcome {
    let peer = request.extensions_mut().remove::<Arc<Peer>>().unwrap_or_default();
    let call = Arc::new(Call::of(peer, request.uri().path()));
    let mut log = LogAtEnd::new(call.clone());
    request.extensions_mut().insert(call.clone());
    let mut response = inner.call(request).instrument(call.span()).await?;
    log.ended(code_of(&response));
    if let Some(id) = call.header() {
        response.headers_mut().insert("call-id", id);
    }
    Ok(response)
}

/// A bug ends one call, not the process.
pub(super) async fn catch_panic<S: Inner>((): (), request: Request<Body>, mut inner: S) -> Outcome {
    let call = call_of(&request);
    match AssertUnwindSafe(inner.call(request)).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(_) => Ok(call.bug().into_http()),
    }
}

/// The places for those of whom it is not known yet who they are.
#[derive(Clone)]
pub(super) struct Places {
    /// For calls with a key.
    arriving: Arc<Semaphore>,
    /// For streams of the standard services.
    open_streams: Arc<Semaphore>,
}

fn places(most: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)))
}

impl Places {
    /// As many as the limits say.
    pub(super) fn new(limits: &Limits) -> Self {
        Self { arriving: places(limits.max_calls), open_streams: places(limits.max_open_streams) }
    }
}

/// A place of [`Places::arriving`], which is given back once it is known who calls.
type Arrival = Arc<OwnedSemaphorePermit>;

/// Refuses at once when too many calls arrive. The standard services have places of their own, of which
/// `Health/Check` needs none: a probe always gets through.
pub(super) async fn admit<S: Inner>(places: Places, mut request: Request<Body>, mut inner: S) -> Outcome {
    let call = call_of(&request);
    let path = request.uri().path();
    if path == HEALTH_CHECK {
        return inner.call(request).await;
    }
    if is_open(path) {
        let Some(place) = OpenStream::begin(&call, &places.open_streams) else {
            return Ok(Refused::too_many_open_streams().into_status(&call).into_http());
        };
        // Such a stream has no end of its own: the place is taken for as long as its answer goes on.
        return Ok(hold(inner.call(request).await?, place));
    }
    let busy = call.peer().busy();
    match Arc::clone(&places.arriving).try_acquire_owned() {
        Ok(place) => {
            request.extensions_mut().insert(Arrival::new(place));
            Ok(hold(inner.call(request).await?, busy))
        }
        Err(_) => Ok(Refused::overloaded().into_status(&call).into_http()),
    }
}

/// A place for one stream of the standard services: among all, and among those of its connection.
struct OpenStream {
    peer: Arc<Peer>,
    _place: OwnedSemaphorePermit,
}

impl OpenStream {
    fn begin(call: &Call, places: &Arc<Semaphore>) -> Option<Self> {
        let place = Arc::clone(places).try_acquire_owned().ok()?;
        let before = call.peer().open_streams.fetch_add(1, Ordering::Relaxed);
        let stream = Self { peer: Arc::clone(call.peer()), _place: place };
        (before < OPEN_STREAMS_PER_CONNECTION).then_some(stream)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.peer.open_streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends the waiting for an answer at the caller's deadline, or the default one.
pub(super) async fn deadline<S: Inner>((): (), request: Request<Body>, mut inner: S) -> Outcome {
    let call = call_of(&request);
    let time = grpc_timeout(request.headers()).unwrap_or(DEFAULT_DEADLINE).min(LONGEST_DEADLINE);
    match tokio::time::timeout(time.saturating_sub(DEADLINE_LEAD), inner.call(request)).await {
        Ok(outcome) => outcome,
        Err(_) => Ok(Refused::too_late().into_status(&call).into_http()),
    }
}

/// What is needed to let somebody in.
#[derive(Clone)]
pub(super) struct Gate(Arc<GateState>);

struct GateState {
    vault: Arc<Vault>,
    rates: PrincipalRates,
    guesses: Guesses,
    /// The places for calls in flight.
    calls: Arc<Semaphore>,
    /// Those beside them that admins may take: whoever fills the vault can be stopped.
    reserved: Arc<Semaphore>,
    shares: Shares,
}

/// A place among the calls in flight, and one of the principal's share.
type Place = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Gate {
    /// The gate of this vault.
    pub(super) fn new(vault: Arc<Vault>, limits: &Limits) -> Self {
        let rates = PrincipalRates::new(limits.per_principal_rps, limits.per_principal_burst);
        let guesses = Guesses::new(limits.failed_authentications_per_minute);
        let reserved = limits.max_calls / 16;
        Self(Arc::new(GateState {
            vault,
            rates,
            guesses,
            calls: places(limits.max_calls.saturating_sub(reserved)),
            reserved: places(reserved),
            shares: Shares::new(limits.max_calls_per_principal),
        }))
    }
}

impl GateState {
    /// Who calls, by key, by certificate, or by both.
    async fn identify(&self, call: &Call, key: Option<Secret>) -> Result<Arc<Principal>, Status> {
        let peer = call.peer();
        // A certificate alone is no guess: its chain was verified.
        let guess = key.is_some() || peer.certificate().is_none();
        // Many may be behind an address. Who guesses at random has no key that costs so little.
        if guess
            && let Some(wait) = self.guesses.shut(peer.address().ip())
            && !key.as_ref().is_some_and(|key| self.vault.is_cheap_to_judge(key))
        {
            return Err(Refused::too_many_failures(wait).into_status(call));
        }
        let known = match (&key, peer.certificate()) {
            (Some(key), None) => self.vault.authenticate(key).await,
            (Some(key), Some(certificate)) => self.vault.authenticate_both(key, certificate).await,
            (None, Some(certificate)) => self.vault.authenticate_certificate(certificate),
            (None, None) => Err(VaultError::ApiKeyInvalid),
        };
        known.map_err(|error| {
            let refused = refuse(error, call);
            let failed = guess && refused.code() == Code::Unauthenticated;
            match failed.then(|| self.guesses.failed(peer.address().ip())).flatten() {
                Some(wait) => Refused::too_many_failures(wait).into_status(call),
                None => refused,
            }
        })
    }
}

impl GateState {
    /// A place among the calls in flight. No principal can take them all.
    fn place_for(&self, call: &Call) -> Result<Place, Status> {
        let principal = call.caller().map_err(|error| refuse(error, call))?;
        let share = self.shares.try_take(&principal.name);
        let share = share.ok_or_else(|| Refused::too_many_calls().into_status(call))?;
        let place = Arc::clone(&self.calls).try_acquire_owned().or_else(|full| match principal.role {
            Role::Admin => Arc::clone(&self.reserved).try_acquire_owned(),
            _ => Err(full),
        });
        Ok((place.map_err(|_| Refused::overloaded().into_status(call))?, share))
    }
}

/// Finds out who calls, whether the role may, and whether its share is left, before a byte of the body is decoded.
pub(super) async fn authenticate<S: Inner>(gate: Gate, mut request: Request<Body>, mut inner: S) -> Outcome {
    let call = call_of(&request);
    // The key goes no further than this.
    let header = request.headers_mut().remove(AUTHORIZATION);
    let Some(row) = call.row() else {
        return if is_open(request.uri().path()) {
            inner.call(request).await
        } else {
            Ok(Refused::unimplemented().into_status(&call).into_http())
        };
    };
    let known = async {
        // A header that holds no key is a key that is no good: a certificate does not stand in for it.
        let key = match &header {
            None => None,
            Some(header) => Some(bearer(header).ok_or_else(|| refuse(VaultError::ApiKeyInvalid, &call))?),
        };
        let principal = gate.0.identify(&call, key).await?;
        let role = principal.role;
        let taken = gate.0.rates.take(&principal.name);
        call.authenticated(principal);
        taken.map_err(|wait| Refused::too_often(wait).into_status(&call))?;
        if !row.allows(role) {
            return Err(refuse(VaultError::RoleInsufficient { role }, &call));
        }
        gate.0.place_for(&call)
    };
    match known.await {
        Ok(place) => {
            drop(request.extensions_mut().remove::<Arrival>());
            let request = request.map(|body| Body::new(Arriving::new(body, Arc::clone(&call))));
            let response = inner.call(request).await?;
            // A watch has bounds of its own.
            Ok(if row.watches { response } else { until_read(response, place) })
        }
        Err(status) => {
            // A database that is away turns nobody away; it only does not answer. Who guesses too often is nobody yet.
            let turned_away = match status.code() {
                Code::Unauthenticated | Code::PermissionDenied => true,
                Code::ResourceExhausted => !call.is_authenticated(),
                _ => false,
            };
            if turned_away {
                gate.0.vault.record_refusal(&call.origin(), code_name(status.code()), call.reason()).await;
            }
            Ok(status.into_http())
        }
    }
}

/// A call that may be dropped before it has an answer.
struct Abandoned<'a> {
    vault: &'a Arc<Vault>,
    origin: Option<Arc<Origin>>,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some(origin) = self.origin.take() {
            self.vault.record_abandoned(origin);
        }
    }
}

/// Says on whose behalf the call is made, lets no change begin that could not be recorded, and records how a call
/// ended that changed nothing. What it changes or hands out, the vault records where that happens.
pub(super) async fn audit<S: Inner>(vault: Arc<Vault>, request: Request<Body>, mut inner: S) -> Outcome {
    let call = call_of(&request);
    let Some(row) = call.row() else { return inner.call(request).await };
    let origin = call.origin();
    if row.changes
        && let Err(error) = vault.may_change()
    {
        return Ok(refuse(error, &call).into_http());
    }
    let mut abandoned = Abandoned { vault: &vault, origin: row.changes.then(|| Arc::clone(&origin)) };
    let response = Arc::clone(&origin).scope(inner.call(request)).await?;
    abandoned.origin = None;
    let code = code_of(&response);
    // The gate has closed meanwhile: its refusal needs no record, and could have none.
    if !row.changes || call.reason() == AUDIT_UNAVAILABLE {
        return Ok(response);
    }
    match vault.record_unchanged(&origin, code_name(code), call.reason()).await {
        Err(error) if code == Code::Ok => Ok(refuse(error, &call).into_http()),
        _ => Ok(response),
    }
}

/// Puts what the transport refuses by itself into our words: its codes would tell the caller the wrong thing.
pub(super) async fn translate<S: Inner>(largest: usize, request: Request<Body>, mut inner: S) -> Outcome {
    let call = call_of(&request);
    let response = inner.call(request).await?;
    let foreign = call.row().is_some() && !call.has_refused();
    Ok(match code_of(&response) {
        Code::OutOfRange if foreign => Refused::too_large(largest).into_status(&call).into_http(),
        Code::Internal if foreign => Refused::unreadable().into_status(&call).into_http(),
        _ => response,
    })
}

/// An error that is known before the body stands in the headers; otherwise the body is on its way.
fn code_of(response: &Response<Body>) -> Code {
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

/// A code's name in gRPC's own words.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The standard services, which tell nothing of any workspace and need no key.
fn is_open(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/") || path.starts_with("/grpc.reflection.")
}

/// The call that `observe` put there. One made anew (if a layer was put outside it) is only not logged.
fn call_of(request: &Request<Body>) -> Arc<Call> {
    request
        .extensions()
        .get::<Arc<Call>>()
        .cloned()
        .unwrap_or_else(|| Arc::new(Call::new(request.uri().path())))
}

/// The key in `authorization: Bearer <key>`.
fn bearer(header: &HeaderValue) -> Option<Secret> {
    let text = Some(header).filter(|value| value.len() <= LONGEST_KEY)?.to_str().ok()?;
    let (scheme, key) = text.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then(|| Secret::new(key.to_owned()))
}

/// The caller's deadline: up to eight digits and a unit, as gRPC over HTTP/2 tells it.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount.saturating_mul(3_600))),
        "M" => Some(Duration::from_secs(amount.saturating_mul(60))),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_after_bearer() {
        let key = |text: &'static str| bearer(&HeaderValue::from_static(text)).map(|s| s.expose().to_owned());
        assert_eq!(key("Bearer tvk_1"), Some("tvk_1".into()));
        assert_eq!(key("bearer  tvk_1"), Some("tvk_1".into()));
        for bad in ["", "Bearer", "Bearer ", "Basic dXNlcg==", "tvk_1"] {
            assert_eq!(key(bad), None, "{bad:?}");
        }
        let long = format!("Bearer {}", "x".repeat(LONGEST_KEY));
        assert!(bearer(&HeaderValue::from_str(&long).unwrap()).is_none());
    }

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        let time = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            grpc_timeout(&headers)
        };
        assert_eq!(time("10S"), Some(Duration::from_secs(10)));
        assert_eq!(time("1500m"), Some(Duration::from_millis(1_500)));
        assert_eq!(time("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "S", "10", "10x", "123456789S", "-1S", "1é"] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert_eq!(grpc_timeout(&headers), None, "{bad}");
        }
    }
}
