//! Which node has the keys of a slot.

use std::ops::RangeInclusive;

use redis::Value;
use sd_core::{Address, Endpoint, Result};

use crate::client::answer::Answers;

/// A Cluster has this many slots.
const SLOTS: u16 = 16384;
/// More nodes than any Cluster has.
const MOST_NODES: usize = 2000;

/// The node of each slot.
#[derive(Debug, Default)]
pub(super) struct SlotMap {
    nodes: Vec<Endpoint>,
    /// For each slot the place of its node in `nodes`, from 1. Empty if nothing is known.
    slots: Vec<u16>,
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

impl SlotMap {
    /// The node of a slot, if one is known.
    pub(super) fn node(&self, slot: u16) -> Option<&Endpoint> {
        let at = self.slots.get(usize::from(slot))?;
        self.nodes.get(usize::from(at.checked_sub(1)?))
    }

    /// The nodes that have slots, or had some.
    pub(super) fn nodes(&self) -> &[Endpoint] {
        &self.nodes
    }

    /// Gives slots to a node.
    pub(super) fn put(&mut self, slots: RangeInclusive<u16>, node: &Endpoint) {
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

/// What a node says of all slots: for each range of them its primary, and then its replicas.
pub(super) fn read_slots(
    op: &'static str,
    asked: &Endpoint,
    answer: Vec<Value>,
) -> Result<SlotMap> {
    let mut known = SlotMap::default();
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
        let shown = |known: &SlotMap, slot| known.node(slot).map(Endpoint::to_string);
        assert_eq!(shown(&known, 99).as_deref(), Some("a:1"));
        assert_eq!(shown(&known, 100).as_deref(), Some("asked:2"));
        known.put(99..=99, &"b:3".parse().unwrap());
        assert_eq!(shown(&known, 99).as_deref(), Some("b:3"));
        assert_eq!(shown(&known, 98).as_deref(), Some("a:1"));
        assert_eq!(shown(&known, 16384), None);
        for odd in [
            Value::Nil,
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![range(0, -1, Value::Nil)]),
        ] {
            assert!(read_slots("test", &asked, vec![odd]).is_err());
        }
    }
}
