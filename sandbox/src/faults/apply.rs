//! How faults change a reply: its JSON, its headers, and how its bytes are sent.

use std::io::{self, Write};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::faults::FaultKind;
use crate::wire::reply::{CutConnection, Draft};

/// Applies a fault that replaces the work; `false` if it does not.
pub(crate) fn instead_of_work(kind: &FaultKind, draft: &mut Draft, trace: &str, content_type: &str) -> bool {
    if let Some(error) = kind.graph_error() {
        draft.error(&error, trace, content_type);
        return true;
    }
    match kind {
        FaultKind::Html { status } => draft.html(*status, html_page(*status)),
        FaultKind::Text { status, text } => {
            draft.status = *status;
            draft.body = Bytes::from(text.clone());
            draft.set("content-type", "text/plain; charset=utf-8");
        }
        FaultKind::EmptyBody => draft.set("content-type", content_type),
        FaultKind::BodyFalse => draft.json(&json!(false), content_type),
        FaultKind::BodyTrue => draft.json(&json!(true), content_type),
        FaultKind::ErrorAsString => {
            draft.status = 400;
            draft.json(&json!({ "error": "Something went wrong" }), content_type);
        }
        FaultKind::Redirect(url) => draft.redirect(url),
        _ => return false,
    }
    true
}

/// Applies a fault to a JSON body.
pub(crate) fn change_json(kind: &FaultKind, body: &mut Value) {
    match kind {
        FaultKind::ExpiresInJson(value) => set(body, "/expires_in", value.clone()),
        FaultKind::ExpiresIn(seconds) => set(body, "/expires_in", json!(seconds)),
        FaultKind::ExpiresAt(at) => set(body, "/data/expires_at", json!(at)),
        FaultKind::Subject(id) => set(body, "/data/user_id", json!(id)),
        FaultKind::AppId(id) => set(body, "/data/app_id", json!(id)),
        FaultKind::Scopes(scopes) => set(body, "/data/scopes", json!(scopes)),
        FaultKind::IsValid(valid) => set(body, "/data/is_valid", json!(valid)),
        FaultKind::Set(pointer, value) => set(body, pointer, value.clone()),
        FaultKind::SetRaw(pointer, _) => set(body, pointer, json!(place_of(pointer))),
        FaultKind::UnknownKeys => add_unknown_keys(body),
        FaultKind::OversizedBody(bytes) => set(body, "/padding", json!("x".repeat(*bytes))),
        _ => {}
    }
}

/// The text that stands for a raw value until the rest of the body is written.
fn place_of(pointer: &str) -> String {
    format!("\u{e000}{pointer}")
}

/// Puts the raw values of the faults into a written body.
pub(crate) fn write_raw(kinds: &[FaultKind], mut body: String) -> String {
    for kind in kinds {
        if let FaultKind::SetRaw(pointer, raw) = kind {
            body = body.replace(&json!(place_of(pointer)).to_string(), raw);
        }
    }
    body
}

/// Sets a value under an existing parent, or an entry of a list; `null` removes it.
fn set(body: &mut Value, pointer: &str, value: Value) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    match body.pointer_mut(parent) {
        Some(Value::Object(parent)) if value.is_null() => {
            parent.remove(key);
        }
        Some(Value::Object(parent)) => {
            parent.insert(key.to_owned(), value);
        }
        Some(Value::Array(parent)) => {
            if let Some(entry) = key.parse::<usize>().ok().and_then(|index| parent.get_mut(index)) {
                *entry = value;
            }
        }
        _ => {}
    }
}

fn add_unknown_keys(body: &mut Value) {
    match body {
        Value::Object(object) => {
            object.values_mut().for_each(add_unknown_keys);
            object.insert("x_new_key".into(), json!({ "of": ["another", "year"], "n": 1 }));
        }
        Value::Array(items) => items.iter_mut().for_each(add_unknown_keys),
        _ => {}
    }
}

