//! What somebody proposes and no commit can carry out stops nobody (RFC 9420, section 12.2; RFC 9750, section 5.2): it is refused by
//! whoever can tell, and left out of commits where only the server can.

use conclave_engine::{group::Status, intent::Wish, key_packages, outcome::Event};
use conclave_mls::{address::DeliveryAddress, crypto, external_sender::Request};
use conclave_protocol::Code;
use mls_rs::{ExtensionList, MlsMessage};

use crate::{
    external::{ask, target},
    person::{Person, account, agree, group_of},
    raw::Raw,
    stage::Stage,
    state::nack,
    world::{not_ordered, on_both, refused},
};

impl Stage {
    fn propose(&mut self, key_package: &[u8]) {
        let aad = self.mallory.proposal_aad();
        let message = MlsMessage::from_bytes(key_package).unwrap();
        let proposal = self.mallory.group().propose_add(message, aad).unwrap();
        let proposal = self.mallory.sealed_proposal(&proposal);
        self.world.submit(&self.session, &proposal).unwrap();
    }

    /// What Alice says is said, and she removes Mallory; all agree, and are so many then.
    fn goes_on_without_mallory(&mut self, members: usize) {
        let Self { world, alice, bob, mallory, .. } = self;
        let users = vec![mallory.account.client.user().clone()];
        alice.sync(world);
        alice.group().wish_text("we go on").unwrap();
        alice.wish(Wish::Remove { users });
        alice.drive(world);
        bob.drive(world);
        alice.sync(world);
        let views = [&mut *alice, bob].map(|person| {
            let group = person.group();
            assert_eq!((group.status(), group.members().unwrap().len()), (&Status::Active, members));
            (group.epoch(), group.epoch_authenticator().unwrap())
        });
        assert_eq!(views[0], views[1]);
        assert!(bob.texts().contains(&"we go on"));
        let failed = |event: &&Event| matches!(event, Event::IntentFailed { .. } | Event::Stuck { .. });
        assert_eq!(alice.events.iter().chain(&bob.events).find(failed), None);
    }
}

fn refusals(person: &Person) -> usize {
    person.events.iter().filter(|event| matches!(event, Event::Refused { .. })).count()
}

fn left_out(person: &Person) -> Vec<&str> {
    let reasons = person.events.iter().filter_map(|event| match event {
        Event::ProposalsLeftOut { reason, .. } => Some(reason.as_str()),
        _ => None,
    });
    reasons.collect()
}

fn leaf_of(raw: &Raw) -> ExtensionList {
    raw.leaf_extensions()
}

#[test]
fn of_two_whose_leaves_have_one_channel_key_one_is_added() {
    let mut stage = Stage::private();
    let [dave, eve] = ["dave", "eve"].map(|name| Raw::new(&mut stage.world, name, true));
    for joiner in [&dave, &eve] {
        let key_package = joiner.key_package_with(&mut stage.world, leaf_of(&dave), true);
        stage.propose(&key_package);
    }
    // Bob has less to do than to commit them, and does.
    stage.bob.drive(&mut stage.world);
    assert_eq!(stage.bob.group().members().unwrap().len(), 4);
    stage.goes_on_without_mallory(3);
    assert_eq!((refusals(&stage.alice), refusals(&stage.bob)), (0, 0));
}

#[test]
fn whose_channel_key_is_a_members_is_refused_by_everybody() {
    let mut stage = Stage::private();
    let dave = Raw::new(&mut stage.world, "dave", true);
    let mallorys = leaf_of(&stage.mallory);
    let key_package = dave.key_package_with(&mut stage.world, mallorys, true);
    stage.propose(&key_package);
    // Nor one that names no provider.
    let mut address = dave.address(&mut stage.world);
    address = with_domain(&address, b"no domain at all");
    let key_package = dave.key_package_at(&stage.world, leaf_of(&dave), Some(address));
    stage.propose(&key_package);
    let before = stage.alice.group().epoch();
    for person in [&mut stage.alice, &mut stage.bob] {
        person.drive(&mut stage.world);
        assert_eq!((refusals(person), person.group().epoch()), (2, before), "there is nothing to commit");
        assert_eq!(person.group().commit_due(), None);
    }
    stage.goes_on_without_mallory(2);
}

fn with_domain(address: &DeliveryAddress, domain: &[u8]) -> DeliveryAddress {
    use mls_rs::mls_rs_codec::{MlsDecode, byte_vec};
    let mut bytes = Vec::new();
    byte_vec::mls_encode(&domain.to_vec(), &mut bytes).unwrap();
    byte_vec::mls_encode(&address.sealed, &mut bytes).unwrap();
    DeliveryAddress::mls_decode(&mut bytes.as_slice()).unwrap()
}

