//! Keying material for others to add us with (RFC 9750, section 5.1).

use std::collections::BTreeSet;

use conclave_mls::address::{DeliveryAddress, DropToken, SealedAddress};
use conclave_mls::crypto;
use conclave_names::{Timestamp, code_points, limits};
use ed25519_dalek::SigningKey;
use mls_rs::{CipherSuite, Extension, ExtensionList, KeyPackage, extension::ExtensionType};
use mls_rs_codec::{MlsDecode, MlsEncode, MlsSize};
use mls_rs_core::key_package::KeyPackageData;

use crate::{
    account::Account,
    group::{LoadError, fault},
    mls_client::{Mls, MlsError, leaf_extensions, mls_time, random, suite},
    record::{self, RecordError},
    writes::{Room, Rows, Write},
};

/// KeyPackages of the default cipher suite that are kept at the directory.
pub const POOL: u64 = 20;

/// At this many or fewer, the pool is filled up again.
pub const LOW_WATER: u64 = 10;

/// KeyPackages of each other cipher suite that are kept at the directory: few groups are of one.
pub const SIDE_POOL: u64 = 3;

/// At this many or fewer, such a pool is filled up again.
pub const SIDE_LOW_WATER: u64 = 1;

/// What a client keeps at the directory in one cipher suite, besides a last resort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// KeyPackages for one use each, when it is full.
    pub size: u64,
    /// At this many or fewer, it is filled up again.
    pub low_water: u64,
}

/// The pool of a cipher suite.
#[must_use]
pub fn pool(cipher_suite: CipherSuite) -> Pool {
    if cipher_suite == crypto::DEFAULT_SUITE {
        Pool { size: POOL, low_water: LOW_WATER }
    } else {
        Pool { size: SIDE_POOL, low_water: SIDE_LOW_WATER }
    }
}

/// What the directory serves no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// Everything: it was purged.
    All,
    /// The last resort of a cipher suite: another takes its place.
    LastResort(CipherSuite),
}

/// How often the address of a last-resort KeyPackage may be posted to.
const LAST_RESORT_USES: u32 = 1000;

/// The provider's key to which delivery addresses are sealed.
#[derive(Debug, Clone)]
pub struct AddressKey {
    /// Its name.
    pub id: [u8; 8],
    /// The HPKE public key.
    pub public: Vec<u8>,
}

#[derive(MlsSize, MlsEncode, MlsDecode)]
struct Row {
    last_resort: bool,
    cipher_suite: u16,
    /// Since when the directory does not serve it any more because another took its place.
    retired: Option<Timestamp>,
    /// Public half of the channel key in its leaf.
    channel_key: [u8; 32],
    data: KeyPackageData,
}

/// Keys of rows in [`Room::KEY_PACKAGE`]: by the KeyPackageRef, and by the public channel key.
const PACKAGE: &[u8] = b"package/";
const CHANNEL_KEY: &[u8] = b"channel-key/";

/// KeyPackages to upload, and the rows with their private parts, which must be durable first.
#[derive(Debug, Default)]
pub struct Fresh {
    /// MLSMessages.
    pub key_packages: Vec<Vec<u8>>,
    /// The new last resort, if one was asked for.
    pub last_resort: Option<Vec<u8>>,
    /// What must become durable before the upload.
    pub writes: Vec<Write>,
}

/// Makes KeyPackages: `count` for one use each, and a last resort if asked for.
///
/// Each has a fresh init key, leaf key and channel key, and a delivery address of its own.
///
/// # Errors
/// [`MlsError`] for an unsupported suite.
pub fn generate(
    account: &Account,
    shared: &Mls,
    cipher_suite: CipherSuite,
    address_key: &AddressKey,
    count: u64,
    last_resort: bool,
    now: Timestamp,
) -> Result<Fresh, MlsError> {
    crypto::suite_by_number(cipher_suite.into()).map_err(fault)?;
    let provider = suite(cipher_suite)?;
    // Delivery addresses are sealed with the default suite's HPKE, whatever the KeyPackage's suite.
    let sealing = suite(crypto::DEFAULT_SUITE)?;
    let client = shared.client(account, cipher_suite);
    let mut fresh = Fresh::default();
    let kinds = (0..count).map(|_| false).chain(last_resort.then_some(true));
    for last in kinds {
        let channel_key = SigningKey::from_bytes(&random(&provider)?);
        let uses = if last { LAST_RESORT_USES } else { 1 };
        let expires = now.plus_ms(limits::KEY_PACKAGE_LIFETIME * 1000);
        let token = DropToken::mint(&account.inbox.drop_key, account.inbox.id, random(&provider)?, uses, expires);
        let sealed =
            SealedAddress::seal(&sealing, &address_key.public.clone().into(), address_key.id, &token).map_err(fault)?;
        let address = DeliveryAddress::new(account.client.domain(), &sealed).map_err(fault)?;
        let mut extensions = ExtensionList::new();
        extensions.set_from(address).map_err(fault)?;
        if last {
            extensions.set(Extension::new(ExtensionType::new(code_points::EXTENSION_LAST_RESORT), Vec::new()));
        }
        // Dated back by an hour, for clocks of others that run behind.
        let from = Timestamp(now.0.saturating_sub(3_600_000));
        let message =
            client.generate_key_package_message(extensions, leaf_extensions(&channel_key)?, Some(mls_time(from)))?;
        let (inserted, _) = shared.key_packages.drain();
        for (id, data) in inserted {
            fresh.writes.push(Write::Put {
                room: Room::KEY_PACKAGE,
                key: [CHANNEL_KEY, &channel_key.verifying_key().to_bytes()].concat(),
                value: zeroize::Zeroizing::new(channel_key.to_bytes().to_vec()),
            });
            fresh.writes.push(Write::Put {
                room: Room::KEY_PACKAGE,
                key: [PACKAGE, &id].concat(),
                value: record::encode(&Row {
                    last_resort: last,
                    cipher_suite: cipher_suite.into(),
                    retired: None,
                    channel_key: channel_key.verifying_key().to_bytes(),
                    data,
                }),
            });
        }
        let bytes = message.to_bytes()?;
        if last {
            fresh.last_resort = Some(bytes);
        } else {
            fresh.key_packages.push(bytes);
        }
    }
    Ok(fresh)
}

