//! Going on without members that a frozen group waits for in vain.
//!
//! The successor of a group that is made anew has the same members (RFC 9420, section 11.2), so it needs a KeyPackage of each. One that is dead,
//! or whose certificate has ended, would keep all others frozen for ever; and in the frozen epoch nobody can be removed. So after a week
//! ([`ONWARD_MS`]) any member may, if its user decides so, make an ordinary new group of the same room with those whose KeyPackages are to be
//! had, and say in the old channel where it is and who is not in it. That is an entry of the same kind as one with a successor, and the first
//! valid entry of either sort counts, so that the log decides for everybody. It is the user's decision, as it leaves members out; they read
//! there, when they are back, that they are to be added.

use std::collections::BTreeSet;

use conclave_channel::EntryKind;
use conclave_mls::{components::GroupProfile, crypto};
use conclave_names::{ChannelId, ClientUri, Epoch, GroupUri, IdempotencyKey, Timestamp};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use mls_rs::ExtensionList;
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};

use super::{
    Group, Status,
    access::fault,
    reinit::{Frozen, Way, members_of},
};
use crate::{
    intent::Wish,
    mls_client::{MlsError, random, suite},
    outcome::Event,
    record::Text,
};

/// How long a group is frozen until members may go on without those whose KeyPackages are not to be had, in milliseconds, counted in the DS's
/// time from the commit that froze it: a week, in which who is on a journey or ill for some days comes online, and after which a
/// commit that nobody acknowledged stands, too.
pub const ONWARD_MS: u64 = 7 * 86_400_000;

/// How long a member that is in the new group waits for its invitation before it asks members, in milliseconds: an hour.
pub const INVITED_MS: u64 = 3_600_000;

const VERSION: u8 = 2;

const LABEL: &[u8] = b"conclave/v1/onward\0";

/// What is said: the plaintext of the entry.
#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Said {
    version: u8,
    group: Text,
    by: Text,
    absent: Vec<Text>,
    signature: [u8; 64],
}

/// What its signature is over, after the label.
#[derive(MlsSize, MlsEncode)]
struct ToBeSigned<'a> {
    channel: ChannelId,
    epoch: Epoch,
    group: &'a Text,
    by: &'a Text,
    absent: &'a [Text],
}

impl Said {
    fn to_be_signed(&self, channel: ChannelId, epoch: Epoch) -> Result<Vec<u8>, MlsError> {
        let Self { group, by, absent, .. } = self;
        let signed = ToBeSigned { channel, epoch, group, by, absent }.mls_encode_to_vec().map_err(fault)?;
        Ok([LABEL, &signed].concat())
    }
}

/// Where a frozen group goes on without some of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onward {
    /// The group.
    pub group: GroupUri,
    /// Whether we are one of those who are not in it.
    pub without_us: bool,
    /// When that was said.
    pub since: Timestamp,
}

/// As the row of a frozen group has it.
#[derive(Clone, MlsSize, MlsEncode, MlsDecode)]
pub(super) struct OnwardRow {
    group: Text,
    without_us: bool,
    since: Timestamp,
}

/// Whether the plaintext of an entry is one of these.
pub(super) fn is_one(plaintext: &[u8]) -> bool {
    plaintext.first() == Some(&VERSION)
}

impl Group {
    /// From when on members may go on without those whose KeyPackages are not to be had; none if the group is not frozen, or goes on.
    #[must_use]
    pub fn onward_from(&self) -> Option<Timestamp> {
        let frozen = self.frozen.as_ref().filter(|of| self.status == Status::Active && of.chosen.is_none())?;
        let from = self.onward_of(frozen)?;
        Some(self.rests.after(&Wish::Succeed, from))
    }

    fn onward_of(&self, frozen: &Frozen) -> Option<Timestamp> {
        // The frozen epoch is the last.
        (self.ledger.epoch() == frozen.epoch).then(|| self.ledger.began().plus_ms(ONWARD_MS))
    }

    /// Where the group goes on without some, if it does.
    #[must_use]
    pub fn onward(&self) -> Option<Onward> {
        let row =
            self.frozen.as_ref().filter(|of| self.status == Status::Active && of.chosen.is_some())?.onward.as_ref()?;
        let group = row.group.parse().ok()?;
        Some(Onward { group, without_us: row.without_us, since: row.since })
    }

    /// When a member that has no invitation to that group asks to be let in.
    pub(super) fn onward_due(&self) -> Option<Timestamp> {
        self.onward().map(|onward| onward.since.plus_ms(INVITED_MS))
    }

    /// Begins the group in which a frozen one is to go on without some: what the successor was to be, with this client as its only member
    /// for now. As with [`Group::create`], the shell makes its channel before the group is made durable, adds those who are to be had,
    /// and then has the frozen group say so ([`Group::go_on_in`]).
    ///
    /// # Errors
    /// [`MlsError`] if it is not time for that ([`Group::onward_from`]).
    pub fn begin_onward(&self, now: Timestamp) -> Result<Self, MlsError> {
        let frozen = self.frozen.as_ref().filter(|_| self.onward_from().is_some_and(|from| from <= now));
        let frozen = frozen.ok_or_else(|| fault("nobody may go on without others here, or not yet"))?;
        let new = crypto::suite_by_number(frozen.suite).map_err(fault)?;
        let provider = suite(new)?;
        let mut extensions = ExtensionList::mls_decode(&mut frozen.extensions.as_slice()).map_err(fault)?;
        let profile = GroupProfile {
            channel: ChannelId::new(random(&provider)?),
            ..GroupProfile::of(&extensions).map_err(fault)?
        };
        extensions.set(profile.to_dictionary().and_then(|dictionary| dictionary.to_extension()).map_err(fault)?);
        let name =
            GroupUri::new(profile.hub.clone(), &ChannelId::new(random(&provider)?).to_string()).map_err(fault)?;
        Self::create_with((&self.account, &self.shared), name, profile, extensions, new, now)
    }

