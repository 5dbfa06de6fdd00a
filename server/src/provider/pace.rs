//! How fast a job calls a provider. A job asks about many tokens, so its calls must not add to an outage: after a
//! refusal that is not about a token, the job makes one call at a time, and only a few until one succeeds.
//!
//! It works below operations, on each request, so that retries and pages of a list count too. Calls on behalf of a
//! caller have no pace.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::model::Refusal;

/// The most calls at once, whatever the configuration says: those in flight when a provider breaks down can't be
/// taken back.
const MOST_AT_ONCE: u32 = 8;
/// The most calls of one run from the first refusal that is not about a token until one succeeds, those in flight
/// included. Later tries whether the work goes again come on top, and all together must stay within 20.
const PROBES: u32 = 12;

tokio::task_local! {
    static PACE: Arc<Pace>;
}

/// The pace of one run of a job.
#[derive(Debug)]
pub struct Pace {
    at_once: u32,
    turns: Semaphore,
    /// How often a call that failed may be repeated.
    retries: usize,
    /// The calls since the first of a row of refusals; `None` while calls succeed.
    failing: Mutex<Option<u32>>,
    /// The last refusal that counted. One with a code says more than a later one without.
    refusal: Mutex<Option<Refusal>>,
}

impl Pace {
    /// For work on many connections.
    pub fn new(at_once: usize) -> Arc<Self> {
        Self::with(u32::try_from(at_once).unwrap_or(MOST_AT_ONCE).clamp(1, MOST_AT_ONCE), 1)
    }

    /// For a single question: does the provider work again?
    pub fn of_a_probe() -> Arc<Self> {
        Self::with(1, 0)
    }

    fn with(at_once: u32, retries: usize) -> Arc<Self> {
        let turns = Semaphore::new(usize::try_from(at_once).unwrap_or(1));
        Arc::new(Self { at_once, turns, retries, failing: Mutex::new(None), refusal: Mutex::new(None) })
    }

    /// How many connections to work on at once.
    pub fn at_once(&self) -> usize {
        usize::try_from(self.at_once).unwrap_or(1)
    }

    /// Runs work whose calls keep this pace.
    pub fn keep<F: Future>(self: &Arc<Self>, work: F) -> impl Future<Output = F::Output> + use<F> {
        PACE.scope(Arc::clone(self), work)
    }

    /// Ends the calls: none is made any more.
    pub fn stop(&self) {
        *self.failing.lock() = Some(PROBES);
        self.turns.close();
    }

    /// Waits until the next call may be made, and tells whether it is the only one. `None`: no more calls are to be made.
    async fn turn(&self) -> Option<(SemaphorePermit<'_>, bool)> {
        loop {
            let alone = self.failing.lock().is_some();
            let share = if alone { self.at_once } else { 1 };
            let permit = self.turns.acquire_many(share).await.ok()?;
            let mut failing = self.failing.lock();
            match &mut *failing {
                None => return Some((permit, false)),
                // A call was refused while this one waited: it now waits until it is alone.
                Some(_) if !alone => {}
                Some(calls) if *calls >= PROBES => return None,
                Some(calls) => {
                    *calls += 1;
                    return Some((permit, true));
                }
            }
        }
    }

    fn note(&self, refusal: Option<&Refusal>, alone: bool) {
        let mut failing = self.failing.lock();
        match refusal {
            Some(refusal) if refusal.is_not_about_the_token() => {
                // The others in flight may be refused too, and count.
                failing.get_or_insert(self.at_once - 1);
                let mut last = self.refusal.lock();
                if last.is_none() || !refusal.provider_code().is_empty() {
                    *last = Some(refusal.clone());
                }
            }
            // A reply to a call from before the first refusal says nothing about the time after it.
            _ if !alone || self.turns.is_closed() => {}
            _ => {
                *failing = None;
                *self.refusal.lock() = None;
            }
        }
    }
}

/// Makes a call when it is its turn, and notes how it went. `refusal` gives the refusal that counts, if one does. `None`:
/// no more calls are to be made.
pub(super) async fn paced<T, E>(
    call: impl Future<Output = Result<T, E>>,
    refusal: impl FnOnce(&E) -> Option<&Refusal>,
) -> Option<Result<T, E>> {
    let Ok(pace) = PACE.try_with(Arc::clone) else { return Some(call.await) };
    let (_turn, alone) = pace.turn().await?;
    let outcome = call.await;
    match outcome.as_ref().map_err(refusal) {
        Ok(_) => pace.note(None, alone),
        Err(Some(refusal)) => pace.note(Some(refusal), alone),
        // Who made the call goes on from it.
        Err(None) => {}
    }
    Some(outcome)
}

