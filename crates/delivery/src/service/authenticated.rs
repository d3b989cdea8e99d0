//! Requests that were authenticated before their transaction.
//!
//! A store runs one writing transaction at a time, so what needs no store is better done before: signatures, MACs, and the
//! validation of KeyPackages. [`DeliveryService::authenticate`] does it; the call then takes its result in place of the
//! request.

use std::collections::HashMap;

use conclave_channel::{Body, Entry};
use conclave_mls::{
    address::{DropToken, SealedAddress},
    credential::ClientIdentity,
};
use conclave_names::{Epoch, Timestamp, limits};
use conclave_protocol::{
    Refusal, method, session,
    signed::Verified,
    v1::{SessionRequest, SignedRequest, SubmitBundleRequest, UploadRequest},
};

use super::{DeliveryService, follow::Judged, key_package};
use crate::{
    session::Caller,
    store::{ChannelKind, KeyPackageRow, Read},
};

/// A request that was authenticated for one call. It is good for that call only, once.
#[derive(Debug, Clone)]
pub struct Authenticated<R> {
    request: R,
    method: &'static str,
    proof: Proof,
}

/// The tokens in delivery addresses, by the addresses' bytes.
pub(crate) type Opened = HashMap<Vec<u8>, DropToken>;

/// What was found out about a request.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// In a session.
    Session {
        /// Whose it is.
        caller: Caller,
        /// Of a bundle with a Welcome: the epoch that it ends, and the delivery addresses in it.
        addresses: Option<(Epoch, Vec<Vec<u8>>)>,
        /// Those that were opened.
        opened: Opened,
        /// Of a bundle: whether its commit may be one of a visible group, which can be judged ahead.
        open_commit: bool,
        /// What was found out about it.
        judged: Option<Judged>,
    },
    /// Signed.
    Signed {
        /// By whom.
        verified: Box<Verified>,
        /// Who that is, if there was a certificate.
        client: Option<Result<ClientIdentity, Refusal>>,
        /// The KeyPackages in it, in order, the last resort last.
        key_packages: Vec<Result<KeyPackageRow, Refusal>>,
    },
}

mod sealed {
    use super::{DeliveryService, Proof, Refusal, Timestamp};

    /// What was found out; opaque outside of this crate.
    pub struct Proved(pub(super) Proof);

    pub trait Sealed: Sized {
        fn prove(&self, service: &DeliveryService, method: &str, now: Timestamp) -> Result<Proved, Refusal>;
    }
}

use sealed::Proved;

/// A request that can be authenticated: [`SessionRequest`] or [`SignedRequest`].
pub trait Request: sealed::Sealed {}

impl Request for SessionRequest {}
impl Request for SignedRequest {}

impl sealed::Sealed for SessionRequest {
    fn prove(&self, service: &DeliveryService, method: &str, now: Timestamp) -> Result<Proved, Refusal> {
        let caller = service.caller(self, method, now)?;
        let (mut addressed, mut open_commit) = (None, false);
        if method == method::SUBMIT_BUNDLE
            && let Ok(bundle) = session::decode::<SubmitBundleRequest>(self)
            && let Ok(entry) = Entry::parse(&bundle.entry)
        {
            open_commit = may_be_open(&entry.body);
            addressed = addresses(bundle, entry.epoch);
        }
        let opened = Opened::new();
        Ok(Proved(Proof::Session { caller, addresses: addressed, opened, open_commit, judged: None }))
    }
}

impl sealed::Sealed for SignedRequest {
    fn prove(&self, service: &DeliveryService, method: &str, now: Timestamp) -> Result<Proved, Refusal> {
        let verified = service.verified(self, method, now)?;
        let client = (!verified.certificate.is_empty()).then(|| service.identified(&verified, now));
        let mut key_packages = Vec::new();
        if let (method::UPLOAD, Some(Ok(client))) = (method, &client)
            && service.own_client(client).is_ok()
            && let Ok(upload) = verified.decode::<UploadRequest>()
        {
            key_packages = key_package::check_all(&upload, client, &service.identities, now);
        }
        Ok(Proved(Proof::Signed { verified: Box::new(verified), client, key_packages }))
    }
}

/// A request as it came, or as it was authenticated: what calls take.
pub trait Incoming<R> {
    /// The request as it came.
    fn request(&self) -> &R;

    /// What was found out about it for this call.
    #[doc(hidden)]
    fn proof(&self, method: &str) -> Option<Found<'_>>;
}

/// See [`Incoming::proof`]; opaque outside of this crate.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a>(pub(crate) &'a Proof);

