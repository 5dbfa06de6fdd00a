//! API keys: requests into commands, outcomes into responses.

use std::collections::BTreeSet;

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::api_key::{Role as PbRole, Workspaces as KeyWorkspaces};
use token_vault_proto::v1::create_api_key_request::Workspaces;

use super::bounds::Filled;
use super::fields::Fields;
use super::time::instant;
use crate::model::{ApiKeyId, BadValue, RequestId, Role, WorkspaceId, WorkspaceSet};
use crate::vault::{
    ApiKey, CreateApiKey, ListApiKeys, NewApiKey, NextPage, RotateApiKey, RotatedApiKey, VaultError,
};

/// The most workspaces that one key may name.
const MOST_WORKSPACES: usize = 1_000;

impl TryFrom<pb::CreateApiKeyRequest> for CreateApiKey {
    type Error = VaultError;

    fn try_from(request: pb::CreateApiKeyRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let principal = fields.keep("principal", principal(request.principal));
        let role = match PbRole::try_from(request.role) {
            Ok(PbRole::Connector) => Some(Role::Connector),
            Ok(PbRole::Ingestion) => Some(Role::Ingestion),
            Ok(PbRole::Alerting) => Some(Role::Alerting),
            Ok(PbRole::Viewer) => Some(Role::Viewer),
            Ok(PbRole::Admin) => Some(Role::Admin),
            Ok(PbRole::Portal) => Some(Role::Portal),
            Ok(PbRole::Unspecified) | Err(_) => {
                fields.violated("role", "must be a role of this version");
                None
            }
        };
        let workspaces = match request.workspaces {
            Some(Workspaces::AllWorkspaces(true)) => Some(WorkspaceSet::All),
            Some(Workspaces::AllWorkspaces(false)) => {
                fields.violated("all_workspaces", "must be true, or name workspaces instead");
                None
            }
            Some(Workspaces::Named(list)) => named(&mut fields, list),
            None => {
                fields.violated("workspaces", "must be set: all_workspaces or named");
                None
            }
        };
        let expires_at = fields.instant("expires_at", request.expires_at);
        let parts = principal.zip(role).zip(workspaces);
        let ((principal, role), workspaces) = fields.finish(parts)?;
        Ok(Self { request_id, principal, role, workspaces, expires_at })
    }
}

fn named(fields: &mut Fields, list: pb::WorkspaceList) -> Option<WorkspaceSet> {
    let count = list.workspace_ids.len();
    if !(1..=MOST_WORKSPACES).contains(&count) {
        fields.violated("named.workspace_ids", format!("must be 1 to {MOST_WORKSPACES}"));
        return None;
    }
    let mut named = BTreeSet::new();
    for (at, id) in list.workspace_ids.into_iter().enumerate() {
        named.extend(fields.workspace(&format!("named.workspace_ids[{at}]"), id));
    }
    Some(WorkspaceSet::Named(named))
}

/// Stricter than for callers with certificates and tokens, whose names may hold more characters.
fn principal(name: String) -> Result<String, BadValue> {
    let good = (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b));
    if good { Ok(name) } else { Err(BadValue::new("must be 1 to 128 characters of A-Z a-z 0-9 . _ : -")) }
}

impl TryFrom<pb::ListApiKeysRequest> for ListApiKeys {
    type Error = VaultError;

    fn try_from(request: pb::ListApiKeysRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let page_size = fields.page_size(request.page_size);
        let page_token = fields.page_token(request.page_token);
        let principal = request.principal.and_then(|name| fields.keep("principal", principal(name)));
        fields.check()?;
        Ok(Self { principal, page_size, page_token })
    }
}

#[derive(Debug)]
pub(in crate::api) struct RevokeApiKey {
    pub(in crate::api) request_id: Option<RequestId>,
    pub(in crate::api) key: ApiKeyId,
}

impl TryFrom<pb::RevokeApiKeyRequest> for RevokeApiKey {
    type Error = VaultError;

    fn try_from(request: pb::RevokeApiKeyRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let key = fields.keep("key_id", ApiKeyId::parse(request.key_id));
        let key = fields.finish(key)?;
        Ok(Self { request_id, key })
    }
}

impl TryFrom<pb::RotateApiKeyRequest> for RotateApiKey {
    type Error = VaultError;

    fn try_from(request: pb::RotateApiKeyRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let key = fields.keep("key_id", ApiKeyId::parse(request.key_id));
        let overlap = fields.length("overlap", request.overlap);
        let expires_at = fields.instant("expires_at", request.expires_at);
        let key = fields.finish(key)?;
        Ok(Self { request_id, key, overlap, expires_at })
    }
}

impl From<ApiKey> for pb::ApiKey {
    fn from(key: ApiKey) -> Self {
        let role = match key.role {
            Role::Connector => PbRole::Connector,
            Role::Ingestion => PbRole::Ingestion,
            Role::Alerting => PbRole::Alerting,
            Role::Viewer => PbRole::Viewer,
            Role::Admin => PbRole::Admin,
            Role::Portal => PbRole::Portal,
        };
        let workspaces = match key.workspaces {
            WorkspaceSet::All => KeyWorkspaces::AllWorkspaces(true),
            WorkspaceSet::Named(named) => KeyWorkspaces::Named(pb::WorkspaceList {
                workspace_ids: named.iter().map(WorkspaceId::to_string).collect(),
            }),
        };
        Self {
            key_id: key.id.to_string(),
            principal: key.principal,
            role: role.into(),
            workspaces: Some(workspaces),
            created_at: Some(instant(key.created_at)),
            expires_at: key.expires_at.map(instant),
            last_used_at: key.last_used_at.map(instant),
            revoked_at: key.revoked_at.map(instant),
            replaced_by: key.replaced_by.map(|by| by.to_string()),
        }
    }
}

impl From<NewApiKey> for pb::CreateApiKeyResponse {
    fn from(new: NewApiKey) -> Self {
        let key = new.key.map_or(String::new(), |key| key.expose().to_owned());
        Self { api_key: Some(new.api_key.into()), key }
    }
}

impl From<RotatedApiKey> for pb::RotateApiKeyResponse {
    fn from(rotated: RotatedApiKey) -> Self {
        let pb::CreateApiKeyResponse { api_key, key } = rotated.new.into();
        Self { api_key, key, replaced: Some(rotated.replaced.into()) }
    }
}

impl From<Filled<NextPage, pb::ApiKey>> for pb::ListApiKeysResponse {
    fn from(page: Filled<NextPage, pb::ApiKey>) -> Self {
        let NextPage(next_page_token) = page.rest;
        Self { api_keys: page.elements, next_page_token }
    }
}

impl From<ApiKey> for pb::RevokeApiKeyResponse {
    fn from(key: ApiKey) -> Self {
        Self { api_key: Some(key.into()) }
    }
}
