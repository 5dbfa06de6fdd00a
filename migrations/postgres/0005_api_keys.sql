-- API keys that replace each other. Conventions as in 0001.

-- The key that was made in this one's place; under the mac, as all of the row but last_used_at.
ALTER TABLE api_keys ADD COLUMN replaced_by TEXT;
