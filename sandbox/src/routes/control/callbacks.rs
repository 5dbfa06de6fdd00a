//! Sends callbacks to the app, and returns what it replied.

use axum::body::Bytes;
use axum::extract::State as Axum;
use axum::response::Json;
use serde_json::json;

use super::{BadRequest, ControlReply, SharedState, read};

pub(super) async fn call_back(Axum(shared): SharedState, body: Bytes) -> ControlReply {
    let sent = shared.call_back(read(&body)?).await.map_err(BadRequest)?;
    Ok(Json(json!({ "deliveries": sent })))
}
