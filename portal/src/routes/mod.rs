//! What the portal answers to which address.

mod assets;
mod callback;
mod card;
mod changes;
mod entry;
mod relay;
#[cfg(test)]
mod tests;
mod visit;

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use http::header::SET_COOKIE;
use token_vault_client::Vault;
use token_vault_client::v1::report_provider_callback_request::Kind;

use self::changes::Change;
use crate::config::{ConfigError, Limits, PortalConfig, Site};
use crate::failure::Failure;
use crate::listener::Peer;
use crate::recent::Recent;
use crate::texts;
use crate::web::cookies::CookieJar;
use crate::web::headers::{Embeddable, SecurityHeaders};
use crate::web::limits::{Buckets, client};

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address(std::net::IpAddr);

/// What all requests share.
pub(crate) struct Portal {
    site: Site,
    vault: Vault,
    jar: CookieJar,
    headers: SecurityHeaders,
    stylesheet: String,
    recent: Recent,
    addresses: Buckets<std::net::IpAddr>,
    /// For what providers send: all of it comes from few addresses.
    senders: Buckets<std::net::IpAddr>,
    /// By the digests of the tokens, because whoever knows only the id of a link must not use up its bucket; and by addresses,
    /// because one of several who have a link must not either.
    links: Buckets<([u8; 32], std::net::IpAddr)>,
    trusted_proxy: bool,
    limits: Limits,
}

impl Portal {
    pub(crate) fn new(config: PortalConfig) -> Result<Self, ConfigError> {
        let site = Site::new(&config)?;
        Ok(Self {
            jar: CookieJar::new(site.secure),
            headers: SecurityHeaders::new(&site)?,
            stylesheet: assets::stylesheet(site.accent.as_ref()),
            recent: Recent::new(),
            addresses: Buckets::new(config.limits.requests_per_minute_and_address),
            senders: Buckets::new(config.limits.callbacks_per_minute_and_address),
            links: Buckets::new(config.limits.calls_per_minute_and_link),
            trusted_proxy: config.trusted_proxy,
            limits: config.limits,
            vault: config.vault,
            site,
        })
    }
}

pub(crate) fn all(portal: Arc<Portal>) -> Router {
    Router::new()
        .route("/l/{token}", get(entry::enter))
        .route("/card/{id}", get(card::show))
        .route("/card/{id}/embed", get(card::embed))
        // The answer to a form has its address, which people load again.
        .route("/card/{id}/connect", changes::takes(Change::Connect))
        .route("/card/{id}/paste", changes::takes(Change::Paste))
        .route("/card/{id}/validate", changes::takes(Change::Validate))
        .route("/callbacks/{provider}", get(callback::complete))
        .route(callback::START_AGAIN, get(callback::start_again))
        .route("/callbacks/{provider}/deauthorize", relay::receives(Kind::Deauthorize))
        .route("/callbacks/{provider}/data-deletion", relay::receives(Kind::DataDeletion))
        .route("/callbacks/{provider}/data-deletion/{code}", get(relay::deletion_state))
        .route("/callbacks/{provider}/webhook", relay::receives(Kind::Webhook))
        .route("/assets/portal.css", get(assets::css))
        .route("/assets/time.js", get(assets::script))
        .route("/assets/logo", get(assets::logo))
        .route("/favicon.ico", get(assets::no_icon))
        .route("/robots.txt", get(assets::robots))
        .route("/healthz", get(assets::alive))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&portal), around))
        .with_state(portal)
}

/// Bounds each request, and gives each answer its headers.
async fn around(State(portal): State<Arc<Portal>>, mut request: Request, next: Next) -> Response {
    let address = portal.address(&request);
    request.extensions_mut().insert(address);
    let mut response = match portal.admit(&request, address) {
        Ok(()) => match tokio::time::timeout(portal.limits.answer_timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Failure::too_late().page(&portal.site),
        },
        Err(failure) => failure.page(&portal.site),
    };
    let embeddable = response.extensions().get::<Embeddable>().is_some();
    portal.headers.put(response.headers_mut(), embeddable);
    response
}

impl Portal {
    fn address(&self, request: &Request) -> Address {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
        Address(client(peer, request.headers(), self.trusted_proxy))
    }

    fn admit(&self, request: &Request, Address(address): Address) -> Result<(), Failure> {
        // An orchestrator asks often, and must not be refused because of others behind the same proxy.
        if request.uri().path() == "/healthz" {
            return Ok(());
        }
        let buckets =
            if relay::is_of_provider(request.uri().path()) { &self.senders } else { &self.addresses };
        buckets.take(address, NonZeroU32::MIN).map_err(|wait| {
            tracing::debug!(%address, "an address sends too many requests");
            Failure::too_many(wait)
        })
    }
}

fn set_cookies(response: &mut Response, cookies: impl IntoIterator<Item = Option<http::HeaderValue>>) {
    for cookie in cookies.into_iter().flatten() {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

async fn not_found(State(portal): State<Arc<Portal>>) -> Response {
    Failure::new(StatusCode::NOT_FOUND, texts::not_found()).page(&portal.site)
}

async fn method_not_allowed(State(portal): State<Arc<Portal>>) -> Response {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, texts::method_not_allowed()).page(&portal.site)
}
