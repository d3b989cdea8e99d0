//! What goes wrong between a client and the service, and when either dies.

use std::fmt;

use conclave_protocol::Refusal;

use crate::hostile::Tamper;

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkFault {
    /// The request never arrives.
    RequestLost,
    /// The service acts, but the reply never arrives.
    ReplyLost,
    /// The client gives up; a submission arrives later all the same, another request never.
    Delayed,
    /// A submission arrives twice; another request once.
    Doubled,
}

/// What ends an action before its time.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The client died.
    Death,
    /// No reply came.
    Unreachable,
    /// The service refused.
    Refused(Refusal),
    /// The client noticed that somebody breaks the rules, and goes no further with this group for now.
    Alarmed,
    /// Something that must never be.
    Violation(String),
}

impl Stop {
    pub(crate) fn violation(what: impl fmt::Display) -> Self {
        Self::Violation(what.to_string())
    }
}

/// The faults of one step, by how many effects and requests precede them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    /// The client dies after so many effects.
    pub(crate) death: Option<u64>,
    /// The request after so many goes wrong.
    pub(crate) fault: Option<(u64, NetworkFault)>,
    /// The server dies after so many effects of its own.
    pub(crate) crash: Option<u64>,
    /// The server lies in its reply after so many requests that the lie could be about.
    pub(crate) tamper: Option<(u64, Tamper)>,
    /// The client is cut off.
    pub(crate) offline: bool,
    /// Places between two effects that were passed.
    pub(crate) passed: u64,
}

fn counted<T: Copy>(countdown: &mut Option<(u64, T)>) -> Option<T> {
    let (left, _) = countdown.as_mut()?;
    if let Some(less) = left.checked_sub(1) {
        *left = less;
        return None;
    }
    countdown.take().map(|(_, what)| what)
}

impl Weather {
    /// A place between two effects, where the client may die.
    pub(crate) fn moment(&mut self) -> Result<(), Stop> {
        self.passed += 1;
        match self.death.as_mut() {
            Some(0) => {
                self.death = None;
                Err(Stop::Death)
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether the client was to die and has not.
    pub(crate) fn dies(&self) -> bool {
        self.death.is_some()
    }

    /// The fault of the request that comes now.
    pub(crate) fn fault(&mut self) -> Option<NetworkFault> {
        if self.offline { Some(NetworkFault::RequestLost) } else { counted(&mut self.fault) }
    }

    /// The lie about what is asked for now, if there is one that suits.
    pub(crate) fn tamper(&mut self, suits: impl FnOnce(Tamper) -> bool) -> Option<Tamper> {
        let (_, tamper) = self.tamper?;
        if suits(tamper) { counted(&mut self.tamper) } else { None }
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((after, fault)) = self.fault {
            write!(f, "; request {after}: {fault:?}")?;
        }
        if let Some(after) = self.crash {
            write!(f, "; the server dies after {after} effects")?;
        }
        if let Some((after, tamper)) = self.tamper {
            write!(f, "; the server lies in reply {after}: {tamper:?}")?;
        }
        if let Some(after) = self.death {
            write!(f, "; dies after {after} effects")?;
        }
        Ok(())
    }
}
