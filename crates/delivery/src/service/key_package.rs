//! Which KeyPackages the directory takes (RFC 9420, section 10.1; RFC 9750, section 5.1).

use conclave_mls::{
    address::DeliveryAddress,
    capabilities::Capabilities,
    components::ChannelKeyExtension,
    credential::{ClientIdentity, same_client},
    crypto,
    identity::Identities,
};
use conclave_names::{Hash, Timestamp, code_points, limits};
use conclave_protocol::{Code, Refusal, v1::UploadRequest};
use mls_rs::{
    MlsMessage,
    extension::ExtensionType,
    external_client::ExternalClient,
    group::{LeafNode, LeafNodeSource},
    time::MlsTime,
};
use mls_rs_codec::MlsDecode;
use mls_rs_core::crypto::HpkePublicKey;

use crate::store::KeyPackageRow;

/// MLSMessage header of a KeyPackage: version mls10 and wire format mls_key_package (RFC 9420, section 6).
const HEADER: [u8; 4] = [0, 1, 0, 5];

/// Judges one KeyPackage of an upload of `caller`. `index` names it in refusals: its place, or that it is the last
/// resort.
pub(super) fn check(
    bytes: &[u8],
    index: &str,
    last_resort: bool,
    caller: &ClientIdentity,
    identities: &Identities,
    now: Timestamp,
) -> Result<KeyPackageRow, Refusal> {
    let invalid = |why: String| {
        Refusal::new(Code::KeyPackageInvalid, format!("KeyPackage {index} is not valid: {why}")).with("index", index)
    };
    if bytes.len() > limits::KEY_PACKAGE {
        return Err(super::request::too_large(&format!("KeyPackage {index}"), limits::KEY_PACKAGE));
    }
    let form = || invalid("it is not an MLSMessage of wire format mls_key_package".to_owned());
    let rest = bytes.strip_prefix(&HEADER).ok_or_else(form)?;
    let message = MlsMessage::from_bytes(bytes).map_err(|_| form())?;
    // What decodes must be what was sent, to the last byte: others verify other encodings.
    if message.to_bytes().map_err(|_| form())? != bytes {
        return Err(form());
    }
    let leaf = leaf(rest).map_err(|_| form())?;
    let cipher_suite = message.as_key_package().ok_or_else(form)?.cipher_suite;
    let suite = crypto::suite_by_number(cipher_suite.into())
        .and_then(crypto::suite)
        .map_err(|error| invalid(error.to_string()))?;

    let identity =
        identities.identify(&leaf.signing_identity, Some(now)).map_err(|error| invalid(error.to_string()))?;
    if !same_client(&identity, caller) {
        return Err(Refusal::new(
            Code::KeyPackageForeign,
            format!("KeyPackage {index} is of another client than the one that uploads it"),
        )
        .with("index", index));
    }
    let package = ExternalClient::builder()
        .crypto_provider(crypto::provider())
        .identity_provider(identities.clone())
        .build()
        .validate_key_package(message, Some(MlsTime::from(now.as_secs())))
        .map_err(|error| invalid(error.to_string()))?;

    let LeafNodeSource::KeyPackage(lifetime) = &leaf.leaf_node_source else { return Err(form()) };
    let (from, until) = (lifetime.not_before.seconds_since_epoch(), lifetime.not_after.seconds_since_epoch());
    if until.saturating_sub(from) > limits::KEY_PACKAGE_LIFETIME {
        return Err(invalid(format!("it lives longer than {} s", limits::KEY_PACKAGE_LIFETIME)));
    }
    if until <= now.as_secs() {
        return Err(invalid("it has expired".to_owned()));
    }
    ChannelKeyExtension::of(&leaf.extensions).map_err(|error| invalid(error.to_string()))?;
    let address = DeliveryAddress::of(&package.extensions).map_err(|error| invalid(error.to_string()))?;
    address.domain().map_err(|error| invalid(error.to_string()))?;
    let marked = package.extensions.has_extension(ExtensionType::new(code_points::EXTENSION_LAST_RESORT));
    if marked != last_resort {
        return Err(invalid("the extension last_resort belongs in the last resort, and only there".to_owned()));
    }
    let reference = package.to_reference(&suite).map_err(|error| invalid(error.to_string()))?;
    Ok(KeyPackageRow {
        reference: Hash::try_from(&*reference).map_err(|_| form())?,
        client: identity.client,
        cipher_suite: cipher_suite.into(),
        capabilities: Capabilities::of_leaf(&leaf.capabilities),
        bytes: bytes.to_vec(),
        last_resort,
        used: false,
        // An expired certificate makes the KeyPackage as useless as an expired lifetime.
        expires: Timestamp::from_secs(until).min(identity.not_after),
    })
}

/// Judges all KeyPackages of an upload, in order, the last resort last. Not more than an upload may have.
pub(super) fn check_all(
    upload: &UploadRequest,
    caller: &ClientIdentity,
    identities: &Identities,
    now: Timestamp,
) -> Vec<Result<KeyPackageRow, Refusal>> {
    let one_time = upload.key_packages.iter().take(limits::KEY_PACKAGES_PER_UPLOAD).enumerate();
    let one_time = one_time.map(|(index, bytes)| check(bytes, &index.to_string(), false, caller, identities, now));
    let last_resort = Some(&upload.last_resort).filter(|bytes| !bytes.is_empty());
    one_time.chain(last_resort.map(|bytes| check(bytes, LAST_RESORT, true, caller, identities, now))).collect()
}

/// How the last resort is named in refusals.
pub(super) const LAST_RESORT: &str = "last_resort";

/// The leaf of a KeyPackage, which mls-rs does not show: after version (16 bits), cipher suite (16 bits) and init key.
fn leaf(key_package: &[u8]) -> Result<LeafNode, mls_rs_codec::Error> {
    let mut rest = key_package;
    u16::mls_decode(&mut rest)?;
    u16::mls_decode(&mut rest)?;
    HpkePublicKey::mls_decode(&mut rest)?;
    LeafNode::mls_decode(&mut rest)
}
