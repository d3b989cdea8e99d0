//! Bounds that clients and servers share. Beyond them an input is refused, with the bound named in the error.

/// Longest inline body of an entry, in bytes. What is longer is staged as a blob and named by its hash.
pub const INLINE_BODY: usize = 64 * 1024;

/// Longest staged body of an entry whose kind does not grow with the group, in bytes: 256 KiB.
pub const STAGED_BODY: u64 = 256 * 1024;

/// Longest handshake message, in bytes: 16 MiB. In private groups 128 more for each member, whose path secret it may have to carry.
pub const HANDSHAKE: u64 = 16 * 1024 * 1024;

/// Largest staged blob, in bytes (a tree of 100,000 members is about 80 MB with certificates).
pub const BLOB: u64 = 256 * 1024 * 1024;

/// Largest chunk of a blob in one request, in bytes.
pub const BLOB_CHUNK: usize = 1024 * 1024;

/// Bytes of blobs that one channel may have staged and that nothing names: parts of blobs count with the size that was
/// announced.
pub const STAGED_BYTES: u64 = 2 * BLOB;

/// Blobs that one channel may have staged and that nothing names.
pub const STAGED_BLOBS: u64 = 4096;

/// Largest message that a server or a client decodes from the wire, in bytes.
pub const WIRE_MESSAGE: usize = 4 * 1024 * 1024;

/// Largest KeyPackage, in bytes.
pub const KEY_PACKAGE: usize = 8 * 1024;

/// KeyPackages in one upload.
pub const KEY_PACKAGES_PER_UPLOAD: usize = 100;

/// Numbers of one kind in the capabilities that a claim requires.
pub const REQUIRED_CAPABILITIES: usize = 64;

/// KeyPackages that the directory keeps of one client and one cipher suite, the last resort apart.
pub const KEY_PACKAGES_PER_CLIENT: u64 = 200;

/// Longest life of a KeyPackage, in seconds (RFC 9750, section 7: "maximum total lifetime"): 90 days, and the
/// hour by which it may be dated back for clocks that run behind.
pub const KEY_PACKAGE_LIFETIME: u64 = 90 * 24 * 3600 + 3600;

/// Clients (devices) of one user.
pub const CLIENTS_PER_USER: u64 = 64;

/// Welcomes in one commit bundle.
pub const WELCOMES_PER_BUNDLE: usize = 4096;

/// Longest sealed GroupInfo in a bundle, in bytes.
pub const GROUP_INFO: usize = 256 * 1024;

/// How long an inbox keeps a Welcome, and how long the tree of an epoch that invited somebody is kept after the epoch, in
/// milliseconds: 30 days. Who was invited and comes online later must be invited again.
pub const INVITATION_MS: u64 = 30 * 24 * 3600 * 1000;

/// Epochs of which a channel still knows the key root although the commit that ended them is no longer kept: so that who
/// comes late is told so. Keys of epochs before them are strangers'.
pub const SPENT_EPOCHS: u64 = 1024;

/// Members of a group, and so leaves of a key tree.
pub const MEMBERS: u64 = 1 << 20;

/// Entries in one reply to a fetch.
pub const FETCH_ENTRIES: u32 = 1024;

/// Bytes of entries in one reply to a fetch.
pub const FETCH_BYTES: usize = 2 * 1024 * 1024;

/// How far the clock of a signed request may be from the server's, in milliseconds.
pub const REQUEST_CLOCK_SKEW_MS: u64 = 5 * 60 * 1000;

/// Channel hashes that a member remembers to check what others claim to have seen (design, section 3).
pub const HASH_WINDOW: usize = 4096;

/// Latest time that an entry may have, in milliseconds since the Unix epoch: the end of the year 9999.
pub const TIME_MAX: u64 = 253_402_300_799_999;

/// Longest sender-chosen text, in bytes of UTF-8.
pub const TEXT: usize = 16 * 1024;
