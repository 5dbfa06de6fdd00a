-- The vault's first schema. One text for both databases but for the types; a test compares tables and columns.
-- Times are microseconds since the Unix epoch, UTC. Ids are UUIDs. A fact with a time stands in place of a boolean.
-- Only closed sets are CHECKed: reasons, kinds and providers grow, and an older binary must be able to run on.

-- One row: what this vault is.
CREATE TABLE vault (
    singleton        INTEGER  NOT NULL PRIMARY KEY CHECK (singleton = 1),
    vault_id         BLOB NOT NULL,
    feed_epoch       BLOB NOT NULL,          -- changes only when a backup is restored
    min_binary       INTEGER  NOT NULL,          -- oldest schema generation that may run on this database
    active_master_key TEXT  NOT NULL,          -- which master key wraps new keys
    bootstrapped_at  INTEGER  NOT NULL,          -- permanent: deleting every API key brings no bootstrap key back
    config_revision  INTEGER  NOT NULL DEFAULT 0,
    created_at       INTEGER  NOT NULL
) STRICT;

-- Master keys that this vault has known, each with a sealed check value: a wrong key is found out at start.
CREATE TABLE master_keys (
    master_key_id TEXT   NOT NULL PRIMARY KEY,
    check_value   BLOB NOT NULL,
    created_at    INTEGER  NOT NULL,
    retired_at    INTEGER
) STRICT;

-- The vault's own keys, one row per purpose and version, wrapped by a master key.
CREATE TABLE vault_keys (
    purpose       TEXT    NOT NULL,            -- authorization, audit, index
    version       INTEGER   NOT NULL,
    key_id        BLOB  NOT NULL,
    master_key_id TEXT    NOT NULL REFERENCES master_keys (master_key_id),
    wrapped       BLOB NOT NULL,
    created_at    INTEGER   NOT NULL,
    retired_at    INTEGER,
    PRIMARY KEY (purpose, version)
) STRICT;

-- Customers. The id is the platform's own.
CREATE TABLE workspaces (
    workspace_id     TEXT   NOT NULL PRIMARY KEY,
    display_name     TEXT   NOT NULL DEFAULT '',
    alert_emails     TEXT NOT NULL DEFAULT '[]',
    alerts_muted_at  INTEGER,
    created_at       INTEGER  NOT NULL,
    shredded_at      INTEGER
) STRICT;

-- Each workspace's keys: data (seals its secrets) and index (fingerprints), wrapped by a master key
-- and, when a break-glass key is configured, encrypted to that public key as well.
CREATE TABLE workspace_keys (
    workspace_id  TEXT    NOT NULL REFERENCES workspaces (workspace_id),
    purpose       TEXT    NOT NULL CHECK (purpose IN ('data', 'index')),
    version       INTEGER   NOT NULL,
    key_id        BLOB  NOT NULL,
    master_key_id TEXT    NOT NULL REFERENCES master_keys (master_key_id),
    wrapped       BLOB NOT NULL,
    break_glass   BLOB,
    created_at    INTEGER   NOT NULL,
    retired_at    INTEGER,
    PRIMARY KEY (workspace_id, purpose, version)
) STRICT;
CREATE INDEX workspace_keys_by_master ON workspace_keys (master_key_id);

-- One connection per (workspace, provider, app, subject): the facts. Secrets stand in connection_secrets.
CREATE TABLE ad_platform_connections (
    connection_id        BLOB NOT NULL PRIMARY KEY,      -- UUIDv7: sorts by creation
    workspace_id         TEXT   NOT NULL REFERENCES workspaces (workspace_id),
    provider             TEXT   NOT NULL,
    app_id               TEXT   NOT NULL,
    subject_key          TEXT   NOT NULL,                  -- the subject's id, or the connection's where none is named
    subject_id           TEXT   NOT NULL,
    subject_name         TEXT   NOT NULL,
    subject_kind         TEXT   NOT NULL,
    parent_connection_id BLOB,                           -- of a page token that the vault fetched itself
    token_version        INTEGER  NOT NULL,
    secret_id            BLOB NOT NULL,
    fingerprint          BLOB,                          -- NULL once the secret is destroyed
    revision             INTEGER  NOT NULL,                  -- counts every write to this row's facts
    kind                 TEXT   NOT NULL,
    expires_at           INTEGER,
    expiry_source        TEXT   NOT NULL,                  -- PROVIDER, REPLY, ASSUMED, NEVER, UNKNOWN
    expires_sort         INTEGER  NOT NULL,                  -- 0 unknown, the largest integer never
    data_access_ends_at  INTEGER,                            -- NULL: no end told
    issued_at            INTEGER,
    scopes               TEXT NOT NULL,
    granular_scopes      TEXT NOT NULL,
    standing             TEXT   NOT NULL CHECK (standing IN ('LIVE', 'INVALID', 'REVOKED')),
    standing_since       INTEGER,                            -- NULL while LIVE
    standing_reason      TEXT   NOT NULL DEFAULT '',       -- INVALID: why; REVOKED: by whom
    provider_code        TEXT   NOT NULL DEFAULT '',
    last_validated_at    INTEGER,
    last_rotated_at      INTEGER,
    last_known_good      INTEGER,
    ad_account_count     INTEGER,                            -- NULL until they were listed
    unreachable_count    INTEGER  NOT NULL DEFAULT 0,
    next_renewal_at      INTEGER,
    next_deadline_at     INTEGER,
    last_event_sequence  INTEGER  NOT NULL DEFAULT 0,
    created_at           INTEGER  NOT NULL,
    updated_at           INTEGER  NOT NULL,
    CONSTRAINT connection_identity UNIQUE (workspace_id, provider, app_id, subject_key)
) STRICT;
-- ListTokens: each filter and order walks one of these from where the last page ended.
CREATE INDEX connections_by_end            ON ad_platform_connections (standing, expires_sort, connection_id);
CREATE INDEX connections_by_age            ON ad_platform_connections (standing, connection_id);
CREATE INDEX connections_of_workspace_end  ON ad_platform_connections (workspace_id, standing, expires_sort, connection_id);
CREATE INDEX connections_of_workspace_age  ON ad_platform_connections (workspace_id, standing, connection_id);
-- The same subject and app in several workspaces share one fate.
CREATE INDEX connections_of_subject        ON ad_platform_connections (subject_id, provider, app_id);

