//! Accepting a token: inspect it, exchange it if it is short-lived, inspect the new one, check its scopes. Only the
//! provider is asked; nothing is written.

use std::time::Duration;

use crate::model::{Expiry, ExpirySource, GrantState, RefusalReason, Secret, Timestamp, TokenKind};
use crate::provider::{Inspected, Provider};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;

/// The assumed life of a long-lived user token whose expiry the provider does not name.
const USUAL_LIFE: Duration = Duration::from_secs(60 * 24 * 60 * 60);

/// The assumed life of a short-lived token whose expiry the provider does not name.
const USUAL_SHORT_LIFE: Duration = Duration::from_secs(60 * 60);
/// The longest time for which a short-lived token is remembered.
const LONGEST_SHORT_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// What a caller may allow that is denied by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IntakeOptions {
    /// Store the token although it lacks required scopes.
    pub allow_missing_scopes: bool,
    /// Replace the connection's token although the new one has fewer scopes.
    pub allow_fewer_scopes: bool,
    /// Replace the connection's token although the new one belongs to another subject.
    pub allow_subject_change: bool,
    /// Connect the person's pages too.
    pub connect_pages: bool,
}

impl IntakeOptions {
    const fn flags(&mut self) -> [&mut bool; 4] {
        let Self { allow_missing_scopes, allow_fewer_scopes, allow_subject_change, connect_pages } = self;
        [allow_missing_scopes, allow_fewer_scopes, allow_subject_change, connect_pages]
    }

    /// As the database holds them. A bit never changes its meaning.
    pub(in crate::vault) fn bits(mut self) -> i64 {
        let flags = self.flags();
        flags.into_iter().rev().fold(0, |bits, flag| bits << 1 | i64::from(*flag))
    }

    /// Bits that a newer release wrote are passed over.
    pub(in crate::vault) fn from_bits(bits: i64) -> Self {
        let mut options = Self::default();
        for (at, flag) in options.flags().into_iter().enumerate() {
            *flag = bits >> at & 1 == 1;
        }
        options
    }
}

/// A token that passed every check, and what the provider says about it.
pub(in crate::vault) struct Accepted {
    pub(in crate::vault) secret: Secret,
    pub(in crate::vault) inspected: Inspected,
    /// The expiry of the token that the caller brought, before any exchange.
    pub(in crate::vault) pasted_expiry: Expiry,
    /// What the caller brought, if the token was exchanged.
    pub(in crate::vault) exchanged_from: Option<ExchangedFrom>,
}

impl Accepted {
    /// A token that was not exchanged.
    pub(in crate::vault) fn new(secret: Secret, inspected: Inspected) -> Self {
        Self { secret, pasted_expiry: inspected.facts.expiry, inspected, exchanged_from: None }
    }
}

/// A short-lived token that a person pasted, and that was exchanged.
pub(in crate::vault) struct ExchangedFrom {
    pub(in crate::vault) secret: Secret,
    pub(in crate::vault) ends_at: Timestamp,
}

impl Vault {
    /// Accepts a token as it is, although it may be short-lived.
    pub(super) async fn accept(
        &self,
        provider: &dyn Provider,
        pasted: Secret,
        options: IntakeOptions,
    ) -> Result<Accepted, VaultError> {
        let inspected = inspect(provider, &pasted, self.clock.now()).await?;
        self.check_scopes(provider, Accepted::new(pasted, inspected), options).await
    }

    /// Checks the scopes that the person granted. A scope that is declined or has expired does not count, even if the
    /// token names it.
    pub(super) async fn check_scopes(
        &self,
        provider: &dyn Provider,
        mut accepted: Accepted,
        options: IntakeOptions,
    ) -> Result<Accepted, VaultError> {
        let told = &accepted.inspected.facts.scopes;
        let Some(scopes) = told.after(None) else {
            return Err(VaultError::untold(provider.id(), "its scopes"));
        };
        let missing = self.policy().missing_required(&scopes);
        if !missing.is_empty() && !options.allow_missing_scopes {
            let declined = told.in_state(&missing, GrantState::Declined);
            let expired = told.in_state(&missing, GrantState::Expired);
            return Err(VaultError::ScopesMissing { missing, declined, expired });
        }
        if accepted.inspected.subject.name.is_empty()
            && let Ok(name) = provider.subject_name(&accepted.secret, &accepted.inspected.subject).await
        {
            accepted.inspected.subject.name = name;
        }
        Ok(accepted)
    }
}

