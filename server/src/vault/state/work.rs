//! How much work may be under way at once: detached work and lists, in all and for each principal.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::attendance::{Attendance, Listener, Listeners};
use crate::model::{Principal, WorkspaceId};
use crate::provider::Patience;
use crate::store::Origin;
use crate::vault::error::VaultError;
use crate::vault::state::shares::Shares;

/// The most detached tasks at once. Each makes a provider call or a write of its own.
const DETACHED: usize = 512;
const DETACHED_PER_PRINCIPAL: usize = DETACHED / 4;
/// The most callers who wait at once for another caller's work. They hold nothing but their call.
const WAITING: usize = 4_096;
const WAITING_PER_PRINCIPAL: usize = WAITING / 4;
/// The most pieces of work of one workspace that have begun at the provider and so must end, with or without a caller.
const BEGUN_PER_WORKSPACE: usize = 64;
/// The most lists and counts at once; further ones wait.
const LISTS: usize = 2;
const LISTS_PER_PRINCIPAL: usize = 1;

/// Detached work and lists have bounds of their own, so that neither crowds out the rest.
pub(in crate::vault) struct Work {
    detached: Places,
    waiting: Places,
    lines: Shares,
    begun: Shares,
    questions: Questions,
    lists: Semaphore,
    list_shares: Shares,
    /// Everything that runs in the background.
    pub(in crate::vault) tasks: TaskTracker,
    /// Cancelled when the process stops. It ends every watch, and runs of jobs at their next note of progress.
    pub(in crate::vault) stopping: CancellationToken,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            detached: Places::new(DETACHED, DETACHED_PER_PRINCIPAL),
            waiting: Places::new(WAITING, WAITING_PER_PRINCIPAL),
            lines: Shares::new(1),
            begun: Shares::new(BEGUN_PER_WORKSPACE),
            questions: Questions::default(),
            lists: Semaphore::new(LISTS),
            list_shares: Shares::new(LISTS_PER_PRINCIPAL),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }
}

/// A bound in all, and one for each principal.
#[derive(Clone)]
struct Places {
    total: Arc<Semaphore>,
    shares: Arc<Shares>,
}

type Place = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl Places {
    fn new(total: usize, per_principal: usize) -> Self {
        Self { total: Arc::new(Semaphore::new(total)), shares: Arc::new(Shares::new(per_principal)) }
    }

    /// A place for the caller on whose behalf this task works.
    fn take(&self) -> Result<Place, VaultError> {
        let share = match Origin::current().as_ref().and_then(|origin| origin.principal()) {
            Some(principal) => Some(self.shares.try_take(&principal.share()).ok_or(VaultError::Overloaded)?),
            None => None,
        };
        let total = Arc::clone(&self.total).try_acquire_owned().map_err(|_| VaultError::Overloaded)?;
        Ok((total, share))
    }
}

tokio::task_local! {
    static RUNNING: Arc<Running>;
}

/// The detached work of the running task.
struct Running {
    patience: Patience,
    /// The caller who started it, as long as he waits.
    attendance: Weak<Attendance>,
    /// Given back while the work only waits.
    place: Mutex<Option<Place>>,
    begun: Mutex<Vec<OwnedSemaphorePermit>>,
}

/// How long the running task may ask a provider. Work of the vault's own has no callers, and no end to its patience.
pub(super) fn patience() -> Patience {
    RUNNING.try_with(|running| running.patience.clone()).unwrap_or_default()
}

/// The line of those who want to do the same to one connection or workspace, one after the other.
pub(in crate::vault) type Line = Arc<Semaphore>;

/// What is done to a connection, or to a workspace, by one task at a time.
#[derive(Debug, Clone, Copy, strum::IntoStaticStr)]
pub(in crate::vault) enum Turn {
    /// Asking the provider about its token.
    Inspection,
    /// Storing a token in it.
    Intake,
    /// Ending it at the provider.
    Revocation,
    /// Shredding the workspace.
    Shredding,
}

/// Identifies a question: a keyed hash of the RPC and of everything that the answer depends on.
pub(in crate::vault) type Question = [u8; 32];
/// Questions that are being answered. Who asks the same meanwhile gets the same answer.
type Questions = Arc<Mutex<HashMap<Question, Asked>>>;
/// Where an answer arrives.
type Answer<A> = watch::Receiver<Option<Result<A, VaultError>>>;

struct Asked {
    listeners: Listeners,
    /// An [`Answer`], whose type only those who ask know.
    answer: Box<dyn Any + Send>,
}

