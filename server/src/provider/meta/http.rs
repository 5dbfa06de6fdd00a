//! Calls of the Graph API: sends them, reads replies within bounds, retries transient errors, and logs every call
//! without a secret.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::headers;
use super::redact::Redactor;
use super::refusal::{self, Asked, Seen};
use super::wire::{Doubts, Json, Object};
use crate::backoff::jitter;
use crate::http_client::{BodyError, ClientConfig, read_body};
use crate::model::{BadValue, Clock, Refusal, RefusalKind, Secret, Timestamp};
use crate::provider::usage::UsageBook;
use crate::provider::{is_loopback, pace};

/// The longest reply is the inspection of a token that is limited to thousands of targets in each of many scopes.
const LONGEST_BODY: usize = 4 * 1024 * 1024;
/// Retries of one request.
const MORE_TRIES: usize = 2;
/// The pause before the first retry is between zero and this, before the second between zero and four times this.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Characters of a version of the API that are kept.
const LONGEST_VERSION: usize = 16;

type Pairs = Vec<(&'static str, Zeroizing<String>)>;

/// One request to the Graph API.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    path: Vec<String>,
    asked: Asked,
    ad_account: Option<String>,
    query: Pairs,
    form: Pairs,
    bearer: Option<Secret>,
    /// Whether it may be sent again although Meta may have processed it already.
    repeatable: bool,
    /// Refusals from which whoever makes the call goes on. They are no failures.
    expected: Vec<fn(&Refusal) -> bool>,
}

impl Call {
    /// A request to `/{version}/{path…}`.
    pub(super) fn new(method: Method, path: &[&str], asked: Asked) -> Self {
        let path = path.iter().map(|&segment| segment.to_owned()).collect();
        Self {
            method,
            path,
            asked,
            ad_account: None,
            query: Pairs::new(),
            form: Pairs::new(),
            bearer: None,
            repeatable: true,
            expected: Vec::new(),
        }
    }

    pub(super) fn query(mut self, name: &'static str, value: &str) -> Self {
        self.query.push((name, Zeroizing::new(value.to_owned())));
        self
    }

    pub(super) fn form(mut self, name: &'static str, value: &str) -> Self {
        self.form.push((name, Zeroizing::new(value.to_owned())));
        self
    }

    pub(super) fn bearer(self, token: &str) -> Self {
        Self { bearer: Some(Secret::new(token.to_owned())), ..self }
    }

    pub(super) fn about(self, ad_account: &str) -> Self {
        Self { ad_account: Some(ad_account.to_owned()), ..self }
    }

    /// Whoever makes the call goes on from such a refusal.
    pub(super) fn expecting(mut self, refusal: fn(&Refusal) -> bool) -> Self {
        self.expected.push(refusal);
        self
    }

    /// Sends the request again only if Meta certainly has not processed it.
    pub(super) fn once(self) -> Self {
        Self { repeatable: false, ..self }
    }
}

/// The body of a reply.
pub(super) struct Body<'a> {
    pub(super) bytes: &'a [u8],
    /// `None`: the bytes are no JSON.
    pub(super) json: Option<Json>,
    doubts: &'a Doubts,
}

impl<'a> Body<'a> {
    pub(super) fn read(bytes: &'a [u8], doubts: &'a Doubts) -> Self {
        Self { bytes, json: Json::parse(bytes), doubts }
    }

