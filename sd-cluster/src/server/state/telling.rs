//! The lists that readers follow, and telling them of changes. Each list is made once for each change, and all who are told it share it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Backend, CONNECTED, ROUTES_CHANGED, SessionId, State};
use crate::etp::message::Message;

/// What has changed since it was told last.
#[derive(Debug, Default)]
pub(super) struct Untold(BTreeSet<Arc<str>>);

impl Untold {
    /// An instance of this module has come or gone.
    pub(super) fn change(&mut self, module: Arc<str>) {
        self.0.insert(module);
    }
}

/// Who follows a module.
#[derive(Debug, Default)]
pub(super) struct Followers {
    pub(super) sessions: BTreeSet<SessionId>,
    /// The event that they are told, as it is now, with its name.
    list: Option<(Arc<str>, Bytes)>,
}

impl State {
    /// An instance of this module has come or gone.
    pub(super) fn change_list(&mut self, module: Arc<str>) {
        self.routes.clear();
        if let Some(followers) = self.followers.get_mut(&module) {
            followers.list = None;
        }
        self.untold.change(module);
    }

    /// Tells each reader what has changed since this was called last: each list once, whole and with the newest backends first.
    pub(crate) fn tell(&mut self) {
        let changed = std::mem::take(&mut self.untold.0);
        for name in &changed {
            if !self.followers.contains_key(name) {
                continue;
            }
            let (event, hosts) = self.hosts(name);
            let followers = self.followers.get(name);
            for follower in followers.into_iter().flat_map(|all| &all.sessions) {
                if let Some(session) = self.sessions.get(follower) {
                    session.outbox.event(&event, hosts.clone());
                }
            }
        }
        if !changed.is_empty() && !self.routing.is_empty() {
            let routes = self.routes(ROUTES_CHANGED);
            for follower in &self.routing {
                if let Some(session) = self.sessions.get(follower) {
                    let name = &self.names.routes_changed;
                    session.outbox.event(name, routes.clone());
                }
            }
        }
    }

    /// The event with all hosts of a module, which need not be known.
    pub(super) fn hosts(&mut self, name: &Arc<str>) -> (Arc<str>, Bytes) {
        let followers = self.followers.get(name);
        if let Some(made) = followers.and_then(|followers| followers.list.clone()) {
            return made;
        }
        let places = self.modules.get(name).map(|module| &module.backends);
        let places = places.into_iter().flatten().rev();
        let backends = places.filter_map(|place| self.backends.get(place));
        let hosts = list(backends.filter_map(Backend::host));
        let event: Arc<str> = format!("{name}{CONNECTED}").into();
        let message = Message::event(event.as_bytes().to_vec(), hosts);
        let made = (event, message.encode());
        if let Some(followers) = self.followers.get_mut(name) {
            followers.list = Some(made.clone());
        }
        made
    }

    /// The event `event` with all that is declared.
    pub(super) fn routes(&mut self, event: &'static str) -> Bytes {
        if let Some(made) = self.routes.get(event) {
            return made.clone();
        }
        let routes = list(self.backends.values().rev().map(|backend| &*backend.route));
        let made = Message::event(event, routes).encode();
        self.routes.insert(event, made.clone());
        made
    }
}

/// A JSON list of what is JSON already.
fn list<'a>(items: impl Iterator<Item = &'a [u8]>) -> Bytes {
    let mut list = BytesMut::new();
    list.put_u8(b'[');
    for (nth, item) in items.enumerate() {
        if nth > 0 {
            list.put_u8(b',');
        }
        list.put_slice(item);
    }
    list.put_u8(b']');
    list.freeze()
}
