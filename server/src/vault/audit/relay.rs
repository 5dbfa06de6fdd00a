//! Carries audit records from the outbox, where transactions put them, to the log, in order, and notes in the database
//! how far the log has come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
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

impl Relay {
    /// Runs until `stop`, then writes as many of the remaining records as it can, and closes the log.
    pub async fn run(self, mut outgoing: UnboundedReceiver<Outgoing>) {
        let mut waiting: VecDeque<Record> = VecDeque::new();
        let (mut relayed, mut doubtful, mut surplus) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ticks, mut anchored) = (0_u32, None);
        let mut tick = tokio::time::interval(ANCHOR_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut due = false;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                _ = tick.tick() => due = true,
                came = outgoing.recv() => match came {
                    Some(came) => take(came, &mut waiting, &mut doubtful),
                    None => break,
                },
                () = tokio::time::sleep(RETRY), if !waiting.is_empty() => {}
            }
            while let Ok(came) = outgoing.try_recv() {
                take(came, &mut waiting, &mut doubtful);
            }
            self.pass_on(&mut waiting, &mut relayed).await;
            if due {
                if ticks.is_multiple_of(ADOPT_EVERY) {
                    self.adopt(&mut waiting, &mut doubtful).await;
                }
                ticks = ticks.wrapping_add(1);
                self.settle(&mut doubtful, &mut waiting).await;
                self.anchor(&mut relayed, &mut surplus, &mut anchored).await;
            }
        }
        while let Ok(came) = outgoing.try_recv() {
            take(came, &mut waiting, &mut doubtful);
        }
        self.settle(&mut doubtful, &mut waiting).await;
        self.pass_on(&mut waiting, &mut relayed).await;
        self.audit.close(&self.clock).await;
        self.anchor(&mut relayed, &mut surplus, &mut anchored).await;
    }

    async fn pass_on(&self, waiting: &mut VecDeque<Record>, relayed: &mut Vec<(Uuid, u64)>) {
        while !waiting.is_empty() {
            let batch: Vec<String> = waiting.iter().take(BATCH).map(|(_, body, _)| body.clone()).collect();
            let length = batch.len();
            let Ok(number) = self.audit.append(batch).await else { return };
            for (id, _, origin) in waiting.drain(..length) {
                relayed.push((id, number));
                if let Some(origin) = origin {
                    origin.mark_relayed();
                }
            }
        }
    }

    /// Takes over the records that dead processes left in the outbox.
    async fn adopt(&self, waiting: &mut VecDeque<Record>, doubtful: &mut Vec<Uuid>) {
        let own = self.store.incarnation();
        loop {
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
                Ok(records) => waiting.extend(records.into_iter().map(|(id, body)| (id, body, None))),
                // The commit may have succeeded, and then no other replica will take these records.
                Err(_) => return doubtful.extend(left),
            }
        }
    }

    /// Looks in the outbox for records whose commit may or may not have succeeded.
    async fn settle(&self, doubtful: &mut Vec<Uuid>, waiting: &mut VecDeque<Record>) {
        if doubtful.is_empty() {
            return;
        }
        let found = match self.store.read().await {
            Ok(mut session) => session.outbox(doubtful).await,
            Err(error) => Err(error),
        };
        if let Ok(records) = found {
            doubtful.clear();
            waiting.extend(records.into_iter().map(|(id, body)| (id, body, None)));
        }
    }

    /// Notes in the database how much of the log is on disk, and deletes the records that the log holds from the
    /// outbox.
    async fn anchor(
        &self,
        relayed: &mut Vec<(Uuid, u64)>,
        surplus: &mut Vec<Surplus>,
        anchored: &mut Option<Head>,
    ) {
        let flushed = self.audit.flushed();
        surplus.extend(self.audit.take_surplus());
        if flushed == *anchored && relayed.is_empty() && surplus.is_empty() {
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
        let ids: Vec<_> = relayed.iter().filter(|(_, n)| *n <= head.number).map(|(id, _)| *id).collect();
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
            relayed.retain(|(_, number)| *number > head.number);
            for Surplus { file, .. } in surplus.drain(..) {
                // The next rotation of the file reports this file as surplus again.
                if let Err(error) = tokio::fs::remove_file(&file).await {
                    tracing::warn!(%error, file = %file.display(), "an old audit file could not be deleted");
                }
            }
        }
    }
}

fn take(came: Outgoing, waiting: &mut VecDeque<Record>, doubtful: &mut Vec<Uuid>) {
    match came {
        Outgoing::Records(records) => waiting.extend(records),
        Outgoing::Doubtful(ids) => doubtful.extend(ids),
    }
}
