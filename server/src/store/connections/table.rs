//! Table `ad_platform_connections`, the sealed secrets beside it, and the ad accounts below it.

use std::collections::{HashMap, HashSet};

use sqlx::types::Json;
use uuid::Uuid;

use super::rows::{ConnectionRow, FactColumns, connection_columns, subject_kind_name};
use crate::model::{
    AccountChange, AdAccount, Connection, ConnectionId, ProviderId, Sealed, SecretId, Timestamp,
    TokenVersion, WorkspaceId,
};
use crate::store::engine::Change;
use crate::store::sql::{Backend, Query};
use crate::store::{Session, StoreError, Tx};

/// A connection and the sealed secret that it holds.
#[derive(Debug, Clone)]
pub struct HeldToken {
    /// The facts.
    pub connection: Connection,
    /// The secret; `None` once it is destroyed.
    pub sealed: Option<Sealed>,
}

/// A sealed secret that becomes a connection's current one.
#[derive(Debug, Clone)]
pub struct NewSecret {
    /// Whose.
    pub connection: ConnectionId,
    /// Which version.
    pub version: TokenVersion,
    /// Its name.
    pub secret_id: SecretId,
    /// The ciphertext.
    pub sealed: Sealed,
}

#[derive(sqlx::FromRow)]
struct HeldRow {
    #[sqlx(flatten)]
    connection: ConnectionRow,
    data_key_version: Option<i64>,
    sealed: Option<Vec<u8>>,
}

#[derive(sqlx::FromRow)]
struct Count {
    n: i64,
}

#[derive(sqlx::FromRow)]
struct Id {
    connection_id: Uuid,
}

#[derive(sqlx::FromRow)]
struct AccountRow {
    ad_account_id: String,
    name: String,
    currency: String,
    time_zone: String,
    provider_state: String,
    owner_id: String,
    owner_name: String,
    unreachable: bool,
}

impl AccountRow {
    /// Whether it says of the account what the provider says now.
    fn is(&self, account: &AdAccount) -> bool {
        let told = [&account.name, &account.currency, &account.time_zone, &account.provider_state];
        let known = [&self.name, &self.currency, &self.time_zone, &self.provider_state];
        let owner = (&self.owner_id, &self.owner_name) == (&account.owner_id, &account.owner_name);
        told == known && owner && !self.unreachable
    }
}

impl Session {
    /// The connection of that id.
    pub async fn connection(&mut self, id: ConnectionId) -> Result<Option<Connection>, StoreError> {
        self.query(concat!(
            "SELECT ",
            connection_columns!(),
            " FROM ad_platform_connections c WHERE c.connection_id = $1"
        ))
        .bind(id.as_uuid())
        .fetch_optional::<ConnectionRow>()
        .await?
        .map(Connection::try_from)
        .transpose()
    }

    /// The connection of that id with its current sealed secret.
    pub async fn held_token(&mut self, id: ConnectionId) -> Result<Option<HeldToken>, StoreError> {
        let row = self
            .query(concat!(
                "SELECT ",
                connection_columns!(),
                ", s.data_key_version, s.sealed
                   FROM ad_platform_connections c
                   LEFT JOIN connection_secrets s
                     ON s.connection_id = c.connection_id AND s.state = 'CURRENT' AND s.secret_id = c.secret_id
                  WHERE c.connection_id = $1"
            ))
            .bind(id.as_uuid())
            .fetch_optional::<HeldRow>()
            .await?;
        let Some(row) = row else { return Ok(None) };
        let sealed = match (row.data_key_version.map(i32::try_from), row.sealed) {
            (Some(Ok(data_key_version)), Some(bytes)) => Some(Sealed { data_key_version, bytes }),
            (None, None) => None,
            _ => {
                return Err(StoreError::Inconsistent {
                    table: "connection_secrets",
                    column: "data_key_version",
                    row: id.to_string(),
                });
            }
        };
        Ok(Some(HeldToken { connection: row.connection.try_into()?, sealed }))
    }