    /// Says in the frozen group's channel that it goes on in another of the same room, which has those of its members in it who are to
    /// be had, as an intent: the next submission carries it out.
    ///
    /// # Errors
    /// [`MlsError`] if it is not time for that, or somebody is in the other group who is no member of this one.
    pub fn go_on_in(&mut self, next: &Self, now: Timestamp) -> Result<IdempotencyKey, MlsError> {
        let under_way = self.intents.values().any(|intent| intent.wish == Wish::Succeed);
        if under_way || self.onward_from().is_none_or(|from| from > now) {
            return Err(fault("nobody may go on without others here, or not yet"));
        }
        let epoch = self.epoch();
        if (&next.profile.room, &next.profile.hub) != (&self.profile.room, &self.profile.hub) {
            return Err(fault("it is another room"));
        }
        let (ours, theirs) = (members_of(&self.mls.export_tree())?, members_of(&next.mls.export_tree())?);
        if theirs.iter().any(|(client, key)| ours.get(client) != Some(key)) {
            return Err(fault("there are others in it than members of this group"));
        }
        let absent = ours.keys().filter(|client| !theirs.contains_key(client)).map(Text::new).collect();
        let (by, group) = (Text::new(&self.account.client), Text::new(&next.name));
        let mut said = Said { version: VERSION, group, by, absent, signature: [0; 64] };
        let leaf = self.mls.current_member_signing_identity()?.signature_key.as_bytes().to_vec();
        let key = leaf.try_into().ok().and_then(|key: [u8; 32]| self.account.signature_key_of(&key).cloned());
        let key = key.ok_or_else(|| fault("this device has forgotten the signature key of its leaf"))?;
        said.signature = key.sign(&said.to_be_signed(self.profile.channel, epoch)?).to_bytes();
        let plaintext = said.mls_encode_to_vec().map_err(fault)?;
        let prepared = self.sealed_entry(EntryKind::Successor, epoch, plaintext)?;
        self.wish_prepared(Wish::Succeed, prepared)
    }

    /// What everybody can check of such an entry, with the same result.
    pub(super) fn check_onward(&self, frozen: &Frozen, bytes: &[u8], time: Timestamp) -> Result<Way, MlsError> {
        let mut rest = bytes;
        let said = Said::mls_decode(&mut rest).map_err(fault)?;
        if !rest.is_empty() || said.version != VERSION {
            return Err(fault("it is of another version, or something follows it"));
        }
        if self.onward_of(frozen).is_none_or(|from| time < from) {
            return Err(fault("nobody may go on without others yet"));
        }
        let by: ClientUri = said.by.parse().map_err(fault)?;
        let member = self.mls.member_with_identity(by.to_string().as_bytes())?;
        let key = member.signing_identity.signature_key.as_bytes().try_into().map_err(fault)?;
        let key = VerifyingKey::from_bytes(key).map_err(fault)?;
        let signed = said.to_be_signed(self.profile.channel, frozen.epoch)?;
        key.verify_strict(&signed, &Signature::from_bytes(&said.signature)).map_err(fault)?;
        let group: GroupUri = said.group.parse().map_err(fault)?;
        if *group.domain() != self.profile.hub || group == self.name {
            return Err(fault("it names no other group of this hub"));
        }
        let absent = said.absent.iter().map(Text::parse).collect::<Result<BTreeSet<ClientUri>, _>>().map_err(fault)?;
        if absent.contains(&by) {
            return Err(fault("whoever says it is not there"));
        }
        let without_us = absent.contains(&self.account.client);
        let row = OnwardRow { group: Text::new(&group), without_us, since: time };
        let event = Event::WentOnWithout { group, by: by.clone(), absent: absent.into_iter().collect() };
        Ok(Way { maker: Some(by), onward: Some(row), event: Some(event) })
    }

    /// Leaves this group for the one in which it goes on ([`Group::onward`]), of which this client is a member: what waits goes over. The
    /// writes of both belong into one transaction.
    pub fn go_over(&mut self, next: &mut Self, now: Timestamp, events: &mut Vec<Event>) {
        if next.predecessor.is_none() {
            next.descends_from(self);
            // Who showed itself there was not left behind, whatever it knocked for before.
            let here: Vec<_> =
                next.members().unwrap_or_default().into_iter().filter(|member| member.confirmed).collect();
            let joined = next.joined;
            for member in here {
                next.note_present(&member.client, joined);
            }
        }
        self.continued_by(next, now, events);
    }

    /// Ends, as the others have gone on without this client ([`Onward::without_us`]), or it is no member there any more.
    pub fn left_behind(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        for event in self.end() {
            self.tell(event, now, events);
        }
        self.drop_continuation();
        self.frozen = None;
    }
}