/// Notes that the directory serves some of our stored KeyPackages no more. Welcomes for them may still be on their way;
/// [`sweep`] deletes them when none can be.
///
/// # Errors
/// [`LoadError`].
pub fn retire<R: Rows>(rows: &R, which: Unserved, now: Timestamp) -> Result<Vec<Write>, LoadError<R::Error>> {
    let mut writes = Vec::new();
    for (key, value) in rows.scan(Room::KEY_PACKAGE, PACKAGE).map_err(LoadError::Store)? {
        let row: Row = record::decode(&value)?;
        let concerned = match which {
            Unserved::All => true,
            Unserved::LastResort(suite) => row.last_resort && row.cipher_suite == u16::from(suite),
        };
        if row.retired.is_none() && concerned {
            let value = record::encode(&Row { retired: Some(now), ..row });
            writes.push(Write::Put { room: Room::KEY_PACKAGE, key, value });
        }
    }
    Ok(writes)
}

/// Deletes the private parts of KeyPackages for which no Welcome can come any more: an inbox keeps one for
/// [`limits::INVITATION_MS`] after the KeyPackage was retired, or has expired.
///
/// # Errors
/// [`LoadError`].
pub fn sweep<R: Rows>(shared: &Mls, rows: &R, now: Timestamp) -> Result<Vec<Write>, LoadError<R::Error>> {
    let mut writes = Vec::new();
    for (key, value) in rows.scan(Room::KEY_PACKAGE, PACKAGE).map_err(LoadError::Store)? {
        let row: Row = record::decode(&value)?;
        let expired = Timestamp(row.data.expiration.saturating_mul(1000));
        if row.retired.map_or(expired, |retired| retired.min(expired)).plus_ms(limits::INVITATION_MS) > now {
            continue;
        }
        shared.key_packages.remove(key.strip_prefix(PACKAGE).unwrap_or_default());
        writes.push(Write::Delete { room: Room::KEY_PACKAGE, key: [CHANNEL_KEY, &row.channel_key].concat() });
        writes.push(Write::Delete { room: Room::KEY_PACKAGE, key });
    }
    Ok(writes)
}

/// The public signature keys in the leaves of our stored KeyPackages.
///
/// # Errors
/// [`LoadError`].
pub(crate) fn signature_keys<R: Rows>(rows: &R) -> Result<BTreeSet<Vec<u8>>, LoadError<R::Error>> {
    let mut keys = BTreeSet::new();
    for (_, value) in rows.scan(Room::KEY_PACKAGE, PACKAGE).map_err(LoadError::Store)? {
        let row: Row = record::decode(&value)?;
        keys.insert(signature_key(&row.data)?);
    }
    Ok(keys)
}

/// The public signature key in the leaf of a KeyPackage of ours.
pub(crate) fn signature_key(data: &KeyPackageData) -> Result<Vec<u8>, MlsError> {
    let package = KeyPackage::mls_decode(&mut data.key_package_bytes.as_slice()).map_err(fault)?;
    Ok(package.signing_identity().signature_key.as_bytes().to_vec())
}

/// Deletes the private part of a KeyPackage that was used, unless it is a last resort.
pub(crate) fn spent<R: Rows>(shared: &Mls, rows: &R, reference: &[u8]) -> Result<Vec<Write>, LoadError<R::Error>> {
    let key = [PACKAGE, reference].concat();
    let Some(value) = rows.get(Room::KEY_PACKAGE, &key).map_err(LoadError::Store)? else { return Ok(Vec::new()) };
    let row: Row = record::decode(&value)?;
    if row.last_resort {
        return Ok(Vec::new());
    }
    shared.key_packages.remove(reference);
    Ok(vec![
        Write::Delete { room: Room::KEY_PACKAGE, key: [CHANNEL_KEY, &row.channel_key].concat() },
        Write::Delete { room: Room::KEY_PACKAGE, key },
    ])
}

/// A stored KeyPackage's private part.
pub(crate) struct Stored {
    pub(crate) last_resort: bool,
    pub(crate) channel_key: [u8; 32],
    pub(crate) data: KeyPackageData,
}

pub(crate) fn from_row(bytes: &[u8]) -> Result<Stored, RecordError> {
    let row: Row = record::decode(bytes)?;
    Ok(Stored { last_resort: row.last_resort, channel_key: row.channel_key, data: row.data })
}
