//! Servers that are tried one after the other, beginning with the one that did well last.
//!
//! A server that swallows what it is sent costs a caller all of its time, and the caller is mostly dropped before the attempt fails. So a
//! turn that is dropped counts as one that failed: the next caller begins with the next server.

use std::sync::atomic::{AtomicUsize, Ordering};

use sd_core::Endpoint;

/// Where to begin.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    /// Grows. Its remainder is a place in the list of servers.
    first: AtomicUsize,
}

/// An attempt at one server. The next caller begins with another one unless it [went well](Self::went_well).
pub(super) struct Turn<'a> {
    rotation: &'a Rotation,
    at: usize,
    server: &'a Endpoint,
    is_over: bool,
}

impl Rotation {
    /// Begins anywhere, so that many processes do not all begin with the same server.
    pub(super) fn from_any() -> Self {
        let first = AtomicUsize::new(fastrand::usize(..1 << 16));
        Self { first }
    }

    /// A turn for each of these servers.
    pub(super) fn turns<'a>(
        &'a self,
        servers: &'a [Endpoint],
    ) -> impl Iterator<Item = Turn<'a>> + Send {
        let first = self.first.load(Ordering::Relaxed);
        (0..servers.len()).filter_map(move |turn| {
            let at = first.wrapping_add(turn);
            Some(Turn {
                rotation: self,
                at,
                server: servers.get(at % servers.len())?,
                is_over: false,
            })
        })
    }

    /// The next caller does not begin with this server. Called twice for one failure, it does no more.
    pub(super) fn leave(&self, servers: &[Endpoint], server: &Endpoint) {
        let first = self.first.load(Ordering::Relaxed);
        let is_first = |first: usize| servers.get(first % servers.len().max(1)) == Some(server);
        if is_first(first) {
            self.pass(first);
        }
    }

    /// The next caller begins with this server.
    pub(super) fn prefer(&self, servers: &[Endpoint], server: &Endpoint) {
        let first = self.first.load(Ordering::Relaxed);
        let mut turns = (0..servers.len()).map(|turn| first.wrapping_add(turn));
        if let Some(at) = turns.find(|at| servers.get(at % servers.len()) == Some(server)) {
            self.first.store(at, Ordering::Relaxed);
        }
    }

    /// Others that fail at the same time, or later, must not undo what one has found: only the first counts.
    fn pass(&self, at: usize) {
        let next = at.wrapping_add(1);
        let (set, read) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.first.compare_exchange(at, next, set, read);
    }
}

impl Turn<'_> {
    pub(super) fn server(&self) -> &Endpoint {
        self.server
    }

    /// The next caller begins here as well.
    pub(super) fn went_well(mut self) {
        self.is_over = true;
        self.rotation.first.store(self.at, Ordering::Relaxed);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.rotation.pass(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> Vec<Endpoint> {
        ["a:1", "b:1", "c:1"]
            .map(|server| server.parse().unwrap())
            .into()
    }

    fn first(rotation: &Rotation, servers: &[Endpoint]) -> String {
        let turn = rotation.turns(servers).next().unwrap();
        let server = turn.server().to_string();
        turn.went_well();
        server
    }

    #[test]
    fn a_turn_that_is_dropped_or_fails_makes_the_next_server_the_first() {
        let (rotation, servers) = (Rotation::default(), servers());
        assert_eq!(first(&rotation, &servers), "a:1");
        drop(rotation.turns(&servers).next());
        assert_eq!(first(&rotation, &servers), "b:1");
        // The third went well.
        rotation.turns(&servers).nth(1).unwrap().went_well();
        assert_eq!(first(&rotation, &servers), "c:1");
        assert_eq!(rotation.turns(&servers).count(), 3);
        assert_eq!(first(&rotation, &servers), "c:1");
    }

    #[test]
    fn those_that_fail_at_once_move_on_by_one() {
        let (rotation, servers) = (Rotation::default(), servers());
        let [one, two] = [(), ()].map(|()| rotation.turns(&servers).next());
        drop((one, two));
        assert_eq!(first(&rotation, &servers), "b:1");
        rotation.leave(&servers, &servers[1]);
        rotation.leave(&servers, &servers[1]);
        assert_eq!(first(&rotation, &servers), "c:1");
        // One that fails late does not undo what went well meanwhile.
        let late = rotation.turns(&servers).next();
        rotation.turns(&servers).nth(2).unwrap().went_well();
        drop(late);
        assert_eq!(first(&rotation, &servers), "b:1");
        rotation.prefer(&servers, &servers[0]);
        assert_eq!(first(&rotation, &servers), "a:1");
        // One that is not named changes nothing.
        rotation.prefer(&servers[..2], &servers[2]);
        assert_eq!(first(&rotation, &servers), "a:1");
        rotation.leave(&[], &servers[1]);
        rotation.prefer(&[], &servers[1]);
        assert_eq!(rotation.turns(&[]).count(), 0);
    }
}
