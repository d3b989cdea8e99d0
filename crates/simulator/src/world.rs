//! One simulation from its first step to the checks.

use std::{
    collections::BTreeMap,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use conclave_delivery::store::{ChannelKind, EntryRow};
use conclave_engine::{
    group::{Group, Status},
    intent::Wish,
};
use conclave_names::{Epoch, Timestamp, limits};
use conclave_protocol::SigningKey;

use crate::{
    actor::{Actor, Surroundings, random},
    check,
    hostile::{Lie, Offence},
    keys::Keys,
    ledger::{Deed, Ledger, Misdeed},
    network::{Stop, Weather},
    plan::Plan,
    program::{Action, ClientSpec, Program, Step},
    sabotage::Sabotage,
    server::Server,
    sums::Sums,
    witness::Witnesses,
};

/// How long before the system's clock the virtual one begins.
///
/// mls-rs judges by the system's clock whether a KeyPackage of a group that is made anew is within its lifetime. So it must be
/// after the end of a program, and before the first KeyPackages of it expire.
const BEFORE: Duration = Duration::from_secs(limits::KEY_PACKAGE_LIFETIME - 2 * 86_400);

/// How long after its beginning a program may wish that a group be made anew, in milliseconds: the rest is for carrying it out.
pub(crate) const REINIT_UNTIL_MS: u64 = (limits::KEY_PACKAGE_LIFETIME / 86_400 - 27) * 86_400_000;

/// When programs begin: the same time for all of this process, at the start of a day.
fn start() -> Timestamp {
    static START: OnceLock<Timestamp> = OnceLock::new();
    *START.get_or_init(|| {
        let day = 86_400_000;
        let begin = (SystemTime::now() - BEFORE).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(begin.as_millis()).unwrap_or(0) / day * day)
    })
}

/// Rounds within which everybody must come to rest.
const ROUNDS: usize = 100;

/// Times that everybody says where it stands in the end, in groups in which the server has lied.
const HEARTBEATS: usize = 8;

/// A death after more effects of a step than these is a late one.
const EARLY: u64 = 16;

/// What came of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Clients.
    pub clients: usize,
    /// Members of all groups at the end.
    pub members: usize,
    /// What it comes to.
    pub sums: Sums,
    /// What happened, step by step. It is the same each time.
    pub trace: Vec<String>,
}

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seed {}: {what}\nagain: {}", plan.seed, plan.command())]
pub struct Violation {
    /// The program.
    pub plan: Plan,
    /// What is wrong.
    pub what: String,
    /// What happened before.
    pub trace: Vec<String>,
}

/// The clock, the service and the clients.
pub(crate) struct World {
    pub(crate) around: Surroundings,
    /// Clients that have arrived.
    pub(crate) actors: BTreeMap<usize, Actor>,
    specs: Vec<ClientSpec>,
    sabotage: Sabotage,
    /// Until when clients are cut off.
    outages: BTreeMap<usize, Timestamp>,
}

/// Runs a program, lets everything calm, and checks what must hold then.
///
/// # Errors
/// The first [`Violation`].
pub fn simulate(plan: &Plan) -> Result<Report, Box<Violation>> {
    let program = Program::new(plan);
    let mut trace = Vec::new();
    run(plan, &program, &mut trace).map_err(|stop| {
        let what = match stop {
            Stop::Violation(what) => what,
            Stop::Refused(refusal) => format!("the service refused what is right: {refusal}"),
            stop @ (Stop::Death | Stop::Unreachable | Stop::Alarmed) => format!("the simulation is broken: {stop:?}"),
        };
        Box::new(Violation { plan: plan.clone(), what, trace: std::mem::take(&mut trace) })
    })
}

fn run(plan: &Plan, program: &Program, trace: &mut Vec<String>) -> Result<Report, Stop> {
    let mut world = World::new(plan, program)?;
    let done = world.play(program);
    if done.is_err() {
        world.tell_logs();
    }
    *trace = std::mem::take(&mut world.around.ledger.trace);
    let mut report = done?;
    report.trace = std::mem::take(trace);
    Ok(report)
}

