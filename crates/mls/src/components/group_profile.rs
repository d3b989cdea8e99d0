//! The component of the GroupContext that says where a group lives and in which formats.

use conclave_channel::{law::DisputePause, receipt::ReceiptKey};
use conclave_names::{ChannelId, Domain, NameError, RoomUri, code_points, limits};
use mls_rs::ExtensionList;
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{AppDataDictionary, ComponentsList, DictionaryError};

/// Version of the component that this code writes and reads.
const VERSION: u8 = 1;

/// Whether handshake messages are sealed (RFC 9750, sections 5.2.1 and 8.4.3.2: encrypted whenever possible).
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
#[repr(u8)]
pub enum HandshakeMode {
    /// Entries are sealed; the DS sees kind, epoch and size class.
    Private = 1,
    /// PublicMessage: the DS follows the group.
    Visible = 2,
}

/// Why a GroupContext is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The dictionary does not decode.
    #[error(transparent)]
    Dictionary(#[from] DictionaryError),
    /// There is no profile.
    #[error("the group has no Conclave profile: it was made by another application")]
    Absent,
    /// The profile's version, or a format in it, is not ours.
    #[error("the group uses version {0} of its profile or formats; this program knows version 1: upgrade it")]
    Version(u8),
    /// A name in it is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The title is too long.
    #[error("the room's title is longer than 256 bytes")]
    Title,
}

/// Where a group lives, and in which formats its members speak. Moving to another DS is a commit that changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupProfile {
    /// The provider whose DS orders the group's messages.
    pub hub: Domain,
    /// The group's channel there.
    pub channel: ChannelId,
    /// The key by which that DS signs receipts: all members, and whoever is shown the GroupContext, hold it to the same.
    pub receipt_key: ReceiptKey,
    /// Private or visible handshakes.
    pub mode: HandshakeMode,
    /// The room that the group carries.
    pub room: RoomUri,
    /// What people call it; at most 256 bytes.
    pub title: String,
    /// How long a disputed commit waits.
    pub dispute_pause: DisputePause,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Wire {
    version: u8,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    hub: Vec<u8>,
    channel: ChannelId,
    receipt_key: ReceiptKey,
    mode: HandshakeMode,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    room: Vec<u8>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    title: Vec<u8>,
    dispute_pause: DisputePause,
    /// Versions of the seal of entries, of the frame in messages and of the running hash.
    seal_version: u8,
    frame_version: u8,
    chain_version: u8,
}

fn text(bytes: Vec<u8>) -> Result<String, ProfileError> {
    String::from_utf8(bytes).map_err(|_| DictionaryError::Component(code_points::COMPONENT_GROUP_PROFILE).into())
}

impl GroupProfile {
    /// Writes the GroupContext's dictionary: this profile, and SafeAAD switched on from the start.
    pub fn to_dictionary(&self) -> Result<AppDataDictionary, mls_rs_codec::Error> {
        let mut dictionary = AppDataDictionary::default();
        dictionary.encode(
            code_points::COMPONENT_APP_COMPONENTS,
            &ComponentsList {
                component_ids: vec![code_points::COMPONENT_SAFE_AAD, code_points::COMPONENT_GROUP_PROFILE],
            },
        )?;
        dictionary.encode(
            code_points::COMPONENT_SAFE_AAD,
            &ComponentsList { component_ids: vec![code_points::COMPONENT_KEY_ROOT, code_points::COMPONENT_POSITION] },
        )?;
        dictionary.encode(
            code_points::COMPONENT_GROUP_PROFILE,
            &Wire {
                version: VERSION,
                hub: self.hub.to_string().into_bytes(),
                channel: self.channel,
                receipt_key: self.receipt_key,
                mode: self.mode,
                room: self.room.to_string().into_bytes(),
                title: self.title.clone().into_bytes(),
                dispute_pause: self.dispute_pause,
                seal_version: 1,
                frame_version: 1,
                chain_version: 1,
            },
        )?;
        Ok(dictionary)
    }

