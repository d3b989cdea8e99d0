//! Who this profile is: names, keys, certificate, inbox.

use conclave_mls::{
    credential::{IdentityBinding, Issuer, Issuers, LeafCertificate, OfClient},
    identity::signing_identity,
};
use conclave_names::{ChannelId, ClientUri, Seq, Timestamp};
use ed25519_dalek::SigningKey;
use mls_rs::identity::SigningIdentity;
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use zeroize::{Zeroize, Zeroizing};

pub use crate::{
    record::RecordError,
    rotation::{NextKey, Rotation},
};
use crate::{
    record::{self, Text},
    writes::{Room, Write},
};

/// Issuers that are believed at most.
pub const ISSUERS_MAX: usize = 32;

/// The account of one client (device) of a user.
#[derive(Clone)]
pub struct Account {
    /// This client.
    pub client: ClientUri,
    /// The key that signs in MLS and in requests. It never leaves the device.
    pub signature_key: SigningKey,
    /// The user's identity key, on the device where it was made; others are linked without it.
    pub identity_secret: Option<SigningKey>,
    /// The identity key's word for the signature key.
    pub binding: IdentityBinding,
    /// The newest certificate, in DER.
    pub certificate: Vec<u8>,
    /// Issuers whose certificates are believed, in DER.
    pub issuers: Vec<Vec<u8>>,
    /// Where Welcomes come.
    pub inbox: Inbox,
    /// Signature keys before and after the present one.
    pub rotation: Rotation,
}

