//! Table `replicas`: which processes are alive, and which keys each holds and which changes it has applied.
//! `engine/beats.rs` keeps it up to date.

use sqlx::types::Json;
use uuid::Uuid;

use crate::model::{Incarnation, Timestamp};
use crate::store::sql::{Session, StoreError, Tx};

/// What a process registers with.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Its name for people.
    pub name: String,
    /// Ids of the master keys that it holds.
    pub master_keys: Vec<String>,
}

/// How far a process's beats have come.
#[derive(Clone, sqlx::FromRow)]
pub(in crate::store) struct BeatRow {
    pub(in crate::store) incarnation: Uuid,
    pub(in crate::store) beat: i64,
}

/// What a process writes with each beat.
#[derive(Clone)]
pub(in crate::store) struct Beat {
    /// The highest change that it has applied.
    pub(in crate::store) applied: i64,
    /// Microseconds that its clock is ahead of the database's.
    pub(in crate::store) clock_offset: i64,
    /// Ids of the master keys that it holds; `None` before it is registered.
    pub(in crate::store) master_keys: Option<Vec<String>>,
}

/// A process that is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    pub incarnation: Incarnation,
    /// Its name for people.
    pub name: String,
    /// The version of the program that it runs.
    pub version: String,
    /// Microseconds that its clock is ahead of the database's.
    pub clock_offset: i64,
    pub started_at: Timestamp,
    /// Ids of the master keys that it holds.
    pub master_keys: Vec<String>,
    /// The highest change that it had applied at its last beat.
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
    /// The beats of all processes that have not ended.
    pub(in crate::store) async fn beats(&mut self) -> Result<Vec<BeatRow>, StoreError> {
        self.query("SELECT incarnation, beat FROM replicas WHERE ended_at IS NULL").fetch_all().await
    }

    /// The processes that are alive, oldest first.
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

    /// Whether a process still counts as alive.
    pub async fn replica_lives(&mut self, incarnation: Incarnation) -> Result<bool, StoreError> {
        let row: Option<(Option<i64>,)> = self
            .query("SELECT ended_at FROM replicas WHERE incarnation = $1")
            .bind(incarnation.as_uuid())
            .fetch_optional()
            .await?;
        Ok(row.is_some_and(|(ended_at,)| ended_at.is_none()))
    }
}

impl Tx {
    /// Registers this process as alive. `alone`: no other can be (SQLite is locked), so all others have ended.
    pub(in crate::store) async fn register_replica(
        &mut self,
        own: Incarnation,
        registration: &Registration,
        alone: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if alone {
            self.query("DELETE FROM replicas").execute().await?;
        }
        self.query(
            "INSERT INTO replicas (incarnation, name, beat, version, master_key_ids, config_revision, clock_offset,
                                   applied_revision, started_at)
             VALUES ($1, $2, 0, $3, $4, 0, 0, 0, $5) ON CONFLICT (incarnation) DO NOTHING",
        )
        .bind(own.as_uuid())
        .bind(registration.name.clone())
        .bind(env!("CARGO_PKG_VERSION"))
        .bind(Json(registration.master_keys.clone()))
        .bind(now.as_micros())
        .execute()
        .await?;
        Ok(())
    }

    /// Beats once. `false`: another process has ended this one.
    pub(in crate::store) async fn beat(&mut self, own: Incarnation, beat: &Beat) -> Result<bool, StoreError> {
        let known = self
            .query(
                "UPDATE replicas SET beat = beat + 1, applied_revision = $2, clock_offset = $3,
                        master_key_ids = coalesce($4, master_key_ids)
                  WHERE incarnation = $1",
            )
            .bind(own.as_uuid())
            .bind(beat.applied)
            .bind(beat.clock_offset)
            .bind(beat.master_keys.clone().map(Json))
            .execute()
            .await?;
        Ok(known == 1)
    }

    /// Ends a process that fell silent, unless it has beaten since.
    pub(in crate::store) async fn end_silent(&mut self, silent: &BeatRow) -> Result<(), StoreError> {
        self.query("DELETE FROM replicas WHERE incarnation = $1 AND beat = $2")
            .bind(silent.incarnation)
            .bind(silent.beat)
            .execute()
            .await?;
        Ok(())
    }

    /// Notes which master keys a process holds, ahead of its next beat.
    pub(in crate::store) async fn note_master_keys(
        &mut self,
        own: Incarnation,
        ids: &[String],
    ) -> Result<(), StoreError> {
        self.query("UPDATE replicas SET master_key_ids = $2 WHERE incarnation = $1")
            .bind(own.as_uuid())
            .bind(Json(ids.to_vec()))
            .execute()
            .await?;
        Ok(())
    }

    /// Ends this process. Its claims are free at once.
    pub async fn end_replica(&mut self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.query("DELETE FROM replicas WHERE incarnation = $1")
            .bind(incarnation.as_uuid())
            .execute()
            .await?;
        Ok(())
    }
}
