//! What time alone brings: warnings, ends, and the watchdog over work that was not done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{Announced, ConnectionId, EventKind, Timestamp};
use crate::store::{Abort, Needs, Origin, Scope};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

/// Connections announced in one transaction.
const BATCH: i64 = 500;
/// Overdue connections looked at.
const WATCHED: i64 = 1_000;

/// Due work that the watchdog has seen lying, and since when by its own time.
#[derive(Default)]
pub(in crate::vault) struct Lying(Mutex<HashMap<ConnectionId, (Timestamp, Instant)>>);

impl Lying {
    /// Notes what is due now; names what has lain as it is for too long.
    fn note(&self, due: &[(ConnectionId, Timestamp)], too_long: Duration) -> Vec<ConnectionId> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|id, (at, _)| due.iter().any(|(due, due_at)| due == id && due_at == at));
        due.iter()
            .filter(|(id, at)| seen.entry(*id).or_insert((*at, Instant::now())).1.elapsed() >= too_long)
            .map(|(id, _)| *id)
            .collect()
    }
}

impl Vault {
    /// Announces everything that is due by time, on every replica: what is announced stays announced. Says how
    /// many events that made.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn announce_due(&self) -> Result<usize, VaultError> {
        // Also while the audit log fails: time has come already, and the records wait in the outbox.
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
                            let said = announced.into_drafts();
                            if !said.is_empty() {
                                offset += i64::try_from(said.len()).unwrap_or(0);
                                connection.last_event = -offset;
                                drafts.push((scope, said));
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

    /// The watchdog: says of every token whose due work has lain for too long that it has, and of those that
    /// were caught up with that it is over. Not while the provider is at fault: then nobody can work.
    ///
    /// # Errors
    /// `StorageUnavailable`.
    pub async fn watch_over(&self) -> Result<(), VaultError> {
        Arc::new(Origin::system("watchdog")).scope(self.look_for_overdue()).await
    }

    async fn look_for_overdue(&self) -> Result<(), VaultError> {
        if self.providers.iter().any(|(_, gate)| gate.is_open()) {
            return Ok(());
        }
        let now = self.clock.now();
        let due = self.store.read().await?.due_work(now, WATCHED).await?;
        for id in self.lying.note(&due, self.timetable.overdue_after) {
            self.tell_overdue(id, true).await?;
        }
        let told = self.store.read().await?.open_scopes(EventKind::Overdue, WATCHED).await?;
        for id in told.into_iter().filter(|id| !due.iter().any(|(due, _)| due == id)) {
            self.tell_overdue(id, false).await?;
        }
        Ok(())
    }

    async fn tell_overdue(&self, id: ConnectionId, overdue: bool) -> Result<(), VaultError> {
        let (now, policy) = (self.clock.now(), self.policy());
        let told = self
            .store
            .write_with(Needs { connections: vec![id], alone: false }, move |tx| {
                let policy = Arc::clone(&policy);
                Box::pin(async move {
                    let Some(before) = tx.lock_connection(id).await? else { return Ok(0) };
                    let scope = Scope::Connection(id);
                    let mut announced = tx.announced(&scope).await?;
                    if overdue {
                        announced.overdue(&before, now, &policy);
                    } else {
                        announced.no_longer_overdue(&before, now, &policy);
                    }
                    let said = announced.into_drafts();
                    if said.is_empty() {
                        return Ok(0);
                    }
                    let events = tx.announce(vec![(scope, said)]).await?;
                    let mut after = before;
                    after.last_event = events.last;
                    tx.note_announced(std::slice::from_ref(&after)).await?;
                    tx.audit_connection(&after, now);
                    Ok::<_, Abort<VaultError>>(events.count)
                })
            })
            .await?
            .0;
        if told > 0 && overdue {
            tracing::error!(connection = %id, "work on a token is overdue");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_as_it_is_for_too_long_is_overdue() {
        let (lying, id) = (Lying::default(), ConnectionId::generate(Timestamp::EPOCH));
        let at = Timestamp::from_unix_seconds(5);
        assert!(lying.note(&[(id, at)], Duration::from_millis(30)).is_empty());
        std::thread::sleep(Duration::from_millis(40));
        assert_eq!(lying.note(&[(id, at)], Duration::from_millis(30)), [id]);
        // An attempt moved it: the count begins anew.
        let later = Timestamp::from_unix_seconds(9);
        assert!(lying.note(&[(id, later)], Duration::from_millis(30)).is_empty());
    }
}
