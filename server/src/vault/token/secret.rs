//! The secret of a connection: sealing and storing it, opening it, and checking whether it may be used.

use crate::crypto::{self, Binding};
use crate::model::{Connection, Sealed, Secret, Standing, Status, Timestamp};
use crate::store::{Abort, HeldToken, NewSecret, PendingSecret, Tx};
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
    let secret = seal(keys, connection, secret)?;
    let stored = tx.put_secret(&connection.workspace, secret, now).await?;
    stored.then_some(()).ok_or_else(|| keys_changed(connection))
}

/// [`put`], for a secret that waits to take the place of the one held. `next` is the connection as it will be then.
pub(in crate::vault) async fn put_pending(
    tx: &mut Tx,
    keys: &WorkspaceKeys,
    next: &Connection,
    secret: &Secret,
    now: Timestamp,
) -> Result<(), Abort<VaultError>> {
    let secret = seal(keys, next, secret)?;
    let stored = tx.put_pending_secret(&next.workspace, secret, now).await?;
    stored.then_some(()).ok_or_else(|| keys_changed(next))
}

fn seal(
    keys: &WorkspaceKeys,
    connection: &Connection,
    secret: &Secret,
) -> Result<NewSecret, Abort<VaultError>> {
    let key = keys.newest().ok_or(Abort::Work(VaultError::Internal))?;
    let sealed =
        crypto::seal(key, &Binding::of(connection), secret).map_err(|_| Abort::Work(VaultError::Internal))?;
    Ok(NewSecret {
        connection: connection.id,
        version: connection.version,
        secret_id: connection.secret_id,
        sealed,
    })
}

fn keys_changed(connection: &Connection) -> Abort<VaultError> {
    Abort::Work(VaultError::KeysChanged(connection.workspace.clone()))
}

impl Vault {
    /// Decrypts the secret of a connection.
    pub(in crate::vault) async fn open_secret(&self, held: &HeldToken) -> Result<Secret, VaultError> {
        if let Some(secret) = self.open_held(held).await? {
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
            if let Some(secret) = self.open_held(&now).await? {
                return Ok(secret);
            }
        }
        Err(corrupt(connection))
    }

    /// Decrypts the secret that waits to take the place of the one held, and says since when it waits.
    pub(in crate::vault) async fn open_pending_secret(
        &self,
        connection: &Connection,
    ) -> Result<Option<(Secret, Timestamp)>, VaultError> {
        for _ in 0..=TRIES {
            let pending = self.store.read().await?.pending_secret(connection.id).await?;
            let Some(PendingSecret { version, sealed, since }) = pending else { return Ok(None) };
            let next = Connection { version, ..connection.clone() };
            if let Some(secret) = self.open_with_key_of(&next, &sealed).await? {
                return Ok(Some((secret, since)));
            }
            // The key was rotated meanwhile.
            self.store.forget_workspace(&connection.workspace);
        }
        Err(corrupt(connection))
    }

    async fn open_held(&self, held: &HeldToken) -> Result<Option<Secret>, VaultError> {
        let sealed = held.sealed.as_ref().ok_or_else(|| corrupt(&held.connection))?;
        self.open_with_key_of(&held.connection, sealed).await
    }

    /// The secret, if the workspace still has the key that sealed it.
    async fn open_with_key_of(
        &self,
        connection: &Connection,
        sealed: &Sealed,
    ) -> Result<Option<Secret>, VaultError> {
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
