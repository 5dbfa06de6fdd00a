//! The steps around every call, a file each. A step is an async function; [`around`] makes a tower layer of it.
//! [`super::serve`] stacks them and says why they stand in that order.

mod admit;
mod audit;
mod authenticate;
mod bodies;
mod catch_panic;
mod deadline;
mod not_open;
mod observe;
mod rate_limits;
mod translate;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

pub(super) use admit::{Admission, admit};
pub(super) use audit::audit;
pub(super) use authenticate::{Authenticator, authenticate};
pub(super) use catch_panic::catch_panic;
pub(super) use deadline::deadline;
pub(super) use not_open::not_open;
pub(super) use observe::observe;
pub(super) use translate::translate;

use super::call::Call;

/// The service that a step calls next.
pub(super) trait Inner: Service<Request<Body>, Response = Response<Body>, Error = Infallible> {}
impl<S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>> Inner for S {}

type Outcome = Result<Response<Body>, Infallible>;

/// A layer made of `step`, an async function of the state, the request and the inner service.
pub(super) fn around<T, F>(state: T, step: F) -> AroundLayer<T, F> {
    AroundLayer { state, step }
}

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

/// The call that `observe` put into the request's extensions. A layer outside `observe` gets a call that is not logged.
fn call_of(request: &Request<Body>) -> Arc<Call> {
    request
        .extensions()
        .get::<Arc<Call>>()
        .cloned()
        .unwrap_or_else(|| Arc::new(Call::new(request.uri().path())))
}

/// The code in the headers; a response whose body is still to come counts as OK.
fn code_of(response: &Response<Body>) -> Code {
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

/// The code's name in gRPC's own spelling.
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

/// Whether `path` belongs to health or reflection, which reveal nothing of any workspace and need no key.
fn is_open(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/") || path.starts_with("/grpc.reflection.")
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}
