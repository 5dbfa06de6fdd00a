//! Converts the requests and responses of authorizations.

mod callbacks;
mod links;

use token_vault_proto::v1 as pb;
use url::Url;

pub(in crate::api) use links::RevokeConnectLink;

use crate::api::convert::fields::Fields;
use crate::api::convert::time::instant;
use crate::model::{ProviderId, Secret};
use crate::provider::is_loopback;
use crate::vault::{Authorization, BeginAuthorization, CompleteAuthorization, IntakeOptions, VaultError};

/// Longest redirect URI, in bytes.
const REDIRECT_URI: usize = 2_048;
/// What a provider adds to the redirect URI.
const CALLBACK: [&str; 4] = ["state", "code", "error", "error_code"];
/// Longest session binding, in characters.
const SESSION_BINDING: usize = 256;
/// The most scopes to ask for beside the configured ones.
const EXTRA_SCOPES: usize = 50;
/// Longest name of a scope, in bytes.
const SCOPE: usize = 128;

impl TryFrom<pb::BeginAuthorizationRequest> for BeginAuthorization {
    type Error = VaultError;

    fn try_from(request: pb::BeginAuthorizationRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let workspace = fields.workspace("workspace_id", request.workspace_id);
        let provider = fields.keep("provider", ProviderId::parse(request.provider));
        let connection = request.connection_id.and_then(|id| fields.connection(&id));
        let good = request.redirect_uri.len() <= REDIRECT_URI
            && request.redirect_uri.bytes().all(|byte| byte.is_ascii_graphic());
        let url = Some(&request.redirect_uri).filter(|_| good).and_then(|text| Url::parse(text).ok());
        let rule = "must be an https:// URL without user name and fragment, at most 2048 printable ASCII characters (http:// \
                    only for a loopback host)";
        fields.reject_if(!url.as_ref().is_some_and(is_redirect_uri), "redirect_uri", rule);
        let ambiguous =
            url.is_some_and(|url| url.query_pairs().any(|(name, _)| CALLBACK.contains(&name.as_ref())));
        fields.reject_if(
            ambiguous,
            "redirect_uri",
            "must not have state, code, error or error_code in its query",
        );
        let extra_scopes = request.extra_scopes;
        fields.reject_if(extra_scopes.len() > EXTRA_SCOPES, "extra_scopes", "must be at most 50 names");
        for (at, scope) in extra_scopes.iter().take(EXTRA_SCOPES).enumerate() {
            let rule = "must be 1 to 128 of [A-Za-z0-9_.:/-]";
            fields.reject_if(!is_scope(scope), &format!("extra_scopes[{at}]"), rule);
        }
        let options = request.options.map_or_else(IntakeOptions::default, IntakeOptions::from);
        let session_binding = fields.text("session_binding", Some(request.session_binding), SESSION_BINDING);
        let ((workspace, provider), session_binding) =
            fields.finish(workspace.zip(provider).zip(session_binding))?;
        Ok(Self {
            request_id,
            workspace,
            provider,
            redirect_uri: request.redirect_uri,
            connection,
            extra_scopes,
            options,
            session_binding: Secret::new(session_binding),
        })
    }
}

fn is_redirect_uri(url: &Url) -> bool {
    (url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url)))
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none()
}

fn is_scope(text: &str) -> bool {
    (1..=SCOPE).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte))
}

impl TryFrom<pb::CompleteAuthorizationRequest> for CompleteAuthorization {
    type Error = VaultError;

    /// Checks only that there is a callback. The vault judges its form.
    fn try_from(request: pb::CompleteAuthorizationRequest) -> Result<Self, VaultError> {
        let callback = Secret::new(request.callback_query);
        let mut fields = Fields::default();
        let workspace = fields.workspace("workspace_id", request.workspace_id);
        let rule = "must be the query that the provider sent back, or the whole URL";
        fields.reject_if(callback.expose().is_empty(), "callback_query", rule);
        let session_binding = fields.text("session_binding", Some(request.session_binding), SESSION_BINDING);
        let (workspace, session_binding) = fields.finish(workspace.zip(session_binding))?;
        Ok(Self { workspace, callback, session_binding: Secret::new(session_binding) })
    }
}

impl From<Authorization> for pb::BeginAuthorizationResponse {
    fn from(begun: Authorization) -> Self {
        Self {
            authorization_url: begun.url.into(),
            state: begun.state.expose().to_owned(),
            expires_at: Some(instant(begun.expires_at)),
        }
    }
}
