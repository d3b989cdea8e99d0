-- What retention, the directory's queries and the quotas of blobs need.

-- Bytes of a channel's entries that are kept, with their blobs (of entries from before this migration: without).
ALTER TABLE ds_channels ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE ds_channels SET bytes =
    (SELECT coalesce(sum(length(ds_entries.bytes)), 0) FROM ds_entries WHERE ds_entries.channel = ds_channels.id);

-- The removal that ended what an epoch's keys may read, once that entry is deleted.
ALTER TABLE ds_epochs ADD COLUMN closed INTEGER;

-- What the leaf is capable of, encoded as conclave_mls::capabilities::Capabilities. KeyPackages from before this
-- migration are not read again: their clients upload others when they find none.
DELETE FROM ds_key_packages;
ALTER TABLE ds_key_packages ADD COLUMN capabilities BLOB NOT NULL DEFAULT x'';
DROP INDEX ds_key_packages_by_client;
-- Ends with the id, the order of storing; what a claim asks for is answered from here.
CREATE INDEX ds_key_packages_by_client ON ds_key_packages (client, cipher_suite, last_resort, id, expires, capabilities);

-- Blobs are whole from here on; who was staging one begins anew.
DELETE FROM ds_chunks WHERE hash IN (SELECT hash FROM ds_blobs WHERE whole = 0);
DELETE FROM ds_blobs WHERE whole = 0;
ALTER TABLE ds_blobs DROP COLUMN received;
ALTER TABLE ds_blobs DROP COLUMN whole;
ALTER TABLE ds_blobs ADD COLUMN chunks BLOB NOT NULL DEFAULT x'';
UPDATE ds_blobs SET chunks = hash;
-- Of blobs that nothing has named yet.
ALTER TABLE ds_blobs ADD COLUMN scope BLOB;
CREATE INDEX ds_blobs_by_scope ON ds_blobs (scope, size) WHERE scope IS NOT NULL;

ALTER TABLE ds_chunks RENAME COLUMN hash TO name;

CREATE TABLE ds_staged (
    stager BLOB NOT NULL,
    hash BLOB NOT NULL,
    chunks BLOB NOT NULL,
    scope BLOB NOT NULL,
    size INTEGER NOT NULL,
    received INTEGER NOT NULL,
    digest BLOB NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (stager, hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX ds_staged_by_scope ON ds_staged (scope, size);
CREATE INDEX ds_staged_by_expiry ON ds_staged (expires);

-- Chunks that are to be deleted, by and by.
CREATE TABLE ds_discarded (
    chunks BLOB NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
