-- The vault's first schema. One text for both databases but for the types; a test compares tables and columns.
-- Times are microseconds since the Unix epoch, UTC. Ids are UUIDs. A fact with a time stands in place of a boolean.
-- Only closed sets are CHECKed: reasons, kinds and providers grow, and an older binary must be able to run on.

-- One row: what this vault is.
CREATE TABLE vault (
    singleton        BIGINT  NOT NULL PRIMARY KEY CHECK (singleton = 1),
    vault_id         UUID NOT NULL,
    feed_epoch       UUID NOT NULL,          -- changes only when a backup is restored
    min_binary       BIGINT  NOT NULL,          -- oldest schema generation that may run on this database
    active_master_key TEXT  NOT NULL,          -- which master key wraps new keys
    bootstrapped_at  BIGINT  NOT NULL,          -- permanent: deleting every API key brings no bootstrap key back
    config_revision  BIGINT  NOT NULL DEFAULT 0,
    created_at       BIGINT  NOT NULL
);

-- Master keys that this vault has known, each with a sealed check value: a wrong key is found out at start.
CREATE TABLE master_keys (
    master_key_id TEXT   NOT NULL PRIMARY KEY,
    check_value   BYTEA NOT NULL,
    created_at    BIGINT  NOT NULL,
    retired_at    BIGINT
);

-- The vault's own keys, one row per purpose and version, wrapped by a master key.
CREATE TABLE vault_keys (
    purpose       TEXT    NOT NULL,            -- authorization, audit, index
    version       BIGINT   NOT NULL,
    key_id        UUID  NOT NULL,
    master_key_id TEXT    NOT NULL REFERENCES master_keys (master_key_id),
    wrapped       BYTEA NOT NULL,
    created_at    BIGINT   NOT NULL,
    retired_at    BIGINT,
    PRIMARY KEY (purpose, version)
);

-- Customers. The id is the platform's own.
CREATE TABLE workspaces (
    workspace_id     TEXT   NOT NULL PRIMARY KEY,
    display_name     TEXT   NOT NULL DEFAULT '',
    alert_emails     JSONB NOT NULL DEFAULT '[]',
    alerts_muted_at  BIGINT,
    created_at       BIGINT  NOT NULL,
    shredded_at      BIGINT
);

-- Each workspace's keys: data (seals its secrets) and index (fingerprints), wrapped by a master key
-- and, when a break-glass key is configured, encrypted to that public key as well.
CREATE TABLE workspace_keys (
    workspace_id  TEXT    NOT NULL REFERENCES workspaces (workspace_id),
    purpose       TEXT    NOT NULL CHECK (purpose IN ('data', 'index')),
    version       BIGINT   NOT NULL,
    key_id        UUID  NOT NULL,
    master_key_id TEXT    NOT NULL REFERENCES master_keys (master_key_id),
    wrapped       BYTEA NOT NULL,
    break_glass   BYTEA,
    created_at    BIGINT   NOT NULL,
    retired_at    BIGINT,
    PRIMARY KEY (workspace_id, purpose, version)
);
CREATE INDEX workspace_keys_by_master ON workspace_keys (master_key_id);

-- One connection per (workspace, provider, app, subject): the facts. Secrets stand in connection_secrets.
CREATE TABLE ad_platform_connections (
    connection_id        UUID NOT NULL PRIMARY KEY,      -- UUIDv7: sorts by creation
    workspace_id         TEXT   NOT NULL REFERENCES workspaces (workspace_id),
    provider             TEXT   NOT NULL,
    app_id               TEXT   NOT NULL,
    subject_key          TEXT   NOT NULL,                  -- the subject's id, or the connection's where none is named
    subject_id           TEXT   NOT NULL,
    subject_name         TEXT   NOT NULL,
    subject_kind         TEXT   NOT NULL,
    parent_connection_id UUID,                           -- of a page token that the vault fetched itself
    token_version        BIGINT  NOT NULL,
    secret_id            UUID NOT NULL,
    fingerprint          BYTEA,                          -- NULL once the secret is destroyed
    revision             BIGINT  NOT NULL,                  -- counts every write to this row's facts
    kind                 TEXT   NOT NULL,
    expires_at           BIGINT,
    expiry_source        TEXT   NOT NULL,                  -- PROVIDER, REPLY, ASSUMED, NEVER, UNKNOWN
    expires_sort         BIGINT  NOT NULL,                  -- 0 unknown, the largest integer never
    data_access_ends_at  BIGINT,                            -- NULL: no end told
    issued_at            BIGINT,
    scopes               JSONB NOT NULL,
    granular_scopes      JSONB NOT NULL,
    standing             TEXT   NOT NULL CHECK (standing IN ('LIVE', 'INVALID', 'REVOKED')),
    standing_since       BIGINT,                            -- NULL while LIVE
    standing_reason      TEXT   NOT NULL DEFAULT '',       -- INVALID: why; REVOKED: by whom
    provider_code        TEXT   NOT NULL DEFAULT '',
    last_validated_at    BIGINT,
    last_rotated_at      BIGINT,
    last_known_good      BIGINT,
    ad_account_count     BIGINT,                            -- NULL until they were listed
    unreachable_count    BIGINT  NOT NULL DEFAULT 0,
    next_renewal_at      BIGINT,
    next_deadline_at     BIGINT,
    last_event_sequence  BIGINT  NOT NULL DEFAULT 0,
    created_at           BIGINT  NOT NULL,
    updated_at           BIGINT  NOT NULL,
    CONSTRAINT connection_identity UNIQUE (workspace_id, provider, app_id, subject_key)
);
-- ListTokens: each filter and order walks one of these from where the last page ended.
CREATE INDEX connections_by_end            ON ad_platform_connections (standing, expires_sort, connection_id);
CREATE INDEX connections_by_age            ON ad_platform_connections (standing, connection_id);
CREATE INDEX connections_of_workspace_end  ON ad_platform_connections (workspace_id, standing, expires_sort, connection_id);
CREATE INDEX connections_of_workspace_age  ON ad_platform_connections (workspace_id, standing, connection_id);
-- The same subject and app in several workspaces share one fate.
CREATE INDEX connections_of_subject        ON ad_platform_connections (subject_id, provider, app_id);

