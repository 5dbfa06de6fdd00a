-- Links with which people connect accounts in the portal. Of a link's token only the hash is kept. `mac` covers everything
-- but `opened_at`, so that whoever can write to the database can't make a link or edit one.
CREATE TABLE connect_links (
    link_id            TEXT NOT NULL PRIMARY KEY,
    workspace_id       TEXT NOT NULL,
    provider           TEXT NOT NULL,
    connection_id      BLOB,
    return_url         TEXT NOT NULL,
    max_uses           INTEGER NOT NULL,
    uses               INTEGER NOT NULL,
    created_by         TEXT NOT NULL,
    created_at         INTEGER NOT NULL,
    expires_at         INTEGER NOT NULL,
    opened_at          INTEGER,
    last_used_at       INTEGER,
    last_connection_id BLOB,
    revoked_at         INTEGER,
    hash               BLOB NOT NULL,
    mac                BLOB NOT NULL
) STRICT;

CREATE INDEX connect_links_by_age ON connect_links (created_at, link_id);
CREATE INDEX connect_links_of_workspace ON connect_links (workspace_id, created_at, link_id);

-- The link for which an authorization was begun.
ALTER TABLE authorizations ADD COLUMN link_id TEXT;
