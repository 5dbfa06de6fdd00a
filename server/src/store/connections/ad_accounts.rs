//! Table `connection_ad_accounts`: which ad accounts each token reaches, or once did.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::model::{
    AccountChange, AdAccount, AdAccountList, AdAccountState, Connection, ConnectionId, Timestamp,
};
use crate::store::sql::{Change, Session, StoreError, Tx};

/// Which ad accounts a connection reaches after a list.
#[derive(Debug)]
pub struct Reach {
    pub reached: u32,
    /// Those that it reached before, and no longer does.
    pub unreachable: u32,
    /// What the list changed.
    pub change: AccountChange,
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
    /// Whether the provider told nothing that the row does not hold.
    fn is_up_to_date(&self, account: &AdAccount) -> bool {
        let held = |told: Option<&String>, held: &String| told.is_none_or(|told| told == held);
        let owner = account.owner.as_ref();
        held(account.name.as_ref(), &self.name)
            && held(account.currency.as_ref(), &self.currency)
            && held(account.time_zone.as_ref(), &self.time_zone)
            && held(account.provider_state.as_ref(), &self.provider_state)
            && held(owner.map(|owner| &owner.id), &self.owner_id)
            && held(owner.and_then(|owner| owner.name.as_ref()), &self.owner_name)
            && !self.unreachable
    }
}

/// One ad account, as the last list found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAdAccount {
    pub id: String,
    pub name: String,
    pub currency: String,
    pub time_zone: String,
    pub state: AdAccountState,
    pub provider_state: String,
    pub owner_id: String,
    pub owner_name: String,
    pub last_reachable_at: Option<Timestamp>,
    /// `None` while the token reaches it.
    pub unreachable_since: Option<Timestamp>,
    pub checked_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct KnownRow {
    ad_account_id: String,
    name: String,
    currency: String,
    time_zone: String,
    state: String,
    provider_state: String,
    owner_id: String,
    owner_name: String,
    last_reachable_at: Option<i64>,
    unreachable_since: Option<i64>,
    checked_at: i64,
}

impl From<KnownRow> for KnownAdAccount {
    fn from(row: KnownRow) -> Self {
        Self {
            id: row.ad_account_id,
            name: row.name,
            currency: row.currency,
            time_zone: row.time_zone,
            state: AdAccountState::from_name(&row.state),
            provider_state: row.provider_state,
            owner_id: row.owner_id,
            owner_name: row.owner_name,
            last_reachable_at: row.last_reachable_at.map(Timestamp::from_micros),
            unreachable_since: row.unreachable_since.map(Timestamp::from_micros),
            checked_at: Timestamp::from_micros(row.checked_at),
        }
    }
}