impl World {
    fn new(plan: &Plan, program: &Program) -> Result<Self, Stop> {
        let around = Surroundings {
            server: Server::new(start()).map_err(Stop::Refused)?,
            ledger: Ledger { slots: vec![None; program.slots], ..Ledger::default() },
            weather: Weather::default(),
            witnesses: Witnesses::default(),
            keys: Keys::watch(),
        };
        let mut world = Self {
            around,
            actors: BTreeMap::new(),
            specs: program.clients.clone(),
            sabotage: plan.sabotage,
            outages: BTreeMap::new(),
        };
        for client in program.mentioned() {
            if program.clients.get(client).is_some_and(|spec| !spec.late) {
                world.arrive(client)?;
            }
        }
        Ok(world)
    }

    /// What stands in the groups' logs, for who looks into a violation.
    fn tell_logs(&mut self) {
        for slot in 0..self.around.ledger.slots.len() {
            let Some(channel) = self.around.ledger.slot(slot).map(|known| known.channel) else { continue };
            let Ok((_, entries)) = self.around.server.log(&channel) else { continue };
            let entry = |row: &EntryRow| format!("{} {:?} of epoch {}", row.seq, row.kind, row.epoch);
            let entries: Vec<_> = entries.iter().map(entry).collect();
            self.around.ledger.tell(format!("    the log of group {slot}: {}", entries.join("; ")));
        }
    }

    /// A client comes into being, with the identity key of its user.
    fn arrive(&mut self, client: usize) -> Result<(), Stop> {
        let Some(spec) = self.specs.get(client).copied().filter(|_| !self.actors.contains_key(&client)) else {
            return Ok(());
        };
        let same_user = |other: &&Actor| self.specs.get(other.index()).is_some_and(|known| known.user == spec.user);
        let identity = match self.actors.values().find(same_user).and_then(Actor::identity) {
            Some(identity) => identity,
            None => SigningKey::from_bytes(&random()?),
        };
        self.around.weather = Weather::default();
        self.around.server.crash = None;
        self.around.server.serving = client;
        let slots = self.around.ledger.slots.len();
        let actor = Actor::new(&mut self.around, client, slots, spec, (identity, self.sabotage))?;
        self.around.ledger.clients.insert(client, actor.client().clone());
        self.actors.insert(client, actor);
        Ok(())
    }

    fn play(&mut self, program: &Program) -> Result<Report, Stop> {
        for step in &program.steps {
            self.around.server.pass(step.pause).map_err(Stop::Refused)?;
            self.around.ledger.tell(step.to_string());
            self.around.weather = step.weather.clone();
            self.around.weather.offline =
                self.outages.get(&step.actor).is_some_and(|until| *until > self.around.server.now);
            self.around.server.crash = step.weather.crash;
            self.around.server.serving = step.actor;
            self.step(step)?;
        }
        self.around.weather = Weather::default();
        self.around.server.crash = None;
        self.around.server.end_forks();
        self.around.ledger.stalled.clear();
        self.rest()?;
        check::all(self)
    }

