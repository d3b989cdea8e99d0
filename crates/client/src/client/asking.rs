//! How a client that has lost its groups goes on asking, until it is back or its user gives up.
//!
//! A note lies in an inbox until its owner comes online, which may be never. So the asking is durable: [`Client::sync`] and listeners
//! ask once more after an hour, and each time after twice as long, up to a day; members who were not asked yet come
//! first. After [`LASTS_MS`] nobody is bothered any more.

use std::collections::{BTreeMap, BTreeSet};

use conclave_engine::{
    account::RecordError,
    group::{Group, LoadError, Status, knock_pause, plausible_knock},
    writes::{Room, Write},
};
use conclave_names::{ClientUri, Timestamp, UserUri, limits};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Client, ClientError,
    lost::{Asked, LostGroup, Unasked},
    register::random,
};
use crate::store::{ProfileStore, StoreError};

/// Key of the row in [`Room::ACCOUNT`] with the asking, in JSON.
const ASKING: &[u8] = b"asking";

/// How long the asking goes on by itself, in milliseconds: as long as an inbox keeps a note. After that, only the user begins anew.
pub const LASTS_MS: u64 = limits::INVITATION_MS;

/// Users that are asked in one round, at most, those that the user named apart.
const ASKED: usize = 32;

/// How the asking to be let into lost groups stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// When it began, or was begun anew, in milliseconds.
    pub since: Timestamp,
    /// How often was asked since then.
    pub rounds: u32,
    /// When it is asked again, in milliseconds; none if not any more by itself.
    pub next: Option<Timestamp>,
    /// Users who are to be asked besides those of the lost groups, because they were named.
    pub named: BTreeSet<UserUri>,
    /// When each user was asked last, in milliseconds.
    pub users: BTreeMap<UserUri, Timestamp>,
    /// In whose inboxes a note was left, and when last, in milliseconds.
    pub devices: BTreeMap<ClientUri, Timestamp>,
    /// Who could not be asked the last time.
    pub unable: Vec<Unasked>,
    /// When the identity key on this device last vouched for it so that others can tell that it has lost their groups, in milliseconds; none
    /// if it is to do so with the next round.
    #[serde(default)]
    pub vouched: Option<Timestamp>,
}

/// How long the identity key's word does, in milliseconds, for a user that begins anew again and again.
const VOUCHED_MS: u64 = 3_600_000;

impl Asking {
    /// One that is due at once.
    pub(super) fn begun(now: Timestamp) -> Self {
        Self {
            since: now,
            rounds: 0,
            next: Some(now),
            named: BTreeSet::new(),
            users: BTreeMap::new(),
            devices: BTreeMap::new(),
            unable: Vec::new(),
            vouched: None,
        }
    }

    /// The same on a device whose keys have all just been made.
    pub(super) fn begun_anew(now: Timestamp) -> Self {
        Self { vouched: Some(now), ..Self::begun(now) }
    }

    /// None if nobody ever asked.
    pub(super) fn load(store: &dyn ProfileStore) -> Result<Option<Self>, LoadError<StoreError>> {
        let Some(row) = store.get(Room::ACCOUNT, ASKING).map_err(LoadError::Store)? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&row).map_err(|_| RecordError::Damaged)?))
    }

    pub(super) fn to_write(&self) -> Write {
        let value = Zeroizing::new(serde_json::to_vec(self).unwrap_or_default());
        Write::Put { room: Room::ACCOUNT, key: ASKING.to_vec(), value }
    }

    pub(super) fn end() -> Write {
        Write::Delete { room: Room::ACCOUNT, key: ASKING.to_vec() }
    }

    /// Who was asked the last time.
    #[must_use]
    pub fn last_round(&self) -> Asked {
        let last = self.users.values().max();
        let devices =
            self.devices.iter().filter(|(_, at)| Some(*at) >= last).map(|(client, _)| client.clone()).collect();
        Asked { devices, unable: self.unable.clone() }
    }

    /// Begins anew, and asks these as well from now on. Who was asked before is still known.
    fn again(&mut self, users: &[UserUri], now: Timestamp) {
        (self.since, self.rounds, self.next) = (now, 0, Some(now));
        self.vouched = self.vouched.filter(|at| at.is_within_ms(VOUCHED_MS, now));
        self.named.extend(users.iter().cloned());
    }

    /// Notes a round in which these were asked.
    fn round(&mut self, users: &[UserUri], asked: &Asked, now: Timestamp) {
        self.users.extend(users.iter().map(|user| (user.clone(), now)));
        self.devices.extend(asked.devices.iter().map(|client| (client.clone(), now)));
        self.unable.clone_from(&asked.unable);
        let next = now.plus_ms(knock_pause(self.rounds));
        self.rounds = self.rounds.saturating_add(1);
        self.next = Some(next).filter(|next| *next <= self.since.plus_ms(LASTS_MS));
    }

    /// Some users of each group, those first who were not asked for longest, `start` deciding between equals; each once.
    fn turn(&self, lost: Vec<LostGroup>, first: Vec<UserUri>, start: u64) -> Vec<UserUri> {
        let most = ASKED.max(first.len());
        let mut all = first;
        for mut group in lost {
            let start = start % (group.users.len().max(1) as u64);
            group.users.rotate_left(usize::try_from(start).unwrap_or_default());
            group.users.sort_by_key(|user| self.users.get(user).copied());
            for user in group.users.into_iter().take(Group::knocks_at_a_time()) {
                if !all.contains(&user) {
                    all.push(user);
                }
            }
        }
        all.truncate(most);
        all
    }
}

