//! Entry point for fuzzing: replies of the Graph API.

use std::sync::Arc;

use super::http::Body;
use super::redact::Redactor;
use super::refusal::{Asked, Seen, classify};
use super::wire::Doubts;
use super::{callbacks, headers, reads, tokens};
use crate::model::{Secret, Timestamp};

const TOKEN: &str = "EAABsbCS1iHgBAKZCtokenOfTheCall";
const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What was sent to us as if by Meta, with and without a good signature.
pub fn callback(data: &[u8]) {
    callbacks::fuzz(data, Timestamp::from_unix_seconds(1_800_000_000));
}

/// A reply: status, headers (the lines before the first empty one) and body. `%T` and `%S` in it are replaced by the
/// token of the call and the secret of the app, which must not be in what is made of it.
pub fn reply(choice: u8, data: &[u8]) {
    let text = String::from_utf8_lossy(data).replace("%T", TOKEN).replace("%S", APP_SECRET);
    let (head, body) = text.split_once("\n\n").unwrap_or(("", &text));
    let headers: Vec<(String, String)> = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let account = (choice & 1 == 1).then_some("act_17");
    let news = headers::usage(&headers, account);
    let _ = (headers::wait_in_scope(&headers, &news, "app"), headers::blocked_business(&news));
    let _ = headers::retry_after(&headers);
    let (body, doubts) = (body.as_bytes(), Doubts::default());
    let mut read = Body::read(body, &doubts);
    tokens::fuzz(&mut read);
    reads::fuzz(&mut read, Timestamp::from_unix_seconds(1_800_000_000));
    let asked = match choice % 4 {
        0 => Asked::Inspection,
        1 => Asked::TokenEndpoint,
        2 => Asked::Code,
        _ => Asked::Data,
    };
    let status = [0, 200, 400, 401, 403, 429, 500, 503].get(usize::from(choice >> 5)).copied().unwrap_or(400);
    let token = Secret::new(TOKEN.to_owned());
    let redactor = Redactor::new(Arc::from(vec![Secret::new(APP_SECRET.to_owned())]));
    let seen = Seen { asked, ad_account: account, status, headers: &headers, body, token: Some(&token) };
    let refusal = classify(&seen, &redactor);
    let shown = format!("{refusal:?}");
    assert!(!shown.contains(TOKEN) && !shown.contains(APP_SECRET), "a secret came out: {shown}");
}
