//! Carries audit records from the outbox, where transactions put them, to the log, in order, and notes in the database
//! how far the log has come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::audit::{Audit, Head, Surplus};
use crate::model::Clock;
use crate::store::{Abort, ChainState, Origin, Outgoing, Store};
use crate::vault::error::VaultError;

/// How often the database learns how far the log has come.
const ANCHOR_EVERY: Duration = Duration::from_secs(1);
/// The relay looks for the records of dead processes once in this many anchors.
const ADOPT_EVERY: u32 = 5;
/// Pause before a failed write is retried.
const RETRY: Duration = Duration::from_millis(200);
/// How long a COMMIT in doubt may still succeed: while PostgreSQL's standby is away, it waits at the server. After this
/// long, the records follow when this process ends.
const DOUBT: Duration = Duration::from_secs(24 * 3_600);
/// The most records in one write to the log.
const BATCH: usize = 500;

pub struct Relay {
    pub store: Arc<Store>,
    pub audit: Arc<Audit>,
    pub clock: Clock,
    pub stop: CancellationToken,
}

/// Id in the outbox, body, and the call that waits for it.
type Record = (Uuid, String, Option<Arc<Origin>>);

/// What the log's side and the database's side of the relay tell each other.
#[derive(Default)]
struct Books {
    /// Records that the log has taken, with their growing numbers there; the outbox still holds them.
    relayed: Mutex<Vec<(Uuid, u64)>>,
    /// Ids whose commit may or may not have succeeded, and may yet succeed, with the time since when that is so.
    doubtful: Mutex<Vec<(Uuid, Instant)>>,
}

impl Books {
    fn doubt(&self, ids: Vec<Uuid>) {
        let now = Instant::now();
        self.doubtful.lock().extend(ids.into_iter().map(|id| (id, now)));
    }

    fn doubtful(&self) -> Vec<Uuid> {
        self.doubtful.lock().iter().map(|(id, _)| *id).collect()
    }

    /// Forgets doubts about records that were found, and doubts that are too old.
    fn believe(&self, found: &[(Uuid, String)]) {
        let open = |id: &Uuid, since: &Instant| {
            since.elapsed() < DOUBT && !found.iter().any(|(found, _)| found == id)
        };
        self.doubtful.lock().retain(|(id, since)| open(id, since));
    }
}

/// What the database has to learn of the log.
#[derive(Default)]
struct Anchor {
    surplus: Vec<Surplus>,
    anchored: Option<Head>,
}

impl Relay {
    /// Runs until `stop`, then writes as many of the remaining records as it can, and closes the log.
    pub async fn run(self, mut outgoing: UnboundedReceiver<Outgoing>) {
        let (books, mut anchor, mut waiting) = (Books::default(), Anchor::default(), VecDeque::new());
        let (found, mut comes) = mpsc::unbounded_channel();
        let over = CancellationToken::new();
        // Side by side, because calls wait for the log: a slow database must not hold it up.
        tokio::join!(
            async {
                self.forward(&mut outgoing, &mut comes, &mut waiting, &books).await;
                over.cancel();
            },
            self.keep_books(&books, &found, &mut anchor, &over),
        );
        while let Ok(came) = outgoing.try_recv() {
            take(came, &mut waiting, &books);
        }
        self.settle(&books, &found).await;
        while let Ok(records) = comes.try_recv() {
            waiting.extend(records);
        }
        self.pass_on(&mut waiting, &books).await;
        self.audit.close(&self.clock).await;
        self.anchor(&books, &mut anchor).await;
    }

