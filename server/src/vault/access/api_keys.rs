//! Creating, listing and revoking API keys.

use serde::{Deserialize, Serialize};

use crate::crypto::PresentedKey;
use crate::model::{
    ApiKeyId, Principal, RequestId, Role, Secret, Timestamp, WorkspaceSet, check_principal_name,
};
use crate::oidc::NAME_PREFIX;
use crate::store::{Abort, ApiKeyFacts, ApiKeyRecord};
use crate::vault::access::api_key_row::row_mac;
use crate::vault::error::{FieldViolation, VaultError};
use crate::vault::once::idempotency::{NoOutcome, RequestClaim};
use crate::vault::paging::{Filling, full};
use crate::vault::position::NextPage;
use crate::vault::state::Vault;

#[derive(Debug)]
pub struct CreateApiKey {
    pub request_id: Option<RequestId>,
    /// Stable name of the service that will use the key.
    pub principal: String,
    pub role: Role,
    pub workspaces: WorkspaceSet,
    /// `None`: the key never expires.
    pub expires_at: Option<Timestamp>,
}

#[derive(Debug)]
pub struct NewApiKey {
    pub api_key: ApiKeyFacts,
    /// The key itself. Only the first response holds it; a repeated request gets only the facts.
    pub key: Option<Secret>,
}

#[derive(Debug, Clone, Default)]
pub struct ListApiKeys {
    /// Keys of this principal only.
    pub principal: Option<String>,
    /// 1 to 1000.
    pub page_size: u32,
    /// Empty for the first page.
    pub page_token: String,
}

/// The stored outcome of a request that made an API key. Its field names never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MadeApiKey {
    pub(super) api_key: ApiKeyId,
}

impl Vault {
    /// # Errors
    /// `Fields`; `RequestIdReused`, `RequestInProgress`.
    pub async fn create_api_key(
        &self,
        caller: &Principal,
        command: CreateApiKey,
    ) -> Result<NewApiKey, VaultError> {
        self.check_new_key(&command)?;
        check_reach(caller, &command.workspaces)?;
        self.check_principal_is_reachable(caller, &command.principal).await?;
        let workspaces = format!("{:?}", command.workspaces);
        let parts: [&[u8]; 4] = [
            command.principal.as_bytes(),
            command.role.as_str().as_bytes(),
            workspaces.as_bytes(),
            &command.expires_at.map_or(0, Timestamp::as_micros).to_be_bytes(),
        ];
        let request = self.request("CreateApiKey", command.request_id.as_ref(), &parts);
        let work = async |claim: RequestClaim| {
            let (key, record) = self.mint(&command)?;
            let api_key = record.api_key.clone();
            let now = self.clock.now();
            self.store
                .write(move |tx| {
                    let (record, claim) = (record.clone(), claim.clone());
                    Box::pin(async move {
                        tx.insert_api_key(&record).await?;
                        tx.audit_api_key(&record.api_key, now);
                        claim.finish(tx, &MadeApiKey { api_key: record.api_key.id.clone() }).await
                    })
                })
                .await?;
            tracing::info!(api_key = %api_key.id, principal = api_key.principal, role = api_key.role.as_str(), by = caller.name, "API key created");
            // The response shows the key, only this once, so the audit log must hold its record first.
            self.wait_until_recorded().await?;
            Ok(NewApiKey { api_key, key: Some(key) })
        };
        let repeat = async |made: MadeApiKey| {
            let api_key = self.reachable_key(caller, &made.api_key).await?.api_key;
            Ok(NewApiKey { api_key, key: None })
        };
        self.once(caller, request, work, repeat).await
    }

