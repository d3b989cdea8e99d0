//! Changes that are on their way: stored before they are sent, finished only by what the channel shows.

use std::{borrow::Cow, sync::Arc};

use conclave_channel::access::ChannelKey;
use conclave_mls::content::MessageId;
use conclave_names::{ClientUri, Epoch, IdempotencyKey, Seq, UserUri};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use zeroize::{Zeroize, Zeroizing};

use crate::record::{self, RecordError, Text};

/// What is wanted.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wish {
    /// Say something: an encoded [`conclave_mls::content::Content`] and its name.
    Send {
        /// The encoded content.
        content: Vec<u8>,
        /// Its name.
        id: MessageId,
    },
    /// Add clients, by their KeyPackages (MLSMessages, claimed for this).
    Add {
        /// The KeyPackages.
        key_packages: Vec<Vec<u8>>,
    },
    /// Remove all clients of users.
    Remove {
        /// The users.
        users: Vec<UserUri>,
    },
    /// Renew our own keys: the leaf's, the channel key, and the credential if there is a newer one.
    Update,
    /// Ask to be removed.
    Leave,
    /// Commit what others have proposed.
    CommitProposals,
    /// Say nothing but where in the channel we stand, so that members who were shown another log learn of it.
    Heartbeat,
    /// Come back by a commit from outside. It is made with everything that belongs to it, or not at all.
    Rejoin,
    /// Make the group anew, with another cipher suite or handshake mode (RFC 9420, section 12.1.5). It goes on in a successor.
    ReInit {
        /// Number of the cipher suite.
        cipher_suite: u16,
        /// Whether the DS is to read its handshakes.
        visible: bool,
    },
    /// Make the successor of a group that was frozen.
    Succeed,
    /// Remove a client's old leaf, and add the client again: it has asked for it.
    Readmit {
        /// Channel key of the old leaf. If no leaf has it any more, there is nothing left to do.
        old_leaf: ChannelKey,
        /// An MLSMessage with the client's new KeyPackage.
        key_package: Vec<u8>,
    },
    /// Ask members for what was said while this client could not follow the group: an encoded [`conclave_mls::gap::GapRequest`].
    GapRequest {
        /// The encoded request.
        content: Vec<u8>,
    },
    /// Give a part of it: an encoded [`conclave_mls::gap::GapAnswer`]. If who asked is no member any more, there is nothing left to do.
    GapAnswer {
        /// Who asked.
        asker: ClientUri,
        /// Place of the request.
        request: Seq,
        /// The encoded part.
        content: Vec<u8>,
    },
    /// Say that we could not apply a commit.
    Nack {
        /// Its place.
        commit: Seq,
        /// Why, for the members.
        reason: String,
    },
    /// Say that we applied a commit that is disputed.
    Ack {
        /// Its place.
        commit: Seq,
    },
}

impl Wish {
    /// Whether it is a commit of a proposal that must stand alone.
    pub(crate) fn is_reinit(&self) -> bool {
        matches!(self, Self::ReInit { .. })
    }

    /// Whether it ends an epoch.
    pub(crate) fn is_commit(&self) -> bool {
        match self {
            Self::Add { .. }
            | Self::Remove { .. }
            | Self::Update
            | Self::CommitProposals
            | Self::Rejoin
            | Self::ReInit { .. }
            | Self::Readmit { .. } => true,
            Self::Send { .. }
            | Self::Leave
            | Self::Heartbeat
            | Self::GapRequest { .. }
            | Self::GapAnswer { .. }
            | Self::Succeed
            | Self::Nack { .. }
            | Self::Ack { .. } => false,
        }
    }

    /// Whether it is still to be done by who was let in again. Its leaf is new, and what the old one had to say about commits or
    /// proposals is said.
    pub(crate) fn outlives_incarnation(&self) -> bool {
        match self {
            Self::Send { .. } | Self::Add { .. } | Self::Remove { .. } | Self::Leave | Self::ReInit { .. } => true,
            Self::Update
            | Self::CommitProposals
            | Self::Heartbeat
            | Self::GapRequest { .. }
            | Self::GapAnswer { .. }
            | Self::Rejoin
            | Self::Succeed
            | Self::Readmit { .. }
            | Self::Nack { .. }
            | Self::Ack { .. } => false,
        }
    }

    /// Whether it is to be done once more if the commit is annulled by which it was done, and by what everybody else does not do anyway.
    pub(crate) fn is_a_change(&self) -> bool {
        match self {
            Self::Add { .. } | Self::Remove { .. } | Self::Update | Self::ReInit { .. } | Self::Readmit { .. } => true,
            Self::Send { .. }
            | Self::Leave
            | Self::CommitProposals
            | Self::Heartbeat
            | Self::GapRequest { .. }
            | Self::GapAnswer { .. }
            | Self::Rejoin
            | Self::Succeed
            | Self::Nack { .. }
            | Self::Ack { .. } => false,
        }
    }

