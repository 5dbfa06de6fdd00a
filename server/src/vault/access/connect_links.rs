//! Connect links as credentials: the MAC over a link's row, the caller that acts for a link, and what a link's use changes.
//! Write access to the database is not enough to make a link, or to revive one.

use crate::crypto::{MacKey, PresentedLink};
use crate::model::{ConnectLink, ConnectLinkId, ConnectionId, Principal, ProviderId, Secret, Timestamp};
use crate::store::{Abort, ConnectLinkRecord, Tx};
use crate::vault::error::{FieldViolation, VaultError};
use crate::vault::state::Vault;

pub(in crate::vault) fn row_mac(authorization: &MacKey, link: &ConnectLink, hash: &[u8]) -> Vec<u8> {
    let ConnectLink {
        id,
        workspace,
        provider,
        connection,
        return_url,
        max_uses,
        uses,
        created_by,
        created_at,
        expires_at,
        opened_at: _,
        last_used_at,
        last_connection,
        revoked_at,
    } = link;
    let time = |at: Option<Timestamp>| at.map_or(i64::MIN, Timestamp::as_micros).to_be_bytes();
    let named = |id: &Option<ConnectionId>| id.map(|id| id.to_string()).unwrap_or_default();
    let (connection, last_connection) = (named(connection), named(last_connection));
    let parts: [&[u8]; 14] = [
        id.as_str().as_bytes(),
        hash,
        workspace.as_str().as_bytes(),
        provider.as_str().as_bytes(),
        connection.as_bytes(),
        return_url.as_bytes(),
        &max_uses.to_be_bytes(),
        &uses.to_be_bytes(),
        created_by.as_bytes(),
        &created_at.as_micros().to_be_bytes(),
        &expires_at.as_micros().to_be_bytes(),
        &time(*last_used_at),
        last_connection.as_bytes(),
        &time(*revoked_at),
    ];
    authorization.mac("connect-link", &parts).to_vec()
}

/// The link of a row, unless the row was altered outside the vault.
pub(in crate::vault) fn checked(authorization: &MacKey, record: ConnectLinkRecord) -> Option<ConnectLink> {
    if row_mac(authorization, &record.link, &record.hash) == record.mac {
        return Some(record.link);
    }
    tracing::error!(connect_link = %record.link.id, "a connect link's row was altered outside the vault; the link is denied");
    None
}

impl Vault {
    /// The caller, acting for the link whose token it presents.
    ///
    /// # Errors
    /// `ConnectLinkNotFound`, whatever is wrong with the link.
    pub async fn act_for_link(&self, caller: &Principal, token: &Secret) -> Result<Principal, VaultError> {
        let over = || VaultError::ConnectLinkNotFound(None);
        let presented = PresentedLink::parse(token).map_err(|_| over())?;
        let record = self.store.read().await?.connect_link(&presented.id).await?;
        let record = record.filter(|record| presented.matches(&record.hash)).ok_or_else(over)?;
        let link = checked(&self.keys.authorization, record).ok_or_else(over)?;
        let is_good = link.shows_card(self.clock.now()) && caller.workspaces.contains(&link.workspace);
        if is_good { Ok(caller.acting_for(link)) } else { Err(over()) }
    }
}

/// The connection that a caller brings a token for: for a link with a connection always that one.
///
/// # Errors
/// `ConnectLinkNotFound` for a link of another provider, `ConnectionNotFound` for another connection, `Fields` for options: a
/// link is for one account, with the scopes and the person that the vault expects.
pub(in crate::vault) fn connection_for(
    caller: &Principal,
    provider: &ProviderId,
    wanted: Option<ConnectionId>,
    has_options: bool,
) -> Result<Option<ConnectionId>, VaultError> {
    let Some(link) = &caller.link else { return Ok(wanted) };
    if link.provider != *provider {
        return Err(VaultError::ConnectLinkNotFound(None));
    }
    if has_options {
        let rule = "must be unset for a caller that acts for a connect link";
        return Err(VaultError::Fields(vec![FieldViolation::new("options", rule)]));
    }
    match (link.connection, wanted) {
        (Some(only), Some(wanted)) if only != wanted => Err(VaultError::ConnectionNotFound(wanted)),
        (only, wanted) => Ok(only.or(wanted)),
    }
}

