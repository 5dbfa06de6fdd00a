//! A person's request to delete their data, as the provider passes it on: taken in once, and carried out by a job.

use uuid::Uuid;

use super::report::{CallbackOutcome, DeletionState};
use crate::model::{Principal, ProviderId, Timestamp};
use crate::provider::{HttpAnswer, Provider};
use crate::store::{Abort, DataDeletion, Needs};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

/// The longest code that is looked for. Ours have 32 characters.
const LONGEST_CODE: usize = 64;

impl Vault {
    /// Notes which connections are to be ended. The same request again changes nothing, however late: who connects
    /// anew once it is carried out keeps that connection.
    pub(super) async fn take_in_deletion(
        &self,
        caller: &Principal,
        provider: &dyn Provider,
        subject_id: &str,
        issued_at: Timestamp,
    ) -> Result<CallbackOutcome, VaultError> {
        let (id, app_id, now) = (provider.id().clone(), provider.app_id().to_owned(), self.clock.now());
        let places = self.store.read().await?.connections_of_subject(&id, &app_id, subject_id).await?;
        let connections =
            places.iter().filter(|(_, workspace)| caller.workspaces.contains(workspace)).count();
        let parts: [&[u8]; 4] = [
            id.as_str().as_bytes(),
            app_id.as_bytes(),
            subject_id.as_bytes(),
            &issued_at.as_micros().to_be_bytes(),
        ];
        let deletion = DataDeletion {
            code: Uuid::new_v4().simple().to_string(),
            provider: id.clone(),
            hash: self.keys.index.mac("data-deletion", &parts).to_vec(),
            requested_at: now,
        };
        self.may_change()?;
        let (unit, subject_id) = (deletion, subject_id.to_owned());
        let ((code, is_new), _) = self
            .store
            .write_with(Needs { alone: true, ..Needs::default() }, move |tx| {
                let (deletion, app_id, subject_id) = (unit.clone(), app_id.clone(), subject_id.clone());
                Box::pin(async move {
                    let (code, is_new) = tx.insert_deletion(&deletion, &app_id, &subject_id).await?;
                    if is_new {
                        // Who has no connection is done at once.
                        tx.note_deleted(&code, &[], now).await?;
                        tx.audit_object(format!("data_deletion:{code}"), now);
                    }
                    Ok::<_, Abort<VaultError>>((code, is_new))
                })
            })
            .await?;
        tracing::info!(provider = %id, code, is_new, "a person's request to delete their data was received");
        let answer = provider.deletion_answer(&code).ok_or(VaultError::Internal)?;
        let deletion = self.state_of_deletion(&id, &code).await?;
        Ok(CallbackOutcome { connections, answer, deletion })
    }

    /// Says what became of a request, and nothing else. A code that never was is as one that is forgotten.
    pub(super) async fn deletion_state(
        &self,
        provider: &ProviderId,
        code: &str,
    ) -> Result<CallbackOutcome, VaultError> {
        let deletion = if code.len() > LONGEST_CODE || code.contains('\0') {
            None
        } else {
            self.state_of_deletion(provider, code).await?
        };
        let answer = match deletion {
            None => HttpAnswer::text(404, "There is no request with this code.\n"),
            Some(DeletionState::Received) => {
                HttpAnswer::text(200, "Your request was received. Your data is being deleted.\n")
            }
            Some(DeletionState::Done) => HttpAnswer::text(200, "Done. Your data is deleted.\n"),
        };
        Ok(CallbackOutcome { connections: 0, answer, deletion })
    }

    async fn state_of_deletion(
        &self,
        provider: &ProviderId,
        code: &str,
    ) -> Result<Option<DeletionState>, VaultError> {
        let done = self.store.read().await?.is_deletion_done(provider, code).await?;
        Ok(done.map(|done| if done { DeletionState::Done } else { DeletionState::Received }))
    }
}
