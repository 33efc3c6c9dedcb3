//! What is known of the service that a channel follows.

use std::sync::Arc;

use sd_core::balance::Selection;
use sd_core::{Delta, Error, Snapshot, State, Subscription};

use crate::members::Members;
use crate::ready_set::Condition;
use crate::subchannel::EndpointState;

/// The newest set of the service, as far as this channel connects it.
pub(crate) struct Resolution {
    selection: Selection,
    /// The part of the service that is to be connected.
    to_connect: Snapshot,
    /// The one before, kept until [`drop_outdated`](Self::drop_outdated).
    outdated: Option<Snapshot>,
    /// How many instances the whole service has. `None` while that is unknown.
    registered: Option<usize>,
    /// Why the set is unknown.
    unknown_because: Option<Arc<str>>,
    /// Why the set will not change any more.
    unfollowed_because: Option<Arc<str>>,
}

impl Resolution {
    pub(crate) fn new(subscription: &Subscription, selection: Selection) -> Self {
        let service = subscription.service().clone();
        let as_of = subscription.state().snapshot().as_of();
        Self {
            selection,
            to_connect: Snapshot::unread(service, as_of),
            outdated: None,
            registered: None,
            unknown_because: None,
            unfollowed_because: None,
        }
    }

    /// Takes in what the subscription says. Gives what that changes for this channel's endpoints.
    pub(crate) fn update(&mut self, state: &State) -> Delta {
        if !state.is_known() {
            let error = state.status().error();
            self.unknown_because = error.map(|error| error.report().to_string().into());
            return Delta::default();
        }
        let new = self.selection.to_connect(state.snapshot());
        let delta = Delta::between(&self.to_connect, &new);
        self.registered = Some(state.snapshot().len());
        self.outdated = Some(std::mem::replace(&mut self.to_connect, new));
        delta
    }

    /// For when calls have the newest set: to drop one of thousands of instances takes as long as all that is done for it before.
    pub(crate) fn drop_outdated(&mut self) {
        self.outdated = None;
    }

    /// The registry was closed, or what follows the service has failed for good. What is known stays.
    pub(crate) fn end(&mut self, error: &Error) {
        let why = format!("the service is no longer followed: {}", error.report());
        self.unfollowed_because = Some(why.into());
    }

    /// What a call does that finds none of these endpoints.
    pub(crate) fn condition(&self, members: &Members) -> Condition {
        let Some(registered) = self.registered else {
            return match &self.unfollowed_because {
                Some(reason) => Condition::Closed {
                    reason: Arc::clone(reason),
                },
                None => Condition::Unresolved {
                    reason: self.unknown_because.clone(),
                },
            };
        };
        let all = members.len();
        let failing = members.count(EndpointState::Failing);
        if failing + members.count(EndpointState::NotReady) < all {
            let reason = members.failure().or(self.unfollowed_because.as_ref());
            return Condition::Usable {
                reason: reason.cloned(),
            };
        }
        let reason = match members.failure() {
            Some(why) => {
                format!("{failing} of {all} endpoints could not be connected, most recently {why}")
            }
            None if all == 0 && registered > 0 => format!(
                "none of the {registered} registered instances has the labels {}",
                self.selection.show_labels()
            ),
            None if all == 0 => "no instance is registered".to_owned(),
            None => format!("no instance is ready ({all} registered)"),
        };
        Condition::Unusable {
            reason: reason.into(),
        }
    }
}
