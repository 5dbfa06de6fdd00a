//! Callers: who holds which API key, and what a key is worth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::crypto::{MacKey, PresentedKey, mint_api_key};
use crate::model::{
    ApiKeyId, CertificateRule, ClientCertificate, Clock, Credential, Principal, RequestId, Role, Secret,
    Timestamp, WorkspaceSet, check_principal_name,
};
use crate::oidc::{Issuer, NAME_PREFIX, Rejected};
use crate::store::{Abort, ApiKeyFacts, ApiKeyRecord};
use crate::vault::error::{FieldViolation, VaultError};
use crate::vault::once::idempotency::{NoOutcome, RequestClaim};
use crate::vault::state::Vault;

/// Makes an API key.
#[derive(Debug)]
pub struct CreateApiKey {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// Stable name of the service that will use it.
    pub principal: String,
    /// What it is for.
    pub role: Role,
    /// Where it may act.
    pub workspaces: WorkspaceSet,
    /// Its end; `None` for none.
    pub expires_at: Option<Timestamp>,
}

/// A new key. The secret is shown this once; a repeat of the request answers without it.
#[derive(Debug)]
pub struct NewApiKey {
    /// What it is.
    pub api_key: ApiKeyFacts,
    /// The key itself, once.
    pub key: Option<Secret>,
}

/// Makes an API key in another's place.
#[derive(Debug)]
pub struct RotateApiKey {
    /// Idempotency key.
    pub request_id: Option<RequestId>,
    /// The key to replace.
    pub key: ApiKeyId,
    /// How long it goes on; `None` for the default.
    pub overlap: Option<Duration>,
    /// The new key's end; `None`: it lives as long as the replaced one was made to live.
    pub expires_at: Option<Timestamp>,
}

/// A key in another's place.
#[derive(Debug)]
pub struct RotatedApiKey {
    /// The new one, shown this once.
    pub new: NewApiKey,
    /// The one that it replaces, as it is now.
    pub replaced: ApiKeyFacts,
}

/// Which keys.
#[derive(Debug, Clone, Default)]
pub struct ListApiKeys {
    /// Of this principal only.
    pub principal: Option<String>,
    /// How many at most; 1 to 1000.
    pub page_size: u32,
    /// Where to go on; empty at the start.
    pub page_token: String,
}

/// One page of keys.
#[derive(Debug)]
pub struct ApiKeyPage {
    /// The keys.
    pub api_keys: Vec<ApiKeyFacts>,
    /// Where the next page starts; empty on the last.
    pub next_page_token: String,
}

/// A key's last use is written at most so often.
const USE_NOTED: Duration = Duration::from_secs(60);
/// How long a replaced key goes on, unless its admin says otherwise.
const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it may.
const LONGEST_OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// When each key's use was last written.
#[derive(Default)]
pub(in crate::vault) struct Uses(Mutex<HashMap<ApiKeyId, Instant>>);

impl Uses {
    fn is_due(&self, id: &ApiKeyId) -> bool {
        let Ok(mut noted) = self.0.lock() else { return false };
        match noted.get_mut(id) {
            Some(at) if at.elapsed() < USE_NOTED => false,
            Some(at) => {
                *at = Instant::now();
                true
            }
            None => {
                noted.insert(id.clone(), Instant::now());
                true
            }
        }
    }
}

/// What binds a key's row: who can write to the database still can't let himself in.
pub(in crate::vault) fn row_mac(authorization: &MacKey, key: &ApiKeyFacts, hash: &[u8]) -> [u8; 32] {
    let workspaces = match &key.workspaces {
        WorkspaceSet::All => "*".to_owned(),
        WorkspaceSet::Named(names) => {
            names.iter().map(|name| format!("={name}")).collect::<Vec<_>>().join("\n")
        }
    };
    let time = |at: Option<Timestamp>| at.map_or(i64::MIN, Timestamp::as_micros).to_be_bytes();
    let (created_at, expires_at, revoked_at) =
        (key.created_at.as_micros().to_be_bytes(), time(key.expires_at), time(key.revoked_at));
    let mut parts = vec![
        key.id.as_str().as_bytes(),
        hash,
        key.principal.as_bytes(),
        key.role.as_str().as_bytes(),
        workspaces.as_bytes(),
        &created_at,
        &expires_at,
        &revoked_at,
    ];
    // Only where there is one: keys from before they could be replaced keep their mac.
    parts.extend(key.replaced_by.iter().map(|by| by.as_str().as_bytes()));
    authorization.mac("api-key", &parts)
}

/// Whether a key can be replaced: one that works, and that nothing replaces yet.
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