/// How often a call of this task that failed may be repeated, if its pace says so.
pub(super) fn retries() -> Option<usize> {
    PACE.try_with(|pace| pace.retries).ok()
}

/// Why no more calls of this task are to be made: what the provider said to those that failed, whoever made them.
pub(super) fn refusal() -> Option<Refusal> {
    PACE.try_with(|pace| pace.refusal.lock().clone()).ok().flatten()
}

/// Whether a call of this task that failed may be repeated now. While calls fail, the few that are left are for others:
/// one odd connection must not use them up.
pub(super) fn repeats() -> bool {
    PACE.try_with(|pace| pace.failing.lock().is_none_or(|calls| calls < pace.at_once)).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;

    use super::*;
    use crate::model::{RefusalKind, RefusalReason};

    fn refused(kind: RefusalKind) -> Result<(), Refusal> {
        Err(Refusal::new(kind, "no"))
    }

    fn fault() -> Result<(), Refusal> {
        refused(RefusalKind::Transient { retry_after: None })
    }

    /// Every refusal counts.
    fn itself(refusal: &Refusal) -> Option<&Refusal> {
        Some(refusal)
    }

    /// Makes `calls` calls, of which those are answered by `reply`, and returns how many were made.
    async fn made(pace: &Arc<Pace>, calls: u32, reply: impl Fn(u32) -> Result<(), Refusal>) -> u32 {
        let (made, reply) = (&AtomicU32::new(0), &reply);
        let call = move |n| async move {
            made.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            reply(n)
        };
        let paced = |n| pace.keep(async move { paced(call(n), itself).await });
        join_all((0..calls).map(paced)).await;
        made.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn after_the_first_refusal_few_calls_follow_until_one_succeeds() {
        for at_once in [1, 2, 8, 64] {
            let pace = Pace::new(at_once);
            let all = made(&pace, 500, |n| if n < 100 { Ok(()) } else { fault() }).await;
            assert!((101..=120).contains(&all), "{at_once}: {all}");
            assert_eq!(made(&pace, 5, |_| Ok(())).await, 0, "{at_once}: it has ended");
            let said = pace.keep(async { refusal() }).await;
            assert_eq!(said, fault().err(), "{at_once}: it says what the provider said");
        }
    }

    #[tokio::test]
    async fn a_success_ends_the_count_and_what_is_about_a_token_is_one() {
        let dead = RefusalKind::Dead { reason: RefusalReason::Expired };
        let pace = Pace::new(8);
        let all = made(&pace, 300, |n| if n % 2 == 0 { fault() } else { refused(dead.clone()) }).await;
        assert_eq!(all, 300);
    }

    #[tokio::test]
    async fn a_success_of_the_last_call_allowed_ends_the_count_too() {
        let last = PROBES;
        assert_eq!(made(&Pace::new(1), 40, |n| if n < last { fault() } else { Ok(()) }).await, 40);
        assert_eq!(made(&Pace::new(1), 40, |n| if n <= last { fault() } else { Ok(()) }).await, last + 1);
    }

    #[tokio::test]
    async fn what_its_maker_goes_on_from_counts_neither_way() {
        let pace = Pace::new(8);
        let expected = || pace.keep(paced(async { fault() }, |_: &Refusal| None));
        for _ in 0..100 {
            assert_eq!(expected().await, Some(fault()));
        }
        assert_eq!(*pace.failing.lock(), None);
        made(&pace, 1, |_| fault()).await;
        expected().await;
        assert!(pace.failing.lock().is_some());
    }

    #[tokio::test]
    async fn while_calls_fail_none_is_repeated_but_the_first() {
        for at_once in [1, 8] {
            let pace = Pace::new(at_once);
            let next = |reply| {
                pace.keep(async move {
                    let _ = paced(async { reply }, itself).await;
                    repeats()
                })
            };
            assert!(next(fault()).await, "the first");
            assert!(!next(fault()).await && !next(fault()).await, "those that follow");
            assert!(next(Ok(())).await, "it works again");
        }
        assert!(repeats(), "without a pace");
    }

    #[tokio::test]
    async fn calls_without_a_pace_are_simply_made_and_a_stopped_pace_makes_none() {
        assert_eq!(paced(async { fault() }, itself).await, Some(fault()));
        let pace = Pace::new(4);
        pace.stop();
        assert_eq!(made(&pace, 3, |_| Ok(())).await, 0);
    }
}