/// Whether a caller that acts for a link may still connect an account. Checked where work begins, so that a repeated request
/// gets its first answer although the link has ended with it.
///
/// # Errors
/// `ConnectLinkNotFound`.
pub(in crate::vault) fn must_be_open(caller: &Principal, now: Timestamp) -> Result<(), VaultError> {
    match &caller.link {
        Some(link) if !link.is_open(now) => Err(VaultError::ConnectLinkNotFound(None)),
        _ => Ok(()),
    }
}

/// Counts a use of a link, in the transaction that saves the token. A link that ended meanwhile saves none.
pub(in crate::vault) async fn spend(
    tx: &mut Tx,
    authorization: &MacKey,
    id: &ConnectLinkId,
    connection: ConnectionId,
    now: Timestamp,
) -> Result<(), Abort<VaultError>> {
    let over = || Abort::Work(VaultError::ConnectLinkNotFound(None));
    let mut record = tx.lock_connect_link(id).await?.ok_or_else(over)?;
    let link = checked(authorization, record.clone()).ok_or_else(over)?;
    if !link.is_open(now) {
        return Err(over());
    }
    record.link.uses += 1;
    (record.link.last_used_at, record.link.last_connection) = (Some(now), Some(connection));
    record.mac = row_mac(authorization, &record.link, &record.hash);
    tx.update_connect_link(&record).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RawKey;
    use crate::model::{ConnectLinkId, ProviderId, WorkspaceId};

    #[test]
    fn a_row_that_was_altered_is_no_link() {
        let key = MacKey::new(&RawKey::from_bytes([7; 32]));
        let at = Timestamp::from_unix_seconds;
        let connection = ConnectionId::generate(at(5));
        let link = ConnectLink {
            uses: 1,
            last_used_at: Some(at(2)),
            revoked_at: Some(at(3)),
            ..ConnectLink::unopened()
        };
        let hash = vec![1; 32];
        let mac = row_mac(&key, &link, &hash);
        let read = |link: ConnectLink, hash: &[u8]| {
            checked(&key, ConnectLinkRecord { link, hash: hash.to_vec(), mac: mac.clone() })
        };
        assert_eq!(read(link.clone(), &hash), Some(link.clone()));
        let opened = ConnectLink { opened_at: Some(at(4)), ..link.clone() };
        assert_eq!(read(opened.clone(), &hash), Some(opened));
        assert_eq!(read(link.clone(), &[2; 32]), None);
        let altered = [
            ConnectLink { id: ConnectLinkId::parse("b".repeat(16)).unwrap(), ..link.clone() },
            ConnectLink { workspace: WorkspaceId::parse("other").unwrap(), ..link.clone() },
            ConnectLink { provider: ProviderId::parse("google_ads").unwrap(), ..link.clone() },
            ConnectLink { connection: Some(connection), ..link.clone() },
            ConnectLink { return_url: "https://evil.example".into(), ..link.clone() },
            ConnectLink { max_uses: 2, ..link.clone() },
            ConnectLink { uses: 0, ..link.clone() },
            ConnectLink { created_by: "admin".into(), ..link.clone() },
            ConnectLink { created_at: at(0), ..link.clone() },
            ConnectLink { expires_at: at(99), ..link.clone() },
            ConnectLink { last_used_at: None, ..link.clone() },
            ConnectLink { last_connection: Some(connection), ..link.clone() },
            ConnectLink { revoked_at: None, ..link },
        ];
        for altered in altered {
            assert_eq!(read(altered.clone(), &hash), None, "{altered:?}");
        }
    }
}