/// Applies a fault to headers and bytes.
pub(crate) fn change_draft(kind: &FaultKind, draft: &mut Draft) {
    match kind {
        FaultKind::WrongContentType => draft.set("content-type", "text/javascript; charset=UTF-8"),
        FaultKind::NoContentType => {
            draft.headers.remove("content-type");
        }
        FaultKind::WithoutHeader(name) => {
            draft.headers.remove(name.to_lowercase());
        }
        FaultKind::Headers(headers) => {
            for (name, _) in headers {
                draft.headers.remove(name.to_lowercase());
            }
            for (name, value) in headers {
                draft.add(name, value);
            }
        }
        FaultKind::Truncated => draft.body = first_half(&draft.body),
        FaultKind::QueryStringToken => {
            if let Ok(body) = serde_json::from_slice::<Value>(&draft.body) {
                let token = body.get("access_token").and_then(Value::as_str).unwrap_or_default();
                let left = body.get("expires_in").and_then(Value::as_i64).unwrap_or_default();
                draft.body = Bytes::from(format!("access_token={token}&expires={left}"));
                draft.set("content-type", "text/plain; charset=UTF-8");
            }
        }
        FaultKind::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            if encoder.write_all(&draft.body).is_ok()
                && let Ok(packed) = encoder.finish()
            {
                draft.body = Bytes::from(packed);
                draft.set("content-encoding", "gzip");
            }
        }
        _ => {}
    }
}

/// Sends a draft as the faults say.
pub(crate) async fn send(kinds: &[FaultKind], draft: Draft) -> Response {
    let mut way = None;
    for kind in kinds {
        match kind {
            FaultKind::StallFirstByte(how_long) => tokio::time::sleep(*how_long).await,
            FaultKind::Reset | FaultKind::ResetAfter => return cut(),
            FaultKind::ResetMidBody | FaultKind::StallBody(_) | FaultKind::SlowBody(_) => way = Some(kind),
            _ => {}
        }
    }
    let body = draft.body.clone();
    let sent = match way {
        Some(FaultKind::StallBody(how_long)) => stalling(&body, *how_long),
        Some(FaultKind::SlowBody(how_long)) => dripping(&body, *how_long),
        Some(FaultKind::ResetMidBody) => breaking(&body),
        _ => Body::from(body),
    };
    draft.send(sent)
}

/// A response that makes the server reset the connection.
pub(crate) fn cut() -> Response {
    let mut response = Response::default();
    response.extensions_mut().insert(CutConnection);
    response
}

fn first_half(body: &Bytes) -> Bytes {
    body.slice(..body.len() / 2)
}

fn second_half(body: &Bytes) -> Bytes {
    body.slice(body.len() / 2..)
}

fn stalling(body: &Bytes, how_long: Duration) -> Body {
    let rest = second_half(body);
    let later = stream::once(async move {
        tokio::time::sleep(how_long).await;
        Ok::<_, io::Error>(rest)
    });
    Body::from_stream(stream::once(std::future::ready(Ok(first_half(body)))).chain(later))
}

fn dripping(body: &Bytes, how_long: Duration) -> Body {
    let steps = u32::try_from(body.len()).unwrap_or(u32::MAX).max(1);
    let pause = how_long / steps;
    let bytes: Vec<Bytes> = (0..body.len()).map(|i| body.slice(i..=i)).collect();
    Body::from_stream(stream::iter(bytes).then(move |byte| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, io::Error>(byte)
    }))
}

/// Sends half of the body, then resets the connection.
fn breaking(body: &Bytes) -> Body {
    let half = first_half(body);
    let end = stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err::<Bytes, _>(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    Body::from_stream(stream::once(std::future::ready(Ok(half))).chain(end))
}

fn html_page(status: u16) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\" id=\"facebook\"><head><title>Facebook | Error</title></head>\
         <body><h1>Sorry, something went wrong.</h1><p>We're working on it and we'll get it fixed as soon as \
         we can.</p><!-- {status} --></body></html>\n"
    )
}
