//! Compares the feed with what the models expect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use token_vault::model::{self as vault_model, ConnectionId, Event, EventKind, Expiry, Timestamp};
use token_vault_tests::eventually_async;

use super::super::model::{Announced, Detail, Kind, Model, Severity, Slot, Status};

use super::replica::lock;
use super::{LIMIT, World};

impl World {
    /// Compares the feed with the models, and checks that the vault's next attempts to renew are at allowed times.
    pub(super) async fn check(&mut self) -> Result<(), String> {
        self.known = self.connections(self.played).await;
        let since = self.log.last().map(|event| event.recorded_at);
        let mut news: Option<Vec<Arc<Event>>> = None;
        for on in 0..self.replicas.len() {
            let listed = self.listed(on, since).await;
            let head = self.log.last().map_or(0, |event| event.sequence);
            let new: Vec<_> = listed.into_iter().filter(|event| event.sequence > head).collect();
            match &news {
                Some(other) if !same(other, &new) => {
                    return Err(format!("two replicas list {other:#?} and {new:#?}"));
                }
                _ => news = Some(new),
            }
        }
        let now = Timestamp::from_unix_seconds(self.now);
        for event in news.unwrap_or_default() {
            let next = self.log.last().map_or(1, |event| event.sequence + 1);
            if event.sequence != next || event.recorded_at != now {
                return Err(format!("expected number {next}, recorded at {now}, and not {event:#?}"));
            }
            self.log.push(event);
        }
        let real = self.as_said()?;
        let mut why = String::new();
        self.models.retain(|model| match differs(model, &real) {
            None => true,
            Some(difference) => {
                why = difference;
                false
            }
        });
        if self.models.is_empty() {
            return Err(why);
        }
        for (slot, connection) in &self.known {
            let at = connection.schedule.next_renewal_at.map(|at| at.as_micros().div_euclid(1_000_000));
            if !self.models.iter().any(|model| model.may_renew_at(*slot, at)) {
                return Err(format!("{slot:?} is to be renewed at {at:?}: {:#?}", self.models));
            }
        }
        self.models.dedup();
        Ok(())
    }

    /// Checks that every watch has seen exactly the feed that is listed.
    pub(super) async fn check_watches(&self) -> Result<(), String> {
        for (on, replica) in self.replicas.iter().enumerate() {
            let kept = usize::try_from(self.oldest - 1).expect("a place in the log");
            if !same(&self.listed(on, None).await, &self.log[kept.min(self.log.len())..]) {
                return Err(format!("replica {on} lists another feed than before"));
            }
            let seen = eventually_async("the watch is at the head", LIMIT, async || {
                let watched = lock(&replica.watched);
                (watched.events.len() >= self.log.len() || watched.ended.is_some())
                    .then(|| (watched.events.clone(), watched.ended.clone()))
            });
            let (seen, ended) = seen.await;
            if !same(&seen, &self.log) || ended.is_some() {
                return Err(format!("a watch of replica {on} saw {seen:#?}, ended {ended:?}"));
            }
        }
        Ok(())
    }

    /// The feed in the model's terms, by connection.
    pub(super) fn as_said(&self) -> Result<BTreeMap<Slot, Vec<Announced>>, String> {
        let slots: BTreeMap<ConnectionId, Slot> =
            self.known.iter().map(|(slot, connection)| (connection.id, *slot)).collect();
        let (mut said, mut places) = (BTreeMap::<Slot, Vec<Announced>>::new(), BTreeMap::new());
        for event in &self.log {
            let slot = event.word.connection.and_then(|id| slots.get(&id));
            let slot = *slot.ok_or_else(|| format!("an event of no connection: {event:#?}"))?;
            let of = said.entry(slot).or_default();
            places.insert(event.sequence, (slot, of.len()));
            let place = |sequence: i64| match places.get(&sequence) {
                Some((whose, place)) if *whose == slot => Ok(*place),
                _ => Err(format!("it speaks of another connection's event: {event:#?}")),
            };
            place(event.word.incident)?;
            let closes =
                event.word.closes.iter().map(|closed| place(closed.sequence)).collect::<Result<_, _>>()?;
            of.push(in_words(event, closes).ok_or_else(|| format!("nothing known brings {event:#?}"))?);
        }
        Ok(said)
    }
}