    /// The object that the body is. `of` is the name of the reply in the log.
    pub(super) fn object(&self, of: &'static str) -> Option<Object<'_>> {
        Object::of(self.json.as_ref()?, of, Some(self.doubts))
    }
}

/// Reads a reply's body, or takes something out of it. `None`: it is not the expected reply.
pub(super) type Reader<T> = fn(&mut Body<'_>) -> Option<T>;

/// A refusal, and whether the request may be sent again.
#[derive(Clone)]
struct Failure {
    refusal: Box<Refusal>,
    /// Whether Meta certainly did not process the request, because it was not reached or because it refused.
    not_taken: bool,
}

/// The version of the API that Meta serves. It serves the next one that it still has in place of one that it has not, and
/// says so in a header only.
#[derive(Debug, Default)]
struct Served {
    /// The version of the last reply if it was not the configured one, and since when.
    other: Option<(String, Timestamp)>,
    /// The last version that was logged, so that replies that alternate do not fill the log.
    logged: String,
}

#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    base: Url,
    version: String,
    request_timeout: Duration,
    operation_timeout: Duration,
    clock: Clock,
    pub(super) redactor: Redactor,
    pub(super) usage: UsageBook,
    pub(super) doubts: Doubts,
    served: Mutex<Served>,
}

impl Http {
    pub(super) fn new(
        base: Url,
        version: String,
        (request_timeout, operation_timeout): (Duration, Duration),
        redactor: Redactor,
        clock: Clock,
    ) -> Result<Self, BadValue> {
        if base.cannot_be_a_base() || !matches!(base.scheme(), "http" | "https") {
            return Err(BadValue::new("must be an http:// or https:// URL"));
        }
        let client = ClientConfig {
            connect_timeout: CONNECT_TIMEOUT.min(request_timeout),
            timeout: request_timeout,
            ca_file: None,
            proxy: !is_loopback(&base),
            gzip: true,
        };
        let client = client.build().map_err(BadValue::new)?;
        Ok(Self {
            client,
            base,
            version,
            request_timeout,
            operation_timeout,
            clock,
            redactor,
            usage: UsageBook::default(),
            doubts: Doubts::default(),
            served: Mutex::default(),
        })
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// When an operation that begins now must have ended.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.operation_timeout
    }

    /// Sends a call, and retries transient errors while time is left. Throttling is never retried, since calls during
    /// a block prolong it.
    pub(super) async fn ask<T>(&self, call: &Call, read: Reader<T>, deadline: Instant) -> Result<T, Refusal> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_factor(4.0)
            .with_max_times(pace::retries().unwrap_or(MORE_TRIES))
            .without_max_delay();
        let earlier = Mutex::new(None);
        (|| self.send_in_turn(call, read, deadline, &earlier))
            .retry(pauses)
            .when(|failure: &Failure| {
                let transient = matches!(failure.refusal.kind, RefusalKind::Transient { .. });
                transient && (call.repeatable || failure.not_taken) && pace::repeats()
            })
            .adjust(|failure: &Failure, pause| {
                let RefusalKind::Transient { retry_after } = failure.refusal.kind else { return None };
                let wait = retry_after.unwrap_or_default().max(jitter(pause?));
                (Instant::now() + wait < deadline).then_some(wait)
            })
            .await
            .map_err(|failure| match call.asked {
                // Whether a code was sent decides whether it can be sent again.
                Asked::Code if failure.not_taken => {
                    Refusal { kind: RefusalKind::OutOfTime, ..*failure.refusal }
                }
                _ => *failure.refusal,
            })
    }

    /// Sends a call at the pace of the job that makes it, if a job does. Where no more calls are to be made, the refusal is
    /// what Meta said to an earlier try, or to the job's other calls.
    async fn send_in_turn<T>(
        &self,
        call: &Call,
        read: Reader<T>,
        deadline: Instant,
        earlier: &Mutex<Option<Failure>>,
    ) -> Result<T, Failure> {
        let sent = pace::paced(self.send(call, read, deadline), |failure: &Failure| {
            Some(&*failure.refusal).filter(|refusal| !call.expected.iter().any(|is| is(refusal)))
        })
        .await;
        let sent = sent.unwrap_or_else(|| {
            let unsaid = || Failure {
                refusal: self.fault("no further call is made while calls fail".to_owned(), call),
                not_taken: true,
            };
            let of_others =
                || pace::refusal().map(|refusal| Failure { refusal: Box::new(refusal), not_taken: true });
            Err(earlier.lock().take().or_else(of_others).unwrap_or_else(unsaid))
        });
        if let Err(failure) = &sent {
            *earlier.lock() = Some(failure.clone());
        }
        sent
    }

