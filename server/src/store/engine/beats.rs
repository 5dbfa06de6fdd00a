//! Which replicas are alive: this one updates its row every second (a beat), and ends the replicas that have not beaten
//! for three seconds by its own monotonic clock. The claims of an ended process are free.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::cache::Coherence;
use super::clock_guard::ClockGuard;
use super::unit::Abort;
use super::writer::Writer;
use crate::model::{Clock, Incarnation, Timestamp};
use crate::store::sql::{Pool, StoreError};
use crate::store::work::{Beat, BeatRow, Registration};

/// The longest time without a beat.
const SILENCE: Duration = Duration::from_secs(3);
const BEAT: Duration = Duration::from_secs(1);
/// Old rows are pruned once in this many beats.
const PRUNE: u64 = 60;

/// The other replicas' beats, as this process has seen them.
#[derive(Default)]
struct Observer {
    seen: Mutex<HashMap<Uuid, (i64, Instant)>>,
}

impl Observer {
    /// Notes the beats, and returns those that have not changed for too long.
    fn note(&self, own: Incarnation, beats: &[BeatRow]) -> Vec<BeatRow> {
        let mut seen = self.seen.lock();
        let now = Instant::now();
        seen.retain(|incarnation, _| beats.iter().any(|row| row.incarnation == *incarnation));
        beats
            .iter()
            .filter(|row| row.incarnation != own.as_uuid())
            .filter(|row| {
                let (beat, since) = seen.entry(row.incarnation).or_insert((row.beat, now));
                if *beat != row.beat {
                    (*beat, *since) = (row.beat, now);
                }
                since.elapsed() >= SILENCE
            })
            .cloned()
            .collect()
    }
}

/// Keeps this replica registered as alive.
pub(in crate::store) struct Beats {
    writer: Writer,
    coherence: Arc<Coherence>,
    clock_guard: Arc<ClockGuard>,
    observer: Observer,
    registration: Mutex<Option<Registration>>,
    incarnation: Incarnation,
    clock: Clock,
}

impl Beats {
    pub(in crate::store) fn new(
        writer: Writer,
        coherence: Arc<Coherence>,
        clock_guard: Arc<ClockGuard>,
        incarnation: Incarnation,
        clock: Clock,
    ) -> Self {
        let (observer, registration) = (Observer::default(), Mutex::default());
        Self { writer, coherence, clock_guard, observer, registration, incarnation, clock }
    }

    /// Registers this process as alive. `alone`: no other process can be.
    pub(in crate::store) async fn register(
        &self,
        registration: Registration,
        alone: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let incarnation = self.incarnation;
        let unit = registration.clone();
        let registered: Result<(), Abort<Infallible>> = self
            .writer
            .write(move |tx| {
                let registration = unit.clone();
                Box::pin(
                    async move { Ok(tx.register_replica(incarnation, &registration, alone, now).await?) },
                )
            })
            .await;
        registered.map_err(Abort::into_store)?;
        *self.registration.lock() = Some(registration);
        Ok(())
    }

    /// Notes which master keys this process holds now; every beat repeats it.
    pub(in crate::store) async fn report_master_keys(&self, ids: Vec<String>) -> Result<(), StoreError> {
        if let Some(registration) = &mut *self.registration.lock() {
            registration.master_keys.clone_from(&ids);
        }
        let incarnation = self.incarnation;
        let noted: Result<(), Abort<Infallible>> = self
            .writer
            .write(move |tx| {
                let ids = ids.clone();
                Box::pin(async move { Ok(tx.note_master_keys(incarnation, &ids).await?) })
            })
            .await;
        noted.map_err(Abort::into_store)
    }

    /// Beats until stopped, while the database is healthy. This is a task of its own: a beat goes through the writer,
    /// where it may wait for an unavailable database, and the poll of changes must notice that meanwhile.
    pub(in crate::store) async fn run(
        &self,
        pool: Pool,
        healthy: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        let mut tick = tokio::time::interval(BEAT);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut beats = 0_u64;
        loop {
            tokio::select! { () = stop.cancelled() => break, _ = tick.tick() => {} }
            if !*healthy.borrow() {
                continue;
            }
            beats += 1;
            let looked = tokio::time::timeout(Duration::from_secs(2), self.clock_guard.look(&pool)).await;
            if let Ok(Err(error)) = looked {
                tracing::debug!(%error, "the clocks could not be compared");
            }
            let lives = tokio::time::timeout(Duration::from_secs(5), self.beat(&pool)).await.unwrap_or(true);
            // A replica that is closing ended its row itself.
            if !lives && !stop.is_cancelled() {
                self.register_again().await;
            }
            if beats.is_multiple_of(PRUNE) {
                self.prune().await;
            }
        }
        pool.close().await;
    }

    /// Beats once, and ends replicas that fell silent. A beat also finds out whether a writer that was stuck writes
    /// again. After a failure, the next beat tries again. `false`: another replica has ended this one.
    async fn beat(&self, pool: &Pool) -> bool {
        let beats = match pool.session().await {
            Ok(mut session) => session.beats().await,
            Err(error) => Err(error),
        };
        let Ok(beats) = beats else { return true };
        let (own, silent) = (self.incarnation, self.observer.note(self.incarnation, &beats));
        let beat = Beat {
            applied: self.coherence.applied(),
            clock_offset: self.clock_guard.offset(),
            master_keys: self.registered().map(|registered| registered.master_keys),
        };
        let outcome: Result<bool, Abort<Infallible>> = self
            .writer
            .probe(move |tx| {
                let (silent, beat) = (silent.clone(), beat.clone());
                Box::pin(async move {
                    let known = tx.beat(own, &beat).await?;
                    for row in &silent {
                        tx.end_silent(row).await?;
                    }
                    Ok(known)
                })
            })
            .await;
        outcome.map_err(Abort::into_store).unwrap_or_else(|error| {
            tracing::debug!(%error, "a beat was missed");
            true
        })
    }

    /// Registers again: the other replicas took this one for dead and took over its claims, so its caches may be stale.
    async fn register_again(&self) {
        let Some(registration) = self.registered() else { return };
        tracing::error!("the other replicas took this one for dead; it registers again");
        self.coherence.drop_all();
        if let Err(error) = self.register(registration, false, self.clock.now()).await {
            tracing::warn!(%error, "this replica could not register again");
        }
    }

    fn registered(&self) -> Option<Registration> {
        self.registration.lock().clone()
    }

    /// Deletes changes that every living replica has long applied, and outcomes of requests that are a day old.
    async fn prune(&self) {
        let now = self.clock.now();
        let pruned: Result<(), Abort<Infallible>> = self
            .writer
            .write(move |tx| {
                Box::pin(async move {
                    tx.forget_changes(now).await?;
                    tx.forget_requests(now).await?;
                    Ok(())
                })
            })
            .await;
        if let Err(error) = pruned.map_err(Abort::into_store) {
            tracing::debug!(%error, "nothing was pruned this time");
        }
    }
}
