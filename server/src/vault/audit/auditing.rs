//! What is recorded, and when: a secret before it leaves, a change with its transaction, a refusal as it happens.
//!
//! The relay carries records from the outbox to the log, in order, and notes in the database how far the log has
//! come. While the log can't be written, nothing is handed out and no change begins.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::audit::{
    Anchor, Audit, AuditUnavailable, FileSet, Head, Query, Report, SinkConfig, Surplus, file_sets, search,
    verify,
};
use crate::model::{AuditKind, AuditRecord, Clock, Connection};
use crate::store::{Abort, ChainState, Origin, Outgoing, Store, open_for_reading};
use crate::vault::error::{OpenError, VaultError};
use crate::vault::keys::keyring::Keys;
use crate::vault::opening::config::VaultConfig;
use crate::vault::opening::start::{check_master_keys, key_source, no_key};
use crate::vault::state::Vault;

/// How often the database learns how far the log has come.
const ANCHOR: Duration = Duration::from_secs(1);
/// Every so many anchors, what dead processes left is looked for.
const ADOPT: u32 = 5;
/// How long a failing log is left alone.
const AGAIN: Duration = Duration::from_millis(200);
/// Records that go to the log in one piece.
const PIECE: usize = 500;
/// Longest wait for the relay before a one-time key is handed out.
const RELAYED: Duration = Duration::from_secs(3);
/// How often it is looked whether an abandoned call has ended.
const ABANDONED: Duration = Duration::from_millis(100);
/// Refusals that are recorded at once, and per second after that: a flood of them must not fill the disk.
const REFUSALS: (u32, u32) = (100, 10);

impl From<AuditUnavailable> for VaultError {
    fn from(_: AuditUnavailable) -> Self {
        Self::AuditUnavailable
    }
}

/// How many refusals may still be recorded.
#[derive(Debug)]
pub(in crate::vault) struct Refusals(Mutex<Room>);

#[derive(Debug)]
struct Room {
    left: u32,
    since: Instant,
    suppressed: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self(Mutex::new(Room { left: REFUSALS.0, since: Instant::now(), suppressed: 0 }))
    }
}

impl Refusals {
    /// Whether one more is recorded; if so, how many were not before it.
    fn take(&self) -> Option<u64> {
        let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = u32::try_from(room.since.elapsed().as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            room.left = room.left.saturating_add(seconds.saturating_mul(REFUSALS.1)).min(REFUSALS.0);
            room.since = Instant::now();
        }
        if room.left == 0 {
            room.suppressed += 1;
            return None;
        }
        room.left -= 1;
        Some(std::mem::take(&mut room.suppressed))
    }
}

/// True while both are.
pub(in crate::vault) fn both(
    mut one: watch::Receiver<bool>,
    mut other: watch::Receiver<bool>,
) -> watch::Receiver<bool> {
    let (tell, told) = watch::channel(*one.borrow() && *other.borrow());
    tokio::spawn(async move {
        loop {
            let well = *one.borrow_and_update() && *other.borrow_and_update();
            tell.send_if_modified(|was| std::mem::replace(was, well) != well);
            let changed =
                tokio::select! { changed = one.changed() => changed, changed = other.changed() => changed };
            if changed.is_err() || tell.is_closed() {
                return;
            }
        }
    });
    told
}

fn body(record: &AuditRecord) -> String {
    serde_json::to_string(record).unwrap_or_default()
}

impl Vault {
    /// The gate before every change.
    ///
    /// # Errors
    /// `AuditUnavailable`: the log can't be written, so nothing may begin.
    pub fn may_change(&self) -> Result<(), VaultError> {
        Ok(self.audit.check()?)
    }

    /// Records that a connection's secret is handed out; it may leave once this is `Ok`.
    pub(in crate::vault) async fn record_hand_out(&self, connection: &Connection) -> Result<(), VaultError> {
        if !self.audit.is_on() {
            return Ok(());
        }
        Origin::note_subject(connection);
        let origin = Origin::current().unwrap_or_else(|| Arc::new(Origin::system("vault")));
        let mut record = origin.record(AuditKind::HandedOut, self.clock.now());
        record.code = "OK".to_owned();
        self.audit.append(vec![body(&record)]).await?;
        Ok(())
    }

