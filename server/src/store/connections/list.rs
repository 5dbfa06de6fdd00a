//! Pages of connections: one ordered walk along one index, from where the last page ended.
//!
//! A list with several statuses or workspaces is several walks; `vault/token/list` merges them. So the
//! last page costs what the first does, and a filter never visits rows that it leaves out.

use sqlx::types::Json;
use uuid::Uuid;

use super::rows::{ConnectionRow, connection_columns};
use super::shared::shared_count;
use crate::model::{Connection, ConnectionId, ListOrder, WorkspaceId};
use crate::store::sql::{Session, StoreError};

/// Which connections the walk visits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListDrive {
    Everywhere,
    Workspace(WorkspaceId),
    /// Those whose token belongs to a subject.
    Subject(String),
    /// Those that reach, or reached, an ad account.
    AdAccount(String),
}

/// A connection's standing, as the database names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum StandingName {
    /// The provider accepts the token, as far as we know.
    Live,
    /// The provider refuses it.
    Invalid,
    /// The vault ended it.
    Revoked,
}

impl StandingName {
    pub(in crate::store) const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

/// A part of the index: connections of one standing whose end is within bounds, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListRange {
    pub standing: StandingName,
    /// Smallest sort key of the end.
    pub low: i64,
    /// Largest sort key of the end.
    pub high: i64,
}

/// The position of a connection in the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListPosition {
    pub end: i64,
    pub id: ConnectionId,
}

#[derive(sqlx::FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    connection: ConnectionRow,
    shared: i64,
}

/// One text for each walk: they differ in where they start and in their direction.
macro_rules! walk_sql {
    ($from:expr, $walk:expr) => {
        concat!(
            "SELECT ",
            connection_columns!(),
            ", ",
            shared_count!("c.connection_id", "c.subject_id", "c.provider", "c.app_id", ""),
            " AS shared FROM ",
            $from,
            " WHERE ",
            $walk,
            " LIMIT $6"
        )
    };
}

/// Walks along an interval of one index: the bounds and the order name the index's columns from the first one on
/// (`$lead` are those before the end and the id, `$at` their values). If the leading columns were compared with `=`
/// instead, a planner might choose an index that lacks them. Near the walk's end it does, and a page then visits the
/// rows of all workspaces. `CASE` keeps planners from relying on the ends where the walk follows age.
macro_rules! interval_sql {
    ($drive:literal, ($($lead:literal),+), ($($at:literal),+)) => {
        [
            walk_sql!(
                "ad_platform_connections c",
                concat!(
                    $drive, " (", $($lead, ", ",)+ "c.expires_sort, c.connection_id) > (", $($at, ", ",)+ "$3, $5)
                 AND (", $($lead, ", ",)+ "c.expires_sort) <= (", $($at, ", ",)+ "$4)
               ORDER BY ", $($lead, ", ",)+ "c.expires_sort, c.connection_id"
                )
            ),
            walk_sql!(
                "ad_platform_connections c",
                concat!(
                    $drive, " (", $($lead, ", ",)+ "c.connection_id) > (", $($at, ", ",)+ "$5)
                 AND (", join_sql!($($lead),+), ") <= (", join_sql!($($at),+), ") AND CASE WHEN c.expires_sort BETWEEN $3 AND $4 THEN TRUE ELSE FALSE END
               ORDER BY ", $($lead, ", ",)+ "c.connection_id"
                )
            ),
            walk_sql!(
                "ad_platform_connections c",
                concat!(
                    $drive, " (", $($lead, ", ",)+ "c.connection_id) < (", $($at, ", ",)+ "$5)
                 AND (", join_sql!($($lead),+), ") >= (", join_sql!($($at),+), ") AND CASE WHEN c.expires_sort BETWEEN $3 AND $4 THEN TRUE ELSE FALSE END
               ORDER BY ", $($lead, " DESC, ",)+ "c.connection_id DESC"
                )
            ),
        ]
    };
}

macro_rules! join_sql {
    ($first:literal $(, $next:literal)*) => {
        concat!($first $(, ", ", $next)*)
    };
}

/// Walks over the few connections of a subject or an ad account.
macro_rules! few_sql {
    ($from:literal, $drive:literal) => {
        [
            walk_sql!(
                $from,
                concat!(
                    $drive,
                    " AND c.standing = $2 AND (c.expires_sort, c.connection_id) > ($3, $5)
                 AND c.expires_sort <= $4 ORDER BY c.expires_sort, c.connection_id"
                )
            ),
            walk_sql!(
                $from,
                concat!(
                    $drive,
                    " AND c.standing = $2 AND c.connection_id > $5
                 AND +c.expires_sort BETWEEN $3 AND $4 ORDER BY c.connection_id"
                )
            ),
            walk_sql!(
                $from,
                concat!(
                    $drive,
                    " AND c.standing = $2 AND c.connection_id < $5
                 AND +c.expires_sort BETWEEN $3 AND $4 ORDER BY c.connection_id DESC"
                )
            ),
        ]
    };
}

