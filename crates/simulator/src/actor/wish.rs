//! What people want.

use conclave_engine::{
    group::{Group, Handshakes, NewGroup},
    intent::Wish,
    key_packages,
};
use conclave_mls::crypto;
use conclave_names::UserUri;

use super::{Actor, Surroundings};
use crate::{
    ledger::{Said, Slot},
    network::Stop,
    server::{Server, broken},
};

/// KeyPackages kept at the directory: few, so that the last resort is needed at times.
const POOL: u64 = 4;

impl Actor {
    /// Makes the group of a slot, unless there is one.
    pub(crate) fn create(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        if around.ledger.slot(slot).is_some() {
            return Ok(());
        }
        let hub = around.server.domain.clone();
        // Groups of both kinds live side by side.
        let handshakes = match slot % 2 {
            0 => Handshakes::Private,
            _ => Handshakes::Visible { external_senders: Vec::new() },
        };
        let receipt_key = around.call(Server::receipt_key)?;
        let new = NewGroup {
            hub,
            receipt_key,
            title: format!("group {slot}"),
            cipher_suite: crypto::DEFAULT_SUITE,
            handshakes,
        };
        let now = self.now(&around.server);
        let group = Group::create(&self.account, &self.mls, new, now).map_err(Stop::violation)?;
        let access = group.access().map_err(Stop::violation)?;
        let (root, skew) = (group.key_root().map_err(Stop::violation)?, self.skew);
        let info = group.first_group_info().map_err(Stop::violation)?.unwrap_or_default();
        around.call(|server| server.create_channel(skew, &access, &root, info.clone()))?;
        around.weather.moment()?;
        let made = Slot { group: group.name().clone(), channel: access.channel, founder: self.client.clone() };
        self.put_group(slot, group);
        // The world knows of it from the moment that it is durable.
        if let Some(place) = around.ledger.slots.get_mut(slot) {
            *place = Some(made);
        }
        let saved = self.save(around, slot);
        if saved.is_err()
            && self.disk_has_no_group(around, slot)?
            && let Some(place) = around.ledger.slots.get_mut(slot)
        {
            *place = None;
        }
        saved
    }

    fn disk_has_no_group(&self, around: &Surroundings, slot: usize) -> Result<bool, Stop> {
        let Some(known) = around.ledger.slot(slot) else { return Ok(true) };
        let group = Group::load(&self.account, &self.mls, &self.disk, &known.group).map_err(Stop::violation)?;
        Ok(group.is_none())
    }

    /// Leaves KeyPackages at the directory.
    pub(super) fn refill(&mut self, around: &mut Surroundings) -> Result<(), Stop> {
        let (skew, account) = (self.skew, self.account.clone());
        let stock = around.call(|server| server.stock(skew, &account))?;
        let count = if stock.available > POOL / 2 { 0 } else { POOL.saturating_sub(stock.available) };
        if count == 0 && !stock.needs_last_resort {
            return Ok(());
        }
        let key = around.call(Server::address_key)?;
        let (suite, last, now) = (crypto::DEFAULT_SUITE, stock.needs_last_resort, self.now(&around.server));
        let mut fresh =
            key_packages::generate(&account, &self.mls, suite, &key, count, last, now).map_err(Stop::violation)?;
        around.weather.moment()?;
        self.disk.apply(std::mem::take(&mut fresh.writes));
        around.call(|server| server.upload(skew, &account, fresh))
    }

    /// Takes a wish, if this client is a member for all that it knows.
    pub(crate) fn wish(&mut self, around: &mut Surroundings, slot: usize, wish: Wish) -> Result<(), Stop> {
        let Some(group) = self.active(slot) else { return Ok(()) };
        group.wish(wish).map_err(Stop::violation)?;
        self.save(around, slot)
    }

    pub(crate) fn add(&mut self, around: &mut Surroundings, slot: usize, user: &UserUri) -> Result<(), Stop> {
        if !self.is_active(slot) {
            return Ok(());
        }
        let (skew, account, target) = (self.skew, self.account.clone(), user.to_string());
        let key_packages = around.call(|server| server.claim(skew, &account, &target))?;
        if key_packages.is_empty() {
            return Err(Stop::Refused(broken(format!("{user} has no last resort at the directory"))));
        }
        self.wish(around, slot, Wish::Add { key_packages })
    }

    pub(crate) fn say(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let text = format!("{} by {}", around.ledger.said.len(), self.name());
        let actor = self.index;
        let Some(group) = self.active(slot) else { return Ok(()) };
        let (intent, _) = group.wish_text(&text).map_err(Stop::violation)?;
        around.weather.moment()?;
        // Whether it is durable shows below: who dies before has said nothing.
        let said = Said { text, actor, slot, intent, acknowledged: None, excused: false };
        around.ledger.said.push(said);
        let saved = self.save(around, slot);
        if saved.is_err() {
            around.ledger.excuse(|said| said.intent == intent);
        }
        saved
    }
}