/// Nobody gives more than he has: an admin of some workspaces makes keys for those only.
fn may_give(caller: &Principal, wanted: &WorkspaceSet) -> Result<(), VaultError> {
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

/// The principal of a certificate with this name and end.
fn certified(rule: &CertificateRule, not_after: Timestamp) -> Principal {
    Principal {
        name: rule.principal.clone(),
        credential: Credential::Certificate { san: rule.san.clone(), not_after },
        role: rule.role,
        workspaces: rule.workspaces.clone(),
    }
}

/// The stored outcome of a request that made an API key. Its field names never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MadeApiKey {
    api_key: ApiKeyId,
}

impl Vault {
    /// Who presents this key, or this token.
    ///
    /// # Errors
    /// `ApiKeyInvalid` for what is no key of ours or was revoked, `ApiKeyExpired` for one past its end; of tokens
    /// `TokenRejected`, `CallerTokenExpired`, `TokenUnmapped`, `IssuerUnavailable`.
    pub async fn authenticate(&self, key: &Secret) -> Result<Arc<Principal>, VaultError> {
        if let Some(issuer) = self.issuer.as_ref().filter(|_| Issuer::could_be_token(key)) {
            return self.authenticate_token(issuer, key).await;
        }
        let presented = PresentedKey::parse(key).map_err(|_| VaultError::ApiKeyInvalid)?;
        let record = self.store.api_key_record(&presented.id).await?.ok_or(VaultError::ApiKeyInvalid)?;
        if !presented.matches(&record.hash) {
            return Err(VaultError::ApiKeyInvalid);
        }
        self.principal_in(&record).map(Arc::new)
    }

    async fn authenticate_token(
        &self,
        issuer: &Issuer,
        token: &Secret,
    ) -> Result<Arc<Principal>, VaultError> {
        match issuer.identify(token, self.clock.now()).await {
            Ok(principal) => Ok(Arc::new(principal)),
            Err(why) => {
                tracing::info!(%why, "a caller's token is not accepted");
                Err(match why {
                    Rejected::Invalid(_) => VaultError::TokenRejected,
                    Rejected::Expired { at } => VaultError::CallerTokenExpired { at },
                    Rejected::Unmapped(_) => VaultError::TokenUnmapped,
                    Rejected::Unavailable => VaultError::IssuerUnavailable,
                })
            }
        }
    }

    /// Keeps the keys of the issuer fresh until `stop`, if one is configured.
    pub async fn follow_issuer(&self, stop: CancellationToken) {
        if let Some(issuer) = self.issuer.clone() {
            issuer.follow(stop).await;
        }
    }

    /// Whether looking at this costs next to nothing: there is a key of this id, or it is to be judged by its
    /// signature. For telling callers from guessers; it proves nothing.
    pub fn is_cheap_to_judge(&self, key: &Secret) -> bool {
        if self.issuer.is_some() && Issuer::could_be_token(key) {
            return true;
        }
        PresentedKey::parse(key).is_ok_and(|presented| self.store.knows_api_key(&presented.id))
    }

    /// Who comes with this certificate, whose chain the transport has verified.
    ///
    /// # Errors
    /// `CertificateUnknown` when it has no name that the configuration gives to somebody, or names of several;
    /// `CertificateExpired` past its end: a connection may outlive its certificate.
    pub fn authenticate_certificate(
        &self,
        certificate: &ClientCertificate,
    ) -> Result<Arc<Principal>, VaultError> {
        // The system's time, also where the vault's own is a sandbox's: certificates are made for it.
        if certificate.not_after <= Clock::system().now() {
            return Err(VaultError::CertificateExpired { at: certificate.not_after });
        }
        let mut rules = self.certificates.iter().filter(|rule| certificate.names.contains(&rule.san));
        match (rules.next(), rules.next()) {
            (Some(rule), None) => Ok(Arc::new(certified(rule, certificate.not_after))),
            _ => Err(VaultError::CertificateUnknown),
        }
    }

    /// Who comes with both. The key alone says what the caller may do. The certificate is a bound on where the key may
    /// come from: if it is somebody's, that must be the key's principal. One that is nobody's binds nothing.
    ///
    /// # Errors
    /// Those of [`Vault::authenticate`]; `CertificateExpired`; `CertificateOfAnother`.
    pub async fn authenticate_both(
        &self,
        key: &Secret,
        certificate: &ClientCertificate,
    ) -> Result<Arc<Principal>, VaultError> {
        let principal = self.authenticate(key).await?;
        match self.authenticate_certificate(certificate) {
            Ok(certified) if certified.name == principal.name => Ok(principal),
            Ok(_) => Err(VaultError::CertificateOfAnother),
            Err(VaultError::CertificateUnknown) if self.is_nobodys(certificate) => Ok(principal),
            Err(error) => Err(error),
        }
    }

