//! Table `replicas`: which processes live. A beat that stands still for three seconds of an observer's
//! own monotonic time ends the incarnation, and what it had claimed is free.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sqlx::types::Json;
use uuid::Uuid;

use crate::model::{Incarnation, Timestamp};
use crate::store::engine::Writer;
use crate::store::sql::Pool;
use crate::store::{Abort, Session, StoreError, Tx};

/// How long a beat may stand still.
const SILENCE: Duration = Duration::from_secs(3);

/// What this process saw of the others' beats.
#[derive(Default)]
pub(in crate::store) struct Observer {
    seen: Mutex<HashMap<Uuid, (i64, Instant)>>,
}

impl Observer {
    /// Notes the beats and names those that stood still too long.
    fn note(&self, own: Incarnation, beats: &[BeatRow]) -> Vec<BeatRow> {
        let Ok(mut seen) = self.seen.lock() else { return Vec::new() };
        let now = Instant::now();
        seen.retain(|incarnation, _| beats.iter().any(|row| row.incarnation == *incarnation));
        beats
            .iter()
            .filter(|row| row.incarnation != own.as_uuid())
            .filter(|row| {
                let (beat, since) = seen.entry(row.incarnation).or_insert((row.beat, now));
                if *beat != row.beat {
                    (*beat, *since) = (row.beat, now);
                }
                since.elapsed() >= SILENCE
            })
            .cloned()
            .collect()
    }
}

/// What a process says of itself.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Its name for people.
    pub name: String,
    /// Ids of the master keys that it holds.
    pub master_keys: Vec<String>,
}

#[derive(Clone, sqlx::FromRow)]
struct BeatRow {
    incarnation: Uuid,
    beat: i64,
}

#[derive(sqlx::FromRow)]
struct Ended {
    ended_at: Option<i64>,
}

/// What a process says with each beat.
#[derive(Clone)]
pub(in crate::store) struct Beat {
    /// The highest change that it has applied.
    pub(in crate::store) applied: i64,
    /// Microseconds that its clock is ahead of the database's.
    pub(in crate::store) clock_offset: i64,
    /// Ids of the master keys that it holds; `None` before it is registered.
    pub(in crate::store) master_keys: Option<Vec<String>>,
}

/// Beats once and ends those that fell silent. Failures wait for the next beat. `false`: others ended us.
pub(in crate::store) async fn beat(
    writer: &Writer,
    readers: &Pool,
    observer: &Observer,
    own: Incarnation,
    state: Beat,
) -> bool {
    let silent = match read_beats(readers).await {
        Ok(beats) => observer.note(own, &beats),
        Err(_) => return true,
    };
    let outcome: Result<bool, Abort<Infallible>> = writer
        .write(move |tx| {
            let (silent, state) = (silent.clone(), state.clone());
            Box::pin(async move {
                let known = tx
                    .query(
                        "UPDATE replicas SET beat = beat + 1, applied_revision = $2, clock_offset = $3,
                                master_key_ids = coalesce($4, master_key_ids)
                          WHERE incarnation = $1",
                    )
                    .bind(own.as_uuid())
                    .bind(state.applied)
                    .bind(state.clock_offset)
                    .bind(state.master_keys.map(Json))
                    .execute()
                    .await?;
                for row in silent {
                    tx.query("DELETE FROM replicas WHERE incarnation = $1 AND beat = $2")
                        .bind(row.incarnation)
                        .bind(row.beat)
                        .execute()
                        .await?;
                }
                Ok(known == 1)
            })
        })
        .await;
    match outcome {
        Ok(known) => known,
        Err(Abort::Store(error)) => {
            tracing::debug!(%error, "a beat was missed");
            true
        }
        Err(Abort::Refused(never)) => match never {},
    }
}

