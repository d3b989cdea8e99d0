-- Rows of the Authentication Service. Names are MIMI URIs as text, compared by bytes; times are milliseconds since the
-- Unix epoch unless the column says otherwise.

CREATE TABLE as_users (
    user TEXT NOT NULL PRIMARY KEY,
    identity_key BLOB NOT NULL,
    registered INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE as_clients (
    user TEXT NOT NULL REFERENCES as_users (user),
    device TEXT NOT NULL,
    signature_key BLOB NOT NULL,
    not_after_secs INTEGER NOT NULL,
    registered INTEGER NOT NULL,
    PRIMARY KEY (user, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE as_invites (
    token_hash BLOB NOT NULL PRIMARY KEY,
    uses_left INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE as_links (
    link_id BLOB NOT NULL PRIMARY KEY,
    user TEXT NOT NULL REFERENCES as_users (user),
    device TEXT NOT NULL,
    signature_key BLOB NOT NULL,
    mac BLOB NOT NULL,
    -- Both or neither.
    approval_binding BLOB,
    approval_mac BLOB,
    expires INTEGER NOT NULL,
    CHECK ((approval_binding IS NULL) = (approval_mac IS NULL))
) STRICT, WITHOUT ROWID;

-- Counting a user's links.
CREATE INDEX as_links_by_user ON as_links (user, expires);
-- Pruning.
CREATE INDEX as_links_by_expiry ON as_links (expires);

CREATE TABLE as_nonces (
    key BLOB NOT NULL,
    nonce BLOB NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (key, nonce)
) STRICT, WITHOUT ROWID;

-- Pruning.
CREATE INDEX as_nonces_by_expiry ON as_nonces (expires);
