//! What Meta sends to the app by itself. The sandbox signs and sends it to a small receiver, which passes it on as a
//! platform would, and answers what the vault says.

mod deletion;
mod hints;
mod portal;
mod subscription;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use token_vault_proto::v1::report_provider_callback_request::Kind as Callbacks;
use token_vault_sandbox::{Answer, Callback};
use token_vault_tests::prelude::*;
use tokio::net::TcpListener;

type Outcome = Result<pb::ReportProviderCallbackResponse, Denial>;

/// The message with which a platform passes on what it received at this path.
fn message(
    path: &str,
    method: &str,
    query: &str,
    headers: Vec<pb::Header>,
    body: Bytes,
) -> pb::ReportProviderCallbackRequest {
    let kind = match path.trim_start_matches('/') {
        "deauthorize" => Callbacks::Deauthorize,
        "data-deletion" => Callbacks::DataDeletion,
        "webhook" => Callbacks::Webhook,
        other => panic!("nobody sends to {other}"),
    };
    pb::ReportProviderCallbackRequest {
        provider: "meta".into(),
        kind: kind.into(),
        method: method.into(),
        query: query.into(),
        headers,
        body: body.into(),
    }
}

async fn received(request: Request) -> pb::ReportProviderCallbackRequest {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.expect("the sandbox sends a body");
    let header = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| pb::Header {
        name: name.to_string(),
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    let headers = head.headers.iter().map(header).collect();
    message(head.uri.path(), head.method.as_str(), head.uri.query().unwrap_or_default(), headers, body)
}

/// A platform that receives Meta's callbacks itself.
pub(crate) struct Platform {
    url: String,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    sent: Arc<Mutex<Vec<pb::ReportProviderCallbackRequest>>>,
}

impl Platform {
    /// Passes everything on with this caller's key.
    pub(crate) async fn start(caller: Caller) -> Self {
        Self::start_with(Some(caller)).await
    }

    /// Without a caller, it passes nothing on.
    async fn start_with(caller: Option<Caller>) -> Self {
        let (outcomes, sent) = (Arc::<Mutex<Vec<Outcome>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (told, kept) = (Arc::clone(&outcomes), Arc::clone(&sent));
        let answer = move |request: Request| {
            let (caller, told, kept) = (caller.clone(), Arc::clone(&told), Arc::clone(&kept));
            async move {
                let message = received(request).await;
                kept.lock().unwrap().push(message.clone());
                let Some(caller) = caller else { return StatusCode::OK.into_response() };
                let outcome = caller.report_provider_callback(message).await;
                told.lock().unwrap().push(outcome.clone());
                response(outcome)
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { url, outcomes, sent }
    }

    /// Has the sandbox send it, and returns what the platform answered to each.
    pub(crate) async fn gets_all(&self, world: &World, callback: Callback, path: &str) -> Vec<Answer> {
        let callback = callback.to(&format!("{}/{path}", self.url));
        let sent = world.sandbox.call_back(callback).await.expect("the sandbox sends it");
        sent.into_iter().map(|sent| sent.answer.expect("the platform answers")).collect()
    }

    pub(crate) async fn gets(&self, world: &World, callback: Callback, path: &str) -> Answer {
        self.gets_all(world, callback, path).await.swap_remove(0)
    }

    /// What the vault said to the latest one.
    fn last(&self) -> Outcome {
        self.outcomes.lock().unwrap().last().expect("one was passed on").clone()
    }

    /// The message of the latest one.
    fn last_sent(&self) -> pb::ReportProviderCallbackRequest {
        self.sent.lock().unwrap().last().expect("one was passed on").clone()
    }
}

fn response(outcome: Outcome) -> Response {
    let Ok(answer) = outcome else { return StatusCode::FORBIDDEN.into_response() };
    let status = u16::try_from(answer.http_status).ok().and_then(|code| StatusCode::from_u16(code).ok());
    (status.expect("a status of HTTP"), [("content-type", answer.content_type)], answer.body).into_response()
}

/// What a platform would pass on of this callback. It is passed on to nobody.
pub(crate) async fn sent_by_provider(world: &World, callback: Callback) -> pb::ReportProviderCallbackRequest {
    let platform = Platform::start_with(None).await;
    platform.gets(world, callback, "deauthorize").await;
    platform.last_sent()
}