/// Adds this process to the living. `alone`: no other can live (SQLite is locked), so all others have ended.
pub(in crate::store) async fn register(
    writer: &Writer,
    incarnation: Incarnation,
    registration: Registration,
    alone: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    let outcome: Result<(), Abort<Infallible>> = writer
        .write(move |tx| {
            let registration = registration.clone();
            Box::pin(async move {
                if alone {
                    tx.query("DELETE FROM replicas").execute().await?;
                }
                tx.query(
                    "INSERT INTO replicas (incarnation, name, beat, version, master_key_ids, config_revision,
                                           clock_offset, applied_revision, started_at)
                     VALUES ($1, $2, 0, $3, $4, 0, 0, 0, $5) ON CONFLICT (incarnation) DO NOTHING",
                )
                .bind(incarnation.as_uuid())
                .bind(registration.name)
                .bind(env!("CARGO_PKG_VERSION"))
                .bind(Json(registration.master_keys))
                .bind(now.as_micros())
                .execute()
                .await?;
                Ok(())
            })
        })
        .await;
    match outcome {
        Ok(()) => Ok(()),
        Err(Abort::Store(error)) => Err(error),
        Err(Abort::Refused(never)) => match never {},
    }
}

/// Says which master keys a process holds, ahead of its next beat.
pub(in crate::store) async fn report_master_keys(
    writer: &Writer,
    own: Incarnation,
    ids: Vec<String>,
) -> Result<(), StoreError> {
    let outcome: Result<(), Abort<Infallible>> = writer
        .write(move |tx| {
            let ids = ids.clone();
            Box::pin(async move {
                tx.query("UPDATE replicas SET master_key_ids = $2 WHERE incarnation = $1")
                    .bind(own.as_uuid())
                    .bind(Json(ids))
                    .execute()
                    .await?;
                Ok(())
            })
        })
        .await;
    match outcome {
        Ok(()) => Ok(()),
        Err(Abort::Store(error)) => Err(error),
        Err(Abort::Refused(never)) => match never {},
    }
}

async fn read_beats(readers: &Pool) -> Result<Vec<BeatRow>, StoreError> {
    readers
        .session()
        .await?
        .query("SELECT incarnation, beat FROM replicas WHERE ended_at IS NULL")
        .fetch_all()
        .await
}

/// A living process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its life.
    pub incarnation: Incarnation,
    /// Its name for people.
    pub name: String,
    /// Of its program.
    pub version: String,
    /// Microseconds that its clock is ahead of the database's.
    pub clock_offset: i64,
    /// When it began.
    pub started_at: Timestamp,
    /// Ids of the master keys that it holds.
    pub master_keys: Vec<String>,
    /// The highest change that it has applied, as of its last beat.
    pub applied_revision: i64,
}

#[derive(sqlx::FromRow)]
struct ReplicaRow {
    incarnation: Uuid,
    name: String,
    version: String,
    clock_offset: i64,
    started_at: i64,
    master_key_ids: Json<Vec<String>>,
    applied_revision: i64,
}

impl Session {
    /// The living processes, oldest first.
    pub async fn replicas(&mut self) -> Result<Vec<Replica>, StoreError> {
        let rows: Vec<ReplicaRow> = self
            .query(
                "SELECT incarnation, name, version, clock_offset, started_at, master_key_ids, applied_revision
                   FROM replicas
                  WHERE ended_at IS NULL ORDER BY started_at, incarnation LIMIT 1000",
            )
            .fetch_all()
            .await?;
        let replica = |row: ReplicaRow| Replica {
            incarnation: Incarnation::from_uuid(row.incarnation),
            name: row.name,
            version: row.version,
            clock_offset: row.clock_offset,
            started_at: Timestamp::from_micros(row.started_at),
            master_keys: row.master_key_ids.0,
            applied_revision: row.applied_revision,
        };
        Ok(rows.into_iter().map(replica).collect())
    }

    /// Whether a process still counts as living.
    pub async fn replica_lives(&mut self, incarnation: Incarnation) -> Result<bool, StoreError> {
        let row: Option<Ended> = self
            .query("SELECT ended_at FROM replicas WHERE incarnation = $1")
            .bind(incarnation.as_uuid())
            .fetch_optional()
            .await?;
        Ok(row.is_some_and(|row| row.ended_at.is_none()))
    }
}

impl Tx {
    /// Ends this process's own life: what it had claimed is free at once.
    pub async fn end_replica(&mut self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.query("DELETE FROM replicas WHERE incarnation = $1")
            .bind(incarnation.as_uuid())
            .execute()
            .await?;
        Ok(())
    }
}
