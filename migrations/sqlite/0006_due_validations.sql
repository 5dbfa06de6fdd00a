-- When each connection is to be validated, and runs that end before all is done. Conventions as in 0001.

ALTER TABLE ad_platform_connections ADD COLUMN next_validation_at INTEGER;   -- NULL: nothing is left to ask; or an older binary wrote the row
ALTER TABLE ad_platform_connections ADD COLUMN failed_validations INTEGER NOT NULL DEFAULT 0;   -- in a row
UPDATE ad_platform_connections
   SET next_validation_at = CASE WHEN standing = 'REVOKED' THEN NULL ELSE coalesce(last_validated_at + 86400000000, 0) END;
CREATE INDEX connections_by_validation ON ad_platform_connections (next_validation_at, last_validated_at)
    WHERE next_validation_at IS NOT NULL;

-- SQLite can't change a CHECK, so the table is made anew.
CREATE TABLE job_runs_new (
    run_id        BLOB NOT NULL PRIMARY KEY,   -- UUIDv7: sorts by start
    job           TEXT   NOT NULL,
    cause         TEXT   NOT NULL CHECK (cause IN ('SLOT', 'CATCH_UP', 'REQUEST')),
    state         TEXT   NOT NULL CHECK (state IN ('RUNNING', 'SUCCEEDED', 'INCOMPLETE', 'FAILED', 'ABANDONED')),
    scheduled_for INTEGER NOT NULL,
    position      TEXT   NOT NULL DEFAULT '',
    done          INTEGER NOT NULL DEFAULT 0,
    total         INTEGER NOT NULL DEFAULT 0,
    failed        INTEGER NOT NULL DEFAULT 0,
    error         TEXT   NOT NULL DEFAULT '',
    incarnation   BLOB NOT NULL,
    generation    INTEGER NOT NULL,
    replica       TEXT   NOT NULL,
    started_at    INTEGER NOT NULL,
    ended_at      INTEGER,
    remaining     INTEGER NOT NULL DEFAULT 0    -- due items that the run left undone
) STRICT;
INSERT INTO job_runs_new (run_id, job, cause, state, scheduled_for, position, done, total, failed, error, incarnation,
                          generation, replica, started_at, ended_at)
    SELECT run_id, job, cause, state, scheduled_for, position, done, total, failed, error, incarnation,
           generation, replica, started_at, ended_at FROM job_runs;
DROP TABLE job_runs;
ALTER TABLE job_runs_new RENAME TO job_runs;
CREATE UNIQUE INDEX job_runs_by_slot ON job_runs (job, scheduled_for) WHERE cause <> 'REQUEST';
CREATE UNIQUE INDEX job_runs_running ON job_runs (job) WHERE state = 'RUNNING';
CREATE INDEX job_runs_of_job ON job_runs (job, run_id);
