//! ListExpiryEvents: paging through the events that are kept.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Event, Principal, Timestamp};
use crate::store::EventDrive;
use crate::vault::error::VaultError;
use crate::vault::feed::filter::{EventFilter, may_see};
use crate::vault::paging::{Filling, full};
use crate::vault::state::Vault;

#[derive(Debug, Clone, Default)]
pub struct ListEvents {
    pub filter: EventFilter,
    /// Recorded at this instant or later.
    pub since: Option<Timestamp>,
    /// Recorded before this instant.
    pub until: Option<Timestamp>,
    /// Default: newest first.
    pub oldest_first: bool,
    /// 1 to 1000.
    pub page_size: u32,
    /// Empty for the first page.
    pub page_token: String,
}

/// What a page tells beside its events.
#[derive(Debug)]
pub struct EventPage {
    /// Empty on the last page.
    pub next_page_token: String,
    /// The feed's position that the list reflects; the same on every page.
    pub cursor: String,
}

/// An event, and the position just after it.
#[derive(Debug, Clone)]
pub struct SeenEvent {
    pub event: Arc<Event>,
    pub cursor: String,
}

/// The sequences that are still to be listed. The page token holds them under these field names.
#[derive(Serialize, Deserialize)]
struct HistoryPosition {
    cursor: String,
    low: i64,
    high: i64,
}

impl Vault {
    /// Offers the events of one page to `take`, which returns false for one that does not fit any more.
    ///
    /// # Errors
    /// `WorkspaceNotFound`, `PageTokenInvalid`, `PageTokenMismatch`; `HistoryCompacted` where retention has deleted events
    /// that this page would have had.
    pub async fn list_events(
        &self,
        caller: &Principal,
        query: ListEvents,
        mut take: impl FnMut(SeenEvent) -> bool + Send,
    ) -> Result<EventPage, VaultError> {
        query.filter.check_workspaces(caller)?;
        let parts = format!("{:?} {:?} {:?} {}", query.filter, query.since, query.until, query.oldest_first);
        let hash = self.query_hash(caller, "ListExpiryEvents", &[parts.as_bytes()]);
        let _turn = self.work.list_turn(caller).await?;
        let mut session = self.store.read().await?;
        let mut left = match query.page_token.as_str() {
            "" => {
                let state = session.feed_state().await?;
                let since = match query.since {
                    Some(since) => session.first_event_since(since).await?.unwrap_or(i64::MAX),
                    None => state.oldest,
                };
                let until = match query.until {
                    Some(until) => {
                        session.first_event_since(until).await?.unwrap_or(i64::MAX).saturating_sub(1)
                    }
                    None => i64::MAX,
                };
                let high = until.min(state.head.sequence);
                HistoryPosition { cursor: self.write_cursor(state.head), low: since, high }
            }
            token => serde_json::from_str(&self.read_page_token(token, &hash)?)
                .map_err(|_| VaultError::PageTokenInvalid)?,
        };
        let drive = match query.filter.connections.iter().collect::<Vec<_>>().as_slice() {
            [one] => EventDrive::Connection(**one),
            _ => EventDrive::Everywhere,
        };
        let (mut filling, bounds_of_page) = (Filling::of(query.page_size), (left.low, left.high));
        'page: while left.low <= left.high
            && let Some(rows) = filling.next()
        {
            let bounds = (left.low, left.high);
            let found = session.list_events(&drive, bounds, query.oldest_first, rows).await?;
            filling.read(found.iter().map(|event| event.word.about_bytes()), full(found.len(), rows));
            for event in found {
                let sequence = event.sequence;
                let wanted = may_see(caller, &event) && query.filter.passes(&event.word);
                if wanted && !filling.offer(|| take(self.seen(Arc::new(event)))) {
                    break 'page;
                }
                if query.oldest_first {
                    left.low = sequence + 1;
                } else {
                    left.high = sequence - 1;
                }
            }
        }
        let mut has_more = filling.has_more();
        if bounds_of_page.0 <= bounds_of_page.1 {
            // Read after the events: what retention deleted before they were read is older than this one.
            let oldest = session.feed_state().await?.oldest;
            let deleted = VaultError::HistoryCompacted { oldest };
            if query.oldest_first {
                if bounds_of_page.0 < oldest {
                    return Err(deleted);
                }
            } else if !has_more && left.low <= left.high && left.low < oldest {
                // The newer events are listed. The next page would have had what is gone.
                if left.high == bounds_of_page.1 {
                    return Err(deleted);
                }
                (left.high, has_more) = (left.high.min(oldest - 1), true);
            }
        }
        let cursor = left.cursor.clone();
        let next_page_token = if left.low <= left.high && has_more {
            let text = serde_json::to_string(&left).map_err(|_| VaultError::Internal)?;
            self.write_page_token(&text, &hash)?
        } else {
            String::new()
        };
        Ok(EventPage { next_page_token, cursor })
    }

    pub(super) fn seen(&self, event: Arc<Event>) -> SeenEvent {
        SeenEvent { cursor: self.write_cursor(event.position()), event }
    }
}
