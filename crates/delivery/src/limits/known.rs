use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use conclave_mls::credential::ClientIdentity;
use conclave_names::{ClientUri, Timestamp};
use conclave_protocol::{Refusal, method};

use super::{Buckets, Rate, Wait, refusal};
use crate::store::KeyedHash;

macro_rules! limits {
    ($($(#[doc = $doc:literal])* $name:ident = $default:expr;)*) => {
        /// Rates by what a request proves. All are limits for one: one user, one client, one key.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $doc])* pub $name: Rate,)*
            /// Buckets that each of these rates may have in use, about 100 bytes each; beyond, newcomers share.
            pub buckets: usize,
        }

        impl Default for Limits {
            /// What suits a server that strangers reach.
            fn default() -> Self {
                Self { $($name: $default,)* buckets: 65_536 }
            }
        }

        impl Limits {
            /// None at all: for tests and benchmarks.
            #[must_use]
            pub const fn none() -> Self {
                Self { $($name: Rate::UNLIMITED,)* buckets: 65_536 }
            }
        }

        struct Tables {
            $($name: Buckets<u64>,)*
        }

        impl Tables {
            fn new(limits: &Limits) -> Self {
                Self { $($name: Buckets::new(limits.$name, limits.buckets),)* }
            }

            fn forget_full(&mut self, now: Timestamp) {
                $(self.$name.forget_full(now);)*
            }

            fn len(&self) -> usize {
                0 $(+ self.$name.len())*
            }
        }
    };
}

limits! {
    /// Claims of a user's clients.
    user_claims = Rate::per_minute(300, 30);
    /// Uploads of KeyPackages of a user's clients.
    user_uploads = Rate::per_minute(60, 4);
    /// Other calls of a user's clients to the directory.
    user_calls = Rate::per_minute(300, 60);
    /// One-time KeyPackages that all claimants together take of one client. Beyond it the client's last resort is
    /// served. Less than a client's pool (20), so that no burst of strangers' drains it.
    client_claimed = Rate::per_hour(10, 6);
    /// One-time KeyPackages that one user takes of one client. Beyond it the client's last resort is served.
    client_claimed_by_user = Rate::per_hour(3, 1);
    /// Messages, proposals and commits of one member's key.
    member_submissions = Rate::per_second(300, 20);
    /// Other requests of one member's key or inbox's owner.
    member_requests = Rate::per_second(600, 60);
    /// Bytes of blobs staged by one member's key. A group of 100,000 has a tree of 80 MB.
    member_staged_bytes = Rate::per_second(512 << 20, 512 << 10);
}

/// Keeps the [`Limits`] of one service.
pub(crate) struct Limiter {
    tables: Mutex<Tables>,
    /// Buckets are found by a hash of who they are of: short, and unforeseeable.
    hasher: RandomState,
}

impl Limiter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { tables: Mutex::new(Tables::new(limits)), hasher: RandomState::new() }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // A bucket that a panic left half-changed is at worst one request too strict.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }

    /// A signed request of a certified client.
    pub(crate) fn certified(&self, method: &str, who: &ClientIdentity, now: Timestamp) -> Result<(), Refusal> {
        let key = self.key(who.user.to_string());
        let mut tables = self.tables();
        let (what, buckets) = match method {
            method::CLAIM => ("claims by one user", &mut tables.user_claims),
            method::UPLOAD => ("uploads by one user", &mut tables.user_uploads),
            _ => ("calls to the directory by one user", &mut tables.user_calls),
        };
        buckets.take(key, 1, now).map_err(|wait| refusal(what, buckets.rate(), wait))
    }

    /// A request of `len` bytes in a session.
    pub(crate) fn in_session(
        &self,
        method: &str,
        pseudonym: &KeyedHash,
        len: usize,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let key = self.key(pseudonym);
        let mut tables = self.tables();
        let (what, buckets, cost) = match method {
            method::SUBMIT | method::SUBMIT_BUNDLE => ("submissions by one member", &mut tables.member_submissions, 1),
            method::STAGE_BLOB => ("bytes of blobs by one member", &mut tables.member_staged_bytes, len as u64),
            _ => ("requests by one member", &mut tables.member_requests, 1),
        };
        buckets.take(key, cost, now).map_err(|wait| refusal(what, buckets.rate(), wait))
    }

    /// How long a user must wait until one-time KeyPackages of a client are for it; none if they are now.
    pub(crate) fn pool(&self, claimant: &ClientIdentity, of: &ClientUri, now: Timestamp) -> Option<Wait> {
        let (client, pair) = self.claim_keys(claimant, of);
        let tables = self.tables();
        tables.client_claimed.wait(&client, 1, now).max(tables.client_claimed_by_user.wait(&pair, 1, now))
    }

    /// Notes that a user took a one-time KeyPackage of a client.
    pub(crate) fn took(&self, claimant: &ClientIdentity, of: &ClientUri, now: Timestamp) {
        let (client, pair) = self.claim_keys(claimant, of);
        let mut tables = self.tables();
        tables.client_claimed.charge(client, 1, now);
        tables.client_claimed_by_user.charge(pair, 1, now);
    }

    fn claim_keys(&self, claimant: &ClientIdentity, of: &ClientUri) -> (u64, u64) {
        let of = of.to_string();
        (self.key(&of), self.key((claimant.user.to_string(), &of)))
    }

    /// The answer where a pool may not be touched and there is no last resort in its place.
    pub(crate) fn pool_refusal(&self, wait: Wait) -> Refusal {
        let rate = self.tables().client_claimed.rate();
        refusal("claims of this user's KeyPackages, of which none is a last resort,", rate, wait)
    }

    /// Drops what is no longer needed.
    pub(crate) fn forget_full(&self, now: Timestamp) {
        self.tables().forget_full(now);
    }

    /// How many buckets are in use.
    pub(crate) fn len(&self) -> usize {
        self.tables().len()
    }
}
