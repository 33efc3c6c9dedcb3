//! Memory of large messages that are under way, over all connections of a service: what is half received, what waits to be handled, and what
//! its peers take slowly.
//!
//! One that was begun is never refused: when there is no room for it, the connections whose messages are under way for longest are ended,
//! until there is. So a peer that sends or takes on purpose slowly loses its place, and one that just came does not. What many connections
//! are sent is in memory once, and counts once.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use sd_core::sync::lock;
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;

use crate::etp::frame::{Frame, FrameCodec, FrameError, ROOM};
use crate::etp::message::MOST_BYTES;

/// Less than this and a single message has no room.
const LEAST_BYTES: usize = 2 * MOST_BYTES;

/// What all connections share.
#[derive(Clone, Debug)]
pub(crate) struct InFlight(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most_bytes: usize,
    most_bytes_of_peer: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    last: u64,
    /// In the order in which they began.
    messages: BTreeMap<u64, Message>,
    all: Sum,
    of_peers: HashMap<IpAddr, Sum>,
}

/// A message that is under way on one connection.
#[derive(Debug)]
struct Message {
    peer: IpAddr,
    what: What,
    bytes: usize,
    end: CancellationToken,
}

/// What tells one piece of memory from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    /// That of one connection alone.
    Own(u64),
    /// Where it begins: several connections may be sent the same.
    At(usize),
}

/// Bytes of messages, each piece of memory counted once.
#[derive(Debug, Default)]
struct Sum {
    bytes: usize,
    /// How many connections hold it, and its bytes.
    pieces: HashMap<What, (usize, usize)>,
}

impl Sum {
    fn add(&mut self, what: What, bytes: usize) {
        let (holders, _) = self.pieces.entry(what).or_insert((0, bytes));
        *holders += 1;
        if *holders == 1 {
            self.bytes += bytes;
        }
    }

    fn is_alone(&self, what: What) -> bool {
        self.pieces
            .get(&what)
            .is_some_and(|(holders, _)| *holders == 1)
    }

    fn remove(&mut self, what: What) {
        let Some((holders, bytes)) = self.pieces.get_mut(&what) else {
            return;
        };
        *holders -= 1;
        if *holders == 0 {
            self.bytes -= *bytes;
            self.pieces.remove(&what);
        }
    }
}

impl Held {
    fn add(&mut self, id: u64, message: Message) {
        self.all.add(message.what, message.bytes);
        let of_peer = self.of_peers.entry(message.peer).or_default();
        of_peer.add(message.what, message.bytes);
        self.messages.insert(id, message);
    }

    fn remove(&mut self, id: u64) -> Option<Message> {
        let message = self.messages.remove(&id)?;
        self.all.remove(message.what);
        if let Some(of_peer) = self.of_peers.get_mut(&message.peer) {
            of_peer.remove(message.what);
            if of_peer.pieces.is_empty() {
                self.of_peers.remove(&message.peer);
            }
        }
        Some(message)
    }

    fn of_peer(&self, peer: IpAddr) -> usize {
        self.of_peers.get(&peer).map_or(0, |sum| sum.bytes)
    }

    /// Ends the connection whose message began first, of this peer or of any, other than `but`. One that frees something goes before those
    /// that share what others have. False if there is none.
    fn end_oldest(&mut self, peer: Option<IpAddr>, but: u64) -> bool {
        let candidates = || {
            let all = self.messages.iter();
            all.filter(|(id, message)| **id != but && peer.is_none_or(|peer| message.peer == peer))
        };
        let mut alone = candidates().filter(|(_, message)| self.all.is_alone(message.what));
        let oldest = alone.next().or_else(|| candidates().next());
        let Some(id) = oldest.map(|(id, _)| *id) else {
            return false;
        };
        if let Some(message) = self.remove(id) {
            message.end.cancel();
        }
        true
    }
}

