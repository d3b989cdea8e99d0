//! Every column that is kept on the disk, and why delivery or the identity service cannot do without it (RFC 9750,
//! section 5; requirement R159). `docs/stored-data.md` has the same table for people.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use conclave_storage::{Database, Options};
use rusqlite::Connection;

/// Columns, each with its reason.
type Columns = &'static [(&'static str, &'static str)];

/// Tables, what they are for, and their columns.
const REASONS: &[(&str, &str, Columns)] = &[
    (
        "conclave_schema",
        "how far the tables are migrated",
        &[("series", "which service's tables"), ("version", "to know which migrations are still to run")],
    ),
    (
        "as_users",
        "users and the identity keys that stand for them",
        &[
            ("user", "the name, so that nobody else registers it"),
            ("identity_key", "public; bindings are verified with it, and a repeated registration is recognised"),
            ("registered", "for the operator: when the name was taken"),
        ],
    ),
    (
        "as_clients",
        "devices that hold a certificate",
        &[
            ("user", "whose device it is"),
            ("device", "its name: one certified key at a time each"),
            ("signature_key", "public; answers who may sign for the device (GetUser)"),
            ("not_after_secs", "when its newest certificate ends"),
            ("registered", "shown to the user's other devices, who notice one that they do not know"),
        ],
    ),
    (
        "as_invites",
        "an operator's permissions to register; deleted when used up or expired",
        &[
            ("token_hash", "recognises a token that is itself not kept"),
            ("uses_left", "how many may still register with it"),
            ("expires", "until when"),
        ],
    ),
    (
        "as_links",
        "new devices that ask to be linked; deleted after 10 minutes",
        &[
            ("link_id", "random, from the link code: finds the request"),
            ("user", "whose device it wants to be"),
            ("device", "as which one"),
            ("signature_key", "public; what the approver signs"),
            ("mac", "the new device's proof for the approver, which the server cannot check"),
            ("approval_binding", "the approver's answer, for the new device to fetch"),
            ("approval_mac", "the approver's proof, which the server cannot check"),
            ("expires", "until when"),
        ],
    ),
    (
        "as_former_keys",
        "signature keys that clients have replaced",
        &[
            ("user", "whose"),
            ("device", "which device's"),
            ("signature_key", "public; it is certified no more, whoever has it"),
        ],
    ),
    (
        "as_nonces",
        "signed requests that were seen; deleted when too old to be accepted anyway",
        &[
            ("key", "public; nonces are of one signer"),
            ("nonce", "refuses the same request a second time"),
            ("expires", "until when"),
        ],
    ),
    (
        "ds_channels",
        "logs: of groups, and inboxes",
        &[
            ("id", "random; finds the channel"),
            ("head", "the newest place, so that the next entry comes after it"),
            ("head_hash", "the running hash there, which goes on also when entries are deleted"),
            ("head_time", "times never run backwards"),
            ("head_clock", "what the clock showed then, so that a time far ahead of it moves on all the same"),
            ("ledger", "of a group: which commits stand, from what is in the clear"),
            ("owner", "of an inbox: the public key that reads it, of this inbox alone"),
            ("drop_key_secret", "of an inbox: verifies the drop tokens in delivery addresses"),
            ("bytes", "how much is kept, so that retention by size knows when to delete"),
        ],
    ),
    (
        "ds_epochs",
        "who may read what of a group's channel",
        &[
            ("channel", "which group's"),
            ("epoch", "which one"),
            ("key_root", "a hash that verifies members' keys: 32 bytes in place of a roster"),
            ("base", "from where its members read"),
            ("started", "the commit that began it: tells the loser of a race who won"),
            ("closed", "the removal that ended what its keys may read, once that entry is deleted"),
        ],
    ),
    (
        "ds_tree_chunks",
        "which chunks the sealed tree of a group's current epoch has",
        &[("channel", "whose tree"), ("chunk", "names the blob, which stays while a tree has it")],
    ),
    (
        "ds_group_infos",
        "what joiners and rejoiners need of the current epoch; replaced with each epoch",
        &[
            ("channel", "which group's"),
            ("epoch", "of which epoch: a stale one is not served"),
            ("tree", "hash of the ratchet tree, which is sealed in private groups"),
            ("join_key", "public; admits external commits in this epoch"),
            ("group_info", "the GroupInfo, sealed in private groups"),
        ],
    ),
    (
        "ds_checkpoints",
        "of groups with visible handshakes: their whole public state, now and then",
        &[
            ("id", "the order of writing"),
            ("channel", "whose"),
            ("seq", "up to which entry"),
            ("epoch", "in which epoch; with the link it tells branches apart that were annulled"),
            ("link", "the running hash there, so that the state is of this log and no other"),
            ("snapshot", "by which commits and proposals are judged, and trees served; handshakes show it anyway"),
        ],
    ),
    (
        "ds_followed",
        "of groups with visible handshakes: the handshakes since the last checkpoint, so that none is written for each",
        &[
            ("id", "the order of writing"),
            ("channel", "whose"),
            ("seq", "its place"),
            ("kind", "commit or proposal"),
            ("time", "certificates are judged at the entry's time"),
            ("link", "the running hash there"),
            ("message", "what is replayed on the checkpoint; it stands in the log as well"),
        ],
    ),
    (
        "ds_entries",
        "what was ordered; deleted as retention says",
        &[
            ("id", "the order of writing, which keeps appends cheap"),
            ("channel", "where"),
            ("seq", "its place"),
            ("kind", "part of the running hash; decides which entry may follow"),
            ("epoch", "decides which entry may follow"),
            ("removes", "where older keys stop reading"),
            ("time", "part of the running hash; when retention ends it"),
            ("bytes", "the entry as it was submitted, sealed by its sender (in visible groups: but for handshakes)"),
        ],
    ),
    (
        "ds_idempotency",
        "submissions that may come again; deleted after a day (claims: an hour)",
        &[
            ("id", "the order of writing, in which they are deleted"),
            ("scope", "a keyed hash of who submitted and where: recognised, not readable"),
            ("key", "random, chosen by the submitter"),
            ("request", "a hash that tells a repetition from another request"),
            ("reply", "what is answered again"),
            ("expires", "until when"),
        ],
    ),
    (
        "ds_blobs",
        "large sealed bodies and trees",
        &[
            ("hash", "finds it, and is what admits to it"),
            ("size", "told to readers, compared with the entry"),
            ("pins", "how many entries and epochs need it"),
            ("expires", "when it goes if nothing needs it"),
            ("chunks", "random; where its bytes are"),
            ("scope", "a keyed hash of the channel whose quota it counts for, until something names it"),
        ],
    ),
    (
        "ds_staged",
        "blobs on their way in; deleted after a day",
        &[
            ("stager", "a keyed hash of who stages it: nobody can spoil another's"),
            ("hash", "what the whole is announced to have"),
            ("chunks", "random; where its bytes are"),
            ("scope", "a keyed hash of the channel whose quota it counts for"),
            ("size", "announced; reserved in the quota"),
            ("received", "from where to go on"),
            ("digest", "the hash so far, so that the bytes are not read again"),
            ("expires", "until when"),
        ],
    ),
    (
        "ds_chunks",
        "bytes of blobs",
        &[
            ("id", "the order of writing"),
            ("name", "which blob's"),
            ("start", "where in it"),
            ("data", "sealed by who staged it"),
        ],
    ),
    ("ds_discarded", "bytes that are to be deleted in small steps", &[("chunks", "which")]),
    (
        "ds_key_packages",
        "keying material with which a client is added while offline; deleted when served or expired",
        &[
            ("id", "the order of storing, in which they are served"),
            ("reference", "each is there once, and served once"),
            ("client", "whose"),
            ("cipher_suite", "asked for by who claims"),
            ("last_resort", "served only when nothing else is left"),
            ("used", "tells the owner to replace the last resort"),
            ("expires", "from then on it is not served"),
            ("bytes", "the KeyPackage, public and signed by its client"),
            ("capabilities", "asked for by who claims"),
        ],
    ),
    (
        "ds_directory",
        "clients that keep keying material here, also while they have none left",
        &[
            ("user", "asked for by who claims"),
            ("device", "which of the user's clients"),
            ("expires", "90 days after its last upload"),
        ],
    ),
    (
        "ds_claimed",
        "KeyPackages that were served; deleted when they would have expired",
        &[
            ("reference", "a keyed hash: one that was served does not come back, and is linked to nobody"),
            ("expires", "until when"),
        ],
    ),
    (
        "ds_address_keys",
        "keys to which delivery addresses are sealed",
        &[
            ("id", "an address names its key"),
            ("key_secret", "opens addresses"),
            ("public", "offered to clients"),
            ("created", "the newest is offered"),
            ("rotates", "when another is offered"),
            ("expires", "when no KeyPackage can have an address under it any more"),
        ],
    ),
    (
        "ds_drops",
        "delivery addresses that were used",
        &[
            ("nonce", "a keyed hash: each admits so many posts and no more"),
            ("uses", "how many there were"),
            ("expires", "when the address is worth nothing anyway"),
        ],
    ),
    (
        "ds_outbox",
        "Welcomes between a commit and the inboxes; deleted when delivered",
        &[
            ("id", "in this order"),
            ("kind", "what is to be done"),
            ("payload", "the inbox and the sealed Welcome; not the group"),
        ],
    ),
    (
        "ds_nonces",
        "signed requests that were seen; deleted when too old to be accepted anyway",
        &[("nonce", "a keyed hash: refuses the same request a second time"), ("expires", "until when")],
    ),
    (
        "ds_server",
        "the server's own secret",
        &[
            ("id", "there is one"),
            ("server_secret", "the key of all keyed hashes here, and the seed of the key that signs receipts"),
        ],
    ),
];

