//! ShredWorkspace: destroys a workspace's keys in one transaction. Nothing that they encrypt can be read any more,
//! neither in the database nor in any copy that lacks the master key. The job `shredding` then ends the connections.

use std::sync::Arc;

use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::model::{ConnectionId, Principal, RefusalKind, RequestId, Standing, WorkspaceId};
use crate::store::{Abort, Needs, RunCause, Shredding, WorkspaceFacts};
use crate::vault::error::{FieldViolation, VaultError};
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;
use crate::vault::state::work::Turn;
use crate::vault::timetable::JobKind;

/// Connections that are read at once.
const PAGE: i64 = 100;
/// Tokens that are revoked at the provider at once.
const AT_PROVIDER_AT_ONCE: usize = 4;

#[derive(Debug, Clone)]
pub struct ShredWorkspace {
    pub request_id: Option<RequestId>,
    pub workspace: WorkspaceId,
    /// Must repeat `workspace`.
    pub confirm: String,
    /// Revoke the workspace's tokens at the provider first.
    pub revoke_at_provider: bool,
}

#[derive(Debug, Clone)]
pub struct Shredded {
    pub workspace: WorkspaceFacts,
    /// How many of its connections had not ended before.
    pub connections: i64,
    /// How many of those were not revoked at the provider, for the sake of other workspaces.
    pub spared: i64,
}

