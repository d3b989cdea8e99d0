//! A client: one device of one user, with its account, its groups and its keying material.

mod asking;
mod batch;
mod beside;
mod devices;
mod error;
mod external;
mod gap;
mod given_up;
mod groups;
mod history;
mod identities;
mod issuers;
mod keying;
mod knock;
mod listen;
mod lost;
mod membership;
mod onward;
mod recovery;
mod register;
mod reinit;
mod rejoin;
mod rotation;
mod rows;
mod saved;
mod sync;
mod tending;
mod told;

use std::{collections::HashMap, time::Duration};

use conclave_engine::{
    Mls,
    account::Account,
    group::{self, Group, GroupSummary, WishError},
    outcome::Event,
    silence::SERVER_SILENT_MS,
};
use conclave_mls::credential::LeafCertificate;
use conclave_names::{ClientUri, GroupUri, Timestamp, UserUri};
use serde::Serialize;

pub use asking::{Asking, LASTS_MS as ASKING_LASTS_MS};
pub use devices::{Approval, LinkCode, LinkCodeError, LinkRequest, PendingLink};
pub use error::{ClientError, OpenError};
pub use external::Listing;
pub use groups::{Added, Leaving, Unable};
pub use history::{HistoryCursor, HistoryEntry, HistoryItem, HistoryPage};
pub use identities::{Pinned, UserRecord};
pub use keying::SuiteStock;
pub use listen::Listener;
pub use lost::{Asked, LostGroup, Unasked};
pub use membership::{Membership, MembershipChange};
pub use onward::GoneOn;
pub use recovery::{RECOVERY_FILE_MAX, RecoveryError, RecoveryFile};
pub use register::{RegisterError, Registration};
pub use rotation::{PendingRotation, Rotated};
pub use saved::RecoveryState;

use crate::{
    profile::Profile,
    store::{ProfileStore, Store},
    transport::{Endpoint, Session, Signer, Transport},
};
use rows::StoreRows;

/// Where a client's services are. Usually one server offers both.
#[derive(Debug, Clone)]
pub struct Services {
    /// The Delivery Service.
    pub delivery: Endpoint,
    /// The Authentication Service, if it is elsewhere.
    pub authentication: Option<Endpoint>,
}

impl Services {
    /// What a profile says.
    pub fn of(profile: &Profile) -> Result<Self, OpenError> {
        let delivery = Endpoint::of(profile)?;
        let authentication = profile.config().authentication_server.as_ref().map(|url| Endpoint {
            url: url.clone(),
            ticket: None,
            ..delivery.clone()
        });
        Ok(Self { delivery, authentication })
    }

    fn connect(&self) -> Result<(Transport, Transport), OpenError> {
        let delivery = Transport::connect(&self.delivery)?;
        let authentication = match &self.authentication {
            Some(endpoint) => Transport::connect(endpoint)?,
            None => delivery.clone(),
        };
        Ok((delivery, authentication))
    }
}

/// Something that happened, and in which group. An invitation that does not open does not say of which group it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientEvent {
    /// The group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupUri>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl ClientEvent {
    /// What happened in one group.
    fn all_of(group: &GroupUri, events: Vec<Event>) -> impl Iterator<Item = Self> {
        events.into_iter().map(|event| Self::of(group, event))
    }

    fn of(group: &GroupUri, event: Event) -> Self {
        Self { group: Some(group.clone()), event }
    }
}

/// A client: one device of one user.
///
/// Its calls are to be made one at a time. What a call does to the store it does whole; a call that fails with a
/// transient error ([`ClientError::is_transient`]) has lost nothing: what was said, and every change that needs nothing of the
/// directory, is stored before the server is asked, and is carried out by the next [`Client::sync`]. What needs the directory first
/// ([`Client::add`], [`Client::reinit`]) or a server to begin with ([`Client::create_group`]) is to be called again.
pub struct Client {
    store: Box<dyn ProfileStore>,
    account: Account,
    mls: Mls,
    delivery: Transport,
    authentication: Transport,
    groups: HashMap<GroupUri, Group>,
    sessions: HashMap<GroupUri, Session>,
    /// Why there is no way back into a group, as it was told.
    blocked: HashMap<GroupUri, rejoin::Blocked>,
    /// Frozen groups that do not go on.
    unable_to_go_on: HashMap<GroupUri, told::Trouble>,
    /// How the asking to be let into lost groups stands.
    asking: Option<Asking>,
    /// Groups that failed.
    failed: HashMap<GroupUri, told::Trouble>,
    /// Events that a call which failed has not returned, oldest first.
    untold: Vec<ClientEvent>,
    inbox: Option<Session>,
    /// Whether it was told that the server's clock is far from this machine's.
    clocks_told: bool,
    /// What the Authentication Service said when an issuer was last asked for.
    issuers_said: Option<issuers::Said>,
    /// How long a server may be silent before it is told of, in milliseconds.
    patience_ms: u64,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("client", &self.account.client).finish_non_exhaustive()
    }
}

impl Client {
    /// Opens the client of a profile whose registration is complete.
    ///
    /// # Errors
    /// [`OpenError::NotRegistered`] if it is not, else what profile and store say.
    pub fn open(profile: &Profile, passphrase: Option<&str>) -> Result<Self, OpenError> {
        let key = profile.unlock(passphrase)?;
        let store = Store::open(profile, &key)?;
        Self::over(Box::new(store), &Services::of(profile)?)
    }

