//! What the driver publishes and a call picks from: immutable, replaced as a whole.

use std::fmt;
use std::sync::Arc;

use sd_core::balance::{CallInfo, Choice};

use crate::connection::Connection;
use crate::shared_list::View;
use crate::subchannel::{Place, Subchannel};
use crate::target::Target;

/// The endpoints of a service and which of them take calls.
///
/// Two levels: the members change with the service, which of them are picked changes with every connection. Only numbers are copied
/// for the latter.
#[derive(Debug)]
pub(crate) struct ReadySet {
    pub(crate) members: View<Arc<Subchannel>>,
    /// Removed endpoints with calls in flight.
    pub(crate) leaving: Arc<[Arc<Subchannel>]>,
    /// Among the members.
    pub(crate) choice: Choice,
    /// How many members are ready for calls, and how many want some.
    pub(crate) ready: usize,
    pub(crate) wanted: usize,
    pub(crate) condition: Condition,
}

/// What a call does that finds no endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The set is unknown: waits.
    Unresolved { reason: Option<Arc<str>> },
    /// An endpoint takes calls or is connecting: waits.
    Usable { reason: Option<Arc<str>> },
    /// No endpoint is there, wants calls and can be reached: fails.
    Unusable { reason: Arc<str> },
    /// The channel was closed, or its task has ended: fails.
    Closed { reason: Arc<str> },
}

impl Condition {
    /// Why calls find no endpoint, or not all of them.
    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::Closed { reason } | Self::Unusable { reason } => Some(reason),
            Self::Unresolved { reason } | Self::Usable { reason } => reason.as_deref(),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved { reason: None } => f.write_str("the instances are not known yet"),
            Self::Unresolved { reason: Some(why) } => {
                write!(f, "the instances are not known yet: {why}")
            }
            Self::Usable { reason: None } => f.write_str("usable"),
            Self::Usable { reason: Some(why) } => write!(f, "partly usable: {why}"),
            Self::Unusable { reason } | Self::Closed { reason } => f.write_str(reason),
        }
    }
}

/// What looking for an endpoint came to.
pub(crate) enum Pick {
    /// A place on a connection, which must be left.
    On(Arc<Connection>),
    /// Every ready endpoint carries as many calls as it may.
    Full,
    /// No endpoint takes calls.
    None,
}

/// The endpoints that a call has tried in vain.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    targets: Vec<Arc<Target>>,
}

impl Tried {
    pub(crate) fn add(&mut self, target: &Arc<Target>) {
        if !self.contains(target) {
            self.targets.push(Arc::clone(target));
        }
    }

    fn contains(&self, target: &Arc<Target>) -> bool {
        self.targets.iter().any(|tried| Arc::ptr_eq(tried, target))
    }
}

impl ReadySet {
    /// The set of a channel that knows nothing yet.
    pub(crate) fn unresolved() -> Self {
        Self {
            members: View::default(),
            leaving: Arc::default(),
            choice: Choice::default(),
            ready: 0,
            wanted: 0,
            condition: Condition::Unresolved { reason: None },
        }
    }

    /// The same, of which nothing takes calls any more.
    pub(crate) fn closed(&self, reason: Arc<str>) -> Self {
        Self {
            members: self.members.clone(),
            leaving: Arc::clone(&self.leaving),
            choice: Choice::default(),
            ready: 0,
            wanted: self.wanted,
            condition: Condition::Closed { reason },
        }
    }

    /// Takes a place at the endpoint that the policy picks. One that was tried gets another call only if no other endpoint can take
    /// it. Adds to `full` those endpoints that should get another connection.
    pub(crate) fn pick(
        &self,
        call: &CallInfo<'_>,
        tried: &Tried,
        full: &mut Vec<Arc<Subchannel>>,
    ) -> Pick {
        let member = |index: usize| self.members.get(index);
        let has_tried = |index| member(index).is_some_and(|one| tried.contains(one.target()));
        let mut some_full = false;
        let place = self.choice.pick(call, has_tried, |index| {
            let member = member(index)?;
            match member.enter() {
                Place::On(connection) => return Some(connection),
                Place::Full { ask } => {
                    some_full = true;
                    if ask {
                        full.push(Arc::clone(member));
                    }
                }
                Place::None => {}
            }
            None
        });
        match place {
            Some(connection) => Pick::On(connection),
            None if some_full => Pick::Full,
            None => Pick::None,
        }
    }
}