    /// Waits until the log has what this call changed: what it hands out may leave then.
    pub(in crate::vault) async fn recorded_in_log(&self) -> Result<(), VaultError> {
        let Some(origin) = Origin::current().filter(|_| self.audit.is_on()) else { return Ok(()) };
        tokio::time::timeout(RELAYED, origin.relayed()).await.map_err(|_| VaultError::AuditUnavailable)
    }

    /// Records how a call ended that could have changed something and did not. What it did change is recorded
    /// already.
    ///
    /// # Errors
    /// `AuditUnavailable`.
    pub async fn record_unchanged(
        &self,
        origin: &Origin,
        code: &str,
        reason: &str,
    ) -> Result<(), VaultError> {
        if origin.is_recorded() || !self.audit.is_on() {
            return Ok(());
        }
        let mut record = origin.record(AuditKind::Unchanged, self.clock.now());
        (record.code, record.reason) = (code.to_owned(), reason.to_owned());
        self.audit.append(vec![body(&record)]).await?;
        Ok(())
    }

    /// Records that a caller hung up, or ran out of time, on a call that could have changed something. What the call
    /// began goes on without it: the record is written once that has ended, if it changed nothing.
    pub fn record_abandoned(self: &Arc<Self>, origin: Arc<Origin>) {
        if !self.audit.is_on() {
            return;
        }
        let vault = Arc::clone(self);
        self.tasks.spawn(async move {
            while Arc::strong_count(&origin) > 1 && !vault.relay_stop.is_cancelled() {
                tokio::time::sleep(ABANDONED).await;
            }
            if origin.is_recorded() {
                return;
            }
            // Hanging up is cheap: a flood of it must not fill the disk.
            let Some(suppressed) = vault.refusals.take() else { return };
            let mut record = origin.record(AuditKind::Unchanged, vault.clock.now());
            (record.code, record.suppressed) =
                ("CANCELLED".to_owned(), (suppressed > 0).then_some(suppressed));
            let _ = vault.audit.append(vec![body(&record)]).await;
        });
    }

    /// Records that a caller was turned away, unless there were too many of late. The answer is no anyway.
    pub async fn record_refusal(&self, origin: &Origin, code: &str, reason: &str) {
        if !self.audit.is_on() {
            return;
        }
        let Some(suppressed) = self.refusals.take() else { return };
        let mut record = origin.record(AuditKind::Refused, self.clock.now());
        (record.code, record.reason) = (code.to_owned(), reason.to_owned());
        record.suppressed = (suppressed > 0).then_some(suppressed);
        let _ = self.audit.append(vec![body(&record)]).await;
    }

    /// Does work of the vault's own, recorded as `system:<job>`, if the log can be written.
    pub(in crate::vault) async fn as_system<T>(
        &self,
        job: &'static str,
        work: impl Future<Output = Result<T, VaultError>>,
    ) -> Result<T, VaultError> {
        self.may_change()?;
        Arc::new(Origin::system(job)).scope(work).await
    }

    /// Checks the log against the vault's audit key and the database's anchors. The vault may run meanwhile.
    /// Without `files`, the configured ones.
    ///
    /// # Errors
    /// With a sentence for the operator.
    pub async fn verify_audit(config: &VaultConfig, files: &[PathBuf]) -> Result<Report, OpenError> {
        let mut session = open_for_reading(config.database_url.expose()).await?;
        let record = session.vault().await?.ok_or_else(|| OpenError("the database holds no vault".into()))?;
        let source = key_source(config)?;
        let master = source.read(false)?.ok_or_else(|| no_key(&record))?;
        check_master_keys(&master, &record, &mut session).await?;
        let keys = Keys::load(source, None, master, record, &mut session).await?;
        // Before the files: a log may grow while it is read, and may not be shorter than the database knows.
        let anchors = session.audit_chains().await?.into_iter().map(anchor).collect::<Result<Vec<_>, _>>()?;
        let sets = audit_files(config, files)?;
        verify(&keys.audit, &sets, &anchors)
            .map_err(|error| OpenError(format!("the audit log can't be read: {error}")))
    }

    /// Reads the log. Needs neither database nor key.
    ///
    /// # Errors
    /// With a sentence for the operator.
    pub fn search_audit(
        config: &VaultConfig,
        files: &[PathBuf],
        query: &Query,
    ) -> Result<Vec<AuditRecord>, OpenError> {
        let sets = audit_files(config, files)?;
        search(&sets, query).map_err(|error| OpenError(format!("the audit log can't be read: {error}")))
    }
}