/// Connections by id, for a snapshot.
macro_rules! snapshot_sql {
    ($of:literal) => {
        concat!(
            "SELECT ",
            connection_columns!(),
            ", ",
            shared_count!("c.connection_id", "c.subject_id", "c.provider", "c.app_id", ""),
            " AS shared FROM ad_platform_connections c
             WHERE c.connection_id > $1 AND c.standing <> 'REVOKED'",
            $of,
            " ORDER BY c.connection_id LIMIT $2"
        )
    };
}

/// Ordered by end, oldest first, youngest first.
type Texts = [&'static str; 3];

const EVERYWHERE: Texts = interval_sql!("$1 = '' AND", ("c.standing"), ("$2"));
const WORKSPACE: Texts = interval_sql!("", ("c.workspace_id", "c.standing"), ("$1", "$2"));
const SUBJECT: Texts = few_sql!("ad_platform_connections c", "c.subject_id = $1");
const AD_ACCOUNT: Texts = few_sql!(
    "connection_ad_accounts a JOIN ad_platform_connections c ON c.connection_id = a.connection_id",
    "a.ad_account_id = $1"
);

impl Session {
    /// The next connections of one walk, each with the number of other connections that end with it.
    pub async fn list_connections(
        &mut self,
        drive: &ListDrive,
        order: ListOrder,
        range: ListRange,
        after: Option<ListPosition>,
        limit: i64,
    ) -> Result<Vec<(Connection, u32)>, StoreError> {
        let (texts, key) = match drive {
            ListDrive::Everywhere => (&EVERYWHERE, ""),
            ListDrive::Workspace(workspace) => (&WORKSPACE, workspace.as_str()),
            ListDrive::Subject(subject) => (&SUBJECT, subject.as_str()),
            ListDrive::AdAccount(account) => (&AD_ACCOUNT, account.as_str()),
        };
        let [by_end, oldest, youngest] = *texts;
        // The walk by end has one lower bound, the later of the range's and the page's: with two, a
        // planner may start at the wrong one and visit all that was seen before.
        let (text, low, id) = match order {
            ListOrder::ExpiresFirst => match after {
                Some(after) if after.end >= range.low => (by_end, after.end, after.id.as_uuid()),
                _ => (by_end, range.low.saturating_sub(1), Uuid::max()),
            },
            ListOrder::CreatedFirst => {
                (oldest, range.low, after.map_or(Uuid::nil(), |after| after.id.as_uuid()))
            }
            ListOrder::CreatedLast => {
                (youngest, range.low, after.map_or(Uuid::max(), |after| after.id.as_uuid()))
            }
        };
        let rows: Vec<ListedRow> = self
            .query(text)
            // The size of an interval depends on its bounds; a plan for unknown bounds would sort, to be safe.
            .planned_anew()
            .bind(key.to_owned())
            .bind(range.standing.as_str())
            .bind(low)
            .bind(range.high)
            .bind(id)
            .bind(limit)
            .fetch_all()
            .await?;
        rows.into_iter()
            .map(|row| Ok((row.connection.try_into()?, u32::try_from(row.shared).unwrap_or(u32::MAX))))
            .collect()
    }

    /// Connections that are not revoked, by id, after one; of some workspaces, or of all. Each with the number of
    /// other connections that end with it.
    pub async fn snapshot_page(
        &mut self,
        workspaces: Option<&[WorkspaceId]>,
        after: Option<ConnectionId>,
        limit: i64,
    ) -> Result<Vec<(Connection, u32)>, StoreError> {
        let after = after.map_or(Uuid::nil(), ConnectionId::as_uuid);
        let rows: Vec<ListedRow> = match workspaces {
            None => self.query(snapshot_sql!("")).bind(after).bind(limit).fetch_all().await?,
            Some(workspaces) => {
                let names: Vec<&str> = workspaces.iter().map(WorkspaceId::as_str).collect();
                self.query_for(
                    snapshot_sql!(" AND c.workspace_id IN (SELECT value FROM json_each($3))"),
                    snapshot_sql!(" AND c.workspace_id IN (SELECT jsonb_array_elements_text($3))"),
                )
                .bind(after)
                .bind(limit)
                .bind(Json(names.into_iter().map(str::to_owned).collect::<Vec<_>>()))
                .fetch_all()
                .await?
            }
        };
        rows.into_iter()
            .map(|row| Ok((row.connection.try_into()?, u32::try_from(row.shared).unwrap_or(u32::MAX))))
            .collect()
    }

    /// How many connections a range holds, everywhere or in a workspace. For status, not for pages.
    pub async fn count_connections(&mut self, workspace: &str, range: ListRange) -> Result<u64, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Count {
            n: i64,
        }
        let count: Count = self
            .query(
                "SELECT count(*) AS n FROM ad_platform_connections c
                  WHERE ($1 = '' OR c.workspace_id = $1) AND c.standing = $2 AND c.expires_sort BETWEEN $3 AND $4",
            )
            .bind(workspace.to_owned())
            .bind(range.standing.as_str())
            .bind(range.low)
            .bind(range.high)
            .fetch_one()
            .await?;
        Ok(u64::try_from(count.n).unwrap_or(0))
    }
}
