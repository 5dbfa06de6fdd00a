//! Tables `job_runs` and `claims`: which process does what, and where another one continues when it dies.

use uuid::Uuid;

use crate::model::{Incarnation, Timestamp};
use crate::store::sql::{Session, StoreError, Tx};

#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum RunState {
    Running,
    /// Everything that was due is done.
    Succeeded,
    /// Some of what was due is left, and stays due.
    Incomplete,
    Failed,
    /// Its process died, and no other process finished it.
    Abandoned,
}

impl RunState {
    /// Its name in the database and in logs.
    pub const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

/// Why a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(const_into_str, serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum RunCause {
    /// Its slot came.
    Slot,
    /// Its slot came while no process ran.
    CatchUp,
    /// A caller asked for it.
    Request,
}

impl RunCause {
    pub(in crate::store) const fn as_str(self) -> &'static str {
        self.into_str()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun {
    pub id: Uuid,
    pub job: String,
    pub state: RunState,
    /// Whether it makes up for missed slots.
    pub catch_up: bool,
    pub scheduled_for: Timestamp,
    /// Where the work continues, in the job's own format.
    pub position: String,
    /// Items done, failed ones included.
    pub done: i64,
    /// How many items there are; 0 until they are counted.
    pub total: i64,
    /// Items that failed.
    pub failed: i64,
    /// Items that were due and are left.
    pub remaining: i64,
    /// Why it failed, or left something; empty otherwise.
    pub error: String,
    /// The process that works on it, or did.
    pub incarnation: Incarnation,
    /// Counts the processes that worked on it.
    pub generation: i64,
    /// The name of that process, for people.
    pub replica: String,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct RunRow {
    run_id: Uuid,
    job: String,
    cause: String,
    state: String,
    scheduled_for: i64,
    position: String,
    done: i64,
    total: i64,
    failed: i64,
    remaining: i64,
    error: String,
    incarnation: Uuid,
    generation: i64,
    replica: String,
    started_at: i64,
    ended_at: Option<i64>,
}

impl From<RunRow> for JobRun {
    fn from(row: RunRow) -> Self {
        Self {
            id: row.run_id,
            job: row.job,
            state: row.state.parse().unwrap_or(RunState::Failed),
            catch_up: row.cause == RunCause::CatchUp.as_str(),
            scheduled_for: Timestamp::from_micros(row.scheduled_for),
            position: row.position,
            done: row.done,
            total: row.total,
            failed: row.failed,
            remaining: row.remaining,
            error: row.error,
            incarnation: Incarnation::from_uuid(row.incarnation),
            generation: row.generation,
            replica: row.replica,
            started_at: Timestamp::from_micros(row.started_at),
            ended_at: row.ended_at.map(Timestamp::from_micros),
        }
    }
}

/// The columns of a run; `RunRow` reads them.
macro_rules! runs_where {
    ($rest:literal) => {
        concat!(
            "SELECT run_id, job, cause, state, scheduled_for, position, done, total, failed, remaining, error, incarnation,
                    generation, replica, started_at, ended_at FROM job_runs WHERE ",
            $rest
        )
    };
}

impl Session {
    pub async fn running(&mut self, job: &str) -> Result<Option<JobRun>, StoreError> {
        let row: Option<RunRow> = self
            .query(runs_where!("job = $1 AND state = 'RUNNING'"))
            .bind(job.to_owned())
            .fetch_optional()
            .await?;
        Ok(row.map(JobRun::from))
    }

    pub async fn last_run(&mut self, job: &str) -> Result<Option<JobRun>, StoreError> {
        let row: Option<RunRow> = self
            .query(runs_where!("job = $1 ORDER BY run_id DESC LIMIT 1"))
            .bind(job.to_owned())
            .fetch_optional()
            .await?;
        Ok(row.map(JobRun::from))
    }

    /// The latest slot for which a job has run, or is running.
    pub async fn last_slot(&mut self, job: &str) -> Result<Option<Timestamp>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            slot: Option<i64>,
        }
        let row: Row = self
            .query("SELECT max(scheduled_for) AS slot FROM job_runs WHERE job = $1 AND cause <> 'REQUEST'")
            .bind(job.to_owned())
            .fetch_one()
            .await?;
        Ok(row.slot.map(Timestamp::from_micros))
    }