    /// Writes to the log what comes from transactions and what was found in the outbox.
    async fn forward(
        &self,
        outgoing: &mut UnboundedReceiver<Outgoing>,
        found: &mut UnboundedReceiver<Vec<Record>>,
        waiting: &mut VecDeque<Record>,
        books: &Books,
    ) {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                came = outgoing.recv() => match came {
                    Some(came) => take(came, waiting, books),
                    None => return,
                },
                Some(records) = found.recv() => waiting.extend(records),
                () = tokio::time::sleep(RETRY), if !waiting.is_empty() => {}
            }
            while let Ok(came) = outgoing.try_recv() {
                take(came, waiting, books);
            }
            self.pass_on(waiting, books).await;
        }
    }

    async fn pass_on(&self, waiting: &mut VecDeque<Record>, books: &Books) {
        while !waiting.is_empty() {
            let batch: Vec<String> = waiting.iter().take(BATCH).map(|(_, body, _)| body.clone()).collect();
            let length = batch.len();
            let Ok(number) = self.audit.append(batch).await else { return };
            let mut relayed = books.relayed.lock();
            for (id, _, origin) in waiting.drain(..length) {
                relayed.push((id, number));
                if let Some(origin) = origin {
                    origin.mark_relayed();
                }
            }
        }
    }

    /// Looks for records that were left in the outbox, and notes in the database how far the log has come.
    async fn keep_books(
        &self,
        books: &Books,
        found: &UnboundedSender<Vec<Record>>,
        anchor: &mut Anchor,
        over: &CancellationToken,
    ) {
        let mut tick = tokio::time::interval(ANCHOR_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for ticks in (0..ADOPT_EVERY).cycle() {
            tokio::select! {
                biased;
                () = over.cancelled() => return,
                _ = tick.tick() => {}
            }
            if ticks == 0 {
                self.adopt(books, found, over).await;
            }
            self.settle(books, found).await;
            self.anchor(books, anchor).await;
        }
    }

    /// Takes over the records that dead processes left in the outbox.
    async fn adopt(&self, books: &Books, found: &UnboundedSender<Vec<Record>>, over: &CancellationToken) {
        let own = self.store.incarnation();
        while !over.is_cancelled() {
            let left = match self.store.read().await {
                Ok(mut session) => session.left_in_outbox(own).await,
                Err(error) => Err(error),
            };
            let Ok(left) = left else { return };
            if left.is_empty() {
                return;
            }
            let unit = left.clone();
            let adopted = self
                .store
                .write(move |tx| {
                    let left = unit.clone();
                    Box::pin(async move { Ok::<_, Abort<VaultError>>(tx.adopt_outbox(own, &left).await?) })
                })
                .await;
            match adopted {
                // Another replica was first.
                Ok(records) if records.is_empty() => return,
                Ok(records) => {
                    // An earlier attempt may have left doubts.
                    books.believe(&records);
                    tell(found, records);
                }
                // The commit may have succeeded, and then no other replica will take these records.
                Err(_) => return books.doubt(left),
            }
        }
    }

    /// Looks in the outbox for records whose commit may or may not have succeeded.
    async fn settle(&self, books: &Books, found: &UnboundedSender<Vec<Record>>) {
        let doubtful = books.doubtful();
        if doubtful.is_empty() {
            return;
        }
        let records = match self.store.read().await {
            Ok(mut session) => session.outbox(self.store.incarnation(), &doubtful).await,
            Err(error) => Err(error),
        };
        if let Ok(records) = records {
            books.believe(&records);
            tell(found, records);
        }
    }

    /// Notes in the database how much of the log is on disk, and deletes the records that the log holds from the
    /// outbox.
    async fn anchor(&self, books: &Books, Anchor { surplus, anchored }: &mut Anchor) {
        let flushed = self.audit.flushed();
        surplus.extend(self.audit.take_surplus());
        if flushed == *anchored && surplus.is_empty() && books.relayed.lock().is_empty() {
            return;
        }
        let Some(head) = flushed else { return };
        let state = |head: &Head| ChainState {
            chain: head.chain,
            log: self.audit.log_name().to_owned(),
            number: i64::try_from(head.number).unwrap_or(i64::MAX),
            mac: head.mac.to_vec(),
            dropped_to: 0,
        };
        let chain = state(&head);
        // Records that are not flushed to disk yet stay in the outbox.
        let ids: Vec<_> =
            books.relayed.lock().iter().take_while(|(_, n)| *n <= head.number).map(|(id, _)| *id).collect();
        let forgotten = ids.len();
        let gone: Vec<_> = surplus.iter().flat_map(|file| &file.heads).map(state).collect();
        let now = self.clock.now();
        let done = self
            .store
            .write(move |tx| {
                let (chain, ids, gone) = (chain.clone(), ids.clone(), gone.clone());
                Box::pin(async move {
                    tx.anchor_chain(&chain, now).await?;
                    for chain in &gone {
                        tx.drop_chain_to(chain, now).await?;
                    }
                    Ok::<_, Abort<VaultError>>(tx.forget_relayed(&ids).await?)
                })
            })
            .await;
        if done.is_ok() {
            *anchored = Some(head);
            books.relayed.lock().drain(..forgotten);
            for Surplus { file, .. } in surplus.drain(..) {
                // The next rotation of the file reports this file as surplus again.
                if let Err(error) = tokio::fs::remove_file(&file).await {
                    tracing::warn!(%error, file = %file.display(), "an old audit file could not be deleted");
                }
            }
        }
    }
}

fn take(came: Outgoing, waiting: &mut VecDeque<Record>, books: &Books) {
    match came {
        Outgoing::Records(records) => waiting.extend(records),
        Outgoing::Doubtful(ids) => books.doubt(ids),
    }
}

fn tell(found: &UnboundedSender<Vec<Record>>, records: Vec<(Uuid, String)>) {
    // The receiver lives as long as the relay.
    let _ = found.send(records.into_iter().map(|(id, body)| (id, body, None)).collect());
}