    /// Subscriptions and requests belong to a principal's name, so an admin of some workspaces must not make keys for a
    /// principal that reaches further.
    pub(super) async fn check_principal_is_reachable(
        &self,
        caller: &Principal,
        principal: &str,
    ) -> Result<(), VaultError> {
        let known = self.store.read().await?.api_keys(principal, "", 1_000).await?;
        let mut certified = self.access.certificates.iter().filter(|rule| rule.principal == principal);
        if known.iter().all(|record| caller.workspaces.covers(&record.api_key.workspaces))
            && certified.all(|rule| caller.workspaces.covers(&rule.workspaces))
        {
            return Ok(());
        }
        let rule = "is the name of a principal that reaches further than the caller; choose another";
        Err(VaultError::Fields(vec![FieldViolation::new("principal", rule)]))
    }

    /// Creates an API key without a caller, for the offline command.
    pub(in crate::vault) async fn create_api_key_for_operator(
        &self,
        command: &CreateApiKey,
    ) -> Result<NewApiKey, VaultError> {
        self.check_new_key(command)?;
        let (key, record) = self.mint(command)?;
        let api_key = record.api_key.clone();
        self.store
            .write(move |tx| {
                let record = record.clone();
                Box::pin(async move {
                    tx.audit_api_key(&record.api_key, record.api_key.created_at);
                    Ok::<_, Abort<VaultError>>(tx.insert_api_key(&record).await?)
                })
            })
            .await?;
        tracing::info!(api_key = %api_key.id, principal = api_key.principal, role = api_key.role.as_str(), "API key created offline");
        Ok(NewApiKey { api_key, key: Some(key) })
    }

    fn check_new_key(&self, command: &CreateApiKey) -> Result<(), VaultError> {
        let mut violations = Vec::new();
        if let Err(bad) = check_principal_name(&command.principal) {
            violations.push(FieldViolation::new("principal", bad));
        }
        if command.principal.starts_with(NAME_PREFIX) {
            let rule = "must not begin with oidc: — such names are of callers with tokens";
            violations.push(FieldViolation::new("principal", rule));
        }
        if matches!(&command.workspaces, WorkspaceSet::Named(names) if names.is_empty()) {
            violations.push(FieldViolation::new(
                "workspaces",
                "must name at least one workspace, or say all_workspaces",
            ));
        }
        if command.expires_at.is_some_and(|end| end <= self.clock.now()) {
            violations.push(FieldViolation::new("expires_at", "must be in the future"));
        }
        if violations.is_empty() { Ok(()) } else { Err(VaultError::Fields(violations)) }
    }

    pub(super) fn mint(&self, command: &CreateApiKey) -> Result<(Secret, ApiKeyRecord), VaultError> {
        let (key, presented) = PresentedKey::mint().map_err(|_| VaultError::Internal)?;
        let api_key = ApiKeyFacts {
            id: presented.id.clone(),
            principal: command.principal.clone(),
            role: command.role,
            workspaces: command.workspaces.clone(),
            created_at: self.clock.now(),
            expires_at: command.expires_at,
            last_used_at: None,
            revoked_at: None,
            replaced_by: None,
        };
        let mac = row_mac(&self.keys.authorization, &api_key, &presented.hash()).to_vec();
        Ok((key, ApiKeyRecord { api_key, hash: presented.hash(), mac }))
    }

