//! The job `shredding`: ends the connections of shredded workspaces. Also writes the ledger of shredded workspaces, a
//! file in the data folder that operators keep with their backups.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{AccountChange, Cause, ConnectionId, Policy, Standing, Timestamp};
use crate::store::{Abort, JobRun, Needs, Shredding, Store, Tx};
use crate::vault::error::VaultError;
use crate::vault::jobs::run::{Progress, RunFailed};
use crate::vault::state::Vault;
use crate::vault::token::change;

/// Connections that are ended in one transaction.
const ENDED_AT_ONCE: i64 = 100;
/// The ledger's file: one line of JSON for each shredded workspace.
const LEDGER: &str = "shred-ledger.jsonl";

/// A line of the ledger.
#[derive(Serialize, Deserialize)]
struct Line {
    workspace_id: String,
    shredded_at: String,
    shredded_by: String,
}

impl Vault {
    /// Ends the connections of every shredded workspace, one event each.
    pub(in crate::vault::jobs) async fn end_shredded_connections(
        &self,
        run: &mut JobRun,
        progress: &Progress<'_>,
    ) -> Result<(), RunFailed> {
        let by = self.store.read().await?.shred_ledger().await?;
        for workspace in self.store.read().await?.workspaces_to_bury().await? {
            let ended_by = by
                .iter()
                .find(|entry| entry.workspace == workspace)
                .map_or_else(|| "shredding".to_owned(), |entry| entry.by.clone());
            let mut after: Option<ConnectionId> = None;
            loop {
                let mut session = self.store.read().await?;
                let page = session.connections_of_workspace(&workspace, after, ENDED_AT_ONCE).await?;
                drop(session);
                let Some(last) = page.last().copied() else { break };
                after = Some(last);
                run.done += i64::try_from(page.len()).unwrap_or(0);
                run.total = run.total.max(run.done);
                self.end_connections(page, ended_by.clone()).await?;
                progress.note(run).await?;
            }
        }
        self.update_shred_ledger().await;
        Ok(self.store.scrub().await?)
    }

    async fn end_connections(&self, page: Vec<ConnectionId>, by: String) -> Result<(), VaultError> {
        let (now, policy) = (self.clock.now(), self.policy());
        self.store
            .write_with(Needs { connections: page.clone(), alone: true }, move |tx| {
                let (page, by, policy) = (page.clone(), by.clone(), Arc::clone(&policy));
                Box::pin(async move {
                    for id in page {
                        bury(tx, id, &by, now, &policy).await?;
                    }
                    Ok::<_, Abort<VaultError>>(())
                })
            })
            .await?;
        Ok(())
    }

    /// Adds to the ledger's file the entries that only the database has. The file only ever grows.
    pub(in crate::vault) async fn update_shred_ledger(&self) {
        if let Err(error) = write_ledger(&self.store, &self.data_dir).await {
            tracing::error!(error, "the shred ledger in the data folder can't be written");
        }
    }
}

/// Ends a connection, and erases whose token it was.
pub(super) async fn bury(
    tx: &mut Tx,
    id: ConnectionId,
    by: &str,
    now: Timestamp,
    policy: &Policy,
) -> Result<(), Abort<VaultError>> {
    let Some(before) = tx.lock_connection(id).await? else { return Ok(()) };
    let mut after = before.clone();
    if !matches!(before.standing, Standing::Revoked { .. }) {
        after.standing = Standing::Revoked { at: now, by: by.to_owned() };
    }
    after.fingerprint = None;
    tx.erase_subject(&mut after).await?;
    tx.destroy_secrets(id).await?;
    change::apply(tx, &before, &mut after, Cause::Revocation, AccountChange::default(), now, policy).await
}

async fn write_ledger(store: &Store, folder: &Path) -> Result<(), String> {
    let mut session = store.read().await.map_err(|error| error.to_string())?;
    let entries = session.shred_ledger().await.map_err(|error| error.to_string())?;
    drop(session);
    if entries.is_empty() {
        return Ok(());
    }
    let file = folder.join(LEDGER);
    append_missing(&file, &entries).map_err(|error| format!("{}: {error}", file.display()))
}

fn append_missing(file: &Path, entries: &[Shredding]) -> io::Result<()> {
    let mut ledger = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(file)?;
    let mut text = String::new();
    ledger.read_to_string(&mut text)?;
    let known: Vec<_> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .map(|line| line.workspace_id)
        .collect();
    // Leave a line that a crash cut short as it is, and start the next one on a line of its own.
    let mut missing = if text.is_empty() || text.ends_with('\n') { String::new() } else { "\n".to_owned() };
    for entry in entries.iter().filter(|entry| !known.iter().any(|id| id == entry.workspace.as_str())) {
        let line = Line {
            workspace_id: entry.workspace.to_string(),
            shredded_at: Timestamp::to_string(&entry.at),
            shredded_by: entry.by.clone(),
        };
        missing.push_str(&serde_json::to_string(&line)?);
        missing.push('\n');
    }
    if missing.trim().is_empty() {
        return Ok(());
    }
    ledger.write_all(missing.as_bytes())?;
    ledger.sync_all()
}
