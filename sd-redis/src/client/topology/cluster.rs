//! A Redis Cluster: which node has the keys of a slot.

use std::sync::Mutex;
use std::time::Duration;

use redis::{Pipeline, Value};
use sd_core::sync::lock;
use sd_core::{Address, Endpoint, Error, ErrorKind, Result};
use tokio::time::{Instant, timeout};

use crate::client::answer::Answers;
use crate::client::connection::{Dialer, Link, Purpose};
use crate::client::error::translate;
use crate::client::topology::rotation::Rotation;
use crate::client::topology::standalone::none_of;

/// A Cluster has this many slots.
const SLOTS: u16 = 16384;
/// How often the nodes are asked at most for the slots, where none of them can be reached for example.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// More nodes than any Cluster has.
const MOST_NODES: usize = 2000;

/// What is known of the nodes.
#[derive(Debug)]
pub(crate) struct Cluster {
    named: Vec<Endpoint>,
    of_named: Rotation,
    known: Mutex<Known>,
    of_known: Rotation,
    asking: tokio::sync::Mutex<()>,
}

/// A node that is dialled. The slots are asked for again unless it [answers](Self::answered), also if the call is dropped.
struct Dialled<'a> {
    cluster: &'a Cluster,
    has_answered: bool,
}

#[derive(Debug, Default)]
struct Known {
    nodes: Vec<Endpoint>,
    /// For each slot the place of its node in `nodes`, from 1. Empty if nothing is known.
    slots: Vec<u16>,
    is_doubted: bool,
    asked: Option<Instant>,
}

/// The slot of a key: of what it has in its first braces, or else of all of it.
pub(crate) fn slot_of(key: &str) -> u16 {
    let tagged = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty());
    crc16(tagged.unwrap_or(key).as_bytes()) % SLOTS
}

/// CRC-16/XMODEM, as the Cluster's specification says.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

impl Cluster {
    pub(crate) fn new(named: Vec<Endpoint>) -> Self {
        Self {
            named,
            of_named: Rotation::from_any(),
            known: Mutex::default(),
            of_known: Rotation::from_any(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// The primary of a slot.
    pub(crate) async fn node(
        &self,
        op: &'static str,
        dialer: &Dialer,
        slot: u16,
    ) -> Result<Endpoint> {
        if let Some(node) = lock(&self.known).certain(slot) {
            return Ok(node);
        }
        let _turn = self.asking.lock().await;
        let was_asked = {
            let known = lock(&self.known);
            if let Some(node) = known.certain(slot) {
                return Ok(node);
            }
            let is_recent = |asked: Instant| asked.elapsed() < SHORTEST_PAUSE;
            known.asked.is_some_and(is_recent)
        };
        if !was_asked {
            let asked = self.ask(op, dialer).await;
            lock(&self.known).asked = Some(Instant::now());
            // What was known before may still be right.
            if let Err(error) = asked
                && lock(&self.known).node(slot).is_none()
            {
                return Err(error);
            }
        }
        let node = lock(&self.known).node(slot);
        node.ok_or_else(|| {
            let why = format!("no node of the Cluster serves slot {slot}: look at CLUSTER INFO");
            Error::new(ErrorKind::Unavailable, op).because(why)
        })
    }

    /// Asks one node after the other for the slots of all.
    async fn ask(&self, op: &'static str, dialer: &Dialer) -> Result<()> {
        let (known, named) = self.nodes();
        let mut failed = Vec::new();
        // Each time another one is asked first: one that is cut off from the others tells what was.
        for turn in self
            .of_known
            .turns(&known)
            .chain(self.of_named.turns(&named))
        {
            match ask_node(op, dialer, turn.server()).await {
                Ok(known) => {
                    *lock(&self.known) = known;
                    return Ok(());
                }
                Err(error) => failed.push(error),
            }
        }
        Err(none_of(op, failed))
    }

    /// Those that are known, and the others that are named.
    fn nodes(&self) -> (Vec<Endpoint>, Vec<Endpoint>) {
        let known = lock(&self.known).nodes.clone();
        let named = self.named.iter().filter(|named| !known.contains(named));
        let named = named.cloned().collect();
        (known, named)
    }

    /// Connects to a node. One that is a replica now answers with where its slots are.
    pub(crate) async fn open(
        &self,
        op: &'static str,
        dialer: &Dialer,
        node: &Endpoint,
    ) -> Result<Link> {
        let dialled = Dialled {
            cluster: self,
            has_answered: false,
        };
        let link = dialer.dial(op, node, Purpose::Commands).await?;
        dialled.answered();
        Ok(link)
    }

    /// Connects to the first node that is there: what is published at one of them is told at all.
    pub(crate) async fn open_any(
        &self,
        op: &'static str,
        dialer: &Dialer,
        purpose: Purpose,
    ) -> Result<Link> {
        let (known, named) = self.nodes();
        let mut failed = Vec::new();
        for turn in self
            .of_known
            .turns(&known)
            .chain(self.of_named.turns(&named))
        {
            match dialer.dial(op, turn.server(), purpose.clone()).await {
                Ok(link) => return Ok(link),
                Err(error) => failed.push(error),
            }
        }
        Err(none_of(op, failed))
    }

    /// Where the slots are is asked for again.
    pub(crate) fn doubt(&self) {
        lock(&self.known).is_doubted = true;
    }

    /// Mostly one of several slots that have moved: the others are asked for before the next request.
    pub(crate) fn note_moved(&self, slot: u16, node: &Endpoint) {
        let mut known = lock(&self.known);
        known.put(slot..=slot, node);
        known.is_doubted = true;
    }
}

impl Dialled<'_> {
    fn answered(mut self) {
        self.has_answered = true;
    }
}

impl Drop for Dialled<'_> {
    fn drop(&mut self) {
        if !self.has_answered {
            self.cluster.doubt();
        }
    }
}

impl Known {
    fn node(&self, slot: u16) -> Option<Endpoint> {
        let at = self.slots.get(usize::from(slot))?;
        self.nodes.get(usize::from(at.checked_sub(1)?)).cloned()
    }

