-- Links with which people connect accounts in the portal. Of a link's token only the hash is kept. `mac` covers everything
-- but `opened_at`, so that whoever can write to the database can't make a link or edit one.
CREATE TABLE connect_links (
    link_id            TEXT NOT NULL PRIMARY KEY,
    workspace_id       TEXT NOT NULL,
    provider           TEXT NOT NULL,
    connection_id      UUID,
    return_url         TEXT NOT NULL,
    max_uses           BIGINT NOT NULL,
    uses               BIGINT NOT NULL,
    created_by         TEXT NOT NULL,
    created_at         BIGINT NOT NULL,
    expires_at         BIGINT NOT NULL,
    opened_at          BIGINT,
    last_used_at       BIGINT,
    last_connection_id UUID,
    revoked_at         BIGINT,
    hash               BYTEA NOT NULL,
    mac                BYTEA NOT NULL
);

CREATE INDEX connect_links_by_age ON connect_links (created_at, link_id);
CREATE INDEX connect_links_of_workspace ON connect_links (workspace_id, created_at, link_id);

-- The link for which an authorization was begun.
ALTER TABLE authorizations ADD COLUMN link_id TEXT;
