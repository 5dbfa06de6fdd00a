-- The vault's own data calls as a judge of tokens beside the provider's inspector. Conventions as in 0001.

-- When a data call with the current secret was first refused, and why: both only until one works again.
ALTER TABLE ad_platform_connections ADD COLUMN data_refused_at INTEGER;
ALTER TABLE ad_platform_connections ADD COLUMN data_refusal TEXT NOT NULL DEFAULT '';
CREATE INDEX connections_in_doubt ON ad_platform_connections (data_refused_at) WHERE data_refused_at IS NOT NULL;

-- What callers lately reported about a secret that the vault found nothing wrong with: at most one row per connection,
-- without a foreign key, so that a report locks no connection.
CREATE TABLE token_reports (
    connection_id BLOB    NOT NULL PRIMARY KEY,
    secret_id     BLOB    NOT NULL,          -- the secret that they are about
    transient_at  TEXT    NOT NULL,          -- the times of the last transient reports, oldest first
    looks         INTEGER NOT NULL,          -- how often in a row the vault looked and found nothing
    looked_at     INTEGER                    -- when the last of these was counted
) STRICT;
