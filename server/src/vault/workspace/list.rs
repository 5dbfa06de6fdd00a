//! GetWorkspace and ListWorkspaces.

use crate::model::{Principal, WorkspaceId, WorkspaceSet};
use crate::store::WorkspaceFacts;
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

#[derive(Debug, Clone, Default)]
pub struct ListWorkspaces {
    /// 1 to 1000.
    pub page_size: u32,
    /// Empty for the first page.
    pub page_token: String,
}

#[derive(Debug)]
pub struct WorkspacePage {
    pub workspaces: Vec<WorkspaceFacts>,
    /// Empty on the last page.
    pub next_page_token: String,
}

impl Vault {
    /// # Errors
    /// `WorkspaceNotFound`.
    pub async fn get_workspace(
        &self,
        caller: &Principal,
        id: WorkspaceId,
    ) -> Result<WorkspaceFacts, VaultError> {
        if !caller.workspaces.contains(&id) {
            return Err(VaultError::WorkspaceNotFound(id));
        }
        self.known_workspace(&id).await
    }

    /// A page of workspaces that the caller may see, by id.
    ///
    /// # Errors
    /// `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_workspaces(
        &self,
        caller: &Principal,
        query: ListWorkspaces,
    ) -> Result<WorkspacePage, VaultError> {
        let hash = self.query_hash(caller, "ListWorkspaces", &[]);
        let mut after = match query.page_token.as_str() {
            "" => String::new(),
            token => self.read_page_token(token, &hash)?,
        };
        let wanted = usize::try_from(query.page_size.clamp(1, 1_000)).unwrap_or(1);
        let mut found: Vec<WorkspaceFacts> = Vec::new();
        let mut session = self.store.read().await?;
        match &caller.workspaces {
            WorkspaceSet::Named(named) => {
                for id in named.iter().filter(|id| id.as_str() > after.as_str()) {
                    found.extend(session.workspace(id).await?);
                    if found.len() > wanted {
                        break;
                    }
                }
            }
            WorkspaceSet::All => {
                let limit = i64::try_from(wanted).unwrap_or(1) + 1;
                found = session.workspaces_after(&after, limit).await?;
            }
        }
        drop(session);
        let more = found.len() > wanted;
        found.truncate(wanted);
        let next_page_token = match found.last() {
            Some(last) if more => {
                after = last.id.to_string();
                self.write_page_token(&after, &hash)?
            }
            _ => String::new(),
        };
        Ok(WorkspacePage { workspaces: found, next_page_token })
    }

    pub(super) async fn known_workspace(&self, id: &WorkspaceId) -> Result<WorkspaceFacts, VaultError> {
        let known = self.store.read().await?.workspace(id).await?;
        known.ok_or_else(|| VaultError::WorkspaceNotFound(id.clone()))
    }
}
