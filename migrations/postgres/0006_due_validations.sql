-- When each connection is to be validated, and runs that end before all is done. Conventions as in 0001.

ALTER TABLE ad_platform_connections ADD COLUMN next_validation_at BIGINT;   -- NULL: nothing is left to ask; or an older binary wrote the row
ALTER TABLE ad_platform_connections ADD COLUMN failed_validations BIGINT NOT NULL DEFAULT 0;   -- in a row
UPDATE ad_platform_connections
   SET next_validation_at = CASE WHEN standing = 'REVOKED' THEN NULL ELSE coalesce(last_validated_at + 86400000000, 0) END;
CREATE INDEX connections_by_validation ON ad_platform_connections (next_validation_at, last_validated_at)
    WHERE next_validation_at IS NOT NULL;

ALTER TABLE job_runs DROP CONSTRAINT job_runs_state_check;
ALTER TABLE job_runs ADD CONSTRAINT job_runs_state_check
    CHECK (state IN ('RUNNING', 'SUCCEEDED', 'INCOMPLETE', 'FAILED', 'ABANDONED'));
ALTER TABLE job_runs ADD COLUMN remaining BIGINT NOT NULL DEFAULT 0;   -- due items that the run left undone
