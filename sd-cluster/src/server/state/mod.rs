//! What the service knows, and what changes it. Nothing here waits, nor knows of connections more than where their messages go.
//!
//! The rules are those of isp-config-service 3.9. Where ours differ, the place says why.

mod backend;
mod configs;
mod module;
mod rendered;
mod returning;
mod telling;
mod variables;
mod views;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use sd_core::{Printable, brief};

pub(crate) use self::backend::Backend;
pub(crate) use self::configs::Author;
pub use self::module::StoredConfig;
pub(crate) use self::module::{Module, Schema, StoredModule};
use self::rendered::Rendered;
use self::telling::{Followers, Untold};
pub use self::variables::{Variable, VariableKind};
pub use self::views::{KnownInstance, KnownModule, VariableView};
use super::limits::Limits;
use super::outbox::Outbox;
use super::store::{Closed, Kept, Store};
use crate::etp::message::{MOST_BYTES, is_event_name};
use crate::protocol::declaration::BackendDeclaration;
use crate::protocol::requirements::ModuleRequirements;

/// What is left of a message for its event's name.
const ROOM_FOR_NAMES: usize = 1024;
/// The largest configuration, and the largest of all lists, in bytes.
pub(crate) const MOST_DATA_BYTES: usize = MOST_BYTES - ROOM_FOR_NAMES;
/// The longest name of a module, in bytes.
pub(crate) const MOST_NAME_BYTES: usize = 255;
/// What a module is watched by.
const CONNECTED: &str = "_MODULE_CONNECTED";
const ROUTES_WHEN_CONNECTED: &str = "CONFIG:SEND_ROUTES_WHEN_CONNECTED";
const ROUTES_CHANGED: &str = "CONFIG:SEND_ROUTES_CHANGED";
const CONFIG_WHEN_CONNECTED: &str = "CONFIG:SEND_CONFIG_WHEN_CONNECTED";
const CONFIG_CHANGED: &str = "CONFIG:SEND_CONFIG_CHANGED";

/// A connection of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(u64);

#[derive(Debug)]
struct Session {
    module: Arc<str>,
    outbox: Outbox,
    /// Modules that it follows.
    follows: BTreeSet<Arc<str>>,
    /// Where its declaration stands among the others.
    ready: Option<u64>,
}

/// What the service knows.
#[derive(Debug)]
pub(crate) struct State {
    limits: Limits,
    store: Box<dyn Store>,
    modules: BTreeMap<Arc<str>, Module>,
    variables: BTreeMap<Arc<str>, Variable>,
    stored_bytes: usize,
    /// The events with configurations that those are told who connect, as they are now, of modules that have receivers.
    rendered: Rendered,
    sessions: HashMap<SessionId, Session>,
    /// Who follows a module, which need not be known.
    followers: HashMap<Arc<str>, Followers>,
    /// Who follows the routes.
    routing: BTreeSet<SessionId>,
    /// In the order in which they were declared.
    backends: BTreeMap<u64, Backend>,
    /// Bytes of all that they have declared.
    declared_bytes: usize,
    /// The events with that list as it is now, by name.
    routes: BTreeMap<&'static str, Bytes>,
    last: u64,
    untold: Untold,
    /// Those of the last run that are not back yet, by their places.
    returning: BTreeMap<u64, Arc<str>>,
    /// Places that came or went since they were written.
    unkept: BTreeSet<u64>,
    /// Whether the store lacks what came or went before, because it could not be written.
    is_store_behind: bool,
    names: Names,
}

/// Names of events that all connections share.
#[derive(Debug)]
struct Names {
    routes_when_connected: Arc<str>,
    routes_changed: Arc<str>,
    config_when_connected: Arc<str>,
    config_changed: Arc<str>,
}

