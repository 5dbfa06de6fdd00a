//! Shredding: a workspace's keys are destroyed in one transaction, and with them everything that they sealed, in
//! the database and in every copy that lacks the master key. A job then ends its connections, one event each.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::model::{
    AccountChange, Cause, ConnectionId, Principal, RefusalKind, RequestId, Standing, Timestamp, WorkspaceId,
    WorkspaceSet,
};
use crate::store::{Abort, JobRun, Needs, RunCause, Shredding, Store, WorkspaceFacts};
use crate::vault::error::{FieldViolation, VaultError};
use crate::vault::jobs::schedule::{JobKind, Progress, RunFailed};
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::token::change;

/// Destroys a workspace's keys.
#[derive(Debug, Clone)]
pub struct ShredWorkspace {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Which.
    pub workspace: WorkspaceId,
    /// The same once more.
    pub confirm: String,
    /// End its tokens at the provider first.
    pub revoke_at_provider: bool,
}

/// Answer of shredding.
#[derive(Debug, Clone)]
pub struct Shredded {
    /// The workspace as it is now.
    pub workspace: WorkspaceFacts,
    /// Connections that were not ended before.
    pub connections: i64,
}

/// Which workspaces, by id.
#[derive(Debug, Clone, Default)]
pub struct ListWorkspaces {
    /// How many at most; 1 to 1000.
    pub page_size: u32,
    /// Where to go on; empty at the start.
    pub page_token: String,
}

/// One page of workspaces.
#[derive(Debug)]
pub struct WorkspacePage {
    /// The workspaces.
    pub workspaces: Vec<WorkspaceFacts>,
    /// Where the next page starts; empty on the last.
    pub next_page_token: String,
}

/// Connections that are ended in one transaction.
const ENDED_AT_ONCE: i64 = 100;
/// Tokens that are ended at the provider at once.
const AT_PROVIDER_AT_ONCE: usize = 4;
/// The ledger's file in the data folder: one line of JSON for each workspace that was shredded.
pub(in crate::vault) const LEDGER: &str = "shred-ledger.jsonl";

/// A line of the ledger's file.
#[derive(Serialize, Deserialize)]
struct Line {
    workspace_id: String,
    shredded_at: String,
    shredded_by: String,
}

/// The stored outcome of a request. Its field names, and the number as text, never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ShreddedBefore {
    #[serde(with = "number_as_text")]
    connections: i64,
}

mod number_as_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Vault {
    /// Destroys a workspace's keys. Ending one that has ended answers as it stands.
    ///
    /// # Errors
    /// `WorkspaceNotFound`; `Fields` where the confirmation differs; `ProviderUnavailable` when tokens are to end at
    /// the provider and that can't be asked: nothing has changed then.
    pub async fn shred_workspace(
        self: &Arc<Self>,
        caller: &Principal,
        command: ShredWorkspace,
    ) -> Result<Shredded, VaultError> {
        let id = command.workspace.clone();
        if !caller.workspaces.contains(&id) {
            return Err(VaultError::WorkspaceNotFound(id));
        }
        if command.confirm != id.as_str() {
            return Err(VaultError::Fields(vec![FieldViolation::new(
                "confirm_workspace_id",
                "must be the same as workspace_id: what is shredded does not come back",
            )]));
        }
        let (vault, caller) = (Arc::clone(self), caller.clone());
        self.detached(async move {
            let parts: [&[u8]; 2] = [id.as_str().as_bytes(), &[u8::from(command.revoke_at_provider)]];
            let request = vault.request("ShredWorkspace", command.request_id.as_ref(), &parts);
            let work = async |claim| vault.shred(&caller, &command, claim).await;
            let repeat = async |done: ShreddedBefore| Ok(done.connections);
            let connections = vault.once(&caller, request, work, repeat).await?;
            Ok(Shredded { workspace: vault.known_workspace(&id).await?, connections })
        })
        .await
    }

    async fn known_workspace(&self, id: &WorkspaceId) -> Result<WorkspaceFacts, VaultError> {
        let known = self.store.read().await?.workspace(id).await?;
        known.ok_or_else(|| VaultError::WorkspaceNotFound(id.clone()))
    }

