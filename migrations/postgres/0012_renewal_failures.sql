-- What the vault knows about its own work on a connection. Conventions as in 0001.

-- When it was announced that the vault can't renew this version, and why: CEILING (the provider no longer moves the end)
-- or OTHER. NULL and '' while renewal may work.
ALTER TABLE ad_platform_connections ADD COLUMN renewal_failed_at BIGINT;
ALTER TABLE ad_platform_connections ADD COLUMN renewal_failure TEXT NOT NULL DEFAULT '';
-- When it was announced that work on the connection waits for too long; NULL while none does.
ALTER TABLE ad_platform_connections ADD COLUMN overdue_since BIGINT;

-- Earlier versions announced the same, and did not remember it with the connection.
UPDATE ad_platform_connections AS c
   SET renewal_failed_at = e.recorded_at,
       renewal_failure = CASE WHEN (e.body #>> '{detail,rotation_failed,at_ceiling}')::boolean THEN 'CEILING' ELSE 'OTHER' END
  FROM incidents i JOIN events e ON e.sequence = i.opened_sequence
 WHERE e.connection_id = c.connection_id AND e.kind = 'ROTATION_FAILED' AND i.kind = 'ROTATION_FAILED'
   AND i.closed_sequence IS NULL AND i.token_version = c.token_version;
UPDATE ad_platform_connections AS c
   SET overdue_since = e.recorded_at
  FROM incidents i JOIN events e ON e.sequence = i.opened_sequence
 WHERE e.connection_id = c.connection_id AND e.kind = 'OVERDUE' AND i.kind = 'OVERDUE' AND i.closed_sequence IS NULL;
