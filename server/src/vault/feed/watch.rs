//! Following the feed, paging through it, and bookmarks. A watcher is a position and nothing more: it reads the
//! live end that all share, or the table when it is further behind, at the pace at which its caller takes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::model::{
    Connection, ConnectionId, Event, EventKind, EventWord, FeedPosition, Principal, ProviderId, RequestId,
    Severity, SubscriptionName, Timestamp, WorkspaceId, WorkspaceSet,
};
use crate::store::{Abort, Bookmark, EventDrive, Live, Recent};
use crate::vault::error::{FieldViolation, VaultError};
use crate::vault::feed::permits::Seat;
use crate::vault::once::idempotency::{NoOutcome, RequestClaim};
use crate::vault::position::write_cursor;
use crate::vault::state::Vault;
use crate::vault::token::view::TokenView;

/// Which events. Or within a field, and between fields; an empty field lets all through.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Of these workspaces; events of a provider pass always.
    pub workspaces: BTreeSet<WorkspaceId>,
    /// Of these providers.
    pub providers: BTreeSet<ProviderId>,
    /// Of these connections; events of a provider are of none.
    pub connections: BTreeSet<ConnectionId>,
    /// Of these kinds.
    pub kinds: BTreeSet<EventKind>,
    /// This severity and worse.
    pub min_severity: Option<Severity>,
}

impl EventFilter {
    /// Whether an event passes. One that settles another passes wherever that one did: recoveries are never
    /// hidden.
    pub fn passes(&self, word: &EventWord) -> bool {
        let wanted = |kind: EventKind, severity: Severity| {
            (self.kinds.is_empty() || self.kinds.contains(&kind))
                && self.min_severity.is_none_or(|least| severity >= least)
        };
        allows(&self.workspaces, word.workspace.as_ref())
            && allows(&self.providers, Some(&word.provider))
            && (self.connections.is_empty()
                || word.connection.is_some_and(|connection| self.connections.contains(&connection)))
            && (wanted(word.kind, word.severity)
                || word.closes.iter().any(|closed| wanted(closed.kind, closed.severity)))
    }

    /// Whether a connection's events can pass.
    pub fn covers(&self, connection: &Connection) -> bool {
        allows(&self.workspaces, Some(&connection.workspace))
            && allows(&self.providers, Some(&connection.provider))
            && allows(&self.connections, Some(&connection.id))
    }
}

fn allows<T: Ord>(allowed: &BTreeSet<T>, value: Option<&T>) -> bool {
    allowed.is_empty() || value.is_none_or(|value| allowed.contains(value))
}

/// Follows the feed.
#[derive(Debug, Clone, Default)]
pub struct WatchEvents {
    /// Which events.
    pub filter: EventFilter,
    /// Go on from this bookmark, if it has a position.
    pub subscription: Option<SubscriptionName>,
    /// Else from here.
    pub start: WatchStart,
    /// At the latest after this time something is said; 1 s to 5 min.
    pub heartbeat: Duration,
}

/// Where a watch starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WatchStart {
    /// With what comes.
    #[default]
    Now,
    /// With the oldest event that is kept.
    Earliest,
    /// With the current state of every matching connection.
    Snapshot,
    /// After this cursor.
    After(String),
}

/// An event, and the position just after it.
#[derive(Debug, Clone)]
pub struct SeenEvent {
    /// The event.
    pub event: Arc<Event>,
    /// The position.
    pub cursor: String,
}

/// One answer of a watch.
#[derive(Debug)]
pub struct Watched {
    /// Safe to store: all that matches up to here was sent. Empty inside a snapshot.
    pub cursor: String,
    /// The vault's now.
    pub server_time: Timestamp,
    /// What there is to say.
    pub item: WatchItem,
}

