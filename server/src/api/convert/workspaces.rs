//! Workspaces: requests into commands, outcomes into responses.

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::workspace::State;

use super::bounds::Filled;
use super::fields::Fields;
use super::time::instant;
use crate::model::WorkspaceId;
use crate::vault::{ListWorkspaces, NextPage, ShredWorkspace, Shredded, VaultError, WorkspaceFacts};

#[derive(Debug)]
pub(in crate::api) struct GetWorkspace {
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

impl From<Filled<NextPage, pb::Workspace>> for pb::ListWorkspacesResponse {
    fn from(page: Filled<NextPage, pb::Workspace>) -> Self {
        let NextPage(next_page_token) = page.rest;
        Self { workspaces: page.elements, next_page_token }
    }
}

impl From<Shredded> for pb::ShredWorkspaceResponse {
    fn from(shredded: Shredded) -> Self {
        let connections = i32::try_from(shredded.connections).unwrap_or(i32::MAX);
        let spared_at_provider = i32::try_from(shredded.spared).unwrap_or(i32::MAX);
        Self { workspace: Some(shredded.workspace.into()), connections, spared_at_provider }
    }
}
