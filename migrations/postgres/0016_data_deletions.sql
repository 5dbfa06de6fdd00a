-- People's requests to delete their data, as their providers pass them on. Conventions as in 0001. Nothing here names the
-- person: the hash is keyed, and only a request that comes again has the same.
CREATE TABLE data_deletions (
    confirmation_code TEXT NOT NULL PRIMARY KEY,    -- random; whoever has it sees the state and nothing else
    provider          TEXT NOT NULL,
    request_hash      BYTEA NOT NULL UNIQUE,         -- keyed hash of provider, app, subject and the time of the request
    requested_at      BIGINT NOT NULL,
    completed_at      BIGINT                        -- NULL: connections are left
);
CREATE INDEX data_deletions_open ON data_deletions (requested_at, confirmation_code) WHERE completed_at IS NULL;
CREATE INDEX data_deletions_by_age ON data_deletions (requested_at);

-- The connections that a request still has to end. What is connected after them is not.
CREATE TABLE data_deletion_connections (
    confirmation_code TEXT NOT NULL,
    connection_id     UUID NOT NULL,
    PRIMARY KEY (confirmation_code, connection_id)
);
