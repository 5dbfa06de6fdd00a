//! Sends to the app over plain http. It does not retry, as Meta would, and follows no redirect.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::{Method, Request, header};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use url::Url;

/// How long the app may take for its whole reply.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest reply that is read.
const LONGEST: usize = 1 << 20;

/// A request that is waiting to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) content_type: Option<&'static str>,
    /// `X-Hub-Signature-256`.
    pub(crate) signature: Option<String>,
    pub(crate) body: String,
    /// Real time, not that of the sandbox's clock.
    pub(crate) delay: Duration,
}

impl Outgoing {
    /// A POST with a `signed_request`.
    pub(crate) fn signed_request(url: String, signed: &str, delay: Duration) -> Self {
        let (content_type, body) =
            (Some("application/x-www-form-urlencoded"), format!("signed_request={signed}"));
        Self { method: Method::POST, url, content_type, signature: None, body, delay }
    }

    /// A POST of a webhook.
    pub(crate) fn webhook(url: String, body: String, signature: Option<String>, delay: Duration) -> Self {
        Self { method: Method::POST, url, content_type: Some("application/json"), signature, body, delay }
    }

    /// A GET.
    pub(crate) fn get(url: String, delay: Duration) -> Self {
        Self { method: Method::GET, url, content_type: None, signature: None, body: String::new(), delay }
    }
}

/// What the app replied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub status: u16,
    pub content_type: Option<String>,
    pub body: String,
}

/// What was sent, and what came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivered {
    pub method: String,
    pub url: String,
    /// The body that was sent.
    pub sent: String,
    /// The header `X-Hub-Signature-256` that was sent.
    pub signature: Option<String>,
    pub answer: Option<Answer>,
    /// Why there is no answer.
    pub error: Option<String>,
}

/// Waits for the delay, sends, and reads the reply.
pub(crate) async fn send(outgoing: Outgoing) -> Delivered {
    tokio::time::sleep(outgoing.delay).await;
    let answered = tokio::time::timeout(PATIENCE, answer(&outgoing))
        .await
        .unwrap_or_else(|_| Err(anyhow::anyhow!("no reply within {} seconds", PATIENCE.as_secs())));
    let (answer, error) = match answered {
        Ok(answer) => (Some(answer), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let Outgoing { method, url, signature, body, .. } = outgoing;
    Delivered { method: method.to_string(), url, sent: body, signature, answer, error }
}

async fn answer(outgoing: &Outgoing) -> anyhow::Result<Answer> {
    let url = Url::parse(&outgoing.url)?;
    anyhow::ensure!(url.scheme() == "http", "the sandbox calls back over plain http only");
    let mut request = Request::builder()
        .method(&outgoing.method)
        .uri(url.as_str())
        .header(header::USER_AGENT, "facebookexternalua");
    if let Some(kind) = outgoing.content_type {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    if let Some(signature) = &outgoing.signature {
        request = request.header("x-hub-signature-256", signature);
    }
    let client = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .http1_title_case_headers(true)
        .build_http::<Body>();
    let (head, body) = client.request(request.body(Body::from(outgoing.body.clone()))?).await?.into_parts();
    let body = to_bytes(Body::new(body), LONGEST).await?;
    let content_type = head.headers.get(header::CONTENT_TYPE);
    Ok(Answer {
        status: head.status.as_u16(),
        content_type: content_type.map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned()),
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