pub(super) async fn inspect(
    provider: &dyn Provider,
    secret: &Secret,
    now: Timestamp,
) -> Result<Inspected, VaultError> {
    let inspected = provider
        .inspect(secret)
        .await
        .map_err(|refusal| VaultError::from_intake_refusal(&refusal, provider))?;
    if inspected.app_id != provider.app_id() {
        return Err(VaultError::TokenOfOtherApp {
            provider: provider.id().clone(),
            app_id: provider.app_id().to_owned(),
        });
    }
    if inspected.facts.expiry.at().is_some_and(|end| end <= now) {
        return Err(VaultError::ProviderRefusedToken {
            provider: provider.id().clone(),
            reason: RefusalReason::Expired,
            provider_code: String::new(),
        });
    }
    Ok(inspected)
}

/// Exchanges a short-lived token and verifies that the new one lasts longer.
pub(super) async fn make_lasting(
    provider: &dyn Provider,
    short: Secret,
    before: &Inspected,
    now: Timestamp,
) -> Result<Accepted, VaultError> {
    let exchanged = provider
        .exchange(&short, TokenKind::ShortLivedUser)
        .await
        .map_err(|refusal| VaultError::from_intake_refusal(&refusal, provider))?;
    let impossible = |why: &str| VaultError::ExchangeNotPossible {
        connection: None,
        provider: provider.id().clone(),
        why: why.to_owned(),
        end: before.facts.expiry,
    };
    let mut inspected = match inspect(provider, &exchanged.secret, now).await {
        Ok(inspected) => inspected,
        Err(VaultError::ProviderRefusedToken { .. } | VaultError::TokenOfOtherApp { .. }) => {
            // Is it the fault of what was pasted? The exchange may have ended it.
            inspect(provider, &short, now).await?;
            return Err(impossible("the provider's exchange gave a token that does not work"));
        }
        Err(trouble) => return Err(trouble),
    };
    if inspected.subject.id.is_empty() && !before.subject.id.is_empty() {
        return Err(VaultError::untold(provider.id(), "whose it is"));
    }
    if inspected.subject.id != before.subject.id {
        return Err(VaultError::SubjectMismatch {
            connection: None,
            expected: before.subject.id.clone(),
            actual: inspected.subject.id.clone(),
        });
    }
    // If the inspection names no expiry, the reply may; if neither does, one is assumed and marked as assumed.
    if inspected.facts.expiry == Expiry::Unknown {
        inspected.facts.expiry = match exchanged.expires_in {
            Some(life) => Expiry::At(now + life, ExpirySource::Reply),
            None => Expiry::At(now + USUAL_LIFE, ExpirySource::Assumed),
        };
    }
    if inspected.facts.kind == Some(TokenKind::ShortLivedUser)
        || !inspected.facts.expiry.is_later(before.facts.expiry)
    {
        return Err(impossible("the provider's exchange did not lengthen the short-lived token's life"));
    }
    let usual_end = now + USUAL_SHORT_LIFE;
    let ends_at = before.facts.expiry.at().unwrap_or(usual_end).min(now + LONGEST_SHORT_LIFE);
    Ok(Accepted {
        secret: exchanged.secret,
        inspected,
        pasted_expiry: before.facts.expiry,
        exchanged_from: Some(ExchangedFrom { secret: short, ends_at }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_keep_their_bits() {
        for bits in 0..16 {
            assert_eq!(IntakeOptions::from_bits(bits).bits(), bits);
        }
        let one = |bits| IntakeOptions::from_bits(bits);
        assert!(one(1).allow_missing_scopes && one(2).allow_fewer_scopes);
        assert!(one(4).allow_subject_change && one(8).connect_pages);
        assert_eq!(one(16), IntakeOptions::default());
    }
}