/// A question that is being answered, until this is dropped.
struct Open {
    questions: Questions,
    question: Question,
    listeners: Listeners,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut questions = self.questions.lock();
        // Someone may have asked anew after everyone had stopped listening to this answer.
        if questions.get(&self.question).is_some_and(|asked| asked.listeners.same(&self.listeners)) {
            questions.remove(&self.question);
        }
    }
}

impl Work {
    /// Runs work that must not end with its caller. Such work is bounded in number, in all and for each principal,
    /// whatever its callers' deadlines are: calls beyond that are denied at once.
    ///
    /// When the caller hangs up or runs out of time, calls to the provider that change nothing there are cut off; see
    /// [`Patience`](crate::provider::Patience). The work itself goes on, and ends by what it then finds.
    pub(in crate::vault) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, VaultError>> + Send + 'static,
    ) -> Result<T, VaultError> {
        self.run(None, work).await
    }

    /// [`Self::detached`], when it is this call's turn. Who waits for a turn gives the permits of his call back and has
    /// no place among the detached work; who hangs up meanwhile is forgotten.
    pub(in crate::vault) async fn in_turn<T: Send + 'static>(
        &self,
        line: impl Into<Option<Line>>,
        work: impl Future<Output = Result<T, VaultError>> + Send + 'static,
    ) -> Result<T, VaultError> {
        self.run(line.into(), work).await
    }

    pub(in crate::vault) fn line(&self, turn: Turn, of: impl Display) -> Line {
        self.lines.of(&format!("{}:{of}", <&str>::from(turn)))
    }

    /// Does a part of detached work whose calls to a provider are not cut off when nobody waits any more.
    pub(in crate::vault) async fn to_the_end<F: Future>(&self, work: F) -> F::Output {
        let running = Running {
            patience: Patience::endless(),
            attendance: Weak::new(),
            place: Mutex::default(),
            begun: Mutex::default(),
        };
        RUNNING.scope(Arc::new(running), work).await
    }

    async fn run<T: Send + 'static>(
        &self,
        line: Option<Line>,
        work: impl Future<Output = Result<T, VaultError>> + Send + 'static,
    ) -> Result<T, VaultError> {
        let (listeners, listener) = Listeners::first();
        // The future of an intake is large: moved by value from hand to hand, it would not fit on the stack.
        let (task, _aside) = self.prepare(line, &listeners, Box::pin(work))?;
        let answer = self.tasks.spawn(task);
        let answer = async {
            answer.await.unwrap_or_else(|error| {
                tracing::error!(%error, "detached work ended without a result");
                Err(VaultError::Internal)
            })
        };
        listener.hear(answer).await
    }

    /// [`Self::in_turn`], for a question: who asks the same before it is answered gets the same answer. The provider is
    /// asked for it as long as one of them waits.
    pub(in crate::vault) async fn answer<A: Clone + Send + Sync + 'static>(
        &self,
        question: Question,
        line: impl Into<Option<Line>>,
        work: impl Future<Output = Result<A, VaultError>> + Send + 'static,
    ) -> Result<A, VaultError> {
        let (listener, answer, _aside) = self.ask(question, line.into(), Box::pin(work))?;
        Self::heard(listener, answer).await
    }

    fn ask<A: Clone + Send + Sync + 'static>(
        &self,
        question: Question,
        line: Option<Line>,
        work: impl Future<Output = Result<A, VaultError>> + Send + 'static,
    ) -> Result<(Listener, Answer<A>, Option<Place>), VaultError> {
        let mut asked = self.questions.lock();
        if let Some(earlier) = asked.get(&question)
            && let Some(answer) = earlier.answer.downcast_ref::<Answer<A>>()
            && let Some(listener) = earlier.listeners.join()
        {
            return Ok((listener, answer.clone(), Some(self.step_aside()?)));
        }
        let (listeners, listener) = Listeners::first();
        let (task, aside) = self.prepare(line, &listeners, work)?;
        let (tell, answer) = watch::channel(None);
        asked.insert(question, Asked { listeners: listeners.clone(), answer: Box::new(answer.clone()) });
        let open = Open { questions: Arc::clone(&self.questions), question, listeners };
        self.tasks.spawn(async move {
            let answer = task.await;
            // Who asks from now on, asks anew.
            drop(open);
            tell.send_replace(Some(answer));
        });
        Ok((listener, answer, aside))
    }

    async fn heard<A: Clone>(listener: Listener, mut answer: Answer<A>) -> Result<A, VaultError> {
        let answer = async {
            match answer.wait_for(Option::is_some).await.as_deref() {
                Ok(Some(answer)) => answer.clone(),
                _ => Err(VaultError::Internal),
            }
        };
        listener.hear(answer).await
    }

    /// The task that waits for its turn, takes a place and does the work; and the caller's place among those who wait,
    /// unless it is its turn already.
    fn prepare<T: Send + 'static>(
        &self,
        line: Option<Line>,
        listeners: &Listeners,
        work: impl Future<Output = Result<T, VaultError>> + Send + 'static,
    ) -> Result<(impl Future<Output = Result<T, VaultError>> + Send + 'static, Option<Place>), VaultError>
    {
        if self.tasks.is_closed() {
            return Err(VaultError::ShuttingDown);
        }
        let origin = Origin::current();
        let attendance = Attendance::current().as_ref().map(Arc::downgrade).unwrap_or_default();
        let turn = line.as_ref().map(|line| Arc::clone(line).try_acquire_owned());
        let (ready, aside) = match turn {
            None => (Some((None, self.detached.take()?)), None),
            Some(Ok(turn)) => (Some((Some(turn), self.detached.take()?)), None),
            Some(Err(_)) => (None, Some(self.step_aside()?)),
        };
        let (places, patience) = (self.detached.clone(), listeners.patience());
        let task = async move {
            let (turn, place) = match (ready, line) {
                (Some(ready), _) => ready,
                (None, Some(line)) => {
                    let turn = tokio::select! {
                        turn = line.acquire_owned() => turn.ok(),
                        () = patience.ended() => return Err(VaultError::OutOfTime),
                    };
                    (turn, places.take()?)
                }
                (None, None) => return Err(VaultError::Internal),
            };
            let place = Mutex::new(Some(place));
            let running = Arc::new(Running { patience, attendance, place, begun: Mutex::default() });
            // All of it is given back before anybody hears the answer.
            let outcome = RUNNING.scope(running, work).await;
            drop(turn);
            outcome
        };
        // The task keeps its origin, so that what it changes is recorded as the caller's.
        let task = async move {
            match origin {
                Some(origin) => origin.scope(task).await,
                None => task.await,
            }
        };
        Ok((task, aside))
    }

    /// The running call only waits from now on: it gives its permits back, and counts among those who wait.
    fn step_aside(&self) -> Result<Place, VaultError> {
        let place = self.waiting.take()?;
        if let Some(attendance) = Attendance::current() {
            attendance.step_aside();
        }
        Ok(place)
    }

    /// Call this before work changes something at the provider, because from then on it must end even without a caller.
    /// Such work is bounded for each workspace, and exchanges of the tokens of one `subject` come one after the other.
    pub(in crate::vault) async fn begin(
        &self,
        workspace: &WorkspaceId,
        subject: Option<&str>,
    ) -> Result<(), VaultError> {
        // Work of the vault's own is bounded by its jobs.
        let Ok(running) = RUNNING.try_with(Arc::clone) else { return Ok(()) };
        // What has begun goes on: it needs no second place, and gives up for nobody.
        let has_begun = !running.begun.lock().is_empty();
        if let Some(subject) = subject.filter(|subject| !subject.is_empty()) {
            let line = self.lines.of(&format!("exchange:{workspace}:{subject}"));
            let turn = if has_begun {
                line.acquire_owned().await.map_err(|_| VaultError::ShuttingDown)?
            } else {
                self.next_turn(&running, line).await?
            };
            running.begun.lock().push(turn);
        }
        if has_begun {
            return Ok(());
        }
        let place = self.begun.try_take(workspace.as_str()).ok_or(VaultError::Overloaded)?;
        running.begun.lock().push(place);
        Ok(())
    }

    /// Waits for a turn in the middle of detached work, without a place meanwhile.
    async fn next_turn(&self, running: &Running, line: Line) -> Result<OwnedSemaphorePermit, VaultError> {
        if let Ok(turn) = Arc::clone(&line).try_acquire_owned() {
            return Ok(turn);
        }
        let waiting = self.waiting.take()?;
        drop(running.place.lock().take());
        if let Some(attendance) = running.attendance.upgrade() {
            attendance.step_aside();
        }
        let turn = tokio::select! {
            turn = line.acquire_owned() => turn.map_err(|_| VaultError::ShuttingDown)?,
            () = running.patience.ended() => return Err(VaultError::OutOfTime),
        };
        drop(waiting);
        *running.place.lock() = Some(self.detached.take()?);
        Ok(turn)
    }

    /// Waits for a permit to list or count. A principal that asks for many at once waits only for its own.
    pub(in crate::vault) async fn list_turn(
        &self,
        caller: &Principal,
    ) -> Result<(SemaphorePermit<'_>, OwnedSemaphorePermit), VaultError> {
        let own = self.list_shares.take(&caller.name).await.ok_or(VaultError::ShuttingDown)?;
        let turn = self.lists.acquire().await.map_err(|_| VaultError::ShuttingDown)?;
        Ok((turn, own))
    }
}