/// What a watch has to say.
#[derive(Debug)]
pub enum WatchItem {
    /// 1 to 1000 events, in order.
    Events(Vec<SeenEvent>),
    /// Connections as they are now.
    Snapshot(Vec<TokenView>),
    /// The snapshot is whole; what follows are events.
    SnapshotComplete {
        /// So many tokens were in it.
        tokens: i64,
    },
    /// Nothing new.
    Heartbeat {
        /// Sequence of the newest event of all.
        head: i64,
        /// How many events of the whole feed this watch has not looked at.
        behind: i64,
    },
}

/// Pages through history.
#[derive(Debug, Clone, Default)]
pub struct ListEvents {
    /// Which events.
    pub filter: EventFilter,
    /// Recorded at this instant or later.
    pub since: Option<Timestamp>,
    /// Recorded before this instant.
    pub until: Option<Timestamp>,
    /// Oldest first; default newest first.
    pub oldest_first: bool,
    /// How many at most; 1 to 1000.
    pub page_size: u32,
    /// Where to go on; empty at the start.
    pub page_token: String,
}

/// One page of history.
#[derive(Debug)]
pub struct EventPage {
    /// The events.
    pub events: Vec<SeenEvent>,
    /// Where the next page starts; empty on the last.
    pub next_page_token: String,
    /// Position in the feed that the list reflects; the same on every page.
    pub cursor: String,
}

/// Moves a bookmark; makes it if it is new.
#[derive(Debug, Clone)]
pub struct AcknowledgeEvents {
    /// Which.
    pub subscription: SubscriptionName,
    /// All up to here is done.
    pub cursor: String,
    /// It may move back.
    pub allow_rewind: bool,
}

/// A bookmark in the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub principal: String,
    /// Its position.
    pub cursor: String,
    /// How many events of the whole feed come after it.
    pub behind: i64,
    /// When it was last moved.
    pub acknowledged_at: Timestamp,
    /// When it came into being.
    pub created_at: Timestamp,
    /// Retention has passed it, or the feed is another one.
    pub compacted: bool,
}

/// Which bookmarks.
#[derive(Debug, Clone, Default)]
pub struct ListSubscriptions {
    /// How many at most; 1 to 1000.
    pub page_size: u32,
    /// Where to go on; empty at the start.
    pub page_token: String,
}

/// One page of bookmarks.
#[derive(Debug)]
pub struct SubscriptionPage {
    /// The bookmarks.
    pub subscriptions: Vec<Subscription>,
    /// Where the next page starts; empty on the last.
    pub next_page_token: String,
}

/// Forgets a bookmark.
#[derive(Debug, Clone)]
pub struct DeleteSubscription {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Whose.
    pub principal: String,
    /// Which.
    pub name: SubscriptionName,
}

/// Events in one answer at most.
const BATCH: usize = 1_000;
/// Tokens in one page of a snapshot at most.
const SNAPSHOT_PAGE: i64 = 250;
/// About how many bytes of events a page of history may hold.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Under load a watcher at the head is told at most so often; what gathers meanwhile comes as one answer.
const PACE: Duration = Duration::from_millis(100);
/// When nothing else is said.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Bookmarks that one principal may have.
const SUBSCRIPTIONS: i64 = 100;
/// A page that filters leave empty is looked for in at most so many steps, and then ends short.
const STEPS: usize = 20;

/// One caller's place in the feed.
pub struct Watch {
    vault: Arc<Vault>,
    caller: Arc<Principal>,
    filter: EventFilter,
    heartbeat: Duration,
    position: FeedPosition,
    live: watch::Receiver<Live>,
    generation: u64,
    snapshot: Option<Snapshot>,
    greeted: bool,
    said_at: Instant,
    said: FeedPosition,
    caught_up: bool,
    batch_at: Option<Instant>,
    permission: watch::Receiver<Option<VaultError>>,
    _seat: Seat,
}

/// What is left of a snapshot: a walk over connections, by id.
struct Snapshot {
    /// Of these workspaces; `None`: of all.
    workspaces: Option<Vec<WorkspaceId>>,
    after: Option<ConnectionId>,
    tokens: i64,
}

