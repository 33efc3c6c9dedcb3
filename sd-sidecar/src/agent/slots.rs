//! What a process wants its agent to have, beside what the agent has accepted: pure, without I/O.

use std::sync::Arc;
use std::time::Duration;

use super::error::AgentError;
use super::status::ServiceStatus;
use crate::wire::ServiceNode;

/// What is wanted for one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Serving,
    Draining(Option<Duration>),
    Gone,
}

/// One service.
#[derive(Debug)]
struct Slot {
    id: u64,
    node: Arc<ServiceNode>,
    wanted: Wanted,
    /// What an agent may have of it, from any connection, and should not: as it was under other names, or at other ports.
    superseded: Vec<Arc<ServiceNode>>,
    /// What an agent may have of it, from any connection.
    sent: Option<Arc<ServiceNode>>,
    /// What the agent of this connection has accepted.
    confirmed: Option<Arc<ServiceNode>>,
    /// Whether it has accepted the drain that is wanted.
    drained: bool,
    /// Requests that are under way, and may be done whenever.
    asking: usize,
    error: Option<String>,
}

/// What is to be asked next of the agent.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Register(Arc<ServiceNode>),
    Drain(Arc<ServiceNode>, Option<Duration>),
    Deregister(Arc<ServiceNode>),
}

/// An [`Ask`] of one service over one connection.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) slot: u64,
    connection: u64,
    pub(crate) ask: Ask,
}

/// All services of a process.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    all: Vec<Slot>,
    next_id: u64,
    /// Counts the connections, and is 0 while there is none.
    connection: u64,
    connections: u64,
}

impl Slots {
    /// Wants this service. One that is to go, and that an agent takes for the same, stays: what is under way for it is waited for then.
    pub(crate) fn add(&mut self, node: ServiceNode) -> u64 {
        let mut leaving = self.all.iter().filter(|slot| slot.wanted == Wanted::Gone);
        let same = leaving.find(|slot| is_same(&slot.node, &node));
        if let Some(id) = same.map(|slot| slot.id) {
            self.update(id, node);
            return id;
        }
        let id = self.next_id;
        self.next_id += 1;
        let sent = self.take_over(&node, id);
        self.all.push(Slot {
            id,
            node: Arc::new(node),
            wanted: Wanted::Serving,
            superseded: Vec::new(),
            sent,
            confirmed: None,
            drained: false,
            asking: 0,
            error: None,
        });
        id
    }

    /// Another service that is wanted has this name and this port.
    pub(crate) fn is_taken(&self, node: &ServiceNode, by_other_than: Option<u64>) -> bool {
        let others = self
            .all
            .iter()
            .filter(|slot| Some(slot.id) != by_other_than);
        others
            .into_iter()
            .any(|slot| slot.wanted != Wanted::Gone && is_same(&slot.node, node))
    }

    /// Wants it to be as `node`, and to be there if it was to go. False if there is no such service.
    pub(crate) fn update(&mut self, id: u64, node: ServiceNode) -> bool {
        if self.slot(id).is_none() {
            return false;
        }
        let taken_over = self.take_over(&node, id);
        let Some(slot) = self.slot(id) else {
            return false;
        };
        let own = slot.give_up(&node);
        slot.supersede(&node);
        slot.sent = own.or(taken_over);
        slot.node = Arc::new(node);
        if slot.wanted == Wanted::Gone {
            slot.wanted = Wanted::Serving;
        }
        // An agent may take it for a service that wants calls.
        slot.drained = false;
        true
    }

    /// Has no other service take out what an agent may have of `node`.
    fn take_over(&mut self, node: &ServiceNode, id: u64) -> Option<Arc<ServiceNode>> {
        let others = self.all.iter_mut().filter(|slot| slot.id != id);
        let taken_over = others.fold(None, |found, other| other.give_up(node).or(found));
        self.drop_gone();
        taken_over
    }

    pub(crate) fn node(&self, id: u64) -> Option<Arc<ServiceNode>> {
        let slot = self.all.iter().find(|slot| slot.id == id)?;
        Some(Arc::clone(&slot.node))
    }

    /// Each service that is not to go.
    pub(crate) fn wanted(&self) -> Vec<(u64, Arc<ServiceNode>)> {
        let wanted = self.all.iter().filter(|slot| slot.wanted != Wanted::Gone);
        wanted
            .map(|slot| (slot.id, Arc::clone(&slot.node)))
            .collect()
    }

    /// Each service, also those that are to go.
    pub(crate) fn all(&self) -> Vec<u64> {
        self.all.iter().map(|slot| slot.id).collect()
    }

    /// Each service that an agent may have.
    pub(crate) fn known(&self) -> Vec<u64> {
        let known = self.all.iter().filter(|slot| slot.may_be_known());
        known.map(|slot| slot.id).collect()
    }

