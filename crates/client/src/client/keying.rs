//! Keying material at the directory, of every cipher suite: filled up at a low-water mark (R52), the last resort replaced once used
//! (R48), all of it replaced with the certificate (R50).

use conclave_engine::{
    key_packages::{self, Unserved},
    writes::{Room, Write},
};
use conclave_mls::crypto;
use conclave_names::Timestamp;
use conclave_protocol::{Code, v1};
use futures::future::try_join_all;
use mls_rs::CipherSuite;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Client, ClientError, rows::StoreRows};

/// Key of the row in [`Room::ACCOUNT`] that says with which certificate the directory's KeyPackages were made: its
/// SHA-256. Without it, or with another's, they are replaced, also after a crash between renewal and replacement.
const MADE_WITH: &[u8] = b"key-packages-made-with";

/// Key of the row in [`Room::ACCOUNT`] that says when they were doubted last, in milliseconds.
const DOUBTED: &[u8] = b"key-packages-doubted";

/// They are doubted once in this time at most, in milliseconds: a server can show an old Welcome again and again.
const DOUBTED_MS: u64 = 86_400_000;

/// What the directory has of this client in one cipher suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SuiteStock {
    /// The suite's number (RFC 9420, section 17.1).
    pub cipher_suite: u32,
    /// KeyPackages for one use each.
    pub available: u64,
    /// Whether a last resort is there.
    pub last_resort: bool,
    /// Whether the last resort was served.
    pub last_resort_used: bool,
}

impl Client {
    /// What the directory has of this client.
    pub async fn key_package_stock(&mut self) -> Result<Vec<SuiteStock>, ClientError> {
        let counted = self.delivery.count(&Self::signer(&self.account), &v1::CountRequest {}).await?;
        Ok(counted
            .suites
            .into_iter()
            .map(|suite| SuiteStock {
                cipher_suite: suite.cipher_suite,
                available: suite.available,
                last_resort: suite.last_resort,
                last_resort_used: suite.last_resort_used,
            })
            .collect())
    }

    /// Takes note that somebody claimed a KeyPackage whose private part is not here: this profile may be an older copy, and the directory
    /// may have more of them. The next refill replaces them all.
    pub(super) fn doubt_key_packages(&mut self) -> Result<(), ClientError> {
        let now = self.delivery.now();
        let last = self.store.get(Room::ACCOUNT, DOUBTED)?;
        let last = last.and_then(|row| Some(Timestamp(u64::from_be_bytes(row.as_slice().try_into().ok()?))));
        if last.is_some_and(|last| last.is_within_ms(DOUBTED_MS, now)) {
            return Ok(());
        }
        let value = now.0.to_be_bytes().to_vec().into();
        Ok(self.store.apply(&[
            Write::Put { room: Room::ACCOUNT, key: DOUBTED.to_vec(), value },
            Write::Delete { room: Room::ACCOUNT, key: MADE_WITH.to_vec() },
        ])?)
    }

    /// As [`Client::refill_key_packages`], but what the server refuses for now is left for the next time: groups are read all the same.
    ///
    /// # Errors
    /// Others.
    pub(super) async fn refill_in_time(&mut self) -> Result<(), ClientError> {
        let code = |done: &Result<(), ClientError>| done.as_ref().err().and_then(ClientError::code);
        let mut done = self.refill_key_packages().await;
        if self.outlives_issuer(code(&done)).await {
            done = self.renew_credential().await;
            if code(&done) == Some(Code::CredentialInvalid) {
                tracing::warn!("the directory has yet to learn of the issuer of this client's new certificate");
                return Ok(());
            }
        }
        match done {
            Err(error) if error.is_transient() && error.code().is_some_and(|code| code != Code::Unavailable) => {
                tracing::warn!(%error, "the directory takes no KeyPackages now");
                Ok(())
            }
            done => done,
        }
    }

    /// Fills up each cipher suite's pool that is at its low-water mark or below, replaces last resorts that are missing or were used, and
    /// replaces everything if the certificate is another than before. The private parts are durable before the public
    /// ones leave; those for which no Welcome can come any more are deleted.
    pub async fn refill_key_packages(&mut self) -> Result<(), ClientError> {
        let swept = key_packages::sweep(&self.mls, &StoreRows(&*self.store), self.delivery.now_for_deleting())?;
        self.store.apply(&swept)?;
        let certificate = Sha256::digest(&self.account.certificate);
        let made_with = self.store.get(Room::ACCOUNT, MADE_WITH)?;
        let renewed = made_with.is_none_or(|hash| hash.as_slice() != certificate.as_slice());
        let stock = if renewed {
            self.delivery.purge(&Self::signer(&self.account), &v1::PurgeRequest {}).await?;
            Vec::new()
        } else {
            self.key_package_stock().await?
        };
        let lacking: Vec<_> = crypto::SUITES.into_iter().filter_map(|suite| lacking(suite, &stock)).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let address_key = self.address_key().await?;
        // A time that is far ahead would keep them for ever.
        let (now, retired) = (self.delivery.now(), self.delivery.now_for_deleting());
        let (mut writes, mut uploads) = (Vec::new(), Vec::new());
        if renewed {
            writes.extend(key_packages::retire(&StoreRows(&*self.store), Unserved::All, retired)?);
        }
        for Lacking { suite, count, last_resort } in lacking {
            if last_resort && !renewed {
                writes.extend(key_packages::retire(&StoreRows(&*self.store), Unserved::LastResort(suite), retired)?);
            }
            let fresh = key_packages::generate(&self.account, &self.mls, suite, &address_key, count, last_resort, now)?;
            writes.extend(fresh.writes);
            uploads.push(v1::UploadRequest {
                key_packages: fresh.key_packages,
                last_resort: fresh.last_resort.unwrap_or_default(),
            });
        }
        self.store.apply(&writes)?;
        let signer = Self::signer(&self.account);
        let uploads: Vec<_> = uploads.iter().map(|upload| self.delivery.upload(&signer, upload)).collect();
        try_join_all(uploads).await?;
        if renewed {
            let value = Zeroizing::new(certificate.to_vec());
            self.store.apply(&[Write::Put { room: Room::ACCOUNT, key: MADE_WITH.to_vec(), value }])?;
        }
        Ok(())
    }
}

/// What is to be uploaded of one cipher suite.
struct Lacking {
    suite: CipherSuite,
    count: u64,
    last_resort: bool,
}

fn lacking(suite: CipherSuite, stock: &[SuiteStock]) -> Option<Lacking> {
    let number = u16::from(suite);
    let stock = stock.iter().find(|stock| stock.cipher_suite == u32::from(number));
    let (pool, available) = (key_packages::pool(suite), stock.map_or(0, |stock| stock.available));
    let count = if available > pool.low_water { 0 } else { pool.size.saturating_sub(available) };
    let last_resort = stock.is_none_or(|stock| !stock.last_resort || stock.last_resort_used);
    (count > 0 || last_resort).then_some(Lacking { suite, count, last_resort })
}
