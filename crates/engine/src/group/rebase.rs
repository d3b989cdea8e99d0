//! What an epoch's end, an annulment, or the end of our membership does to what is under way.

use super::{Group, Status};
use crate::{
    intent::{Prepared, Wish},
    outcome::Event,
};

impl Group {
    /// We are no member any more: nothing of ours is under way. Tells of what people wished and will not get.
    pub(super) fn end(&mut self) -> Vec<Event> {
        self.status = Status::Removed;
        self.touched = true;
        let mut events = Vec::new();
        for (order, intent) in self.intents.clone() {
            self.drop_intent(order);
            let what = match intent.wish {
                Wish::Send { id, .. } => format!("message {id} was not sent"),
                Wish::Add { .. } => "nobody was added".to_owned(),
                Wish::Remove { users } => {
                    let users: Vec<_> = users.iter().map(ToString::to_string).collect();
                    format!("{} not removed", users.join(", "))
                }
                Wish::Update => "keys were not renewed".to_owned(),
                Wish::ReInit { .. } => "the group was not made anew".to_owned(),
                // Who asked to leave has left; the others are of no use to who is no member.
                _ => continue,
            };
            let reason = format!("this client is no member of the group any more: {what}");
            events.push(Event::IntentFailed { intent: intent.id, reason });
        }
        events
    }

    /// A new epoch: what was prepared in the old one is made anew, but for messages that may still be ordered, and for
    /// words about commits.
    pub(super) fn rebase(&mut self) {
        let current = self.epoch();
        let proposed = self.own_removal_proposed();
        let (mut changed, mut withdrawn) = (Vec::new(), Vec::new());
        for (order, intent) in &mut self.intents {
            // What was said in an epoch that was void in between is made of nothing that is kept.
            if intent.wish == Wish::Leave && intent.prepared.is_none() && intent.ordered && !proposed {
                intent.ordered = false;
                changed.push(*order);
            }
            let kept = super::submit::is_message(&intent.wish) || intent.wish.is_verdict();
            let outdated =
                intent.prepared.as_ref().is_some_and(|prepared| super::commit::is_outdated(prepared, current) || !kept);
            if outdated {
                let prepared = intent.prepared.take().filter(|_| intent.wish != Wish::Rejoin);
                withdrawn.extend(prepared.map(|prepared| (intent.wish.clone(), prepared)));
                intent.ordered = false;
                changed.push(*order);
            }
        }
        for (wish, prepared) in &withdrawn {
            self.withdraw(prepared);
            // Without open commits nothing can be annulled, and what comes too late is refused.
            if !self.parents.is_empty() {
                self.overtake(wish, prepared, false);
            }
        }
        for order in changed {
            self.save_intent(order);
        }
    }

    /// The group went back to an earlier epoch: what was prepared in void ones is made anew.
    pub(super) fn unprepare(&mut self, void: impl Fn(&Prepared) -> bool) {
        let (mut changed, mut overtaken) = (Vec::new(), Vec::new());
        for (order, intent) in &mut self.intents {
            if let Some(prepared) = intent.prepared.take_if(|prepared| void(prepared)) {
                overtaken.push((intent.wish.clone(), prepared));
                intent.ordered = false;
                changed.push(*order);
            }
        }
        for (wish, prepared) in &overtaken {
            self.overtake(wish, prepared, true);
        }
        for order in changed {
            self.save_intent(order);
        }
    }
}