    /// The commit that it is a word about.
    pub(crate) fn about(&self) -> Option<Seq> {
        match self {
            Self::Nack { commit, .. } | Self::Ack { commit } => Some(*commit),
            _ => None,
        }
    }

    /// Whether it is a word about a commit, which is said also by who cannot go on.
    pub(crate) fn is_verdict(&self) -> bool {
        self.about().is_some()
    }
}

impl std::fmt::Debug for Wish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Not the content.
            Self::Send { id, .. } => write!(f, "Send({id})"),
            Self::Add { key_packages } => write!(f, "Add({} KeyPackages)", key_packages.len()),
            Self::Remove { users } => write!(f, "Remove({users:?})"),
            Self::Update => f.write_str("Update"),
            Self::Leave => f.write_str("Leave"),
            Self::CommitProposals => f.write_str("CommitProposals"),
            Self::ReInit { cipher_suite, visible } => write!(f, "ReInit({cipher_suite}, {visible})"),
            Self::Succeed => f.write_str("Succeed"),
            Self::Heartbeat => f.write_str("Heartbeat"),
            Self::GapRequest { .. } => f.write_str("GapRequest"),
            Self::GapAnswer { asker, request, .. } => write!(f, "GapAnswer({asker}, {request})"),
            Self::Rejoin => f.write_str("Rejoin"),
            Self::Readmit { .. } => f.write_str("Readmit"),
            Self::Nack { commit, .. } => write!(f, "Nack({commit})"),
            Self::Ack { commit } => write!(f, "Ack({commit})"),
        }
    }
}

/// A stored change.
#[derive(Clone)]
pub struct Intent {
    /// Names it here.
    pub id: IdempotencyKey,
    /// What is wanted.
    pub wish: Wish,
    /// The epoch whose members the user saw when he wished it.
    pub(crate) wished: Epoch,
    /// What was made of it in the current epoch.
    pub(crate) prepared: Option<Arc<Prepared>>,
    /// Whether the channel showed it: a proposal waits for its commit.
    pub(crate) ordered: bool,
    /// Who was no member any more when the user wished it, but may be one again, because the removal was annulled.
    pub(crate) not_to: Vec<ClientUri>,
    /// Whether no user wished it, but what the group needs.
    pub(crate) automatic: bool,
}

impl std::fmt::Debug for Intent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intent")
            .field("id", &self.id)
            .field("wish", &self.wish)
            .field("ordered", &self.ordered)
            .finish_non_exhaustive()
    }
}

/// A change ready to be submitted: the same bytes each time, until an epoch passes.
pub(crate) struct Prepared {
    /// Names the submission at the DS. What is made anew gets another: a proposal may have been ordered, and then passed
    /// over by a commit.
    pub(crate) key: IdempotencyKey,
    pub(crate) epoch: Epoch,
    /// The entry's bytes, by whose hash the echo is recognised.
    pub(crate) entry: Vec<u8>,
    /// For commits: the encoded SubmitBundleRequest.
    pub(crate) bundle: Option<Vec<u8>>,
    /// Blobs that must be staged first.
    pub(crate) blobs: Vec<Vec<u8>>,
    /// For commits: what mls-rs needs to apply it.
    pub(crate) secrets: Zeroizing<Vec<u8>>,
}

/// Bytes in a row. Those of one that is written are not copied first: of large groups there are megabytes.
#[derive(Default, MlsSize, MlsEncode, MlsDecode)]
struct Bytes<'a>(#[mls_codec(with = "mls_rs_codec::byte_vec")] Cow<'a, [u8]>);

impl Bytes<'_> {
    fn into_vec(self) -> Vec<u8> {
        self.0.into_owned()
    }
}

impl<'a> From<&'a [u8]> for Bytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct PreparedRow<'a> {
    key: IdempotencyKey,
    epoch: Epoch,
    entry: Bytes<'a>,
    bundle: Option<Bytes<'a>>,
    blobs: Vec<Bytes<'a>>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    secrets: Cow<'a, [u8]>,
}

impl Drop for PreparedRow<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(secrets) = &mut self.secrets {
            secrets.zeroize();
        }
    }
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Row<'a> {
    id: IdempotencyKey,
    kind: u8,
    message_id: [u8; 32],
    items: Vec<Bytes<'a>>,
    users: Vec<Text>,
    about: Seq,
    wished: Epoch,
    prepared: Option<PreparedRow<'a>>,
    ordered: bool,
    not_to: Vec<Text>,
    automatic: bool,
}

