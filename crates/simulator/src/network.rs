//! What goes wrong between a client and the service, and when a client dies.

use std::fmt;

use conclave_protocol::Refusal;

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
    death: Option<u64>,
    fault: Option<(u64, NetworkFault)>,
    /// Whether the next commit is one that nobody can apply.
    broken: bool,
}

impl Weather {
    pub(crate) fn new(death: Option<u64>, fault: Option<(u64, NetworkFault)>, broken: bool) -> Self {
        Self { death, fault, broken }
    }

    /// Whether the commit that is made now is one that nobody can apply.
    pub(crate) fn breaks(&mut self) -> bool {
        std::mem::take(&mut self.broken)
    }

    /// A place between two effects, where the client may die.
    pub(crate) fn moment(&mut self) -> Result<(), Stop> {
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
        let (left, _) = self.fault.as_mut()?;
        if let Some(less) = left.checked_sub(1) {
            *left = less;
            return None;
        }
        self.fault.take().map(|(_, fault)| fault)
    }

    /// One request and its reply. Submissions deal with delay themselves, before.
    pub(crate) fn call<T>(
        &mut self,
        fault: Option<NetworkFault>,
        request: impl FnOnce() -> Result<T, Refusal>,
    ) -> Result<T, Stop> {
        self.moment()?;
        let reply = match fault {
            Some(NetworkFault::RequestLost | NetworkFault::Delayed) => return Err(Stop::Unreachable),
            Some(NetworkFault::ReplyLost) => {
                let _lost = request();
                return Err(Stop::Unreachable);
            }
            Some(NetworkFault::Doubled) | None => request(),
        };
        self.moment()?;
        reply.map_err(Stop::Refused)
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((after, fault)) = self.fault {
            write!(f, "; request {after}: {fault:?}")?;
        }
        if self.broken {
            f.write_str("; a broken commit")?;
        }
        if let Some(after) = self.death {
            write!(f, "; dies after {after} effects")?;
        }
        Ok(())
    }
}