    /// The connection of that identity.
    pub async fn connection_of_subject(
        &mut self,
        workspace: &WorkspaceId,
        provider: &ProviderId,
        app_id: &str,
        subject_key: &str,
    ) -> Result<Option<Connection>, StoreError> {
        self.query(concat!(
            "SELECT ",
            connection_columns!(),
            " FROM ad_platform_connections c
             WHERE c.workspace_id = $1 AND c.provider = $2 AND c.app_id = $3 AND c.subject_key = $4"
        ))
        .bind(workspace.as_str().to_owned())
        .bind(provider.as_str().to_owned())
        .bind(app_id.to_owned())
        .bind(subject_key.to_owned())
        .fetch_optional::<ConnectionRow>()
        .await?
        .map(Connection::try_from)
        .transpose()
    }

    /// How many other connections, of any workspace, hold a token of the same subject and app.
    pub async fn shared_with(&mut self, connection: &Connection) -> Result<u32, StoreError> {
        if connection.subject.id.is_empty() {
            return Ok(0);
        }
        let count: Count = self
            .query(
                "SELECT count(*) AS n FROM ad_platform_connections
                  WHERE subject_id = $1 AND provider = $2 AND app_id = $3
                    AND connection_id <> $4 AND standing <> 'REVOKED'",
            )
            .bind(connection.subject.id.clone())
            .bind(connection.provider.as_str().to_owned())
            .bind(connection.app_id.clone())
            .bind(connection.id.as_uuid())
            .fetch_one()
            .await?;
        Ok(u32::try_from(count.n).unwrap_or(u32::MAX))
    }

    /// Other living connections of the same subject and app, of any workspace, with their sealed secrets.
    pub async fn siblings(&mut self, connection: &Connection) -> Result<Vec<HeldToken>, StoreError> {
        if connection.subject.id.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Id> = self
            .query(
                "SELECT connection_id FROM ad_platform_connections
                  WHERE subject_id = $1 AND provider = $2 AND app_id = $3
                    AND connection_id <> $4 AND standing = 'LIVE' ORDER BY connection_id LIMIT 1000",
            )
            .bind(connection.subject.id.clone())
            .bind(connection.provider.as_str().to_owned())
            .bind(connection.app_id.clone())
            .bind(connection.id.as_uuid())
            .fetch_all()
            .await?;
        let mut siblings = Vec::with_capacity(ids.len());
        for id in ids {
            siblings.extend(self.held_token(ConnectionId::from_uuid(id.connection_id)).await?);
        }
        Ok(siblings)
    }

    async fn known_ad_accounts(&mut self, id: ConnectionId) -> Result<Vec<AccountRow>, StoreError> {
        self.query(
            "SELECT ad_account_id, name, currency, time_zone, provider_state, owner_id, owner_name,
                    unreachable_since IS NOT NULL AS unreachable
               FROM connection_ad_accounts WHERE connection_id = $1",
        )
        .bind(id.as_uuid())
        .fetch_all()
        .await
    }
}

/// What stands in `subject_key`: a connection whose provider names no subject is its own.
fn subject_key(connection: &Connection) -> String {
    if connection.subject.id.is_empty() { connection.id.to_string() } else { connection.subject.id.clone() }
}

/// Binds what both INSERT and UPDATE write, as $1 to $31.
fn bind_facts<'c>(query: Query<'c>, connection: &Connection) -> Query<'c> {
    let facts = FactColumns::of(connection);
    query
        .bind(connection.app_id.clone())
        .bind(subject_key(connection))
        .bind(connection.subject.id.clone())
        .bind(connection.subject.name.clone())
        .bind(subject_kind_name(connection.subject.kind))
        .bind(i64::from(connection.version.get()))
        .bind(connection.secret_id.as_uuid())
        .bind(connection.fingerprint.map(|f| f.0.to_vec()))
        .bind(connection.revision)
        .bind(facts.kind)
        .bind(facts.expires_at)
        .bind(facts.expiry_source)
        .bind(facts.expires_sort)
        .bind(facts.data_access_ends_at)
        .bind(facts.issued_at)
        .bind(facts.scopes)
        .bind(facts.granular_scopes)
        .bind(facts.standing)
        .bind(facts.standing_since)
        .bind(facts.standing_reason)
        .bind(facts.provider_code)
        .bind(connection.seen.last_validated_at.map(Timestamp::as_micros))
        .bind(connection.seen.last_rotated_at.map(Timestamp::as_micros))
        .bind(connection.seen.last_known_good.map(Timestamp::as_micros))
        .bind(connection.seen.ad_accounts.map(i64::from))
        .bind(i64::from(connection.seen.unreachable_ad_accounts))
        .bind(connection.schedule.next_deadline_at.map(Timestamp::as_micros))
        .bind(connection.schedule.next_renewal_at.map(Timestamp::as_micros))
        .bind(i64::from(connection.schedule.attempts))
        .bind(connection.last_event)
        .bind(connection.updated_at.as_micros())
}

