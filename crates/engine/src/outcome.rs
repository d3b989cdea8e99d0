//! What became of what came in.

use conclave_channel::{LogFault, law::Refused};
use conclave_mls::content::MessageId;
use conclave_names::{ClientUri, Epoch, IdempotencyKey, Seq, Timestamp, UserUri};
use serde::{Deserialize, Serialize};

/// What became of one entry of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It changed the group or was read.
    Applied,
    /// It came before those that stand before it, and waits for them.
    Buffered,
    /// It came before those that stand before it, and there is no room for it to wait: it is to be read from the channel.
    Overflow,
    /// It was processed before, or says what was said before under the same name.
    Duplicate,
    /// It is the echo of something of ours, which is final now.
    Confirmed,
    /// It is of an epoch before we joined, or too old to be read.
    Stale,
    /// It is refused, by everybody who follows the rules.
    Rejected(Rejection),
    /// It ended an epoch, but we could not apply it.
    NeedsRecovery(Rejection),
    /// It belongs to an epoch that we could not follow into.
    Unfollowed,
    /// A member's word about a commit, which counted.
    Counted,
}

/// Why an entry is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The seal does not open: another seed, or the bytes were changed.
    #[error("its seal does not open")]
    Seal,
    /// It is no MLS message, or one of another group, epoch or kind than the entry says.
    #[error("what is sealed is not what the entry says")]
    Mismatch,
    /// MLS refused it.
    #[error("MLS refused it: {0}")]
    Mls(String),
    /// MLS refused it, and it says to be of another epoch with the same number.
    #[error("it is of another branch of the group: {0}")]
    Branch(String),
    /// It commits a proposal that we do not have.
    #[error("it commits a proposal that this client could not read")]
    UnknownProposal,
    /// Its authenticated data is not what our groups require.
    #[error("its authenticated data is wrong: {0}")]
    AuthenticatedData(String),
    /// The key root is not the one of the members' channel keys.
    #[error("its key root is not that of the members' channel keys")]
    KeyRoot,
    /// It names another channel key as its committer's than the committer has.
    #[error("the commit names a committer that did not make it")]
    Committer,
    /// What the commit does is not what it says in the clear or in its authenticated data.
    #[error("the commit does not do what it says: removals or seed renewal differ")]
    Flags,
    /// The frame or the content of a message does not decode.
    #[error("its content does not decode")]
    Content,
    /// Its body is a blob that the server did not give out whole.
    #[error("its blob is missing or has the wrong hash")]
    Blob,
    /// A member that it admits has no valid credential at the entry's time.
    #[error("it admits a member whose credential is not valid: {0}")]
    Credential(String),
    /// A proposal that no commit can carry out, as every member can tell.
    #[error("no commit can carry it out: {0}")]
    Policy(String),
    /// It is by this client, but this profile did not make it: it is an older copy of the one that did, or somebody else has its keys.
    #[error(
        "it is by this client, but was not made by this profile, which may be an older copy of the one that made it"
    )]
    OwnKeys,
    /// A successor of the group, before it was sure that the group was made anew.
    #[error("it comes before the commit is settled that froze the group")]
    Early,
}