    async fn shred(
        self: &Arc<Self>,
        caller: &Principal,
        command: &ShredWorkspace,
        claim: RequestClaim,
    ) -> Result<i64, VaultError> {
        let before = self.known_workspace(&command.workspace).await?;
        if command.revoke_at_provider && before.shredded_at.is_none() {
            self.end_all_at_provider(&command.workspace).await?;
        }
        let now = self.clock.now();
        let entry = Shredding { workspace: command.workspace.clone(), at: now, by: caller.name.clone() };
        let run = self.new_run(JobKind::Shredding, now, RunCause::Request);
        let (unit, unit_run) = (entry.clone(), run.clone());
        let connections = before.tokens;
        // In flight first: a run that is in the table and has no task would seem to have been abandoned.
        let in_flight = self.runs.enter(JobKind::Shredding.as_str());
        let free = in_flight.is_some();
        let begun = self
            .store
            .write_with(Needs { alone: true, ..Needs::default() }, move |tx| {
                let (entry, run, claim) = (unit.clone(), unit_run.clone(), claim.clone());
                Box::pin(async move {
                    let begun = match tx.lock_workspace(&entry.workspace).await? {
                        None => return Err(Abort::Refused(VaultError::WorkspaceNotFound(entry.workspace))),
                        Some(true) => false,
                        Some(false) => {
                            tx.shred_workspace(&entry).await?;
                            tx.audit_object(format!("workspace:{}", entry.workspace), entry.at);
                            free && tx.begin_run(&run, RunCause::Request).await?
                        }
                    };
                    claim.finish(tx, &ShreddedBefore { connections }).await?;
                    Ok(begun)
                })
            })
            .await?
            .0;
        tracing::warn!(workspace = %entry.workspace, by = entry.by, connections, "workspace shredded: its keys are destroyed");
        // After the commit there is no error: the job does both again.
        self.keep_ledger().await;
        if let Err(error) = self.store.scrub().await {
            tracing::warn!(%error, "the database's log still holds what was deleted; it is cut again later");
        }
        if let (true, Some(in_flight)) = (begun, in_flight) {
            self.spawn_run(JobKind::Shredding, run, in_flight);
        }
        Ok(connections)
    }

    /// Ends every token of a workspace at the provider, but for those that others share. What can't be ended there
    /// for a reason of its own is let go: its secret is destroyed here all the same.
    async fn end_all_at_provider(self: &Arc<Self>, workspace: &WorkspaceId) -> Result<(), VaultError> {
        let mut after: Option<ConnectionId> = None;
        loop {
            let page =
                self.store.read().await?.connections_of_workspace(workspace, after, ENDED_AT_ONCE).await?;
            let Some(last) = page.last().copied() else { return Ok(()) };
            after = Some(last);
            let mut ended = futures::stream::iter(page)
                .map(|id| {
                    let vault = Arc::clone(self);
                    async move { vault.end_one_at_provider(id).await }
                })
                .buffer_unordered(AT_PROVIDER_AT_ONCE);
            while let Some(outcome) = ended.next().await {
                outcome?;
            }
        }
    }

    async fn end_one_at_provider(&self, id: ConnectionId) -> Result<(), VaultError> {
        let Some(held) = self.store.held_token(id).await? else { return Ok(()) };
        let connection = &held.connection;
        if held.sealed.is_none() || connection.standing != Standing::Live {
            return Ok(());
        }
        if self.store.read().await?.shared_with(connection).await? > 0 {
            tracing::info!(connection = %id, "the token is not ended at the provider: other workspaces share it");
            return Ok(());
        }
        let Ok(provider) = self.provider_of(connection) else { return Ok(()) };
        let Ok(secret) = self.open_secret(&held).await else { return Ok(()) };
        match provider.revoke(&secret, &connection.subject, connection.facts.kind).await {
            Ok(_) => Ok(()),
            Err(refusal) => match refusal.kind {
                RefusalKind::Transient { .. } | RefusalKind::Throttled { .. } | RefusalKind::Ours(_) => {
                    Err(VaultError::from_provider_trouble(&refusal, provider.id()))
                }
                _ => {
                    tracing::warn!(connection = %id, "the provider does not end the token; its secret is destroyed here");
                    Ok(())
                }
            },
        }
    }

