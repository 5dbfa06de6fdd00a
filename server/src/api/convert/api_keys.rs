//! Requests and answers of service `VaultAdmin`.

use std::collections::{BTreeSet, HashMap};

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::api_key::{Role as PbRole, Workspaces as KeyWorkspaces};
use token_vault_proto::v1::create_api_key_request::Workspaces;
use token_vault_proto::v1::provider_status::Circuit;

use super::fields::Fields;
use super::time::{instant, signed_length};
use super::token::status;
use crate::model::{
    ApiKeyId, BadValue, ProviderTrouble, RequestId, Role, Timestamp, WorkspaceId, WorkspaceSet,
};
use crate::vault::{
    ApiKey, ApiKeyPage, CreateApiKey, ListApiKeys, NewApiKey, ProviderState, ReplicaState, RotateApiKey,
    RotatedApiKey, VaultError, VaultStatus,
};

/// Counts up with every addition to `tokenvault.v1`.
const API_REVISION: i32 = 4;
/// Most workspaces of one key.
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

/// The stable name of a caller with a key. Those with certificates and tokens may have more in theirs.
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

/// Which key to end.
#[derive(Debug)]
pub(in crate::api) struct RevokeApiKey {
    /// Idempotency key.
    pub(in crate::api) request_id: Option<RequestId>,
    /// The key.
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

impl From<ApiKeyPage> for pb::ListApiKeysResponse {
    fn from(page: ApiKeyPage) -> Self {
        Self {
            api_keys: page.api_keys.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }
    }
}

impl From<ApiKey> for pb::RevokeApiKeyResponse {
    fn from(key: ApiKey) -> Self {
        Self { api_key: Some(key.into()) }
    }
}

impl From<VaultStatus> for pb::GetVaultStatusResponse {
    fn from(vault: VaultStatus) -> Self {
        let master_keys = vault.master_keys.into_iter().map(|key| pb::MasterKeyStatus {
            key_id: key.id,
            active: key.active,
            data_key_count: key.keys,
        });
        let token_counts = vault.tokens_by_status.into_iter().map(|(status_of, count)| pb::TokenCount {
            status: status(status_of).into(),
            count: i64::try_from(count).unwrap_or(i64::MAX),
        });
        Self {
            version: vault.version.to_owned(),
            api_revision: API_REVISION,
            server_time: Some(instant(vault.server_time)),
            backend: vault.backend.to_owned(),
            replica: vault.replica,
            head_sequence: vault.head_sequence,
            oldest_sequence: vault.oldest_sequence,
            cursor: vault.cursor,
            providers: vault.providers.into_iter().map(Into::into).collect(),
            master_keys: master_keys.collect(),
            overdue_tokens: i64::try_from(vault.overdue_tokens).unwrap_or(i64::MAX),
            token_counts: token_counts.collect(),
            replicas: vault.replicas.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ProviderState> for pb::ProviderStatus {
    fn from(state: ProviderState) -> Self {
        let circuit = if state.circuit_open { Circuit::Open } else { Circuit::Closed };
        Self {
            provider: state.provider,
            api_version: state.api_version,
            circuit: circuit.into(),
            problems: state.trouble.map(problem).into_iter().collect(),
        }
    }
}

fn problem((trouble, since): (ProviderTrouble, Timestamp)) -> pb::Problem {
    let (reason, metadata) = match trouble {
        ProviderTrouble::Unreachable => (pb::ErrorReason::ProviderUnavailable, HashMap::new()),
        ProviderTrouble::Misconfigured(_) | ProviderTrouble::ManyDeaths => (
            pb::ErrorReason::ProviderMisconfigured,
            HashMap::from([("problem".to_owned(), trouble.as_str().to_owned())]),
        ),
    };
    pb::Problem {
        reason: reason.into(),
        severity: pb::Severity::Critical.into(),
        since: Some(instant(since)),
        remedy: Some(trouble.remedy().into()),
        metadata,
    }
}

impl From<ReplicaState> for pb::ReplicaStatus {
    fn from(replica: ReplicaState) -> Self {
        Self {
            name: replica.name,
            started_at: Some(instant(replica.started_at)),
            version: replica.version,
            clock_offset: Some(signed_length(replica.clock_offset)),
            this_one: replica.is_this_one,
        }
    }
}
