//! The endpoints of the service, in the order of their ids, as the driver keeps them, as the policy sees them, and as calls see
//! them.

use std::sync::Arc;

use sd_core::balance::{Choice, Policy, Selector};
use sd_core::{Instance, InstanceId};

use crate::member::{Link, Member};
use crate::shared_list::{SharedList, View};
use crate::subchannel::{EndpointState, StateCounts, Subchannel};

/// So many members are put in or taken out one by one; more of them in one pass over all.
const FEW: usize = 64;

/// The members, and the endpoints that are no longer among them but still have connections.
pub(crate) struct Members {
    #[expect(
        clippy::vec_box,
        reason = "for each one that comes or goes, half of the others move"
    )]
    list: Vec<Box<Member>>,
    /// As the policy sees them.
    selector: Selector,
    /// As calls see them.
    shown: SharedList<Arc<Subchannel>>,
    leaving: Vec<Arc<Subchannel>>,
    /// How many endpoints are in which state.
    counts: StateCounts,
    /// The newest reason why a member could not be connected.
    failure: Option<Arc<str>>,
}

impl Members {
    pub(crate) fn new(policy: Arc<dyn Policy>, zone: Option<String>) -> Self {
        Self {
            list: Vec::new(),
            selector: Selector::new(policy, zone),
            shown: SharedList::default(),
            leaving: Vec::new(),
            counts: StateCounts::default(),
            failure: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.list.iter().map(|member| &**member)
    }

    fn position(&self, id: &InstanceId) -> Option<usize> {
        self.list
            .binary_search_by(|member| member.instance.id().cmp(id))
            .ok()
    }

    pub(crate) fn get(&self, id: &InstanceId) -> Option<&Member> {
        self.list.get(self.position(id)?).map(|member| &**member)
    }

    /// What is changed here is seen by others after [`refresh`](Self::refresh).
    pub(crate) fn get_mut(&mut self, id: &InstanceId) -> Option<&mut Member> {
        let position = self.position(id)?;
        self.list.get_mut(position).map(|member| &mut **member)
    }

    /// The link that is or was the place of a member.
    pub(crate) fn link(&mut self, subchannel: &Arc<Subchannel>) -> Option<&mut Link> {
        let Member { link, previous, .. } = self.get_mut(subchannel.target().id())?;
        [Some(link), previous.as_deref_mut()]
            .into_iter()
            .flatten()
            .find(|link| Arc::ptr_eq(&link.subchannel, subchannel))
    }

    /// How many endpoints are in a state.
    pub(crate) fn count(&self, state: EndpointState) -> usize {
        self.counts.of(state)
    }

    pub(crate) fn counts(&self) -> &StateCounts {
        &self.counts
    }

    /// Why the last one that could not be connected could not, while there are such.
    pub(crate) fn failure(&self) -> Option<&Arc<str>> {
        let failing = self.count(EndpointState::Failing) > 0;
        self.failure.as_ref().filter(|_| failing)
    }

    // --- Changes -------------------------------------------------------------------------------------------------------

    /// Puts members in, sorted by their ids.
    pub(crate) fn insert(&mut self, new: Vec<Member>) {
        for member in &new {
            self.counts.moved(None, Some(member.state));
        }
        if new.len() > FEW {
            self.list.extend(new.into_iter().map(Box::new));
            self.list
                .sort_by(|a, b| a.instance.id().cmp(b.instance.id()));
            self.relist();
            return;
        }
        for member in new {
            let id = member.instance.id();
            let place = self.list.partition_point(|other| other.instance.id() < id);
            self.selector.insert(place, member.listed());
            let shown = Arc::clone(&member.shown().subchannel);
            self.shown.insert(place, shown);
            self.list.insert(place, Box::new(member));
        }
    }

    /// Takes members out. `gone` is sorted by id.
    pub(crate) fn remove(&mut self, gone: &[Arc<Instance>]) -> Vec<Member> {
        let mut removed = Vec::with_capacity(gone.len());
        if gone.len() <= FEW {
            for instance in gone {
                if let Some(position) = self.position(instance.id()) {
                    removed.push(*self.list.remove(position));
                    self.selector.remove(position);
                    self.shown.remove(position);
                }
            }
        } else {
            let mut gone = gone.iter().peekable();
            for member in std::mem::take(&mut self.list) {
                let is_gone = gone.next_if(|instance| instance.id() == member.instance.id());
                if is_gone.is_some() {
                    removed.push(*member);
                } else {
                    self.list.push(member);
                }
            }
            self.relist();
        }
        for member in &removed {
            self.counts.moved(Some(member.state), None);
        }
        removed
    }

    /// Takes all members out.
    pub(crate) fn remove_all(&mut self) -> Vec<Member> {
        let all: Vec<_> = self
            .iter()
            .map(|member| Arc::clone(&member.instance))
            .collect();
        self.remove(&all)
    }

    fn relist(&mut self) {
        let members = || self.list.iter();
        self.selector
            .replace(members().map(|member| member.listed()));
        self.shown
            .replace(members().map(|member| Arc::clone(&member.shown().subchannel)));
    }

    /// Brings up to date what others see of a member, after its instance or one of its links changed. It may have failed to connect.
    pub(crate) fn refresh(&mut self, id: &InstanceId, failure: Option<Arc<str>>) {
        let Some(position) = self.position(id) else {
            return;
        };
        let Some(member) = self.list.get_mut(position) else {
            return;
        };
        let connected = member.shown().open > 0;
        // A failure stays until a connection.
        let failing = failure.is_some() || member.state == EndpointState::Failing;
        let ejected = member.link.ejection.is_on();
        let state = EndpointState::of(&member.instance, connected, failing, ejected);
        self.counts.moved(Some(member.state), Some(state));
        member.state = state;
        member.link.subchannel.stand(state, failure.clone());
        self.selector.update(position, member.listed());
        let shown = &member.shown().subchannel;
        let as_before = self.shown.get(position);
        if as_before.is_none_or(|before| !Arc::ptr_eq(before, shown)) {
            self.shown.set(position, Arc::clone(shown));
        }
        self.failure = failure.or(self.failure.take());
    }

    /// Notes an endpoint that is no longer a member, or a place that a member has left, until its last connection has ended.
    pub(crate) fn leave(&mut self, subchannel: Arc<Subchannel>) {
        subchannel.stand(EndpointState::Draining, None);
        self.counts.moved(None, Some(EndpointState::Draining));
        self.leaving.push(subchannel);
    }

    /// Says whether the endpoint was leaving.
    pub(crate) fn left(&mut self, subchannel: &Arc<Subchannel>) -> bool {
        let before = self.leaving.len();
        self.leaving.retain(|other| !Arc::ptr_eq(other, subchannel));
        let was_leaving = self.leaving.len() < before;
        if was_leaving {
            self.counts.moved(Some(EndpointState::Draining), None);
        }
        was_leaving
    }

    // --- What others see -----------------------------------------------------------------------------------------------

    pub(crate) fn selector(&self) -> &Selector {
        &self.selector
    }

    pub(crate) fn shown(&mut self) -> View<Arc<Subchannel>> {
        self.shown.view()
    }

    pub(crate) fn leaving(&self) -> Arc<[Arc<Subchannel>]> {
        self.leaving.as_slice().into()
    }

    pub(crate) fn choose(&mut self) -> Choice {
        self.selector.choose()
    }
}