    /// Drops each service that no agent may have.
    pub(crate) fn forget_unknown(&mut self) {
        self.all.retain(Slot::may_be_known);
    }

    /// Wants one to drain, and returns what is to be asked for it.
    pub(crate) fn drain(&mut self, id: u64, grace: Option<Duration>) -> Vec<Step> {
        let connection = self.connection;
        let Some(slot) = self.slot(id).filter(|slot| slot.wanted != Wanted::Gone) else {
            return Vec::new();
        };
        slot.wanted = Wanted::Draining(grace);
        slot.drained = false;
        slot.steps(connection, |node| Ask::Drain(node, grace))
    }

    /// Wants one to be gone, and returns what is to be asked for it.
    pub(crate) fn remove(&mut self, id: u64) -> Vec<Step> {
        let connection = self.connection;
        let Some(slot) = self.slot(id) else {
            return Vec::new();
        };
        slot.wanted = Wanted::Gone;
        slot.steps(connection, Ask::Deregister)
    }

    /// A connection has begun, or its agent wants to be told everything again.
    pub(crate) fn connected(&mut self) {
        self.connections += 1;
        self.connection = self.connections;
        self.forget();
    }

    pub(crate) fn disconnected(&mut self) {
        self.connection = 0;
        self.forget();
    }

    /// What an agent of another connection has accepted says nothing.
    fn forget(&mut self) {
        for slot in &mut self.all {
            slot.confirmed = None;
            slot.drained = false;
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection > 0
    }

    /// Whether the agent has accepted all that is wanted, and something is wanted.
    pub(crate) fn are_registered(&self) -> bool {
        let mut wanted = self
            .all
            .iter()
            .filter(|slot| slot.wanted != Wanted::Gone)
            .peekable();
        self.is_connected() && wanted.peek().is_some() && wanted.all(Slot::is_confirmed)
    }

    /// What to ask next for one of the services that are not among `tried`. Nothing without a connection.
    pub(crate) fn next(&self, tried: &[u64]) -> Option<Step> {
        if !self.is_connected() {
            return None;
        }
        let mut untried = self.all.iter().filter(|slot| !tried.contains(&slot.id));
        untried.find_map(|slot| {
            Some(Step {
                slot: slot.id,
                connection: self.connection,
                ask: slot.next()?,
            })
        })
    }

    /// Notes that this is asked for now, and that the agent may have it from now on.
    pub(crate) fn sending(&mut self, step: &Step) {
        if let Some(slot) = self.slot(step.slot) {
            slot.asking += 1;
        }
        if let Ask::Register(node) = &step.ask {
            self.sent_is(step.slot, node);
        }
    }

    /// Notes what came of a step.
    pub(crate) fn done(&mut self, step: &Step, result: &Result<(), AgentError>) {
        let is_current = step.connection == self.connection;
        let is_done = result.is_ok();
        match &step.ask {
            // It may have been taken out meanwhile, and was done after that.
            Ask::Register(node) => self.sent_is(step.slot, node),
            // So may what another service has registered meanwhile, whether or not there was an answer.
            Ask::Deregister(node) => self.register_again(step.slot, node),
            Ask::Drain(..) => {}
        }
        let Some(slot) = self.slot(step.slot) else {
            return;
        };
        slot.error = result.as_ref().err().map(ToString::to_string);
        match &step.ask {
            Ask::Register(node) if is_done && is_current => {
                slot.confirmed = Some(Arc::clone(node));
            }
            Ask::Drain(node, grace) if is_done && is_current && is_same(node, &slot.node) => {
                slot.drained = slot.wanted == Wanted::Draining(*grace);
            }
            Ask::Deregister(node) if is_done => {
                slot.superseded.retain(|known| !is_same(known, node));
                slot.sent.take_if(|known| is_same(known, node));
                slot.confirmed.take_if(|known| is_same(known, node));
            }
            Ask::Register(_) | Ask::Drain(..) | Ask::Deregister(_) => {}
        }
    }

    /// The agent may have `node` of this service from now on, unless it is another's by now.
    fn sent_is(&mut self, id: u64, node: &Arc<ServiceNode>) {
        let is_anothers = self
            .all
            .iter()
            .any(|slot| slot.id != id && slot.wanted != Wanted::Gone && is_same(&slot.node, node));
        if let Some(slot) = self.slot(id).filter(|_| !is_anothers) {
            slot.sent_is(node);
        }
    }

    /// What the agent has accepted, or is about to, counts for nothing for services other than this that it takes for `node`.
    fn register_again(&mut self, id: u64, node: &ServiceNode) {
        let others = self.all.iter_mut().filter(|slot| slot.id != id);
        for other in others.filter(|slot| is_same(&slot.node, node)) {
            other.node = Arc::new((*other.node).clone());
            other.drained = false;
        }
    }

    /// Notes that a step is not under way any more, whether or not it was answered.
    pub(crate) fn settled(&mut self, step: &Step) {
        if let Some(slot) = self.slot(step.slot) {
            slot.asking -= 1;
        }
        self.drop_gone();
    }

    fn drop_gone(&mut self) {
        self.all
            .retain(|slot| slot.wanted != Wanted::Gone || slot.may_be_known());
    }

    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        self.all.iter_mut().find(|slot| slot.id == id)
    }