    async fn send<T>(&self, call: &Call, reader: Reader<T>, deadline: Instant) -> Result<T, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let refusal = self.fault("no time is left for another request".to_owned(), call);
            return Err(Failure { refusal, not_taken: true });
        }
        let start = Instant::now();
        let sent = self.request(call)?.timeout(left.min(self.request_timeout)).send().await;
        let path = call.path.join("/");
        let response = sent.map_err(|error| {
            let not_taken = error.is_connect();
            let refusal = self.fault(cause_of(&error), call);
            let (duration_ms, method) = (start.elapsed().as_millis(), &call.method);
            tracing::debug!(%method, path, duration_ms, fault = refusal.detail, "Meta did not reply");
            Failure { refusal, not_taken }
        })?;

        let status = response.status().as_u16();
        let headers = lines(&response);
        self.learn(&headers, call);
        let body = read_body(response, LONGEST_BODY).await.map_err(|error| match error {
            BodyError::TooLong => format!("a body of more than {LONGEST_BODY} bytes"),
            BodyError::Broken(error) => cause_of(&error),
        });
        let (duration_ms, method) = (start.elapsed().as_millis(), &call.method);
        let trace_id = headers::find(&headers, "x-fb-request-id").unwrap_or_default();
        tracing::debug!(%method, path, status, duration_ms, trace_id, "called Meta");
        let body = body.map_err(|fault| Failure {
            refusal: self.fault(format!("HTTP {status}, then {fault}"), call),
            not_taken: false,
        })?;

        if (200..=299).contains(&status)
            && refusal::error_in(&body).is_none()
            && let Some(answer) = reader(&mut Body::read(&body, &self.doubts))
        {
            return Ok(answer);
        }
        let seen = Seen {
            asked: call.asked,
            ad_account: call.ad_account.as_deref(),
            status,
            headers: &headers,
            body: &body,
            token: call.bearer.as_ref(),
        };
        let refusal = Box::new(refusal::classify(&seen, &self.redactor));
        // An error object of Graph means that the request was refused. Of a code it is not documented that it stays good.
        let not_taken = refusal.code.is_some() && call.asked != Asked::Code;
        Err(Failure { refusal, not_taken })
    }

    fn request(&self, call: &Call) -> Result<RequestBuilder, Failure> {
        let unsendable = |what: &str| Failure { refusal: self.fault(what.to_owned(), call), not_taken: true };
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut path) => {
                path.pop_if_empty().push(&self.version).extend(&call.path);
            }
            Err(()) => return Err(unsendable("the configured URL has no path")),
        }
        let mut request = self.client.request(call.method.clone(), url);
        if !call.query.is_empty() {
            request = request.query(&shown(&call.query));
        }
        if !call.form.is_empty() {
            request = request.form(&shown(&call.form));
        }
        if let Some(token) = &call.bearer {
            let line = Zeroizing::new(format!("Bearer {}", token.expose()));
            let mut value =
                HeaderValue::from_str(&line).map_err(|_| unsendable("the token can't stand in a header"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// Notes usage and API version, which every reply has in its headers.
    fn learn(&self, headers: &[(String, String)], call: &Call) {
        self.observe(headers, call.ad_account.as_deref());
        let Some(version) = headers::find(headers, "facebook-api-version") else { return };
        let mut served = self.served.lock();
        if version == self.version {
            served.other = None;
            return;
        }
        let version: String = self.redactor.clean(version, None).chars().take(LONGEST_VERSION).collect();
        if served.other.as_ref().is_none_or(|(known, _)| *known != version) {
            served.other = Some((version.clone(), self.clock.now()));
        }
        if served.logged != version {
            tracing::warn!(asked = %self.version, served = %version, "Meta serves another API version than the configured one: set providers.meta.api_version to one that it serves, and restart");
            served.logged = version;
        }
    }

    /// The version that Meta served last, and since when, if it is not the configured one.
    pub(super) fn other_version(&self) -> Option<(String, Timestamp)> {
        self.served.lock().other.clone()
    }

    pub(super) fn observe(&self, headers: &[(String, String)], ad_account: Option<&str>) {
        let news = headers::usage(headers, ad_account);
        self.usage.count_malformed(news.malformed);
        self.usage.keep(news.readings, self.clock.now());
    }

    fn fault(&self, what: String, call: &Call) -> Box<Refusal> {
        let detail = self.redactor.clean(&what, call.bearer.as_ref());
        Box::new(Refusal::new(RefusalKind::Transient { retry_after: None }, detail))
    }
}

/// The cause in words. The error's own text contains the URL; those of its sources do not.
fn cause_of(error: &reqwest::Error) -> String {
    let what = if error.is_timeout() {
        "a timeout"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_body() || error.is_decode() {
        "a body that broke off"
    } else {
        "a broken connection"
    };
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    if std::ptr::addr_eq(deepest, error) { what.to_owned() } else { format!("{what}: {deepest}") }
}

fn lines(response: &Response) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    response
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)))
        .collect()
}

fn shown(pairs: &Pairs) -> Vec<(&'static str, &str)> {
    pairs.iter().map(|(name, value)| (*name, value.as_str())).collect()
}
