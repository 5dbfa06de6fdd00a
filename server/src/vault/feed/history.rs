//! ListExpiryEvents: paging through the events that are kept.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Event, Principal, Timestamp};
use crate::store::EventDrive;
use crate::vault::error::VaultError;
use crate::vault::feed::filter::{EventFilter, may_see};
use crate::vault::state::Vault;

/// About how many bytes of events a page may hold.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// The most reads for one page. A page that the filter leaves empty after that many ends short.
const READS: usize = 20;

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

#[derive(Debug)]
pub struct EventPage {
    pub events: Vec<SeenEvent>,
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
    /// # Errors
    /// `WorkspaceNotFound`, `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_events(&self, caller: &Principal, query: ListEvents) -> Result<EventPage, VaultError> {
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
        let wanted = usize::try_from(query.page_size.clamp(1, 1_000)).unwrap_or(1_000);
        let (mut events, mut bytes) = (Vec::with_capacity(wanted), 0);
        for _ in 0..READS {
            if left.low > left.high || events.len() >= wanted || bytes >= PAGE_BYTES {
                break;
            }
            let bounds = (left.low, left.high);
            let found = session.list_events(&drive, bounds, query.oldest_first, 1_000).await?;
            if found.is_empty() {
                left.low = i64::MAX;
                break;
            }
            for event in found {
                if events.len() >= wanted || bytes >= PAGE_BYTES {
                    break;
                }
                if query.oldest_first {
                    left.low = event.sequence + 1;
                } else {
                    left.high = event.sequence - 1;
                }
                if may_see(caller, &event) && query.filter.passes(&event.word) {
                    bytes += event.word.about_bytes();
                    events.push(self.seen(Arc::new(event)));
                }
            }
        }
        let cursor = left.cursor.clone();
        let next_page_token = if left.low > left.high {
            String::new()
        } else {
            let text = serde_json::to_string(&left).map_err(|_| VaultError::Internal)?;
            self.write_page_token(&text, &hash)?
        };
        Ok(EventPage { events, next_page_token, cursor })
    }

    pub(super) fn seen(&self, event: Arc<Event>) -> SeenEvent {
        SeenEvent { cursor: self.write_cursor(event.position()), event }
    }
}
