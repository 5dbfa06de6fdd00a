//! Table `subscriptions`: named positions in the feed.

use uuid::Uuid;

use crate::model::{FeedPosition, SubscriptionName, Timestamp};
use crate::store::sql::{Session, StoreError, Tx};

/// A subscription's position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    pub principal: String,
    pub name: String,
    /// Identifies the feed that `position` is in.
    pub epoch: Uuid,
    pub position: FeedPosition,
    pub acknowledged_at: Timestamp,
    pub created_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct Row {
    principal: String,
    name: String,
    epoch: Uuid,
    sequence: i64,
    identity: i64,
    acknowledged_at: i64,
    created_at: i64,
}

impl From<Row> for Bookmark {
    fn from(row: Row) -> Self {
        Self {
            principal: row.principal,
            name: row.name,
            epoch: row.epoch,
            position: FeedPosition { sequence: row.sequence, identity: row.identity },
            acknowledged_at: Timestamp::from_micros(row.acknowledged_at),
            created_at: Timestamp::from_micros(row.created_at),
        }
    }
}

impl Session {
    pub async fn bookmark(
        &mut self,
        principal: &str,
        name: &SubscriptionName,
    ) -> Result<Option<Bookmark>, StoreError> {
        let row: Option<Row> = self
            .query(
                "SELECT principal, name, epoch, sequence, identity, acknowledged_at, created_at
                   FROM subscriptions WHERE principal = $1 AND name = $2",
            )
            .bind(principal.to_owned())
            .bind(name.as_str().to_owned())
            .fetch_optional()
            .await?;
        Ok(row.map(Bookmark::from))
    }

    pub async fn count_bookmarks(&mut self, principal: &str) -> Result<i64, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Count {
            n: i64,
        }
        let count: Count = self
            .query("SELECT count(*) AS n FROM subscriptions WHERE principal = $1")
            .bind(principal.to_owned())
            .fetch_one()
            .await?;
        Ok(count.n)
    }

    /// Bookmarks after one, by principal and name.
    pub async fn bookmarks(&mut self, after: (&str, &str), limit: i64) -> Result<Vec<Bookmark>, StoreError> {
        let rows: Vec<Row> = self
            .query(
                "SELECT principal, name, epoch, sequence, identity, acknowledged_at, created_at
                   FROM subscriptions WHERE (principal, name) > ($1, $2) ORDER BY principal, name LIMIT $3",
            )
            .bind(after.0.to_owned())
            .bind(after.1.to_owned())
            .bind(limit)
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(Bookmark::from).collect())
    }
}

impl Tx {
    /// Moves a bookmark, or creates it. `rewind`: it may move back within its feed. `false`: it would move back and
    /// may not.
    pub async fn move_bookmark(&mut self, bookmark: &Bookmark, rewind: bool) -> Result<bool, StoreError> {
        let moved = self
            .query(
                "INSERT INTO subscriptions (principal, name, epoch, sequence, identity, acknowledged_at, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (principal, name) DO UPDATE
                    SET epoch = excluded.epoch, sequence = excluded.sequence, identity = excluded.identity,
                        acknowledged_at = excluded.acknowledged_at
                  WHERE $8 = 1 OR subscriptions.epoch <> excluded.epoch
                     OR subscriptions.sequence <= excluded.sequence",
            )
            .bind(bookmark.principal.clone())
            .bind(bookmark.name.clone())
            .bind(bookmark.epoch)
            .bind(bookmark.position.sequence)
            .bind(bookmark.position.identity)
            .bind(bookmark.acknowledged_at.as_micros())
            .bind(bookmark.created_at.as_micros())
            .bind(i64::from(rewind))
            .execute()
            .await?;
        Ok(moved == 1)
    }

    /// Deletes a bookmark. `false`: there was none.
    pub async fn delete_bookmark(
        &mut self,
        principal: &str,
        name: &SubscriptionName,
    ) -> Result<bool, StoreError> {
        let deleted = self
            .query("DELETE FROM subscriptions WHERE principal = $1 AND name = $2")
            .bind(principal.to_owned())
            .bind(name.as_str().to_owned())
            .execute()
            .await?;
        Ok(deleted == 1)
    }
}
