-- Authorizations: a person is at a provider's consent dialog, or has been there. Conventions as in 0001.

-- Kept for a day after the end, so that a callback that is delivered again gets the first answer.
CREATE TABLE authorizations (
    authorization_id UUID PRIMARY KEY,              -- the state in the browser holds it, with a MAC over this row's facts
    workspace_id     TEXT NOT NULL,
    provider         TEXT NOT NULL,
    connection_id    UUID,                          -- the connection to reconnect; NULL: whichever has the subject
    redirect_uri     TEXT NOT NULL,
    session_binding  BYTEA NOT NULL,                -- keyed hash of what ties it to a browser session
    options          BIGINT NOT NULL,               -- bits: what to accept from the new token
    expires_at       BIGINT NOT NULL,
    ended            TEXT NOT NULL DEFAULT '',      -- '' open, TAKEN by a process, STORED or FAILED
    taken_by         UUID,                          -- incarnation of the process that completes it
    outcome          JSONB                          -- what came of it, once STORED or FAILED
);
CREATE INDEX authorizations_by_end ON authorizations (expires_at);
CREATE INDEX authorizations_of_workspace ON authorizations (workspace_id);
