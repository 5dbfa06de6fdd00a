//! Subscriptions: named positions in the feed that a principal keeps in the vault.

use crate::model::{Principal, RequestId, SubscriptionName, Timestamp};
use crate::store::{Abort, Bookmark};
use crate::vault::access::require_all_workspaces;
use crate::vault::error::{FieldViolation, VaultError};
use crate::vault::once::idempotency::{NoOutcome, RequestClaim};
use crate::vault::paging::{Filling, full};
use crate::vault::position::{NextPage, write_cursor};
use crate::vault::state::Vault;

/// Subscriptions that one principal may have.
const PER_PRINCIPAL: i64 = 100;
/// About how many bytes one of them takes.
const BOOKMARK: usize = 512;

/// Moves a subscription; creates it if it is new.
#[derive(Debug, Clone)]
pub struct AcknowledgeEvents {
    pub subscription: SubscriptionName,
    /// Everything up to here has been processed.
    pub cursor: String,
    /// The subscription may move back.
    pub allow_rewind: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub name: String,
    pub principal: String,
    pub cursor: String,
    /// How many events of the whole feed come after its position.
    pub behind: i64,
    /// When it was last moved.
    pub acknowledged_at: Timestamp,
    pub created_at: Timestamp,
    /// Whether a watch can't resume from its position: the events after it were deleted, or the feed was replaced.
    pub compacted: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ListSubscriptions {
    /// 1 to 1000.
    pub page_size: u32,
    /// Empty for the first page.
    pub page_token: String,
}

#[derive(Debug, Clone)]
pub struct DeleteSubscription {
    pub request_id: Option<RequestId>,
    pub principal: String,
    pub name: SubscriptionName,
}

impl Vault {
    /// Moves a subscription of the caller's, or creates it.
    ///
    /// # Errors
    /// `CursorInvalid`, `FeedReplaced`, `EventsCompacted`. A move back that is not allowed changes nothing.
    pub async fn acknowledge_events(
        &self,
        caller: &Principal,
        command: AcknowledgeEvents,
    ) -> Result<Subscription, VaultError> {
        let position = self.read_cursor(&command.cursor, "cursor").await?;
        let now = self.clock.now();
        let bookmark = Bookmark {
            principal: caller.name.clone(),
            name: command.subscription.to_string(),
            epoch: self.keys.vault.feed_epoch,
            position,
            acknowledged_at: now,
            created_at: now,
        };
        let (unit, rewind) = (bookmark.clone(), command.allow_rewind);
        let name = command.subscription.clone();
        let moved = self
            .store
            .write(move |tx| {
                let (bookmark, name) = (unit.clone(), name.clone());
                Box::pin(async move {
                    let known = tx.bookmark(&bookmark.principal, &name).await?.is_some();
                    if !known && tx.count_bookmarks(&bookmark.principal).await? >= PER_PRINCIPAL {
                        let rule = format!(
                            "must be one that exists: a principal may have {PER_PRINCIPAL}; delete one with VaultAdmin.DeleteSubscription"
                        );
                        let violation = FieldViolation::new("subscription", rule);
                        return Err(Abort::Work(VaultError::Fields(vec![violation])));
                    }
                    let moved = tx.move_bookmark(&bookmark, rewind).await?;
                    if moved {
                        tx.audit_object(format!("subscription:{}", bookmark.name), now);
                    }
                    Ok(moved)
                })
            })
            .await?;
        if !moved {
            // A late acknowledgement is no error.
            tracing::debug!(
                subscription = bookmark.name,
                by = caller.name,
                "the subscription is already further"
            );
        }
        let kept = self.store.read().await?.bookmark(&caller.name, &command.subscription).await?;
        self.subscription(kept.unwrap_or(bookmark)).await
    }

    async fn subscription(&self, bookmark: Bookmark) -> Result<Subscription, VaultError> {
        let kept = bookmark.epoch == self.keys.vault.feed_epoch
            && match self.check_position(bookmark.position).await {
                Ok(()) => true,
                Err(VaultError::FeedReplaced { .. } | VaultError::EventsCompacted { .. }) => false,
                Err(error) => return Err(error),
            };
        Ok(Subscription {
            name: bookmark.name,
            principal: bookmark.principal,
            cursor: write_cursor(bookmark.epoch, bookmark.position),
            behind: (self.store.feed().head().sequence - bookmark.position.sequence).max(0),
            acknowledged_at: bookmark.acknowledged_at,
            created_at: bookmark.created_at,
            compacted: !kept,
        })
    }

    /// Offers the subscriptions of one page, by principal and name, to `take`, which returns false for one that does not
    /// fit any more.
    ///
    /// # Errors
    /// `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_subscriptions(
        &self,
        caller: &Principal,
        query: ListSubscriptions,
        mut take: impl FnMut(Subscription) -> bool + Send,
    ) -> Result<NextPage, VaultError> {
        require_all_workspaces(caller)?;
        let hash = self.query_hash(caller, "ListSubscriptions", &[]);
        let mut after: (String, String) = match query.page_token.as_str() {
            "" => (String::new(), String::new()),
            token => serde_json::from_str(&self.read_page_token(token, &hash)?)
                .map_err(|_| VaultError::PageTokenInvalid)?,
        };
        let mut filling = Filling::of(query.page_size);
        'page: while let Some(rows) = filling.next() {
            let found = self.store.read().await?.bookmarks((&after.0, &after.1), rows).await?;
            filling.read(found.iter().map(|_| BOOKMARK), full(found.len(), rows));
            for bookmark in found {
                let position = (bookmark.principal.clone(), bookmark.name.to_string());
                let subscription = self.subscription(bookmark).await?;
                if !filling.offer(|| take(subscription)) {
                    break 'page;
                }
                after = position;
            }
        }
        let position = serde_json::to_string(&after).map_err(|_| VaultError::Internal)?;
        self.next_page(&filling, &position, &hash)
    }

    /// # Errors
    /// `SubscriptionNotFound`.
    pub async fn delete_subscription(
        &self,
        caller: &Principal,
        command: DeleteSubscription,
    ) -> Result<Subscription, VaultError> {
        require_all_workspaces(caller)?;
        let parts: [&[u8]; 2] = [command.principal.as_bytes(), command.name.as_str().as_bytes()];
        let request = self.request("DeleteSubscription", command.request_id.as_ref(), &parts);
        let gone = || VaultError::SubscriptionNotFound(command.name.clone());
        let work = async |claim: RequestClaim| {
            let known = self.store.read().await?.bookmark(&command.principal, &command.name).await?;
            let subscription = self.subscription(known.ok_or_else(gone)?).await?;
            let (unit, now) = (command.clone(), self.clock.now());
            self.store
                .write(move |tx| {
                    let (command, claim) = (unit.clone(), claim.clone());
                    Box::pin(async move {
                        tx.delete_bookmark(&command.principal, &command.name).await?;
                        tx.audit_object(format!("subscription:{}/{}", command.principal, command.name), now);
                        claim.finish(tx, &NoOutcome {}).await
                    })
                })
                .await?;
            Ok(subscription)
        };
        self.once(caller, request, work, async |NoOutcome {}| Err(gone())).await
    }
}
