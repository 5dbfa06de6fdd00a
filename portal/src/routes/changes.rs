//! The forms of the card: connect, paste a token, check now.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use http::{HeaderMap, StatusCode};
use token_vault_client::Error;
use token_vault_client::v1::{
    BeginAuthorizationRequest, Check, OpenConnectLinkResponse, StoreTokenRequest, ValidateTokenRequest,
    store_token_request,
};
use url::Url;

use super::card::{self, only_connection};
use super::visit::{CHANGE, Segment, Target, Visit, text_of};
use super::{Address, Portal, set_cookies};
use crate::failure::Failure;
use crate::notice::{self, Notice};
use crate::outcome::Outcome;
use crate::page;
use crate::page::card::{Back, Card, is_open};
use crate::texts;
use crate::web::form::{self, Form};
use crate::web::session::{Session, sha256_hex};

/// A form that was sent for a link, with everything that had to be checked.
struct Sent {
    visit: Visit,
    form: Form,
    open: OpenConnectLinkResponse,
    target: Target,
}

/// How a form is answered: with the card as it is afterwards.
struct Answer {
    status: StatusCode,
    notice: Notice,
    checks: Vec<Check>,
    checked: String,
    outcome: Option<Outcome>,
    failure: Option<Failure>,
}

/// What a form of the card asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Connect,
    Paste,
    Validate,
}

/// Takes the forms of one change. Loading their address again shows the card.
pub(super) fn takes(change: Change) -> MethodRouter<Arc<Portal>> {
    let take = move |State(portal): State<Arc<Portal>>,
                     path: Segment,
                     Extension(from): Extension<Address>,
                     headers: HeaderMap,
                     body: Body| async move {
        let answer = portal.change(change, path, from, &headers, body).await;
        answer.unwrap_or_else(|failure| failure.page(&portal.site))
    };
    post(take).get(card::again)
}

