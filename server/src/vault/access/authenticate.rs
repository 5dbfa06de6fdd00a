//! Authentication: finds the principal of an API key, an issuer's token or a client certificate.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::crypto::PresentedKey;
use crate::model::{
    ApiKeyId, CertificateRule, ClientCertificate, Clock, Credential, Principal, Secret, Timestamp,
};
use crate::oidc::{Issuer, Rejected};
use crate::store::{Abort, ApiKeyRecord};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

impl Vault {
    /// The principal of an API key or an issuer's token.
    ///
    /// # Errors
    /// For keys `ApiKeyInvalid` (unknown or revoked) and `ApiKeyExpired`; for tokens `TokenRejected`,
    /// `CallerTokenExpired`, `TokenUnmapped` and `IssuerUnavailable`.
    pub async fn authenticate(&self, key: &Secret) -> Result<Arc<Principal>, VaultError> {
        if let Some(issuer) = self.access.issuer.as_ref().filter(|_| Issuer::could_be_token(key)) {
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

    /// The principal of a client certificate, whose chain the transport has verified.
    ///
    /// # Errors
    /// `CertificateUnknown` when the configuration maps none of its names, or maps them to several principals;
    /// `CertificateExpired` past its end: a connection may outlive its certificate.
    pub fn authenticate_certificate(
        &self,
        certificate: &ClientCertificate,
    ) -> Result<Arc<Principal>, VaultError> {
        // Certificates are issued by the system's time, even where the vault follows a sandbox's clock.
        if certificate.not_after <= Clock::system().now() {
            return Err(VaultError::CertificateExpired { at: certificate.not_after });
        }
        let mut rules = self.access.certificates.iter().filter(|rule| certificate.names.contains(&rule.san));
        match (rules.next(), rules.next()) {
            (Some(rule), None) => Ok(Arc::new(certified(rule, certificate.not_after))),
            _ => Err(VaultError::CertificateUnknown),
        }
    }

    /// The principal of a key or token on a connection with a client certificate. The key alone decides what the caller
    /// may do. If the certificate is mapped to a principal, only that principal's keys are accepted; otherwise the
    /// certificate restricts nothing.
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
            Err(VaultError::CertificateUnknown) if self.is_unmapped(certificate) => Ok(principal),
            Err(error) => Err(error),
        }
    }

    fn is_unmapped(&self, certificate: &ClientCertificate) -> bool {
        !self.access.certificates.iter().any(|rule| certificate.names.contains(&rule.san))
    }

    /// The current principal of a credential. `None`: it has not changed, because a token's claims are valid until its
    /// end.
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

    fn principal_in(&self, record: &ApiKeyRecord) -> Result<Principal, VaultError> {
        self.check_row(record)?;
        let (facts, now) = (&record.api_key, self.clock.now());
        if facts.revoked_at.is_some() {
            return Err(VaultError::ApiKeyInvalid);
        }
        if let Some(at) = facts.expires_at.filter(|end| *end <= now) {
            return Err(VaultError::ApiKeyExpired { at });
        }
        if self.access.key_uses.is_due(&facts.id) {
            self.note_use(facts.id.clone(), now);
        }
        Ok(Principal {
            name: facts.principal.clone(),
            credential: Credential::ApiKey(facts.id.clone()),
            role: facts.role,
            workspaces: facts.workspaces.clone(),
            link: None,
        })
    }

    /// Writes a key's last use in the background. Losing one is harmless.
    fn note_use(&self, id: ApiKeyId, now: Timestamp) {
        let store = Arc::clone(&self.store);
        self.work.tasks.spawn(async move {
            let noted = store
                .write(move |tx| {
                    let id = id.clone();
                    Box::pin(async move { Ok::<_, Abort<VaultError>>(tx.note_api_key_use(&id, now).await?) })
                })
                .await;
            if let Err(Abort::Store(error)) = noted {
                tracing::debug!(%error, "an API key's last use was not written");
            }
        });
    }

    /// Whether this credential is cheap to check: a key with its id exists, or it is a token, whose signature can be
    /// checked. The rate limits use this to tell callers from guessers; it proves nothing.
    pub fn is_cheap_to_judge(&self, key: &Secret) -> bool {
        if self.access.issuer.is_some() && Issuer::could_be_token(key) {
            return true;
        }
        PresentedKey::parse(key).is_ok_and(|presented| self.store.knows_api_key(&presented.id))
    }

    /// Keeps the issuer's keys fresh until `stop`, if an issuer is configured.
    pub async fn follow_issuer(&self, stop: CancellationToken) {
        if let Some(issuer) = self.access.issuer.clone() {
            issuer.follow(stop).await;
        }
    }
}

fn certified(rule: &CertificateRule, not_after: Timestamp) -> Principal {
    Principal {
        name: rule.principal.clone(),
        credential: Credential::Certificate { san: rule.san.clone(), not_after },
        role: rule.role,
        workspaces: rule.workspaces.clone(),
        link: None,
    }
}
