//! What a leaf is capable of, and what a group requires (RFC 9420, sections 7.2 and 11.1): compared the same way by the
//! directory that looks for a KeyPackage and by who wants to add its owner.

use std::{collections::BTreeSet, fmt};

use conclave_names::code_points;
use mls_rs::{
    ProtocolVersion,
    extension::{ExtensionType, built_in::RequiredCapabilitiesExt},
    group::proposal::ProposalType,
    identity::CredentialType,
};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

/// Protocol versions, extension types, proposal types and credential types, by their numbers.
///
/// Numbers that are reserved to keep implementations tolerant (GREASE; RFC 9420, section 13.5) are never in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capabilities {
    /// Versions of MLS.
    pub protocol_versions: BTreeSet<u16>,
    /// Extension types.
    pub extension_types: BTreeSet<u16>,
    /// Proposal types.
    pub proposal_types: BTreeSet<u16>,
    /// Credential types.
    pub credential_types: BTreeSet<u16>,
}

/// Extension types that every client has, so that no leaf lists them (RFC 9420, section 17.3).
const DEFAULT_EXTENSIONS: std::ops::RangeInclusive<u16> = 1..=5;

/// Proposal types that every client has (RFC 9420, section 17.4).
const DEFAULT_PROPOSALS: std::ops::RangeInclusive<u16> = 1..=7;

/// Whether a number means nothing and is only there so that others get used to numbers they do not know.
fn is_grease(number: u16) -> bool {
    let [high, low] = number.to_be_bytes();
    high == low && low & 0x0f == 0x0a && number != 0xfafa
}

/// The encoding; lists ascend.
#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Lists {
    protocol_versions: Vec<u16>,
    extension_types: Vec<u16>,
    proposal_types: Vec<u16>,
    credential_types: Vec<u16>,
}

impl Capabilities {
    /// Of these numbers, those that mean nothing left out.
    pub fn new(
        protocol_versions: impl IntoIterator<Item = u16>,
        extension_types: impl IntoIterator<Item = u16>,
        proposal_types: impl IntoIterator<Item = u16>,
        credential_types: impl IntoIterator<Item = u16>,
    ) -> Self {
        fn meant(numbers: impl IntoIterator<Item = u16>) -> BTreeSet<u16> {
            numbers.into_iter().filter(|number| !is_grease(*number)).collect()
        }
        Self {
            protocol_versions: meant(protocol_versions),
            extension_types: meant(extension_types),
            proposal_types: meant(proposal_types),
            credential_types: meant(credential_types),
        }
    }

    /// What a leaf says of itself.
    #[must_use]
    pub fn of_leaf(leaf: &mls_rs::group::Capabilities) -> Self {
        Self::new(
            leaf.protocol_versions.iter().map(ProtocolVersion::raw_value),
            leaf.extensions.iter().map(ExtensionType::raw_value),
            leaf.proposals.iter().map(ProposalType::raw_value),
            leaf.credentials.iter().map(CredentialType::raw_value),
        )
    }

    /// What a group requires of its members, beside the version of MLS that it speaks.
    #[must_use]
    pub fn required_by(group: &RequiredCapabilitiesExt, protocol_version: u16) -> Self {
        Self::new(
            [protocol_version],
            group.extensions.iter().map(ExtensionType::raw_value),
            group.proposals.iter().map(ProposalType::raw_value),
            group.credentials.iter().map(CredentialType::raw_value),
        )
    }

    /// What of `required` is not here. What every client has, listed or not, never is missing.
    #[must_use]
    pub fn missing(&self, required: &Self) -> Self {
        let lacking = |required: &BTreeSet<u16>, here: &BTreeSet<u16>| -> BTreeSet<u16> {
            required.difference(here).copied().collect()
        };
        let mut missing = Self {
            protocol_versions: lacking(&required.protocol_versions, &self.protocol_versions),
            extension_types: lacking(&required.extension_types, &self.extension_types),
            proposal_types: lacking(&required.proposal_types, &self.proposal_types),
            credential_types: lacking(&required.credential_types, &self.credential_types),
        };
        missing.extension_types.retain(|kind| !DEFAULT_EXTENSIONS.contains(kind));
        missing.proposal_types.retain(|kind| !DEFAULT_PROPOSALS.contains(kind));
        missing
    }

    /// Whether all that is `required` is here.
    #[must_use]
    pub fn meets(&self, required: &Self) -> bool {
        self.missing(required).is_empty()
    }

