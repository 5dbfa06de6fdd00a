-- What is dead is not renewed. Conventions as in 0001.

-- 0009 made every connection due whose end was not known, the dead ones too. A page may come back with its person's token.
UPDATE ad_platform_connections
   SET next_renewal_at = NULL
 WHERE next_renewal_at IS NOT NULL
   AND (standing = 'REVOKED' OR standing = 'INVALID' AND parent_connection_id IS NULL);
