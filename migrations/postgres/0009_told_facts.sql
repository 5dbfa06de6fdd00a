-- What a provider did not tell, apart from what it told to be endless. Conventions as in 0001.

-- As expiry_source: PROVIDER, NEVER, UNKNOWN. '': an earlier release wrote the row, and read an end of NULL as never.
ALTER TABLE ad_platform_connections ADD COLUMN data_access_source TEXT NOT NULL DEFAULT '';

-- Earlier releases believed times in milliseconds. No token lives past the year 2200, so such an end is not known: the
-- vault asks for it at once.
UPDATE ad_platform_connections
   SET expires_at = NULL, expiry_source = 'UNKNOWN', expires_sort = 0, next_renewal_at = 0
 WHERE expires_at >= 7289654400000000;
UPDATE ad_platform_connections
   SET data_access_ends_at = NULL, data_access_source = 'UNKNOWN'
 WHERE data_access_ends_at >= 7289654400000000;
UPDATE ad_platform_connections SET issued_at = NULL WHERE issued_at >= 7289654400000000;
