-- Submissions that are remembered, in the order of writing: each message adds one, and in the order of their random keys
-- each would change a page of its own. The index is short, as that is what remains of it; a submitter's lie together.

CREATE TABLE ds_submissions (
    id INTEGER PRIMARY KEY,
    scope BLOB NOT NULL,
    key BLOB NOT NULL,
    request BLOB NOT NULL,
    reply BLOB NOT NULL,
    expires INTEGER NOT NULL
) STRICT;

INSERT INTO ds_submissions (scope, key, request, reply, expires)
    SELECT scope, key, request, reply, expires FROM ds_idempotency ORDER BY expires;

DROP TABLE ds_idempotency;
ALTER TABLE ds_submissions RENAME TO ds_idempotency;

CREATE INDEX ds_idempotency_by_key ON ds_idempotency (substr(scope, 1, 4), key);
CREATE INDEX ds_idempotency_by_expiry ON ds_idempotency (expires);
