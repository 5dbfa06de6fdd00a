//! Deadlines: announces warnings before a token's end, and the end itself, as time passes. Also the watchdog, which
//! announces overdue work.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Announced, ConnectionId, EventKind, Timestamp, VALIDATED_EVERY};
use crate::store::{Abort, Needs, Origin, Scope};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

/// Connections announced in one transaction.
const BATCH: i64 = 500;
/// No token is left unchecked for longer, unless its provider is in trouble.
const UNCHECKED: Duration = Duration::from_secs(25 * 60 * 60);
/// The most overdue connections that the watchdog looks at.
const WATCHED: i64 = 1_000;

impl Vault {
    /// Announces everything that is due by now. Every replica does this, and each event is announced once. Returns the
    /// number of events.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn announce_due(&self) -> Result<usize, VaultError> {
        // This runs even while the audit log fails: the deadline has passed anyway, and the records wait in the outbox.
        Arc::new(Origin::system("expiry-deadlines")).scope(self.announce_all_due()).await
    }

    async fn announce_all_due(&self) -> Result<usize, VaultError> {
        let mut all = 0;
        if !self.store.trusts_clock() {
            return Ok(0);
        }
        loop {
            let now = self.clock.now();
            if !self.store.read().await?.has_due_deadline(now).await? {
                return Ok(all);
            }
            let policy = self.policy();
            let (seen, made) = self
                .store
                .write_with(Needs { alone: true, ..Needs::default() }, move |tx| {
                    let policy = Arc::clone(&policy);
                    Box::pin(async move {
                        let mut due = tx.lock_due_connections(now, BATCH).await?;
                        let scopes: Vec<Scope> = due.iter().map(|c| Scope::Connection(c.id)).collect();
                        let known = tx.incidents_of(&scopes).await?;
                        let (mut drafts, mut offset) = (Vec::with_capacity(due.len()), tx.events_so_far());
                        for ((connection, scope), incidents) in due.iter_mut().zip(scopes).zip(known) {
                            let mut announced = Announced::new(incidents, offset);
                            announced.catch_up(connection, now, &policy);
                            let events = announced.into_drafts();
                            if !events.is_empty() {
                                offset += i64::try_from(events.len()).unwrap_or(0);
                                connection.last_event = -offset;
                                drafts.push((scope, events));
                            }
                            connection.schedule.next_deadline_at = connection.next_deadline(now, &policy);
                        }
                        let events = tx.announce(drafts).await?;
                        tx.note_announced(&due).await?;
                        for connection in due.iter().filter(|connection| connection.last_event < 0) {
                            tx.audit_connection(connection, now);
                        }
                        Ok::<_, Abort<VaultError>>((due.len(), events.count))
                    })
                })
                .await?
                .0;
            all += made;
            if seen < usize::try_from(BATCH).unwrap_or(usize::MAX) {
                return Ok(all);
            }
        }
    }

    /// The watchdog: announces every token whose due work has waited for too long, and announces the recovery once the
    /// work is done. Pauses while a provider does not answer, because then no work on its tokens is possible.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn watch_over(&self) -> Result<(), VaultError> {
        Arc::new(Origin::system("watchdog")).scope(self.look_for_overdue()).await
    }

    async fn look_for_overdue(&self) -> Result<(), VaultError> {
        if self.providers.iter().any(|(_, gate)| gate.is_open() || !gate.held().is_empty()) {
            return Ok(());
        }
        let now = self.clock.now();
        let too_long = self.jobs.timetable.overdue_after;
        // Where validations are switched off, none is overdue.
        let validated_before = match self.jobs.timetable.meta_token_expiry {
            Some(_) => now - UNCHECKED.saturating_sub(too_long).max(VALIDATED_EVERY),
            None => Timestamp::from_micros(i64::MIN),
        };
        let due = self.store.read().await?.due_work(now, validated_before, WATCHED).await?;
        for id in self.jobs.overdue.note(&due, too_long) {
            self.announce_overdue(id, true).await?;
        }
        let announced = self.store.read().await?.open_scopes(EventKind::Overdue, WATCHED).await?;
        for id in announced.into_iter().filter(|id| !due.iter().any(|(due, _)| due == id)) {
            self.announce_overdue(id, false).await?;
        }
        Ok(())
    }

    async fn announce_overdue(&self, id: ConnectionId, overdue: bool) -> Result<(), VaultError> {
        let (now, policy) = (self.clock.now(), self.policy());
        let events = self
            .store
            .write_with(Needs { connections: vec![id], alone: false }, move |tx| {
                let policy = Arc::clone(&policy);
                Box::pin(async move {
                    let Some(mut after) = tx.lock_connection(id).await? else { return Ok(0) };
                    let scope = Scope::Connection(id);
                    let mut announced = tx.announced(&scope).await?;
                    if overdue {
                        after.schedule.overdue_since = after.schedule.overdue_since.or(Some(now));
                        announced.overdue(&after, now, &policy);
                    } else {
                        after.schedule.overdue_since = None;
                        announced.no_longer_overdue(&after, now, &policy);
                    }
                    let drafts = announced.into_drafts();
                    if drafts.is_empty() {
                        return Ok(0);
                    }
                    let events = tx.announce(vec![(scope, drafts)]).await?;
                    after.last_event = events.last;
                    tx.note_announced(std::slice::from_ref(&after)).await?;
                    tx.audit_connection(&after, now);
                    Ok::<_, Abort<VaultError>>(events.count)
                })
            })
            .await?
            .0;
        if events > 0 && overdue {
            tracing::error!(connection = %id, "work on a token is overdue");
        }
        Ok(())
    }
}