/// This client's inbox at its provider. It is owned by a key of its own.
#[derive(Clone)]
pub struct Inbox {
    /// Its channel.
    pub id: ChannelId,
    /// The key that owns it.
    pub key: SigningKey,
    /// The key that authenticates drop tokens.
    pub drop_key: Zeroizing<[u8; 32]>,
    /// Entries up to here are done with.
    pub done: Seq,
    /// And the server was told so up to here: it has none of them any more.
    pub trimmed: Seq,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("client", &self.client).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("done", &self.done).finish_non_exhaustive()
    }
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Row {
    client: Text,
    signature_key: [u8; 32],
    identity_secret: Option<[u8; 32]>,
    next_key: Option<NextRow>,
    former_keys: Vec<[u8; 32]>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    binding: Vec<u8>,
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    certificate: Vec<u8>,
    issuers: Vec<Bytes>,
    inbox: ChannelId,
    inbox_key: [u8; 32],
    drop_key: [u8; 32],
    inbox_done: Seq,
    inbox_trimmed: Seq,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct NextRow {
    key: [u8; 32],
    #[mls_codec(with = "mls_rs_codec::byte_vec")]
    binding: Vec<u8>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Bytes(#[mls_codec(with = "mls_rs_codec::byte_vec")] Vec<u8>);

impl Drop for Row {
    fn drop(&mut self) {
        self.signature_key.zeroize();
        self.identity_secret.zeroize();
        self.next_key.iter_mut().for_each(|next| next.key.zeroize());
        self.former_keys.zeroize();
        self.inbox_key.zeroize();
        self.drop_key.zeroize();
    }
}

impl OfClient for Account {
    fn client(&self) -> &ClientUri {
        &self.client
    }

    fn identity_key(&self) -> [u8; 32] {
        self.identity_key()
    }
}

impl Account {
    /// The row's key in [`Room::ACCOUNT`].
    pub const KEY: &'static [u8] = b"account";

    /// As a row.
    #[must_use]
    pub fn to_write(&self) -> Write {
        let row = Row {
            client: Text::new(&self.client),
            signature_key: self.signature_key.to_bytes(),
            identity_secret: self.identity_secret.as_ref().map(SigningKey::to_bytes),
            next_key: self
                .rotation
                .next
                .as_ref()
                .map(|next| NextRow { key: next.key.to_bytes(), binding: next.binding.to_bytes() }),
            former_keys: self.rotation.former.iter().map(SigningKey::to_bytes).collect(),
            binding: self.binding.to_bytes(),
            certificate: self.certificate.clone(),
            issuers: self.issuers.iter().cloned().map(Bytes).collect(),
            inbox: self.inbox.id,
            inbox_key: self.inbox.key.to_bytes(),
            drop_key: *self.inbox.drop_key,
            inbox_done: self.inbox.done,
            inbox_trimmed: self.inbox.trimmed,
        };
        Write::Put { room: Room::ACCOUNT, key: Self::KEY.to_vec(), value: record::encode(&row) }
    }

    /// From a row.
    pub fn from_row(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut row: Row = record::decode(bytes)?;
        let binding = |bytes: &[u8]| IdentityBinding::from_bytes(bytes).map_err(|_| RecordError::Damaged);
        let next = row.next_key.as_ref().map(|next| {
            Ok::<_, RecordError>(NextKey { key: SigningKey::from_bytes(&next.key), binding: binding(&next.binding)? })
        });
        let former = row.former_keys.iter().map(SigningKey::from_bytes).collect();
        Ok(Self {
            rotation: Rotation { next: next.transpose()?, former },
            client: row.client.parse()?,
            signature_key: SigningKey::from_bytes(&row.signature_key),
            identity_secret: row.identity_secret.as_ref().map(SigningKey::from_bytes),
            binding: binding(&row.binding)?,
            certificate: std::mem::take(&mut row.certificate),
            issuers: std::mem::take(&mut row.issuers).into_iter().map(|bytes| bytes.0).collect(),
            inbox: Inbox {
                id: row.inbox,
                key: SigningKey::from_bytes(&row.inbox_key),
                drop_key: Zeroizing::new(row.drop_key),
                done: row.inbox_done,
                trimmed: row.inbox_trimmed,
            },
        })
    }

    /// The user's public identity key.
    #[must_use]
    pub fn identity_key(&self) -> [u8; 32] {
        self.binding.identity_key
    }

    /// How this client signs in MLS.
    #[must_use]
    pub fn signing_identity(&self) -> SigningIdentity {
        signing_identity(self.certificate.clone(), &self.signature_key.verifying_key().to_bytes())
    }

    /// The issuers, parsed; what does not parse was never stored.
    #[must_use]
    pub fn parsed_issuers(&self) -> Issuers {
        self.issuers.iter().filter_map(|der| Issuer::parse(der).ok()).collect()
    }

    /// Believes these issuers, too, which the Authentication Service serves. Those that were believed before stay: leaves
    /// in groups name them, which joiners judge once more. Of more than [`ISSUERS_MAX`], those go first that ended first, but none of those
    /// that are served, nor the one that certified this client.
    pub fn believe(&mut self, served: &Issuers) {
        let own = LeafCertificate::parse(&self.certificate).ok().map(|leaf| leaf.authority_key_id());
        let (mut kept, mut former) = (served.clone(), Vec::new());
        for issuer in self.parsed_issuers().iter().cloned() {
            let is_served = served.for_key_id(issuer.key_id()).iter().any(|other| other.domain() == issuer.domain());
            if is_served || own == Some(issuer.key_id()) {
                kept.add(issuer);
            } else {
                former.push(issuer);
            }
        }
        former.sort_by_key(|issuer| std::cmp::Reverse(issuer.not_after()));
        former.truncate(ISSUERS_MAX.saturating_sub(kept.iter().count()));
        for issuer in former {
            kept.add(issuer);
        }
        self.issuers = kept.iter().map(|issuer| issuer.der().to_vec()).collect();
    }

    /// Since when the certificate is good.
    #[must_use]
    pub fn certified_from(&self) -> Option<Timestamp> {
        LeafCertificate::parse(&self.certificate).ok().map(|leaf| leaf.not_before())
    }

    /// When the certificate should be renewed: once two thirds of its life are over.
    #[must_use]
    pub fn renew_after(&self) -> Option<Timestamp> {
        let leaf = LeafCertificate::parse(&self.certificate).ok()?;
        let life = leaf.not_after().0.saturating_sub(leaf.not_before().0);
        Some(Timestamp(leaf.not_before().0.saturating_add(life / 3 * 2)))
    }
}