/// Whether two parts of the feed have the same events.
fn same(one: &[Arc<Event>], other: &[Arc<Event>]) -> bool {
    let key = |event: &Arc<Event>| (event.sequence, event.identity, event.recorded_at, event.word.clone());
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| key(one) == key(other))
}

/// Describes the first difference.
fn differs(model: &Model, real: &BTreeMap<Slot, Vec<Announced>>) -> Option<String> {
    let slots: BTreeSet<Slot> = model.slots().into_iter().chain(real.keys().copied()).collect();
    slots.into_iter().find_map(|slot| {
        let (wanted, found) = (model.said(slot), real.get(&slot).map_or(&[][..], Vec::as_slice));
        let place =
            (0..wanted.len().max(found.len())).find(|place| wanted.get(*place) != found.get(*place))?;
        Some(format!(
            "{slot:?} at {}, event {place} of {:?}: wanted {:#?}, found {:#?}",
            model.now,
            found.iter().map(|said| said.kind).collect::<Vec<_>>(),
            wanted.get(place),
            found.get(place)
        ))
    })
}

/// Converts a time to whole seconds, which every time in a history is.
fn seconds(at: Timestamp) -> i64 {
    assert_eq!(at.as_micros() % 1_000_000, 0, "{at} is no instant of this history");
    at.as_micros() / 1_000_000
}

fn in_words(event: &Event, closes: BTreeSet<usize>) -> Option<Announced> {
    let word = &event.word;
    let kind = kind(word.kind)?;
    let end = |expiry: Expiry| expiry.at().map(seconds);
    let detail = match &word.detail {
        vault_model::Detail::None => Detail::None,
        vault_model::Detail::Expiring { threshold, .. } => {
            Detail::Threshold(i64::try_from(threshold.as_secs()).expect("a threshold is short"))
        }
        vault_model::Detail::Died { last_known_good, first_known_bad } => {
            Detail::Died { last_good: last_known_good.map(seconds), first_bad: seconds(*first_known_bad) }
        }
        vault_model::Detail::Restored { gap_start, gap_end, cause } => {
            Detail::Gap { start: gap_start.map(seconds), end: seconds(*gap_end), cause: self::kind(*cause)? }
        }
        vault_model::Detail::Renewed { previous_expiry } => Detail::Before(end(*previous_expiry)),
        vault_model::Detail::RotationFailed { at_ceiling, .. } => Detail::AtCeiling(*at_ceiling),
        vault_model::Detail::Changed { added, removed } => {
            Detail::Changed { added: added.clone(), removed: removed.clone() }
        }
    };
    Some(Announced {
        kind,
        version: word.version,
        at: seconds(word.occurred_at),
        severity: match word.severity {
            vault_model::Severity::Info => Severity::Info,
            vault_model::Severity::Warning => Severity::Warning,
            vault_model::Severity::Critical => Severity::Critical,
        },
        status: match word.status? {
            vault_model::Status::Active => Status::Active,
            vault_model::Status::Expiring => Status::Expiring,
            vault_model::Status::Expired => Status::Expired,
            vault_model::Status::Invalid => Status::Invalid,
            vault_model::Status::Revoked => Status::Revoked,
        },
        usable: word.usable(),
        end: end(word.expiry),
        reason: word.reason.map(vault_model::RefusalReason::as_str),
        closes,
        detail,
    })
}

/// The kind in the model's terms.
pub(super) fn kind(kind: EventKind) -> Option<Kind> {
    Some(match kind {
        EventKind::Connected => Kind::Connected,
        EventKind::Replaced => Kind::Replaced,
        EventKind::Expiring => Kind::Expiring,
        EventKind::Expired => Kind::Expired,
        EventKind::Invalidated => Kind::Invalidated,
        EventKind::Restored => Kind::Restored,
        EventKind::Rotated => Kind::Rotated,
        EventKind::RotationFailed => Kind::RotationFailed,
        EventKind::ScopesChanged => Kind::ScopesChanged,
        EventKind::AdAccountsChanged => Kind::AdAccountsChanged,
        EventKind::DataAccessExpiring => Kind::DataAccessExpiring,
        EventKind::DataAccessExpired => Kind::DataAccessExpired,
        EventKind::Revoked => Kind::Revoked,
        EventKind::DeadlinesChanged => Kind::DeadlinesChanged,
        // No history contains a provider's outage, a throttled token or overdue work.
        _ => return None,
    })
}
