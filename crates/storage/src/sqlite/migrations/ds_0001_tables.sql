-- Rows of the Delivery Service. Times are milliseconds since the Unix epoch. Columns that end in `_secret` hold keys.
--
-- Small rows lie in the tree of their key (WITHOUT ROWID). Large ones (entries, chunks, KeyPackages, GroupInfo, the
-- outbox) lie in the order of writing, where a page takes rows of up to 8 KiB whole and the appends of one commit
-- share pages; an index finds them.

CREATE TABLE ds_channels (
    id BLOB NOT NULL PRIMARY KEY,
    head INTEGER NOT NULL,
    head_hash BLOB NOT NULL,
    head_time INTEGER NOT NULL,
    -- Of a group: which commits stand, encoded as conclave_channel::law::Ledger.
    ledger BLOB,
    -- Of an inbox.
    owner BLOB,
    drop_key_secret BLOB,
    CHECK ((ledger IS NULL) = (owner IS NOT NULL) AND (owner IS NULL) = (drop_key_secret IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE ds_epochs (
    channel BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    key_root BLOB NOT NULL,
    base INTEGER NOT NULL,
    started INTEGER NOT NULL,
    PRIMARY KEY (channel, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE ds_group_infos (
    channel BLOB NOT NULL PRIMARY KEY,
    epoch INTEGER NOT NULL,
    tree BLOB,
    join_key BLOB NOT NULL,
    group_info BLOB NOT NULL
) STRICT;

-- Chunks of the tree that a group's current epoch offers.
CREATE TABLE ds_tree_chunks (
    channel BLOB NOT NULL,
    chunk BLOB NOT NULL,
    PRIMARY KEY (channel, chunk)
) STRICT, WITHOUT ROWID;

CREATE TABLE ds_entries (
    id INTEGER PRIMARY KEY,
    channel BLOB NOT NULL,
    seq INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    removes INTEGER NOT NULL,
    time INTEGER NOT NULL,
    bytes BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX ds_entries_by_place ON ds_entries (channel, seq);
-- Asked on every read: who holds a key of the current epoch must not walk over all removals before it.
CREATE INDEX ds_entries_removing ON ds_entries (channel, epoch, seq) WHERE removes = 1;

CREATE TABLE ds_idempotency (
    scope BLOB NOT NULL,
    key BLOB NOT NULL,
    request BLOB NOT NULL,
    reply BLOB NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX ds_idempotency_by_expiry ON ds_idempotency (expires);

CREATE TABLE ds_blobs (
    hash BLOB NOT NULL PRIMARY KEY,
    size INTEGER NOT NULL,
    received INTEGER NOT NULL,
    whole INTEGER NOT NULL,
    pins INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX ds_blobs_by_expiry ON ds_blobs (expires) WHERE pins = 0;

CREATE TABLE ds_chunks (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL,
    start INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX ds_chunks_by_place ON ds_chunks (hash, start);

CREATE TABLE ds_key_packages (
    -- The order of storing.
    id INTEGER PRIMARY KEY,
    reference BLOB NOT NULL UNIQUE,
    client TEXT NOT NULL,
    cipher_suite INTEGER NOT NULL,
    last_resort INTEGER NOT NULL,
    used INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    bytes BLOB NOT NULL
) STRICT;

CREATE INDEX ds_key_packages_by_client ON ds_key_packages (client, cipher_suite, last_resort);
CREATE INDEX ds_key_packages_by_expiry ON ds_key_packages (expires);

CREATE TABLE ds_directory (
    user TEXT NOT NULL,
    device TEXT NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (user, device)
) STRICT, WITHOUT ROWID;

CREATE INDEX ds_directory_by_expiry ON ds_directory (expires);

CREATE TABLE ds_claimed (
    reference BLOB NOT NULL PRIMARY KEY,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX ds_claimed_by_expiry ON ds_claimed (expires);

-- A handful of rows.
CREATE TABLE ds_address_keys (
    id BLOB NOT NULL PRIMARY KEY,
    key_secret BLOB NOT NULL,
    public BLOB NOT NULL,
    created INTEGER NOT NULL,
    rotates INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE ds_drops (
    nonce BLOB NOT NULL PRIMARY KEY,
    uses INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX ds_drops_by_expiry ON ds_drops (expires);

CREATE TABLE ds_outbox (
    -- AUTOINCREMENT: an id never comes back, so that deleting a row twice deletes no other.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;

CREATE TABLE ds_nonces (
    nonce BLOB NOT NULL PRIMARY KEY,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX ds_nonces_by_expiry ON ds_nonces (expires);

CREATE TABLE ds_server (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    server_secret BLOB NOT NULL
) STRICT;