    pub async fn job_run(&mut self, id: Uuid) -> Result<Option<JobRun>, StoreError> {
        let row: Option<RunRow> = self.query(runs_where!("run_id = $1")).bind(id).fetch_optional().await?;
        Ok(row.map(JobRun::from))
    }

    /// Runs before one, newest first; of one job, or of all when `job` is empty.
    pub async fn job_runs(&mut self, job: &str, before: Uuid, limit: i64) -> Result<Vec<JobRun>, StoreError> {
        let rows: Vec<RunRow> = self
            .query(runs_where!("($1 = '' OR job = $1) AND run_id < $2 ORDER BY run_id DESC LIMIT $3"))
            .bind(job.to_owned())
            .bind(before)
            .bind(limit)
            .fetch_all()
            .await?;
        Ok(rows.into_iter().map(JobRun::from).collect())
    }
}

impl Session {
    /// Whether a claim is still this process's, in this generation.
    pub async fn holds_claim(
        &mut self,
        scope: &str,
        by: Incarnation,
        generation: i64,
    ) -> Result<bool, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            incarnation: Option<Uuid>,
            generation: i64,
        }
        let row: Option<Row> = self
            .query("SELECT incarnation, generation FROM claims WHERE scope = $1")
            .bind(scope.to_owned())
            .fetch_optional()
            .await?;
        Ok(row.is_some_and(|row| row.incarnation == Some(by.as_uuid()) && row.generation == generation))
    }
}

impl Tx {
    /// Begins a run. `false`: the slot has been run already, or the job is running.
    pub async fn begin_run(&mut self, run: &JobRun, cause: RunCause) -> Result<bool, StoreError> {
        let begun = self
            .query(
                "INSERT INTO job_runs
                        (run_id, job, cause, state, scheduled_for, incarnation, generation, replica, started_at, position)
                 VALUES ($1, $2, $3, 'RUNNING', $4, $5, 1, $6, $7, $8) ON CONFLICT DO NOTHING",
            )
            .bind(run.id)
            .bind(run.job.clone())
            .bind(cause.as_str())
            .bind(run.scheduled_for.as_micros())
            .bind(run.incarnation.as_uuid())
            .bind(run.replica.clone())
            .bind(run.started_at.as_micros())
            .bind(run.position.clone())
            .execute()
            .await?;
        Ok(begun == 1)
    }

    /// Makes a job's run in progress start over.
    pub async fn restart_run(&mut self, job: &str) -> Result<(), StoreError> {
        self.query("UPDATE job_runs SET position = '', done = 0, generation = generation + 1 WHERE job = $1 AND state = 'RUNNING'")
            .bind(job.to_owned())
            .execute()
            .await?;
        Ok(())
    }

    /// Takes over a run whose process has ended. `false`: another process did.
    pub async fn take_over_run(
        &mut self,
        run: &JobRun,
        by: Incarnation,
        replica: &str,
    ) -> Result<bool, StoreError> {
        let taken = self
            .query(
                "UPDATE job_runs SET incarnation = $3, replica = $4, generation = generation + 1
                  WHERE run_id = $1 AND generation = $2 AND state = 'RUNNING'",
            )
            .bind(run.id)
            .bind(run.generation)
            .bind(by.as_uuid())
            .bind(replica.to_owned())
            .execute()
            .await?;
        Ok(taken == 1)
    }

    /// Writes how far a run has come. `false`: it was taken over, and its worker must stop.
    pub async fn note_progress(&mut self, run: &JobRun) -> Result<bool, StoreError> {
        let noted = self
            .query(
                "UPDATE job_runs SET position = $3, done = $4, total = $5, failed = $6
                  WHERE run_id = $1 AND generation = $2 AND state = 'RUNNING'",
            )
            .bind(run.id)
            .bind(run.generation)
            .bind(run.position.clone())
            .bind(run.done)
            .bind(run.total)
            .bind(run.failed)
            .execute()
            .await?;
        Ok(noted == 1)
    }

    /// Ends a run. `false`: it was taken over.
    pub async fn end_run(
        &mut self,
        run: &JobRun,
        state: RunState,
        error: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let ended = self
            .query(
                "UPDATE job_runs SET state = $3, error = $4, ended_at = $5, done = $6, total = $7, failed = $8, remaining = $9
                  WHERE run_id = $1 AND generation = $2 AND state = 'RUNNING'",
            )
            .bind(run.id)
            .bind(run.generation)
            .bind(state.as_str())
            .bind(error.to_owned())
            .bind(now.as_micros())
            .bind(run.done)
            .bind(run.total)
            .bind(run.failed)
            .bind(run.remaining)
            .execute()
            .await?;
        Ok(ended == 1)
    }