    fn is_nobodys(&self, certificate: &ClientCertificate) -> bool {
        !self.certificates.iter().any(|rule| certificate.names.contains(&rule.san))
    }

    /// Who holds this credential, as it is now. `None`: the same as ever, since a token says what it says until its end.
    ///
    /// # Errors
    /// As [`Vault::authenticate`] and [`Vault::authenticate_certificate`].
    pub(in crate::vault) async fn principal_of(
        &self,
        credential: &Credential,
    ) -> Result<Option<Principal>, VaultError> {
        match credential {
            Credential::ApiKey(id) => {
                let record = self.store.api_key_record(id).await?.ok_or(VaultError::ApiKeyInvalid)?;
                self.principal_in(&record).map(Some)
            }
            Credential::Token { not_after, .. } if *not_after <= self.clock.now() => {
                Err(VaultError::CallerTokenExpired { at: *not_after })
            }
            Credential::Token { .. } => Ok(None),
            Credential::Certificate { san, not_after } => {
                let certificate = ClientCertificate { names: vec![san.clone()], not_after: *not_after };
                self.authenticate_certificate(&certificate).map(Arc::unwrap_or_clone).map(Some)
            }
        }
    }

    fn check_row(&self, record: &ApiKeyRecord) -> Result<(), VaultError> {
        if row_mac(&self.keys.authorization, &record.api_key, &record.hash).as_slice() == record.mac {
            return Ok(());
        }
        tracing::error!(api_key = %record.api_key.id, "an API key's row was altered outside the vault; it is refused");
        Err(VaultError::ApiKeyInvalid)
    }

    fn principal_in(&self, record: &ApiKeyRecord) -> Result<Principal, VaultError> {
        self.check_row(record)?;
        let (facts, now) = (&record.api_key, self.clock.now());
        if facts.revoked_at.is_some() {
            return Err(VaultError::ApiKeyInvalid);
        }
        if let Some(at) = facts.expires_at.filter(|end| *end <= now) {
            return Err(VaultError::ApiKeyExpired { at });
        }
        if self.uses.is_due(&facts.id) {
            self.note_use(facts.id.clone(), now);
        }
        Ok(Principal {
            name: facts.principal.clone(),
            credential: Credential::ApiKey(facts.id.clone()),
            role: facts.role,
            workspaces: facts.workspaces.clone(),
        })
    }

    /// An observation; its loss harms nobody.
    fn note_use(&self, id: ApiKeyId, now: Timestamp) {
        let store = Arc::clone(&self.store);
        self.tasks.spawn(async move {
            let noted = store
                .write(move |tx| {
                    let id = id.clone();
                    Box::pin(async move { Ok::<_, Abort<VaultError>>(tx.note_api_key_use(&id, now).await?) })
                })
                .await;
            if let Err(Abort::Store(error)) = noted {
                tracing::debug!(%error, "an API key's use was not noted");
            }
        });
    }

