-- The expiry-event feed, what was announced of it, and the clockwork. Conventions as in 0001.

-- The feed. Holds ids and words, never a person's name or id: those are joined when it is read.
CREATE TABLE events (
    sequence      BIGINT NOT NULL PRIMARY KEY,   -- gapless, in order of commit
    identity      BIGINT NOT NULL,               -- random: a position of another database does not match
    kind          TEXT   NOT NULL,
    severity      BIGINT NOT NULL,               -- 1 info, 2 warning, 3 critical
    workspace_id  TEXT   NOT NULL,               -- '' for events of a provider
    provider      TEXT   NOT NULL,
    connection_id UUID,                         -- NULL for events of a provider
    token_version BIGINT NOT NULL,               -- 0 for events of a provider
    occurred_at   BIGINT NOT NULL,
    recorded_at   BIGINT NOT NULL,               -- never decreases along the feed
    body          JSONB  NOT NULL
);
CREATE INDEX events_of_connection ON events (connection_id, sequence);
CREATE INDEX events_by_time       ON events (recorded_at, sequence);

-- One row: where the feed's kept history begins, and the check of the event just before.
CREATE TABLE feed (
    singleton          BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    oldest_sequence    BIGINT NOT NULL,
    compacted_identity BIGINT NOT NULL
);
INSERT INTO feed (singleton, oldest_sequence, compacted_identity) VALUES (1, 1, 0);

-- Bookmarks in the feed.
CREATE TABLE subscriptions (
    principal       TEXT   NOT NULL,
    name            TEXT   NOT NULL,
    epoch           UUID NOT NULL,
    sequence        BIGINT NOT NULL,
    identity        BIGINT NOT NULL,
    acknowledged_at BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    PRIMARY KEY (principal, name)
);

-- How bad the opening event was: what it takes for the closing one to pass the same filters.
ALTER TABLE incidents ADD COLUMN severity BIGINT NOT NULL DEFAULT 3;
-- Sequences below zero stand for events that this transaction has not numbered yet; none is ever committed.
CREATE INDEX incidents_unnumbered_open   ON incidents (opened_sequence) WHERE opened_sequence < 0;
CREATE INDEX incidents_unnumbered_closed ON incidents (closed_sequence) WHERE closed_sequence < 0;
CREATE INDEX incidents_open ON incidents (kind, opened_sequence) WHERE closed_sequence IS NULL;

ALTER TABLE ad_platform_connections ADD COLUMN renewal_attempts BIGINT NOT NULL DEFAULT 0;
CREATE INDEX connections_unnumbered  ON ad_platform_connections (last_event_sequence) WHERE last_event_sequence < 0;
CREATE INDEX connections_by_deadline ON ad_platform_connections (next_deadline_at) WHERE next_deadline_at IS NOT NULL;
CREATE INDEX connections_by_renewal  ON ad_platform_connections (next_renewal_at) WHERE next_renewal_at IS NOT NULL;
CREATE INDEX connections_of_parent   ON ad_platform_connections (parent_connection_id) WHERE parent_connection_id IS NOT NULL;

-- Work on one thing that only one process may do: 'exchange:UUID'. incarnation NULL: free.
CREATE TABLE claims (
    scope       TEXT   NOT NULL PRIMARY KEY,
    incarnation UUID,
    generation  BIGINT NOT NULL,                 -- counts owners: a late one is told by it
    claimed_at  BIGINT NOT NULL
);

-- Runs of jobs. A run in progress belongs to a process life; when that ends, another goes on from position.
CREATE TABLE job_runs (
    run_id        UUID NOT NULL PRIMARY KEY,   -- UUIDv7: sorts by start
    job           TEXT   NOT NULL,
    cause         TEXT   NOT NULL CHECK (cause IN ('SLOT', 'CATCH_UP', 'REQUEST')),
    state         TEXT   NOT NULL CHECK (state IN ('RUNNING', 'SUCCEEDED', 'FAILED', 'ABANDONED')),
    scheduled_for BIGINT NOT NULL,
    position      TEXT   NOT NULL DEFAULT '',
    done          BIGINT NOT NULL DEFAULT 0,
    total         BIGINT NOT NULL DEFAULT 0,
    failed        BIGINT NOT NULL DEFAULT 0,
    error         TEXT   NOT NULL DEFAULT '',
    incarnation   UUID NOT NULL,
    generation    BIGINT NOT NULL,
    replica       TEXT   NOT NULL,
    started_at    BIGINT NOT NULL,
    ended_at      BIGINT
);
CREATE UNIQUE INDEX job_runs_by_slot ON job_runs (job, scheduled_for) WHERE cause <> 'REQUEST';
CREATE UNIQUE INDEX job_runs_running ON job_runs (job) WHERE state = 'RUNNING';
CREATE INDEX job_runs_of_job ON job_runs (job, run_id);

-- How each provider stands, per app. Only faults of the provider open the circuit.
CREATE TABLE provider_health (
    provider       TEXT   NOT NULL,
    app_id         TEXT   NOT NULL,
    circuit        TEXT   NOT NULL CHECK (circuit IN ('CLOSED', 'OPEN')),
    problem        TEXT   NOT NULL,               -- '' while all is well, else what is wrong, by name
    changed_at     BIGINT NOT NULL,
    held_until     BIGINT,                         -- verdicts wait until then: too many tokens died at once
    PRIMARY KEY (provider, app_id)
);

-- What shapes shared state (thresholds, window, retention), by revision; vault.config_revision names the one in force.
CREATE TABLE policies (
    revision   BIGINT NOT NULL PRIMARY KEY,
    document   JSONB  NOT NULL,
    created_at BIGINT NOT NULL
);
