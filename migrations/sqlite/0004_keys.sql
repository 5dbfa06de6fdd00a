-- Keys that can be changed, recovered and destroyed. Conventions as in 0001.

-- Each key once more, encrypted to the break-glass public key, and which public key that is; '' for none.
ALTER TABLE vault_keys ADD COLUMN break_glass BLOB;
ALTER TABLE vault_keys ADD COLUMN break_glass_id TEXT NOT NULL DEFAULT '';
ALTER TABLE workspace_keys ADD COLUMN break_glass_id TEXT NOT NULL DEFAULT '';
CREATE INDEX workspace_keys_retired ON workspace_keys (workspace_id) WHERE retired_at IS NOT NULL;

-- Re-encrypting and shredding walk a workspace's connections.
CREATE INDEX connections_of_workspace ON ad_platform_connections (workspace_id, connection_id);

-- Which workspaces were destroyed. The same stands in a file outside the database, for the day of a restore.
CREATE TABLE shred_ledger (
    workspace_id TEXT   NOT NULL PRIMARY KEY,
    shredded_at  INTEGER NOT NULL,
    shredded_by  TEXT   NOT NULL
) STRICT;
