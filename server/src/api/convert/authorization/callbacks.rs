//! Converts what a provider sent to our app, and what to answer.

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::report_provider_callback_request::Kind;
use token_vault_proto::v1::report_provider_callback_response::DeletionState as Shown;

use crate::api::convert::fields::Fields;
use crate::api::convert::request::headers;
use crate::model::{ProviderId, Secret};
use crate::provider::{CallbackKind, ProviderCallback};
use crate::vault::{CallbackOutcome, DeletionState, ReportProviderCallback, VaultError};

/// Longest query, in bytes.
const QUERY: usize = 8 * 1024;
/// Largest body. A webhook with a thousand changes has some 150 KiB.
const BODY: usize = 256 * 1024;

impl TryFrom<pb::ReportProviderCallbackRequest> for ReportProviderCallback {
    type Error = VaultError;

    /// Checks only the bounds. The provider's module judges what it says.
    fn try_from(request: pb::ReportProviderCallbackRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let kind = match request.kind() {
            Kind::Unspecified => None,
            Kind::Deauthorize => Some(CallbackKind::Deauthorize),
            Kind::DataDeletion => Some(CallbackKind::DataDeletion),
            Kind::Webhook => Some(CallbackKind::Webhook),
        };
        let provider = fields.keep("provider", ProviderId::parse(request.provider));
        let rule = "must be KIND_DEAUTHORIZE, KIND_DATA_DELETION or KIND_WEBHOOK";
        fields.reject_if(kind.is_none(), "kind", rule);
        let method = request.method;
        let is_method =
            (1..=16).contains(&method.len()) && method.bytes().all(|byte| byte.is_ascii_uppercase());
        fields.reject_if(!is_method, "method", "must be 1 to 16 capital letters, such as POST");
        let query = Secret::new(request.query);
        fields.reject_if(query.expose().len() > QUERY, "query", "must be at most 8 KiB");
        let headers = headers(&mut fields, request.headers);
        let body = request.body;
        fields.reject_if(body.len() > BODY, "body", "must be at most 256 KiB");
        let (provider, kind) = fields.finish(provider.zip(kind))?;
        Ok(Self { provider, callback: ProviderCallback { kind, method, query, headers, body } })
    }
}

impl From<CallbackOutcome> for pb::ReportProviderCallbackResponse {
    fn from(outcome: CallbackOutcome) -> Self {
        let deletion_state = match outcome.deletion {
            None => Shown::Unspecified,
            Some(DeletionState::Received) => Shown::Received,
            Some(DeletionState::Done) => Shown::Done,
        };
        Self {
            connections: i32::try_from(outcome.connections).unwrap_or(i32::MAX),
            http_status: i32::from(outcome.answer.status),
            content_type: outcome.answer.content_type.to_owned(),
            body: outcome.answer.body,
            deletion_state: deletion_state.into(),
        }
    }
}
