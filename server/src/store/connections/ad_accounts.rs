//! Table `connection_ad_accounts`: which ad accounts each token reaches, or once did.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::model::{AccountChange, AdAccount, AdAccountList, ConnectionId, Timestamp};
use crate::store::sql::{Session, StoreError, Tx};

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
    /// `owners`: whether owners were read. Otherwise the known one stays, unless a new one was learned.
    fn is_up_to_date(&self, account: &AdAccount, owners: bool) -> bool {
        let reported = [&account.name, &account.currency, &account.time_zone, &account.provider_state];
        let known = [&self.name, &self.currency, &self.time_zone, &self.provider_state];
        let owner = (&self.owner_id, &self.owner_name) == (&account.owner_id, &account.owner_name)
            || !owners && account.owner_id.is_empty();
        reported == known && owner && !self.unreachable
    }
}

impl Session {
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
    pub async fn forget_ad_accounts(&mut self, id: ConnectionId) -> Result<(), StoreError> {
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
        let (accounts, owners) = (&list.accounts, !list.listing.unread.owners());
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
            if row.is_none_or(|row| !row.is_up_to_date(account, owners)) {
                let (owner_id, owner_name) = match row {
                    Some(row) if !owners && account.owner_id.is_empty() => (&row.owner_id, &row.owner_name),
                    _ => (&account.owner_id, &account.owner_name),
                };
                self.put_ad_account(id.as_uuid(), account, (owner_id, owner_name), now).await?;
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

    async fn put_ad_account(
        &mut self,
        id: Uuid,
        account: &AdAccount,
        (owner_id, owner_name): (&str, &str),
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
        .bind(owner_id.to_owned())
        .bind(owner_name.to_owned())
        .bind(now.as_micros())
        .execute()
        .await
        .map(|_| ())
    }
}