-- Sealed secrets. At most one CURRENT and one PENDING (stored before it is inspected) per connection.
CREATE TABLE connection_secrets (
    connection_id    UUID  NOT NULL REFERENCES ad_platform_connections (connection_id),
    state            TEXT    NOT NULL CHECK (state IN ('CURRENT', 'PENDING')),
    token_version    BIGINT   NOT NULL,
    secret_id        UUID  NOT NULL,
    data_key_version BIGINT   NOT NULL,
    sealed           BYTEA NOT NULL,
    created_at       BIGINT   NOT NULL,
    PRIMARY KEY (connection_id, state)
);
CREATE INDEX connection_secrets_by_key ON connection_secrets (data_key_version, connection_id);

-- Ad accounts that each connection's token reaches, or did.
CREATE TABLE connection_ad_accounts (
    connection_id     UUID NOT NULL REFERENCES ad_platform_connections (connection_id),
    ad_account_id     TEXT   NOT NULL,
    name              TEXT   NOT NULL,
    currency          TEXT   NOT NULL,
    time_zone         TEXT   NOT NULL,
    state             TEXT   NOT NULL,
    provider_state    TEXT   NOT NULL,
    owner_id          TEXT   NOT NULL,
    owner_name        TEXT   NOT NULL,
    last_reachable_at BIGINT,
    unreachable_since BIGINT,
    checked_at        BIGINT  NOT NULL,
    PRIMARY KEY (connection_id, ad_account_id)
);
CREATE INDEX connections_of_ad_account ON connection_ad_accounts (ad_account_id, connection_id);

-- API keys. hash is SHA-256 of the secret part; mac binds the whole row under the authorization key, so that
-- who can write here can't let himself in.
CREATE TABLE api_keys (
    api_key_id   TEXT    NOT NULL PRIMARY KEY,
    principal    TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    workspaces   JSONB,                       -- NULL: all
    hash         BYTEA NOT NULL,
    mac          BYTEA NOT NULL,
    created_at   BIGINT   NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT,                        -- an observation: not under the mac
    revoked_at   BIGINT
);
CREATE INDEX api_keys_of_principal ON api_keys (principal, api_key_id);

-- Idempotency. A row without outcome is a claim of a living process; outcome comes with the work's own commit.
CREATE TABLE requests (
    principal    TEXT    NOT NULL,
    rpc          TEXT    NOT NULL,
    request_id   TEXT    NOT NULL,
    hash         BYTEA NOT NULL,
    incarnation  UUID  NOT NULL,
    generation   BIGINT   NOT NULL,
    outcome      JSONB,
    created_at   BIGINT   NOT NULL,
    PRIMARY KEY (principal, rpc, request_id)
);
CREATE INDEX requests_by_age ON requests (created_at);

-- Living processes. A beat that stands still for three seconds of an observer's time ends the incarnation.
CREATE TABLE replicas (
    incarnation      UUID NOT NULL PRIMARY KEY,
    name             TEXT   NOT NULL,
    beat             BIGINT  NOT NULL,
    version          TEXT   NOT NULL,
    master_key_ids   JSONB NOT NULL,
    config_revision  BIGINT  NOT NULL,
    clock_offset     BIGINT  NOT NULL,          -- microseconds ahead of the database's clock
    applied_revision BIGINT  NOT NULL,
    started_at       BIGINT  NOT NULL,
    ended_at         BIGINT
);

-- What caches must drop, numbered without holes under the feed lock.
CREATE TABLE changes (
    revision   BIGINT NOT NULL PRIMARY KEY,
    subject    TEXT  NOT NULL,                 -- connection, api_key, workspace, keys
    key        TEXT  NOT NULL,
    changed_at BIGINT NOT NULL
);

-- What has been announced is state, not history: lives as long as the connection, whatever retention does.
CREATE TABLE incidents (
    scope           TEXT  NOT NULL,            -- connection:UUID or provider:NAME
    kind            TEXT  NOT NULL,
    deadline_kind   TEXT  NOT NULL,            -- '' where the kind has none
    threshold       BIGINT NOT NULL,            -- microseconds; 0 where the kind has none
    token_version   BIGINT NOT NULL,            -- 0 where the scope has none
    episode         BIGINT NOT NULL,
    opened_sequence BIGINT NOT NULL,
    closed_sequence BIGINT,
    PRIMARY KEY (scope, kind, deadline_kind, threshold, token_version, episode)
);