/// The stored outcome of a request. Its field names, and the number as text, never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct ShreddedBefore {
    #[serde(with = "number_as_text")]
    connections: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    spared: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &i64) -> bool {
    *number == 0
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
    /// Destroys a workspace's keys. Shredding it again changes nothing and succeeds.
    ///
    /// # Errors
    /// `WorkspaceNotFound`; `Fields` if the confirmation differs; `ProviderUnavailable` if tokens are to be revoked at
    /// the provider, and it can't be asked: nothing has changed then.
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
        let line = self.work.line(Turn::Shredding, &id);
        self.work
            .in_turn(line, async move {
                let parts: [&[u8]; 2] = [id.as_str().as_bytes(), &[u8::from(command.revoke_at_provider)]];
                let request = vault.request("ShredWorkspace", command.request_id.as_ref(), &parts);
                let work = async |claim| vault.shred(&caller, &command, claim).await;
                let repeat = async |done: ShreddedBefore| Ok(done);
                let done = vault.once(&caller, request, work, repeat).await?;
                let ShreddedBefore { connections, spared } = done;
                Ok(Shredded { workspace: vault.known_workspace(&id).await?, connections, spared })
            })
            .await
    }

    async fn shred(
        self: &Arc<Self>,
        caller: &Principal,
        command: &ShredWorkspace,
        claim: RequestClaim,
    ) -> Result<ShreddedBefore, VaultError> {
        let before = self.known_workspace(&command.workspace).await?;
        let revoke = command.revoke_at_provider && before.shredded_at.is_none();
        let spared = if revoke {
            // However many tokens there are: a repeat would have to begin with the first again.
            self.work.to_the_end(self.revoke_all_at_provider(&command.workspace)).await?
        } else {
            0
        };
        let now = self.clock.now();
        let entry = Shredding { workspace: command.workspace.clone(), at: now, by: caller.name.clone() };
        let run = self.new_run(JobKind::Shredding, now, RunCause::Request);
        let (unit, unit_run) = (entry.clone(), run.clone());
        let done = ShreddedBefore { connections: before.tokens, spared };
        // The job is in flight before its run is written: a run without a task would look abandoned.
        let in_flight = self.jobs.runs.enter(JobKind::Shredding.as_str());
        let free = in_flight.is_some();
        let begun = self
            .store
            .write_with(Needs { alone: true, ..Needs::default() }, move |tx| {
                let (entry, run, claim) = (unit.clone(), unit_run.clone(), claim.clone());
                Box::pin(async move {
                    let begun = match tx.lock_workspace(&entry.workspace).await? {
                        None => return Err(Abort::Work(VaultError::WorkspaceNotFound(entry.workspace))),
                        Some(true) => false,
                        Some(false) => {
                            tx.shred_workspace(&entry).await?;
                            tx.audit_object(format!("workspace:{}", entry.workspace), entry.at);
                            free && tx.begin_run(&run, RunCause::Request).await?
                        }
                    };
                    claim.finish(tx, &done).await?;
                    Ok(begun)
                })
            })
            .await?
            .0;
        tracing::warn!(workspace = %entry.workspace, by = entry.by, connections = done.connections, spared, "workspace shredded: its keys are destroyed");
        // After the commit, errors are only logged: the job does both again.
        self.update_shred_ledger().await;
        if let Err(error) = self.store.scrub().await {
            tracing::warn!(%error, "the database's log still holds what was deleted; it is truncated again later");
        }
        if let (true, Some(in_flight)) = (begun, in_flight) {
            self.spawn_run(JobKind::Shredding, run, in_flight);
        }
        Ok(done)
    }

    /// Revokes every token of a workspace at the provider, except those whose end would end connections of other
    /// workspaces; returns how many these are. A token that the provider does not revoke is passed over: its secret is
    /// destroyed here all the same.
    async fn revoke_all_at_provider(self: &Arc<Self>, workspace: &WorkspaceId) -> Result<i64, VaultError> {
        let mut after: Option<ConnectionId> = None;
        let mut spared = 0;
        loop {
            let page = self.store.read().await?.connections_of_workspace(workspace, after, PAGE).await?;
            let Some(last) = page.last().copied() else { return Ok(spared) };
            after = Some(last);
            let mut ended = futures::stream::iter(page)
                .map(|id| {
                    let vault = Arc::clone(self);
                    async move { vault.revoke_one_at_provider(id).await }
                })
                .buffer_unordered(AT_PROVIDER_AT_ONCE);
            while let Some(outcome) = ended.next().await {
                spared += i64::from(outcome? == AtProvider::Spared);
            }
        }
    }

    async fn revoke_one_at_provider(&self, id: ConnectionId) -> Result<AtProvider, VaultError> {
        let Some(held) = self.store.held_token(id).await? else { return Ok(AtProvider::Done) };
        let connection = &held.connection;
        if held.sealed.is_none() || connection.standing != Standing::Live {
            return Ok(AtProvider::Done);
        }
        if self.store.read().await?.shared_outside(connection).await? > 0 {
            tracing::info!(connection = %id, "the token is not revoked at the provider: other workspaces share it");
            return Ok(AtProvider::Spared);
        }
        let Ok(provider) = self.provider_of(connection) else { return Ok(AtProvider::Done) };
        let Ok(secret) = self.open_secret(&held).await else { return Ok(AtProvider::Done) };
        match provider.revoke(&secret, &connection.subject, connection.facts.kind).await {
            Ok(_) => {
                // Another workspace may have connected the same person meanwhile.
                if self.store.read().await?.shared_outside(connection).await? > 0 {
                    self.examine_grant(connection).await?;
                }
                Ok(AtProvider::Done)
            }
            Err(refusal) => match refusal.kind {
                RefusalKind::Transient { .. }
                | RefusalKind::Throttled { .. }
                | RefusalKind::Ours(_)
                | RefusalKind::OutOfTime => Err(VaultError::from_provider_trouble(&refusal, provider.id())),
                _ => {
                    tracing::warn!(connection = %id, "the provider does not revoke the token; its secret is destroyed here");
                    Ok(AtProvider::Done)
                }
            },
        }
    }
}

/// What became of one token at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtProvider {
    /// It ended there, or there was nothing to end.
    Done,
    /// It lives on, for the sake of other workspaces.
    Spared,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_outcome_keeps_its_bytes() {
        for (spared, stored) in [(0, r#"{"connections":"3"}"#), (2, r#"{"connections":"3","spared":2}"#)] {
            let outcome = ShreddedBefore { connections: 3, spared };
            assert_eq!(serde_json::to_string(&outcome).unwrap(), stored);
            assert_eq!(serde_json::from_str::<ShreddedBefore>(stored).unwrap(), outcome);
        }
    }
}
