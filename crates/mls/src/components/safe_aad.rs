//! SafeAAD (draft-ietf-mls-extensions, section "Safe Additional Authenticated Data"): many components' data in
//! `authenticated_data`, sorted by component id.

use conclave_channel::Position;
use conclave_names::{Hash, code_points};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::EpochTag;

/// Why authenticated data is not what our groups require.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SafeAadError {
    /// It is no SafeAAD.
    #[error("the authenticated data is not framed as SafeAAD")]
    Malformed,
    /// Its items are not sorted, or one is there twice.
    #[error("the items of the SafeAAD are not sorted")]
    Unsorted,
    /// An item that the message must have is missing or does not decode.
    #[error("item {0:#06x} of the SafeAAD is missing or does not decode")]
    Item(u16),
}

#[derive(Clone, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
struct Item {
    component_id: u16,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    data: Vec<u8>,
}

impl Item {
    fn epoch(epoch: EpochTag) -> Result<Self, mls_rs_codec::Error> {
        Ok(Self { component_id: code_points::COMPONENT_EPOCH_TAG, data: epoch.mls_encode_to_vec()? })
    }
}

/// The `authenticated_data` of a message in our groups.
#[derive(Clone, Default, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct SafeAad {
    aad_items: Vec<Item>,
}

impl std::fmt::Debug for SafeAad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.aad_items.iter().map(|item| item.component_id)).finish()
    }
}

impl SafeAad {
    /// What an application message says.
    ///
    /// # Errors
    /// [`mls_rs_codec::Error`] never in practice.
    pub fn of_message(epoch: EpochTag) -> Result<Vec<u8>, mls_rs_codec::Error> {
        Self { aad_items: vec![Item::epoch(epoch)?] }.mls_encode_to_vec()
    }

    /// Of which epoch its sender says it to be, if it says so.
    #[must_use]
    pub fn epoch(&self) -> Option<EpochTag> {
        self.item(code_points::COMPONENT_EPOCH_TAG).ok()
    }

    /// Decodes it; nothing may follow.
    pub fn parse(bytes: &[u8]) -> Result<Self, SafeAadError> {
        let mut rest = bytes;
        let aad = Self::mls_decode(&mut rest).map_err(|_| SafeAadError::Malformed)?;
        if !rest.is_empty() {
            return Err(SafeAadError::Malformed);
        }
        if !aad.aad_items.is_sorted_by(|a, b| a.component_id < b.component_id) {
            return Err(SafeAadError::Unsorted);
        }
        Ok(aad)
    }

    fn item<T: MlsDecode>(&self, component: u16) -> Result<T, SafeAadError> {
        let error = SafeAadError::Item(component);
        let item = self.aad_items.iter().find(|item| item.component_id == component).ok_or(error)?;
        let mut rest = item.data.as_slice();
        let value = T::mls_decode(&mut rest).map_err(|_| error)?;
        if rest.is_empty() { Ok(value) } else { Err(error) }
    }
}

/// What a commit says in its authenticated data about the epoch that it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MlsSize, MlsEncode, MlsDecode)]
pub struct CommitAad {
    /// Root of the key tree of the epoch that begins.
    pub key_root: Hash,
    /// Whether the group seed is derived anew from that epoch. Always so if the commit removes members.
    pub renews_seed: bool,
    /// Whether the tree key is derived anew from that epoch.
    pub renews_tree_key: bool,
}

/// What every handshake message says: where in the channel its sender stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeAad {
    /// The sender's place and the running hash there.
    pub position: Position,
    /// For commits.
    pub commit: Option<CommitAad>,
}

impl HandshakeAad {
    /// Encodes it as SafeAAD of who is no member: it cannot say which epoch it takes this for.
    pub fn to_bytes(&self) -> Result<Vec<u8>, mls_rs_codec::Error> {
        self.encode(None)
    }

    /// Encodes it as SafeAAD of a member.
    ///
    /// # Errors
    /// [`mls_rs_codec::Error`] never in practice.
    pub fn in_epoch(&self, epoch: EpochTag) -> Result<Vec<u8>, mls_rs_codec::Error> {
        self.encode(Some(epoch))
    }

    fn encode(&self, epoch: Option<EpochTag>) -> Result<Vec<u8>, mls_rs_codec::Error> {
        let mut aad = SafeAad::default();
        if let Some(commit) = &self.commit {
            aad.aad_items
                .push(Item { component_id: code_points::COMPONENT_KEY_ROOT, data: commit.mls_encode_to_vec()? });
        }
        aad.aad_items
            .push(Item { component_id: code_points::COMPONENT_POSITION, data: self.position.mls_encode_to_vec()? });
        aad.aad_items.extend(epoch.map(Item::epoch).transpose()?);
        aad.mls_encode_to_vec()
    }

    /// Reads what a proposal says. Items that it does not know are passed over.
    pub fn of_proposal(bytes: &[u8]) -> Result<Self, SafeAadError> {
        let aad = SafeAad::parse(bytes)?;
        Ok(Self { position: aad.item(code_points::COMPONENT_POSITION)?, commit: None })
    }

    /// Reads what a commit says. Items that it does not know are passed over.
    pub fn of_commit(bytes: &[u8]) -> Result<(Position, CommitAad), SafeAadError> {
        let aad = SafeAad::parse(bytes)?;
        Ok((aad.item(code_points::COMPONENT_POSITION)?, aad.item(code_points::COMPONENT_KEY_ROOT)?))
    }
}

#[cfg(test)]
mod tests {
    use conclave_names::Seq;
    use proptest::prelude::*;

    use super::*;

    const POSITION: Position = Position { seq: Seq(9), hash: Hash::new([4; 32]) };

    #[test]
    fn what_a_handshake_says_round_trips() {
        let commit = CommitAad { key_root: Hash::new([5; 32]), renews_seed: true, renews_tree_key: false };
        let bytes = HandshakeAad { position: POSITION, commit: Some(commit) }.to_bytes().unwrap();
        assert_eq!(HandshakeAad::of_commit(&bytes), Ok((POSITION, commit)));
        let bytes = HandshakeAad { position: POSITION, commit: None }.to_bytes().unwrap();
        assert_eq!(HandshakeAad::of_proposal(&bytes).unwrap().position, POSITION);
        assert_eq!(
            HandshakeAad::of_commit(&bytes),
            Err(SafeAadError::Item(code_points::COMPONENT_KEY_ROOT)),
            "a commit must name its key root"
        );
    }

    #[test]
    fn empty_unsorted_or_longer_data_is_refused() {
        assert_eq!(SafeAad::parse(&[]), Err(SafeAadError::Malformed));
        let item = |id| Item { component_id: id, data: vec![] };
        let unsorted = SafeAad { aad_items: vec![item(2), item(1)] }.mls_encode_to_vec().unwrap();
        assert_eq!(SafeAad::parse(&unsorted), Err(SafeAadError::Unsorted));
        assert_eq!(SafeAad::parse(&[0, 0]), Err(SafeAadError::Malformed));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = HandshakeAad::of_commit(&bytes);
            let _ = HandshakeAad::of_proposal(&bytes);
        }
    }
}