impl InFlight {
    /// Room for so many bytes, of all peers and of each. At least two messages have room.
    pub(crate) fn new(most_bytes: usize, most_bytes_of_peer: usize) -> Self {
        Self(Arc::new(Shared {
            most_bytes: most_bytes.max(LEAST_BYTES),
            most_bytes_of_peer: most_bytes_of_peer.max(LEAST_BYTES),
            held: Mutex::default(),
        }))
    }

    /// The part of one connection from `peer`.
    pub(crate) fn account(&self, peer: IpAddr) -> Account {
        Account {
            shared: Arc::clone(&self.0),
            peer,
            end: CancellationToken::new(),
        }
    }

    /// Bytes that are held.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        lock(&self.0.held).all.bytes
    }
}

/// What one connection has under way.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    shared: Arc<Shared>,
    peer: IpAddr,
    /// Cancelled when the connection has to end, because others need the room.
    end: CancellationToken,
}

impl Account {
    /// Waits until the connection has to end. Cancel-safe.
    pub(crate) async fn ended(&self) {
        self.end.cancelled().await;
    }

    /// Counts a message that is to be sent, if it is large.
    pub(crate) fn sending(&self, message: &Bytes) -> Option<Part> {
        (message.len() > ROOM).then(|| {
            let what = What::At(message.as_ptr() as usize);
            self.begin(|_| what, message.len(), Some(message.clone()))
        })
    }

    fn begin(&self, what: impl FnOnce(u64) -> What, bytes: usize, memory: Option<Bytes>) -> Part {
        let mut held = lock(&self.shared.held);
        held.last += 1;
        let id = held.last;
        let message = Message {
            peer: self.peer,
            what: what(id),
            bytes,
            end: self.end.clone(),
        };
        self.make_room(&mut held, id, message);
        Part {
            account: self.clone(),
            id,
            bytes,
            _memory: memory,
        }
    }

    fn make_room(&self, held: &mut Held, id: u64, message: Message) {
        held.add(id, message);
        while held.of_peer(self.peer) > self.shared.most_bytes_of_peer
            && held.end_oldest(Some(self.peer), id)
        {}
        while held.all.bytes > self.shared.most_bytes && held.end_oldest(None, id) {}
    }
}

/// A message that counts as long as this lives.
#[derive(Debug)]
pub(crate) struct Part {
    account: Account,
    id: u64,
    bytes: usize,
    /// So that nothing else is where it is, as long as it counts.
    _memory: Option<Bytes>,
}

impl Part {
    /// More of the message has come. It is as old as it was.
    fn grow(&mut self, bytes: usize) {
        if bytes <= self.bytes {
            return;
        }
        self.bytes = bytes;
        let mut held = lock(&self.account.shared.held);
        // It is not there if its connection has to end.
        if let Some(message) = held.remove(self.id) {
            let message = Message { bytes, ..message };
            self.account.make_room(&mut held, self.id, message);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        lock(&self.account.shared.held).remove(self.id);
    }
}

/// Reads frames, and counts large messages while they come.
#[derive(Debug)]
pub(crate) struct Counting {
    codec: FrameCodec,
    account: Option<Account>,
    coming: Option<Part>,
}

impl Counting {
    /// `None` counts nothing.
    pub(crate) fn new(codec: FrameCodec, account: Option<Account>) -> Self {
        Self {
            codec,
            account,
            coming: None,
        }
    }