    /// Makes an API key. Its secret is in this answer and nowhere else; a repeat of the request answers without it.
    ///
    /// # Errors
    /// Field violations; `RequestIdReused`, `RequestInProgress`.
    pub async fn create_api_key(
        &self,
        caller: &Principal,
        command: CreateApiKey,
    ) -> Result<NewApiKey, VaultError> {
        self.check_new_key(&command)?;
        may_give(caller, &command.workspaces)?;
        self.may_name(caller, &command.principal).await?;
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
            // The key is shown only this once, and not before the log has its record.
            self.recorded_in_log().await?;
            Ok(NewApiKey { api_key, key: Some(key) })
        };
        let repeat = async |made: MadeApiKey| {
            let api_key = self.reachable_key(caller, &made.api_key).await?.api_key;
            Ok(NewApiKey { api_key, key: None })
        };
        self.once(caller, request, work, repeat).await
    }

    /// A principal's name carries its bookmarks and its requests: an admin of some workspaces gives nobody the name
    /// of a principal that reaches further.
    async fn may_name(&self, caller: &Principal, principal: &str) -> Result<(), VaultError> {
        let known = self.store.read().await?.api_keys(principal, "", 1_000).await?;
        let mut certified = self.certificates.iter().filter(|rule| rule.principal == principal);
        if known.iter().all(|record| caller.workspaces.covers(&record.api_key.workspaces))
            && certified.all(|rule| caller.workspaces.covers(&rule.workspaces))
        {
            return Ok(());
        }
        let rule = "is the name of a principal that reaches further than the caller; choose another";
        Err(VaultError::Fields(vec![FieldViolation::new("principal", rule)]))
    }

    /// The same without a caller: offline.
    pub(in crate::vault) async fn new_api_key(
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

    fn mint(&self, command: &CreateApiKey) -> Result<(Secret, ApiKeyRecord), VaultError> {
        let (key, presented) = mint_api_key().map_err(|_| VaultError::Internal)?;
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

    /// Makes a key in another's place: of the same principal, role and workspaces. The replaced one goes on for an
    /// overlap, and never longer than it would have by itself.
    ///
    /// # Errors
    /// Field violations; `ApiKeyNotFound`, `ApiKeyNotRotatable`; `RequestIdReused`, `RequestInProgress`.
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
            let (key, record, replaced) = self.replace(caller, &command, &old, now + overlap, claim).await?;
            tracing::info!(api_key = %record.id, replaces = %replaced.id, principal = record.principal, by = caller.name, "API key rotated");
            // The key is shown only this once, and not before the log has its record.
            self.recorded_in_log().await?;
            Ok(RotatedApiKey { new: NewApiKey { api_key: record, key: Some(key) }, replaced })
        };
        let repeat = async |made: MadeApiKey| {
            let api_key = self.reachable_key(caller, &made.api_key).await?.api_key;
            let replaced = self.reachable_key(caller, &command.key).await?.api_key;
            Ok(RotatedApiKey { new: NewApiKey { api_key, key: None }, replaced })
        };
        self.once(caller, request, work, repeat).await
    }

    /// The key of that id, if all that it reaches is the caller's.
    async fn reachable_key(&self, caller: &Principal, id: &ApiKeyId) -> Result<ApiKeyRecord, VaultError> {
        let record = self.store.read().await?.api_key(id).await?;
        record
            .filter(|record| caller.workspaces.covers(&record.api_key.workspaces))
            .ok_or_else(|| VaultError::ApiKeyNotFound(id.clone()))
    }

    /// Writes a key in `old`'s place, which ends at `end` at the latest.
    async fn replace(
        &self,
        caller: &Principal,
        command: &RotateApiKey,
        old: &ApiKeyRecord,
        end: Timestamp,
        claim: RequestClaim,
    ) -> Result<(Secret, ApiKeyFacts, ApiKeyFacts), VaultError> {
        let now = self.clock.now();
        // What somebody wrote there from outside gets no key.
        self.check_row(old).map_err(|_| VaultError::ApiKeyNotFound(old.api_key.id.clone()))?;
        check_rotatable(&old.api_key, now)?;
        self.may_name(caller, &old.api_key.principal).await?;
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
                    // Read anew, and looked at anew: only what the vault wrote gets a MAC again.
                    let known = tx.lock_api_key(&id).await?;
                    let own = |key: &ApiKeyRecord| {
                        row_mac(&authorization, &key.api_key, &key.hash).as_slice() == key.mac
                    };
                    let Some(mut old) = known.filter(own) else {
                        return Err(Abort::Refused(VaultError::ApiKeyNotFound(id)));
                    };
                    // Another rotation or a revocation may have come first.
                    check_rotatable(&old.api_key, now).map_err(Abort::Refused)?;
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

    /// Pages through the keys, by id.
    ///
    /// # Errors
    /// `PageTokenInvalid`, `PageTokenMismatch`.
    pub async fn list_api_keys(
        &self,
        caller: &Principal,
        query: ListApiKeys,
    ) -> Result<ApiKeyPage, VaultError> {
        let principal = query.principal.unwrap_or_default();
        let fingerprint = self.query_hash(caller, "ListApiKeys", &[principal.as_bytes()]);
        let after = match query.page_token.as_str() {
            "" => String::new(),
            token => self.read_page_token(token, &fingerprint)?,
        };
        let limit = i64::from(query.page_size.clamp(1, 1_000));
        let mut records = self.store.read().await?.api_keys(&principal, &after, limit + 1).await?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = records.len() > wanted;
        records.truncate(wanted);
        let next_page_token = match records.last() {
            Some(last) if more => self.write_page_token(last.api_key.id.as_str(), &fingerprint)?,
            _ => String::new(),
        };
        Ok(ApiKeyPage {
            api_keys: records
                .into_iter()
                .map(|record| record.api_key)
                .filter(|key| caller.workspaces.covers(&key.workspaces))
                .collect(),
            next_page_token,
        })
    }

    /// Ends a key, everywhere within a second. Ending it twice is no error.
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
                    // A key that reaches further than the caller is none of its business.
                    let known =
                        tx.lock_api_key(&id).await?.filter(|record| reach.covers(&record.api_key.workspaces));
                    let Some(mut record) = known else {
                        return Err(Abort::Refused(VaultError::ApiKeyNotFound(id)));
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
