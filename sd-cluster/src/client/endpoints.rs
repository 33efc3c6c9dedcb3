//! Whose turn it is.

use std::sync::atomic::{AtomicUsize, Ordering};

use sd_core::Endpoint;

/// The config services, in turns: each attempt to connect goes to the next one, from a random one on. So the clients of a service that is
/// gone spread over the others.
#[derive(Debug)]
pub(crate) struct Endpoints {
    all: Vec<Endpoint>,
    next: AtomicUsize,
}

impl Endpoints {
    pub(crate) fn new(mut all: Vec<Endpoint>) -> Self {
        fastrand::shuffle(&mut all);
        Self {
            all,
            next: AtomicUsize::new(0),
        }
    }

    /// The one whose turn it is. `None` if there are none.
    pub(crate) fn next(&self) -> Option<&Endpoint> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.all.get(turn.checked_rem(self.all.len())?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_attempt_goes_to_the_next_endpoint() {
        let all: Vec<Endpoint> = ["a:1", "b:1", "c:1"].map(|one| one.parse().unwrap()).into();
        let endpoints = Endpoints::new(all.clone());
        let turn = || endpoints.next().unwrap().to_string();
        let first: Vec<_> = (0..3).map(|_| turn()).collect();
        let second: Vec<_> = (0..3).map(|_| turn()).collect();
        assert_eq!(first, second);
        let named: BTreeSet<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(first.into_iter().collect::<BTreeSet<_>>(), named);
        assert!(Endpoints::new(Vec::new()).next().is_none());
    }
}
