//! RotateApiKey: replaces a key by a new one. Both work for a while.

use std::time::Duration;

use crate::model::{ApiKeyId, Principal, RequestId, Secret, Timestamp};
use crate::store::{Abort, ApiKeyFacts, ApiKeyRecord};
use crate::vault::access::api_key_row::row_mac;
use crate::vault::access::api_keys::{CreateApiKey, MadeApiKey, NewApiKey};
use crate::vault::error::{FieldViolation, VaultError};
use crate::vault::once::idempotency::RequestClaim;
use crate::vault::state::Vault;

/// How long a replaced key keeps working, unless the admin says otherwise.
const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);
const LONGEST_OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[derive(Debug)]
pub struct RotateApiKey {
    pub request_id: Option<RequestId>,
    /// The key to replace.
    pub key: ApiKeyId,
    /// How long the replaced key keeps working; `None`: a day.
    pub overlap: Option<Duration>,
    /// When the new key expires. `None`: it gets the same lifetime as the replaced key.
    pub expires_at: Option<Timestamp>,
}

#[derive(Debug)]
pub struct RotatedApiKey {
    pub new: NewApiKey,
    pub replaced: ApiKeyFacts,
}

impl Vault {
    /// Creates a key that replaces another one, with the same principal, role and workspaces. The replaced key keeps
    /// working for the overlap, but never past its own end.
    ///
    /// # Errors
    /// `Fields`; `ApiKeyNotFound`, `ApiKeyNotRotatable`; `RequestIdReused`, `RequestInProgress`.
    pub async fn rotate_api_key(
        &self,
        caller: &Principal,
        command: RotateApiKey,
    ) -> Result<RotatedApiKey, VaultError> {
        let now = self.clock.now();
        let overlap = command.overlap.unwrap_or(OVERLAP);
        let mut violations = Vec::new();
        if overlap > LONGEST_OVERLAP {
            violations.push(FieldViolation::new("overlap", "must be at most 30 days"));
        }
        if command.expires_at.is_some_and(|end| end <= now) {
            violations.push(FieldViolation::new("expires_at", "must be in the future"));
        }
        if !violations.is_empty() {
            return Err(VaultError::Fields(violations));
        }
        let old = self.reachable_key(caller, &command.key).await?;
        let parts: [&[u8]; 3] = [
            command.key.as_str().as_bytes(),
            &overlap.as_nanos().to_be_bytes(),
            &command.expires_at.map_or(0, Timestamp::as_micros).to_be_bytes(),
        ];
        let request = self.request("RotateApiKey", command.request_id.as_ref(), &parts);
        let work = async |claim| {
            let (key, record, replaced) =
                self.replace_api_key(caller, &command, &old, now + overlap, claim).await?;
            tracing::info!(api_key = %record.id, replaces = %replaced.id, principal = record.principal, by = caller.name, "API key rotated");
            // The response shows the key, only this once, so the audit log must hold its record first.
            self.wait_until_recorded().await?;
            Ok(RotatedApiKey { new: NewApiKey { api_key: record, key: Some(key) }, replaced })
        };
        let repeat = async |made: MadeApiKey| {
            let api_key = self.reachable_key(caller, &made.api_key).await?.api_key;
            let replaced = self.reachable_key(caller, &command.key).await?.api_key;
            Ok(RotatedApiKey { new: NewApiKey { api_key, key: None }, replaced })
        };
        self.once(caller, request, work, repeat).await
    }

    /// The key of that id, if the caller reaches all of its workspaces.
    pub(super) async fn reachable_key(
        &self,
        caller: &Principal,
        id: &ApiKeyId,
    ) -> Result<ApiKeyRecord, VaultError> {
        let record = self.store.read().await?.api_key(id).await?;
        record
            .filter(|record| caller.workspaces.covers(&record.api_key.workspaces))
            .ok_or_else(|| VaultError::ApiKeyNotFound(id.clone()))
    }

    /// Writes the key that replaces `old`, which then ends at `end` at the latest.
    async fn replace_api_key(
        &self,
        caller: &Principal,
        command: &RotateApiKey,
        old: &ApiKeyRecord,
        end: Timestamp,
        claim: RequestClaim,
    ) -> Result<(Secret, ApiKeyFacts, ApiKeyFacts), VaultError> {
        let now = self.clock.now();
        // A row that was altered outside the vault is not rotated.
        self.check_row(old).map_err(|_| VaultError::ApiKeyNotFound(old.api_key.id.clone()))?;
        check_rotatable(&old.api_key, now)?;
        self.check_principal_is_reachable(caller, &old.api_key.principal).await?;
        let life = old.api_key.expires_at.map(|end| end.since(old.api_key.created_at));
        let (key, record) = self.mint(&CreateApiKey {
            request_id: None,
            principal: old.api_key.principal.clone(),
            role: old.api_key.role,
            workspaces: old.api_key.workspaces.clone(),
            expires_at: command.expires_at.or_else(|| life.map(|life| now + life)),
        })?;
        let new = record.api_key.clone();
        let (id, authorization) = (old.api_key.id.clone(), self.keys.authorization.clone());
        let replaced = self
            .store
            .write(move |tx| {
                let (id, record, authorization) = (id.clone(), record.clone(), authorization.clone());
                let claim = claim.clone();
                Box::pin(async move {
                    // Read and check the row again under the lock: only a row that the vault wrote gets a new MAC.
                    let known = tx.lock_api_key(&id).await?;
                    let own = |key: &ApiKeyRecord| {
                        row_mac(&authorization, &key.api_key, &key.hash).as_slice() == key.mac
                    };
                    let Some(mut old) = known.filter(own) else {
                        return Err(Abort::Work(VaultError::ApiKeyNotFound(id)));
                    };
                    // Another rotation or a revocation may have come first.
                    check_rotatable(&old.api_key, now).map_err(Abort::Work)?;
                    let end = old.api_key.expires_at.map_or(end, |own| own.min(end));
                    old.api_key.expires_at = Some(end);
                    old.api_key.replaced_by = Some(record.api_key.id.clone());
                    let mac = row_mac(&authorization, &old.api_key, &old.hash).to_vec();
                    tx.insert_api_key(&record).await?;
                    tx.mark_api_key_replaced(&id, &record.api_key.id, end, mac).await?;
                    tx.audit_api_key(&old.api_key, now);
                    tx.audit_api_key(&record.api_key, now);
                    claim.finish(tx, &MadeApiKey { api_key: record.api_key.id.clone() }).await?;
                    Ok(old.api_key)
                })
            })
            .await?;
        Ok((key, new, replaced))
    }
}

/// Only a key that works, and that was not replaced yet, can be rotated.
fn check_rotatable(key: &ApiKeyFacts, now: Timestamp) -> Result<(), VaultError> {
    let state = if key.revoked_at.is_some() {
        "REVOKED"
    } else if key.replaced_by.is_some() {
        "REPLACED"
    } else if key.expires_at.is_some_and(|end| end <= now) {
        "EXPIRED"
    } else {
        return Ok(());
    };
    Err(VaultError::ApiKeyNotRotatable { key: key.id.clone(), state, replaced_by: key.replaced_by.clone() })
}