    /// The node of a slot, unless it is to be asked for.
    fn certain(&self, slot: u16) -> Option<Endpoint> {
        self.node(slot).filter(|_| !self.is_doubted)
    }

    fn put(&mut self, slots: std::ops::RangeInclusive<u16>, node: &Endpoint) {
        let at = match self.nodes.iter().position(|known| known == node) {
            Some(at) => at,
            None if self.nodes.len() < MOST_NODES => {
                self.nodes.push(node.clone());
                self.nodes.len() - 1
            }
            None => return,
        };
        self.slots.resize(usize::from(SLOTS), 0);
        let place = u16::try_from(at + 1).unwrap_or_default();
        for slot in slots {
            if let Some(known) = self.slots.get_mut(usize::from(slot)) {
                *known = place;
            }
        }
    }
}

async fn ask_node(op: &'static str, dialer: &Dialer, node: &Endpoint) -> Result<Known> {
    let link = dialer.dial(op, node, Purpose::Commands).await?;
    let mut question = Pipeline::new();
    question.cmd("CLUSTER").arg("SLOTS");
    let limit = dialer.config().connect_timeout;
    let answered = timeout(limit, link.send(&question)).await;
    let answered = answered.map_err(|_| {
        let why = format!("{node} did not say within {limit:?} where the slots are");
        Error::new(ErrorKind::Timeout, op).because(why)
    })?;
    read_slots(op, node, answered.map_err(|error| translate(op, error))?)
}

/// What a node says of all slots: for each range of them its primary, and then its replicas.
fn read_slots(op: &'static str, asked: &Endpoint, answer: Vec<Value>) -> Result<Known> {
    let mut known = Known::default();
    let mut ranges = Answers::new(op, answer).list()?;
    while ranges.len() > 0 {
        let mut range = ranges.list()?;
        let (first, last) = (range.number()?, range.number()?);
        let mut primary = range.list()?;
        // One that does not know its own address names none.
        let host = match primary.text() {
            Ok(host) if !host.is_empty() && host != "?" => host,
            _ => match asked.address() {
                Address::Tcp { host, .. } => host.to_owned(),
                _ => continue,
            },
        };
        let node = Endpoint::tcp(&host, primary.number()?).map_err(|_| primary.odd())?;
        known.put(first..=last, &node);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_a_key_is_that_of_what_is_in_its_braces() {
        // From the specification of the Cluster.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of("foo"), 12182);
        assert_eq!(slot_of("services:{foo}:records"), slot_of("foo"));
        assert_eq!(slot_of("{user1000}.following"), slot_of("user1000"));
        assert_eq!(slot_of("foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of("foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
    }

    #[test]
    fn each_slot_has_the_node_that_was_named_last() {
        let asked: Endpoint = "asked:7000".parse().unwrap();
        let text = |text: &str| Value::BulkString(text.into());
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let range =
            |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let answer = vec![
            range(0, 99, node(text("a"), 1)),
            range(100, 16383, node(Value::Nil, 2)),
        ];
        let mut known = read_slots("test", &asked, vec![Value::Array(answer)]).unwrap();
        let shown = |known: &Known, slot| known.node(slot).map(|node| node.to_string());
        assert_eq!(shown(&known, 99).as_deref(), Some("a:1"));
        assert_eq!(shown(&known, 100).as_deref(), Some("asked:2"));
        known.put(99..=99, &"b:3".parse().unwrap());
        assert_eq!(shown(&known, 99).as_deref(), Some("b:3"));
        assert_eq!(shown(&known, 98).as_deref(), Some("a:1"));
        assert_eq!(shown(&known, 16384), None);
        known.is_doubted = true;
        assert!(known.certain(98).is_none() && known.node(98).is_some());
        for odd in [
            Value::Nil,
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![range(0, -1, Value::Nil)]),
        ] {
            assert!(read_slots("test", &asked, vec![odd]).is_err());
        }
    }
}
