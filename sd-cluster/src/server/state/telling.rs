//! The lists that readers follow, and telling them of changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Backend, CONNECTED, ROUTES_CHANGED, State};
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

impl State {
    /// Tells each reader what has changed since this was called last: each list once, whole and with the newest backends first.
    pub(crate) fn tell(&mut self) {
        let changed = std::mem::take(&mut self.untold.0);
        for name in &changed {
            let Some(followers) = self.followers.get(name) else {
                continue;
            };
            let (event, hosts) = self.hosts(name);
            for follower in followers {
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
    pub(super) fn hosts(&self, name: &Arc<str>) -> (Arc<str>, Bytes) {
        let places = self.modules.get(name).map(|module| &module.backends);
        let places = places.into_iter().flatten().rev();
        let backends = places.filter_map(|place| self.backends.get(place));
        let hosts = list(backends.filter_map(Backend::host));
        let event: Arc<str> = format!("{name}{CONNECTED}").into();
        let message = Message::event(event.as_bytes().to_vec(), hosts);
        (event, message.encode())
    }

    /// The event `event` with all that is declared.
    pub(super) fn routes(&self, event: &'static str) -> Bytes {
        let routes = list(self.backends.values().rev().map(|backend| &*backend.route));
        Message::event(event, routes).encode()
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
