//! Tables `events` and `feed`. The writer numbers a transaction's events last, under one lock; so the order of commits
//! is the order of sequences, on both databases.

use sqlx::types::Json;
use uuid::Uuid;

use super::event_rows::{Body, EventParameter, EventRow, severity_number};
use crate::model::{ConnectionId, Event, FeedPosition, Timestamp};
use crate::store::sql::{Backend, Session, StoreError, Tx};

/// Where the feed begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedState {
    /// Just after the last event.
    pub head: FeedPosition,
    /// Sequence of the oldest event that is kept.
    pub oldest: i64,
    /// Identity of the event just before that one; 0 when nothing was compacted.
    pub compacted_identity: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventDrive {
    Everywhere,
    Connection(ConnectionId),
}

/// Events that match a condition, with today's names of their subjects: no event holds a person's name.
macro_rules! events_where {
    ($rest:expr) => {
        concat!(
            "SELECT e.sequence, e.identity, e.kind, e.severity, e.workspace_id, e.provider, e.connection_id,
                    e.token_version, e.occurred_at, e.recorded_at, e.body, c.subject_id, c.subject_name, c.subject_kind
               FROM events e LEFT JOIN ad_platform_connections c ON c.connection_id = e.connection_id
              WHERE ",
            $rest
        )
    };
}

/// One text for each kind of selection (`EventDrive`) and direction.
macro_rules! list_events_sql {
    ($drive:literal) => {
        [
            events_where!(concat!($drive, " AND e.sequence BETWEEN $2 AND $3 ORDER BY e.sequence LIMIT $4")),
            events_where!(concat!(
                $drive,
                " AND e.sequence BETWEEN $2 AND $3 ORDER BY e.sequence DESC LIMIT $4"
            )),
        ]
    };
}

impl Session {
    /// Where the feed begins and ends.
    pub async fn feed_state(&mut self) -> Result<FeedState, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            oldest_sequence: i64,
            compacted_identity: i64,
            sequence: i64,
            identity: i64,
        }
        let row: Row = self
            .query(
                "SELECT f.oldest_sequence, f.compacted_identity, coalesce(e.sequence, 0) AS sequence,
                        coalesce(e.identity, 0) AS identity
                   FROM feed f
                   LEFT JOIN (SELECT sequence, identity FROM events ORDER BY sequence DESC LIMIT 1) e ON 1 = 1",
            )
            .fetch_one()
            .await?;
        Ok(FeedState {
            head: FeedPosition { sequence: row.sequence, identity: row.identity },
            oldest: row.oldest_sequence,
            compacted_identity: row.compacted_identity,
        })
    }

    /// The identity of an event; `None` if it is no longer kept, or never existed.
    pub async fn event_identity(&mut self, sequence: i64) -> Result<Option<i64>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            identity: i64,
        }
        let row: Option<Row> = self
            .query("SELECT identity FROM events WHERE sequence = $1")
            .bind(sequence)
            .fetch_optional()
            .await?;
        Ok(row.map(|row| row.identity))
    }

    /// The next events after a sequence, in order. Only retention leaves gaps.
    pub async fn events_after(&mut self, sequence: i64, limit: i64) -> Result<Vec<Event>, StoreError> {
        let rows: Vec<EventRow> = self
            .query(events_where!("e.sequence > $1 ORDER BY e.sequence LIMIT $2"))
            .bind(sequence)
            .bind(limit)
            .fetch_all()
            .await?;
        rows.into_iter().map(Event::try_from).collect()
    }

    /// [`Self::events_after`], if the event at `position` is still the one that was read there. `None`: it is no longer
    /// kept, or the database is another copy.
    pub async fn events_following(
        &mut self,
        position: FeedPosition,
        limit: i64,
    ) -> Result<Option<Vec<Event>>, StoreError> {
        if position.sequence == 0 {
            return self.events_after(0, limit).await.map(Some);
        }
        let mut events = self.events_after(position.sequence - 1, limit.saturating_add(1)).await?;
        if events.first().map(Event::position) != Some(position) {
            return Ok(None);
        }
        events.remove(0);
        Ok(Some(events))
    }

    /// Events of one drive between two sequences, both inclusive.
    pub async fn list_events(
        &mut self,
        drive: &EventDrive,
        (low, high): (i64, i64),
        oldest_first: bool,
        limit: i64,
    ) -> Result<Vec<Event>, StoreError> {
        const EVERYWHERE: [&str; 2] = list_events_sql!("$1 = ''");
        const CONNECTION: [&str; 2] = list_events_sql!("e.connection_id = $1");
        let [ascending, descending] = match drive {
            EventDrive::Everywhere => EVERYWHERE,
            EventDrive::Connection(_) => CONNECTION,
        };
        let query = self.query(if oldest_first { ascending } else { descending });
        let query = match drive {
            EventDrive::Everywhere => query.bind(String::new()),
            EventDrive::Connection(id) => query.bind(id.as_uuid()),
        };
        let rows: Vec<EventRow> = query.bind(low).bind(high).bind(limit).fetch_all().await?;
        rows.into_iter().map(Event::try_from).collect()
    }

    /// Sequence of the first event that was recorded at or after an instant.
    pub async fn first_event_since(&mut self, instant: Timestamp) -> Result<Option<i64>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            sequence: i64,
        }
        let row: Option<Row> = self
            .query(
                "SELECT sequence FROM events WHERE recorded_at >= $1 ORDER BY recorded_at, sequence LIMIT 1",
            )
            .bind(instant.as_micros())
            .fetch_optional()
            .await?;
        Ok(row.map(|row| row.sequence))
    }
}