impl Tx {
    /// Locks connections in the order of their ids, which is the same everywhere: two batches that share some
    /// can't wait for each other. On SQLite the one writer has them all.
    pub(in crate::store) async fn lock_connections(
        &mut self,
        ids: &[ConnectionId],
    ) -> Result<(), StoreError> {
        if self.backend() == Backend::Sqlite {
            return Ok(());
        }
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        self.query(
            "SELECT connection_id FROM ad_platform_connections
              WHERE connection_id IN (SELECT (jsonb_array_elements_text($1))::uuid)
              ORDER BY connection_id FOR UPDATE",
        )
        .bind(Json(ids))
        .fetch_all::<Id>()
        .await?;
        Ok(())
    }

    /// Connections about which time alone has something to say now, the most overdue first, locked; those that
    /// somebody else has locked are left to him.
    pub async fn lock_due_connections(
        &mut self,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<Connection>, StoreError> {
        self.query_for(
            concat!(
                "SELECT ",
                connection_columns!(),
                " FROM ad_platform_connections c WHERE c.next_deadline_at <= $1 ORDER BY c.next_deadline_at LIMIT $2"
            ),
            concat!(
                "SELECT ",
                connection_columns!(),
                " FROM ad_platform_connections c WHERE c.next_deadline_at <= $1 ORDER BY c.next_deadline_at LIMIT $2
                  FOR UPDATE SKIP LOCKED"
            ),
        )
        .bind(now.as_micros())
        .bind(limit)
        .fetch_all::<ConnectionRow>()
        .await
        .map(|rows| rows.into_iter().filter_map(readable).collect())
    }

    /// Writes what announcing moved, and nothing of the facts: no revision changes, so a provider's answer that
    /// is on its way still lands.
    pub async fn note_announced(&mut self, connections: &[Connection]) -> Result<(), StoreError> {
        let rows: Vec<(String, Option<i64>, i64)> = connections
            .iter()
            .map(|c| {
                let deadline = c.schedule.next_deadline_at.map(Timestamp::as_micros);
                (c.id.as_uuid().simple().to_string(), deadline, c.last_event)
            })
            .collect();
        self.query_for(
            "UPDATE ad_platform_connections AS c
                SET next_deadline_at = r.value->>1, last_event_sequence = r.value->>2
               FROM json_each($1) AS r WHERE c.connection_id = unhex(r.value->>0)",
            "UPDATE ad_platform_connections AS c
                SET next_deadline_at = (r.value->>1)::bigint, last_event_sequence = (r.value->>2)::bigint
               FROM jsonb_array_elements($1) AS r (value) WHERE c.connection_id = (r.value->>0)::uuid",
        )
        .bind(Json(rows))
        .execute()
        .await?;
        for connection in connections {
            self.changed(Change::Connection(connection.id));
        }
        Ok(())
    }

    /// The connection of that id, locked until the transaction ends.
    pub async fn lock_connection(&mut self, id: ConnectionId) -> Result<Option<Connection>, StoreError> {
        self.query_for(
            concat!(
                "SELECT ",
                connection_columns!(),
                " FROM ad_platform_connections c WHERE c.connection_id = $1"
            ),
            concat!(
                "SELECT ",
                connection_columns!(),
                " FROM ad_platform_connections c WHERE c.connection_id = $1 FOR UPDATE"
            ),
        )
        .bind(id.as_uuid())
        .fetch_optional::<ConnectionRow>()
        .await?
        .map(Connection::try_from)
        .transpose()
    }

    /// Adds a connection. Another one of the same identity that came first is a lost race: the unit
    /// runs again and finds it.
    pub async fn insert_connection(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let query = self.query(
            "INSERT INTO ad_platform_connections (
                 app_id, subject_key, subject_id, subject_name, subject_kind, token_version, secret_id, fingerprint,
                 revision, kind, expires_at, expiry_source, expires_sort, data_access_ends_at, issued_at, scopes,
                 granular_scopes, standing, standing_since, standing_reason, provider_code, last_validated_at,
                 last_rotated_at, last_known_good, ad_account_count, unreachable_count, next_deadline_at,
                 next_renewal_at, renewal_attempts, last_event_sequence, updated_at, connection_id,
                 workspace_id, provider, parent_connection_id, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                     $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36)
             ON CONFLICT (workspace_id, provider, app_id, subject_key) DO NOTHING",
        );
        let added = bind_facts(query, connection)
            .bind(connection.id.as_uuid())
            .bind(connection.workspace.as_str().to_owned())
            .bind(connection.provider.as_str().to_owned())
            .bind(connection.parent.map(ConnectionId::as_uuid))
            .bind(connection.created_at.as_micros())
            .execute()
            .await?;
        if added == 0 {
            return Err(StoreError::Race("another connection of the same identity came first".into()));
        }
        Ok(())
    }

