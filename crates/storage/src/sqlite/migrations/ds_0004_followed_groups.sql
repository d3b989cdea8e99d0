-- Groups with visible handshakes, as the server follows them: their whole public state now and then, and each
-- handshake since.

CREATE TABLE ds_checkpoints (
    id INTEGER PRIMARY KEY,
    channel BLOB NOT NULL,
    seq INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    link BLOB NOT NULL,
    snapshot BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX ds_checkpoints_by_place ON ds_checkpoints (channel, seq, epoch, link);

CREATE TABLE ds_followed (
    id INTEGER PRIMARY KEY,
    channel BLOB NOT NULL,
    seq INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    time INTEGER NOT NULL,
    link BLOB NOT NULL,
    message BLOB NOT NULL
) STRICT;

-- With the link, so that the newest is found without the messages.
CREATE UNIQUE INDEX ds_followed_by_place ON ds_followed (channel, seq, link);
