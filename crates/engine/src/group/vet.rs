//! What who acknowledges a commit looks after as well: that others can come back by what the newest commit left at the server (RFC 9420,
//! section 12.4.3.2).
//!
//! Nobody outside can check a GroupInfo's `external_pub` and confirmation tag; with others than the epoch's, the commit of who comes back is
//! one that nobody can apply. A member can: it knows both. One is enough, and the one that acknowledges a commit is up to date and has the
//! server's ear. If what is served leads nowhere, it tells who signed that, takes nothing of it itself, and makes a commit, which leaves a
//! GroupInfo that is true; with growing pauses, should the server serve something else whatever is left there.

use conclave_mls::signing::is_signed;
use conclave_names::{ClientUri, Epoch, Timestamp};
use mls_rs::{MlsMessage, extension::built_in::ExternalPubExt, group::GroupInfo};
use mls_rs_codec::{MlsDecode, MlsSize};

use super::{Group, Status, access::fault, view::client_in};
use crate::{
    intent::Wish,
    mls_client::{MlsError, suite},
    outcome::Event,
};

/// What a GroupInfo ends with (RFC 9420, section 12.4.3), after GroupContext and extensions.
#[derive(MlsSize, MlsDecode, PartialEq, Eq)]
struct End {
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    confirmation_tag: Vec<u8>,
    signer: u32,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    signature: Vec<u8>,
}

/// What is before a GroupInfo in an MLSMessage (RFC 9420, section 6): version and wire format.
const HEADER: usize = 4;

/// A GroupInfo's end, and what of it is signed: of the bytes as they came.
fn end_of<'a>(message: &'a [u8], info: &GroupInfo) -> Result<(End, &'a [u8]), MlsError> {
    let bytes = message.get(HEADER..).unwrap_or_default();
    let before = info.group_context().mls_encoded_len() + info.extensions().mls_encoded_len();
    let end = End::mls_decode(&mut bytes.get(before..).unwrap_or_default()).map_err(fault)?;
    let signature = mls_rs_codec::byte_vec::mls_encoded_len(&end.signature);
    let signed = bytes.get(..bytes.len().saturating_sub(signature)).unwrap_or_default();
    Ok((end, signed))
}

impl Group {
    /// Whether the GroupInfo that the DS serves is to be read and given to [`Group::vet_group_info`]: once we have acknowledged a commit.
    #[must_use]
    pub fn wants_group_info(&self) -> bool {
        self.vets && self.status == Status::Active && self.frozen.is_none()
    }

    /// Looks at what the DS served as the GroupInfo of an epoch, in the session of [`Group::access`]. If who comes back by it gets nowhere,
    /// [`Event::FalseGroupInfo`] tells so, and a commit of ours leaves another one.
    ///
    /// # Errors
    /// [`MlsError`] never in practice.
    pub fn vet_group_info(
        &mut self,
        epoch: Epoch,
        served: &[u8],
        now: Timestamp,
        events: &mut Vec<Event>,
    ) -> Result<(), MlsError> {
        // Of another epoch than ours, we know nothing; and where there is none, who comes back is told so.
        if !self.wants_group_info() || epoch != self.epoch() || served.is_empty() {
            return Ok(());
        }
        self.vets = false;
        // What nobody can open is nothing.
        let message = self.opened_info(epoch, served).map(|(message, _)| message).unwrap_or_default();
        let parsed = MlsMessage::from_bytes(&message).ok();
        let info = parsed.as_ref().and_then(MlsMessage::as_group_info);
        if let Some(info) = info
            && self.is_true(&message, info)?
        {
            self.served_well();
            return Ok(());
        }
        let by = info.map(|info| self.signer_of(&message, info)).transpose()?.flatten();
        if let Some(by) = &by {
            self.take_nothing_of(by.clone(), served, now);
        }
        self.tell(Event::FalseGroupInfo { by, epoch }, now, events);
        if self.may_mend(now) {
            self.wish_first(Wish::Update)?;
        }
        Ok(())
    }

    /// Whether it is the one of our epoch.
    fn is_true(&self, message: &[u8], info: &GroupInfo) -> Result<bool, MlsError> {
        let ours = self.mls.group_info_message_allowing_ext_commit(false)?;
        let bytes = ours.to_bytes()?;
        let ours = ours.as_group_info().ok_or_else(|| fault("no GroupInfo"))?;
        let key =
            |info: &GroupInfo| info.extensions().get_as::<ExternalPubExt>().ok().flatten().map(|of| of.external_pub);
        let tag = |message, info| Ok::<_, MlsError>(end_of(message, info)?.0.confirmation_tag);
        let same = info.group_context() == ours.group_context() && key(info) == key(ours);
        Ok(same && tag(message, info)? == tag(&bytes, ours)?)
    }

    /// Who has signed it, if somebody has.
    fn signer_of(&self, message: &[u8], info: &GroupInfo) -> Result<Option<ClientUri>, MlsError> {
        let (end, content) = end_of(message, info)?;
        let Some(member) = self.mls.member_at_index(end.signer) else { return Ok(None) };
        let (provider, key) = (suite(self.mls.cipher_suite())?, &member.signing_identity.signature_key);
        let is_signed = is_signed(&provider, key, "GroupInfoTBS", content, &end.signature);
        Ok(client_in(&self.mls, end.signer).ok().filter(|_| is_signed))
    }
}