    pub(crate) fn status(&self) -> Vec<ServiceStatus> {
        let is_connected = self.is_connected();
        let status = |slot: &Slot| ServiceStatus {
            name: slot.node.options.service.name.clone(),
            port: slot.node.options.server_port,
            registered: is_connected && slot.wanted != Wanted::Gone && slot.is_confirmed(),
            draining: matches!(slot.wanted, Wanted::Draining(_)),
            leaving: slot.wanted == Wanted::Gone,
            error: slot.error.clone(),
        };
        self.all.iter().map(status).collect()
    }
}

impl Slot {
    /// What the agent has under another name, or at another port, than `node` is to go.
    fn supersede(&mut self, node: &ServiceNode) {
        self.superseded.retain(|known| !is_same(known, node));
        if let Some(sent) = self.sent.take_if(|sent| !is_same(sent, node)) {
            self.superseded.push(sent);
        }
    }

    /// What an agent may have of `node`.
    fn give_up(&mut self, node: &ServiceNode) -> Option<Arc<ServiceNode>> {
        let mut given_up = self.sent.take_if(|known| is_same(known, node));
        self.superseded.retain(|known| {
            let is_given_up = is_same(known, node);
            if is_given_up {
                given_up = Some(Arc::clone(known));
            }
            !is_given_up
        });
        given_up
    }

    /// Asks the same for all that an agent may have of it. Where that is nothing, for what is wanted.
    fn steps(&self, connection: u64, ask: impl Fn(Arc<ServiceNode>) -> Ask) -> Vec<Step> {
        let known = self.superseded.iter().chain(&self.sent);
        let mut nodes: Vec<_> = known.map(Arc::clone).collect();
        if nodes.is_empty() {
            nodes.push(Arc::clone(&self.node));
        }
        let step = |node| Step {
            slot: self.id,
            connection,
            ask: ask(node),
        };
        nodes.into_iter().map(step).collect()
    }

    /// The agent may have `node` from now on.
    fn sent_is(&mut self, node: &Arc<ServiceNode>) {
        if is_same(node, &self.node) {
            self.supersede(node);
            self.sent = Some(Arc::clone(node));
        } else if !self.superseded.iter().any(|known| is_same(known, node)) {
            // It was renamed while it was registered.
            self.superseded.push(Arc::clone(node));
        }
    }

    /// Whether an agent may have something of it.
    fn may_be_known(&self) -> bool {
        self.sent.is_some() || !self.superseded.is_empty() || self.asking > 0
    }

    fn is_confirmed(&self) -> bool {
        self.confirmed
            .as_ref()
            .is_some_and(|confirmed| Arc::ptr_eq(confirmed, &self.node))
    }

    fn next(&self) -> Option<Ask> {
        if self.asking > 0 {
            return None;
        }
        let node = || Arc::clone(&self.node);
        if self.wanted == Wanted::Gone {
            let known = self.superseded.first().or(self.sent.as_ref());
            return known.map(|known| Ask::Deregister(Arc::clone(known)));
        }
        // What is new is there before what was goes.
        if !self.is_confirmed() {
            // Unless it is of another application: an agent lets none take over what is another's.
            let in_the_way = self.superseded.iter();
            let mut in_the_way = in_the_way.filter(|known| is_anothers_place(known, &self.node));
            return Some(match in_the_way.next() {
                Some(known) => Ask::Deregister(Arc::clone(known)),
                None => Ask::Register(node()),
            });
        }
        if let Wanted::Draining(grace) = self.wanted
            && !self.drained
        {
            return Some(Ask::Drain(node(), grace));
        }
        let superseded = self.superseded.first()?;
        Some(Ask::Deregister(Arc::clone(superseded)))
    }
}

/// Whether both want one name and port, for two applications.
fn is_anothers_place(one: &ServiceNode, other: &ServiceNode) -> bool {
    let (one, other) = (&one.options, &other.options);
    one.service.name == other.service.name
        && one.server_port == other.server_port
        && one.app.id != other.app.id
}

/// Whether an agent takes the two for one registration.
fn is_same(one: &ServiceNode, other: &ServiceNode) -> bool {
    let key = |node: &ServiceNode| {
        let options = &node.options;
        (
            options.service.name.clone(),
            options.server_port,
            options.app.id.clone(),
            options.app.instance_id.clone(),
        )
    };
    key(one) == key(other)
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
