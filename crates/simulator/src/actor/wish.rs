//! What people want.

use std::collections::BTreeSet;

use conclave_channel::law::DisputePause;
use conclave_engine::{
    group::{Group, Handshakes, NewGroup},
    intent::Wish,
    key_packages,
};
use conclave_mls::{crypto, identity};
use conclave_names::{ClientUri, Epoch, IdempotencyKey, UserUri};
use mls_rs::MlsMessage;

use super::{Actor, Surroundings};
use crate::{
    ledger::{Said, Slot},
    network::Stop,
    server::{Server, broken},
};

/// KeyPackages kept at the directory: few, so that the last resort is needed at times.
const POOL: u64 = 4;

/// Whom a wish adds.
fn added_by(wish: &Wish) -> Vec<ClientUri> {
    let Wish::Add { key_packages } = wish else { return Vec::new() };
    let client = |bytes: &Vec<u8>| {
        let message = MlsMessage::from_bytes(bytes).ok()?;
        Some(identity::read(message.as_key_package()?.signing_identity()).ok()?.client().clone())
    };
    key_packages.iter().filter_map(client).collect()
}

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
        // And such that wait for longer or shorter with what is disputed.
        let dispute_pause = match slot % 3 {
            0 => DisputePause::DEFAULT,
            1 => DisputePause::MIN,
            _ => DisputePause::new(3_600_000).unwrap_or_default(),
        };
        let receipt_key = around.call(Server::receipt_key)?;
        let new = NewGroup {
            hub,
            receipt_key,
            title: format!("group {slot}"),
            cipher_suite: crypto::DEFAULT_SUITE,
            handshakes,
            dispute_pause,
        };
        let now = self.now(&around.server);
        // What can wait is done at times that depend on the group's name.
        around.ledger.made += 1;
        let id = around.ledger.made.to_be_bytes();
        let group = Group::create_as(&self.account, &self.mls, new, id, now).map_err(Stop::violation)?;
        let access = group.access().map_err(Stop::violation)?;
        let (root, skew) = (group.key_root().map_err(Stop::violation)?, self.skew);
        let info = group.first_group_info().map_err(Stop::violation)?.unwrap_or_default();
        around.call(|server| server.create_channel(skew, &access, &root, info.clone(), dispute_pause))?;
        around.weather.moment()?;
        let (name, founder) = (group.name().clone(), self.client.clone());
        let made = Slot {
            group: name,
            channel: access.channel,
            founders: [founder].into(),
            key_root: root,
            epoch: Epoch(0),
            pause: dispute_pause,
            successor: None,
            chosen: None,
            orphan: false,
        };
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

    /// Whether an intent is durable.
    fn disk_has(&self, around: &Surroundings, slot: usize, intent: IdempotencyKey) -> Result<bool, Stop> {
        let Some(known) = around.ledger.slot(slot) else { return Ok(false) };
        Ok(self.load(&self.disk, &known.group)?.is_some_and(|group| group.is_pending(intent)))
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
        let Some(group) = self.wisher(slot) else { return Ok(()) };
        group.wish(wish).map_err(Stop::violation)?;
        self.save(around, slot)
    }

    pub(crate) fn add(&mut self, around: &mut Surroundings, slot: usize, user: &UserUri) -> Result<(), Stop> {
        if self.wisher(slot).is_none() {
            return Ok(());
        }
        let (skew, account, target) = (self.skew, self.account.clone(), user.to_string());
        let claimed = around.call(|server| server.claim(skew, &account, &target))?;
        if claimed.is_empty() {
            return Err(Stop::Refused(broken(format!("{user} has no last resort at the directory"))));
        }
        let Some(group) = self.group(slot) else { return Ok(()) };
        let members = group.members().map_err(Stop::violation)?;
        let is_member = |client: &str| members.iter().any(|member| member.client.to_string() == client);
        let absent = claimed.into_iter().filter(|claimed| !is_member(&claimed.client));
        let key_packages: Vec<_> = absent.map(|claimed| claimed.key_package).collect();
        if key_packages.is_empty() {
            return Ok(());
        }
        self.wish(around, slot, Wish::Add { key_packages })
    }

    pub(crate) fn say(&mut self, around: &mut Surroundings, slot: usize) -> Result<(), Stop> {
        let text = format!("{} by {}", around.ledger.said.len(), self.name());
        let actor = self.index;
        let Some(group) = self.wisher(slot) else { return Ok(()) };
        let mut readers: BTreeSet<_> =
            group.members().map_err(Stop::violation)?.into_iter().map(|member| member.client).collect();
        readers.extend(group.intents().flat_map(|intent| added_by(&intent.wish)));
        let (intent, id) = group.wish_text(&text).map_err(Stop::violation)?;
        around.weather.moment()?;
        // Whether it is durable shows below: who dies before has said nothing.
        let knew = around.ledger.known_to(actor, slot);
        let (acknowledged, excused, again, repeated) = (None, false, false, false);
        let said = Said { text, actor, slot, readers, intent, acknowledged, excused, again, id, knew, repeated };
        around.ledger.said.push(said);
        let saved = self.save(around, slot);
        if saved.is_err() && !self.disk_has(around, slot, intent)? {
            around.ledger.excuse(|said| said.intent == intent);
        }
        saved
    }
}
