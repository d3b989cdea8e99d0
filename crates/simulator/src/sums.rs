//! What many simulations came to.

use crate::world::Report;

/// Sums over seeds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sums {
    /// Epochs of all groups.
    pub epochs: u64,
    /// Groups in which it was checked that all members agree.
    pub groups: usize,
    /// Those of them of which only the members say who they are.
    pub by_word: usize,
    /// Groups in which a commit that nobody can apply stands by a false word.
    pub lost: usize,
    /// Members that were excused from being there.
    pub excused: usize,
    /// How often a client died.
    pub deaths: usize,
    /// Those of them that came after more than 16 effects of a step.
    pub late_deaths: usize,
    /// Messages in the channels.
    pub sent: usize,
    /// Messages that clients have.
    pub read: usize,
    /// Wishes that came to nothing for a good reason.
    pub wishes: usize,
    /// Commits that were annulled.
    pub void: usize,
    /// How often somebody broke the rules.
    pub misdeeds: usize,
    /// How often somebody noticed.
    pub alarms: usize,
    /// Messages and proposals whose keys were watched.
    pub witnessed: u64,
    /// Commits whose keys were watched.
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

impl Sums {
    /// Those of one seed.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        Self {
            epochs: report.epochs,
            groups: report.groups,
            by_word: report.by_word,
            lost: report.lost,
            excused: report.excused,
            deaths: report.deaths,
            late_deaths: report.late_deaths,
            sent: report.sent,
            read: report.read,
            wishes: report.wishes_failed,
            void: report.void,
            misdeeds: report.misdeeds,
            alarms: report.alarms,
            witnessed: report.witnessed,
            handshakes: report.handshakes,
            rejoined: report.rejoined,
            knocks: report.knocks,
            readmitted: report.readmitted,
            healed: report.healed,
            succeeded: report.succeeded,
            failed: 0,
        }
    }
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
