//! Places for connections: a number of them in all, and a number for each peer.
//!
//! A connection that has not said what it wants, or rests between two requests, gives its place to one that comes while there is no other:
//! so no number of them keeps out who has something to say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use sd_core::sync::lock;
use tokio_util::sync::CancellationToken;

/// The bits of an IPv6 address that tell one network from another: a host there has any number of addresses.
const NETWORK: u128 = !((1 << 64) - 1);

/// The peer that an address counts for: itself, or its network of IPv6.
pub(super) fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            Ipv6Addr::from_bits(address.to_bits() & NETWORK).into()
        }
        address => address,
    }
}

/// All places of one kind. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    most_of_peer: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    all: BTreeMap<u64, Holder>,
    /// Those that may be taken from their holders.
    idle: BTreeSet<u64>,
    of_peers: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Holder {
    peer: IpAddr,
    leave: CancellationToken,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// There are so many connections.
    All(usize),
    /// The peer has so many.
    Peer(usize),
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All(most) => write!(f, "there are {most} connections"),
            Self::Peer(most) => write!(f, "{most} connections are from its address"),
        }
    }
}

/// A place. It is idle at first, and free when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    id: u64,
    /// Cancelled when another connection has the place.
    pub(super) leave: CancellationToken,
    /// Whether another connection had to leave for it.
    pub(super) is_taken_over: bool,
}

impl Taken {
    fn remove(&mut self, id: u64) -> Option<Holder> {
        let holder = self.all.remove(&id)?;
        self.idle.remove(&id);
        if let Some(count) = self.of_peers.get_mut(&holder.peer) {
            *count -= 1;
            if *count == 0 {
                self.of_peers.remove(&holder.peer);
            }
        }
        Some(holder)
    }

    /// Has the oldest connection leave that is idle, of this peer or of any. False if there is none.
    fn take_over(&mut self, peer: Option<IpAddr>) -> bool {
        let is_of_peer = |id: &&u64| {
            let holder = self.all.get(*id);
            peer.is_none_or(|peer| holder.is_some_and(|holder| holder.peer == peer))
        };
        let Some(id) = self.idle.iter().find(is_of_peer).copied() else {
            return false;
        };
        if let Some(holder) = self.remove(id) {
            holder.leave.cancel();
        }
        true
    }
}

impl Places {
    pub(super) fn new(most: usize, most_of_peer: usize) -> Self {
        Self(Arc::new(Shared {
            most,
            most_of_peer,
            taken: Mutex::default(),
        }))
    }

    /// A place for a connection from this address.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let peer = peer_of(address);
        let (most, most_of_peer) = (self.0.most, self.0.most_of_peer);
        let mut taken = lock(&self.0.taken);
        let of_peer = taken.of_peers.get(&peer).copied().unwrap_or_default();
        let (from, full) = if most_of_peer < most && of_peer >= most_of_peer {
            (Some(peer), Full::Peer(most_of_peer))
        } else {
            (None, Full::All(most))
        };
        let is_full = from.is_some() || taken.all.len() >= most;
        if is_full && !taken.take_over(from) {
            return Err(full);
        }
        taken.last += 1;
        let id = taken.last;
        let leave = CancellationToken::new();
        let holder = Holder {
            peer,
            leave: leave.clone(),
        };
        taken.all.insert(id, holder);
        taken.idle.insert(id);
        *taken.of_peers.entry(peer).or_default() += 1;
        Ok(Place {
            places: self.clone(),
            id,
            leave,
            is_taken_over: is_full,
        })
    }
}

impl Place {
    /// The connection has said what it wants: no other gets its place.
    pub(super) fn keep(&self) {
        lock(&self.places.0.taken).idle.remove(&self.id);
    }

    /// The connection rests.
    pub(super) fn rest(&self) {
        let mut taken = lock(&self.places.0.taken);
        if taken.all.contains_key(&self.id) {
            taken.idle.insert(self.id);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places.0.taken).remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_connection_that_says_nothing_leaves_for_one_that_comes_and_one_that_has_said_something_stays()
     {
        let places = Places::new(3, 3);
        let take = |last| places.take(address(last));
        let kept = take(1).unwrap();
        kept.keep();
        let (oldest, other) = (take(1).unwrap(), take(2).unwrap());
        assert!(!other.is_taken_over);
        let newest = take(3).unwrap();
        assert!(newest.is_taken_over && oldest.leave.is_cancelled());
        assert!(!other.leave.is_cancelled() && !kept.leave.is_cancelled());
        newest.keep();
        other.keep();
        assert_eq!(take(4).unwrap_err(), Full::All(3));
        kept.rest();
        assert!(take(4).unwrap().is_taken_over && kept.leave.is_cancelled());
        // One whose place is another's gives no place back.
        oldest.rest();
        drop((oldest, kept, other, newest));
        assert!(lock(&places.0.taken).of_peers.is_empty());
    }

    #[test]
    fn one_peer_cannot_have_all_places() {
        let places = Places::new(3, 2);
        let take = |last| places.take(address(last));
        let first = take(1).unwrap();
        let second = take(1).unwrap();
        first.keep();
        let third = take(1).unwrap();
        assert!(third.is_taken_over && second.leave.is_cancelled());
        third.keep();
        assert_eq!(take(1).unwrap_err(), Full::Peer(2));
        take(2).unwrap();
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_an_address_is_the_same_in_both_families() {
        let peer = |address: &str| peer_of(address.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8:0:0:ffff::2"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), address(1));
        assert_eq!(peer("::1").to_string(), "::1");
    }
}