    /// Writes a connection's facts over those of the revision before. `false`: somebody else wrote
    /// meanwhile, and nothing changed.
    pub async fn update_connection(&mut self, connection: &Connection) -> Result<bool, StoreError> {
        let query = self.query(
            "UPDATE ad_platform_connections
                SET app_id = $1, subject_key = $2, subject_id = $3, subject_name = $4, subject_kind = $5,
                    token_version = $6, secret_id = $7, fingerprint = $8, revision = $9, kind = $10, expires_at = $11,
                    expiry_source = $12, expires_sort = $13, data_access_ends_at = $14, issued_at = $15, scopes = $16,
                    granular_scopes = $17, standing = $18, standing_since = $19, standing_reason = $20,
                    provider_code = $21, last_validated_at = $22, last_rotated_at = $23, last_known_good = $24,
                    ad_account_count = $25, unreachable_count = $26, next_deadline_at = $27, next_renewal_at = $28,
                    renewal_attempts = $29, last_event_sequence = $30, updated_at = $31
              WHERE connection_id = $32 AND revision = $33",
        );
        let updated = bind_facts(query, connection)
            .bind(connection.id.as_uuid())
            .bind(connection.revision.saturating_sub(1))
            .execute()
            .await?;
        self.changed(Change::Connection(connection.id));
        Ok(updated == 1)
    }

    /// Makes a sealed secret the connection's current one; the one before is gone. `false`: the key that sealed it
    /// is no longer the workspace's newest, and nothing changed.
    pub async fn put_secret(
        &mut self,
        workspace: &WorkspaceId,
        secret: NewSecret,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        if !self.keep_data_key(workspace, secret.sealed.data_key_version).await? {
            return Ok(false);
        }
        self.query(
            "INSERT INTO connection_secrets
                    (connection_id, state, token_version, secret_id, data_key_version, sealed, created_at)
             VALUES ($1, 'CURRENT', $2, $3, $4, $5, $6)
             ON CONFLICT (connection_id, state) DO UPDATE
                SET token_version = excluded.token_version, secret_id = excluded.secret_id,
                    data_key_version = excluded.data_key_version, sealed = excluded.sealed,
                    created_at = excluded.created_at",
        )
        .bind(secret.connection.as_uuid())
        .bind(i64::from(secret.version.get()))
        .bind(secret.secret_id.as_uuid())
        .bind(i64::from(secret.sealed.data_key_version))
        .bind(secret.sealed.bytes)
        .bind(now.as_micros())
        .execute()
        .await?;
        self.changed(Change::Connection(secret.connection));
        Ok(true)
    }

    /// Destroys every secret of a connection.
    pub async fn destroy_secrets(&mut self, id: ConnectionId) -> Result<(), StoreError> {
        self.query("DELETE FROM connection_secrets WHERE connection_id = $1")
            .bind(id.as_uuid())
            .execute()
            .await?;
        self.changed(Change::Connection(id));
        Ok(())
    }