impl Client {
    /// How the asking to be let into lost groups stands; none if nobody asks, because all that can come back is back or was given up.
    #[must_use]
    pub fn asking(&self) -> Option<&Asking> {
        self.asking.as_ref()
    }

    /// When it is asked again.
    pub(super) fn asking_due(&self) -> Option<Timestamp> {
        let next = self.asking.as_ref()?.next?;
        Some(plausible_knock(next, self.delivery.now()))
    }

    /// On a client that has lost groups (it was restored, or linked again under its old name, or its profile is an older copy that was put back): asks this user's other devices, these
    /// users, and three users of each lost group to let it into all groups that they share with it and that it does not follow. That it is
    /// no thief who has a copy of its keys it shows by a new signature key, as after those, or by a new word of the user's identity key, which
    /// is given here if this device holds that; another one, whose profile is an older copy that was put back, is to change its key before
    /// ([`Client::ask_to_rotate`]). Each device lets it in when it is next
    /// online, and the groups come with the next [`Client::sync`], or while listening; both also ask again, and others, until the groups
    /// are back ([`Client::asking`]) or [`Client::forget_lost_groups`] ends it. Who was removed for good is not let in.
    ///
    /// # Errors
    /// Transient ones: the next [`Client::sync`] asks. That somebody cannot be asked is told in the answer.
    pub async fn ask_for_groups(&mut self, users: &[UserUri]) -> Result<Asked, ClientError> {
        let now = self.delivery.now();
        let mut asking = self.asking.take().unwrap_or_else(|| Asking::begun(now));
        asking.again(users, now);
        // Durable before anything can fail.
        let saved = self.store.apply(&[asking.to_write()]);
        self.asking = Some(asking);
        saved?;
        self.ask_in_turn().await
    }

    /// Asks again if it is time for that, and ends the asking once there is nothing to ask for.
    ///
    /// # Errors
    /// [`ClientError::Store`], and transient ones if the server is not reached.
    pub(super) async fn ask_again(&mut self) -> Result<(), ClientError> {
        if self.asking.is_none() {
            return Ok(());
        }
        if self.is_back()? {
            return self.ask_no_more();
        }
        if self.asking_due().is_some_and(|due| due <= self.delivery.now()) {
            let asked = self.ask_in_turn().await?;
            tracing::info!(devices = asked.devices.len(), "asked once more to be let into lost groups");
        }
        Ok(())
    }

    fn ask_no_more(&mut self) -> Result<(), ClientError> {
        self.store.apply(&[Asking::end()])?;
        self.asking = None;
        Ok(())
    }

    /// Lost groups that somebody else could let us into.
    fn groups_to_ask_for(&self) -> Result<Vec<LostGroup>, ClientError> {
        Ok(self.lost_groups()?.into_iter().filter(|group| !group.users.is_empty()).collect())
    }

    /// Whether everything came back of which is known that it can. Of groups that nothing is known of: whether there is one with each
    /// user that was named, or else with another device of our user.
    fn is_back(&mut self) -> Result<bool, ClientError> {
        if !self.groups_to_ask_for()?.is_empty() {
            return Ok(false);
        }
        let mut named = self.asking.as_ref().map(|asking| asking.named.clone()).unwrap_or_default();
        let mut own_device = !named.is_empty() || self.knows_what_it_lost()?;
        if named.is_empty() && own_device {
            return Ok(true);
        }
        let own = self.account.client.clone();
        for summary in self.groups()?.into_iter().filter(|group| group.status == Status::Active) {
            for member in self.group(&summary.name)?.members()? {
                named.remove(&member.user);
                own_device |= member.user == *own.user() && member.client != own;
            }
        }
        Ok(named.is_empty() && own_device)
    }

