//! The caller's deadline, or the default one.

use std::time::Duration;

use http::{HeaderMap, Request};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::{Inner, Outcome, call_of};
use crate::api::denial::Denial;
use crate::api::status::deny;
use crate::vault::{Deadline, VaultError};

/// The deadline of a call whose caller names none.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// The longest deadline that a caller may name.
const LONGEST_DEADLINE: Duration = Duration::from_secs(5 * 60);
/// Our deadline comes a little before the caller's own, so that the response is ours and is logged.
const DEADLINE_LEAD: Duration = Duration::from_millis(5);

/// Denies the call when its deadline passes before there is a response, or at `last_call`, when the vault stops and can
/// wait no longer. The layers below learn the deadline, so that work on the caller's behalf ends in time for a better
/// response.
pub(in crate::api) async fn deadline<S: Inner>(
    last_call: CancellationToken,
    mut request: Request<Body>,
    mut inner: S,
) -> Outcome {
    let call = call_of(&request);
    let time = grpc_timeout(request.headers()).unwrap_or(DEFAULT_DEADLINE).min(LONGEST_DEADLINE);
    let time = time.saturating_sub(DEADLINE_LEAD);
    request.extensions_mut().insert(Deadline::after(time));
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(time, inner.call(request)) => outcome,
        () = last_call.cancelled() => return Ok(deny(VaultError::ShuttingDown, &call).into_http()),
    };
    match outcome {
        Ok(outcome) => outcome,
        Err(_) => Ok(call.deny(Denial::deadline_exceeded()).into_http()),
    }
}

/// The deadline of the call that this request makes.
pub(super) fn deadline_of(request: &Request<Body>) -> Deadline {
    request.extensions().get().copied().unwrap_or_else(|| Deadline::after(DEFAULT_DEADLINE))
}

/// Parses the header `grpc-timeout`: up to eight digits and a unit.
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
    use http::HeaderValue;

    use super::*;

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