impl Vault {
    /// Follows the feed from a position.
    ///
    /// # Errors
    /// `CursorInvalid`, `FeedReplaced`, `EventsCompacted`: take a snapshot. `WorkspaceNotFound` for a workspace
    /// that the caller may not see. `TooManyWatches` when no place is left.
    pub async fn watch_events(
        self: &Arc<Self>,
        caller: Arc<Principal>,
        command: WatchEvents,
    ) -> Result<Watch, VaultError> {
        self.may_filter(&caller, &command.filter)?;
        let seat = self.permits.sit(&caller)?;
        let live = self.store.feed().follow();
        let generation = live.borrow().generation;
        let start = self.find_start(&caller, &command).await?;
        let (position, snapshot) = match start {
            Some(position) => (position, None),
            // The position comes first: what changes while the snapshot is read follows as events.
            None => (self.store.feed().head(), Some(Snapshot::of(&caller, &command.filter))),
        };
        let heartbeat = if command.heartbeat.is_zero() { HEARTBEAT } else { command.heartbeat };
        let now = Instant::now();
        tracing::info!(
            by = caller.name,
            sequence = position.sequence,
            snapshot = snapshot.is_some(),
            "watch begins"
        );
        Ok(Watch {
            vault: Arc::clone(self),
            caller,
            filter: command.filter,
            heartbeat,
            position,
            live,
            generation,
            snapshot,
            greeted: false,
            said_at: now,
            said: position,
            caught_up: false,
            batch_at: None,
            permission: seat.follow(),
            _seat: seat,
        })
    }

    fn may_filter(&self, caller: &Principal, filter: &EventFilter) -> Result<(), VaultError> {
        match filter.workspaces.iter().find(|workspace| !caller.workspaces.contains(workspace)) {
            Some(hidden) => Err(VaultError::WorkspaceNotFound(hidden.clone())),
            None => Ok(()),
        }
    }

    /// Where a watch starts; `None`: with a snapshot.
    async fn find_start(
        &self,
        caller: &Principal,
        command: &WatchEvents,
    ) -> Result<Option<FeedPosition>, VaultError> {
        if let Some(name) = &command.subscription
            && let Some(bookmark) = self.store.read().await?.bookmark(&caller.name, name).await?
        {
            let kept = if bookmark.epoch == self.keys.vault.feed_epoch {
                self.check_position(bookmark.position).await
            } else {
                Err(VaultError::FeedReplaced { ours: self.keys.vault.feed_epoch, theirs: bookmark.epoch })
            };
            match kept {
                Ok(()) => return Ok(Some(bookmark.position)),
                // A bookmark that is lost must not bar the way out.
                Err(VaultError::FeedReplaced { .. } | VaultError::EventsCompacted { .. })
                    if command.start == WatchStart::Snapshot => {}
                Err(error) => return Err(error),
            }
        }
        match &command.start {
            WatchStart::Now => Ok(Some(self.store.feed().head())),
            WatchStart::Earliest => {
                let state = self.store.read().await?.feed_state().await?;
                let before = FeedPosition { sequence: state.oldest - 1, identity: state.compacted_identity };
                Ok(Some(before))
            }
            WatchStart::Snapshot => Ok(None),
            WatchStart::After(cursor) => self.read_cursor(cursor, "cursor").await.map(Some),
        }
    }