    /// Offers the keys of one page, by id, to `take`, which returns false for one that does not fit any more.
    ///
    /// # Errors
    /// `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_api_keys(
        &self,
        caller: &Principal,
        query: ListApiKeys,
        mut take: impl FnMut(ApiKeyFacts) -> bool + Send,
    ) -> Result<NextPage, VaultError> {
        let principal = query.principal.unwrap_or_default();
        let fingerprint = self.query_hash(caller, "ListApiKeys", &[principal.as_bytes()]);
        let mut after = match query.page_token.as_str() {
            "" => String::new(),
            token => self.read_page_token(token, &fingerprint)?,
        };
        let mut session = self.store.read().await?;
        let mut filling = Filling::of(query.page_size);
        'page: while let Some(rows) = filling.next() {
            let found = session.api_keys(&principal, &after, rows).await?;
            filling.read(found.iter().map(|record| about_bytes(&record.api_key)), full(found.len(), rows));
            for ApiKeyRecord { api_key, .. } in found {
                let id = api_key.id.as_str().to_owned();
                if caller.workspaces.covers(&api_key.workspaces) && !filling.offer(|| take(api_key)) {
                    break 'page;
                }
                after = id;
            }
        }
        self.next_page(&filling, &after, &fingerprint)
    }

    /// Revokes a key. It stops working on every replica within a second. Revoking it twice is no error.
    ///
    /// # Errors
    /// `ApiKeyNotFound`.
    pub async fn revoke_api_key(
        &self,
        caller: &Principal,
        request_id: Option<RequestId>,
        key: &ApiKeyId,
    ) -> Result<ApiKeyFacts, VaultError> {
        let request = self.request("RevokeApiKey", request_id.as_ref(), &[key.as_str().as_bytes()]);
        // Revoking twice is the same as revoking once, so a repeat does it again.
        let repeat = async |NoOutcome {}| self.revoke_key(caller, key, RequestClaim::default()).await;
        self.once(caller, request, async |claim| self.revoke_key(caller, key, claim).await, repeat).await
    }

    async fn revoke_key(
        &self,
        caller: &Principal,
        key: &ApiKeyId,
        claim: RequestClaim,
    ) -> Result<ApiKeyFacts, VaultError> {
        let (id, now, authorization) = (key.clone(), self.clock.now(), self.keys.authorization.clone());
        let reach = caller.workspaces.clone();
        let api_key = self
            .store
            .write(move |tx| {
                let (id, authorization, claim) = (id.clone(), authorization.clone(), claim.clone());
                let reach = reach.clone();
                Box::pin(async move {
                    // Hide a key that reaches further than the caller, as if it did not exist.
                    let known =
                        tx.lock_api_key(&id).await?.filter(|record| reach.covers(&record.api_key.workspaces));
                    let Some(mut record) = known else {
                        return Err(Abort::Work(VaultError::ApiKeyNotFound(id)));
                    };
                    if record.api_key.revoked_at.is_none() {
                        record.api_key.revoked_at = Some(now);
                        let mac = row_mac(&authorization, &record.api_key, &record.hash);
                        tx.mark_api_key_revoked(&id, now, mac.to_vec()).await?;
                    }
                    tx.audit_api_key(&record.api_key, now);
                    claim.finish(tx, &NoOutcome {}).await?;
                    Ok(record.api_key)
                })
            })
            .await?;
        tracing::info!(api_key = %api_key.id, principal = api_key.principal, by = caller.name, "API key revoked");
        Ok(api_key)
    }
}

fn about_bytes(key: &ApiKeyFacts) -> usize {
    let named = match &key.workspaces {
        WorkspaceSet::All => 0,
        WorkspaceSet::Named(named) => named.iter().map(|id| id.as_str().len() + 24).sum(),
    };
    512 + named
}

/// An admin of some workspaces may create keys for those only.
fn check_reach(caller: &Principal, wanted: &WorkspaceSet) -> Result<(), VaultError> {
    match (&caller.workspaces, wanted) {
        (WorkspaceSet::All, _) => Ok(()),
        (WorkspaceSet::Named(_), WorkspaceSet::All) => {
            let rule = "must be unset: the caller's own key names its workspaces";
            Err(VaultError::Fields(vec![FieldViolation::new("all_workspaces", rule)]))
        }
        (WorkspaceSet::Named(ours), WorkspaceSet::Named(theirs)) => match theirs.difference(ours).next() {
            Some(other) => Err(VaultError::WorkspaceNotFound(other.clone())),
            None => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_outcome_keeps_its_bytes() {
        let outcome = MadeApiKey { api_key: ApiKeyId::parse("abcdefgh234567ab").unwrap() };
        let stored = r#"{"api_key":"abcdefgh234567ab"}"#;
        assert_eq!(serde_json::to_string(&outcome).unwrap(), stored);
        assert_eq!(serde_json::from_str::<MadeApiKey>(stored).unwrap(), outcome);
    }
}