    /// Deletes runs that ended before `instant`, except each job's latest.
    pub async fn forget_runs(&mut self, before: Timestamp) -> Result<u64, StoreError> {
        self.query(
            "DELETE FROM job_runs WHERE ended_at < $1
                AND run_id NOT IN (SELECT max_id FROM (
                    SELECT (SELECT l.run_id FROM job_runs l WHERE l.job = j.job ORDER BY l.run_id DESC LIMIT 1) AS max_id
                      FROM (SELECT DISTINCT job FROM job_runs) j) AS latest)",
        )
        .bind(before.as_micros())
        .execute()
        .await
    }

    /// Claims work that only one process may do; returns the claim's generation. `Err(owner)`: that process has it.
    pub async fn claim(
        &mut self,
        scope: &str,
        by: Incarnation,
        now: Timestamp,
    ) -> Result<Result<i64, Incarnation>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            incarnation: Option<Uuid>,
            generation: i64,
        }
        let added = self
            .query(
                "INSERT INTO claims (scope, incarnation, generation, claimed_at) VALUES ($1, $2, 1, $3)
                 ON CONFLICT (scope) DO NOTHING",
            )
            .bind(scope.to_owned())
            .bind(by.as_uuid())
            .bind(now.as_micros())
            .execute()
            .await?;
        if added == 1 {
            return Ok(Ok(1));
        }
        let row: Row = self
            .query_for(
                "SELECT incarnation, generation FROM claims WHERE scope = $1",
                "SELECT incarnation, generation FROM claims WHERE scope = $1 FOR UPDATE",
            )
            .bind(scope.to_owned())
            .fetch_one()
            .await?;
        match row.incarnation {
            Some(owner) => Ok(Err(Incarnation::from_uuid(owner))),
            None => self.take_claim(scope, row.generation, by, now).await.map(Ok),
        }
    }

    /// Takes a claim that is free, or whose owner has ended; returns its new generation.
    pub async fn take_claim(
        &mut self,
        scope: &str,
        generation: i64,
        by: Incarnation,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let taken = self
            .query(
                "UPDATE claims SET incarnation = $2, generation = generation + 1, claimed_at = $3
                  WHERE scope = $1 AND generation = $4",
            )
            .bind(scope.to_owned())
            .bind(by.as_uuid())
            .bind(now.as_micros())
            .bind(generation)
            .execute()
            .await?;
        if taken == 1 {
            Ok(generation + 1)
        } else {
            Err(StoreError::Race("another process took the claim".into()))
        }
    }

    /// The generation of a claim.
    pub async fn claim_generation(&mut self, scope: &str) -> Result<i64, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            generation: i64,
        }
        let row: Option<Row> = self
            .query("SELECT generation FROM claims WHERE scope = $1")
            .bind(scope.to_owned())
            .fetch_optional()
            .await?;
        Ok(row.map_or(0, |row| row.generation))
    }

    /// Gives up claims that will not be claimed again, such as those of processes that died with them.
    pub async fn forget_claims(&mut self, prefix: &str, before: Timestamp) -> Result<u64, StoreError> {
        self.query("DELETE FROM claims WHERE scope LIKE $1 AND claimed_at < $2")
            .bind(format!("{prefix}%"))
            .bind(before.as_micros())
            .execute()
            .await
    }

    /// Gives a claim up for good.
    pub async fn drop_claim(
        &mut self,
        scope: &str,
        by: Incarnation,
        generation: i64,
    ) -> Result<(), StoreError> {
        self.query("DELETE FROM claims WHERE scope = $1 AND incarnation = $2 AND generation = $3")
            .bind(scope.to_owned())
            .bind(by.as_uuid())
            .bind(generation)
            .execute()
            .await?;
        Ok(())
    }

    pub async fn release_claim(
        &mut self,
        scope: &str,
        by: Incarnation,
        generation: i64,
    ) -> Result<(), StoreError> {
        self.query(
            "UPDATE claims SET incarnation = NULL WHERE scope = $1 AND incarnation = $2 AND generation = $3",
        )
        .bind(scope.to_owned())
        .bind(by.as_uuid())
        .bind(generation)
        .execute()
        .await?;
        Ok(())
    }
}