impl<'a> Found<'a> {
    /// The delivery addresses that were opened.
    pub(crate) fn opened(self) -> Option<&'a Opened> {
        match self.0 {
            Proof::Session { opened, .. } => Some(opened),
            Proof::Signed { .. } => None,
        }
    }

    /// What was found out about the commit.
    pub(crate) fn judged(self) -> Option<&'a Judged> {
        match self.0 {
            Proof::Session { judged, .. } => judged.as_ref(),
            Proof::Signed { .. } => None,
        }
    }
}

impl<R: Request> Incoming<Self> for R {
    fn request(&self) -> &Self {
        self
    }

    fn proof(&self, _: &str) -> Option<Found<'_>> {
        None
    }
}

impl<R: Request> Incoming<R> for Authenticated<R> {
    fn request(&self) -> &R {
        &self.request
    }

    fn proof(&self, method: &str) -> Option<Found<'_>> {
        (self.method == method).then_some(Found(&self.proof))
    }
}

/// The beginning of an MLSMessage with a PublicMessage: version mls10, wire format mls_public_message.
const PUBLIC_MESSAGE: [u8; 4] = [0, 1, 0, 1];

/// Whether a commit may be one that is not sealed: a seal begins otherwise. Of a staged one it is not known.
fn may_be_open(body: &Body) -> bool {
    match body {
        Body::Inline(body) => body.starts_with(&PUBLIC_MESSAGE),
        Body::Staged { .. } => true,
    }
}

/// The epoch that a bundle ends, and the addresses in its Welcome, if there are any and not too many.
fn addresses(bundle: SubmitBundleRequest, epoch: Epoch) -> Option<(Epoch, Vec<Vec<u8>>)> {
    let parts = bundle.welcome?.parts;
    let fits = !parts.is_empty() && parts.len() <= limits::WELCOMES_PER_BUNDLE;
    fits.then(|| (epoch, parts.into_iter().map(|part| part.address).collect()))
}

impl Authenticated<SessionRequest> {
    /// Whether [`DeliveryService::open_addresses`] has something to do for it.
    #[must_use]
    pub fn has_addresses(&self) -> bool {
        matches!(&self.proof, Proof::Session { addresses: Some(_), .. })
    }

    /// Whether [`DeliveryService::judge_commit`] may have something to do for it.
    #[must_use]
    pub fn has_open_commit(&self) -> bool {
        matches!(&self.proof, Proof::Session { open_commit: true, .. })
    }

    /// Whose it is.
    pub(crate) fn caller(&self) -> Option<Caller> {
        match &self.proof {
            Proof::Session { caller, .. } => Some(*caller),
            Proof::Signed { .. } => None,
        }
    }

    /// Notes what was found out about its commit.
    pub(crate) fn found(&mut self, found: Judged) {
        if let Proof::Session { judged, .. } = &mut self.proof {
            *judged = Some(found);
        }
    }
}

impl DeliveryService {
    /// Authenticates a request for a call, and does what else needs no store: the signature or the MAC, the certificate,
    /// the KeyPackages of an upload. Whether it is fresh is judged in the call's transaction. In a session it uses up
    /// the request's counter.
    ///
    /// # Errors
    /// As the call itself.
    pub fn authenticate<R: Request>(
        &self,
        request: R,
        method: &'static str,
        now: Timestamp,
    ) -> Result<Authenticated<R>, Refusal> {
        let Proved(proof) = request.prove(self, method, now)?;
        Ok(Authenticated { request, method, proof })
    }

    /// Opens the delivery addresses of a bundle's Welcome ahead of its transaction, if the bundle may still win. It is no
    /// error where one does not open: the call says so.
    ///
    /// # Errors
    /// Those of the store.
    pub fn open_addresses(
        &self,
        read: &mut dyn Read,
        request: &mut Authenticated<SessionRequest>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let Proof::Session { caller, addresses, opened, .. } = &mut request.proof else { return Ok(()) };
        let Some((epoch, addresses)) = addresses.take() else { return Ok(()) };
        let kind = read.channel(&caller.channel)?.map(|row| row.kind);
        if !matches!(kind, Some(ChannelKind::Group { ledger }) if ledger.epoch() == epoch) {
            return Ok(());
        }
        for bytes in addresses {
            let Ok(address) = SealedAddress::parse(&bytes) else { break };
            let Some(key) = read.address_key(address.key_id())?.filter(|key| key.expires > now) else { break };
            let (secret, public) = (key.secret.clone().into(), key.public.clone().into());
            let Ok(token) = address.open(&self.suite, &secret, &public) else { break };
            opened.insert(bytes, token);
        }
        Ok(())
    }
}