impl State {
    pub(crate) fn new(limits: Limits, store: Box<dyn Store>, kept: Kept) -> Self {
        let mut state = Self {
            limits,
            store,
            modules: BTreeMap::new(),
            variables: BTreeMap::new(),
            stored_bytes: 0,
            rendered: Rendered::default(),
            sessions: HashMap::new(),
            followers: HashMap::new(),
            routing: BTreeSet::new(),
            backends: BTreeMap::new(),
            declared_bytes: 0,
            routes: BTreeMap::new(),
            last: 0,
            untold: Untold::default(),
            returning: BTreeMap::new(),
            unkept: BTreeSet::new(),
            is_store_behind: false,
            names: Names {
                routes_when_connected: ROUTES_WHEN_CONNECTED.into(),
                routes_changed: ROUTES_CHANGED.into(),
                config_when_connected: CONFIG_WHEN_CONNECTED.into(),
                config_changed: CONFIG_CHANGED.into(),
            },
        };
        for (name, stored) in kept.modules {
            state.stored_bytes += stored.bytes();
            state.modules.insert(name.into(), Module::of(stored));
        }
        for (name, variable) in kept.variables {
            state.stored_bytes += variable.bytes(&name);
            state.variables.insert(name.into(), variable);
        }
        for (place, declaration) in kept.instances {
            // What is not listed again is not to be kept.
            state.unkept.insert(place);
            state.expect(place, &declaration);
        }
        state
    }

    /// Writes nothing any more, and lets go of the file.
    pub(crate) fn close(&mut self) {
        self.store = Box::new(Closed);
    }

    /// A number larger than all before.
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A connection of the module `name` has begun. Its messages go into `outbox`.
    ///
    /// # Errors
    /// The module cannot be known. What the connection asks for is answered with this.
    pub(crate) fn connect(&mut self, name: &str, outbox: Outbox) -> Result<SessionId, String> {
        if !self.modules.contains_key(name) {
            self.check_new(name)?;
        }
        let id = SessionId(self.next());
        let name: Arc<str> = match self.modules.get_key_value(name) {
            Some((name, _)) => Arc::clone(name),
            None => name.into(),
        };
        let module = self.modules.entry(Arc::clone(&name)).or_default();
        module.sessions.insert(id);
        module.last_connected_at = Some(SystemTime::now());
        let session = Session {
            module: name,
            outbox,
            follows: BTreeSet::new(),
            ready: None,
        };
        self.sessions.insert(id, session);
        Ok(id)
    }

    /// Whether a module of this name can be known.
    fn check_new(&self, name: &str) -> Result<(), String> {
        check_module_name(name)?;
        let known = self.modules.len();
        if known < self.limits.modules {
            return Ok(());
        }
        Err(format!(
            "no room for another module beside {known}: delete those that are gone"
        ))
    }

    /// A connection has ended, however far it had come.
    pub(crate) fn disconnect(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.routing.remove(&id);
        for followed in &session.follows {
            if let Some(followers) = self.followers.get_mut(followed) {
                followers.sessions.remove(&id);
                if followers.sessions.is_empty() {
                    self.followers.remove(followed);
                }
            }
        }
        let name = session.module;
        if let Some(place) = session.ready {
            self.remove_backend(&name, place);
        }
        let Some(module) = self.modules.get_mut(&name) else {
            return;
        };
        module.sessions.remove(&id);
        module.receivers.remove(&id);
        if module.receivers.is_empty() {
            self.rendered.remove(&name);
        }
        module.last_disconnected_at = Some(SystemTime::now());
        self.forget_if_empty(&name);
    }

    /// A module that only looks on leaves nothing, so that names that are made up do not fill the service.
    fn forget_if_empty(&mut self, name: &Arc<str>) {
        let module = self.modules.get(name);
        if module.is_some_and(Module::is_empty) {
            self.modules.remove(name);
        }
    }

