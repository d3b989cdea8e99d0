use conclave_names::{ClientUri, IdempotencyKey, Timestamp, limits};
use conclave_protocol::{
    Code, Refusal, method,
    v1::{SignedRequest, UploadRequest, UploadResponse},
};
use sha2::{Digest, Sha256};

use super::{
    DeliveryService, Done, Incoming,
    authenticated::{Found, Proof},
    idempotency::{SUBMISSION_MS, Submission},
    key_package::{self, LAST_RESORT},
    request::{Signed, too_large},
};
use crate::{
    keyed::{Keyed, Purpose},
    store::{KeyPackageRow, StoreError, Tx},
};

impl DeliveryService {
    /// Stores KeyPackages of the calling client: all of them or none.
    ///
    /// One that is there already, or twice in the upload, is refused, and so is one that was served: identifiers are
    /// unique. But if the same upload is repeated within a day, those that were stored or served are passed over.
    pub fn upload(
        &self,
        tx: &mut dyn Tx,
        request: &impl Incoming<SignedRequest>,
        now: Timestamp,
    ) -> Result<Done<UploadResponse>, Refusal> {
        let (caller, Signed { message, keyed, .. }) =
            self.certified::<UploadRequest>(tx, request, method::UPLOAD, now)?;
        self.own_client(&caller)?;
        if message.key_packages.len() > limits::KEY_PACKAGES_PER_UPLOAD {
            return Err(too_large("the number of KeyPackages", limits::KEY_PACKAGES_PER_UPLOAD));
        }
        let client = caller.client.clone();
        let repeated = repetition(&keyed, &client, &request.request().body);
        let again = repeated.earlier::<UploadResponse>(tx, now)?.is_some();

        let checked = match request.proof(method::UPLOAD) {
            Some(Found(Proof::Signed { key_packages, .. })) => key_packages.clone(),
            _ => key_package::check_all(&message, &caller, &self.identities, now),
        };
        for (index, row) in checked.into_iter().enumerate() {
            let row = row?;
            let index = if row.last_resort { LAST_RESORT.to_owned() } else { index.to_string() };
            if admit(tx, &keyed, &row, &index, again)? {
                if row.last_resort {
                    replace_last_resort(tx, &keyed, &row)?;
                } else {
                    tx.put_key_package(&row)?;
                }
            }
        }

        let available = available(tx, &client, now)?;
        tx.put_directory_client(&client, now.plus_ms(limits::KEY_PACKAGE_LIFETIME.saturating_mul(1000)))?;
        let reply = UploadResponse { available };
        repeated.remember(tx, &reply, now, SUBMISSION_MS)?;
        Ok(Done::quiet(reply))
    }
}

/// By which the same upload is known when it comes again: its bytes.
fn repetition(keyed: &Keyed, client: &ClientUri, body: &[u8]) -> Submission {
    let mut key = [0; IdempotencyKey::LEN];
    key.iter_mut().zip(Sha256::digest(body)).for_each(|(to, from)| *to = from);
    let scope = keyed.hash(Purpose::Uploader, &[client.to_string().as_bytes()]);
    Submission::new(scope, IdempotencyKey::new(key), method::UPLOAD, body)
}

/// Whether a KeyPackage is to be stored: not if it is there or was served and this is a repetition.
///
/// # Errors
/// [`Code::KeyPackageInvalid`] if it is there or was served, and this is none.
fn admit(tx: &mut dyn Tx, keyed: &Keyed, row: &KeyPackageRow, index: &str, again: bool) -> Result<bool, Refusal> {
    let why = if tx.key_package(&row.reference)?.is_some() {
        "is in the directory already, or twice in this upload"
    } else if tx.claimed(&keyed.hash(Purpose::Claimed, &[row.reference.as_bytes()]))? {
        "was served already"
    } else {
        return Ok(true);
    };
    if again {
        return Ok(false);
    }
    Err(Refusal::new(
        Code::KeyPackageInvalid,
        format!("KeyPackage {index} {why}, and each is for one group: make a new one"),
    )
    .with("index", index))
}

/// Stores a last resort in the place of the one before, which must not come back if it was served.
fn replace_last_resort(tx: &mut dyn Tx, keyed: &Keyed, row: &KeyPackageRow) -> Result<(), StoreError> {
    if let Some(before) = tx.last_resort(&row.client, row.cipher_suite)? {
        tx.delete_key_package(&before.reference)?;
        if before.used {
            tx.put_claimed(&keyed.hash(Purpose::Claimed, &[before.reference.as_bytes()]), before.expires)?;
        }
    }
    tx.put_key_package(row)
}

/// One-time KeyPackages of all suites.
///
/// # Errors
/// [`Code::QuotaExceeded`] if there are too many of one suite.
fn available(tx: &mut dyn Tx, client: &ClientUri, now: Timestamp) -> Result<u64, Refusal> {
    let counts = tx.key_package_counts(client, now)?;
    if counts.iter().any(|count| count.available > limits::KEY_PACKAGES_PER_CLIENT) {
        return Err(Refusal::new(
            Code::QuotaExceeded,
            format!(
                "the directory keeps {} KeyPackages of a client and cipher suite: upload fewer, or purge them first",
                limits::KEY_PACKAGES_PER_CLIENT
            ),
        ));
    }
    Ok(counts.iter().map(|count| count.available).sum())
}
