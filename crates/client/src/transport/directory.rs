//! Calls of the KeyPackage directory.

use conclave_protocol::{method, v1};

use super::{CallError, Signer, Transport, signed::signed_calls};

signed_calls! { directory:
    /// Stores KeyPackages of the calling client; signed by a certified client.
    upload, UPLOAD, UploadRequest => UploadResponse;
    /// Takes one KeyPackage of each client of a user; signed by a certified client.
    claim, CLAIM, ClaimRequest => ClaimResponse;
    /// How many KeyPackages of the calling client are left; signed by it.
    count, COUNT, CountRequest => CountResponse;
    /// Removes all KeyPackages of the calling client; signed by it.
    purge, PURGE, PurgeRequest => PurgeResponse;
}
