//! ListConnectLinks and RevokeConnectLink.

use crate::model::{
    ConnectLink, ConnectLinkId, ConnectLinkState, Principal, RequestId, Timestamp, WorkspaceId,
};
use crate::store::Abort;
use crate::vault::access::connect_links::{checked, row_mac};
use crate::vault::error::VaultError;
use crate::vault::once::idempotency::{NoOutcome, RequestClaim};
use crate::vault::paging::{Filling, full};
use crate::vault::position::NextPage;
use crate::vault::state::Vault;

#[derive(Debug, Clone)]
pub struct ListConnectLinks {
    /// `None`: all that the caller may see.
    pub workspace: Option<WorkspaceId>,
    /// 1 to 1000.
    pub page_size: u32,
    /// Empty for the first page.
    pub page_token: String,
}

/// A link as seen at one time.
#[derive(Debug, Clone)]
pub struct ConnectLinkView {
    pub link: ConnectLink,
    pub state: ConnectLinkState,
}

impl ConnectLinkView {
    pub(super) fn new(link: ConnectLink, now: Timestamp) -> Self {
        Self { state: link.state(now), link }
    }
}

impl Vault {
    /// Offers the links of one page, the newest first, to `take`, which returns false for one that does not fit any more.
    ///
    /// # Errors
    /// `WorkspaceNotFound`, `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_connect_links(
        &self,
        caller: &Principal,
        query: ListConnectLinks,
        mut take: impl FnMut(ConnectLinkView) -> bool + Send,
    ) -> Result<NextPage, VaultError> {
        if let Some(hidden) = query.workspace.as_ref().filter(|id| !caller.workspaces.contains(id)) {
            return Err(VaultError::WorkspaceNotFound(hidden.clone()));
        }
        let workspace = query.workspace.as_ref().map_or("", |id| id.as_str());
        let hash = self.query_hash(caller, "ListConnectLinks", &[workspace.as_bytes()]);
        let mut before = match query.page_token.as_str() {
            "" => (Timestamp::from_micros(i64::MAX), String::new()),
            token => read_position(&self.read_page_token(token, &hash)?)?,
        };
        let now = self.clock.now();
        let mut session = self.store.read().await?;
        let mut filling = Filling::of(query.page_size);
        'page: while let Some(rows) = filling.next() {
            let found = session.connect_links_before(workspace, before.0, &before.1, rows).await?;
            let more = full(found.len(), rows);
            filling.read(found.iter().map(|record| 512 + record.link.return_url.len()), more);
            for record in found {
                let at = (record.link.created_at, record.link.id.as_str().to_owned());
                let link = checked(&self.keys.authorization, record);
                let link = link.filter(|link| caller.workspaces.contains(&link.workspace));
                if let Some(link) = link
                    && !filling.offer(|| take(ConnectLinkView::new(link, now)))
                {
                    break 'page;
                }
                before = at;
            }
        }
        let position = format!("{} {}", before.0.as_micros(), before.1);
        self.next_page(&filling, &position, &hash)
    }

    /// Ends a link at once. Revoking it twice is no error.
    ///
    /// # Errors
    /// `ConnectLinkNotFound`.
    pub async fn revoke_connect_link(
        &self,
        caller: &Principal,
        request_id: Option<RequestId>,
        id: &ConnectLinkId,
    ) -> Result<ConnectLinkView, VaultError> {
        let request = self.request("RevokeConnectLink", request_id.as_ref(), &[id.as_str().as_bytes()]);
        // Revoking twice is the same as revoking once, so a repeat does it again.
        let repeat = async |NoOutcome {}| self.revoke_link(caller, id, RequestClaim::default()).await;
        self.once(caller, request, async |claim| self.revoke_link(caller, id, claim).await, repeat).await
    }

    async fn revoke_link(
        &self,
        caller: &Principal,
        id: &ConnectLinkId,
        claim: RequestClaim,
    ) -> Result<ConnectLinkView, VaultError> {
        let (wanted, now, authorization) = (id.clone(), self.clock.now(), self.keys.authorization.clone());
        let reach = caller.workspaces.clone();
        let link = self
            .store
            .write(move |tx| {
                let (wanted, authorization) = (wanted.clone(), authorization.clone());
                let (reach, claim) = (reach.clone(), claim.clone());
                Box::pin(async move {
                    let record = tx.lock_connect_link(&wanted).await?;
                    let known = record.filter(|record| reach.contains(&record.link.workspace));
                    let over = || Abort::Work(VaultError::ConnectLinkNotFound(Some(wanted.clone())));
                    let mut record = known.ok_or_else(over)?;
                    checked(&authorization, record.clone()).ok_or_else(over)?;
                    if record.link.revoked_at.is_none() {
                        record.link.revoked_at = Some(now);
                        record.mac = row_mac(&authorization, &record.link, &record.hash);
                        tx.update_connect_link(&record).await?;
                    }
                    tx.audit_connect_link(&record.link, now);
                    claim.finish(tx, &NoOutcome {}).await?;
                    Ok(record.link)
                })
            })
            .await?;
        tracing::info!(connect_link = %link.id, workspace = %link.workspace, by = caller.name, "connect link revoked");
        Ok(ConnectLinkView::new(link, now))
    }
}

/// The position after a page: time and id of its last link.
fn read_position(text: &str) -> Result<(Timestamp, String), VaultError> {
    let (at, id) = text.split_once(' ').ok_or(VaultError::PageTokenInvalid)?;
    let at = at.parse().map_err(|_| VaultError::PageTokenInvalid)?;
    Ok((Timestamp::from_micros(at), id.to_owned()))
}