fn audit_files(config: &VaultConfig, files: &[PathBuf]) -> Result<Vec<FileSet>, OpenError> {
    if !files.is_empty() {
        if let Some(missing) = files.iter().find(|file| !file.exists()) {
            return Err(OpenError(format!("there is no file {}", missing.display())));
        }
        return Ok(files.iter().map(FileSet::new).collect());
    }
    match &config.audit.sink {
        SinkConfig::File(file) => Ok(vec![FileSet::new(file)]),
        SinkConfig::Folder(folder) => {
            let sets = file_sets(folder).map_err(|error| {
                OpenError(format!("the audit logs in {} can't be read: {error}", folder.display()))
            })?;
            // With none of them left, what the database knows is missing from the first.
            Ok(if sets.is_empty() { vec![FileSet::new(folder.join("audit.jsonl"))] } else { sets })
        }
        SinkConfig::Stdout | SinkConfig::Off => {
            Err(OpenError("audit.sink is no file: name the file that holds the log by --file".into()))
        }
    }
}

fn anchor(chain: ChainState) -> Result<Anchor, OpenError> {
    let altered = || OpenError("an anchor of the audit log is damaged: the database was altered".into());
    let mac = chain.mac.try_into().map_err(|_| altered())?;
    let number = |number: i64| u64::try_from(number).map_err(|_| altered());
    Ok(Anchor {
        head: Head { chain: chain.chain, number: number(chain.number)?, mac },
        place: chain.place,
        dropped_to: number(chain.dropped_to)?,
    })
}

/// Carries records from the outbox to the log.
pub(in crate::vault) struct Relay {
    pub(in crate::vault) store: Arc<Store>,
    pub(in crate::vault) audit: Arc<Audit>,
    pub(in crate::vault) clock: Clock,
    pub(in crate::vault) stop: CancellationToken,
}

type Record = (Uuid, String, Option<Arc<Origin>>);

impl Relay {
    /// Until told to stop; then what waits is written if it can be, and the log is closed.
    pub(in crate::vault) async fn run(self, mut outgoing: UnboundedReceiver<Outgoing>) {
        let mut waiting: VecDeque<Record> = VecDeque::new();
        let (mut relayed, mut doubtful, mut surplus) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ticks, mut anchored) = (0_u32, None);
        let mut tick = tokio::time::interval(ANCHOR);
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
                () = tokio::time::sleep(AGAIN), if !waiting.is_empty() => {}
            }
            while let Ok(came) = outgoing.try_recv() {
                take(came, &mut waiting, &mut doubtful);
            }
            self.pass_on(&mut waiting, &mut relayed).await;
            if due {
                if ticks.is_multiple_of(ADOPT) {
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
            let piece: Vec<String> = waiting.iter().take(PIECE).map(|(_, body, _)| body.clone()).collect();
            let length = piece.len();
            let Ok(number) = self.audit.append(piece).await else { return };
            for (id, _, origin) in waiting.drain(..length) {
                relayed.push((id, number));
                if let Some(origin) = origin {
                    origin.mark_relayed();
                }
            }
        }
    }

    /// What dead processes left comes before what comes later.
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
                // Somebody else was first.
                Ok(records) if records.is_empty() => return,
                Ok(records) => waiting.extend(records.into_iter().map(|(id, body)| (id, body, None))),
                // The commit may have succeeded: then nobody else looks for them.
                Err(_) => return doubtful.extend(left),
            }
        }
    }

    /// Asks the outbox what became of records whose commit nobody knows.
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

    /// Notes how far the log has come, and forgets what it has. Only once it is on the disk.
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
            place: self.audit.place().to_owned(),
            number: i64::try_from(head.number).unwrap_or(i64::MAX),
            mac: head.mac.to_vec(),
            dropped_to: 0,
        };
        let chain = state(&head);
        // What was written and is not on the disk yet stays in the outbox.
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
                // Named again when the next file is put aside.
                if let Err(error) = tokio::fs::remove_file(&file).await {
                    tracing::warn!(%error, file = %file.display(), "an old audit file stays");
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