/// Only the server knows what is wrong with these.
#[test]
fn who_cannot_be_reached_is_left_out_and_the_others_are_added() {
    let mut stage = Stage::private();
    let [dave, eve, frank] = ["dave", "eve", "frank"].map(|name| Raw::new(&mut stage.world, name, true));
    let mut good = Raw::new(&mut stage.world, "good", true);
    let once = dave.address(&mut stage.world);
    let elsewhere = with_domain(&eve.address(&mut stage.world), b"elsewhere.example");
    let mut garbage = frank.address(&mut stage.world);
    garbage.sealed = vec![7; 40];
    for (joiner, address) in [(&eve, elsewhere), (&frank, garbage)] {
        let key_package = joiner.key_package_at(&stage.world, leaf_of(joiner), Some(address));
        stage.propose(&key_package);
    }
    let key_package = good.key_package(&mut stage.world);
    stage.propose(&key_package);
    stage.alice.drive(&mut stage.world);
    good.join(&mut stage.world);
    let told = left_out(&stage.alice);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|reason| reason.contains("ADDRESS_INVALID")), "{told:?}");
    stage.bob.sync(&mut stage.world);
    assert_eq!(stage.bob.group().members().unwrap().len(), 4);

    // By an address that was used up before.
    for joiner in [&dave, &frank] {
        let key_package = joiner.key_package_at(&stage.world, leaf_of(joiner), Some(once.clone()));
        stage.alice.wish(Wish::Add { key_packages: vec![key_package] });
        stage.alice.drive(&mut stage.world);
    }
    let failed = stage.alice.events.iter().find_map(|event| match event {
        Event::IntentFailed { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert!(failed.is_some_and(|reason| reason.contains("frank/laptop")), "who it is about is said");
}

/// Of two external senders that were given the same last resort.
#[test]
fn the_server_of_a_visible_group_refuses_what_no_commit_could_carry_out() {
    on_both(|mut world| {
        let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(|name| Person::new(&mut world, name));
        let [one, other] = ["bot", "other"].map(|name| account(&mut world, name));
        let senders = vec![one.clone(), other.clone()];
        let channel = group_of(&mut world, &mut [&mut alice, &mut bob], senders);
        let (suite, key, now) = (crypto::DEFAULT_SUITE, world.address_key(), world.now);
        let fresh = key_packages::generate(&carol.account, &carol.mls, suite, &key, 0, true, now).unwrap();
        carol.keep(fresh.writes);
        let last_resort = fresh.last_resort.unwrap();
        let to = target(&mut alice, 0);
        ask(&mut world, channel, &one, &to, &Request::Add(last_resort.clone())).unwrap();
        let to = target(&mut alice, 1);
        not_ordered(ask(&mut world, channel, &other, &to, &Request::Add(last_resort)), "policy");
        // With a member's key, and with addresses that reach nobody.
        let dave = Raw::new(&mut world, "dave", false);
        let mut copied = dave.leaf_extensions();
        let leaf = alice.group().access().unwrap().key.verifying_key().to_bytes();
        copied
            .set_from(conclave_mls::components::ChannelKeyExtension(conclave_channel::access::ChannelKey(leaf)))
            .unwrap();
        let key_package = dave.key_package_with(&mut world, copied, true);
        not_ordered(ask(&mut world, channel, &other, &to, &Request::Add(key_package)), "policy");
        let good = dave.address(&mut world);
        let mut garbage = good.clone();
        garbage.sealed = vec![7; 40];
        for bad in [with_domain(&good, b"elsewhere.example"), garbage] {
            let key_package = dave.key_package_at(&world, dave.leaf_extensions(), Some(bad));
            refused(ask(&mut world, channel, &other, &to, &Request::Add(key_package)), Code::AddressInvalid);
        }
        alice.drive(&mut world);
        carol.join(&mut world);
        agree(&mut world, &mut [&mut alice, &mut bob, &mut carol]);
        assert_eq!(left_out(&alice).len(), 0);
    });
}

/// The group is back in the epoch in which the proposal waits, but the address is used up.
#[test]
fn an_external_add_whose_commit_was_annulled_stops_nobody() {
    on_both(|mut world| {
        let [mut alice, mut bob, mut carol] = ["alice", "bob", "carol"].map(|name| Person::new(&mut world, name));
        let bot = account(&mut world, "bot");
        let channel = group_of(&mut world, &mut [&mut alice, &mut bob], vec![bot.clone()]);
        let key_package = carol.key_package(&mut world);
        let to = target(&mut alice, 0);
        ask(&mut world, channel, &bot, &to, &Request::Add(key_package)).unwrap();
        alice.sync(&mut world);
        let submission = alice.next(&world).unwrap();
        let conclave_engine::group::SubmissionBody::Bundle(bundle) = &submission.body else { panic!("a commit") };
        let session = alice.session(&mut world);
        let place = world.submit_bundle(&session, bundle).unwrap();
        nack(&mut bob, &mut world, &place, &bundle.entry);
        // The server annuls it after 15 minutes, of which the log shows nothing; members know after five more.
        world.now = world.now.plus_ms(21 * 60 * 1000);
        for person in [&mut alice, &mut bob] {
            person.forget_session();
            person.sync(&mut world);
        }
        bob.say(&mut world, "is Carol here?");
        alice.forget_session();
        agree(&mut world, &mut [&mut alice, &mut bob]);
        alice.drive(&mut world);
        agree(&mut world, &mut [&mut alice, &mut bob]);
        assert!(alice.texts().contains(&"is Carol here?"), "{:?}", alice.events);
        assert_eq!(alice.group().members().unwrap().len(), 2);
        assert_eq!(left_out(&bob).len(), 1, "{:?}", bob.events);
    });
}
