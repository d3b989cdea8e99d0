//! What simulations came to.

/// Of one seed, or the sums over many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Epochs of all groups.
    pub epochs: u64,
    /// Groups in which it was checked that all members agree.
    pub groups: usize,
    /// Those of them of which only the members say who they are, as what the server did to others hides changes from the simulation.
    pub by_word: usize,
    /// Groups in which a commit that nobody can apply stands by a false word.
    pub lost: usize,
    /// Members that were excused from being there, by group.
    pub excused: usize,
    /// How often a client died.
    pub deaths: usize,
    /// Those of them that came after more than 16 effects of a step.
    pub late_deaths: usize,
    /// Messages in the channels.
    pub sent: usize,
    /// Messages that clients have, their own included.
    pub read: usize,
    /// Wishes that came to nothing for a good reason, with the user told.
    pub wishes: usize,
    /// Commits that were annulled.
    pub void: usize,
    /// How often somebody broke the rules.
    pub misdeeds: usize,
    /// How often somebody noticed.
    pub alarms: usize,
    /// Messages and proposals of which it was checked that their keys were never used before.
    pub witnessed: u64,
    /// Commits and other bundles of which that was checked.
    pub handshakes: u64,
    /// How often somebody came back by a commit from outside.
    pub rejoined: usize,
    /// How often a member was asked to let somebody in again.
    pub knocks: usize,
    /// How often somebody was let in again.
    pub readmitted: usize,
    /// How often somebody left a branch that was not the group.
    pub healed: usize,
    /// How often somebody went on in the successor of a group.
    pub succeeded: usize,
    /// Seeds that violate something.
    pub failed: u64,
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.epochs += other.epochs;
        self.groups += other.groups;
        self.by_word += other.by_word;
        self.lost += other.lost;
        self.excused += other.excused;
        self.deaths += other.deaths;
        self.late_deaths += other.late_deaths;
        self.sent += other.sent;
        self.read += other.read;
        self.wishes += other.wishes;
        self.void += other.void;
        self.misdeeds += other.misdeeds;
        self.alarms += other.alarms;
        self.witnessed += other.witnessed;
        self.handshakes += other.handshakes;
        self.rejoined += other.rejoined;
        self.knocks += other.knocks;
        self.readmitted += other.readmitted;
        self.healed += other.healed;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
    }
}