    /// A page of history.
    ///
    /// # Errors
    /// `WorkspaceNotFound`, `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_events(&self, caller: &Principal, query: ListEvents) -> Result<EventPage, VaultError> {
        self.may_filter(caller, &query.filter)?;
        let parts = format!("{:?} {:?} {:?} {}", query.filter, query.since, query.until, query.oldest_first);
        let hash = self.query_hash(caller, "ListExpiryEvents", &[parts.as_bytes()]);
        let _turn = self.list_turn(caller).await?;
        let mut session = self.store.read().await?;
        let mut place = match query.page_token.as_str() {
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
                HistoryPlace { cursor: self.write_cursor(state.head), low: since, high }
            }
            token => serde_json::from_str(&self.read_page_token(token, &hash)?)
                .map_err(|_| VaultError::PageTokenInvalid)?,
        };
        let drive = match query.filter.connections.iter().collect::<Vec<_>>().as_slice() {
            [one] => EventDrive::Connection(**one),
            _ => EventDrive::Everywhere,
        };
        let wanted = usize::try_from(query.page_size.clamp(1, 1_000)).unwrap_or(BATCH);
        let (mut events, mut bytes) = (Vec::with_capacity(wanted), 0);
        for _ in 0..STEPS {
            if place.low > place.high || events.len() >= wanted || bytes >= PAGE_BYTES {
                break;
            }
            let bounds = (place.low, place.high);
            let found = session.list_events(&drive, bounds, query.oldest_first, 1_000).await?;
            if found.is_empty() {
                place.low = i64::MAX;
                break;
            }
            for event in found {
                if events.len() >= wanted || bytes >= PAGE_BYTES {
                    break;
                }
                if query.oldest_first {
                    place.low = event.sequence + 1;
                } else {
                    place.high = event.sequence - 1;
                }
                if sees(caller, &event) && query.filter.passes(&event.word) {
                    bytes += event.word.about_bytes();
                    events.push(self.seen(Arc::new(event)));
                }
            }
        }
        let cursor = place.cursor.clone();
        let next_page_token = if place.low > place.high {
            String::new()
        } else {
            let text = serde_json::to_string(&place).map_err(|_| VaultError::Internal)?;
            self.write_page_token(&text, &hash)?
        };
        Ok(EventPage { events, next_page_token, cursor })
    }

    fn seen(&self, event: Arc<Event>) -> SeenEvent {
        SeenEvent { cursor: self.write_cursor(event.position()), event }
    }

    /// Moves a bookmark of the caller's, or makes it.
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
                    if !known && tx.count_bookmarks(&bookmark.principal).await? >= SUBSCRIPTIONS {
                        let rule = format!(
                            "must be one that exists: a principal may have {SUBSCRIPTIONS}; delete one with VaultAdmin.DeleteSubscription"
                        );
                        let violation = FieldViolation::new("subscription", rule);
                        return Err(Abort::Refused(VaultError::Fields(vec![violation])));
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
            // A late acknowledgement is no mistake: the bookmark is further already.
            tracing::debug!(
                subscription = bookmark.name,
                by = caller.name,
                "the bookmark stays: it is further"
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

    /// What belongs to no workspace, or to all of them, is not for callers who may act in some only.
    pub(in crate::vault) fn must_reach_all(caller: &Principal) -> Result<(), VaultError> {
        if caller.reaches_all_workspaces() {
            Ok(())
        } else {
            Err(VaultError::RoleInsufficient { role: caller.role })
        }
    }

    /// Pages through all bookmarks, by principal and name.
    ///
    /// # Errors
    /// `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_subscriptions(
        &self,
        caller: &Principal,
        query: ListSubscriptions,
    ) -> Result<SubscriptionPage, VaultError> {
        Self::must_reach_all(caller)?;
        let hash = self.query_hash(caller, "ListSubscriptions", &[]);
        let after = match query.page_token.as_str() {
            "" => (String::new(), String::new()),
            token => serde_json::from_str(&self.read_page_token(token, &hash)?)
                .map_err(|_| VaultError::PageTokenInvalid)?,
        };
        let limit = i64::from(query.page_size.clamp(1, 1_000));
        let mut found = self.store.read().await?.bookmarks((&after.0, &after.1), limit + 1).await?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = found.len() > wanted;
        found.truncate(wanted);
        let next_page_token = match found.last() {
            Some(last) if more => {
                let place = serde_json::to_string(&(&last.principal, &last.name));
                self.write_page_token(&place.map_err(|_| VaultError::Internal)?, &hash)?
            }
            _ => String::new(),
        };
        let mut subscriptions = Vec::with_capacity(found.len());
        for bookmark in found {
            subscriptions.push(self.subscription(bookmark).await?);
        }
        Ok(SubscriptionPage { subscriptions, next_page_token })
    }

    /// Forgets a bookmark.
    ///
    /// # Errors
    /// `SubscriptionNotFound`.
    pub async fn delete_subscription(
        &self,
        caller: &Principal,
        command: DeleteSubscription,
    ) -> Result<Subscription, VaultError> {
        Self::must_reach_all(caller)?;
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

/// Where a listing of history stands. Travels in the page token.
#[derive(Serialize, Deserialize)]
struct HistoryPlace {
    cursor: String,
    low: i64,
    high: i64,
}

/// Whether an event is the caller's to see. Those of a provider are everybody's.
fn sees(caller: &Principal, event: &Event) -> bool {
    event.word.workspace.as_ref().is_none_or(|workspace| caller.workspaces.contains(workspace))
}

impl Snapshot {
    fn of(caller: &Principal, filter: &EventFilter) -> Self {
        let workspaces = match (&caller.workspaces, filter.workspaces.is_empty()) {
            (_, false) => Some(filter.workspaces.iter().cloned().collect()),
            (WorkspaceSet::Named(named), true) => Some(named.iter().cloned().collect()),
            (WorkspaceSet::All, true) => None,
        };
        Self { workspaces, after: None, tokens: 0 }
    }
}

impl Watch {
    /// The next thing to say. Nothing is read before it is asked for: a slow caller costs nobody anything.
    ///
    /// # Errors
    /// Each ends the watch: `ApiKeyInvalid`, `ApiKeyExpired` when its permission ended; `StorageUnavailable`,
    /// `ShuttingDown`: resume later; `FeedReplaced`, `EventsCompacted`: take a snapshot.
    pub async fn next(&mut self) -> Result<Watched, VaultError> {
        loop {
            if self.vault.stopping.is_cancelled() {
                return Err(VaultError::ShuttingDown);
            }
            self.check_permission()?;
            if self.live.borrow_and_update().generation != self.generation {
                return Err(self.vault.feed_replaced());
            }
            if !self.greeted {
                self.greeted = true;
                return Ok(self.heartbeat());
            }
            if self.snapshot.is_some() {
                if let Some(answer) = self.next_page().await? {
                    return Ok(answer);
                }
                continue;
            }
            let events = self.read().await?;
            if !events.is_empty() {
                self.batch_at = Some(Instant::now());
                let events = events.into_iter().map(|event| self.vault.seen(event)).collect();
                return Ok(self.say(WatchItem::Events(events)));
            }
            // Who caught up without an event that it wanted must learn that it has.
            let first_time = !self.caught_up && self.is_at_head();
            self.caught_up |= first_time;
            if self.said_at.elapsed() >= self.heartbeat || first_time && self.said != self.position {
                return Ok(self.heartbeat());
            }
            self.wait().await;
        }
    }

    /// Whether the caller may still watch.
    ///
    /// # Errors
    /// Why not.
    pub fn check_permission(&self) -> Result<(), VaultError> {
        self.permission.borrow().clone().map_or(Ok(()), Err)
    }

    fn is_at_head(&self) -> bool {
        self.live.borrow().head.sequence <= self.position.sequence
    }

    fn say(&mut self, item: WatchItem) -> Watched {
        self.said_at = Instant::now();
        self.said = self.position;
        let cursor = match self.snapshot {
            // Whoever stored a position now would miss the rest of the snapshot.
            Some(_) => String::new(),
            None => self.vault.write_cursor(self.position),
        };
        Watched { cursor, server_time: self.vault.clock.now(), item }
    }

    fn heartbeat(&mut self) -> Watched {
        let head = self.vault.store.feed().head().sequence.max(self.position.sequence);
        self.say(WatchItem::Heartbeat { head, behind: head - self.position.sequence })
    }

    /// The next events that the caller wants; none at the head, or when a stretch held nothing for it.
    async fn read(&mut self) -> Result<Vec<Arc<Event>>, VaultError> {
        let next = match self.vault.store.feed().recent_after(self.position.sequence, BATCH) {
            Recent::Events(events) => events,
            Recent::Gone => self.replay().await?,
        };
        let Some(last) = next.last().map(|event| event.position()) else { return Ok(Vec::new()) };
        if next.first().is_some_and(|first| first.sequence != self.position.sequence + 1) {
            // Never skip silently: whoever finds a hole has lost its place.
            let oldest = self.vault.store.read().await?.feed_state().await?.oldest;
            return Err(VaultError::EventsCompacted { oldest, position: self.position.sequence });
        }
        self.position = last;
        let (caller, filter) = (&self.caller, &self.filter);
        Ok(next.into_iter().filter(|event| sees(caller, event) && filter.passes(&event.word)).collect())
    }

    async fn replay(&self) -> Result<Vec<Arc<Event>>, VaultError> {
        let _turn = self.vault.replays.acquire().await.map_err(|_| VaultError::ShuttingDown)?;
        let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
        let mut session = self.vault.store.read().await?;
        let events = match session.events_following(self.position, limit).await? {
            Some(events) => events,
            None => {
                drop(session);
                self.vault.check_position(self.position).await?;
                self.vault.store.read().await?.events_after(self.position.sequence, limit).await?
            }
        };
        Ok(events.into_iter().map(Arc::new).collect())
    }

    /// Until there may be something to say, or the key must be looked at again.
    async fn wait(&mut self) {
        // A stretch without anything for this caller is no reason to wait.
        if !self.is_at_head() {
            return;
        }
        let until = self.heartbeat.saturating_sub(self.said_at.elapsed());
        tokio::select! {
            _ = self.live.changed() => {
                if let Some(at) = self.batch_at {
                    tokio::time::sleep(PACE.saturating_sub(at.elapsed())).await;
                }
            }
            () = tokio::time::sleep(until) => {}
            _ = self.permission.changed() => {}
            () = self.vault.stopping.cancelled() => {}
        }
    }

    /// The next page of the snapshot. `None`: nothing in this stretch; ask again.
    async fn next_page(&mut self) -> Result<Option<Watched>, VaultError> {
        let vault = Arc::clone(&self.vault);
        let Some(snapshot) = &mut self.snapshot else { return Ok(None) };
        let found = {
            let _turn = vault.replays.acquire().await.map_err(|_| VaultError::ShuttingDown)?;
            let mut session = vault.store.read().await?;
            session.snapshot_page(snapshot.workspaces.as_deref(), snapshot.after, SNAPSHOT_PAGE).await?
        };
        let Some((last, _)) = found.last() else {
            let tokens = snapshot.tokens;
            self.snapshot = None;
            return Ok(Some(self.say(WatchItem::SnapshotComplete { tokens })));
        };
        snapshot.after = Some(last.id);
        let (now, policy): (Timestamp, _) = (vault.clock.now(), vault.policy());
        let tokens: Vec<TokenView> = found
            .into_iter()
            .filter(|(connection, _)| self.filter.covers(connection))
            .map(|(connection, shared)| TokenView::new(connection, shared, now, &policy))
            .collect();
        snapshot.tokens += i64::try_from(tokens.len()).unwrap_or(0);
        if tokens.is_empty() {
            // A long walk that finds nothing must not look like a dead connection.
            let silent = self.said_at.elapsed() >= self.heartbeat;
            return Ok(silent.then(|| self.heartbeat()));
        }
        Ok(Some(self.say(WatchItem::Snapshot(tokens))))
    }
}
