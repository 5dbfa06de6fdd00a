//! Requests and answers about keys and workspaces.

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::rotate_key_request::Key;
use token_vault_proto::v1::workspace::State;

use super::fields::Fields;
use super::time::instant;
use crate::model::WorkspaceId;
use crate::vault::{
    JobRun, KeyToRotate, ListWorkspaces, RotateKey, ShredWorkspace, Shredded, VaultError, WorkspaceFacts,
    WorkspacePage,
};

impl TryFrom<pb::RotateKeyRequest> for RotateKey {
    type Error = VaultError;

    fn try_from(request: pb::RotateKeyRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let key = match request.key {
            Some(Key::Master(true)) => Some(KeyToRotate::Master),
            Some(Key::Master(false)) => {
                fields.violated("master", "must be true, or name a workspace instead");
                None
            }
            Some(Key::WorkspaceId(id)) => fields.workspace("workspace_id", id).map(KeyToRotate::Workspace),
            None => {
                fields.violated("key", "must be set: master or workspace_id");
                None
            }
        };
        let key = fields.finish(key)?;
        Ok(Self { request_id, key })
    }
}

impl From<JobRun> for pb::RotateKeyResponse {
    fn from(run: JobRun) -> Self {
        Self { run: Some(run.into()) }
    }
}

/// Which workspace is asked for.
#[derive(Debug)]
pub(in crate::api) struct GetWorkspace {
    /// The workspace.
    pub(in crate::api) workspace: WorkspaceId,
}

impl TryFrom<pb::GetWorkspaceRequest> for GetWorkspace {
    type Error = VaultError;

    fn try_from(request: pb::GetWorkspaceRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let workspace = fields.workspace("workspace_id", request.workspace_id);
        Ok(Self { workspace: fields.finish(workspace)? })
    }
}

impl TryFrom<pb::ListWorkspacesRequest> for ListWorkspaces {
    type Error = VaultError;

    fn try_from(request: pb::ListWorkspacesRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let page_size = fields.page_size(request.page_size);
        let page_token = fields.page_token(request.page_token);
        fields.check()?;
        Ok(Self { page_size, page_token })
    }
}

impl TryFrom<pb::ShredWorkspaceRequest> for ShredWorkspace {
    type Error = VaultError;

    fn try_from(request: pb::ShredWorkspaceRequest) -> Result<Self, VaultError> {
        let mut fields = Fields::default();
        let request_id = fields.request_id(request.request_id);
        let workspace = fields.workspace("workspace_id", request.workspace_id);
        let workspace = fields.finish(workspace)?;
        let (confirm, revoke_at_provider) = (request.confirm_workspace_id, request.revoke_at_provider);
        Ok(Self { request_id, workspace, confirm, revoke_at_provider })
    }
}

impl From<WorkspaceFacts> for pb::Workspace {
    fn from(facts: WorkspaceFacts) -> Self {
        let state = if facts.shredded_at.is_some() { State::Shredded } else { State::Active };
        Self {
            workspace_id: facts.id.to_string(),
            display_name: facts.display_name,
            alert_emails: facts.alert_emails,
            alerts_enabled: !facts.alerts_muted && facts.shredded_at.is_none(),
            token_count: i32::try_from(facts.tokens).unwrap_or(i32::MAX),
            state: state.into(),
            data_key_version: facts.data_key_version,
            created_at: Some(instant(facts.created_at)),
            shredded_at: facts.shredded_at.map(instant),
        }
    }
}

impl From<WorkspaceFacts> for pb::GetWorkspaceResponse {
    fn from(facts: WorkspaceFacts) -> Self {
        Self { workspace: Some(facts.into()) }
    }
}

impl From<WorkspacePage> for pb::ListWorkspacesResponse {
    fn from(page: WorkspacePage) -> Self {
        Self {
            workspaces: page.workspaces.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }
    }
}

impl From<Shredded> for pb::ShredWorkspaceResponse {
    fn from(shredded: Shredded) -> Self {
        let connections = i32::try_from(shredded.connections).unwrap_or(i32::MAX);
        Self { workspace: Some(shredded.workspace.into()), connections }
    }
}