impl Portal {
    async fn change(
        &self,
        change: Change,
        path: Segment,
        from: Address,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Failure> {
        let sent = self.receive(path, from, headers, body).await?;
        match change {
            Change::Connect => self.begin(sent).await,
            Change::Paste => self.store(sent).await,
            Change::Validate => self.examine(sent).await,
        }
    }

    async fn receive(
        &self,
        path: Segment,
        from: Address,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Sent, Failure> {
        let id = text_of(path);
        form::check_source(headers, &self.site.origin)?;
        let visit = self.visit(&id, from, headers, CHANGE)?;
        let form = form::read(headers, body, self.limits.read_timeout).await?;
        let session = visit.session.as_ref().ok_or_else(Failure::start_again)?;
        if !session.is_csrf(&visit.id, &form.csrf) {
            tracing::info!(link = %visit.id, "a form of another session was refused");
            return Err(Failure::foreign_form());
        }
        let open = self.open(&visit).await?;
        let target = Target::of(&open);
        Ok(Sent { visit, form, open, target })
    }

    /// Begins an authorization, and sends the browser to the provider.
    async fn begin(&self, sent: Sent) -> Result<Response, Failure> {
        let Sent { visit, form, open, target } = sent;
        if !is_open(&open) {
            return Ok(self.card_after(&visit, &open, Answer::refused(texts::link_is_used())));
        }
        let session = visit.session.as_ref().ok_or_else(Failure::start_again)?;
        let request = BeginAuthorizationRequest {
            workspace_id: target.workspace_id,
            provider: target.provider.clone(),
            redirect_uri: format!("{}/callbacks/{}", self.site.origin, target.provider),
            connection_id: target.connection_id.or(form.connection_id),
            session_binding: session.binding(),
            ..Default::default()
        };
        let begun = match visit.vault.begin_authorization(request).await {
            Ok(begun) => begun,
            Err(error) => return Ok(self.refused(&visit, &open, &error).await),
        };
        let address = Url::parse(&begun.authorization_url).ok();
        let Some(address) = address.filter(|url| matches!(url.scheme(), "https" | "http")) else {
            tracing::warn!(link = %visit.id, "the vault gave no address of a consent dialog");
            return Err(Failure::new(StatusCode::BAD_GATEWAY, texts::faulty()));
        };
        tracing::info!(link = %visit.id, "an authorization began");
        let provider = texts::provider(&target.provider);
        let mut response = page::leaving(&self.site, &provider, address.as_str()).into_response();
        // The cookies must live as long as the dialog takes, so their time begins anew.
        set_cookies(
            &mut response,
            [
                self.jar.set_flow(&flow_of(&begun.state), &visit.id),
                self.jar.set_link(&visit.id, visit.token.expose()),
                self.jar.set_session(session),
            ],
        );
        Ok(response)
    }

    /// Stores a pasted token.
    async fn store(&self, sent: Sent) -> Result<Response, Failure> {
        let Sent { visit, form, open, target } = sent;
        if form.access_token.trim().is_empty() {
            return Ok(self.card_after(&visit, &open, Answer::refused(texts::no_token())));
        }
        let provider = texts::provider(&target.provider);
        let connection_id = target.connection_id.or(form.connection_id);
        let session = visit.session.as_ref().ok_or_else(Failure::start_again)?;
        let about = connection_id.as_deref().unwrap_or_default();
        let request = StoreTokenRequest {
            workspace_id: target.workspace_id,
            provider: target.provider,
            // A double click, or the page loaded again, is the same request, and gets the first answer.
            request_id: session.request_id(&visit.id, about, &form.access_token),
            connection_id,
            credential: Some(store_token_request::Credential::AccessToken(form.access_token.to_string())),
            ..Default::default()
        };
        // As with a callback, a browser that leaves drops its request, and the call goes on.
        let vault = visit.vault.clone();
        let stored = tokio::spawn(async move { vault.store_token(request).await }).await;
        let stored = stored.map_err(|_| Failure::new(StatusCode::BAD_GATEWAY, texts::faulty()))?;
        let result = match stored {
            Ok(response) => response.result.unwrap_or_default(),
            Err(error) => return Ok(self.refused(&visit, &open, &error).await),
        };
        let checked = result.token.map(|token| token.connection_id).unwrap_or_default();
        tracing::info!(link = %visit.id, connection = checked, "a pasted token was stored");
        let open = self.open(&visit).await?;
        let done = Answer::done(notice::connected(&provider, &result.checks));
        let answer = Answer { checks: result.checks, checked, ..done };
        Ok(self.card_after(&visit, &open, Answer { outcome: Some(Outcome::Connected), ..answer }))
    }

    /// Runs the checks of a connection.
    async fn examine(&self, sent: Sent) -> Result<Response, Failure> {
        let Sent { visit, form, open, target } = sent;
        let wrong = || Failure::new(StatusCode::BAD_REQUEST, texts::bad_form());
        let connection_id = form.connection_id.ok_or_else(wrong)?;
        let request = ValidateTokenRequest {
            connection_id: connection_id.clone(),
            workspace_id: Some(target.workspace_id),
            ..Default::default()
        };
        let response = match visit.vault.validate_token(request).await {
            Ok(response) => response,
            Err(error) => return Ok(self.refused(&visit, &open, &error).await),
        };
        let open = self.open(&visit).await?;
        let answer =
            Answer { checks: response.checks, checked: connection_id, ..Answer::done(texts::checked()) };
        Ok(self.card_after(&visit, &open, answer))
    }

    /// The card, with what the vault's denial means. A link that is over has no card, unless it was just used.
    async fn refused(&self, visit: &Visit, open: &OpenConnectLinkResponse, error: &Error) -> Response {
        let failure = self.failure(visit, error, page::card::provider(open));
        if failure.clear.is_some() {
            return match self.open(visit).await {
                Ok(open) => self.card_after(visit, &open, Answer::refused(texts::link_is_used())),
                Err(_) => failure.page(&self.site),
            };
        }
        let notice = (*failure.notice).clone();
        self.card_after(visit, open, Answer { failure: Some(failure), ..Answer::refused(notice) })
    }

    fn card_after(&self, visit: &Visit, open: &OpenConnectLinkResponse, answer: Answer) -> Response {
        let mut card = Card::new(&self.site, &visit.id, open);
        let connection = Some(answer.checked.as_str()).filter(|id| !id.is_empty());
        let connection = connection.unwrap_or_else(|| only_connection(open));
        card.back = answer.outcome.and_then(|outcome| Back::of(open, outcome, connection));
        card.notice = Some(answer.notice);
        card.checks = &answer.checks;
        card.checked = &answer.checked;
        let new: Option<Session> = self.put_csrf(&mut card, visit);
        let mut response = (answer.status, card.page()).into_response();
        if let Some(failure) = &answer.failure {
            failure.mark(&mut response);
        }
        set_cookies(&mut response, [new.and_then(|session| self.jar.set_session(&session))]);
        response
    }
}

impl Answer {
    fn done(notice: Notice) -> Self {
        Self {
            status: StatusCode::OK,
            notice,
            checks: Vec::new(),
            checked: String::new(),
            outcome: None,
            failure: None,
        }
    }

    fn refused(notice: Notice) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, ..Self::done(notice) }
    }
}

/// The name of the authorization in the browser's cookies, made of its state.
pub(super) fn flow_of(state: &str) -> String {
    let mut hash = sha256_hex(state);
    hash.truncate(16);
    hash
}