    /// `MODULE:SEND_REQUIREMENTS`. A connection follows what it has asked for until it ends.
    ///
    /// # Errors
    /// Too much or something impossible is asked for, and nothing of it is done.
    pub(crate) fn require(
        &mut self,
        id: SessionId,
        requirements: &ModuleRequirements,
    ) -> Result<(), String> {
        let most = self.limits.required_modules;
        let session = self.sessions.get_mut(&id).ok_or_else(ended)?;
        let wanted: BTreeSet<&str> = requirements
            .required_modules
            .iter()
            .map(|name| &**name)
            .collect();
        let more = wanted
            .iter()
            .filter(|name| !session.follows.contains(**name));
        if session.follows.len() + more.count() > most {
            return Err(format!("more than {most} modules are required"));
        }
        wanted.iter().try_for_each(|name| check_module_name(name))?;
        let wanted: Vec<Arc<str>> = wanted
            .into_iter()
            .map(|name| match self.followers.get_key_value(name) {
                Some((known, _)) => Arc::clone(known),
                None => name.into(),
            })
            .collect();
        session.follows.extend(wanted.iter().cloned());
        let outbox = session.outbox.clone();
        for name in wanted {
            let (event, hosts) = self.hosts(&name);
            outbox.event(&event, hosts);
            let followers = self.followers.entry(name).or_default();
            followers.sessions.insert(id);
        }
        if requirements.require_routes {
            let routes = self.routes(ROUTES_WHEN_CONNECTED);
            outbox.event(&self.names.routes_when_connected, routes);
            self.routing.insert(id);
        }
        Ok(())
    }

    /// `MODULE:READY`. When it returns, every list that is made has the module.
    ///
    /// # Errors
    /// The connection has declared something before, or what it declares can serve no reader.
    pub(crate) fn ready(
        &mut self,
        id: SessionId,
        declaration: BackendDeclaration,
    ) -> Result<(), String> {
        let session = self.sessions.get(&id).ok_or_else(ended)?;
        if session.ready.is_some() {
            return Err("upsert backend in store: this connection is ready already: connect again to declare something else".to_owned());
        }
        let name = Arc::clone(&session.module);
        let backend = Backend::new(&name, declaration, self.limits.declaration_bytes)?;
        self.is_back(&name, &backend.declaration.address);
        self.check_routes(&backend)?;
        let place = self.next();
        self.add_backend(&name, place, backend);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.ready = Some(place);
        }
        Ok(())
    }

    /// Whether there is room for one more: the list of all is one message.
    fn check_routes(&self, backend: &Backend) -> Result<(), String> {
        if self.declared_bytes + backend.declared_bytes() <= MOST_DATA_BYTES {
            return Ok(());
        }
        Err(format!(
            "what all modules declare would exceed {MOST_DATA_BYTES} bytes, and no module could read a list of it"
        ))
    }

    fn add_backend(&mut self, name: &Arc<str>, place: u64, backend: Backend) {
        self.declared_bytes += backend.declared_bytes();
        self.backends.insert(place, backend);
        let module = self.modules.entry(Arc::clone(name)).or_default();
        module.backends.insert(place);
        self.unkept.insert(place);
        self.change_list(Arc::clone(name));
    }

    fn remove_backend(&mut self, name: &Arc<str>, place: u64) {
        self.returning.remove(&place);
        self.unkept.insert(place);
        if let Some(backend) = self.backends.remove(&place) {
            self.declared_bytes -= backend.declared_bytes();
        }
        if let Some(module) = self.modules.get_mut(name) {
            module.backends.remove(&place);
        }
        self.change_list(Arc::clone(name));
    }
}

/// The connection was ended while this was on its way.
fn ended() -> String {
    "resolve module id: the connection has ended".to_owned()
}

fn check_module_name(name: &str) -> Result<(), String> {
    let why = match name {
        "" => return Err("the name of a module is empty".to_owned()),
        // Clients of HTTP take them for steps of a path, so that no operator could name the module.
        "." | ".." => "is a step of a path",
        _ if name.len() > MOST_NAME_BYTES => "is longer than 255 bytes",
        _ if name.chars().any(char::is_control) => "has control characters",
        _ if !is_event_name(&format!("{name}{CONNECTED}")) => "cannot be part of an event's name",
        _ => return Ok(()),
    };
    Err(format!(
        "the name {} of a module {why}",
        brief(Printable(name))
    ))
}