/// Tables and their columns, as they are on the disk. SQLite's own tables hold nothing of ours.
fn persisted(path: &Path) -> BTreeMap<String, Vec<String>> {
    let connection = Connection::open(path).unwrap();
    let names = |sql: &str, table: &str| -> Vec<String> {
        let mut statement = connection.prepare(sql).unwrap();
        let params: &[&dyn rusqlite::ToSql] = if table.is_empty() { &[] } else { &[&table] };
        statement.query_map(params, |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let tables =
        names("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'", "");
    let columns = |table: &String| names("SELECT name FROM pragma_table_xinfo(?1)", table);
    tables.into_iter().map(|table| (table.clone(), columns(&table))).collect()
}

fn page() -> String {
    let mut page = String::from(
        "# What is stored\n\n\
         Every column of the server's database, and why the server cannot do without it. A test\n\
         (`crates/storage/tests/storage/schema_audit.rs`) compares this list with the database: a column without a reason,\n\
         or a reason without a column, fails it. Tables that start with `as_` are the Authentication Service's, those with\n\
         `ds_` the Delivery Service's; a server that offers one of them has that one's tables only.\n",
    );
    for (table, purpose, columns) in REASONS {
        write!(page, "\n## {table}\n\nFor {purpose}.\n\n| column | why |\n|---|---|\n").unwrap();
        for (column, why) in *columns {
            writeln!(page, "| `{column}` | {why} |").unwrap();
        }
    }
    page
}

#[test]
fn every_column_has_a_reason_and_every_reason_a_column() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let database = Database::open(directory.path(), Options::default()).unwrap();
    runtime.block_on(database.close());
    let found = persisted(&directory.path().join("conclave.db"));
    assert!(found.len() > 20, "the whole database was read: {}", found.len());
    let mut wrong = Vec::new();
    let reasons: BTreeMap<&str, Vec<&str>> = REASONS
        .iter()
        .map(|(table, _, columns)| (*table, columns.iter().map(|(column, _)| *column).collect()))
        .collect();
    for (table, columns) in &found {
        for column in columns {
            if !reasons.get(table.as_str()).is_some_and(|known| known.contains(&column.as_str())) {
                wrong.push(format!("{table}.{column} is kept without a reason"));
            }
        }
    }
    for (table, columns) in &reasons {
        for column in columns {
            if !found.get(*table).is_some_and(|kept| kept.iter().any(|name| name == column)) {
                wrong.push(format!("{table}.{column} has a reason, but is not kept"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        REASONS
            .iter()
            .all(|(_, purpose, columns)| !purpose.is_empty() && columns.iter().all(|(_, why)| !why.is_empty()))
    );
}

#[test]
fn the_documentation_has_the_same_list() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/stored-data.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    if std::env::var_os("CONCLAVE_WRITE_DOCS").is_some() {
        std::fs::write(&path, page()).unwrap();
        return;
    }
    assert!(written == page(), "docs/stored-data.md is not the list of this test: run it with CONCLAVE_WRITE_DOCS=1");
}
