//! GetWorkspace and ListWorkspaces.

use crate::model::{Principal, WorkspaceId, WorkspaceSet};
use crate::store::WorkspaceFacts;
use crate::vault::error::VaultError;
use crate::vault::paging::{Filling, full};
use crate::vault::position::NextPage;
use crate::vault::state::Vault;

#[derive(Debug, Clone, Default)]
pub struct ListWorkspaces {
    /// 1 to 1000.
    pub page_size: u32,
    /// Empty for the first page.
    pub page_token: String,
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

    /// Offers one page of the workspaces that the caller may see, by id, to `take`, which returns false for one that does
    /// not fit any more.
    ///
    /// # Errors
    /// `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_workspaces(
        &self,
        caller: &Principal,
        query: ListWorkspaces,
        mut take: impl FnMut(WorkspaceFacts) -> bool + Send,
    ) -> Result<NextPage, VaultError> {
        let hash = self.query_hash(caller, "ListWorkspaces", &[]);
        let mut after = match query.page_token.as_str() {
            "" => String::new(),
            token => self.read_page_token(token, &hash)?,
        };
        let mut session = self.store.read().await?;
        let mut filling = Filling::of(query.page_size);
        'page: while let Some(rows) = filling.next() {
            let (found, more) = match &caller.workspaces {
                WorkspaceSet::All => {
                    let found = session.workspaces_after(&after, rows).await?;
                    let more = full(found.len(), rows);
                    (found, more)
                }
                WorkspaceSet::Named(named) => {
                    let (mut found, mut ids) =
                        (Vec::new(), named.iter().filter(|id| id.as_str() > after.as_str()));
                    while !full(found.len(), rows)
                        && let Some(id) = ids.next()
                    {
                        found.extend(session.workspace(id).await?);
                    }
                    (found, ids.next().is_some())
                }
            };
            filling.read(found.iter().map(about_bytes), more);
            for workspace in found {
                let id = workspace.id.to_string();
                if !filling.offer(|| take(workspace)) {
                    break 'page;
                }
                after = id;
            }
        }
        drop(session);
        self.next_page(&filling, &after, &hash)
    }

    pub(super) async fn known_workspace(&self, id: &WorkspaceId) -> Result<WorkspaceFacts, VaultError> {
        let known = self.store.read().await?.workspace(id).await?;
        known.ok_or_else(|| VaultError::WorkspaceNotFound(id.clone()))
    }
}

fn about_bytes(workspace: &WorkspaceFacts) -> usize {
    512 + workspace.display_name.len()
        + workspace.alert_emails.iter().map(|email| email.len() + 24).sum::<usize>()
}
