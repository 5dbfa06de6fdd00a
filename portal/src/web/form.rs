//! Forms: where they may come from, and what they carry.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::header::{CONTENT_TYPE, HeaderMap, ORIGIN};
use http::{HeaderName, StatusCode};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::texts;

/// A token has at most 4,096 characters, which is three times that in a form.
const LARGEST_BODY: usize = 16 * 1024;
/// How a browser says which page started a request. No page can forge it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The fields that the portal's forms have.
#[derive(Default)]
pub(crate) struct Form {
    pub(crate) csrf: String,
    pub(crate) connection_id: Option<String>,
    pub(crate) access_token: Zeroizing<String>,
}

/// Refuses what another site's page sends. The form's own token decides; this catches most of it earlier.
pub(crate) fn check_source(headers: &HeaderMap, own_origin: &str) -> Result<(), Failure> {
    let header = |name: &HeaderName| headers.get(name).map(|value| value.as_bytes());
    let site = header(&SEC_FETCH_SITE);
    let origin = header(&ORIGIN);
    // Because of our own `Referrer-Policy: no-referrer`, browsers send `Origin: null` with our own forms. Then the form's
    // token must do, with `Sec-Fetch-Site` where the browser knows it.
    let origin_is_ours = origin.is_none_or(|origin| origin == own_origin.as_bytes() || origin == b"null");
    let site_is_ours = site.is_none_or(|site| site == b"same-origin" || site == b"none");
    if origin_is_ours && site_is_ours { Ok(()) } else { Err(Failure::foreign_form()) }
}

/// Reads a form of bounded length within bounded time.
pub(crate) async fn read(headers: &HeaderMap, body: Body, patience: Duration) -> Result<Form, Failure> {
    let form = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !form.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, texts::bad_form()));
    }
    let body = tokio::time::timeout(patience, axum::body::to_bytes(body, LARGEST_BODY)).await;
    let body = body.map_err(|_| Failure::new(StatusCode::REQUEST_TIMEOUT, texts::bad_form()))?;
    let body = body.map_err(|_| Failure::new(StatusCode::PAYLOAD_TOO_LARGE, texts::form_too_large()))?;
    parse(&body)
}

fn parse(body: &Bytes) -> Result<Form, Failure> {
    let mut form = Form::default();
    for (name, value) in form_urlencoded::parse(body) {
        match &*name {
            "csrf" => form.csrf = value.into_owned(),
            "connection_id" if value.is_empty() => {}
            "connection_id" if is_connection_id(&value) => form.connection_id = Some(value.into_owned()),
            "connection_id" => return Err(Failure::new(StatusCode::BAD_REQUEST, texts::bad_form())),
            "access_token" => form.access_token = Zeroizing::new(value.into_owned()),
            _ => {}
        }
    }
    Ok(form)
}

/// Whether this can be the id of a connection. The vault decides whether it is one of the link's.
pub(crate) fn is_connection_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "https://connect.example";

    #[test]
    fn a_foreign_page_can_send_no_form() {
        for (origin, site, good) in [
            (None, None, true),
            (Some(OWN), Some("same-origin"), true),
            (Some("null"), Some("same-origin"), true),
            (Some("null"), None, true),
            (Some("null"), Some("cross-site"), false),
            (Some(OWN), Some("cross-site"), false),
            (Some(OWN), Some("same-site"), false),
            (Some("https://evil.example"), None, false),
            (Some("https://connect.example.evil"), Some("same-origin"), false),
        ] {
            let mut headers = HeaderMap::new();
            origin.map(|origin| headers.insert(ORIGIN, origin.parse().unwrap()));
            site.map(|site| headers.insert(SEC_FETCH_SITE, site.parse().unwrap()));
            assert_eq!(check_source(&headers, OWN).is_ok(), good, "{origin:?} {site:?}");
        }
    }

    async fn read_text(content_type: &str, body: impl Into<Body>) -> Result<Form, StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        read(&headers, body.into(), Duration::from_secs(1)).await.map_err(|failure| failure.status)
    }

    #[tokio::test]
    async fn the_fields_are_read_and_bounded() {
        let form = "application/x-www-form-urlencoded";
        let body = "csrf=ab&connection_id=01890000-0000-7000-8000-000000000001&access_token=EA%2BA&x=1";
        let read = read_text(form, body).await.unwrap();
        assert_eq!((read.csrf.as_str(), read.access_token.as_str()), ("ab", "EA+A"));
        assert_eq!(read.connection_id.as_deref(), Some("01890000-0000-7000-8000-000000000001"));
        let status = async |kind, body: String| read_text(kind, body).await.err();
        assert_eq!(status(form, "connection_id=<b>".into()).await, Some(StatusCode::BAD_REQUEST));
        assert_eq!(status("text/plain", "csrf=ab".into()).await, Some(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        assert_eq!(status(form, "a".repeat(16 * 1024 + 1)).await, Some(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(status(form, format!("csrf=ab&connection_id=&x={}", "a".repeat(9000))).await, None);
    }
}
