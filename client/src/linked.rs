//! Acting for a person who has a connect link.

use std::fmt;

use tonic::metadata::{Ascii, MetadataValue};

use crate::error::Error;
use crate::v1;
use crate::vault::Vault;

/// A connection to a vault for one connect link, made by [`Vault::for_link`]: every call carries the link's token, so
/// it reaches only the workspace, the provider and the connection of the link, whatever the key permits. `Debug` does
/// not print the token.
#[derive(Clone)]
pub struct LinkedVault(Vault);

impl Vault {
    /// Returns a connection that acts for a connect link, as the portal does. The key must have the role `portal` or
    /// `admin`. Whether the link is valid shows with the first call.
    ///
    /// # Errors
    /// `YourBug` when the text can't be the token of a link.
    pub fn for_link(&self, token: &str) -> Result<LinkedVault, Error> {
        let mut token: MetadataValue<Ascii> = token.parse().map_err(|_| {
            Error::your_bug("connect-link", "holds characters that a link's token cannot have")
        })?;
        token.set_sensitive(true);
        Ok(LinkedVault(self.clone().with_link(token)))
    }
}

impl LinkedVault {
    /// Returns what the portal shows behind the link.
    ///
    /// # Errors
    /// `YourBug` with the reason `CONNECT_LINK_NOT_FOUND` when the link has ended, was revoked or never was.
    pub async fn open_connect_link(&self) -> Result<v1::OpenConnectLinkResponse, Error> {
        self.0.open_connect_link().await
    }

    /// Begins an authorization; see [`Vault::begin_authorization`].
    ///
    /// # Errors
    /// See [`ErrorKind`](crate::ErrorKind).
    pub async fn begin_authorization(
        &self,
        request: v1::BeginAuthorizationRequest,
    ) -> Result<v1::BeginAuthorizationResponse, Error> {
        self.0.begin_authorization(request).await
    }

    /// Completes an authorization; see [`Vault::complete_authorization`].
    ///
    /// # Errors
    /// See [`ErrorKind`](crate::ErrorKind).
    pub async fn complete_authorization(
        &self,
        request: v1::CompleteAuthorizationRequest,
    ) -> Result<v1::CompleteAuthorizationResponse, Error> {
        self.0.complete_authorization(request).await
    }

    /// Stores a pasted token; see [`Vault::store_token`].
    ///
    /// # Errors
    /// See [`ErrorKind`](crate::ErrorKind).
    pub async fn store_token(&self, request: v1::StoreTokenRequest) -> Result<v1::StoreTokenResponse, Error> {
        self.0.store_token(request).await
    }

    /// Asks the provider about a token; see [`Vault::validate_token`].
    ///
    /// # Errors
    /// See [`ErrorKind`](crate::ErrorKind).
    pub async fn validate_token(
        &self,
        request: v1::ValidateTokenRequest,
    ) -> Result<v1::ValidateTokenResponse, Error> {
        self.0.validate_token(request).await
    }
}

impl fmt::Debug for LinkedVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinkedVault").field(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_key::ApiKey;

    fn vault() -> Vault {
        Vault::builder("http://127.0.0.1:1", ApiKey::new("tva_key")).connect_lazy().unwrap()
    }

    #[tokio::test]
    async fn the_token_is_never_printed() {
        let linked = vault().for_link("tvl_abcdefghijklmnop_secret").unwrap();
        let printed = format!("{linked:?}");
        assert!(!printed.contains("secret") && !printed.contains("tva_key"), "{printed}");
    }

    #[tokio::test]
    async fn what_no_link_can_be_is_refused_before_a_call() {
        let error = vault().for_link("tvl_a\nb").unwrap_err();
        assert!(!error.to_string().contains("tvl_a"), "{error}");
    }

    #[tokio::test]
    async fn only_calls_for_a_link_carry_its_token() {
        let vault = vault();
        assert!(vault.authorized(()).metadata().get("connect-link").is_none());
        let linked = vault.for_link("tvl_token").unwrap();
        let request = linked.0.authorized(());
        assert_eq!(request.metadata().get("connect-link").unwrap(), "tvl_token");
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer tva_key");
    }
}
