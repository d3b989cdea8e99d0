//! Every number on the wire that a document or this project assigned, in one table.
//!
//! Drafts collide (component 6 and extension 8 are claimed twice), so only numbers of RFCs are used as they stand;
//! numbers of drafts that are not yet in the IANA registries, and Conclave's own, lie in the private ranges
//! (RFC 9420, section 17).

/// Extension `app_data_dictionary` (draft-ietf-mls-extensions).
pub const EXTENSION_APP_DATA_DICTIONARY: u16 = 0x0006;

/// KeyPackage extension: the sealed address to which a Welcome is posted.
pub const EXTENSION_DELIVERY_ADDRESS: u16 = 0xF0C0;

/// Leaf extension: the Ed25519 key by which the DS knows that somebody may read a channel.
pub const EXTENSION_CHANNEL_KEY: u16 = 0xF0C1;

/// Extension `last_resort` of a KeyPackage (RFC 9420 left it to applications; draft-ietf-mls-extensions has it as
/// component 4, which collides with earlier use of the extension 0x000A).
pub const EXTENSION_LAST_RESORT: u16 = 0xF0C2;

/// Component `app_components` (draft-ietf-mls-extensions).
pub const COMPONENT_APP_COMPONENTS: u16 = 0x0001;

/// Component `safe_aad` (draft-ietf-mls-extensions).
pub const COMPONENT_SAFE_AAD: u16 = 0x0002;

/// Component in the GroupContext: where the group lives and in which formats ([RFC 9750, section 7] operational
/// parameters that must be agreed by all members).
///
/// [RFC 9750, section 7]: https://www.rfc-editor.org/rfc/rfc9750#section-7
pub const COMPONENT_GROUP_PROFILE: u16 = 0x8C01;

/// Component in a Welcome's GroupInfo: the key under which what a joiner needs beyond MLS (group seed, position, tree)
/// is sealed beside the Welcome.
pub const COMPONENT_JOINER_INFO: u16 = 0x8C02;

/// SafeAAD item of a commit: the root of the key tree of the epoch that the commit starts.
pub const COMPONENT_KEY_ROOT: u16 = 0x8C03;

/// SafeAAD item of a handshake message: the sender's position in the channel and the running hash there.
pub const COMPONENT_POSITION: u16 = 0x8C04;

/// SafeAAD item of every message of a member: which epoch it is of, as a hash of the epoch's authenticator.
pub const COMPONENT_EPOCH_TAG: u16 = 0x8C05;

/// Object identifier of the certificate extension that carries the identity key's signature over a client's key:
/// 1.3.6.1.3 (the experimental arc), 9750, 1.
pub const OID_IDENTITY_BINDING: &str = "1.3.6.1.3.9750.1";
