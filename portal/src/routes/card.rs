//! The card: as a page, as JSON, and for a frame.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use token_vault_client::v1::{ErrorReason, OpenConnectLinkResponse};

use super::visit::{READ, Segment, Visit, text_of};
use super::{Address, Portal, set_cookies};
use crate::failure::Failure;
use crate::notice::{self, Notice};
use crate::outcome::Outcome;
use crate::page;
use crate::page::card::{Back, Card};
use crate::recent::Findings;
use crate::texts;
use crate::web::headers::Embeddable;
use crate::web::link::LinkId;
use crate::web::session::Session;

/// `/card/<id>` and `/card/<id>.json`. The router can't tell them apart.
pub(super) async fn show(
    State(portal): State<Arc<Portal>>,
    path: Segment,
    RawQuery(query): RawQuery,
    Extension(from): Extension<Address>,
    headers: HeaderMap,
) -> Response {
    let path = text_of(path);
    match path.strip_suffix(".json") {
        Some(id) => portal.json(id, from, &headers).await.unwrap_or_else(|failure| failure.json()),
        None => {
            let outcome = Outcome::read(query.as_deref());
            portal
                .card(&path, outcome, from, &headers)
                .await
                .unwrap_or_else(|failure| failure.page(&portal.site))
        }
    }
}

/// Leads from the address of a form to the card.
pub(super) async fn again(State(portal): State<Arc<Portal>>, path: Segment) -> Response {
    match LinkId::parse(&text_of(path)) {
        Some(id) => (StatusCode::SEE_OTHER, [(LOCATION, format!("/card/{id}"))]).into_response(),
        None => Failure::link_is_over().page(&portal.site),
    }
}

/// The card without forms, in a frame. Buttons there would be open to clickjacking.
pub(super) async fn embed(
    State(portal): State<Arc<Portal>>,
    path: Segment,
    Extension(from): Extension<Address>,
    headers: HeaderMap,
) -> Response {
    let path = text_of(path);
    let mut response = portal.embedded(&path, from, &headers).await.unwrap_or_else(|mut failure| {
        // In a frame, the usual cause is that the browser sends no cookies there.
        if failure.status == StatusCode::FORBIDDEN {
            *failure.notice = texts::embed_without_cookie();
        }
        failure.page(&portal.site)
    });
    response.extensions_mut().insert(Embeddable);
    response
}

impl Portal {
    async fn card(
        &self,
        id: &str,
        outcome: Option<Outcome>,
        from: Address,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let visit = self.visit(id, from, headers, READ)?;
        let open = self.open(&visit).await?;
        let mut card = Card::new(&self.site, &visit.id, &open);
        let recent = visit.session.as_ref().filter(|_| outcome.is_some());
        let recent = recent.and_then(|session| self.recent.recall(session, &visit.id));
        let recent = recent.filter(|recent| recent.outcome == outcome);
        if let Some(outcome) = outcome {
            card.notice = notice(outcome, &open, recent.as_deref());
            card.checks = recent.as_ref().map(|recent| recent.checks.as_slice()).unwrap_or_default();
            card.checked = recent.as_ref().map(|recent| recent.connection_id.as_str()).unwrap_or_default();
            if card.notice.is_some() {
                let connection = Some(card.checked).filter(|id| !id.is_empty());
                card.back = Back::of(&open, outcome, connection.unwrap_or_else(|| only_connection(&open)));
            }
        }
        let new = self.put_csrf(&mut card, &visit);
        let mut response = card.page().into_response();
        set_cookies(&mut response, [new.and_then(|session| self.jar.set_session(&session))]);
        Ok(response)
    }

    /// Lets the card's forms be sent from this session; returns the session if it is a new one.
    pub(super) fn put_csrf(&self, card: &mut Card<'_>, visit: &Visit) -> Option<Session> {
        let new = visit.session.is_none().then(Session::new);
        card.csrf = visit.session.as_ref().or(new.as_ref()).map(|session| session.csrf(&visit.id));
        new
    }

    async fn json(&self, id: &str, from: Address, headers: &HeaderMap) -> Result<Response, Failure> {
        let visit = self.visit(id, from, headers, READ)?;
        let open = self.open(&visit).await?;
        let new = visit.session.is_none().then(Session::new);
        let csrf = visit.session.as_ref().or(new.as_ref()).map(|session| session.csrf(&visit.id));
        let mut response =
            Json(page::json::card(&visit.id, &open, &csrf.unwrap_or_default())).into_response();
        set_cookies(&mut response, [new.and_then(|session| self.jar.set_session(&session))]);
        Ok(response)
    }

    async fn embedded(&self, id: &str, from: Address, headers: &HeaderMap) -> Result<Response, Failure> {
        let visit = self.visit(id, from, headers, READ)?;
        let open = self.open(&visit).await?;
        let mut card = Card::new(&self.site, &visit.id, &open);
        card.embedded = true;
        Ok(card.page().into_response())
    }
}

/// What the card tells after the callback. Everybody can write `result=connected` behind the address, so the vault must
/// agree.
fn notice(outcome: Outcome, open: &OpenConnectLinkResponse, recent: Option<&Findings>) -> Option<Notice> {
    let provider = texts::provider(page::card::provider(open));
    match outcome {
        Outcome::Connected if last_connection(open).is_empty() => None,
        Outcome::Connected => {
            let checks = recent.map(|recent| recent.checks.as_slice()).unwrap_or_default();
            Some(notice::connected(&provider, checks))
        }
        Outcome::Declined => Some(texts::trouble(Some(ErrorReason::AuthorizationDeclined), &provider)),
        // The card is open, so it was used.
        Outcome::Failed(ErrorReason::ConnectLinkNotFound) => Some(texts::link_is_used()),
        Outcome::Failed(reason) => {
            let remembered = recent.and_then(|recent| recent.notice.clone());
            Some(remembered.unwrap_or_else(|| texts::trouble(Some(reason), &provider)))
        }
    }
}

/// The connection that was connected with a link for one. With a link for several, the last one may be another person's.
pub(super) fn only_connection(open: &OpenConnectLinkResponse) -> &str {
    let is_for_one = open.link.as_ref().is_some_and(|link| link.max_uses == 1);
    if is_for_one { last_connection(open) } else { "" }
}

/// The connection that was last connected with the link.
pub(super) fn last_connection(open: &OpenConnectLinkResponse) -> &str {
    open.link.as_ref().and_then(|link| link.last_connection_id.as_deref()).unwrap_or_default()
}
