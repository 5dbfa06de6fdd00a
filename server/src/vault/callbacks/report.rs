//! Acts on a provider's callback. It is a hint: whoever has seen one can send it again, and the provider may be wrong. So
//! it makes connections due for validation, and only what the provider then says about a token is told.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{ConnectionId, Principal, ProviderId, Timestamp, WorkspaceId};
use crate::provider::{
    CallbackFault, CallbackHint, CallbackKind, CallbackMeaning, HintedAt, HttpAnswer, Provider,
    ProviderCallback,
};
use crate::store::{Abort, Needs};
use crate::vault::error::{FieldViolation, VaultError};
use crate::vault::state::Vault;

/// How long after its callback a change may show at the provider, and how far the clocks may differ: who was validated
/// later than this knows of it.
const SETTLES: Duration = Duration::from_secs(30);
/// What is not about grants, or names no time, comes often: who was validated this short a time before it waits for the
/// daily look, so such callbacks can't use up a token's calls.
const FRESH: Duration = Duration::from_secs(15 * 60);
/// Connections that are made due in one transaction.
const MADE_DUE_AT_ONCE: usize = 200;

#[derive(Debug)]
pub struct ReportProviderCallback {
    pub provider: ProviderId,
    pub callback: ProviderCallback,
}

/// What became of a request to delete a person's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletionState {
    Received,
    /// The connections have ended, and the person is erased.
    Done,
}

#[derive(Debug)]
pub struct CallbackOutcome {
    /// How many connections it is about, of those that the caller may see.
    pub connections: usize,
    pub answer: HttpAnswer,
    pub deletion: Option<DeletionState>,
}

impl Vault {
    /// Verifies a callback, and does what it asks for. It concerns every workspace: the provider knows none.
    ///
    /// # Errors
    /// `ProviderUnknown`; `CallbackNotSigned`; `Fields` if it can't be read, or is too old; `DeletionPageNotConfigured`:
    /// nothing has changed then.
    pub async fn report_provider_callback(
        &self,
        caller: &Principal,
        command: ReportProviderCallback,
    ) -> Result<CallbackOutcome, VaultError> {
        let ReportProviderCallback { provider: id, callback } = command;
        let provider = self.provider(&id)?;
        let meaning = provider.read_provider_callback(&callback).map_err(|fault| match fault {
            CallbackFault::Signature => VaultError::CallbackNotSigned { provider: id.clone() },
            CallbackFault::Field { field, rule } => {
                VaultError::Fields(vec![FieldViolation::new(field, rule)])
            }
            CallbackFault::NoDeletionPage { keys } => VaultError::DeletionPageNotConfigured { keys },
        })?;
        match meaning {
            CallbackMeaning::Answer(answer) => Ok(CallbackOutcome { connections: 0, answer, deletion: None }),
            CallbackMeaning::Hints(hints) => {
                let connections = self.follow(caller, &*provider, callback.kind, hints).await?;
                Ok(CallbackOutcome { connections, answer: HttpAnswer::text(200, ""), deletion: None })
            }
            CallbackMeaning::Deletion { subject_id, issued_at } => {
                self.take_in_deletion(caller, &*provider, &subject_id, issued_at).await
            }
            CallbackMeaning::DeletionState { code } => self.deletion_state(&id, &code).await,
        }
    }

    /// Makes the connections due that the hints name. Returns how many the caller may see.
    async fn follow(
        &self,
        caller: &Principal,
        provider: &dyn Provider,
        kind: CallbackKind,
        hints: Vec<CallbackHint>,
    ) -> Result<usize, VaultError> {
        let (id, app_id, now) = (provider.id(), provider.app_id(), self.clock.now());
        let mut found: BTreeMap<ConnectionId, (WorkspaceId, Timestamp)> = BTreeMap::new();
        let mut session = self.store.read().await?;
        for CallbackHint { about, of_grants, at } in hints {
            // The provider's clock may be wrong; ours decides what is later than now.
            let since = match at {
                Some(at) if of_grants => at.min(now) + SETTLES,
                at => at.map_or(now, |at| at.min(now)) - FRESH,
            };
            let places = match &about {
                HintedAt::Subject(subject) => session.connections_of_subject(id, app_id, subject).await?,
                HintedAt::AdAccount(account) => {
                    session.connections_of_ad_account(id, app_id, account).await?
                }
            };
            for (connection, workspace) in places {
                let known = found.entry(connection).or_insert((workspace, since));
                known.1 = known.1.max(since);
            }
        }
        drop(session);
        let seen = found.values().filter(|(workspace, _)| caller.workspaces.contains(workspace)).count();
        let all: Vec<_> = found.into_iter().map(|(connection, (_, since))| (connection, since)).collect();
        let mut made = 0;
        for some in all.chunks(MADE_DUE_AT_ONCE) {
            self.may_change()?;
            made += self.make_all_of_these_due(some.to_vec(), kind, made == 0, now).await?;
        }
        let kind = name(kind);
        tracing::info!(kind, provider = %id, connections = all.len(), due = made, "a provider's callback was received");
        Ok(seen)
    }

    /// `told`: whether to record it.
    async fn make_all_of_these_due(
        &self,
        connections: Vec<(ConnectionId, Timestamp)>,
        kind: CallbackKind,
        told: bool,
        now: Timestamp,
    ) -> Result<usize, VaultError> {
        let ids = connections.iter().map(|(id, _)| *id).collect();
        let (made, _) = self
            .store
            .write_with(Needs { connections: ids, alone: true }, move |tx| {
                let connections = connections.clone();
                Box::pin(async move {
                    let mut made = 0;
                    for (id, since) in connections {
                        made += usize::from(tx.make_connection_due(id, since, now).await?);
                    }
                    if made > 0 && told {
                        tx.audit_object(format!("callback:{}", name(kind)), now);
                    }
                    Ok::<_, Abort<VaultError>>(made)
                })
            })
            .await?;
        Ok(made)
    }
}

const fn name(kind: CallbackKind) -> &'static str {
    match kind {
        CallbackKind::Deauthorize => "deauthorize",
        CallbackKind::DataDeletion => "data_deletion",
        CallbackKind::Webhook => "webhook",
    }
}
