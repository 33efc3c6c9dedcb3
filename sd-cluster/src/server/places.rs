//! Places for connections: a number of them in all, and a number for each peer.
//!
//! A connection that has not said what it wants, or rests between two requests, gives its place to one that comes while there is no other:
//! so no number of them keeps out who has something to say. The peer that has most of them gives first, so that none can take the places of
//! all others.

use std::cmp::Reverse;
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
    of_peers: HashMap<IpAddr, OfPeer>,
}

/// The places of one peer.
#[derive(Debug, Default)]
struct OfPeer {
    count: usize,
    /// Those that may be taken from their holders.
    idle: BTreeSet<u64>,
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
        if let Some(of_peer) = self.of_peers.get_mut(&holder.peer) {
            of_peer.idle.remove(&id);
            of_peer.count -= 1;
            if of_peer.count == 0 {
                self.of_peers.remove(&holder.peer);
            }
        }
        Some(holder)
    }

    /// Has the oldest connection leave that is idle, of this peer or of the one that has most of them. False if there is none.
    fn take_over(&mut self, peer: Option<IpAddr>) -> bool {
        let most_idle = || {
            let peers = self.of_peers.values();
            peers.max_by_key(|one| (one.idle.len(), Reverse(one.idle.first().copied())))
        };
        let from = match peer {
            Some(peer) => self.of_peers.get(&peer),
            None => most_idle(),
        };
        let Some(id) = from.and_then(|from| from.idle.first().copied()) else {
            return false;
        };
        if let Some(holder) = self.remove(id) {
            holder.leave.cancel();
        }
        true
    }

    /// The places of the holder of a place. `None` if it is not taken, or by another one.
    fn of_holder(&mut self, id: u64) -> Option<&mut OfPeer> {
        let holder = self.all.get(&id)?;
        self.of_peers.get_mut(&holder.peer)
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
        let of_peer = taken.of_peers.get(&peer).map_or(0, |one| one.count);
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
        let of_peer = taken.of_peers.entry(peer).or_default();
        of_peer.count += 1;
        of_peer.idle.insert(id);
        Ok(Place {
            places: self.clone(),
            id,
            leave,
            is_taken_over: is_full,
        })
    }
}

impl Place {
    /// The connection has said what it wants: no other gets its place. False if another one has it already.
    pub(super) fn keep(&self) -> bool {
        let mut taken = lock(&self.places.0.taken);
        let Some(of_peer) = taken.of_holder(self.id) else {
            return false;
        };
        of_peer.idle.remove(&self.id);
        true
    }

    /// The connection rests.
    pub(super) fn rest(&self) {
        let mut taken = lock(&self.places.0.taken);
        if let Some(of_peer) = taken.of_holder(self.id) {
            of_peer.idle.insert(self.id);
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
        assert!(kept.keep());
        let (oldest, other) = (take(1).unwrap(), take(2).unwrap());
        assert!(!other.is_taken_over);
        let newest = take(3).unwrap();
        assert!(newest.is_taken_over && oldest.leave.is_cancelled());
        assert!(!other.leave.is_cancelled() && !kept.leave.is_cancelled());
        assert!(newest.keep() && other.keep() && !oldest.keep());
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
        assert!(first.keep());
        let third = take(1).unwrap();
        assert!(third.is_taken_over && second.leave.is_cancelled());
        assert!(third.keep());
        assert_eq!(take(1).unwrap_err(), Full::Peer(2));
        take(2).unwrap();
    }

    #[test]
    fn the_peer_that_has_most_idle_places_gives_one_up_also_for_another_peer() {
        let places = Places::new(4, 4);
        let take = |last| places.take(address(last)).unwrap();
        let oldest = take(2);
        let of_one: Vec<_> = (0..3).map(|_| take(1)).collect();
        let newest = take(1);
        assert!(of_one[0].leave.is_cancelled());
        let other = take(3);
        assert!(of_one[1].leave.is_cancelled());
        for place in [&oldest, &newest, &other] {
            assert!(!place.leave.is_cancelled());
        }
        // What is kept is not idle.
        assert!(of_one[2].keep() && newest.keep());
        let last = take(1);
        assert!(oldest.leave.is_cancelled() && !last.leave.is_cancelled());
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
