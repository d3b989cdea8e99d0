//! What is simulated, as a command line can say it.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::sabotage::Sabotage;

/// Who breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hostile {
    /// Nobody.
    #[default]
    Nobody,
    /// The Delivery Service.
    Server,
    /// Members.
    Members,
    /// Both.
    Both,
}

impl Hostile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nobody, Self::Server, Self::Members, Self::Both];

    /// Whose turn it is with a seed: in half of them, nobody's.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        match seed % 8 {
            1 | 5 => Self::Server,
            3 => Self::Members,
            7 => Self::Both,
            _ => Self::Nobody,
        }
    }

    pub(crate) const fn server(self) -> bool {
        matches!(self, Self::Server | Self::Both)
    }

    pub(crate) const fn members(self) -> bool {
        matches!(self, Self::Members | Self::Both)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Server => "server",
            Self::Members => "members",
            Self::Both => "both",
        }
    }
}

impl fmt::Display for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Hostile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(&Self::ALL, text, Self::name)
    }
}

/// Kinds of trouble, which can be left out of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Clients die between two effects.
    Death,
    /// Requests and replies are lost, late or doubled.
    Network,
    /// Clients are cut off for a while.
    Outage,
    /// The server dies between two effects.
    Crash,
    /// Clients' clocks are wrong.
    Clock,
    /// The server breaks the rules.
    Server,
    /// Members break the rules.
    Members,
    /// Groups are made anew.
    ReInit,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Death, Self::Network, Self::Outage, Self::Crash, Self::Clock, Self::Server, Self::Members, Self::ReInit];

    const fn name(self) -> &'static str {
        match self {
            Self::Death => "death",
            Self::Network => "network",
            Self::Outage => "outage",
            Self::Crash => "crash",
            Self::Clock => "clock",
            Self::Server => "server",
            Self::Members => "members",
            Self::ReInit => "reinit",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Trouble {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(&Self::ALL, text, Self::name)
    }
}

/// The one of that name.
pub(crate) fn one_of<T: Copy>(all: &[T], text: &str, name: impl Fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().copied().find(|one| name(*one) == text);
    found.ok_or_else(|| format!("it is one of: {}", all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ")))
}

/// Numbers of steps, written as `0-3,7`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Numbers(pub BTreeSet<u32>);

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while rest.next_if(|next| Some(*next) == last.checked_add(1)).is_some() {
                last += 1;
            }
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

/// More steps than any program has.
const STEPS_MAX: u32 = 1_000_000;

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.parse::<u32>() {
            Ok(number) if number < STEPS_MAX => Ok(number),
            _ => Err(format!("`{text}` is no number of a step")),
        };
        let mut numbers = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            numbers.extend(number(first)?..=number(last)?);
        }
        Ok(Self(numbers))
    }
}

/// What is left out of a seed's program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cut {
    /// The steps that are left, if not all.
    pub keep: Option<Numbers>,
    /// Steps in which nothing goes wrong.
    pub calm: Numbers,
    /// What goes wrong in no step.
    pub without: BTreeSet<Trouble>,
}

/// What is simulated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Fixes the program.
    pub seed: u64,
    /// Steps before everything calms.
    pub steps: u32,
    /// How likely the network fails, and a client dies, in a step; in percent each.
    pub fault_percent: u64,
    /// Who breaks the rules.
    pub hostile: Hostile,
    /// A fault planted into the clients, to see that it is caught.
    pub sabotage: Sabotage,
    /// What is left out.
    pub cut: Cut,
}

impl Plan {
    /// A seed's program in its usual length and weather.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            steps: 100,
            fault_percent: 20,
            hostile: Hostile::of(seed),
            sabotage: Sabotage::None,
            cut: Cut::default(),
        }
    }

    /// The command that runs it again.
    #[must_use]
    pub fn command(&self) -> String {
        let Self { seed, steps, fault_percent, hostile, sabotage, cut } = self;
        let mut command = format!(
            "cargo run -p conclave-simulator -- --seed {seed} --steps {steps} --faults {fault_percent} \
             --hostile {hostile}"
        );
        let mut option = |name: &str, value: String| {
            if !value.is_empty() {
                command.push_str(&format!(" --{name} {value}"));
            }
        };
        option("sabotage", if *sabotage == Sabotage::None { String::new() } else { sabotage.to_string() });
        option("keep", cut.keep.as_ref().map(Numbers::to_string).unwrap_or_default());
        option("calm", cut.calm.to_string());
        option("without", cut.without.iter().map(Trouble::to_string).collect::<Vec<_>>().join(","));
        command.push_str(" --verbose");
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for text in ["", "7", "0-3,7", "1,3,5-6"] {
            assert_eq!(text.parse::<Numbers>().unwrap().to_string(), text);
        }
        assert_eq!("3,1,2".parse::<Numbers>().unwrap().to_string(), "1-3");
        for text in ["x", "1-", "-1", "4000000000", "1-4000000000"] {
            assert!(text.parse::<Numbers>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_command_says_what_is_left_out() {
        let mut plan = Plan::new(7);
        plan.cut.keep = Some("0-4,9".parse().unwrap());
        plan.cut.without = [Trouble::Crash, Trouble::Death].into();
        let command = plan.command();
        assert!(command.contains("--seed 7 --steps 100 --faults 20 --hostile both --keep 0-4,9 "), "{command}");
        assert!(command.contains("--without death,crash "), "{command}");
    }
}
