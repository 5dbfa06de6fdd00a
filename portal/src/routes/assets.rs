//! What is the same for everybody.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::Portal;
use crate::config::Accent;
use crate::failure::Failure;
use crate::texts;

const STYLESHEET: &str = include_str!("../../assets/portal.css");
const SCRIPT: &str = include_str!("../../assets/time.js");

/// The stylesheet with the configured colour. The policy forbids styles inside pages.
pub(super) fn stylesheet(accent: Option<&Accent>) -> String {
    match accent {
        Some(Accent { background, text }) => {
            let colours = format!("--accent: {background}; --on-accent: {text};");
            // Once more for the dark scheme, whose rule would win otherwise.
            format!(
                "{STYLESHEET}:root {{ {colours} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {colours} }} }}\n"
            )
        }
        None => STYLESHEET.to_owned(),
    }
}

pub(super) async fn css(State(portal): State<Arc<Portal>>) -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], portal.stylesheet.clone()).into_response()
}

pub(super) async fn script() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT)
}

pub(super) async fn logo(State(portal): State<Arc<Portal>>) -> Response {
    match &portal.site.logo {
        Some(logo) => ([(CONTENT_TYPE, logo.content_type.clone())], logo.bytes.clone()).into_response(),
        None => Failure::new(StatusCode::NOT_FOUND, texts::not_found()).page(&portal.site),
    }
}

pub(super) async fn no_icon() -> StatusCode {
    StatusCode::NO_CONTENT
}

pub(super) async fn robots() -> &'static str {
    "User-agent: *\nDisallow: /\n"
}

/// The process responds, so a restart would not help.
pub(super) async fn alive() -> &'static str {
    "alive\n"
}
