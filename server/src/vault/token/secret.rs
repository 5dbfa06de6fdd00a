//! The secret of a connection: sealing and storing it, opening it, and checking whether it may be used.

use crate::crypto::{self, Binding};
use crate::model::{Connection, Secret, Standing, Status, Timestamp};
use crate::store::{Abort, HeldToken, NewSecret, Tx};
use crate::vault::error::VaultError;
use crate::vault::state::Vault;
use crate::vault::state::keyring::{TRIES, WorkspaceKeys};

/// Seals the secret with the workspace's newest data key and stores it as the connection's.
pub(in crate::vault) async fn put(
    tx: &mut Tx,
    keys: &WorkspaceKeys,
    connection: &Connection,
    secret: &Secret,
    now: Timestamp,
) -> Result<(), Abort<VaultError>> {
    let key = keys.newest().ok_or(Abort::Work(VaultError::Internal))?;
    let sealed =
        crypto::seal(key, &Binding::of(connection), secret).map_err(|_| Abort::Work(VaultError::Internal))?;
    let secret = NewSecret {
        connection: connection.id,
        version: connection.version,
        secret_id: connection.secret_id,
        sealed,
    };
    if !tx.put_secret(&connection.workspace, secret, now).await? {
        return Err(Abort::Work(VaultError::KeysChanged(connection.workspace.clone())));
    }
    Ok(())
}

impl Vault {
    /// Decrypts the secret of a connection.
    pub(in crate::vault) async fn open_secret(&self, held: &HeldToken) -> Result<Secret, VaultError> {
        if let Some(secret) = self.open_with_key_of(held).await? {
            return Ok(secret);
        }
        // A key rotation happened between reading the row and reading the keys: read both again.
        let connection = &held.connection;
        for _ in 0..TRIES {
            self.store.forget(connection.id, &connection.workspace);
            let Some(now) = self.store.held_token(connection.id).await? else { break };
            if now.connection.secret_id != connection.secret_id {
                return Err(VaultError::ConcurrentChange(connection.id));
            }
            if let Some(secret) = self.open_with_key_of(&now).await? {
                return Ok(secret);
            }
        }
        Err(corrupt(connection))
    }

    /// The secret, if the workspace still has the key that sealed it.
    async fn open_with_key_of(&self, held: &HeldToken) -> Result<Option<Secret>, VaultError> {
        let connection = &held.connection;
        let sealed = held.sealed.as_ref().ok_or_else(|| corrupt(connection))?;
        let keys = match self.workspace_keys(&connection.workspace).await {
            Ok(keys) => keys.ok_or_else(|| corrupt(connection))?,
            Err(VaultError::WorkspaceKeysCorrupt(_)) => return Err(corrupt(connection)),
            Err(error) => return Err(error),
        };
        let Some(key) = keys.of_version(sealed.data_key_version) else { return Ok(None) };
        crypto::open(key, &Binding::of(connection), sealed).map(Some).map_err(|_| corrupt(connection))
    }

    /// Fails with the reason if the token can't be used now.
    pub(in crate::vault) fn check_usable(&self, connection: &Connection) -> Result<Status, VaultError> {
        let status = connection.status(self.clock.now(), &self.policy());
        let (id, version) = (connection.id, connection.version);
        match (&connection.standing, status) {
            (Standing::Revoked { at, .. }, _) => Err(VaultError::TokenRevoked { connection: id, at: *at }),
            (Standing::Invalid { since, reason, provider_code }, _) => Err(VaultError::TokenInvalid {
                connection: id,
                provider: connection.provider.clone(),
                version,
                since: *since,
                reason: *reason,
                provider_code: provider_code.clone(),
            }),
            (Standing::Live, Status::Expired) => Err(VaultError::TokenExpired {
                connection: id,
                provider: connection.provider.clone(),
                version,
                at: connection.facts.expiry.at().unwrap_or(connection.updated_at),
            }),
            (Standing::Live, status) => Ok(status),
        }
    }
}

fn corrupt(connection: &Connection) -> VaultError {
    tracing::error!(connection = %connection.id, version = %connection.version, "a stored secret can't be decrypted: the database was altered");
    VaultError::CiphertextCorrupt { connection: connection.id, version: connection.version }
}
