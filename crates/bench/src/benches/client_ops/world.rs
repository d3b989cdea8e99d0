//! Accounts with real certificates.

use std::error::Error;

use conclave_authentication::CertificateAuthority;
use conclave_engine::{
    Mls,
    account::{Account, Inbox},
    key_packages::{self, AddressKey},
};
use conclave_mls::{credential::IdentityBinding, crypto};
use conclave_names::{ChannelId, Domain, Seq, Timestamp, UserUri};
use conclave_protocol::SigningKey;
use mls_rs_core::crypto::CipherSuiteProvider as _;
use zeroize::Zeroizing;

/// The time of everything that is measured.
pub(crate) const NOW: Timestamp = Timestamp(1_790_000_000_000);

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) domain: Domain,
    authority: CertificateAuthority,
    pub(crate) address_key: AddressKey,
    pub(crate) members: usize,
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Box<dyn Error>> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

impl World {
    pub(crate) fn new(members: usize) -> Result<Self, Box<dyn Error>> {
        let domain: Domain = "example.com".parse()?;
        let suite = crypto::suite(crypto::DEFAULT_SUITE)?;
        let (_, public) = suite.kem_generate().map_err(|error| error.to_string())?;
        Self::of(domain, AddressKey { id: [1; 8], public: public.as_ref().to_vec() }, members, NOW)
    }

    /// With the address key of a real server, at its time.
    pub(crate) fn of(
        domain: Domain,
        address_key: AddressKey,
        members: usize,
        now: Timestamp,
    ) -> Result<Self, Box<dyn Error>> {
        Ok(Self { now, authority: CertificateAuthority::generate(&domain, now)?, domain, address_key, members })
    }

    pub(crate) fn account(&self, name: &str) -> Result<Account, Box<dyn Error>> {
        let client = UserUri::new(self.domain.clone(), name)?.client("laptop")?;
        let identity = SigningKey::from_bytes(&random()?);
        let signature_key = SigningKey::from_bytes(&random()?);
        let public = signature_key.verifying_key().to_bytes();
        let end = self.now.plus_ms(30 * 86_400_000);
        let binding = IdentityBinding::sign(&identity, &client, &public, end);
        let certificate = self.authority.issue(&client, &public, &binding, self.now, end, random()?)?;
        Ok(Account {
            rotation: conclave_engine::rotation::Rotation::default(),
            client,
            signature_key,
            identity_secret: None,
            binding,
            certificate,
            issuers: vec![self.authority.certificate().to_vec()],
            inbox: Inbox {
                id: ChannelId::new(random()?),
                key: SigningKey::from_bytes(&random()?),
                drop_key: Zeroizing::new(random()?),
                done: Seq(0),
                trimmed: Seq(0),
            },
        })
    }

    /// KeyPackages of the members that only have a leaf: all but two.
    pub(crate) fn leaves(&self) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
        let mut leaves = Vec::new();
        for index in 2..self.members {
            let account = self.account(&format!("m{index}"))?;
            let (mls, suite) = (Self::mls(&account), crypto::DEFAULT_SUITE);
            let fresh = key_packages::generate(&account, &mls, suite, &self.address_key, 1, false, self.now)?;
            leaves.extend(fresh.key_packages);
        }
        Ok(leaves)
    }

    pub(crate) fn mls(account: &Account) -> Mls {
        Mls::new(account)
    }
}