    /// What the message counts that came last, which goes on as long as the message is kept.
    pub(crate) fn take(&mut self) -> Option<Part> {
        self.coming.take()
    }
}

impl Decoder for Counting {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if let Some(account) = &self.account {
            let bytes = source.capacity() + self.codec.begun_bytes();
            match &mut self.coming {
                _ if bytes <= 2 * ROOM => self.coming = None,
                Some(coming) => coming.grow(bytes),
                none => *none = Some(account.begin(What::Own, bytes, None)),
            }
        }
        self.codec.decode(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn message(mebibytes: usize) -> Bytes {
        vec![0; mebibytes * MIB].into()
    }

    fn is_over(account: &Account) -> bool {
        account.end.is_cancelled()
    }

    #[test]
    fn what_is_under_way_for_longest_makes_room_first_that_of_its_own_peer_before_others() {
        let all = InFlight::new(16 * MIB, 8 * MIB);
        let send = |last| {
            let account = all.account(peer(last));
            let part = account.sending(&message(4)).unwrap();
            (account, part)
        };
        let (other, _other) = send(1);
        let (first, _first) = send(2);
        let (second, _second) = send(2);
        assert!(![&other, &first, &second].into_iter().any(is_over));
        let (third, _third) = send(2);
        assert!(is_over(&first) && !is_over(&second) && !is_over(&other));
        let (_, _fourth) = send(3);
        assert!(!is_over(&other));
        let (newest, _fifth) = send(4);
        assert!(is_over(&other) && !is_over(&second) && !is_over(&third) && !is_over(&newest));
        assert_eq!(all.bytes(), 16 * MIB);
    }

    #[test]
    fn what_many_are_sent_counts_once_and_no_longer_than_one_of_them_has_it() {
        let all = InFlight::new(16 * MIB, 16 * MIB);
        let (list, small) = (message(4), Bytes::from_static(b"small"));
        let accounts: Vec<_> = (0..200).map(|nth| all.account(peer(nth))).collect();
        let mut parts: Vec<_> = accounts.iter().map(|one| one.sending(&list)).collect();
        assert_eq!(all.bytes(), 4 * MIB);
        assert!(!accounts.iter().any(is_over) && accounts[0].sending(&small).is_none());
        parts.truncate(1);
        assert_eq!(all.bytes(), 4 * MIB);
        parts.clear();
        assert_eq!(all.bytes(), 0);
        assert!(lock(&all.0.held).of_peers.is_empty());
    }

    #[test]
    fn who_shares_a_list_with_others_goes_after_who_has_a_message_alone() {
        let all = InFlight::new(8 * MIB, 8 * MIB);
        let list = message(4);
        let readers: Vec<_> = (0..3).map(|_| all.account(peer(1))).collect();
        let _sent: Vec<_> = readers.iter().map(|one| one.sending(&list)).collect();
        let (slow, new) = (all.account(peer(2)), all.account(peer(3)));
        let _first = slow.sending(&message(4)).unwrap();
        let _second = new.sending(&message(4)).unwrap();
        assert!(is_over(&slow) && !is_over(&new) && !readers.iter().any(is_over));
    }

    #[test]
    fn a_message_counts_from_its_first_bytes_to_the_end_of_its_handling() {
        use tungstenite::protocol::Role;

        let all = InFlight::new(16 * MIB, 16 * MIB);
        let account = all.account(peer(1));
        let codec = FrameCodec::new(Role::Client, MOST_BYTES);
        let mut counting = Counting::new(codec, Some(account));
        let mut source = BytesMut::from(&b"\x81\x7f\x00\x00\x00\x00\x00\x10\x00\x00"[..]);
        assert_eq!(counting.decode(&mut source).unwrap(), None);
        // What is announced is not there yet.
        assert_eq!(all.bytes(), 0);
        source.extend_from_slice(&vec![b'x'; MIB / 2]);
        assert_eq!(counting.decode(&mut source).unwrap(), None);
        assert!((MIB / 2..2 * MIB).contains(&all.bytes()), "{}", all.bytes());
        source.extend_from_slice(&vec![b'x'; MIB / 2]);
        assert!(counting.decode(&mut source).unwrap().is_some());
        let handled = counting.take();
        assert_eq!(counting.decode(&mut source).unwrap(), None);
        assert!(all.bytes() >= MIB);
        drop(handled);
        assert_eq!(all.bytes(), 0);
    }
}