/// Something that people or programs may want to know. Exhaustive on purpose: who shows events must not pass over one that is new. In a
/// history they are kept as JSON; what a later version wrote there may not be read as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A message was received, or one of ours became final.
    Message {
        /// Place in the channel.
        seq: Seq,
        /// DS time.
        time: Timestamp,
        /// Who sent it.
        sender: ClientUri,
        /// Its name.
        #[serde(with = "as_text")]
        id: MessageId,
        /// Its text, if it can be shown as text.
        text: Option<String>,
    },
    /// Members were added.
    Added {
        /// By whom.
        by: ClientUri,
        /// Who.
        members: Vec<ClientUri>,
        /// The epoch that began.
        epoch: Epoch,
    },
    /// Members were removed.
    Removed {
        /// By whom.
        by: ClientUri,
        /// Who.
        members: Vec<ClientUri>,
        /// The epoch that began.
        epoch: Epoch,
    },
    /// A member renewed its keys, or an epoch ended without a change of members.
    Updated {
        /// By whom.
        by: ClientUri,
        /// The epoch that began.
        epoch: Epoch,
    },
    /// A member signs with another key from this epoch on. It is the same client, and its user's identity key is the same: safety
    /// numbers do not change.
    KeyChanged {
        /// Who.
        member: ClientUri,
        /// The epoch that began.
        epoch: Epoch,
    },
    /// The group is being made anew: what is said waits until it goes on.
    Frozen {
        /// By whom.
        by: ClientUri,
        /// The epoch that began, the last one.
        epoch: Epoch,
    },
    /// The group goes on in another, with the same members, room and history.
    Succeeded {
        /// Which.
        group: conclave_names::GroupUri,
    },
    /// Members go on in another group of the same room, without those whom a frozen group waited for in vain. They are to be added there.
    WentOnWithout {
        /// Which group.
        group: conclave_names::GroupUri,
        /// Whose decision it was.
        by: ClientUri,
        /// Who is not in it.
        absent: Vec<ClientUri>,
    },
    /// A frozen group cannot go on yet. It is tried again.
    SuccessorWaits {
        /// What it waits for, for people.
        reason: String,
    },
    /// A member asks to be removed.
    LeaveRequested {
        /// Who.
        member: ClientUri,
    },
    /// Somebody whom the group lists as an external sender proposes a change. A member commits it.
    ExternalProposal {
        /// Who.
        sender: Option<ClientUri>,
        /// What.
        proposal: ProposedChange,
    },
    /// What others have proposed is left out of a commit of ours, which could not be made or was refused with it. It is not
    /// proposed again by itself, but a request to leave.
    ProposalsLeftOut {
        /// What.
        proposals: Vec<ProposedChange>,
        /// Why.
        reason: String,
    },
    /// We joined.
    Joined {
        /// Who added us.
        by: ClientUri,
        /// In which epoch.
        epoch: Epoch,
    },
    /// A member that could not follow the group is back, by a commit from outside.
    Rejoined {
        /// Who.
        member: ClientUri,
        /// The epoch that began.
        epoch: Epoch,
    },
    /// This client is back, and these were no members, or not with this identity key, when it lost the group. By whom they were added is not known.
    CameMeanwhile {
        /// Who.
        members: Vec<ClientUri>,
        /// The epoch in which this client is back.
        epoch: Epoch,
    },
    /// This client is back, and these were members, with another identity key if they are members still, when it lost the group. By whom
    /// they were removed is not known.
    WentMeanwhile {
        /// Who.
        members: Vec<ClientUri>,
        /// The epoch in which this client is back.
        epoch: Epoch,
    },
    /// A member let clients in again that could not follow the group and asked for it: their old leaves were removed, and new
    /// ones of the same clients and identity keys added.
    Readmitted {
        /// Which member.
        by: ClientUri,
        /// Who.
        members: Vec<ClientUri>,
        /// The epoch that began.
        epoch: Epoch,
    },
    /// We have asked members to let us in again.
    Knocked {
        /// Whom.
        members: Vec<ClientUri>,
        /// When others are asked, if none of them does it.
        again: Timestamp,
    },
    /// We are back; what was said in between cannot be read by this client.
    Missed {
        /// The first entry that is not read.
        from: Seq,
        /// The entry by which we came back, or after which we read on.
        to: Seq,
    },
    /// A member that is back asks what was said while it could not follow the group. This client may tell it, if its user wants to
    /// ([`crate::group::Group::fill_gap`]).
    GapRequested {
        /// Who.
        member: ClientUri,
        /// The first place that it asks for.
        first: Seq,
        /// The last one.
        last: Seq,
        /// How many messages this client has that it would tell.
        messages: u64,
    },
    /// This client tells a member that is back what was said while it could not follow the group.
    GapAnswered {
        /// Whom.
        member: ClientUri,
        /// How many messages.
        messages: u64,
        /// How many older ones did not fit.
        left_out: u64,
    },
    /// A member has told this client what was said while it could not follow the group. It stands in the history in its place, as that member's
    /// word.
    GapFilled {
        /// Who tells it.
        by: ClientUri,
        /// How many messages this client did not have.
        messages: u64,
        /// Whether that is all; else more follows.
        complete: bool,
    },
    /// We cannot follow the group and do not come back by ourselves.
    RejoinBlocked {
        /// Why.
        reason: String,
        /// Whether it is for the user to decide: only somebody unknown vouches for the group's present members.
        doubtful: bool,
        /// Who signed the GroupInfo, where that is certain: whose word is not taken, or whom the user is to decide about.
        signer: Option<ClientUri>,
    },
    /// The commit by which this client came back was annulled, as members could not apply it. It was made by what another member left at the server
    /// for that, which nobody outside can check: if members had no other reason, that member has left something false. This client takes
    /// nothing of it for a while, and asks members to let it in.
    Misled {
        /// Who signed it.
        by: ClientUri,
        /// This client's commit.
        commit: Seq,
    },
    /// We could not follow the group, and are out of it for good: our user has left it, or no member has let us in again for long. Its keys
    /// are deleted here; the others may still show this client as a member.
    GivenUp {
        /// Why, and what can be done.
        reason: String,
    },
    /// We were removed; or have left, as the last member.
    RemovedFromGroup {
        /// By whom; this client itself, if nobody else was there.
        by: ClientUri,
    },
    /// An entry was refused; the group goes on.
    Refused {
        /// Which.
        seq: Seq,
        /// Why.
        reason: String,
    },
    /// We cannot follow the group. What is wished waits. Either the commit is annulled within minutes, and the group goes on, or
    /// this client comes back by itself ([`Event::Rejoined`]) or asks members ([`Event::Knocked`]); that it needs its user is told by
    /// [`Event::RejoinBlocked`]. The last resort is that a member removes this client and adds it again.
    Stuck {
        /// At which entry.
        seq: Seq,
        /// Why.
        reason: String,
    },
    /// A commit that this client could not apply and disputed is not taken back, as it says to remove members: as many of them may dispute it
    /// without effect. It is not known whether others could apply it. This client tries to come back meanwhile, as after [`Event::Stuck`].
    Undecided {
        /// Which.
        commit: Seq,
        /// Whose it is, if that is known.
        by: Option<ClientUri>,
        /// How many members it says to remove.
        removed: u32,
        /// How many more members have to dispute it for it to be taken back, at most: this client may not be able to read that some have.
        missing: u64,
        /// Until when they can.
        until: Timestamp,
        /// Why this client could not apply it.
        reason: String,
    },
    /// The server no longer keeps what came after our place: we cannot follow the group, and come back as after
    /// [`Event::Stuck`]. What is gone is missed.
    PositionGone {
        /// Our place: the last entry that we have.
        after: Seq,
        /// The oldest entry that the server keeps, if it said so.
        oldest: Option<Seq>,
        /// For people.
        reason: String,
    },
    /// A member says that it could not apply a commit.
    NotApplied {
        /// The entry that says so: evidence that can be shown to others.
        seq: Seq,
        /// The commit.
        commit: Seq,
        /// Who, if it is still a member.
        by: Option<ClientUri>,
        /// Its reason, if it can be read.
        reason: Option<String>,
    },
    /// A commit is disputed. Unless a member acknowledges it within the group's pause, it is annulled.
    Disputed {
        /// Which.
        commit: Seq,
    },
    /// A member says that it applied a commit: it stands.
    Acknowledged {
        /// The entry that says so.
        seq: Seq,
        /// The commit.
        commit: Seq,
        /// Who, if it is still a member.
        by: Option<ClientUri>,
    },
    /// A commit and everything that followed it are void: the group is in an earlier epoch again.
    Annulled {
        /// The first void commit. What members said and changed after it is done again by their clients, or told of
        /// ([`Event::IntentFailed`]).
        commit: Seq,
        /// The epoch that the group is in.
        epoch: Epoch,
    },
    /// The commit that added us was annulled: we are no member.
    InvitationAnnulled {},
    /// An invitation cannot be taken up now: the server does not give out what it needs. It is tried again with each look into the
    /// inbox, for a week.
    InvitationWaits {
        /// What is missing.
        reason: String,
    },
    /// An invitation could not be taken up, and is not tried again. The group has this client's leaf all the same: a member has to remove it
    /// and add it again.
    InvitationDropped {
        /// Why.
        reason: String,
    },
    /// A member saw another log than we did: the server shows two, or the member lies.
    LogsDiffer {
        /// Whose word it is.
        member: ClientUri,
        /// About which place.
        seq: Seq,
    },
    /// No other member has shown to have seen what we said. They may all be away; or the server withholds it from them.
    Unseen {
        /// The newest entry of ours.
        seq: Seq,
        /// Since when we wait.
        since: Timestamp,
    },
    /// The server did not sign for what it accepted, or not with the key that the group knows.
    ReceiptInvalid {
        /// Which place it gave.
        seq: Seq,
    },
    /// The server shows another log than it signed for.
    ReceiptBroken {
        /// At which place.
        seq: Seq,
        /// The receipt (`conclave_channel::receipt::Receipt`, in hexadecimal).
        receipt: String,
    },
    /// The server signed for an entry of ours, and shows a log that ends before it.
    Withheld {
        /// At which place.
        seq: Seq,
        /// The receipt (`conclave_channel::receipt::Receipt`, in hexadecimal).
        receipt: String,
    },
    /// The server signed for two logs. Anybody can verify the proof.
    Equivocation {
        /// At which place.
        seq: Seq,
        /// The proof (`conclave_channel::receipt::Equivocation`, in hexadecimal).
        proof: String,
    },
    /// Something was said or changed with this client's keys, but not by this profile: it is an older copy that was put back, another copy of it
    /// is in use, or somebody else has its keys. What was said cannot be read here. This client renews its keys before it says anything more, or
    /// comes back ([`Event::Rejoined`]). If no older copy was put back: stop other copies of the profile; and if there are none, somebody
    /// has stolen its keys, or a member pretends it.
    KeysUsedElsewhere {
        /// The first entry that shows it in an epoch.
        seq: Seq,
    },
    /// A user's identity key is another than this profile has seen before.
    IdentityChanged {
        /// Whose.
        user: UserUri,
    },
    /// Messages of a member are missing, by the generations of the keys that it used: it or the server kept them
    /// back, or they failed on its device.
    MessagesMissing {
        /// Whose.
        member: ClientUri,
        /// In which epoch.
        epoch: Epoch,
        /// The first generation that did not come.
        from: u32,
        /// The last.
        to: u32,
    },
    /// A member is in another branch of the group: in the same epoch by number, but not by its secrets.
    Forked {
        /// The entry that shows it.
        seq: Seq,
        /// The epoch that both count.
        epoch: Epoch,
        /// Who, if it can be named.
        member: Option<ClientUri>,
    },
    /// The server gives out another entry at a place than it gave out before.
    LogRewritten {
        /// The first such place.
        seq: Seq,
    },
    /// A member sent again what was said before, as if it were new. It was not shown again.
    Replayed {
        /// Who.
        member: ClientUri,
        /// Where.
        seq: Seq,
        /// The message's name.
        #[serde(with = "as_text")]
        id: MessageId,
    },
    /// Nothing was heard of the server for a while.
    ServerSilent {
        /// Since when.
        since: Timestamp,
    },
    /// The server's copy of this client's inbox went back to an older state, as when a backup was put back. What came since then is read
    /// again; invitations that the server lost with it have to be made again.
    InboxWentBack {
        /// The place behind which it is read again.
        after: Seq,
    },
    /// The server's clock and this machine's are more than a day apart: one of them is wrong. This client goes by the server's, but deletes nothing by it
    /// that its own would keep.
    ClocksDiffer {
        /// How far the server's is ahead, in milliseconds.
        ahead_ms: i64,
    },
    /// This client does not get on with the group: what it has stored of it is damaged, what the server gives out of it is no log, or the
    /// server takes nothing more of it for now. It is told once and tried again with each sync; other groups go on.
    GroupFailed {
        /// Why.
        reason: String,
    },
    /// A change of ours cannot be made any more, or was annulled and is not made again; a message is not sent.
    IntentFailed {
        /// Which.
        intent: IdempotencyKey,
        /// Why.
        reason: String,
    },
}

/// What somebody proposes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProposedChange {
    /// That a client be added.
    Add(ClientUri),
    /// That a member be removed.
    Remove(ClientUri),
    /// Something else, or of somebody who cannot be named.
    Other,
}

/// Names of messages in hexadecimal.
mod as_text {
    use conclave_mls::content::MessageId;
    use conclave_names::Hash;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &MessageId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MessageId, D::Error> {
        Hash::deserialize(deserializer).map(|id| MessageId::new(*id.as_bytes()))
    }
}

/// The server gave out a log that cannot be one. Nothing after the last good entry was processed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// Gaps, repetitions or time running backwards.
    #[error(transparent)]
    Log(#[from] LogFault),
    /// An entry that no server admits.
    #[error("the server gave out entry {0}, which is no entry")]
    Entry(Seq),
    /// An entry that may not follow those before it.
    #[error("the server gave out entry {seq}, which it should have refused: {refused}")]
    Law {
        /// Which.
        seq: Seq,
        /// Why not.
        refused: Refused,
    },
    /// The state before an annulled commit does not load.
    #[error("the group's state before entry {seq} cannot be restored: {reason}")]
    State {
        /// Which.
        seq: Seq,
        /// Why not.
        reason: String,
    },
}
