-- Audit: records that wait for the sink, and how far each chain had come.

-- A change's record, written in the change's transaction; it goes once the sink has it.
CREATE TABLE audit_outbox (
    record_id   BLOB    NOT NULL PRIMARY KEY,
    incarnation BLOB    NOT NULL,             -- the process life that relays it
    number      INTEGER NOT NULL,             -- its order within that life
    body        TEXT    NOT NULL              -- the record as JSON; ids, never names or secrets
) STRICT;
CREATE INDEX audit_outbox_in_order ON audit_outbox (incarnation, number);

-- The head of each chain, as it was at most a second ago.
CREATE TABLE audit_chains (
    chain_id    BLOB    NOT NULL PRIMARY KEY,
    place       TEXT    NOT NULL,             -- host and path of the file, or host and 'stdout'
    number      INTEGER NOT NULL,             -- number of the last record
    mac         BLOB    NOT NULL,             -- its MAC
    dropped_to  INTEGER NOT NULL DEFAULT 0,   -- records up to this one went with old files
    anchored_at INTEGER NOT NULL
) STRICT;
