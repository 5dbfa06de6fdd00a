//! A request about one link: which link, with which token, from which session.

use std::num::NonZeroU32;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use http::HeaderMap;
use token_vault_client::v1::connect_link::State;
use token_vault_client::v1::{ConnectLink, ErrorReason, OpenConnectLinkResponse};
use token_vault_client::{Error, LinkedVault};

use super::{Address, Portal};
use crate::failure::Failure;
use crate::page::card::provider;
use crate::texts;
use crate::web::cookies;
use crate::web::link::{LinkId, LinkToken};
use crate::web::session::Session;

/// What a call of each kind takes out of the link's bucket.
pub(super) const READ: NonZeroU32 = NonZeroU32::MIN;
pub(super) const CHANGE: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);

/// The segment of a path, which may be no text at all.
pub(super) type Segment = Result<Path<String>, PathRejection>;

/// The segment, or nothing, which is neither an id nor a token.
pub(super) fn text_of(segment: Segment) -> String {
    segment.map(|Path(text)| text).unwrap_or_default()
}

pub(super) struct Visit {
    pub(super) id: LinkId,
    pub(super) token: LinkToken,
    pub(super) vault: LinkedVault,
    pub(super) session: Option<Session>,
}

impl Portal {
    /// The visit that the path and the cookies describe. `cost` is what it takes out of the link's bucket.
    pub(super) fn visit(
        &self,
        id: &str,
        Address(from): Address,
        headers: &HeaderMap,
        cost: NonZeroU32,
    ) -> Result<Visit, Failure> {
        let id = LinkId::parse(id).ok_or_else(Failure::link_is_over)?;
        let cookie = cookies::get(headers, &self.jar.link_name(&id)).and_then(LinkToken::parse);
        let token = cookie.filter(|token| token.id == id).ok_or_else(Failure::start_again)?;
        self.links.take((token.digest(), from), cost).map_err(|wait| {
            tracing::info!(link = %id, "a link is used too often");
            Failure::too_many(wait)
        })?;
        let vault = self.vault.for_link(token.expose()).map_err(|_| Failure::link_is_over())?;
        Ok(Visit { id, token, vault, session: Session::of(headers, self.jar) })
    }

    /// Asks the vault what is behind the link.
    pub(super) async fn open(&self, visit: &Visit) -> Result<OpenConnectLinkResponse, Failure> {
        let opened = visit.vault.open_connect_link().await;
        let open = opened.map_err(|error| self.failure(visit, &error, ""))?;
        match open.link.as_ref().map(ConnectLink::state) {
            Some(State::Open | State::Used) => Ok(open),
            Some(State::Expired | State::Revoked) => Err(Failure::link_is_over()),
            Some(State::Unspecified) | None => {
                tracing::warn!(link = %visit.id, "the vault described a link in a way that is not known");
                Err(Failure::new(http::StatusCode::BAD_GATEWAY, texts::faulty()))
            }
        }
    }

    /// What an error of the vault means for this visit, and a line in the log for whoever runs the portal.
    pub(super) fn failure(&self, visit: &Visit, error: &Error, provider: &str) -> Failure {
        let (reason, call_id) = (reason_of(error), error.call_id());
        let mut failure = Failure::of(error, &texts::provider(provider));
        if failure.status.is_server_error() {
            // A message of the vault may quote what was sent. Without a reason, it is the transport's.
            let cause = error.reason_name().is_empty().then(|| error.message());
            tracing::warn!(link = %visit.id, reason, code = ?error.code(), cause, call_id, "the vault did not do it");
        } else {
            tracing::info!(link = %visit.id, reason, call_id, "the vault denied it");
        }
        if error.reason() == Some(ErrorReason::ConnectLinkNotFound) {
            failure.clear = self.jar.clear_link(&visit.id);
        }
        failure
    }
}

/// The name of the reason, for the log. A vault's names have capitals and `_` only; anything else would be a text.
pub(super) fn reason_of(error: &Error) -> &str {
    let name = error.reason_name();
    let plain = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if plain && !name.is_empty() { name } else { "none" }
}

/// What the calls need to know of an opened link.
pub(super) struct Target {
    pub(super) workspace_id: String,
    pub(super) provider: String,
    /// The only connection that the link is for.
    pub(super) connection_id: Option<String>,
}

impl Target {
    pub(super) fn of(open: &OpenConnectLinkResponse) -> Self {
        let link = open.link.as_ref();
        Self {
            workspace_id: link.map(|link| link.workspace_id.clone()).unwrap_or_default(),
            provider: provider(open).to_owned(),
            connection_id: link.and_then(|link| link.connection_id.clone()),
        }
    }
}