    fn step(&mut self, step: &Step) -> Result<(), Stop> {
        let slot = self.actors.get(&step.actor).map_or(step.slot, |of| of.present(&self.around.ledger, step.slot));
        match step.action {
            Action::Arrive => return self.arrive(step.actor),
            Action::Outage(ms) => {
                self.outages.insert(step.actor, self.around.server.now.plus_ms(ms));
                return Ok(());
            }
            Action::Lie(lie) => return self.lie(step.actor, slot, lie),
            Action::Unite => {
                for slot in self.around.ledger.line(step.slot) {
                    self.unite(slot);
                }
                return Ok(());
            }
            _ => {}
        }
        let target = match step.action {
            Action::Add(other) | Action::Remove(other) => self.actors.get(&other),
            _ => None,
        };
        let target = target.map(|actor| actor.client().user().clone());
        // Who lives in another log breaks the rules there, if at all.
        let victim = self.around.ledger.is_victim(step.actor, slot);
        let others = if victim { 0 } else { self.others(step.actor, slot) };
        let around = &mut self.around;
        let Some(actor) = self.actors.get_mut(&step.actor) else { return Ok(()) };
        // Nobody removes its own user: who goes leaves.
        let own = target.as_ref() == Some(actor.client().user());
        let target = target.filter(|_| !own || matches!(step.action, Action::Add(_)));
        actor.intend(step.offence.filter(|offence| match offence {
            // A commit that nobody can apply is disputed by somebody, if it removes by more than it removes.
            Offence::Flags => others > 3,
            _ => others > 0,
        }));
        let act = |actor: &mut Actor, around: &mut Surroundings| {
            match (step.action, target) {
                (Action::Create, _) => actor.create(around, step.slot)?,
                (Action::Say, _) => actor.say(around, slot)?,
                (Action::Add(_), Some(user)) => actor.add(around, slot, &user)?,
                (Action::Remove(_), Some(user)) => actor.wish(around, slot, Wish::Remove { users: vec![user] })?,
                (Action::Leave, _) => actor.wish(around, slot, Wish::Leave)?,
                (Action::ReInit { switch }, _) => actor.reinit(around, slot, switch)?,
                (Action::Update, _) => actor.wish(around, slot, Wish::Update)?,
                (Action::Rotate, _) => actor.rotate(around)?,
                (Action::Heartbeat, _) => actor.wish(around, slot, Wish::Heartbeat)?,
                (Action::Read, _) => actor.read_group(around, slot)?,
                (Action::Submit, _) => actor.submit(around, slot).map(drop)?,
                (Action::Sync, _) => actor.sync(around)?,
                (Action::Stream(delivery), _) => actor.stream(around, slot, delivery)?,
                _ => {}
            }
            if step.drive {
                actor.drive(around, slot)?;
            }
            actor.offend(around, slot)
        };
        let misdeeds = around.ledger.misdeeds.len();
        let done = act(actor, around);
        actor.intend(None);
        if matches!(done, Err(Stop::Death | Stop::Unreachable)) {
            around.ledger.unseen_since(misdeeds);
        }
        if !self.has_witnesses(step.actor, slot) {
            self.around.ledger.unwitnessed_since(misdeeds);
        }
        let around = &mut self.around;
        let Some(actor) = self.actors.get_mut(&step.actor) else { return Ok(()) };
        match done {
            Err(Stop::Death) => {
                around.ledger.tell(format!("    {} dies", actor.name()));
                around.ledger.forget_signatures(step.actor);
                around.ledger.forget_receipts(step.actor);
                around.ledger.deaths += 1;
                around.ledger.late_deaths += usize::from(around.weather.passed > EARLY);
                actor.die(&around.ledger)
            }
            Err(Stop::Unreachable) => {
                around.ledger.tell(format!("    {} gets no reply", actor.name()));
                Ok(())
            }
            Err(Stop::Alarmed) => Ok(()),
            Ok(()) if step.action == Action::Sync => {
                for slot in (0..around.ledger.slots.len()).filter(|slot| actor.is_active(*slot)) {
                    // Who has asked to leave, or waits for the successor, renews nothing; nor does who lets some time go by after an
                    // annulment.
                    let now = actor.now(&around.server);
                    let waits = |group: &Group| {
                        let leaves = group.intents().any(|intent| intent.wish == Wish::Leave);
                        group.is_frozen() || leaves || group.refresh_due().is_some_and(|due| due > now)
                    };
                    if !actor.group(slot).is_some_and(waits) {
                        around.ledger.must_know_of_stall(step.actor, slot, around.server.now)?;
                    }
                }
                Ok(())
            }
            // A program that goes on after such a refusal would hide it.
            Err(Stop::Refused(refusal)) => actor.refused(around, slot, refusal),
            done => {
                if step.action == Action::Nothing && around.weather.dies() {
                    around.ledger.tell(format!("    {} dies", actor.name()));
                    around.ledger.forget_signatures(step.actor);
                    around.ledger.forget_receipts(step.actor);
                    actor.die(&around.ledger)?;
                }
                done
            }
        }
    }

    /// Other members that are in the same epoch as a client.
    fn others(&self, client: usize, slot: usize) -> usize {
        let epoch = |actor: &Actor| actor.group(slot).filter(|_| actor.is_active(slot)).map(Group::epoch);
        let Some(own) = self.actors.get(&client).and_then(epoch) else { return 0 };
        self.actors.values().filter(|actor| actor.index() != client && epoch(actor) == Some(own)).count()
    }

    /// Whether anybody else is in a group who lives in its true log.
    fn has_witnesses(&self, client: usize, slot: usize) -> bool {
        self.others_in(client, slot).any(|other| !self.around.ledger.is_victim(other, slot))
    }

    /// Who else is in a group, for all that it knows.
    fn others_in(&self, client: usize, slot: usize) -> impl Iterator<Item = usize> {
        let present = move |actor: &&Actor| actor.group(slot).is_some_and(|group| *group.status() != Status::Removed);
        self.actors.values().filter(present).map(Actor::index).filter(move |other| *other != client)
    }