impl Intent {
    /// As the value of a row.
    pub(crate) fn to_row(&self) -> Zeroizing<Vec<u8>> {
        let (mut items, mut users, mut message_id, mut about) = (Vec::new(), Vec::new(), [0; 32], Seq(0));
        let kind = match &self.wish {
            Wish::Send { content, id } => {
                items.push(content.as_slice().into());
                message_id = *id.as_bytes();
                1
            }
            Wish::Add { key_packages } => {
                items.extend(key_packages.iter().map(|package| Bytes::from(package.as_slice())));
                2
            }
            Wish::Remove { users: removed } => {
                users.extend(removed.iter().map(Text::new));
                3
            }
            Wish::Update => 4,
            Wish::Leave => 5,
            Wish::CommitProposals => 6,
            Wish::Nack { commit, reason } => {
                items.push(reason.as_bytes().into());
                about = *commit;
                7
            }
            Wish::Ack { commit } => {
                about = *commit;
                8
            }
            Wish::ReInit { cipher_suite, visible } => {
                let [high, low] = cipher_suite.to_be_bytes();
                items.push(Bytes(vec![high, low, u8::from(*visible)].into()));
                20
            }
            Wish::Succeed => 21,
            Wish::GapRequest { content } => {
                items.push(content.as_slice().into());
                30
            }
            Wish::GapAnswer { asker, request, content } => {
                users.push(Text::new(asker));
                about = *request;
                items.push(content.as_slice().into());
                31
            }
            Wish::Heartbeat => 9,
            Wish::Rejoin => 10,
            Wish::Readmit { old_leaf, key_package } => {
                items.extend([old_leaf.0.as_slice().into(), key_package.as_slice().into()]);
                11
            }
        };
        let prepared = self.prepared.as_ref().map(|prepared| PreparedRow {
            key: prepared.key,
            epoch: prepared.epoch,
            entry: prepared.entry.as_slice().into(),
            bundle: prepared.bundle.as_deref().map(Bytes::from),
            blobs: prepared.blobs.iter().map(|blob| Bytes::from(blob.as_slice())).collect(),
            secrets: Cow::Borrowed(&prepared.secrets),
        });
        record::encode(&Row {
            id: self.id,
            kind,
            message_id,
            items,
            users,
            about,
            wished: self.wished,
            prepared,
            ordered: self.ordered,
            not_to: self.not_to.iter().map(Text::new).collect(),
            automatic: self.automatic,
        })
    }

    /// From the value of a row. One of an unknown kind, or of a later row version, was written by a later version of this
    /// program: it is kept, not carried out.
    pub(crate) fn from_row(bytes: &[u8]) -> Result<Option<Self>, RecordError> {
        if record::is_later(bytes) {
            return Ok(None);
        }
        let row: Row = record::decode(bytes)?;
        let mut items = row.items.into_iter().map(Bytes::into_vec);
        let wish = match row.kind {
            1 => Wish::Send { content: items.next().ok_or(RecordError::Damaged)?, id: MessageId::new(row.message_id) },
            2 => Wish::Add { key_packages: items.collect() },
            3 => Wish::Remove { users: row.users.iter().map(Text::parse).collect::<Result<_, _>>()? },
            4 => Wish::Update,
            5 => Wish::Leave,
            6 => Wish::CommitProposals,
            7 => Wish::Nack {
                commit: row.about,
                reason: items.next().and_then(|text| String::from_utf8(text).ok()).ok_or(RecordError::Damaged)?,
            },
            8 => Wish::Ack { commit: row.about },
            9 => Wish::Heartbeat,
            10 => Wish::Rejoin,
            20 => {
                let parameters = items.next().ok_or(RecordError::Damaged)?;
                let [high, low, visible] = parameters.try_into().map_err(|_| RecordError::Damaged)?;
                Wish::ReInit { cipher_suite: u16::from_be_bytes([high, low]), visible: visible == 1 }
            }
            21 => Wish::Succeed,
            30 => Wish::GapRequest { content: items.next().ok_or(RecordError::Damaged)? },
            31 => Wish::GapAnswer {
                asker: row.users.first().ok_or(RecordError::Damaged)?.parse()?,
                request: row.about,
                content: items.next().ok_or(RecordError::Damaged)?,
            },
            11 => {
                let mut next = || items.next().ok_or(RecordError::Damaged);
                let old_leaf = next()?.try_into().map_err(|_| RecordError::Damaged)?;
                Wish::Readmit { old_leaf: ChannelKey(old_leaf), key_package: next()? }
            }
            _ => return Ok(None),
        };
        let prepared = row.prepared.map(|mut prepared| {
            Arc::new(Prepared {
                key: prepared.key,
                epoch: prepared.epoch,
                entry: std::mem::take(&mut prepared.entry).into_vec(),
                bundle: prepared.bundle.take().map(Bytes::into_vec),
                blobs: std::mem::take(&mut prepared.blobs).into_iter().map(Bytes::into_vec).collect(),
                secrets: Zeroizing::new(std::mem::take(&mut prepared.secrets).into_owned()),
            })
        });
        let not_to = row.not_to.iter().map(Text::parse).collect::<Result<_, _>>()?;
        let (wished, ordered, automatic) = (row.wished, row.ordered, row.automatic);
        Ok(Some(Self { id: row.id, wish, wished, prepared, ordered, not_to, automatic }))
    }
}