    /// Ends the connections of every workspace that was shredded.
    pub(in crate::vault) async fn bury(
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
                self.bury_page(page, ended_by.clone()).await?;
                progress.note(run).await?;
            }
        }
        self.keep_ledger().await;
        Ok(self.store.scrub().await?)
    }

    async fn bury_page(&self, page: Vec<ConnectionId>, by: String) -> Result<(), VaultError> {
        let (now, policy) = (self.clock.now(), self.policy());
        self.store
            .write_with(Needs { connections: page.clone(), alone: true }, move |tx| {
                let (page, by, policy) = (page.clone(), by.clone(), Arc::clone(&policy));
                Box::pin(async move {
                    for id in page {
                        let Some(before) = tx.lock_connection(id).await? else { continue };
                        let mut after = before.clone();
                        if !matches!(before.standing, Standing::Revoked { .. }) {
                            after.standing = Standing::Revoked { at: now, by: by.clone() };
                        }
                        after.fingerprint = None;
                        after.subject.id.clear();
                        after.subject.name.clear();
                        tx.forget_ad_accounts(id).await?;
                        tx.destroy_secrets(id).await?;
                        let nothing = AccountChange::default();
                        change::apply(tx, &before, &mut after, Cause::Revocation, nothing, now, &policy)
                            .await?;
                    }
                    Ok::<_, Abort<VaultError>>(())
                })
            })
            .await?;
        Ok(())
    }

    /// Brings the ledger's file up to what the database says. It only ever grows.
    pub(in crate::vault) async fn keep_ledger(&self) {
        if let Err(error) = keep_ledger(&self.store, &self.data_dir).await {
            tracing::error!(error, "the shred ledger beside the database can't be written");
        }
    }

    /// One workspace.
    ///
    /// # Errors
    /// `WorkspaceNotFound`.
    pub async fn get_workspace(
        &self,
        caller: &Principal,
        id: WorkspaceId,
    ) -> Result<WorkspaceFacts, VaultError> {
        if !caller.workspaces.contains(&id) {
            return Err(VaultError::WorkspaceNotFound(id));
        }
        self.known_workspace(&id).await
    }

    /// A page of workspaces that the caller may see, by id.
    ///
    /// # Errors
    /// `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_workspaces(
        &self,
        caller: &Principal,
        query: ListWorkspaces,
    ) -> Result<WorkspacePage, VaultError> {
        let hash = self.query_hash(caller, "ListWorkspaces", &[]);
        let mut after = match query.page_token.as_str() {
            "" => String::new(),
            token => self.read_page_token(token, &hash)?,
        };
        let wanted = usize::try_from(query.page_size.clamp(1, 1_000)).unwrap_or(1);
        let mut found: Vec<WorkspaceFacts> = Vec::new();
        let mut session = self.store.read().await?;
        match &caller.workspaces {
            WorkspaceSet::Named(named) => {
                for id in named.iter().filter(|id| id.as_str() > after.as_str()) {
                    found.extend(session.workspace(id).await?);
                    if found.len() > wanted {
                        break;
                    }
                }
            }
            WorkspaceSet::All => {
                let limit = i64::try_from(wanted).unwrap_or(1) + 1;
                found = session.workspaces_after(&after, limit).await?;
            }
        }
        drop(session);
        let more = found.len() > wanted;
        found.truncate(wanted);
        let next_page_token = match found.last() {
            Some(last) if more => {
                after = last.id.to_string();
                self.write_page_token(&after, &hash)?
            }
            _ => String::new(),
        };
        Ok(WorkspacePage { workspaces: found, next_page_token })
    }
}

async fn keep_ledger(store: &Store, folder: &Path) -> Result<(), String> {
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
    // A line that a crash cut short is left as it is; the next one begins a line of its own.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_outcome_keeps_its_bytes() {
        let (outcome, stored) = (ShreddedBefore { connections: 3 }, r#"{"connections":"3"}"#);
        assert_eq!(serde_json::to_string(&outcome).unwrap(), stored);
        assert_eq!(serde_json::from_str::<ShreddedBefore>(stored).unwrap(), outcome);
    }
}