impl Session {
    /// Ad accounts of a connection after one, by id; only those that it reaches, or no longer reaches, if asked for.
    pub async fn ad_accounts_after(
        &mut self,
        id: ConnectionId,
        after: &str,
        reachable: Option<bool>,
        limit: i64,
    ) -> Result<Vec<KnownAdAccount>, StoreError> {
        let wanted = match reachable {
            None => "ALL",
            Some(true) => "REACHABLE",
            Some(false) => "LOST",
        };
        let rows: Vec<KnownRow> = self
            .query(
                "SELECT ad_account_id, name, currency, time_zone, state, provider_state, owner_id, owner_name,
                        last_reachable_at, unreachable_since, checked_at
                   FROM connection_ad_accounts
                  WHERE connection_id = $1 AND ad_account_id > $2
                    AND ($3 = 'ALL' OR ($3 = 'REACHABLE' AND unreachable_since IS NULL)
                         OR ($3 = 'LOST' AND unreachable_since IS NOT NULL))
                  ORDER BY ad_account_id LIMIT $4",
            )
            .bind(id.as_uuid())
            .bind(after.to_owned())
            .bind(wanted)
            .bind(limit)
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// When the ad accounts of a connection were last listed; `None` if there are none.
    pub async fn ad_accounts_checked_at(
        &mut self,
        id: ConnectionId,
    ) -> Result<Option<Timestamp>, StoreError> {
        let (at,): (Option<i64>,) = self
            .query(
                "SELECT max(checked_at) AS checked_at FROM connection_ad_accounts WHERE connection_id = $1",
            )
            .bind(id.as_uuid())
            .fetch_one()
            .await?;
        Ok(at.map(Timestamp::from_micros))
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

impl Tx {
    /// Erases the person or company that a connection belongs to: its id, its name, and its ad accounts.
    pub async fn erase_subject(&mut self, connection: &mut Connection) -> Result<(), StoreError> {
        connection.subject.id.clear();
        connection.subject.name.clear();
        self.forget_ad_accounts(connection.id).await?;
        self.destroyed();
        self.changed(Change::Erasure);
        Ok(())
    }

    async fn forget_ad_accounts(&mut self, id: ConnectionId) -> Result<(), StoreError> {
        self.query("DELETE FROM connection_ad_accounts WHERE connection_id = $1")
            .bind(id.as_uuid())
            .execute()
            .await?;
        Ok(())
    }

    /// Notes which ad accounts a token reaches now. Those that it no longer reaches stay, marked. What the list left out
    /// stays as it was known.
    pub async fn record_ad_accounts(
        &mut self,
        id: ConnectionId,
        list: &AdAccountList,
        now: Timestamp,
    ) -> Result<Reach, StoreError> {
        let accounts = &list.accounts;
        let known: HashMap<String, AccountRow> = self
            .known_ad_accounts(id)
            .await?
            .into_iter()
            .map(|row| (row.ad_account_id.clone(), row))
            .collect();
        let reached: HashSet<&str> = accounts.iter().map(|account| account.id.as_str()).collect();
        let mut change = AccountChange::default();
        let gone = |row: &&AccountRow| {
            list.is_complete() && !row.unreachable && !reached.contains(row.ad_account_id.as_str())
        };
        for row in known.values().filter(gone) {
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
        // One statement for all unchanged accounts, and one for each new or changed account.
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
            if row.is_none_or(|row| !row.is_up_to_date(account)) {
                self.put_ad_account(id.as_uuid(), account, now).await?;
            }
        }
        let (reached, unreachable): (i64, i64) = self
            .query(
                "SELECT count(*) - count(unreachable_since) AS reached, count(unreachable_since) AS unreachable
                   FROM connection_ad_accounts WHERE connection_id = $1",
            )
            .bind(id.as_uuid())
            .fetch_one()
            .await?;
        change.added.sort();
        change.removed.sort();
        let count = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Reach { reached: count(reached), unreachable: count(unreachable), change })
    }

    /// What the provider did not tell stays as it is; in a new row it is empty.
    async fn put_ad_account(
        &mut self,
        id: Uuid,
        account: &AdAccount,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let state = account.provider_state.as_ref().map(|_| account.state.as_str());
        self.query(
            "INSERT INTO connection_ad_accounts AS known
                    (connection_id, ad_account_id, name, currency, time_zone, state, provider_state,
                     owner_id, owner_name, last_reachable_at, unreachable_since, checked_at)
             VALUES ($1, $2, coalesce($3, ''), coalesce($4, ''), coalesce($5, ''), coalesce($6, $11),
                     coalesce($7, ''), coalesce($8, ''), coalesce($9, ''), $10, NULL, $10)
             ON CONFLICT (connection_id, ad_account_id) DO UPDATE
                SET name = coalesce($3, known.name), currency = coalesce($4, known.currency),
                    time_zone = coalesce($5, known.time_zone), state = coalesce($6, known.state),
                    provider_state = coalesce($7, known.provider_state),
                    owner_id = coalesce($8, known.owner_id), owner_name = coalesce($9, known.owner_name),
                    last_reachable_at = excluded.last_reachable_at, unreachable_since = NULL,
                    checked_at = excluded.checked_at",
        )
        .bind(id)
        .bind(account.id.clone())
        .bind(account.name.clone())
        .bind(account.currency.clone())
        .bind(account.time_zone.clone())
        .bind(state)
        .bind(account.provider_state.clone())
        .bind(account.owner.as_ref().map(|owner| owner.id.clone()))
        .bind(account.owner.as_ref().and_then(|owner| owner.name.clone()))
        .bind(now.as_micros())
        .bind(AdAccountState::Unknown.as_str())
        .execute()
        .await
        .map(|_| ())
    }
}