impl Tx {
    /// Deletes events recorded before an instant, oldest first, at most `limit`. The last event of all stays, because
    /// numbers continue from it. Returns how many were deleted.
    pub async fn compact_events(&mut self, before: Timestamp, limit: i64) -> Result<u64, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Last {
            sequence: i64,
            identity: i64,
        }
        self.lock_feed().await?;
        let last: Option<Last> = self
            .query(
                "SELECT sequence, identity FROM (
                     SELECT sequence, identity FROM events
                      WHERE recorded_at < $1 AND sequence < (SELECT max(sequence) FROM events)
                      ORDER BY sequence LIMIT $2) AS oldest
                  ORDER BY sequence DESC LIMIT 1",
            )
            .bind(before.as_micros())
            .bind(limit)
            .fetch_optional()
            .await?;
        let Some(last) = last else { return Ok(0) };
        let deleted =
            self.query("DELETE FROM events WHERE sequence <= $1").bind(last.sequence).execute().await?;
        self.query("UPDATE feed SET oldest_sequence = $1 + 1, compacted_identity = $2 WHERE singleton = 1")
            .bind(last.sequence)
            .bind(last.identity)
            .execute()
            .await?;
        Ok(deleted)
    }

    /// Locks the feed, so that commits happen in the order of numbers across replicas. SQLite has only one writer.
    pub(in crate::store) async fn lock_feed(&mut self) -> Result<(), StoreError> {
        if self.backend() == Backend::Postgres {
            self.query("SELECT pg_advisory_xact_lock(7022001)").execute().await?;
        }
        Ok(())
    }

    /// Numbers and writes the transaction's events. Called once, under the feed's lock, right before COMMIT. Returns
    /// the number before the first, and the new head.
    pub(in crate::store) async fn number_events(
        &mut self,
        now: Timestamp,
    ) -> Result<(i64, FeedPosition), StoreError> {
        #[derive(sqlx::FromRow)]
        struct Last {
            sequence: i64,
            recorded_at: i64,
        }
        let last: Option<Last> = self
            .query("SELECT sequence, recorded_at FROM events ORDER BY sequence DESC LIMIT 1")
            .fetch_optional()
            .await?;
        let (base, recorded) = last.map_or((0, i64::MIN), |last| (last.sequence, last.recorded_at));
        let recorded_at = now.as_micros().max(recorded);
        let mut head = FeedPosition::default();
        let mut parameters = Vec::with_capacity(self.pending().events.len());
        for (number, mut word) in (base + 1..).zip(std::mem::take(&mut self.pending_mut().events)) {
            let resolve = |reference: &mut i64| {
                if *reference < 0 {
                    *reference = base - *reference;
                }
            };
            resolve(&mut word.incident);
            word.closes.iter_mut().for_each(|closed| resolve(&mut closed.sequence));
            head = FeedPosition { sequence: number, identity: fresh_identity() };
            parameters.push(EventParameter {
                sequence: number,
                identity: head.identity,
                kind: word.kind.as_str(),
                severity: severity_number(word.severity),
                workspace_id: word.workspace.as_ref().map_or(String::new(), ToString::to_string),
                provider: word.provider.to_string(),
                connection_id: word.connection.map(|id| id.as_uuid().simple().to_string()),
                token_version: i64::from(word.version),
                occurred_at: word.occurred_at.as_micros(),
                recorded_at,
                body: Body::from(&word),
            });
        }
        self.query_for(
            "INSERT INTO events (sequence, identity, kind, severity, workspace_id, provider, connection_id,
                                 token_version, occurred_at, recorded_at, body)
             SELECT value->>'sequence', value->>'identity', value->>'kind', value->>'severity',
                    value->>'workspace_id', value->>'provider', unhex(value->>'connection_id'),
                    value->>'token_version', value->>'occurred_at', value->>'recorded_at', value->'body'
               FROM json_each($1)",
            "INSERT INTO events (sequence, identity, kind, severity, workspace_id, provider, connection_id,
                                 token_version, occurred_at, recorded_at, body)
             SELECT sequence, identity, kind, severity, workspace_id, provider, connection_id, token_version,
                    occurred_at, recorded_at, body
               FROM jsonb_to_recordset($1) AS r (sequence bigint, identity bigint, kind text, severity bigint,
                    workspace_id text, provider text, connection_id uuid, token_version bigint, occurred_at bigint,
                    recorded_at bigint, body jsonb)",
        )
        .bind(Json(parameters))
        .execute()
        .await?;
        // This transaction has already locked these rows, so it waits for nothing while it holds the feed's lock.
        for statement in [
            "UPDATE incidents SET opened_sequence = $1 - opened_sequence WHERE opened_sequence < 0",
            "UPDATE incidents SET closed_sequence = $1 - closed_sequence WHERE closed_sequence < 0",
            "UPDATE ad_platform_connections SET last_event_sequence = $1 - last_event_sequence
              WHERE last_event_sequence < 0",
        ] {
            self.query(statement).bind(base).execute().await?;
        }
        Ok((base, head))
    }
}

/// Random and positive; 0 stands for the position before all events.
fn fresh_identity() -> i64 {
    let (random, _) = Uuid::new_v4().as_u64_pair();
    i64::try_from(random >> 33).unwrap_or(0) | 1
}