    /// Opens the client in a store, e.g. one in memory. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError::NotRegistered`] if the store holds no complete account.
    pub fn over(store: Box<dyn ProfileStore>, services: &Services) -> Result<Self, OpenError> {
        let row = store.get(conclave_engine::writes::Room::ACCOUNT, Account::KEY)?;
        let account = Account::from_row(&row.ok_or(OpenError::NotRegistered)?)?;
        if account.certificate.is_empty() {
            return Err(OpenError::NotRegistered);
        }
        let (delivery, authentication) = services.connect()?;
        Self::assemble(store, account, delivery, authentication)
    }

    fn assemble(
        store: Box<dyn ProfileStore>,
        account: Account,
        delivery: Transport,
        authentication: Transport,
    ) -> Result<Self, OpenError> {
        let mls = Mls::new(&account);
        conclave_engine::invitation::load_key_packages(&mls, &StoreRows(&*store))?;
        let asking = Asking::load(&*store)?;
        let failed = told::failed(&*store)?;
        Ok(Self {
            store,
            account,
            mls,
            delivery,
            authentication,
            groups: HashMap::new(),
            sessions: HashMap::new(),
            blocked: HashMap::new(),
            unable_to_go_on: HashMap::new(),
            asking,
            failed,
            untold: Vec::new(),
            inbox: None,
            clocks_told: false,
            issuers_said: None,
            patience_ms: SERVER_SILENT_MS,
        })
    }

    /// This client.
    pub fn client(&self) -> &ClientUri {
        &self.account.client
    }

    /// The user.
    pub fn user(&self) -> &UserUri {
        self.account.client.user()
    }

    /// The user's public identity key.
    pub fn identity_key(&self) -> [u8; 32] {
        self.account.identity_key()
    }

    /// Whether this device holds the user's identity key, so that it can approve other devices.
    pub fn holds_identity(&self) -> bool {
        self.account.identity_secret.is_some()
    }

    /// When the certificate ends. It is renewed by itself long before.
    pub fn certificate_ends(&self) -> Option<Timestamp> {
        LeafCertificate::parse(&self.account.certificate).ok().map(|leaf| leaf.not_after())
    }

    /// How long calls are repeated while their failure is transient; 30 seconds unless something else is said.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.delivery = self.delivery.with_deadline(deadline);
        self.authentication = self.authentication.with_deadline(deadline);
        self.sessions.clear();
        self.inbox = None;
    }

    /// After how long without a word of the server a listener tells of it ([`Event::ServerSilent`]); 5 minutes unless something else is
    /// said. A stream brings heartbeats, so less than a minute tells of silence where there is none.
    pub fn set_silence(&mut self, after: Duration) {
        self.patience_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    }

    /// The groups of this client, those that it was removed from included. Costs no MLS work. One whose row in the store is damaged, or
    /// of a later version, is left out: [`Client::sync`] tells of it ([`Event::GroupFailed`]).
    pub fn groups(&self) -> Result<Vec<GroupSummary>, ClientError> {
        Ok(group::list_readable(&StoreRows(&*self.store))?.groups)
    }

    /// A group, loaded when it is first asked for.
    ///
    /// # Errors
    /// [`ClientError::NoSuchGroup`]; [`WishError::Removed`] if we are no member any more and its keys are gone; a store that fails is never taken for an absent group.
    pub fn group(&mut self, name: &GroupUri) -> Result<&mut Group, ClientError> {
        if !self.groups.contains_key(name) {
            let Some(group) = Group::load(&self.account, &self.mls, &StoreRows(&*self.store), name)? else {
                let known = self.groups()?.iter().any(|group| group.name == *name);
                return Err(if known { WishError::Removed.into() } else { ClientError::NoSuchGroup(name.clone()) });
            };
            self.groups.insert(name.clone(), group);
        }
        self.groups.get_mut(name).ok_or_else(|| ClientError::NoSuchGroup(name.clone()))
    }

    /// Makes durable what a group has changed. If that fails, the group is loaded anew before its next use.
    fn save(&mut self, name: &GroupUri) -> Result<(), ClientError> {
        let now = self.delivery.now();
        let Some(group) = self.groups.get_mut(name) else { return Ok(()) };
        group.note_time(now);
        let saved = match group.take_writes() {
            Ok(writes) => self.store.apply(&writes).map_err(ClientError::from),
            Err(error) => Err(error.into()),
        };
        if saved.is_err() {
            self.groups.remove(name);
        }
        saved
    }

    fn signer(account: &Account) -> Signer<'_> {
        Signer::certified(&account.signature_key, account.certificate.clone())
    }

    /// Ends the work with this client. Everything is durable already; this wipes keys that were used in the last seconds from the
    /// store, and closes it. So does dropping the client.
    pub fn close(self) {
        drop(self);
    }

    /// Brings the MLS states in the store up to date, which without this happens some seconds after a message.
    fn write_states(&mut self) {
        for group in self.groups.values_mut() {
            group.write_state_next();
            let written = group.take_writes().map_err(ClientError::from);
            if let Err(error) = written.and_then(|writes| Ok(self.store.apply(&writes)?)) {
                // When the group is opened again, its ratchets are moved on as noted.
                tracing::warn!(%error, group = %group.name(), "keys that were used stay in the store for now");
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.write_states();
        }
    }
}
