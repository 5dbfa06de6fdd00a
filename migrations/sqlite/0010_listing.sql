-- What lists of ad accounts taught about a connection, so that the next list asks at once for what works. Conventions as in 0001.

-- {"rows": the most rows of a page, null for the usual number; "unread": [names of what the last list left out]}
ALTER TABLE ad_platform_connections ADD COLUMN listing TEXT NOT NULL DEFAULT '{}';
