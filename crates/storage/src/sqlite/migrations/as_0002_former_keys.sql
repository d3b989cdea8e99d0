-- Signature keys that a client has replaced: they are certified no more, whoever has them.

CREATE TABLE as_former_keys (
    user TEXT NOT NULL,
    device TEXT NOT NULL,
    signature_key BLOB NOT NULL,
    PRIMARY KEY (user, device, signature_key),
    FOREIGN KEY (user, device) REFERENCES as_clients (user, device)
) STRICT, WITHOUT ROWID;
