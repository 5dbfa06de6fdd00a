-- What an exchange leaves behind. Conventions as in 0001.

-- When a PENDING secret is weighed against the CURRENT one again; NULL for a CURRENT one.
ALTER TABLE connection_secrets ADD COLUMN due_at BIGINT;
CREATE INDEX connection_secrets_due ON connection_secrets (due_at) WHERE state = 'PENDING';

-- Short-lived tokens that were pasted and exchanged, and what they became. Kept until they end.
CREATE TABLE exchanged_tokens (
    workspace_id  TEXT NOT NULL,
    fingerprint   BYTEA NOT NULL,                    -- of the short-lived token, under the workspace's index key
    connection_id UUID NOT NULL,
    secret_id     UUID NOT NULL,                    -- of the token that the exchange gave
    ends_at       BIGINT NOT NULL,                    -- when the short-lived token ends
    PRIMARY KEY (workspace_id, fingerprint)
);
CREATE INDEX exchanged_tokens_by_end ON exchanged_tokens (ends_at);
CREATE INDEX exchanged_tokens_of_connection ON exchanged_tokens (connection_id);