    /// The server begins to lie to a client.
    fn lie(&mut self, client: usize, slot: usize, lie: Lie) -> Result<(), Stop> {
        let Some(actor) = self.actors.get(&client) else { return Ok(()) };
        let server = &mut self.around.server;
        let mut first = None;
        match lie {
            Lie::OldWelcomes | Lie::ForgedWelcome => {
                let posted = server.post_again(actor.inbox(), lie == Lie::ForgedWelcome).map_err(Stop::Refused)?;
                if posted == 0 {
                    return Ok(());
                }
            }
            _ => {
                let Some(group) = actor.group(slot).filter(|_| actor.is_active(slot)) else { return Ok(()) };
                let (channel, place) = (group.profile().channel, group.position().seq);
                if matches!(lie, Lie::Gone | Lie::Stall) && self.around.ledger.is_lied_to(client, slot) {
                    return Ok(());
                }
                if !server.lie(client, channel, place, lie).map_err(Stop::Refused)? {
                    return Ok(());
                }
                first = (lie == Lie::Gone).then(|| place.next());
                if lie == Lie::Stall {
                    let since = (self.around.server.now, self.around.ledger.alarms.len());
                    self.around.ledger.stalled.insert((client, slot), since);
                }
                if lie.is_another_log() {
                    self.around.ledger.victims.insert((client, slot));
                    // Sessions of the other log are of no use.
                    if let Some(actor) = self.actors.get_mut(&client) {
                        actor.hang_up(slot);
                    }
                }
            }
        }
        self.around.ledger.misdeed(Deed::Lied(lie), slot, client, first);
        Ok(())
    }

    /// The server keeps one log of a group again.
    fn unite(&mut self, slot: usize) {
        let Some(channel) = self.around.ledger.slot(slot).map(|known| known.channel) else { return };
        self.around.ledger.stalled.retain(|(_, of), _| *of != slot);
        if self.around.server.unite(&channel) {
            self.around.ledger.tell(format!("    there is one log of group {slot} again"));
            self.actors.values_mut().for_each(|actor| actor.hang_up(slot));
        }
    }

    /// Whether a client lives in another log than the others, and the server sees to it that it stays there.
    fn is_held_apart(&self, client: usize, slot: usize) -> bool {
        let channel = self.around.ledger.slot(slot).map(|known| known.channel);
        self.around.ledger.is_victim(client, slot)
            && channel.is_none_or(|channel| self.around.server.shows_another_log(client, &channel))
    }

    /// Nothing goes wrong any more: everybody catches up until nothing moves.
    fn rest(&mut self) -> Result<(), Stop> {
        self.actors.values_mut().for_each(Actor::hang_up_all);
        let mut before = None;
        let mut told = 0;
        let mut calm = false;
        for _ in 0..ROUNDS {
            // Long enough for everybody's turn to commit what others proposed; and, where nothing moves, to ask once more.
            let pause = match (calm, self.is_frozen()) {
                (false, _) => 60_000,
                (true, false) => 2 * 3_600_000,
                // Where nobody is left who could say that it applied a commit, time settles it.
                (true, true) => 24 * 3_600_000,
            };
            self.around.server.pass(pause).map_err(Stop::Refused)?;
            for (client, actor) in &mut self.actors {
                self.around.server.serving = *client;
                actor.sync(&mut self.around)?;
            }
            let (heads, disputed) = self.heads()?;
            calm = before.as_ref() == Some(&heads) && !disputed;
            if calm && !self.is_busy() {
                // Where nobody talks, what the server hides shows in heartbeats: of who has the longer log, when the others'
                // comes to that place.
                if told == HEARTBEATS || self.around.ledger.victims.is_empty() {
                    return Ok(());
                }
                told += 1;
                calm = false;
                self.heartbeats()?;
            }
            before = Some(heads);
        }
        Err(Stop::violation(format!("somebody's wishes never come to an end: {}", self.open().join(", "))))
    }

    /// Whether a client made a commit that nobody can apply, in a group in which nobody else is, who could dispute it: or only such as the
    /// server keeps in another log.
    pub(crate) fn has_no_judge(&self, client: usize, slot: usize) -> bool {
        let offends = |misdeed: &Misdeed| {
            misdeed.client == client && matches!(misdeed.deed, Deed::Offended(offence) if offence.is_void())
        };
        self.around.ledger.misdeeds_in(slot).any(offends)
            && self.others_in(client, slot).all(|other| self.is_held_apart(other, slot))
    }

