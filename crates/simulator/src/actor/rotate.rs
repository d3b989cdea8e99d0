//! A client changes its signature key, as the client's shell does: each step is stored before the next one leaves.

use std::collections::BTreeSet;

use conclave_engine::{account::Account, group::Group, rotation};
use conclave_mls::credential::IdentityBinding;
use conclave_protocol::SigningKey;

use super::{Actor, DAY, Surroundings, random};
use crate::network::Stop;

impl Actor {
    /// Begins to change the key, and goes on as far as the weather lets it.
    pub(crate) fn rotate(&mut self, around: &mut Surroundings) -> Result<(), Stop> {
        let Some(identity) = self.account.identity_secret.clone() else { return Ok(()) };
        if self.account.rotation.next.is_none() {
            let key = SigningKey::from_bytes(&random()?);
            let end = self.now(&around.server).plus_ms(365 * DAY);
            let binding = IdentityBinding::sign(&identity, &self.client, &key.verifying_key().to_bytes(), end);
            let mut account = self.account.clone();
            account.begin_rotation(key, binding);
            self.take_account(around, account)?;
        }
        self.finish_rotation(around)
    }

    /// Goes on with what was begun.
    pub(super) fn finish_rotation(&mut self, around: &mut Surroundings) -> Result<(), Stop> {
        let Some(mut account) = self.account.as_next() else { return Ok(()) };
        account.certificate = around.call(|server| server.certify(&account))?;
        self.take_account(around, account)?;
        around.ledger.rotated.insert(self.index);
        around.ledger.tell(format!("    {} has a new signature key", self.name()));
        // What is at the directory is of the old one, and good for an invitation all the same.
        self.refill(around)
    }

    /// Forgets keys that nothing needs any more.
    pub(super) fn forget_old_keys(&mut self, around: &mut Surroundings) -> Result<(), Stop> {
        let former: Vec<_> = self.account.rotation.former.iter().map(|key| key.verifying_key().to_bytes()).collect();
        let groups = || self.groups.iter().flatten();
        let used: BTreeSet<_> =
            former.into_iter().filter(|key| groups().any(|group: &Group| group.may_sign_with(key))).collect();
        let mut account = self.account.clone();
        let forgotten = rotation::forget_old_keys(&mut account, &self.disk, |key| used.contains(key));
        if forgotten.map_err(Stop::violation)?.is_some() {
            self.take_account(around, account)?;
        }
        Ok(())
    }

    fn take_account(&mut self, around: &mut Surroundings, account: Account) -> Result<(), Stop> {
        around.weather.moment()?;
        self.disk.apply([account.to_write()]);
        for group in self.groups.iter_mut().flatten() {
            group.set_account(account.clone());
        }
        self.account = account;
        around.weather.moment()
    }
}
