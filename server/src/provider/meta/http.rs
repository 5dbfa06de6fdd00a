//! The one HTTP client: bounded in time and size, no redirects, retries where they are safe, and no secret
//! in any URL that is logged or told on.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::{Method, RequestBuilder, StatusCode, Url, redirect};
use serde_json::Value;

use super::redact::redact;
use super::refusal::{Asked, GraphError, Refused};
use crate::model::{Refusal, RefusalKind, Secret};

/// Largest reply that is read.
const MAX_REPLY: usize = 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// First wait between tries; it doubles, with jitter.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Tries beside the first.
const RETRIES: usize = 2;

/// A call to be made, perhaps more than once.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Below the version: `me/adaccounts`. Holds no secret.
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    /// Sent as the body; for secrets, so that they stand in no URL.
    pub(super) form: Vec<(&'static str, &'a str)>,
    /// Goes into the Authorization header.
    pub(super) bearer: Option<&'a Secret>,
    pub(super) asked: Asked,
    pub(super) ad_account_id: Option<&'a str>,
    /// Whether it may be sent again although the first may have been taken.
    pub(super) repeatable: bool,
}

impl Call<'_> {
    pub(super) fn get(path: impl Into<String>, asked: Asked) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            query: Vec::new(),
            form: Vec::new(),
            bearer: None,
            asked,
            ad_account_id: None,
            repeatable: true,
        }
    }
}

/// What came back, read to its end.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// A try that failed, and whether the provider may have acted on it.
struct Failed {
    refusal: Refusal,
    maybe_taken: bool,
}

/// The client and where it goes.
pub(super) struct Graph {
    client: reqwest::Client,
    base: Url,
    version: String,
    request_timeout: Duration,
    operation_timeout: Duration,
}

impl Graph {
    #[expect(clippy::disallowed_methods, reason = "this is the one client")]
    pub(super) fn new(
        base: Url,
        version: String,
        request_timeout: Duration,
        operation_timeout: Duration,
    ) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("token-vault/", env!("CARGO_PKG_VERSION")))
            // A redirect to a login page must not get the token.
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(request_timeout)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| format!("the HTTP client can't be made: {}", error.without_url()))?;
        Ok(Self { client, base, version, request_timeout, operation_timeout })
    }

    /// Makes a call and reads its JSON. Transient failures are tried again within the operation's time.
    pub(super) async fn call(&self, call: Call<'_>, observe: impl Fn(&Reply)) -> Result<Value, Refusal> {
        let attempt = || async {
            let sent = self.send(&call).await;
            match sent {
                Ok(reply) => {
                    observe(&reply);
                    // An error that the provider told is one that it did not act on.
                    reply.read(&call).map_err(|(refusal, told)| Failed { refusal, maybe_taken: !told })
                }
                Err(failed) => Err(failed),
            }
        };
        let backoff =
            ExponentialBuilder::default().with_min_delay(FIRST_WAIT).with_max_times(RETRIES).with_jitter();
        let retried = attempt
            .retry(backoff)
            .when(|failed: &Failed| {
                let transient = matches!(failed.refusal.kind, RefusalKind::Transient { .. });
                transient && (call.repeatable || !failed.maybe_taken)
            })
            .adjust(|failed: &Failed, wait| match failed.refusal.kind {
                RefusalKind::Transient { retry_after: Some(asked) } => wait.map(|wait| wait.max(asked)),
                _ => wait,
            });
        match tokio::time::timeout(self.operation_timeout, retried).await {
            Ok(outcome) => outcome.map_err(|failed| failed.refusal),
            Err(_) => Err(unanswered("no answer in time")),
        }
    }

    async fn send(&self, call: &Call<'_>) -> Result<Reply, Failed> {
        let failed = |refusal, maybe_taken| Failed { refusal, maybe_taken };
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().push(&self.version).extend(call.path.split('/'));
            }
            Err(()) => return Err(failed(unanswered("the provider's URL can't be extended"), false)),
        }
        let started = std::time::Instant::now();
        let request = self.build(call, url);
        let outcome = match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => {
                let maybe_taken = !(error.is_connect() || error.is_builder());
                Err(failed(unanswered(&transport(&error, self.request_timeout)), maybe_taken))
            }
        };
        let (status, trace_id) = match &outcome {
            Ok(reply) => (reply.status.as_u16(), reply.header("x-fb-request-id").map(redact)),
            Err(_) => (0, None),
        };
        tracing::debug!(
            method = %call.method, path = call.path, status, trace_id,
            duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "asked the Graph API"
        );
        outcome
    }

    fn build(&self, call: &Call<'_>, url: Url) -> RequestBuilder {
        let mut request = self.client.request(call.method.clone(), url).query(&call.query);
        if let Some(bearer) = call.bearer {
            request = request.bearer_auth(bearer.expose());
        }
        if !call.form.is_empty() {
            request = request.form(&call.form);
        }
        request
    }
}

fn unanswered(what: &str) -> Refusal {
    Refusal::new(RefusalKind::Transient { retry_after: None }, what)
}

/// What went wrong on the way, without the URL.
fn transport(error: &reqwest::Error, limit: Duration) -> String {
    if error.is_timeout() {
        format!("no answer within {} s", limit.as_secs_f32())
    } else if error.is_connect() {
        "the provider can't be reached".to_owned()
    } else {
        "the connection to the provider broke".to_owned()
    }
}

async fn read(mut response: reqwest::Response) -> Result<Reply, Failed> {
    let failed = |what: &str| Failed { refusal: unanswered(what), maybe_taken: true };
    let status = response.status();
    let headers = response
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_REPLY => {
                return Err(failed("the provider's reply is larger than 1 MiB"));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(Reply { status, headers, body }),
            Err(error) if error.is_timeout() => return Err(failed("the provider's reply stalled")),
            Err(_) => return Err(failed("the provider's reply broke off")),
        }
    }
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The JSON of a good reply. By content, not by type: good JSON comes as `text/javascript` too. The
    /// flag beside a refusal says whether the provider told it in so many words.
    fn read(&self, call: &Call<'_>) -> Result<Value, (Refusal, bool)> {
        let refused = Refused {
            asked: call.asked,
            http_status: self.status.as_u16(),
            headers: &self.headers,
            ad_account_id: call.ad_account_id,
        };
        if self.status.is_redirection() {
            return Err((refused.unreadable("the provider redirects"), false));
        }
        let value: Value = match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(_) => match self.legacy_form(call) {
                Some(value) => value,
                None => return Err((refused.unreadable("the provider's reply is not JSON"), false)),
            },
        };
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            return Err(match GraphError::read(error) {
                Some(error) => (refused.classify(error), true),
                None => (refused.unreadable("the provider's error can't be read"), false),
            });
        }
        if !self.status.is_success() || value == Value::Bool(false) || value.is_null() {
            return Err((refused.unreadable("the provider's reply tells nothing"), false));
        }
        Ok(value)
    }

    /// Replies to an exchange once were query strings.
    fn legacy_form(&self, call: &Call<'_>) -> Option<Value> {
        let text = std::str::from_utf8(&self.body).ok()?;
        if call.asked != Asked::Exchange || !self.status.is_success() || !text.starts_with("access_token=") {
            return None;
        }
        let pairs = url::form_urlencoded::parse(text.trim().as_bytes());
        Some(Value::Object(
            pairs.map(|(name, value)| (name.into_owned(), Value::from(value.into_owned()))).collect(),
        ))
    }
}