    /// Whether a client is in such a group, and its own program cannot follow what it sent.
    pub(crate) fn is_alone_with_its_offence(&self, client: usize, slot: usize) -> bool {
        let stuck = |actor: &Actor| matches!(actor.group(slot).map(Group::status), Some(Status::Stuck { .. }));
        self.actors.get(&client).is_some_and(stuck) && self.has_no_judge(client, slot)
    }

    /// Whether all other members of a group never came, because their Welcomes were no good, or live in another log. Who is
    /// to be let go waits for ever then.
    pub(crate) fn is_among_ghosts(&self, client: usize, slot: usize) -> bool {
        let ledger = &self.around.ledger;
        let ghost = |actor: &Actor| {
            let index = actor.index();
            ledger.is_victim(index, slot) || !actor.is_active(slot)
        };
        let locks_out = |misdeed: &Misdeed| match misdeed.deed {
            Deed::Lied(lie) => lie == Lie::Gone,
            Deed::Offended(offence) => offence.bad_path_secrets().is_some(),
            Deed::Tampered(_) => false,
        };
        // Also before the group was made anew: who was locked out then is in the successor by name.
        let uninvited = |slot| ledger.uninvited.iter().any(|(_, of)| *of == slot);
        let any = |slot| uninvited(slot) || ledger.has_victims(slot) || ledger.misdeeds_in(slot).any(locks_out);
        let own = self.actors.get(&client).and_then(|actor| actor.group(slot));
        let alone = own.and_then(|group| group.members().ok()).is_none_or(|members| members.len() < 2);
        !alone
            && ledger.line_to(slot).into_iter().any(any)
            && self.actors.values().all(|actor| actor.index() == client || ghost(actor))
    }

    /// Whether a client cannot follow a group and knows nobody who can help: all whom it knew are gone, in the same plight, or have removed
    /// it since, which they alone can read. In a branch of its own it may even have removed them.
    pub(crate) fn is_helpless(&self, client: usize, slot: usize) -> bool {
        let Some(own) = self.actors.get(&client) else { return false };
        let stuck = |group: &&Group| matches!(group.status(), Status::Stuck { .. });
        let Some(group) = own.group(slot).filter(stuck) else { return false };
        let lists_us = |theirs: &Group| {
            theirs.members().is_ok_and(|members| members.iter().any(|member| member.client == *own.client()))
        };
        let known = group.whom_to_ask().unwrap_or_default();
        let helps = |actor: &&Actor| {
            known.contains(actor.client())
                && !self.around.ledger.is_victim(actor.index(), slot)
                && actor.is_active(slot)
                && actor.group(slot).is_some_and(lists_us)
        };
        !self.actors.values().any(|actor| helps(&actor))
    }

    /// Whether a client could not follow a group, or lives in another log of it, that the others have left for another one. A member must
    /// add it there anew.
    pub(crate) fn is_left_behind(&self, actor: &Actor, slot: usize) -> bool {
        let ledger = &self.around.ledger;
        let lost = |earlier: usize| {
            let stuck = |group: &Group| matches!(group.status(), Status::Stuck { .. });
            let gone = ledger.slot(earlier).is_some_and(|known| known.successor.is_some());
            gone && (ledger.is_victim(actor.index(), earlier) || actor.group(earlier).is_some_and(stuck))
        };
        let was_in = actor.was_in(slot, ledger);
        // It may have been let into what became of it since.
        let past = || ledger.line(slot).into_iter().skip(1).any(|later| actor.was_in(later, ledger));
        (!was_in || lost(slot)) && (ledger.line_to(slot).into_iter().any(lost) || (!was_in && past()))
    }

    /// Whether somebody who was left behind and knows it can be let in by a member of what the group has become.
    fn can_be_let_in(&self, own: &Actor, slot: usize) -> bool {
        let ledger = &self.around.ledger;
        let Some(group) = own.group(slot).filter(|group| group.wants_rejoin()) else { return false };
        let Some(next) = ledger.line(slot).last().copied().filter(|next| *next != slot) else { return false };
        let lists_us = |theirs: &Group| {
            !theirs.is_frozen()
                && theirs.members().is_ok_and(|members| members.iter().any(|member| member.client == *own.client()))
        };
        let known = group.whom_to_ask().unwrap_or_default();
        let helps = |actor: &Actor| {
            known.contains(actor.client())
                && !ledger.is_victim(actor.index(), next)
                && actor.is_active(next)
                && actor.group(next).is_some_and(lists_us)
        };
        !own.is_active(next) && self.actors.values().any(helps)
    }

