//! FetchAccessToken: hands a secret out.

use std::time::Duration;

use crate::model::{Expiry, Principal, Secret, SecretId, Status, TokenVersion};
use crate::provider::{RequestPart, Usage};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::token::target::Target;

/// The longest time for which a caller may keep a secret without asking again.
const LONGEST_CACHE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct FetchAccessToken {
    pub target: Target,
    /// How long the token must still be valid.
    pub min_ttl: Duration,
}

/// The secret, and what its user must know about it.
#[derive(Debug)]
pub struct Fetched {
    pub secret: Secret,
    /// What else the caller must send with each call to the provider.
    pub send_with: Vec<RequestPart>,
    pub version: TokenVersion,
    /// Names this exact secret in reports.
    pub secret_id: SecretId,
    pub expiry: Expiry,
    pub status: Status,
    /// The provider limit that is closest to being reached.
    pub usage: Option<Usage>,
    /// How long the caller may cache the secret.
    pub cache_for: Duration,
}

impl Vault {
    /// Decrypts and hands out the secret. The hot path: no SQL while the row is cached, decryption per call, and no
    /// plaintext is kept.
    ///
    /// # Errors
    /// `TokenExpired`, `TokenInvalid`, `TokenRevoked`, `TokenLifeTooShort`: pause until a person or an event.
    /// `CiphertextCorrupt`: call the operator.
    pub async fn fetch_access_token(
        &self,
        caller: &Principal,
        command: FetchAccessToken,
    ) -> Result<Fetched, VaultError> {
        let held = self.held(caller, &command.target).await?;
        let connection = &held.connection;
        let status = self.check_usable(connection)?;
        let now = self.clock.now();
        if let Some(left) = connection.life_left(now)
            && left < command.min_ttl
        {
            return Err(VaultError::TokenLifeTooShort {
                connection: connection.id,
                version: connection.version,
                ends_at: now + left,
                left,
                wanted: command.min_ttl,
                renewal: connection.health(now, &self.policy()).renewal,
            });
        }
        let provider = self.provider_of(connection)?;
        let secret = self.open_secret(&held).await?;
        // The audit record comes first: no secret leaves without one.
        self.record_hand_out(connection).await?;
        Ok(Fetched {
            send_with: provider.send_with(&secret),
            usage: provider.usage(),
            version: connection.version,
            secret_id: connection.secret_id,
            expiry: connection.facts.expiry,
            status,
            cache_for: cache_for(connection.life_left(now)),
            secret,
        })
    }
}

/// How long a caller may keep a secret that ends after `left`: never past its end, and only briefly, so that the caller
/// soon learns if the token dies.
fn cache_for(left: Option<Duration>) -> Duration {
    left.unwrap_or(LONGEST_CACHE).min(LONGEST_CACHE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_keep_a_secret_past_its_end() {
        assert_eq!(cache_for(Some(Duration::from_secs(5))), Duration::from_secs(5));
        assert_eq!(cache_for(Some(Duration::from_secs(61))), LONGEST_CACHE);
        assert_eq!(cache_for(None), LONGEST_CACHE);
    }
}