-- Sealed secrets. At most one CURRENT and one PENDING (stored before it is inspected) per connection.
CREATE TABLE connection_secrets (
    connection_id    BLOB  NOT NULL REFERENCES ad_platform_connections (connection_id),
    state            TEXT    NOT NULL CHECK (state IN ('CURRENT', 'PENDING')),
    token_version    INTEGER   NOT NULL,
    secret_id        BLOB  NOT NULL,
    data_key_version INTEGER   NOT NULL,
    sealed           BLOB NOT NULL,
    created_at       INTEGER   NOT NULL,
    PRIMARY KEY (connection_id, state)
) STRICT;
CREATE INDEX connection_secrets_by_key ON connection_secrets (data_key_version, connection_id);

-- Ad accounts that each connection's token reaches, or did.
CREATE TABLE connection_ad_accounts (
    connection_id     BLOB NOT NULL REFERENCES ad_platform_connections (connection_id),
    ad_account_id     TEXT   NOT NULL,
    name              TEXT   NOT NULL,
    currency          TEXT   NOT NULL,
    time_zone         TEXT   NOT NULL,
    state             TEXT   NOT NULL,
    provider_state    TEXT   NOT NULL,
    owner_id          TEXT   NOT NULL,
    owner_name        TEXT   NOT NULL,
    last_reachable_at INTEGER,
    unreachable_since INTEGER,
    checked_at        INTEGER  NOT NULL,
    PRIMARY KEY (connection_id, ad_account_id)
) STRICT;
CREATE INDEX connections_of_ad_account ON connection_ad_accounts (ad_account_id, connection_id);

-- API keys. hash is SHA-256 of the secret part; mac binds the whole row under the authorization key, so that
-- who can write here can't let himself in.
CREATE TABLE api_keys (
    api_key_id   TEXT    NOT NULL PRIMARY KEY,
    principal    TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    workspaces   TEXT,                       -- NULL: all
    hash         BLOB NOT NULL,
    mac          BLOB NOT NULL,
    created_at   INTEGER   NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,                        -- an observation: not under the mac
    revoked_at   INTEGER
) STRICT;
CREATE INDEX api_keys_of_principal ON api_keys (principal, api_key_id);

-- Idempotency. A row without outcome is a claim of a living process; outcome comes with the work's own commit.
CREATE TABLE requests (
    principal    TEXT    NOT NULL,
    rpc          TEXT    NOT NULL,
    request_id   TEXT    NOT NULL,
    hash         BLOB NOT NULL,
    incarnation  BLOB  NOT NULL,
    generation   INTEGER   NOT NULL,
    outcome      TEXT,
    created_at   INTEGER   NOT NULL,
    PRIMARY KEY (principal, rpc, request_id)
) STRICT;
CREATE INDEX requests_by_age ON requests (created_at);

-- Living processes. A beat that stands still for three seconds of an observer's time ends the incarnation.
CREATE TABLE replicas (
    incarnation      BLOB NOT NULL PRIMARY KEY,
    name             TEXT   NOT NULL,
    beat             INTEGER  NOT NULL,
    version          TEXT   NOT NULL,
    master_key_ids   TEXT NOT NULL,
    config_revision  INTEGER  NOT NULL,
    clock_offset     INTEGER  NOT NULL,          -- microseconds ahead of the database's clock
    applied_revision INTEGER  NOT NULL,
    started_at       INTEGER  NOT NULL,
    ended_at         INTEGER
) STRICT;

-- What caches must drop, numbered without holes under the feed lock.
CREATE TABLE changes (
    revision   INTEGER NOT NULL PRIMARY KEY,
    subject    TEXT  NOT NULL,                 -- connection, api_key, workspace, keys
    key        TEXT  NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;

-- What has been announced is state, not history: lives as long as the connection, whatever retention does.
CREATE TABLE incidents (
    scope           TEXT  NOT NULL,            -- connection:UUID or provider:NAME
    kind            TEXT  NOT NULL,
    deadline_kind   TEXT  NOT NULL,            -- '' where the kind has none
    threshold       INTEGER NOT NULL,            -- microseconds; 0 where the kind has none
    token_version   INTEGER NOT NULL,            -- 0 where the scope has none
    episode         INTEGER NOT NULL,
    opened_sequence INTEGER NOT NULL,
    closed_sequence INTEGER,
    PRIMARY KEY (scope, kind, deadline_kind, threshold, token_version, episode)
) STRICT;
