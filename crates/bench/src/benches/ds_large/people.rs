//! The members: most have only a leaf, with a real certificate and a KeyPackage that both sides add.

use conclave_client::transport::{Endpoint, Signer, Transport};
use conclave_engine::{
    account::{Account, Inbox},
    key_packages::{self, AddressKey},
};
use conclave_mls::crypto;
use conclave_names::{ChannelId, Seq, Timestamp};
use conclave_protocol::{SigningKey, v1::CreateInboxRequest};
use zeroize::Zeroizing;

use crate::{
    benches::client_ops::world::World,
    ds::{Failure, Process, random},
};

/// Inboxes that the members with only a leaf share.
const INBOXES: usize = 16;

/// Members, and what they know of the server.
pub(super) struct People {
    pub(super) world: World,
    /// Of everybody but Alice and Bob.
    pub(super) key_packages: Vec<Vec<u8>>,
}

/// How the benchmark reaches the server.
pub(super) fn transport(server: &Process) -> Result<Transport, Failure> {
    let scheme = if server.ca_pem().is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::new(format!("{scheme}://{}", server.addr()), crate::ds::domain()?);
    endpoint.ca_pem = server.ca_pem().map(|pem| pem.as_bytes().to_vec());
    endpoint.plaintext = server.ca_pem().is_none();
    Ok(Transport::connect(&endpoint)?)
}

/// Makes an inbox at the server.
pub(super) async fn create_inbox(transport: &Transport, inbox: &Inbox) -> Result<(), Failure> {
    let request = CreateInboxRequest { inbox: inbox.id.to_vec(), drop_key: inbox.drop_key.to_vec() };
    transport.create_inbox(&Signer::bare(&inbox.key), &request).await?;
    Ok(())
}

fn told(error: &dyn std::fmt::Display) -> Failure {
    error.to_string().into()
}

impl People {
    /// Certifies all members and makes their KeyPackages, on all cores.
    pub(super) async fn new(server: &Process, members: usize) -> Result<Self, Failure> {
        let transport = transport(server)?;
        let info = transport.get_server_info().await?;
        let address_key = AddressKey { id: info.address_key_id.as_slice().try_into()?, public: info.address_key };
        let now = Timestamp(info.time_ms);
        let world = World::of(crate::ds::domain()?, address_key, members, now).map_err(|error| told(error.as_ref()))?;
        let mut inboxes = Vec::new();
        for _ in 0..INBOXES {
            let inbox = Inbox {
                id: ChannelId::new(random()?),
                key: SigningKey::from_bytes(&random()?),
                drop_key: Zeroizing::new(random()?),
                done: Seq(0),
                trimmed: Seq(0),
            };
            create_inbox(&transport, &inbox).await?;
            inboxes.push(inbox);
        }
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let key_packages = std::thread::scope(|scope| {
            let parts: Vec<_> = (0..threads)
                .map(|part| {
                    let (world, inboxes) = (&world, &inboxes);
                    scope.spawn(move || {
                        (2 + part..members).step_by(threads).map(|index| leaf(world, inboxes, index)).collect()
                    })
                })
                .collect();
            let parts = parts.into_iter().map(|part| part.join().map_err(|_| "a thread died")?);
            parts.collect::<Result<Vec<Vec<_>>, Failure>>()
        })?;
        Ok(Self { world, key_packages: key_packages.into_iter().flatten().collect() })
    }

    /// Somebody with a certificate.
    pub(super) fn account(&self, name: &str) -> Result<Account, Failure> {
        self.world.account(name).map_err(|error| told(error.as_ref()))
    }
}

/// The KeyPackage of a member that has only a leaf.
fn leaf(world: &World, inboxes: &[Inbox], index: usize) -> Result<Vec<u8>, Failure> {
    let mut account = world.account(&format!("m{index}")).map_err(|error| told(error.as_ref()))?;
    account.inbox = inboxes.get(index % INBOXES).ok_or("no inbox")?.clone();
    let mls = World::mls(&account);
    let suite = crypto::DEFAULT_SUITE;
    let fresh = key_packages::generate(&account, &mls, suite, &world.address_key, 1, false, world.now)?;
    fresh.key_packages.into_iter().next().ok_or_else(|| "no KeyPackage".into())
}