    /// How many numbers are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        [&self.protocol_versions, &self.extension_types, &self.proposal_types, &self.credential_types]
            .iter()
            .map(|numbers| numbers.len())
            .sum()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Encodes it, for a store: equal capabilities are equal bytes.
    ///
    /// # Errors
    /// [`mls_rs_codec::Error`] never in practice: lists of 16-bit numbers without repetition are short.
    pub fn to_bytes(&self) -> Result<Vec<u8>, mls_rs_codec::Error> {
        let list = |numbers: &BTreeSet<u16>| numbers.iter().copied().collect();
        Lists {
            protocol_versions: list(&self.protocol_versions),
            extension_types: list(&self.extension_types),
            proposal_types: list(&self.proposal_types),
            credential_types: list(&self.credential_types),
        }
        .mls_encode_to_vec()
    }

    /// Decodes it; nothing may follow. None: these are no such bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let lists = Lists::mls_decode(&mut rest).ok().filter(|_| rest.is_empty())?;
        Some(Self::new(lists.protocol_versions, lists.extension_types, lists.proposal_types, lists.credential_types))
    }
}

/// The name of an extension that this project knows.
fn extension_name(kind: u16) -> Option<&'static str> {
    match kind {
        code_points::EXTENSION_APP_DATA_DICTIONARY => Some("app_data_dictionary"),
        code_points::EXTENSION_CHANNEL_KEY => Some("channel_key"),
        code_points::EXTENSION_DELIVERY_ADDRESS => Some("delivery_address"),
        code_points::EXTENSION_LAST_RESORT => Some("last_resort"),
        _ => None,
    }
}

/// For people: `extension 0xF0C1 (channel_key), credential 0x0002`. Nothing, if nothing is in it.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("MLS version", &self.protocol_versions),
            ("extension", &self.extension_types),
            ("proposal", &self.proposal_types),
            ("credential", &self.credential_types),
        ];
        let mut separator = "";
        for (kind, numbers) in kinds {
            for number in numbers {
                write!(f, "{separator}{kind} 0x{number:04X}")?;
                if let Some(name) = extension_name(*number).filter(|_| kind == "extension") {
                    write!(f, " ({name})")?;
                }
                separator = ", ";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some(extensions: &[u16], proposals: &[u16], credentials: &[u16]) -> Capabilities {
        let list = |numbers: &[u16]| numbers.to_vec();
        Capabilities::new([1], list(extensions), list(proposals), list(credentials))
    }

    #[test]
    fn what_is_missing_is_named_and_defaults_never_are() {
        let leaf = some(&[6, 0xF0C1], &[0xF001], &[2]);
        assert!(leaf.meets(&Capabilities::default()));
        assert!(leaf.meets(&some(&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6, 7], &[2])));
        let missing = leaf.missing(&some(&[6, 8, 0xF0C0], &[8, 0xF001], &[1, 2]));
        assert_eq!(missing, Capabilities { protocol_versions: BTreeSet::new(), ..some(&[8, 0xF0C0], &[8], &[1]) });
        assert_eq!(
            missing.to_string(),
            "extension 0x0008, extension 0xF0C0 (delivery_address), proposal 0x0008, credential 0x0001"
        );
        let newer = Capabilities::new([2], [], [], []);
        assert_eq!(leaf.missing(&newer).to_string(), "MLS version 0x0002");
        assert_eq!(Capabilities::default().to_string(), "");
    }

    #[test]
    fn numbers_that_mean_nothing_are_passed_over() {
        for high in 0..=0xe_u16 {
            let grease = (high << 4 | 0xa) * 0x0101;
            assert!(is_grease(grease), "{grease:04X}");
            assert!(some(&[grease], &[grease], &[grease]).meets(&some(&[grease], &[], &[])));
            assert_eq!(some(&[grease, 6], &[grease], &[]), some(&[6], &[], &[]));
        }
        assert!(!is_grease(0xfafa) && !is_grease(0x0a0b) && !is_grease(0x1a0a) && !is_grease(6));
    }

    proptest! {
        #[test]
        fn encoding_round_trips_and_is_canonical(
            mut extensions in prop::collection::vec(any::<u16>(), 0..30),
            proposals in prop::collection::vec(any::<u16>(), 0..30),
        ) {
            let one = some(&extensions, &proposals, &[2]);
            let bytes = one.to_bytes().unwrap();
            prop_assert_eq!(Capabilities::parse(&bytes), Some(one.clone()));
            extensions.reverse();
            extensions.extend(extensions.clone());
            prop_assert_eq!(some(&extensions, &proposals, &[2]).to_bytes().unwrap(), bytes.clone());
            prop_assert_eq!(Capabilities::parse(&[bytes.as_slice(), &[0]].concat()), None);
            prop_assert!(one.meets(&one));
            prop_assert!(one.missing(&some(&[], &[], &[])).is_empty());
        }

        #[test]
        fn whatever_bytes_come_nothing_breaks(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Capabilities::parse(&bytes);
        }
    }
}