    /// Reads it from the GroupContext's extensions.
    pub fn of(extensions: &ExtensionList) -> Result<Self, ProfileError> {
        let dictionary = AppDataDictionary::of(extensions)?;
        let raw = dictionary.get(code_points::COMPONENT_GROUP_PROFILE).ok_or(ProfileError::Absent)?;
        // The version decides how the rest is read.
        match raw.first() {
            Some(&VERSION) => {}
            Some(&other) => return Err(ProfileError::Version(other)),
            None => return Err(DictionaryError::Component(code_points::COMPONENT_GROUP_PROFILE).into()),
        }
        let wire: Wire = dictionary.decode(code_points::COMPONENT_GROUP_PROFILE)?.ok_or(ProfileError::Absent)?;
        for version in [wire.seal_version, wire.frame_version, wire.chain_version] {
            if version != VERSION {
                return Err(ProfileError::Version(version));
            }
        }
        if wire.title.len() > Self::TITLE_MAX {
            return Err(ProfileError::Title);
        }
        Ok(Self {
            hub: text(wire.hub)?.parse()?,
            channel: wire.channel,
            receipt_key: wire.receipt_key,
            mode: wire.mode,
            room: text(wire.room)?.parse()?,
            title: text(wire.title)?,
            dispute_pause: wire.dispute_pause,
        })
    }

    /// Longest title, in bytes.
    pub const TITLE_MAX: usize = 256;
}

const _: () = assert!(GroupProfile::TITLE_MAX < limits::TEXT);

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> GroupProfile {
        GroupProfile {
            hub: "hub.example.com".parse().unwrap(),
            channel: ChannelId::new([3; 16]),
            receipt_key: ReceiptKey([4; 32]),
            mode: HandshakeMode::Private,
            room: "mimi://hub.example.com/r/club".parse().unwrap(),
            title: "The Club".into(),
            dispute_pause: DisputePause::MAX,
        }
    }

    #[test]
    fn a_pause_beyond_its_bounds_is_no_profile() {
        let mut dictionary = profile().to_dictionary().unwrap();
        let raw = dictionary.get(code_points::COMPONENT_GROUP_PROFILE).unwrap().to_vec();
        for (ms, good) in [(9_999, false), (10_000, true), (86_400_000, true), (86_400_001, false), (u64::MAX, false)] {
            let mut changed = raw.clone();
            let at = changed.len() - 3 - 8;
            assert_eq!(changed[at..at + 8], DisputePause::MAX.ms().to_be_bytes());
            changed[at..at + 8].copy_from_slice(&u64::to_be_bytes(ms));
            dictionary.set(code_points::COMPONENT_GROUP_PROFILE, changed);
            assert_eq!(GroupProfile::of(&with(&dictionary)).is_ok(), good, "{ms}");
        }
    }

    fn with(dictionary: &AppDataDictionary) -> ExtensionList {
        let mut extensions = ExtensionList::new();
        extensions.set(dictionary.to_extension().unwrap());
        extensions
    }

    #[test]
    fn profiles_round_trip() {
        let extensions = with(&profile().to_dictionary().unwrap());
        assert_eq!(GroupProfile::of(&extensions).unwrap(), profile());
    }

    #[test]
    fn another_application_version_or_title_is_refused() {
        assert_eq!(GroupProfile::of(&ExtensionList::new()), Err(ProfileError::Absent));
        let mut dictionary = profile().to_dictionary().unwrap();
        let mut raw = dictionary.get(code_points::COMPONENT_GROUP_PROFILE).unwrap().to_vec();
        *raw.last_mut().unwrap() = 2;
        dictionary.set(code_points::COMPONENT_GROUP_PROFILE, raw.clone());
        assert_eq!(GroupProfile::of(&with(&dictionary)), Err(ProfileError::Version(2)));
        raw[0] = 9;
        dictionary.set(code_points::COMPONENT_GROUP_PROFILE, raw);
        assert_eq!(GroupProfile::of(&with(&dictionary)), Err(ProfileError::Version(9)));
        let long = GroupProfile { title: "x".repeat(257), ..profile() };
        assert_eq!(GroupProfile::of(&with(&long.to_dictionary().unwrap())), Err(ProfileError::Title));
    }
}