    /// Whether anybody has something to do, of those whom the server does not lie to.
    fn is_busy(&self) -> bool {
        let ledger = &self.around.ledger;
        let busy = |actor: &Actor, slot: usize| {
            actor.group(slot).is_some_and(|group| {
                let owes = group.owes_rotation() && actor.is_active(slot);
                owes || group.intents().count() > 0
                    || group.is_frozen()
                    || matches!(group.status(), Status::Stuck { .. })
            }) && !self.is_held_apart(actor.index(), slot)
                && !ledger.is_lost(slot)
                && !self.is_alone_with_its_offence(actor.index(), slot)
                && !self.is_among_ghosts(actor.index(), slot)
                && !self.is_helpless(actor.index(), slot)
                && (!self.is_left_behind(actor, slot) || self.can_be_let_in(actor, slot))
                && !ledger.slot(slot).is_some_and(|known| known.orphan)
        };
        self.actors.values().any(|actor| (0..ledger.slots.len()).any(|slot| busy(actor, slot)))
    }

    /// Whether a group waits for its successor.
    fn is_frozen(&self) -> bool {
        let frozen = |actor: &Actor, slot: usize| actor.group(slot).is_some_and(Group::is_frozen);
        self.actors.values().any(|actor| (0..self.around.ledger.slots.len()).any(|slot| frozen(actor, slot)))
    }

    /// Everybody says where it stands, in groups in which the server has lied.
    fn heartbeats(&mut self) -> Result<(), Stop> {
        for slot in 0..self.around.ledger.slots.len() {
            if !self.around.ledger.has_victims(slot) {
                continue;
            }
            for (client, actor) in &mut self.actors {
                self.around.server.serving = *client;
                actor.wish(&mut self.around, slot, Wish::Heartbeat)?;
            }
        }
        Ok(())
    }

    /// What is still open, for people.
    fn open(&self) -> Vec<String> {
        let mut open = Vec::new();
        for actor in self.actors.values() {
            for slot in 0..self.around.ledger.slots.len() {
                let Some(group) = actor.group(slot) else { continue };
                let of = |group: &Group| group.intents().map(|intent| format!("{:?}", intent.wish)).collect::<Vec<_>>();
                if group.intents().count() > 0 || group.is_frozen() || matches!(group.status(), Status::Stuck { .. }) {
                    open.push(format!(
                        "{} at epoch {} of group {slot}: {:?}, frozen: {}, settled {}, {} open; {}",
                        actor.name(),
                        group.epoch(),
                        group.status(),
                        group.is_frozen(),
                        group.settled_epoch(),
                        group.open_commits(),
                        of(group).join(", ")
                    ));
                }
            }
        }
        open
    }

    /// Where the channels end, and whether time has yet to decide about a commit in one of them.
    fn heads(&mut self) -> Result<(Vec<u64>, bool), Stop> {
        let known: Vec<_> = self.around.ledger.slots.iter().cloned().enumerate().collect();
        let (mut heads, mut disputed) = (Vec::new(), false);
        // Clocks differ, and members wait a little longer.
        let now = Timestamp(self.around.server.now.0.saturating_sub(15 * 60_000));
        for (slot, known) in known.into_iter().filter_map(|(slot, known)| Some((slot, known?))) {
            let (row, entries) = match self.around.server.log(&known.channel) {
                Ok(log) => log,
                // Nobody has told the service yet that a group goes on here.
                Err(_) if known.epoch > Epoch(0) => continue,
                Err(refusal) => return Err(Stop::Refused(refusal)),
            };
            let vouched_for = self.around.ledger.vouched_for(slot);
            if !vouched_for.is_empty() {
                let void = check::void_of(&known, &entries, self.around.server.now)?;
                let taken_back = vouched_for.into_iter().filter(|commit| void.contains(commit));
                self.around.ledger.taken_back.extend(taken_back.map(|commit| (slot, commit)));
            }
            heads.push(row.head.0);
            if let ChannelKind::Group { ledger } = row.kind {
                disputed |= ledger.at(now).open().iter().any(|open| open.disputed().is_some());
            }
        }
        Ok((heads, disputed))
    }
}