    /// Forgets the ad accounts of a connection.
    pub async fn forget_ad_accounts(&mut self, id: ConnectionId) -> Result<(), StoreError> {
        self.query("DELETE FROM connection_ad_accounts WHERE connection_id = $1")
            .bind(id.as_uuid())
            .execute()
            .await?;
        Ok(())
    }

    /// Records which ad accounts a token reaches now. Those that it no longer does stay, marked; the answer is
    /// their number and what came and went.
    pub async fn record_ad_accounts(
        &mut self,
        id: ConnectionId,
        accounts: &[AdAccount],
        now: Timestamp,
    ) -> Result<(u32, AccountChange), StoreError> {
        let known: HashMap<String, AccountRow> = self
            .known_ad_accounts(id)
            .await?
            .into_iter()
            .map(|row| (row.ad_account_id.clone(), row))
            .collect();
        let reached: HashSet<&str> = accounts.iter().map(|account| account.id.as_str()).collect();
        let mut change = AccountChange::default();
        for row in
            known.values().filter(|row| !row.unreachable && !reached.contains(row.ad_account_id.as_str()))
        {
            change.removed.push(row.ad_account_id.clone());
            self.query(
                "UPDATE connection_ad_accounts SET unreachable_since = $3
                  WHERE connection_id = $1 AND ad_account_id = $2",
            )
            .bind(id.as_uuid())
            .bind(row.ad_account_id.clone())
            .bind(now.as_micros())
            .execute()
            .await?;
        }
        // One statement for all that stayed as it was; a row each only for what is new or changed.
        self.query(
            "UPDATE connection_ad_accounts SET last_reachable_at = $2, checked_at = $2
              WHERE connection_id = $1 AND unreachable_since IS NULL",
        )
        .bind(id.as_uuid())
        .bind(now.as_micros())
        .execute()
        .await?;
        for account in accounts {
            let row = known.get(&account.id);
            if row.is_none_or(|row| row.unreachable) {
                change.added.push(account.id.clone());
            }
            if row.is_none_or(|row| !row.is(account)) {
                self.put_ad_account(id.as_uuid(), account, now).await?;
            }
        }
        let count: Count = self
            .query(
                "SELECT count(*) AS n FROM connection_ad_accounts
                  WHERE connection_id = $1 AND unreachable_since IS NOT NULL",
            )
            .bind(id.as_uuid())
            .fetch_one()
            .await?;
        change.added.sort();
        change.removed.sort();
        Ok((u32::try_from(count.n).unwrap_or(u32::MAX), change))
    }

    async fn put_ad_account(
        &mut self,
        id: Uuid,
        account: &AdAccount,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.query(
            "INSERT INTO connection_ad_accounts
                    (connection_id, ad_account_id, name, currency, time_zone, state, provider_state,
                     owner_id, owner_name, last_reachable_at, unreachable_since, checked_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULL, $10)
             ON CONFLICT (connection_id, ad_account_id) DO UPDATE
                SET name = excluded.name, currency = excluded.currency, time_zone = excluded.time_zone,
                    state = excluded.state, provider_state = excluded.provider_state, owner_id = excluded.owner_id,
                    owner_name = excluded.owner_name, last_reachable_at = excluded.last_reachable_at,
                    unreachable_since = NULL, checked_at = excluded.checked_at",
        )
        .bind(id)
        .bind(account.id.clone())
        .bind(account.name.clone())
        .bind(account.currency.clone())
        .bind(account.time_zone.clone())
        .bind(account.state.as_str())
        .bind(account.provider_state.clone())
        .bind(account.owner_id.clone())
        .bind(account.owner_name.clone())
        .bind(now.as_micros())
        .execute()
        .await
        .map(|_| ())
    }
}

/// One row that can't be read must not hold up all others.
pub(in crate::store) fn readable(row: ConnectionRow) -> Option<Connection> {
    let id = row.connection_id;
    Connection::try_from(row)
        .inspect_err(|error| tracing::error!(connection = %id, %error, "a connection's row can't be read"))
        .ok()
}
