//! The mailed link.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use zeroize::Zeroizing;

use super::visit::{Segment, text_of};
use super::{Portal, set_cookies};
use crate::failure::Failure;
use crate::web::link::LinkToken;
use crate::web::session::Session;

/// Moves the token from the address into a cookie, so that it does not stay in the address bar and the history. The
/// vault is not asked and nothing is changed, because programs that scan mails open links too.
pub(super) async fn enter(State(portal): State<Arc<Portal>>, token: Segment, headers: HeaderMap) -> Response {
    let Some(token) = LinkToken::parse(&Zeroizing::new(text_of(token))) else {
        return Failure::link_is_over().page(&portal.site);
    };
    let jar = portal.jar;
    let to = format!("/card/{}", token.id);
    let mut response = (StatusCode::SEE_OTHER, [(LOCATION, to)]).into_response();
    let session = Session::of(&headers, jar).is_none().then(Session::new);
    set_cookies(&mut response, jar.make_room(&headers, &token.id).into_iter().map(Some));
    set_cookies(
        &mut response,
        [jar.set_link(&token.id, token.expose()), session.and_then(|session| jar.set_session(&session))],
    );
    response
}