    /// One round.
    async fn ask_in_turn(&mut self) -> Result<Asked, ClientError> {
        let own = self.user().clone();
        let Some(mut asking) = self.asking.clone() else { return Ok(Asked::default()) };
        if asking.vouched.is_none() && self.holds_identity() {
            match self.vouch_anew().await {
                Ok(()) => asking.vouched = Some(self.delivery.now()),
                Err(error @ ClientError::Store(_)) => return Err(error),
                // Where this device has other keys than it had, it is let in all the same.
                Err(error) => tracing::warn!(%error, "the identity key could not vouch for this device"),
            }
        }
        let first = std::iter::once(own.clone()).chain(asking.named.iter().filter(|user| **user != own).cloned());
        let users = asking.turn(self.groups_to_ask_for()?, first.collect(), u64::from_be_bytes(random()?));
        let (asked, reached) = self.ask_users(&users).await?;
        if asked == Asked::default() {
            // There is nobody.
            self.ask_no_more()?;
            return Ok(asked);
        }
        asking.round(users.get(..reached).unwrap_or_default(), &asked, self.delivery.now());
        self.store.apply(&[asking.to_write()])?;
        self.asking = Some(asking);
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_750_000_000_000);
    const HOUR: u64 = 3_600_000;

    fn user(n: usize) -> UserUri {
        format!("mimi://example.com/u/user{n}").parse().unwrap()
    }

    fn group(name: &str, users: impl IntoIterator<Item = usize>) -> LostGroup {
        LostGroup {
            group: format!("mimi://example.com/g/{name}").parse().unwrap(),
            room: format!("mimi://example.com/r/{name}").parse().unwrap(),
            title: name.to_owned(),
            users: users.into_iter().map(user).collect(),
        }
    }

    #[test]
    fn the_pauses_grow_to_a_day_and_it_ends_after_a_month() {
        let mut asking = Asking::begun(NOW);
        let mut waits = Vec::new();
        while let Some(due) = asking.next {
            asking.round(&[], &Asked::default(), due);
            waits.extend(asking.next.map(|next| (next.0 - due.0) / HOUR));
        }
        assert_eq!(waits[..7], [1, 2, 4, 8, 16, 24, 24]);
        assert!(waits[6..].iter().all(|wait| *wait == 24));
        assert!(waits.iter().sum::<u64>() * HOUR <= LASTS_MS && waits.len() > 25, "{waits:?}");
        // Only the user begins anew.
        asking.again(&[user(1)], NOW.plus_ms(2 * LASTS_MS));
        assert_eq!((asking.next, asking.rounds), (Some(NOW.plus_ms(2 * LASTS_MS)), 0));
        assert!(asking.named.contains(&user(1)));
    }

    proptest! {
        #[test]
        fn nobody_of_a_group_is_asked_twice_before_everybody_was_asked_once(
            count in 1_usize..=16, starts in proptest::collection::vec(any::<u64>(), 6),
        ) {
            let mut asking = Asking::begun(NOW);
            let mut seen = BTreeSet::new();
            for (round, start) in (0_u64..).zip(starts) {
                let users = asking.turn(vec![group("club", 0..count)], vec![user(99)], start);
                prop_assert_eq!(&users[0], &user(99));
                prop_assert_eq!(users.len() - 1, count.min(3));
                let fresh = users[1..].iter().filter(|user| !seen.contains(*user)).count();
                prop_assert_eq!(fresh, (count - seen.len()).min(3), "those who were not asked yet come first");
                seen.extend(users[1..].iter().cloned());
                if seen.len() == count {
                    break;
                }
                asking.round(&users, &Asked::default(), NOW.plus_ms(round * HOUR));
            }
            prop_assert_eq!(seen.len(), count, "six rounds reach sixteen users");
        }

        #[test]
        fn a_round_is_bounded_and_asks_everybody_once(groups in 0_usize..40, named in 1_usize..50, start: u64) {
            let asking = Asking::begun(NOW);
            let lost = (0..groups).map(|n| group(&format!("g{n}"), n * 4..n * 4 + 6)).collect();
            let first: Vec<_> = (1000..1000 + named).map(user).collect();
            let users = asking.turn(lost, first.clone(), start);
            prop_assert_eq!(&users[..named], &first[..], "who was named is always asked");
            prop_assert!(users.len() <= ASKED.max(named));
            prop_assert_eq!(users.iter().collect::<BTreeSet<_>>().len(), users.len());
        }
    }

    #[test]
    fn it_is_the_same_after_a_restart() {
        let mut store = crate::store::MemoryStore::new();
        assert_eq!(Asking::load(&store).unwrap(), None);
        let mut asking = Asking::begun(NOW);
        let unable = vec![Unasked { who: "x".into(), reason: "y".into() }];
        let asked = Asked { devices: vec!["mimi://example.com/d/bob/laptop".parse().unwrap()], unable };
        asking.again(&[user(3)], NOW);
        asking.round(&[user(1), user(3)], &asked, NOW);
        store.apply(&[asking.to_write()]).unwrap();
        assert_eq!(asking.last_round(), asked);
        assert_eq!(Asking::load(&store).unwrap().as_ref(), Some(&asking));
        asking.round(&[user(2)], &Asked::default(), NOW.plus_ms(HOUR));
        assert_eq!(asking.last_round(), Asked::default());
        store.apply(&[Asking::end()]).unwrap();
        assert_eq!(Asking::load(&store).unwrap(), None);
    }
}
